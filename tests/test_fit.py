"""Fits: the posterior against independent computations, labels, seeds, gates, modes and files."""

import importlib
import json
import shutil
import warnings
from dataclasses import replace

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import simulate
import xarray as xr
from scipy import stats

from bayesicl import (
    CurveWarning,
    InputError,
    Settings,
    diagnose,
    fit,
    load,
    load_law,
    nuts,
    predict,
    read_curves,
    save,
)
from bayesicl.chains import Chains, State
from bayesicl.device import precision
from bayesicl.engine import Engine
from bayesicl.errors import FALL, FEW
from bayesicl.fall import fall, step
from bayesicl.fit import Fitter, attributes, warn_misfits
from bayesicl.law import TYINGS, Law
from bayesicl.noises import NOISES
from bayesicl.plan import distinct, plan
from bayesicl.program import arrays
from bayesicl.retry import apart, attempts
from bayesicl.scale import MEAN_NLL, PROBABILITY
from bayesicl.tree import content_key, law_of, remarks, study_of

reuse_engines = simulate.reuse_engines  # a fixture
gates = importlib.import_module("bayesicl.diagnose")  # `bayesicl.diagnose` is the function

SHOTS = np.array([0, 1, 2, 4, 8, 16, 32, 64])
Y = np.array([0.31, 0.33, 0.42, 0.5, 0.52, 0.66, 0.62, 0.71])
Z = np.array([0.42, 0.38, 0.44, 0.36, 0.41, 0.43, 0.39, 0.4])
SHORT = Settings(warmup=300, draws=750)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("law") / "straight.py"
    path.write_text(simulate.STRAIGHT)
    return path


def given(**curves):
    """Studies by name, with given standard errors."""
    tables = [pd.DataFrame({"task": k, "shots": SHOTS, "prob": y}) for k, y in curves.items()]
    return read_curves(pd.concat(tables).assign(se=0.05, model="lm"))


@pytest.fixture(scope="module")
def trees(path):
    """Two studies in one table."""
    return fit(given(rises=Y, flat=Z), path, settings=SHORT)


@pytest.fixture
def lenient(monkeypatch):
    """Whatever comes first is good enough."""
    monkeypatch.setattr(gates, "MAX_RHAT", np.inf)
    monkeypatch.setattr(gates, "MIN_ESS", 0)


def near(draws, mean, sd):
    """Mean and sd of draws (chain, draw) are these, within Monte Carlo error."""
    ess = float(arviz_stats.ess(np.asarray(draws), method="mean"))
    assert abs(float(draws.mean()) - mean) < 4 * sd / np.sqrt(ess), (float(draws.mean()), mean, sd)
    assert float(draws.std()) == pytest.approx(sd, rel=6 / np.sqrt(ess))


# The posterior


def test_posterior_is_that_of_the_grid(trees):
    for tree, y in zip(trees, (Y, Z), strict=True):
        grid = simulate.Grid(SHOTS, y, 0.05)
        posterior = tree["posterior"].isel(hypothesis=0)
        for name, exact in (
            ("a", grid.a),
            ("b", grid.b),
            ("p_zero", grid.a),
            ("p_last", grid.p([64])[..., 0]),
        ):
            near(posterior[name], grid.mean(exact), grid.sd(exact))


def test_log_likelihood_and_prior_are_those_of_scipy(trees):
    tree = trees[0]
    a, b = (tree["posterior"][n].to_numpy()[..., 0] for n in "ab")
    p = a[..., None] + (b - a)[..., None] * SHOTS / (SHOTS + 5)
    np.testing.assert_allclose(
        tree["log_likelihood"]["y"], stats.norm.logpdf(Y, p, 0.05), rtol=1e-9
    )
    np.testing.assert_allclose(tree["log_prior"]["a"], stats.beta.logpdf(a, 2, 2), rtol=1e-9)
    drawn = tree["posterior_predictive"]["y"].to_numpy()
    z = (drawn - p) / 0.05
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.03


