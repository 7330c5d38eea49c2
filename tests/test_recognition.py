import re

import numpy as np
import pandas as pd
import pytest
from simulate import STRAIGHT, reuse_engines  # noqa: F401

from bayesicl import CurveWarning, InputError, Settings, fit, predict, read_curves
from bayesicl.recognition import recognition, verdict

SHOTS = np.array([0, 1, 2, 4, 8, 16, 32])
SETTINGS = Settings(warmup=200, draws=300)


def counts(curves: dict[str, tuple[float, float]], seed=0) -> pd.DataFrame:
    """Curves of STRAIGHT: name -> a and b."""
    rng = np.random.default_rng(seed)
    tables = []
    for name, (a, b) in curves.items():
        p = a + (b - a) * SHOTS / (SHOTS + 5)
        correct = rng.binomial(2000, p)
        tables.append(
            pd.DataFrame({"task": "t", "hypothesis": name, "shots": SHOTS, "correct": correct})
        )
    return pd.concat(tables).assign(total=2000)


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    path = tmp_path_factory.mktemp("law") / "straight.py"
    path.write_text(STRAIGHT)
    return path


def of(table, law, **more):
    fits = fit(read_curves(table), law, settings=SETTINGS)
    return recognition(fits, law=law, **more), fits


def test_the_share_is_that_of_the_truth(law):
    curves = {"gold": (0.2, 0.8), "random": (0.2, 0.5), "permuted": (0.1, 0.3)}
    table, _ = of(counts(curves), law)
    rows = table.set_index("quantity")
    reached = 32 / 37
    truth = {
        "start": 0.2, "gain, gold": 0.6 * reached, "gain, random": 0.3 * reached,
        "gain, permuted": 0.2 * reached, "learned": 0.3 * reached, "share recognised": 0.5,
    }  # fmt: skip
    assert set(rows.index) == set(truth)
    for name, value in truth.items():
        wide = rows.loc[name, "upper"] - rows.loc[name, "lower"]
        assert rows.loc[name, "median"] == pytest.approx(value, abs=wide)
        assert 0 < wide < 0.12
    assert re.search(
        r"up to 32 shots unpaired labels give 0\.[45]\d \(0\.4\d to 0\.5\d\) of the gain .* add "
        r"0\.[23]\d \(0\.2\d to 0\.[23]\d\) in probability \(90% intervals\)",
        verdict(table),
    )


def test_no_gain_is_not_shared_out(law):
    table, _ = of(counts({"gold": (0.4, 0.4), "random": (0.4, 0.4)}), law)
    share = table.set_index("quantity").loc["share recognised"]
    assert np.isnan(share["median"])
    assert share["note"] == "no gain to share out"
    assert "no gain to share out" in verdict(table)


def test_a_mean_nll_gains_by_falling():
    start = 3 / np.sqrt(SHOTS + 1)
    nll = {"gold": 0.4 + start, "random": 1.9 + start / 2}
    tables = [
        pd.DataFrame({"hypothesis": name, "shots": SHOTS, "mean_nll": y, "se": 0.03})
        for name, y in nll.items()
    ]
    fits = fit(read_curves(pd.concat(tables).assign(task="t")), "manyshot", settings=SETTINGS)
    table = recognition(fits)
    rows = table.set_index("quantity")
    drop = 3 * (1 - 1 / np.sqrt(33))
    assert rows.loc["gain, gold", "median"] == pytest.approx(drop, abs=0.15)
    assert rows.loc["share recognised", "median"] == pytest.approx(0.5, abs=0.05)
    assert set(rows["unit"]) == {"nats", ""}
    if "not converged" not in set(rows["note"]):
        assert re.search(r"which add 1\.[12]\d \(.*\) in nats", verdict(table))


@pytest.mark.parametrize(
    ("without", "told"), [((), ["gold"]), (("gold",), ["random"]), (("gold", "random"), None)]
)
def test_gains_count_from_one_start(without, told, law):
    """What is measured once without demonstrations, and stands in both curves, counts once."""
    table = counts({"gold": (0.2, 0.8), "random": (0.2, 0.5)})
    at_0 = table["shots"] == 0
    table.loc[at_0, "correct"] = table.loc[at_0, "correct"].iloc[0]
    table = table[~(at_0 & table["hypothesis"].isin(without))]
    table, fits = of(table, law)
    rows = table.set_index("quantity")
    draws = predict(fits[0], [0, 32], law=law)["mean"].stack(d=("chain", "draw"))
    both = draws.sel(shots=0)
    start = (both.sel(hypothesis=told) if told else both).mean("hypothesis")
    gold, random = (draws.sel(shots=32, hypothesis=h) for h in ("gold", "random"))
    expected = {
        "start": start, "gain, gold": gold - start, "gain, random": random - start,
        "learned": gold - random,
    }  # fmt: skip
    for name, own in expected.items():
        own = np.quantile(own, [0.5, 0.05, 0.95])
        assert rows.loc[name, ["median", "lower", "upper"]].tolist() == pytest.approx(own)


def test_what_is_extrapolated_is_told(law):
    measured = counts({"gold": (0.2, 0.8), "random": (0.2, 0.5)})
    table, fits = of(measured, law)
    assert set(table["note"]) == {""}
    assert "extrapolated" not in verdict(table)
    far = recognition(fits, at=100, law=law)
    assert far["note"].tolist() == ["", *["extrapolated"] * 4]
    assert "extrapolated beyond the measured shots" in verdict(far)
    table, _ = of(measured[measured["shots"] > 0], law)
    assert set(table["note"]) == {"extrapolated"}
    assert "extrapolated beyond the measured shots" in verdict(table)


def test_behaviours_are_told_apart(law):
    curves = {
        "matching": (0.3, 0.9), "matching, random": (0.3, 0.5),
        "not_matching": (0.3, 0.6), "not_matching, random": (0.3, 0.6),
    }  # fmt: skip
    table, _ = of(counts(curves), law, at=16)
    shares = table[table["quantity"] == "share recognised"].set_index("behaviour")["median"]
    assert shares.to_dict() == pytest.approx({"matching": 1 / 3, "not_matching": 1.0}, abs=0.12)


def test_fits_without_policies_are_refused(law):
    _, fits = of(counts({"gold": (0.2, 0.8), "random": (0.2, 0.5)}), law)
    with pytest.raises(InputError, match="--shots must be at least 1"):
        recognition(fits, at=0)
    one = fit(read_curves(counts({"gold": (0.2, 0.8)})), law, settings=SETTINGS)
    with pytest.raises(InputError, match="its curves are gold; measure gold labels and others"):
        recognition(one, law=law)
    other = counts({"gold": (0.2, 0.8)}).assign(task="other")
    other = fit(read_curves(other), law, settings=SETTINGS)
    left_out = "^other: its curves are gold; there is nothing to compare, left out$"
    with pytest.warns(CurveWarning, match=left_out):
        table = recognition([*other, *fits, *other], law=law)
    pd.testing.assert_frame_equal(table, recognition(fits, law=law))
    table, _ = of(counts({"gold": (0.2, 0.8), "symbol": (0.2, 0.5)}), law)
    assert "no random labels" in verdict(table)
