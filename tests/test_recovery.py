"""Truths drawn from a law's priors are found again: ranks within bands, intervals that cover.

The long runs (-m slow, one a law: -k "power-1" and so on) take BAYESICL_RECOVERY studies, 1000
unless told, and write their tables to the folder BAYESICL_RECOVERY_OUT where that is set.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import simulate

from bayesicl.engine import Settings
from bayesicl.law import BAYESIAN, LAWS

CASES = [(law, 1) for law in LAWS] + [(law, 2) for law in BAYESIAN]


@pytest.mark.slow
@pytest.mark.parametrize(("law", "H"), CASES, ids=[f"{law}-{H}" for law, H in CASES])
def test_every_law_recovers_its_truths(law, H):
    n = int(os.environ.get("BAYESICL_RECOVERY", "1000"))
    out = os.environ.get("BAYESICL_RECOVERY_OUT")
    begin = time.perf_counter()

    def progress(what):
        line = f"{time.perf_counter() - begin:7.0f} s  {law}, H = {H}: {what}"
        print(line, flush=True)
        if out:
            Path(out, f"progress-{law}-{H}.txt").write_text(line + "\n")

    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
    recovery = simulate.recover(law, n, H=H, progress=progress)
    table = simulate.coverage(recovery)
    table.insert(0, "law", law)
    table.insert(1, "hypotheses", H)
    table["passed gates"] = recovery.passed.mean()
    table["seconds a study"] = (time.perf_counter() - begin) / n
    if out:
        table.to_csv(Path(out, f"coverage-{law}-{H}.csv"), index=False)
        recovery.ranks.to_csv(Path(out, f"ranks-{law}-{H}.csv"), index=False)
        recovery.truths.to_csv(Path(out, f"truths-{law}-{H}.csv"), index=False)
    print(table.to_string())
    assert len(recovery.ranks) == n, "a study was dropped"
    strays = table.loc[~table["inside_all"], "quantity"].tolist()
    assert not strays, f"{law}, H = {H}: ranks of {strays} leave the band\n{table.to_string()}"
    # A gross failure of one kind of study shows here before it shows in ranks.
    assert recovery.passed.mean() > 0.9


# -- the machinery itself -----------------------------------------------------------------------


def test_band_holds_for_uniform_ranks():
    rng = np.random.default_rng(3)
    strays = sum(
        simulate.p_value(rng.integers(0, simulate.RANKED + 1, 200)) < 0.01 for _ in range(1000)
    )
    assert 2 <= strays <= 22  # 10 expected; a binomial leaves this in one of 3000 runs


def test_band_is_where_the_p_value_says():
    rng = np.random.default_rng(4)
    low, high = simulate.band(60)
    inside = []
    for shift in np.linspace(0, 0.3, 40):
        ranks = (rng.beta(1 + shift, 1, 60) * (simulate.RANKED + 1)).astype(int)
        ecdf = np.cumsum(np.bincount(ranks, minlength=simulate.RANKED + 1))[:-1] / 60
        inside.append(bool(np.all((low <= ecdf) & (ecdf <= high))))
        assert inside[-1] == (simulate.p_value(ranks) >= 0.01)
    assert np.all((low <= np.arange(1, 100) / 100) & (np.arange(1, 100) / 100 <= high))


@pytest.mark.parametrize(
    ("wrong", "bias", "width"),
    [("shifted", 0.25, 1.0), ("too narrow", 0.0, 0.8), ("too wide", 0.0, 1.3)],
)
def test_a_thousand_studies_betray_a_wrong_posterior(wrong, bias, width):
    rng = np.random.default_rng(5)
    truths = rng.standard_normal(1000)
    centre = rng.standard_normal(1000)
    right = centre + truths  # a truth and the middle of its posterior differ by one posterior sd
    draws = centre[:, None] + rng.standard_normal((1000, simulate.RANKED))
    assert simulate.p_value((draws < right[:, None]).sum(1)) >= 0.01
    draws = centre[:, None] + bias + width * rng.standard_normal((1000, simulate.RANKED))
    assert simulate.p_value((draws < right[:, None]).sum(1)) < 1e-3, wrong


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Twenty studies of the law of two parameters."""
    path = tmp_path_factory.mktemp("law") / "straight.py"
    path.write_text(simulate.STRAIGHT)
    short = Settings(warmup=200, draws=250)
    return simulate.recover(path, 20, settings=short, retry=False)


def test_twenty_studies_are_recovered(straight):
    table = simulate.coverage(straight)
    assert table["quantity"].tolist() == ["a", "b", "scatter", "p(3)", "p(20)", "p(200)"]
    assert straight.ranks.shape == straight.truths.shape == (20, 6)
    assert straight.draws["a"].shape == (20, simulate.RANKED)
    assert table["inside_all"].all(), table.to_string()
    ordered, truth = np.sort(straight.draws["a"]), straight.truths["a"]
    within = (ordered[:, 4] < truth) & (truth < ordered[:, 94])  # of 99: ranks 5 to 94
    assert table["coverage 90%"][0] == within.mean()
    expected = straight.truths["a"] + (straight.truths["b"] - straight.truths["a"]) * 20 / 25
    np.testing.assert_allclose(straight.truths["p(20)"], expected, rtol=1e-12)


@pytest.mark.parametrize("sds", [2.0, -2.0])
def test_truths_that_are_shifted_leave_the_band(straight, sds):
    shifted = straight.truths.assign(
        **{name: straight.truths[name] + sds * x.std(1) for name, x in straight.draws.items()}
    )
    ranks = simulate.ranks_of(shifted, straight.draws)
    assert all(simulate.p_value(ranks[name]) < 1e-3 for name in ("a", "b", "p(3)", "p(20)"))
