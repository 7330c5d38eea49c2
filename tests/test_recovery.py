"""Truths drawn from the priors are found again: ranks within bands, intervals that cover.

The long runs (-m slow; one law and kind of study: -k "power-1-counts" and so on) take
BAYESICL_RECOVERY studies, 1000 unless told. Where BAYESICL_RECOVERY_OUT is set they write their
tables to that folder, and go on from what they find there.
"""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import simulate
from scipy import stats

from bayesicl.calibrate import Check, calibrate
from bayesicl.device import precision
from bayesicl.errors import InputError
from bayesicl.law import BAYESIAN, LAWS, load_law
from bayesicl.noise import Noise
from bayesicl.noises import NOISES, kinds_of
from bayesicl.ranks import RANKED, Calibration, Ranked, calibration, ranks_of
from bayesicl.scale import MEAN_NLL
from bayesicl.settings import Settings
from bayesicl.simulate import Layout
from bayesicl.uniformity import p_value

CASES = [(law, H) for law in LAWS for H in (1, 2)]
CASES = [(law, H, kind) for law, H in CASES for kind in kinds_of(load_law(law).scale)]
CASES = [(law, H, kind) for law, H, kind in CASES if H == 1 or law in BAYESIAN]
SHORT = Settings(warmup=200, draws=250)

reuse_engines = simulate.reuse_engines  # a fixture


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "H", "kind"), CASES, ids=["-".join(map(str, case)).replace(" ", "-") for case in CASES]
)
def test_every_law_recovers_its_truths_under_every_noise(law, H, kind):
    n = int(os.environ.get("BAYESICL_RECOVERY", "1000"))
    out = os.environ.get("BAYESICL_RECOVERY_OUT")
    name, begin = f"{law}-{H}-{kind.replace(' ', '-')}", time.perf_counter()
    folder = Path(out, name) if out else None

    def progress(done, what):
        line = f"{time.perf_counter() - begin:7.0f} s  {name}: {done} of {n} studies"
        if done % 25 == 0 and what in ("sampling", "done"):
            print(line, flush=True)

    found = calibrate(
        law, Layout(kind, hypotheses=H), simulations=n, folder=folder, progress=progress
    )
    table = found.table.assign(law=law, hypotheses=H, kind=kind, passed=found.passed.mean())
    if folder:
        table.to_csv(folder / "coverage.csv", index=False)
        found.ranks.to_csv(folder / "ranks.csv", index=False)
        found.truths.to_csv(folder / "truths.csv", index=False)
    print(f"{table.to_string()}\n{found.verdict}")
    assert len(found.ranks) == n, "a study was dropped"
    assert not found.strays, f"{found.verdict}\n{table.to_string()}"
    # A gross failure of one kind of study shows here before it shows in ranks.
    assert found.passed.mean() > 0.9


# -- the machinery itself -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """The file of the law of two parameters."""
    path = tmp_path_factory.mktemp("law") / "straight.py"
    path.write_text(simulate.STRAIGHT)
    return path


@pytest.fixture(scope="module")
def straight(law):
    """Twenty studies of it."""
    return calibrate(law, simulations=20, settings=SHORT)


CURVE = ["p(3)", "p(12)", "p(192)"]


def test_twenty_studies_are_recovered(straight):
    table = straight.table
    assert table["quantity"].tolist() == ["a", "b", "scatter", *CURVE]
    assert straight.ranks.shape == straight.truths.shape == (20, 6)
    assert straight.draws["a"].shape == (20, RANKED)
    assert table["calibrated"].all(), table.to_string()
    assert straight.calibrated is None
    assert "too few simulations to tell" in straight.verdict
    ordered, truth = np.sort(straight.draws["a"]), straight.truths["a"]
    within = (ordered[:, 4] < truth) & (truth < ordered[:, 94])  # of 99: ranks 5 to 94
    assert table["coverage 90%"][0] == within.mean()
    expected = straight.truths["a"] + (straight.truths["b"] - straight.truths["a"]) * 12 / 17
    np.testing.assert_allclose(straight.truths["p(12)"], expected, rtol=1e-12)
    np.testing.assert_allclose(
        straight.draws["p(12)"],
        straight.draws["a"] + (straight.draws["b"] - straight.draws["a"]) * 12 / 17,
    )