def test_prior_group_is_drawn_from_the_prior(trees):
    for name in "ab":
        x = trees[0]["prior"][name].to_numpy().ravel()
        assert x.size == 1000
        assert stats.kstest(x, stats.beta(2, 2).cdf).pvalue > 1e-3


def test_two_curves_of_a_study(path, lenient):
    """A law without anything in common: each curve has the posterior that it has alone."""
    table = pd.DataFrame(
        {
            "hypothesis": ["yes"] * 4 + ["no"] * 4,
            "shots": [*SHOTS[::2]] * 2,
            "prob": [*Y[::2], *Z[::2]],
            "se": 0.05,
        }
    )
    [tree] = fit(read_curves(table), path, settings=SHORT)
    assert tree["posterior"]["hypothesis"].to_numpy().tolist() == ["no", "yes"]
    for h, y in (("yes", Y[::2]), ("no", Z[::2])):
        grid = simulate.Grid(SHOTS[::2], y, 0.05)
        near(tree["posterior"]["b"].sel(hypothesis=h), grid.mean(grid.b), grid.sd(grid.b))


def test_four_cells_of_counts_under_the_power_law():
    """Against half a million draws of the prior, weighted by a likelihood written in NumPy."""
    shots, correct, total = np.array([0, 2, 8, 32]), np.array([4, 9, 12, 16]), 20
    table = pd.DataFrame({"shots": shots, "correct": correct, "total": total})
    [tree] = fit(read_curves(table), "power", settings=SHORT)
    assert tree.attrs["passed"], tree.attrs["diagnostics"]
    rng = np.random.default_rng(0)
    n = 500_000
    exact = {
        "C": rng.exponential(2.0, n),
        "alpha": rng.lognormal(np.log(0.5), 1.0, n),
        "L": rng.exponential(1.0, n),
        "scatter": rng.beta(1.0, 9.0, n),
    }
    p = np.exp(-exact["C"] * (shots[:, None] + 1.0) ** -exact["alpha"] - exact["L"])
    exact |= {"p_zero": p[0], "p_last": p[-1], "ceiling": np.exp(-exact["L"])}
    k = 1 / exact["scatter"] ** 2 - 1
    # Rising factorials: differences of gamma functions lose all digits where scatter is small.
    log = np.zeros(n)
    for i, c in enumerate(correct):
        rising = [np.log(p[i] * k + j) for j in range(c)]
        rising += [np.log((1 - p[i]) * k + j) for j in range(total - c)]
        log += sum(rising) - sum(np.log(k + j) for j in range(total))
    w = np.exp(log - log.max())
    w /= w.sum()
    assert 1 / (w**2).sum() > 5_000, "the oracle must be sharper than the fit"
    for name, x in exact.items():
        # Logs: tails that are too heavy have no Monte Carlo error to speak of.
        x, drawn = np.log(x), np.log(tree["posterior"][name].isel(hypothesis=0))
        mean = (w * x).sum()
        near(drawn, mean, np.sqrt((w * x**2).sum() - mean**2))


@pytest.fixture(scope="module")
def risen():
    """Counts of a curve that rises within what was measured."""
    shots = np.array([0, 1, 2, 4, 8, 16, 32, 64])
    p = 0.15 + 0.7 / (1 + np.exp(3.0 - 0.35 * shots))
    return read_curves(pd.DataFrame({"shots": shots, "prob": np.round(p, 3), "se": 0.03}))


@pytest.fixture(scope="module")
def bayesian(risen):
    """Three Bayesian laws, asked for at once."""
    return fit(risen, [*TYINGS[0]], settings=SHORT)


def test_one_hypothesis_and_one_background_are_fitted_once(bayesian, risen):
    assert [tree.attrs["law"] for tree in bayesian] == ["scoring"]
    assert json.loads(bayesian[0].attrs["same_as"]) == ["general", "sampling"]
    study = risen.studies[0]
    all_laws = [load_law(name) for name in ("power", "general", "bounded", "scoring")]
    assert [law.name for law, _ in distinct(all_laws, study, 1)] == ["power", "scoring", "bounded"]
    two = distinct(all_laws, study, 2)  # scoring has one miss, the others one for each background
    assert [law.name for law, _ in two] == ["power", "sampling", "bounded", "scoring"]
    assert [same for _, same in two] == [(), ("general",), (), ()]
    assert distinct(all_laws[:1], study, 1) == [(all_laws[0], ())]


