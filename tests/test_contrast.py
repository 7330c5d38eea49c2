"""What differs between variants: simulated ones whose difference is known, and who is paired."""

import json

import numpy as np
import pandas as pd
import pytest
import simulate
from scipy import stats
from scipy.special import expit, logit

from bayesicl import InputError, contrast, fit, predict, read_curves
from bayesicl.contrast import _difference, _pairs, verdict

reuse_engines = simulate.reuse_engines  # a fixture

SHOTS = np.array([0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48])
PI = {"base": 0.05, "twin": 0.05, "tuned": 0.002}
GAMMA, BETA, K = 0.85, 0.15, 0.2


@pytest.fixture(scope="module")
def variants():
    """Three variants of one model: two alike but for their noise, one with a smaller pi."""
    rng = np.random.default_rng(10)
    tables = []
    for name, pi in PI.items():
        p = BETA + (GAMMA - BETA) * expit(logit(pi) + K * SHOTS * np.log(GAMMA / BETA))
        y = p + 0.015 * rng.standard_normal(p.size)
        tables.append(pd.DataFrame({"variant": name, "shots": SHOTS, "prob": y}))
    curves = read_curves(pd.concat(tables).assign(se=0.015, model="lm", task="t"))
    return dict(zip(PI, fit(curves, "scoring"), strict=True))


@pytest.fixture(scope="module")
def table(variants):
    return contrast([variants["base"], variants["tuned"]], between=("variant", "base", "tuned"))


def keyed(tree, law=None, **key):
    """The same fit under another name."""
    new = tree.copy()
    new.attrs = tree.attrs | ({"law": law} if law else {})
    key = {"model": "lm", "variant": "", "task": "t"} | key
    new["study"].attrs = tree["study"].attrs | {"key": json.dumps(key)}
    return new


# Differences


def test_smaller_belief_is_found(table):
    own = table[table["hypothesis"] != "background"].set_index(["quantity", "believed"])
    pi = own.loc[("logit pi", "0")]
    assert pi["identified"]
    assert pi["probability_of_direction"] > 0.99
    truth = logit(PI["tuned"]) - logit(PI["base"])
    assert pi["median"] < 0
    assert pi["lower"] - 0.5 < truth < pi["upper"] + 0.5
    assert ("logit pi", "background") not in own.index  # it says the same the other way round
    for name in ("log K", "gamma", "beta"):
        row = own.loc[(name, "")]
        assert row["probability_of_direction"] < 0.95, name
        assert row["lower"] < 0 < row["upper"]


def test_smaller_belief_is_said(table):
    words = verdict(table)
    assert words.startswith("t, lm | base | t to lm | tuned | t: ")
    assert "logit pi[0] fell" in words
    assert "background" not in words
    assert "gamma" not in words.splitlines()[0]
    assert "log K" not in words.splitlines()[0]


def test_fits_that_failed_decide_nothing(variants):
    failed = keyed(variants["tuned"], variant="tuned")
    failed.attrs["passed"] = 0
    table = contrast([variants["base"], failed], between=("variant", "base", "tuned"))
    assert (table["note"] == "not converged").all()
    assert not table["identified"].any()
    words = verdict(table)
    assert "a fit did not converge, so nothing can be said" in words
    assert "fell" not in words


def test_twins_do_not_differ(variants):
    table = contrast([variants["base"], variants["twin"]], between=("variant", "base", "twin"))
    assert "no identified parameter differs beyond doubt" in verdict(table)


def test_turned_round(variants, table):
    back = contrast(list(variants.values()), between=("variant", "tuned", "base"))
    np.testing.assert_allclose(back["median"], -table["median"], atol=0.1)
    assert (back["first"] == "lm | tuned | t").all()


def test_curves_at_shots(variants, table):
    default = table[table["quantity"] == "p(n)"]
    assert default["shots"].tolist() == [0, 48]
    pair = [variants["base"], variants["tuned"]]
    asked = contrast(pair, between=("variant", "base", "tuned"), at=[100, 8, 8])
    asked = asked[asked["quantity"] == "p(n)"].set_index("shots")
    assert asked.index.tolist() == [8, 100]
    assert asked["note"].tolist() == ["", "extrapolated"]
    first, second = (predict(tree, [8])["mean"] for tree in pair)
    assert asked["median"][8] == pytest.approx(float(second.median() - first.median()), abs=0.01)
    assert asked["probability_of_direction"][8] > 0.99
    truth = [
        BETA + (GAMMA - BETA) * expit(logit(PI[v]) + K * 8 * np.log(GAMMA / BETA))
        for v in ("base", "tuned")
    ]
    assert asked["lower"][8] - 0.02 < truth[1] - truth[0] < asked["upper"][8] + 0.02