SIZES = {
    "replicated counts": ["dispersion", "dispersion_slope", "replicate_sd"],
    "prompts": ["c"],
    "aggregated": ["c"],
    "given se": [],
}


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("rows", [False, True], ids=["declared", "rows"])
def test_studies_of_every_noise_are_recovered(kind, rows, law):
    # Twelve find what is grossly wrong; `pytest -m slow` finds the rest. Seed 0 failed for c.
    found = calibrate(law, Layout(kind), rows=rows, simulations=12, settings=SHORT, seed=1)
    assert list(found.ranks) == ["a", "b", *SIZES[kind], *CURVE]
    assert not found.strays, found.verdict
    error = np.abs(found.truths["p(12)"] - np.median(found.draws["p(12)"], axis=1))
    prior_sd = found.truths["p(12)"].std()
    assert error.mean() < 0.5 * prior_sd  # the data were seen


@pytest.mark.parametrize("kind", kinds_of(MEAN_NLL))
@pytest.mark.parametrize("rows", [False, True], ids=["declared", "rows"])
def test_studies_of_mean_nll_are_recovered(kind, rows):
    found = calibrate("manyshot", Layout(kind), rows=rows, simulations=12, settings=SHORT, seed=1)
    c = ["c"] if "given" not in kind else []
    assert list(found.ranks) == ["C", "alpha", "L", *c, "nll(3)", "nll(12)", "nll(192)"]
    assert not found.strays, found.verdict
    near = np.median(found.draws["nll(12)"], axis=1) / found.truths["nll(12)"]
    assert np.abs(np.log(near)).mean() < 0.3  # the data were seen


def test_a_misfit_is_recovered_with_its_law():
    """And its size, of which 30 cells tell something where 8 tell little."""
    layout = Layout("nll aggregated", shots=tuple(range(0, 60, 2)))
    found = calibrate("manyshot", layout, noise="misfit", simulations=12, settings=SHORT, seed=1)
    assert {"C", "alpha", "L", "c", "misfit_sd", "misfit_length"} < set(found.ranks)
    assert not found.strays, found.verdict
    sd = np.median(found.draws["misfit_sd"], axis=1)
    assert stats.spearmanr(sd, found.truths["misfit_sd"])[0] > 0.6  # the data were seen


@pytest.mark.parametrize("sds", [2.0, -2.0])
def test_truths_that_are_shifted_leave_the_band(straight, sds):
    shifted = straight.truths.assign(
        **{name: straight.truths[name] + sds * x.std(1) for name, x in straight.draws.items()}
    )
    ranks = ranks_of(shifted, straight.draws)
    assert all(p_value(ranks[name]) < 1e-3 for name in ("a", "b", *CURVE))
    found = replace(straight, ranks=ranks, truths=shifted)
    assert found.calibrated is False
    assert f"a: estimates are too {'low' if sds > 0 else 'high'}" in found.verdict


def test_a_law_without_its_jacobian_is_caught(law, tmp_path):
    """Coordinates that stretch the space where `a` is large, and do not say so."""
    wrong = tmp_path / "wrong.py"
    stretched = 'lambda design, w: ({**w, "a": w["a"] + jnp.logaddexp(0.0, 10.0 * w["a"])}, 0.0)'
    changed = f"monotone=False, coordinates={stretched})"
    wrong.write_text(law.read_text().replace("monotone=False)", changed))
    weak = Layout("given se", shots=(0, 1), total=2)
    found = calibrate(wrong, weak, simulations=50, settings=SHORT)
    assert found.calibrated is False
    assert "a: estimates are too low" in found.verdict


class _Understated(Noise):
    """Measurements scatter five times as much as the density says."""

    def scatter(self, logp, sizes, design, data, **how):
        loud = {**data, "se": 5 * data["se"]}
        return super().scatter(logp, sizes, design, loud, **how)