def test_discounted_laws_are_one_function_among_themselves(risen):
    study, names = risen.studies[0], ("general", "discounted_general", "discounted_sampling")
    chosen = [load_law(name) for name in names]
    found = [(law.name, same) for law, same in distinct(chosen, study, 1)]
    assert found == [
        ("scoring", ("general", "sampling")),
        ("discounted_scoring", ("discounted_general", "discounted_sampling")),
    ]
    found = [(law.name, same) for law, same in distinct(chosen, study, 2)]
    assert found == [
        ("sampling", ("general",)),
        ("discounted_sampling", ("discounted_general",)),
    ]


@pytest.mark.parametrize("name", ["recognition", "context", "discounted_scoring"])
def test_other_laws_that_weigh_hypotheses(name, risen):
    with pytest.raises(InputError, match="needs a background"):
        plan(risen, name, backgrounds=0)
    assert plan(risen, name, backgrounds=2)


def test_coordinates_do_not_change_the_posterior(bayesian, risen):
    """The scoring law as it is and sampled in the plain unconstrained space of NumPyro."""
    plain = replace(load_law("scoring"), coordinates=lambda design, w: (w, 0.0))
    [other] = fit(risen, plain, settings=SHORT)
    for name in ("gamma", "beta", "rate", "p_zero", "p_last"):
        x, y = (tree["posterior"][name].isel(hypothesis=0) for tree in (bayesian[0], other))
        error = [float(v.std()) / np.sqrt(float(arviz_stats.ess(v.to_numpy()))) for v in (x, y)]
        assert abs(float(x.mean() - y.mean())) < 4 * np.hypot(*error), name
        grid = np.linspace(0.1, 0.9, 5)
        within = [(y <= q).mean() for q in np.quantile(x, grid)]
        np.testing.assert_allclose(within, grid, atol=0.09, err_msg=name)


def test_no_background_for_one_hypothesis(risen):
    with pytest.raises(InputError, match="needs a background"):
        fit(risen, "scoring", backgrounds=0)
    with pytest.raises(InputError, match="0 or more"):
        fit(risen, "power", backgrounds=-1)
    assert plan(risen, "power", backgrounds=0)
    with pytest.raises(InputError, match=r"no law here weighs hypotheses \(power\)"):
        plan(risen, "power", backgrounds=2)


def test_two_backgrounds_are_ordered_in_the_prior(risen):
    with precision():
        engine = Engine(load_law("scoring"), NOISES["given-se"], SHORT)
        drawn = engine.prior(jax.random.key(0), 500, *arrays(risen.studies[0], backgrounds=2))
    ordered(drawn["pi"])


@pytest.mark.slow
def test_two_backgrounds_are_ordered(risen, lenient):
    [tree] = fit(risen, "scoring", backgrounds=2, settings=Settings(warmup=100, draws=100))
    pi = tree["posterior"]["pi"]
    assert pi["believed"].to_numpy().tolist() == ["0", "background 0", "background 1"]
    ordered(pi.to_numpy())
    ordered(tree["prior"]["pi"].to_numpy())


def ordered(pi):
    assert (pi[..., 1] >= pi[..., 2]).all()
    np.testing.assert_allclose(pi.sum(-1), 1, atol=1e-9)


# Labels