def test_what_either_side_does_not_know_is_not_a_finding(variants):
    lost = variants["tuned"].copy()
    rng = np.random.default_rng(0)
    prior = lost["prior"].to_dataset()
    posterior = lost["posterior"].to_dataset()
    shape = posterior["K"].shape
    draws = rng.choice(prior["K"].to_numpy().ravel() * 1e3, shape)  # as wide as the prior, far off
    lost["posterior"].dataset = posterior.assign(K=(("chain", "draw"), draws))
    table = contrast([variants["base"], lost], between=("variant", "base", "tuned"))
    row = table[table["quantity"] == "log K"].iloc[0]
    assert row["probability_of_direction"] > 0.95
    assert not row["identified"]
    assert row["note"] == "not identified"
    words = verdict(table)
    assert "log K" not in words.splitlines()[0]
    assert "Not identified, so nothing is known of a change in log K" in words


def test_difference_of_normals():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 40_000), rng.normal(1, 0.5, 30_000)
    d = _difference((first, second), 0.9, 0)
    sd = np.hypot(1, 0.5)
    assert d["median"] == pytest.approx(1, abs=0.03)
    expected = stats.norm(1, sd).ppf([0.05, 0.95])
    np.testing.assert_allclose([d["lower"], d["upper"]], expected, atol=0.04)
    assert d["probability_of_direction"] == pytest.approx(stats.norm.cdf(1 / sd), abs=0.01)
    assert _difference((first, second), 0.9, 0) == d
    # Draws that go together by iteration only are set apart.
    assert _difference((first, first), 0.9, 0)["upper"] > 1


# Pairs


def names(fits, *between):
    return [(a, b) for *_, a, b in _pairs(fits, between)]


def test_pairs_match_on_model_and_task(variants):
    one = variants["base"]
    fits = [
        keyed(one, model=m, variant=v, task=t) for m in "xy" for t in "st" for v in ("base", "chat")
    ]
    assert names(fits, "variant", "base", "chat") == [
        ("x | base | s", "x | chat | s"),
        ("x | base | t", "x | chat | t"),
        ("y | base | s", "y | chat | s"),
        ("y | base | t", "y | chat | t"),
    ]
    assert names(fits[:4:2] + fits[4::2], "model", "x", "y") == [
        ("x | base | s", "y | base | s"),
        ("x | base | t", "y | base | t"),
    ]


def test_models_are_paired_across_variants(variants):
    """Two named models, one of them tuned: what else is the same decides."""
    fits = [
        keyed(variants["base"], model="x", variant="base"),
        keyed(variants["base"], model="x-chat", variant="chat"),
    ]
    expected = [("x | base | t", "x-chat | chat | t")]
    assert names(fits, "model", "x", "x-chat") == expected
    assert names(fits, "variant", "base", "chat") == expected


def test_refusals(variants):
    one = variants["base"]
    base, chat = keyed(one, variant="base"), keyed(one, variant="chat")
    for fits, between, message in [
        (
            [base, chat],
            ("size", "1", "2"),
            "--between size: no such key; these fits have model, ta",
        ),
        ([base, chat], ("variant", "base", "rl"), "variant=rl: no such fit; there are base, chat"),
        (
            [base, keyed(one, "power", variant="chat")],
            None,
            "one law and one noise, got given-se, power, sc",
        ),
        ([base, keyed(one, variant="chat", task="u")], None, "share a task: nothing to contrast"),
        ([base, chat, chat], None, "more than one fit to set beside it; name two models"),
        (
            [
                base,
                keyed(one, variant="base", model="n"),
                keyed(one, variant="chat", model="a"),
                keyed(one, variant="chat", model="b"),
            ],
            None,
            "more than one fit to set beside it",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            contrast(fits, between=between or ("variant", "base", "chat"))


def test_a_fit_given_twice_on_the_first_side_is_refused(variants):
    base, chat = keyed(variants["base"], variant="base"), keyed(variants["base"], variant="chat")
    with pytest.raises(InputError, match="more than one fit"):
        contrast([base, base, chat], between=("variant", "base", "chat"))