def test_a_noise_that_understates_is_caught(law, monkeypatch):
    right = NOISES["given-se"]
    wrong = _Understated(right.name, right.summary, right.kinds, right.model, right.moments)
    monkeypatch.setitem(NOISES, "given-se", wrong)
    found = calibrate(law, Layout("given se", total=500), simulations=15, settings=SHORT)
    assert found.calibrated is False
    assert set(found.strays) >= {"a", "b"}
    for name in ("a", "b"):  # of so few studies estimates may seem too high or low as well
        assert re.search(rf"^{name}: .*50 % intervals are too narrow", found.verdict, re.MULTILINE)


def of_normals(n, quantities=3, twin=False):
    """A calibration whose posteriors are right."""
    rng, found = np.random.default_rng(1), []
    for _ in range(n):
        centre = rng.standard_normal((quantities, 1))
        truths, draws = (centre + rng.standard_normal((quantities, m)) for m in (1, RANKED))
        names = [f"q{i}" for i in range(quantities)]
        if twin:
            names.append("t")
            truths, draws = (np.vstack([x, -x[:1]]) for x in (truths, draws))
        found.append(Ranked(names, truths[:, 0], draws, True))
    return calibration("normal", found)


def test_enough_simulations_decide():
    found = of_normals(200)
    assert isinstance(found, Calibration)
    assert found.calibrated is True
    assert found.verdict.startswith("normal: calibrated: the ranks of all 3 quantities")
    assert "nine times in ten with 200" in found.verdict
    assert of_normals(60).calibrated is None


def test_what_says_the_same_is_counted_once():
    assert list(of_normals(20, twin=True).ranks) == ["q0", "q1", "q2"]


def test_all_that_is_reported_is_ranked():
    """Of a law with plates, simplex, deterministic and internal sites."""
    layout = Layout(hypotheses=2, shots=(0, 1, 4))
    with precision():
        law, noise = load_law("scoring"), NOISES["beta-binomial"]
        check = Check(law, noise, layout, 1, False, SHORT, "cpu")
        drawn = check.draw(jax.random.key(0))
        truth = {name: x[None, None] for name, x in drawn.truth.items()}
        found = check.quantities(truth, drawn.logp[None, None])
    assert {"pi[0]", "pi[1]", "pi[background]", "gamma[1]", "K", "rate[0]"} <= set(found)
    assert list(found)[-6:] == [f"p({n})[{h}]" for h in (0, 1) for n in (2, 8, 12)]
    assert not any(name.startswith("belief") for name in found)
    assert found["P[0, background]"] == found["beta[0]"]
    floor, ceiling = found["beta[1]"], found["gamma[1]"]
    assert floor <= found["p(2)[1]"] <= found["p(12)[1]"] <= ceiling


# -- what is kept -------------------------------------------------------------------------------


def test_finished_simulations_are_not_made_again(law, straight, tmp_path, monkeypatch):
    def same(n, **more):
        return calibrate(law, simulations=n, settings=SHORT, folder=tmp_path, **more)

    same(3)
    [kept] = tmp_path.iterdir()
    files = sorted(kept.iterdir())
    assert [path.name for path in files] == ["00000.npz", "00001.npz", "00002.npz"]
    files[1].write_bytes(files[1].read_bytes()[:500])  # cut off
    before = [path.stat().st_mtime_ns for path in files]
    found = same(4)
    after = [path.stat().st_mtime_ns for path in files]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    # Of so few, some quantities may have the ranks of others, and are left out.
    np.testing.assert_array_equal(found.truths, straight.truths[found.truths.columns][:4])
    for name, draws in found.draws.items():
        np.testing.assert_array_equal(draws, straight.draws[name][:4])
    assert len(list(kept.iterdir())) == 4
    same(1, seed=1)
    law.write_text(law.read_text() + "\n# another file\n")
    try:
        same(1)
    finally:
        law.write_text(simulate.STRAIGHT)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(InputError, match="--simulations must be at least 1"):
        same(0)