def test_groups_have_their_axes(trees, bayesian):
    draws = ("chain", "draw")
    cell, curve = (*draws, "cell"), (*draws, "hypothesis")
    expected = {
        "posterior": dict.fromkeys(("a", "b", "p_zero", "p_last"), curve),
        "prior": dict.fromkeys(("a", "b", "p_zero", "p_last"), curve),
        "log_likelihood": {"y": cell},
        "posterior_predictive": {"y": cell},
        "prior_predictive": {"y": cell},
        "log_prior": {"a": draws, "b": draws},
        "observed_data": {"y": ("cell",)},
        "constant_data": dict.fromkeys(("shots", "hypothesis", "total", "replicates"), ("cell",)),
    }
    tree = trees[0]
    for group, names in expected.items():
        data = tree[group].to_dataset()
        assert {str(n): v.dims for n, v in data.data_vars.items()} == names, group
        if "cell" in data.dims:
            assert data["cell"].to_numpy().tolist() == list(range(8))
    assert {"diverging", "energy", "lp", "n_steps", "tree_depth"} <= set(tree["sample_stats"])
    assert tree["posterior"].sizes["chain"] == 4
    assert tree["posterior"].sizes["draw"] in (750, 1500)  # extended where gates failed at first
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    np.testing.assert_array_equal(tree["constant_data"]["shots"], SHOTS)
    dims = {str(n): v.dims[2:] for n, v in bayesian[0]["posterior"].data_vars.items()}
    assert dims["pi"] == ("believed",)
    assert dims["K"] == ()
    assert dims["P"] == ("hypothesis", "believed")
    assert bayesian[0]["posterior"]["believed"].to_numpy().tolist() == ["0", "background"]


def test_held_out_cells_are_in_the_study_alone(path):
    [tree] = fit(given(rises=Y).hold_out(fit_shots=16), path, settings=SHORT)
    for group in ("log_likelihood", "posterior_predictive", "observed_data", "constant_data"):
        assert tree[group]["cell"].to_numpy().tolist() == list(range(6)), group
    study = study_of(tree)
    assert study.cells["fitted"].tolist() == [True] * 6 + [False] * 2
    assert study.cells["y"].tolist() == Y.tolist()
    p = tree["posterior"]["a"] + (tree["posterior"]["b"] - tree["posterior"]["a"]) * 16 / 21
    np.testing.assert_allclose(tree["posterior"]["p_last"], p, rtol=1e-9)


def test_attributes_say_what_was_done(trees, path):
    attrs = trees[0].attrs
    assert attrs["law"] == "straight"
    assert attrs["law_path"] == str(path.resolve())
    assert attrs["law_hash"] == load_law(path).source_hash
    assert attrs["noise"] == "given-se"
    assert (attrs["seed"], attrs["backgrounds"], attrs["device"]) == (0, 1, "cpu")
    assert Settings(**json.loads(attrs["settings"])) == SHORT
    assert json.loads(attrs["law_parameters"]) == ["a", "b"]
    assert {"bayesicl", "jax", "numpyro"} <= set(json.loads(attrs["versions"]))
    checks = json.loads(attrs["diagnostics"])
    assert attrs["passed"] == 1
    assert checks["failures"] == []
    assert checks == json.loads(json.dumps(checks_of(trees[0])))
    assert json.loads(attrs["warnings"]) == []
    study = study_of(trees[0])
    assert study.hash == attrs["data_hash"] == given(rises=Y).studies[0].hash
    assert study.key == {"model": "lm", "variant": "", "task": "rises"}


def checks_of(tree):
    """The gates once more, from a fit alone, without the curve's ends."""
    names = json.loads(tree.attrs["law_parameters"])
    checks = diagnose(tree["posterior"].to_dataset()[names], tree["sample_stats"].to_dataset())
    return checks.__dict__


# Seeds


def same_draws(one, two):
    return all(
        one[g].to_dataset().equals(two[g].to_dataset())
        for g in ("posterior", "sample_stats", "posterior_predictive", "prior", "log_likelihood")
    )


def test_same_seed_same_draws(trees, path):
    """Whatever else is in the table."""
    [alone] = fit(given(flat=Z), path, settings=SHORT)
    assert same_draws(alone, trees[1])


def test_fresh_programs_draw_the_same(trees, path):
    """Compiled once more, without the engine that the other tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("bayesicl.fit"), "Engine", Engine)
        [again] = fit(given(rises=Y), path, settings=SHORT)
    assert same_draws(again, trees[0])


def test_another_seed_draws_others(trees, path):
    [other] = fit(given(rises=Y), path, settings=SHORT, seed=1)
    for group in ("posterior", "prior"):  # kept in float32: one draw may be another's
        assert np.isin(other[group]["a"], trees[0][group]["a"]).mean() < 0.01


# What the sampler is given


def test_what_moves_chains_is_exact_and_fixed_while_draws_count(monkeypatch):
    """In float64 on CPU, in threads as well; a window may be longer than one call."""
    design, data = arrays(given(rises=Y).studies[0])
    calls, windows = [], []
    compiled, advance = Engine.compiled, Engine._advance

    def look(self, name, function, *args):
        calls.extend(x.dtype for x in jax.tree.leaves(args) if "float" in str(x.dtype))
        return compiled(self, name, function, *args)

    def listen(self, state, n, *args):
        after, record = advance(self, state, n, *args)
        assert record.shape[2] == n
        assert len(np.unique(record[0, 0], axis=0)) > 0.9 * n
        windows.append((n, np.asarray(state.mixture.mean)))
        return after, record

    monkeypatch.setattr(Engine, "compiled", look)
    monkeypatch.setattr(Engine, "_advance", listen)
    with precision():
        engine = Engine(load_law("power"), NOISES["given-se"], Settings(warmup=1600, draws=600))
        engine.run(jax.random.key(0), design, data)
    assert set(calls) == {np.dtype("float64")}
    assert max(n for n, _ in windows) > 500
    last = [mean for _, mean in windows[-4:]]  # two windows for the step size, and the draws
    assert all(np.array_equal(mean, last[0]) for mean in last)
    assert not np.array_equal(windows[-6][1], last[0])


# Many at once, as on a GPU


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_first_attempts_at_once_are_those_alone(device, path, trees, monkeypatch):
    """And so they are in the layout of a GPU: all chains one group, in float32."""
    devices = jax.devices
    monkeypatch.setattr(nuts, "UNROLLED", 1)  # rows are scattered, as those of a thousand studies
    monkeypatch.setattr(jax, "devices", lambda kind=None: devices("cpu"))
    tasks = list(plan(given(rises=Y, flat=Z, falls=Y[::-1]), path))
    fitter, said = Fitter(SHORT, device=device), []
    fitter.ahead(tasks, said.append)
    [draws] = {w.dtype for chains in fitter._first.values() for w in chains.w.values()}
    assert draws == (np.float64 if device == "cpu" else np.float32)
    [groups] = {len(chains.state.groups) for chains in fitter._first.values()}
    assert groups == (SHORT.chains if device == "cpu" else 1)
    assert said == ["3 studies at once (1 of 1 shapes)"]
    monkeypatch.setattr(Engine, "run", None)  # is not needed
    for tree, alone in zip(map(fitter, tasks[:2]), trees, strict=True):
        assert tree.attrs["passed"]
        assert tree["posterior"]["a"].dtype == draws
        for name in ("a", "b", "p_last"):
            x, y = tree["posterior"][name].values, alone["posterior"][name].values
            error = np.hypot(
                *(v.std() / np.sqrt(float(arviz_stats.ess(v[..., 0]))) for v in (x, y))
            )
            assert abs(x.mean() - y.mean()) < 5 * error
            assert 0.9 < x.std() / y.std() < 1.1


def test_where_many_break_down_each_is_tried_alone(path, monkeypatch):
    [task] = plan(given(rises=Y), path)
    fitter = Fitter(SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run_many", None)
        fitter.ahead([task])
    assert fitter(task).attrs["passed"]


# Users' laws


def test_changed_law_is_refused(trees, tmp_path):
    there = tmp_path / "mine.py"
    there.write_text(simulate.STRAIGHT)
    tree = trees[0].copy()
    tree.attrs = trees[0].attrs | {"law_path": str(there)}
    saved = load(save(tree, tmp_path / "fit.nc"))
    before = predict(saved, [0, 7])
    moved = shutil.move(there, tmp_path / "moved.py")
    with pytest.raises(InputError, match="no longer there; say where it is with --law PATH"):
        predict(saved, [0, 7])
    xr.testing.assert_identical(predict(saved, [0, 7], law=moved), before)
    there.write_text(simulate.STRAIGHT.replace("5.0", "6.0"))
    with pytest.raises(InputError, match="'straight' has changed since this fit was made"):
        predict(saved, [0, 7])
    assert law_of(saved, moved).name == "straight"


# Gates


def chains(rng, n=1000, **more):
    """Draws of a perfect sampler and its statistics, four chains."""
    posterior = xr.Dataset({"x": (("chain", "draw"), rng.standard_normal((4, n)))})
    stats_ = {
        "diverging": np.zeros((4, n), bool),
        "energy": rng.standard_normal((4, n)),
        "n_steps": np.full((4, n), 7),
    }
    stats_ = {k: (("chain", "draw"), v) for k, v in (stats_ | more).items()}
    return posterior, xr.Dataset(stats_)


def test_good_chains_pass(rng):
    checks = diagnose(*chains(rng))
    assert checks.passed
    assert checks.failures == ()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("shifted", "R-hat"),
        ("wider", "R-hat"),
        ("few", "bulk ESS"),
        ("sticky", "tail ESS"),
        ("divergence", "1 divergent transitions, must be 0"),
        ("energy", "BFMI"),
        ("depth", "2 transitions hit the tree-depth limit, must be 0"),
        ("leapfrogs", "2 transitions hit the tree-depth limit, must be 0"),
        ("lost", "nan"),
    ],
)
def test_bad_chains_fail(rng, what, message):
    n = 90 if what == "few" else 1000
    posterior, sampler = chains(rng, n)
    posterior["good"] = posterior["x"].dims, rng.standard_normal((4, n))
    x = posterior["x"].to_numpy()
    if what == "shifted":
        x[0] += 0.5
    elif what == "wider":
        x[0] *= 2
    elif what == "sticky":
        x[:] = np.repeat(x[:, ::20], 20, axis=1)
    elif what == "divergence":
        sampler["diverging"][2, 5] = True
    elif what == "energy":  # a random walk in the energy
        sampler["energy"][:] = np.cumsum(sampler["energy"].to_numpy(), axis=1)
    elif what == "depth":
        sampler["tree_depth"] = sampler["n_steps"] * 0 + 3
        sampler["tree_depth"][1, :2] = 10
    elif what == "leapfrogs":  # of a sampler that does not tell the depth
        sampler["n_steps"][1, :2] = 1023
    elif what == "lost":
        x[1, 3] = np.nan
    checks = diagnose(posterior, sampler)
    assert not checks.passed
    assert any(message in failure for failure in checks.failures), checks
    if what in ("divergence", "energy", "depth", "leapfrogs"):
        assert len(checks.failures) == 1


def test_constants_are_not_judged(rng):
    posterior, sampler = chains(rng)
    assert diagnose(posterior.assign(one=xr.ones_like(posterior["x"])), sampler).passed


# Modes

HEAVY = 0.7


def two_modes_law():
    """p(n) = |1/2 + s|: the sign of s cannot be told; modes of weight .7 and .3 by the prior."""
    import numpyro
    import numpyro.distributions as dist

    def model(design):
        mix = dist.Categorical(jnp.array([HEAVY, 1 - HEAVY]))
        parts = dist.Normal(jnp.array([-3.0, 3.0]), jnp.array([0.1, 0.1]))
        s = numpyro.sample("s", dist.MixtureSameFamily(mix, parts))
        return jnp.log(0.5 + 0.0 * s) + jnp.zeros(jnp.shape(design.shots))

    return Law("two modes", lambda shots: shots, model, reference="made for the tests")


def test_modes_have_their_weights():
    """Jumps go between all places where chains began."""
    study = given(flat=Z).studies[0]
    with precision():
        engine = Engine(two_modes_law(), NOISES["given-se"], SHORT)
        design, data = arrays(study)
        chains = engine.run(jax.random.key(3), design, data)
    right = chains.w["s"] > 0
    ess = float(arviz_stats.ess(right.astype(float)))
    assert ess > 400
    assert abs(right.mean() - (1 - HEAVY)) < 4 * np.sqrt(HEAVY * (1 - HEAVY) / ess)


class Stubborn:
    """An engine whose chains stay apart until they jump to each other's places."""

    settings = SHORT

    def __init__(self, rng):
        self.draws = rng.standard_normal((4, SHORT.draws))

    def run(self, *args, **kwargs):
        stats = {"diverging": np.zeros((4, 1), bool), "tree_depth": np.full((4, 1), 3)}
        apart = self.draws + 5.0 * np.arange(4)[:, None]
        return Chains({"x": apart}, stats, State((), None, None))

    def go_on(self, chains, design, data):
        here = np.asarray(chains.state.mixture.mean)
        return chains._replace(w={"x": self.draws + here.mean()})


def test_chains_apart_are_given_jumps(rng):
    said = []
    run = attempts(Stubborn(rng), jax.random.key(3), None, {}, said.append)
    first, second = next(run), next(run)
    assert said == ["sampling", "jumping between modes"]
    assert apart(first)
    assert not apart(second)
    assert np.ptp(second.state.mixture.mean) > 10


@pytest.mark.parametrize(
    ("what", "expected"),
    [("together", False), ("one shifted", True), ("one still", True), ("all still", True)],
)
def test_chains_apart(rng, what, expected):
    x, y = rng.standard_normal((4, 500)), rng.standard_normal((4, 500, 2, 3))
    if what == "one shifted":
        y[2, :, 1, 1] += 2.0
    elif what == "one still":
        x[0] = 0.1
    elif what == "all still":  # at one place: R-hat is NaN
        x[:] = 0.1
    assert apart(Chains({"x": x, "y": y}, {}, None)) is expected


# Warnings


def counts(p, total, rng, replicates=1, **more):
    n = np.arange(len(p)) * 4
    r, shots = np.meshgrid(np.arange(replicates), n, indexing="ij")
    correct = rng.binomial(total, np.broadcast_to(p, shots.shape))
    table = {"shots": shots.ravel(), "correct": correct.ravel(), "total": total}
    if replicates > 1:
        table["replicate"] = r.ravel()
    return read_curves(pd.DataFrame(table)).studies[0]


def test_fewer_cells_than_parameters(rng):
    study = counts([0.2, 0.5, 0.6], 30, rng)
    with pytest.warns(CurveWarning, match="3 cells for the 4 parameters of scoring") as caught:
        warn_misfits(study, load_law("scoring"), 4)
    assert caught[0].message.kind == FEW
    with pytest.warns(CurveWarning, match="3 cells for the 5 parameters of scoring"):
        warn_misfits(study, load_law("scoring"), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_misfits(study, load_law("power"), 3)


def test_fall_beyond_noise(rng, path):
    study = counts(np.r_[np.linspace(0.2, 0.8, 8), np.linspace(0.7, 0.3, 4)], 100, rng)
    with pytest.warns(
        CurveWarning,
        match=r"falls between 3\d and \d\d shots, from a mean of 0\.\d\d at 24 to 3\d to a mean of "
        r"0\.\d\d at \d\d to 44 shots; law power cannot fall",
    ) as caught:
        warn_misfits(study, load_law("power"), 3)
    assert caught[0].message.kind == FALL
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_misfits(study, load_law(path), 2)  # it may fall


def test_a_dip_is_a_fall(rng):
    study = counts(np.r_[np.full(4, 0.7), np.full(4, 0.3), np.full(4, 0.7)], 100, rng)
    assert fall(study.cells, study.scale).startswith("between 12 and 16 shots, from a mean of 0.7")


def test_a_fall_is_told_where_it_happened():
    """Not by the stretches that show it, which hold cells of both sides of the step."""
    y = [0.2, 0.5, 0.8, 0.83, 0.8, 0.81, 0.8, 0.2, 0.21, 0.19, 0.2, 0.2]
    cells = pd.DataFrame({"shots": 2 ** np.arange(12), "y": y, "error": 0.01})
    assert fall(cells, PROBABILITY) == (
        "between 64 and 128 shots, from a mean of 0.81 at 8 to 64 to a mean of 0.20 at 128 to 2048 "
        "shots"
    )
    worse = cells.assign(y=3.0 * (1.0 - cells["y"]), error=0.01)
    assert fall(worse, MEAN_NLL).startswith("between 64 and 128 shots, from a mean of 0.57 at 8 ")
    assert step(np.array([0.9, 0.2]), PROBABILITY) == 1


def test_a_gradual_fall_has_no_step():
    cells = pd.DataFrame({"shots": 2 ** np.arange(12), "y": np.linspace(0.9, 0.3, 12)})
    assert fall(cells.assign(error=0.01), PROBABILITY) == (
        "from a mean of 0.85 at 1 to 4 to a mean of 0.35 at 512 to 2048 shots"
    )


def test_few_false_alarms_of_a_fall(rng):
    """200 curves that never fall: flat or rising, few or many items, with replicates or without."""
    alarms = 0
    for i in range(200):
        cells = rng.integers(5, 25)
        p = (
            np.sort(rng.uniform(0.1, 0.9, cells))
            if i % 2
            else np.full(cells, rng.uniform(0.1, 0.9))
        )
        study = counts(p, int(rng.choice([10, 30, 200])), rng, replicates=1 + 3 * (i % 3 == 0))
        alarms += bool(fall(study.cells, study.scale))
    assert alarms < 4


def test_fit_warns_and_keeps_the_warning(path, monkeypatch):
    def warn(study, law, backgrounds):
        warnings.warn(CurveWarning(f"{study.label}, {law.name}: beware", FALL), stacklevel=2)

    monkeypatch.setattr(importlib.import_module("bayesicl.fit"), "warn_misfits", warn)
    with pytest.warns(CurveWarning, match=r"lm \| rises, straight: beware"):
        [tree] = fit(given(rises=Y), path, settings=SHORT)
    assert json.loads(tree.attrs["warnings"]) == ["lm | rises, straight: beware"]
    assert remarks(tree.attrs, FALL) == ["lm | rises, straight: beware"]
    assert remarks(tree.attrs, FEW) == []
    assert remarks({"warnings": tree.attrs["warnings"]}, FALL) == []  # of before kinds were kept


# Files


def test_content_key_changes_with_what_a_fit_depends_on(trees, path, tmp_path):
    """From the attributes that fits would have, before anything is computed."""

    def key(curves, law=path, backgrounds=1, *, settings, seed=0):
        task = plan(curves, law, backgrounds=backgrounds)[0]
        return content_key(attributes(task, settings, seed, "cpu"))

    curves = given(rises=Y)
    base = key(curves, settings=SHORT)
    assert base == content_key(trees[0].attrs) == key(given(rises=Y, flat=Z), settings=SHORT)
    changed = tmp_path / "straight.py"
    changed.write_text(simulate.STRAIGHT.replace("5.0", "6.0"))
    moved = np.r_[Y[:-1], 0.7]
    others = [
        key(given(rises=moved), settings=SHORT),
        key(given(other=Y), settings=SHORT),
        key(curves.hold_out(fit_points=5), settings=SHORT),
        key(curves, "power", settings=SHORT),
        key(curves, changed, settings=SHORT),
        key(curves, settings=SHORT, seed=1),
        key(curves, settings=SHORT, backgrounds=2),
        key(curves, settings=replace(SHORT, draws=800)),
        key(curves, settings=replace(SHORT, target_accept=0.8)),
    ]
    assert len({base, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chains": 1}, "chains must be at least 2, got 1"),
        ({"warmup": 10}, "warmup must be at least 50"),
        ({"draws": 0}, "draws must be at least 50"),
        ({"target_accept": 1.0}, "target_accept must lie in"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


def test_bad_requests(risen):
    with pytest.raises(InputError, match="unknown law 'linear'"):
        fit(risen, "linear")
    with pytest.raises(InputError, match="does not suit an outcome of kind 'given se'"):
        fit(risen, "power", noise="beta-binomial")
