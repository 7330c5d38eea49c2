"""Every noise against SciPy and dense matrices; what replicates tell of sizes, by simulation."""

import re
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro.infer.util import log_density
from scipy import optimize, stats
from scipy.special import binom

from bayesicl.curves import read_curves
from bayesicl.errors import InputError
from bayesicl.law import Design
from bayesicl.noise import _replicate_spread
from bayesicl.noises import NOISES, load_noise
from bayesicl.process import links, scaled, smooth
from bayesicl.program import _prompt_c, arrays, padded_size
from bayesicl.scale import MEAN_NLL, PROBABILITY

pytestmark = pytest.mark.usefixtures("x64")

of_every_noise = pytest.mark.parametrize("name", NOISES)

SIZES = {
    "beta-binomial": {"scatter": [0.12, 0.3]},
    "replicates": {
        "dispersion": [1.7, 0.6],
        "dispersion_slope": [-0.4, 0.2],
        "replicate_sd": [0.11, 0.25],
    },
    "mean-probability": {"c": [0.35, 0.08]},
    "given-se": {},
    "mean-nll": {"c": [0.2, 0.03]},
    "nll-given-se": {},
}
MISFIT = {"misfit_sd": [0.2, 0.05], "misfit_length": [1.5, 4.0]}
SIZES |= {f"{name}+misfit": sizes | MISFIT for name, sizes in SIZES.items()}
EXACT = 1e-9
SHOTS = np.array([0.0, 1, 4, 16, 64, 256])


def hurried(f):
    """Compiled in a hurry: compiling takes longer than running here."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def sizes_of(name):
    return {k: jnp.array(v) for k, v in SIZES[name].items()}


@cache
def case():
    """Two curves, 12 cells of which two are held out; log p and measurements."""
    rng = np.random.default_rng(1)
    h = np.repeat([0, 1], 6)
    design = Design(np.tile(SHOTS, 2), h, 2, 1)
    p = rng.uniform(0.1, 0.9, 12)
    total = rng.integers(20, 60, 12).astype(float)
    count = np.round(np.clip(p + 0.05 * rng.normal(size=12), 0, 1) * total)
    data = {
        "y": count / total,
        "total": total,
        "replicates": rng.integers(2, 9, 12).astype(float),
        "se": rng.uniform(0.02, 0.1, 12),
        "fitted": np.isin(np.arange(12), [4, 9], invert=True),
        "log_choices": np.log(binom(total, count)),
    }
    return design, data, np.log(p)


def dense(name, design, data, p):
    """Mean and covariance of the cells' means by definition, curves independent."""
    size = {k: np.array(v)[design.hypothesis] for k, v in SIZES[name].items()}
    plain, misfit, _ = name.partition("+misfit")
    if misfit:
        mean, cov = dense(plain, design, data, p)
        return mean, cov + misfit_covariance(plain, design, data, p)
    if name.endswith("given-se"):
        return p, np.diag(data["se"] ** 2)
    if name == "mean-nll":
        return p, np.diag(size["c"] * variance_of_nll(p) / data["total"])
    v = shrunk_variance(name, data, p)
    if name == "beta-binomial":  # as a normal, beside a misfit
        s2 = size["scatter"] ** 2
        return p, np.diag(v * (1 / data["total"] + (1 - 1 / data["total"]) * s2))
    if name == "mean-probability":
        return p, np.diag(size["c"] * v / data["total"])
    # d is `dispersion` at 10 shots and log-linear in log(1 + shots).
    d = size["dispersion"] * ((1 + design.shots) / 11) ** size["dispersion_slope"]
    load = size["replicate_sd"] * np.sqrt(v / data["replicates"])
    same = design.hypothesis[:, None] == design.hypothesis
    return p, np.diag(d * v / (data["replicates"] * data["total"])) + same * np.outer(load, load)


def misfit_covariance(plain, design, data, p):
    """The law's misfit at the cells: a process over log(1 + shots), curves independent."""
    sd, length = (np.array(MISFIT[f"misfit_{k}"])[design.hypothesis] for k in ("sd", "length"))
    v = {"given-se": p * (1 - p), "mean-nll": variance_of_nll(p)}
    v["nll-given-se"] = v["mean-nll"]
    unit = sd * np.sqrt(v[plain] if plain in v else shrunk_variance(plain, data, p))
    x = np.log(1 + design.shots)
    same = design.hypothesis[:, None] == design.hypothesis
    return same * np.outer(unit, unit) * np.exp(-np.abs(x[:, None] - x) / length)


def variance_of_nll(mean):
    """A prompt's, up to its size; a thousandth of a nat keeps it from 0."""
    return (mean + 0.001) ** 1.5


def shrunk_variance(name, data, p):
    """p(1 - p) with half an item, or half a prompt squared, added on both sides."""
    n = data["total"] * (data["replicates"] if name == "replicates" else 1)
    extra = 0.25 / n if name == "mean-probability" else 0.5
    p = (n * p + extra) / (n + 2 * extra)
    return p * (1 - p)


def beta_binomial(design, data, p):
    s2 = np.array(SIZES["beta-binomial"]["scatter"])[design.hypothesis] ** 2
    size = 1 / s2 - 1  # the correlation of two items is s2
    return stats.betabinom(data["total"].astype(int), p * size, (1 - p) * size)


@pytest.mark.parametrize("cells", [2, 4, 8])
def test_cells_that_are_all_right_do_not_prove_a_ceiling_of_one(cells):
    """Posterior of a flat curve's p under a uniform prior, against the binomial's own."""
    replicates, items = 4, 50
    one = np.ones(cells)
    design = Design(10 * one, np.zeros(cells, int))
    data = {"y": one, "total": items * one, "replicates": replicates * one, "fitted": one > 0}
    sizes = {"dispersion": np.ones(1), "dispersion_slope": np.zeros(1), "replicate_sd": np.zeros(1)}
    miss = np.exp(np.linspace(np.log(1e-12), np.log(0.2), 4000))
    noise = NOISES["replicates"]
    density = [float(noise.log_density(np.log1p(-m) * one, sizes, design, data)) for m in miss]
    weight = np.exp(np.array(density) - max(density)) * miss  # on the grid's log scale
    median = miss[np.searchsorted(np.cumsum(weight) / weight.sum(), 0.5)]
    exact = 1 - 0.5 ** (1 / (cells * replicates * items + 1))
    assert exact / 4 < median < exact * 4


# Densities


@of_every_noise
def test_log_density_against_scipy(name):
    design, data, logp = case()
    p, seen = np.exp(logp), data["fitted"]
    if name == "beta-binomial":
        expected = beta_binomial(design, data, p).logpmf(np.round(data["y"] * data["total"]))[seen]
        expected = expected.sum()
    else:
        mean, cov = dense(name, design, data, p)
        within = np.ix_(seen, seen)
        expected = stats.multivariate_normal(mean[seen], cov[within]).logpdf(data["y"][seen])
    value = NOISES[name].log_density(logp, sizes_of(name), design, data)
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=tolerance(name))


def tolerance(name):
    """The least variance of p(1 - p), which rounding sets, is not in `dense`."""
    return 1e-7 if name == "given-se+misfit" else EXACT


@of_every_noise
def test_cells_given_the_others(name):
    design, data, logp = case()
    p = np.exp(logp)
    value = NOISES[name].cell_log_density(logp, sizes_of(name), design, data)
    assert value.shape == (12,)
    if name == "beta-binomial":
        expected = beta_binomial(design, data, p).logpmf(np.round(data["y"] * data["total"]))
    else:
        expected, (mean, cov) = np.empty(12), dense(name, design, data, p)
        for i in range(12):  # held-out cells, too
            others = data["fitted"] & (np.arange(12) != i)
            m, v = conditional(mean, cov, data["y"], i, others)
            y, sd = data["y"][i], np.sqrt(v)
            expected[i] = stats.norm.logpdf(y, m, sd)
            if name == "beta-binomial+misfit":  # the mass of this count
                half = 0.5 / data["total"][i]
                expected[i] = np.log(np.diff(stats.norm.cdf([y - half, y + half], m, sd))[0])
    np.testing.assert_allclose(value, expected, rtol=tolerance(name))


def conditional(mean, cov, y, i, others):
    weight = np.linalg.solve(cov[np.ix_(others, others)], cov[others, i])
    return mean[i] + weight @ (y - mean)[others], cov[i, i] - weight @ cov[others, i]


@of_every_noise
def test_chain_rule(name):
    """The density of all cells is that of all but one, times that one's given the rest."""
    design, data, logp = case()
    noise, sizes = NOISES[name], sizes_of(name)
    whole = noise.log_density(logp, sizes, design, data)
    single = noise.cell_log_density(logp, sizes, design, data)
    if name == "beta-binomial+misfit":
        single = replace(noise, counts=False).cell_log_density(logp, sizes, design, data)
    for i in np.flatnonzero(data["fitted"]):
        rest = {**data, "fitted": data["fitted"] & (np.arange(12) != i)}
        without = noise.log_density(logp, sizes, design, rest)
        np.testing.assert_allclose(whole - without, single[i], rtol=1e-8, atol=1e-10)
    none = {**data, "fitted": np.zeros(12, bool)}
    np.testing.assert_allclose(noise.log_density(logp, sizes, design, none), 0, atol=1e-12)


@of_every_noise
def test_held_out_cells_weigh_nothing(name):
    design, data, logp = case()
    noise, sizes = NOISES[name], sizes_of(name)
    value, slope = jax.value_and_grad(noise.log_density)(logp, sizes, design, data)
    out = ~data["fitted"]
    wild = {**data, "y": np.where(out, 1.0, data["y"]), "total": np.where(out, 3, data["total"])}
    wild |= {
        "se": np.where(out, 1e-3, data["se"]),
        "replicates": np.where(out, 1, data["replicates"]),
    }
    moved = np.where(out, -1e-9, logp)
    np.testing.assert_array_equal(noise.log_density(moved, sizes, design, wild), value)
    assert (slope[out] == 0).all()
    assert (slope[~out] != 0).all()
    fitted = noise.cell_log_density(logp, sizes, design, data)[~out]
    again = noise.cell_log_density(moved, sizes, design, wild)[~out]
    np.testing.assert_array_equal(again, fitted)


@of_every_noise
@pytest.mark.parametrize("double", [True, False])
def test_finite_at_the_extremes(name, double):
    design, data, _ = case()
    with jax.enable_x64(double):
        for extreme in (0.0, -1e-12, -1e-6, -20.0, -1e3):
            logp = jnp.full(12, extreme)
            for y in (0.0, 0.5, 1.0):
                at = {**data, "y": np.round(np.full(12, y) * data["total"]) / data["total"]}
                value, slope = _value_and_slopes(name, double)(logp, sizes_of(name), design, at)
                leaves = [value, *jax.tree.leaves(slope)]
                assert all(np.isfinite(x).all() for x in leaves), (extreme, y)


@cache
def _value_and_slopes(name, double):
    return hurried(jax.value_and_grad(NOISES[name].log_density, argnums=(0, 1)))


# New measurements


def test_a_cell_that_is_predicted_again_has_the_same_misfit():
    """At 0 shots, too: what was measured there is known there, and tells of what follows."""
    noise, sizes = NOISES["beta-binomial+misfit"], sizes_of("beta-binomial+misfit")
    sizes = {k: v[:1] for k, v in sizes.items()}

    def smoothed(shots, fitted):
        n = len(shots)
        design = Design(np.array(shots, float), np.zeros(n, int))
        data = {"y": np.full(n, 0.7), "total": np.full(n, 500.0), "fitted": np.array(fitted)}
        m = noise.of(np.full(n, np.log(0.5)), sizes, design, data)
        f = smooth(scaled(m, data), links(sizes, design))
        return np.array([f.residual, f.variance])

    once = smoothed([0, 1, 4], [True, False, True])
    again = smoothed([0, 0, 1, 4, 4], [True, False, False, True, False])
    np.testing.assert_allclose(again[:, [0, 2, 3]], once, atol=1e-5)
    np.testing.assert_allclose(again[:, [1, 4]], once[:, [0, 2]], atol=1e-5)


@of_every_noise
@pytest.mark.parametrize("seen", [True, False])
def test_draws_have_the_claimed_moments(name, seen):
    design, data, logp = case()
    n = 20_000
    noise, sizes = NOISES[name], sizes_of(name)
    scatter = hurried(partial(noise.scatter, seen=seen))(logp, sizes, design, data)
    many = {k: np.broadcast_to(x, (n, *x.shape)) for k, x in scatter.items()}
    drawn = noise.measure(np.random.default_rng(3), many, design, data)
    y, p, plain = drawn["y"], np.exp(logp), name.removesuffix("+misfit")
    assert y.shape == (n, 12)
    top = NOISES[name].scale.top
    assert ((y >= 0) & (y <= top)).all()
    if plain == "beta-binomial":
        total = data["total"]
        np.testing.assert_allclose(y * total, np.round(y * total), atol=1e-9)
        s2 = np.array(SIZES[name]["scatter"])[design.hypothesis] ** 2
        mean, cov = p, np.diag(p * (1 - p) * (1 / total + (1 - 1 / total) * s2))
    else:
        mean, cov = dense(plain, design, data, p)
    shift = np.zeros((12, 12))  # of the mean curve; what is known of it moves all that follows
    if name != plain:
        shift += misfit_covariance(plain, design, data, p)
    common = np.zeros((12, 12))
    if plain == "replicates":
        common = cov - np.diag(np.diag(cov) - load_squared(design, data, p))
    f, told = data["fitted"], dense(name, design, data, p)[1] if name != "beta-binomial" else cov
    known = shift + common if seen else shift  # and what new measurements share with the seen ones
    gain = np.linalg.solve(told[np.ix_(f, f)], known[f]).T
    if name != plain:
        moved = np.linalg.solve(told[np.ix_(f, f)], shift[f]).T
        curve = p + moved @ (data["y"] - p)[f]
        sd = np.sqrt(np.diag(shift - moved @ shift[f]))
        clear = np.minimum(curve, top - curve) > 4 * sd
        assert clear.sum() >= 6
        np.testing.assert_allclose(
            drawn["mean"].mean(0)[clear], curve[clear], rtol=0, atol=4.5 * sd.max() / np.sqrt(n)
        )
        np.testing.assert_allclose(drawn["mean"].std(0)[clear], sd[clear], rtol=0.03)
    mean = mean + gain @ (data["y"] - p)[f]
    cov = cov + shift - gain @ known[f]
    # Clipping must not matter here, or the moments are not those of the normal.
    inside = np.minimum(mean, top - mean) > 4 * np.sqrt(np.diag(cov))
    if name == "beta-binomial":
        inside[:] = True
    if name == "beta-binomial+misfit":  # beta-binomial about each mean: its variance is of that
        inside = clear
        i = np.arange(12)
        v = mean * (1 - mean) - sd**2
        cov[i, i] = sd**2 + v * (1 / total + (1 - 1 / total) * s2)
    sd = np.sqrt(np.diag(cov))
    z = (y - mean)[:, inside] / sd[inside]
    correlation = (cov / np.outer(sd, sd))[np.ix_(inside, inside)]
    assert inside.sum() >= 6
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(n)
    for i in range(z.shape[1]):
        for j in range(i + 1):
            product = z[:, i] * z[:, j]
            assert abs(product.mean() - correlation[i, j]) < 4.5 * product.std() / np.sqrt(n)


def test_a_cell_without_a_probability_is_nan_and_no_other():
    design, data, logp = case()
    noise = NOISES["beta-binomial"]
    scatter = hurried(noise.scatter)(np.where(np.arange(12) == 3, np.nan, logp),
                                     sizes_of("beta-binomial"), design, data)  # fmt: skip
    scatter = jax.tree.map(np.asarray, scatter)
    y = noise.measure(np.random.default_rng(0), scatter, design, data)["y"]
    np.testing.assert_array_equal(np.isnan(y), np.arange(12) == 3)


def load_squared(design, data, p):
    tau = np.array(SIZES["replicates"]["replicate_sd"])[design.hypothesis]
    return tau**2 * shrunk_variance("replicates", data, p) / data["replicates"]


# Studies: padding, held-out cells


def counts(H=2, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(h, n, rng.integers(2, 19), 20) for h in range(H) for n in SHOTS[: 6 - h].astype(int)]
    return pd.DataFrame(rows, columns=["hypothesis", "shots", "correct", "total"])


def replicated(R=5, seed=0, H=2):
    rng = np.random.default_rng(seed)
    table = pd.concat([counts(H).assign(replicate=r) for r in range(R)])
    return table.assign(correct=rng.integers(1, 20, len(table)))


def single_prompts(R=5, seed=0, H=2):
    table = replicated(R, seed, H)
    table["prob"] = np.random.default_rng(seed + 1).beta(1, 2, len(table))
    return table.drop(columns=["correct", "total"])


TABLES = {
    "beta-binomial": counts(),
    "replicates": replicated(),
    "mean-probability": single_prompts(),
    "given-se": counts().rename(columns={"correct": "prob"}).drop(columns="total").assign(se=0.05),
}
TABLES["given-se"]["prob"] /= 20
TABLES["mean-nll"] = single_prompts().rename(columns={"prob": "mean_nll"})
TABLES["nll-given-se"] = TABLES["given-se"].rename(columns={"prob": "mean_nll"})


def log_joint(name, design, data, logp):
    """Log density of measurements, sizes' priors and what replicates say of the sizes."""
    noise, sizes = NOISES[name], sizes_of(name)
    prior, _ = log_density(noise.model, (design, data), {}, sizes)
    return prior + noise.log_density(logp, sizes, design, data)


@of_every_noise
def test_padding_weighs_nothing(name):
    name, misfit, _ = name.partition("+misfit")
    study = read_curves(TABLES[name]).studies[0].hold_out(fit_points=4)
    assert load_noise(None, study.kind).name == name
    name += misfit
    if misfit:
        assert load_noise("misfit", study.kind).name == name
    design, data = arrays(study)
    cells, rows = len(study.cells), len(study.rows)
    assert cells < len(design.shots) == padded_size(cells)
    assert not data["fitted"][cells:].any()
    rng = np.random.default_rng(5)
    logp = np.log(rng.uniform(0.1, 0.9, len(design.shots)))
    padded = log_joint(name, design, data, logp)
    assert np.isfinite(padded)

    bare = Design(design.shots[:cells], design.hypothesis[:cells], 2, 1)
    cut = {k: v[:cells] if len(v) == len(design.shots) else v for k, v in data.items()}
    if name.startswith("replicates"):
        used = data["row_items"] > 0
        assert 0 < used.sum() < rows < used.size  # held-out and padded rows are not used
        cut |= {k: data[k][:5, :cells] for k in ("row_items", "row_pull")}  # 5 replicates
        out = ~data["fitted"]
        for k in ("row_items", "row_pull", "square", "rows", "log_unit"):
            assert not data[k][..., out].any(), k
    np.testing.assert_allclose(
        log_joint(name, bare, cut, logp[:cells]), padded, rtol=1e-9 if misfit else 1e-12
    )

    wild = {k: v.copy() for k, v in data.items()}
    for k, v in wild.items():
        if len(v) == len(design.shots) and k in ("y", "total", "replicates", "se", "log_choices"):
            v[cells:] = 7.0 if k in ("total", "replicates") else 0.987
    shots = np.where(np.arange(len(design.shots)) < cells, design.shots, 1e6)
    again = log_joint(name, Design(shots, design.hypothesis, 2, 1), wild, logp)
    np.testing.assert_allclose(again, padded, rtol=1e-9 if misfit else 0)


@of_every_noise
def test_held_out_measurements_tell_nothing_of_sizes(name):
    table = TABLES[name.removesuffix("+misfit")]
    other = table.copy()
    out = other["shots"] >= SHOTS[4]
    [column] = {"prob", "correct", "mean_nll"} & set(other)
    other.loc[out, column] = np.random.default_rng(9).permutation(other.loc[out, column])
    results = []
    for t in (table, other):
        design, data = arrays(read_curves(t).studies[0].hold_out(fit_shots=int(SHOTS[3])))
        results.append(log_joint(name, design, data, np.full(len(design.shots), -0.7)))
    assert out.any()
    assert not table.equals(other)
    np.testing.assert_array_equal(*results)


# What replicates tell of the sizes


def test_sizes_have_the_documented_densities():
    """Prior of each size plus the factor `spread`; log c is measured with its own error."""
    design, data, _ = case()
    at = lambda name, data=data: log_density(  # noqa: E731
        NOISES[name].model, (design, data), {}, sizes_of(name)
    )[0]
    s = {name: {k: np.array(v) for k, v in sizes.items()} for name, sizes in SIZES.items()}
    expected = stats.beta(1, 9).logpdf(s["beta-binomial"]["scatter"]).sum()
    np.testing.assert_allclose(at("beta-binomial"), expected)
    c = s["mean-probability"]["c"]
    expected = stats.beta(2, 3).logpdf(c).sum()
    np.testing.assert_allclose(at("mean-probability"), expected)
    spread = {"log_c": np.array([-1.2, 5.0]), "log_c_se": np.array([0.2, 0.01])}
    spread["has_spread"] = np.array([True, False])
    expected += stats.norm.logpdf(-1.2, np.log(c[0]), 0.2)
    np.testing.assert_allclose(at("mean-probability", {**data, **spread}), expected)
    c = s["mean-nll"]["c"]
    expected = stats.lognorm(2, scale=np.exp(-1)).logpdf(c).sum()
    np.testing.assert_allclose(at("mean-nll"), expected)
    expected += stats.norm.logpdf(-1.2, np.log(c[0]), 0.2)
    np.testing.assert_allclose(at("mean-nll", {**data, **spread}), expected)
    assert at("given-se") == at("nll-given-se") == 0
    rows = dict.fromkeys(["row_items", "row_pull"], np.zeros((8, len(design.shots))))
    rows |= dict.fromkeys(["square", "rows", "log_unit"], np.zeros(len(design.shots)))
    rows["share"] = np.zeros(len(s["mean-probability"]["c"]))
    s = s["replicates"]
    expected = stats.lognorm(1, scale=np.exp(0.5)).logpdf(s["dispersion"]).sum()
    expected += stats.norm(-0.3, 0.5).logpdf(s["dispersion_slope"]).sum()
    expected += stats.halfnorm(scale=0.15).logpdf(s["replicate_sd"]).sum()
    np.testing.assert_allclose(at("replicates", {**data, **rows}), expected)
    table = replicated()
    study_design, study_data = arrays(read_curves(table).studies[0])
    value, _ = log_density(
        NOISES["replicates"].model, (study_design, study_data), {}, sizes_of("replicates")
    )
    np.testing.assert_allclose(value - expected, dense_reml(table, SIZES["replicates"]))


def dense_reml(table, sizes):
    """Restricted likelihood of all measurements with one free mean a cell, by dense matrices.

    In units of sqrt(p (1 - p)) at the measured mean; without the part of log |X'V^-1X| that is the
    same for all sizes.
    """
    value = 0.0
    for h, curve in table.groupby("hypothesis"):
        y = (curve["correct"] / curve["total"]).to_numpy()
        shots, cell = np.unique(curve["shots"], return_inverse=True)
        R, mean = curve["replicate"].nunique(), np.bincount(cell, y) / np.bincount(cell)
        z = (y - mean[cell]) / np.sqrt(mean * (1 - mean))[cell]
        d = sizes["dispersion"][h] * ((1 + shots) / 11) ** sizes["dispersion_slope"][h]
        replicate = curve["replicate"].to_numpy()
        V = np.diag(d[cell] / curve["total"].to_numpy())
        V += (replicate[:, None] == replicate) * sizes["replicate_sd"][h] ** 2
        X = (cell[:, None] == np.arange(len(shots))).astype(float)
        W = np.linalg.inv(V)
        S = X.T @ W @ X
        residual = z - X @ np.linalg.solve(S, X.T @ W @ z)
        free = len(z) - len(shots)
        value -= 0.5 * (
            np.linalg.slogdet(V)[1]
            + np.linalg.slogdet(S)[1]
            - len(shots) * np.log(R)
            + residual @ W @ residual
            + free * np.log(2 * np.pi)
        )
    return value


@pytest.mark.parametrize("R", [2, 7])
def test_replicate_spread_is_the_restricted_likelihood(R):
    table = replicated(R, seed=R)
    # Items may differ between shot counts, not between the replicates of one.
    table["total"] = 20 + 3 * table["shots"].to_numpy() % 17
    design, data = arrays(read_curves(table).studies[0])
    rng = np.random.default_rng(2)
    spread = jax.jit(lambda sizes: _replicate_spread(sizes, design, data))
    for _ in range(10):
        sizes = {
            "dispersion": np.exp(rng.normal(size=2)),
            "dispersion_slope": rng.normal(size=2),
            "replicate_sd": np.abs(rng.normal(size=2)) * [0.3, 0.01],
        }
        np.testing.assert_allclose(spread(sizes), dense_reml(table, sizes), rtol=1e-9)


def test_sizes_of_replicates_are_recovered():
    """The spread's maximum is at the truth, within its own standard errors."""
    rng = np.random.default_rng(4)
    R, items = 150, 20_000  # so many items that rounding to counts does not matter
    truth = np.array([np.log(60.0), -0.5, np.log(0.12)])
    d = np.exp(truth[0]) * ((1 + SHOTS) / 11) ** truth[1]
    p = np.linspace(0.3, 0.7, 6)
    z = np.sqrt(d / items) * rng.normal(size=(R, 6)) + np.exp(truth[2]) * rng.normal(size=(R, 1))
    correct = np.round(items * (p + np.sqrt(p * (1 - p)) * z)).astype(int)
    table = pd.DataFrame({"correct": correct.ravel(), "total": items})
    table["shots"], table["replicate"] = np.tile(SHOTS.astype(int), R), np.repeat(np.arange(R), 6)
    design, data = arrays(read_curves(table).studies[0])

    def loss(x):
        sizes = {"dispersion": jnp.exp(x[:1]), "dispersion_slope": x[1:2]}
        return -_replicate_spread({**sizes, "replicate_sd": jnp.exp(x[2:])}, design, data)

    both = hurried(jax.value_and_grad(loss))
    start = np.array([0.0, 0.0, -3.0])
    x = optimize.minimize(lambda x: tuple(map(np.asarray, both(x))), start, jac=True).x
    h = 1e-4
    information = [(both(x + h * e)[1] - both(x - h * e)[1]) / (2 * h) for e in np.eye(3)]
    error = np.sqrt(np.diag(np.linalg.inv(information)))
    assert (error < [0.1, 0.05, 0.1]).all()
    assert (np.abs(x - truth) < 3 * error).all()


def beta_prompts(c, cells, prompts, rng, batch=1, between=(0.05, 0.95)):
    """Rows of one curve: prompts (or means of batches) that are Beta with variance c p (1 - p)."""
    p = rng.uniform(*between, cells)
    k = 1 / c - 1
    y = rng.beta(p * k, (1 - p) * k, (batch, prompts, cells)).mean(0)
    return pd.DataFrame(
        {
            "cell": np.tile(np.arange(cells), prompts),
            "replicate": np.repeat(np.arange(prompts), cells),
            "y": y.ravel(),
            "total": float(batch),
        }
    )


@pytest.mark.parametrize("c", [0.05, 0.3, 0.8])
@pytest.mark.parametrize(("prompts", "batch"), [(2, 1), (3, 1), (40, 1), (3, 4)])
def test_c_of_prompts_is_recovered(c, prompts, batch):
    rng = np.random.default_rng(6)
    found = [_prompt_c(beta_prompts(c, 400, prompts, rng, batch), PROBABILITY) for _ in range(60)]
    error = np.std(found, ddof=1) / np.sqrt(60)
    assert error < 0.02 * c
    assert abs(np.mean(found) - c) < 3.5 * error


@pytest.mark.parametrize("c", [0.1, 1.5])
@pytest.mark.parametrize(("prompts", "batch", "near"), [(4, 1, 0.05), (40, 1, 0.01), (3, 4, 0.02)])
def test_c_of_nll_is_recovered(c, prompts, batch, near):
    """Gamma prompts with variance c mean^1.5; the correction for few prompts is of first order."""
    rng, found = np.random.default_rng(6), []
    for _ in range(60):
        mean = rng.uniform(0.5, 6.0, 400)
        k = mean**2 / (c * variance_of_nll(mean))
        y = rng.gamma(k, mean / k, (batch, prompts, 400)).mean(0)
        rows = beta_prompts(0.5, 400, prompts, rng, batch).assign(y=y.ravel())
        found.append(_prompt_c(rows, MEAN_NLL))
    error = np.std(found, ddof=1) / np.sqrt(60)
    assert abs(np.mean(found) / c - 1) < near + 3.5 * error / c


def test_c_of_constant_prompts_is_unknown():
    rows = pd.DataFrame({"cell": [0, 0, 1, 1], "y": [0.2, 0.2, 0.5, 0.5], "total": 1.0})
    assert _prompt_c(rows, PROBABILITY) == _prompt_c(rows, MEAN_NLL) == 0
    assert _prompt_c(rows.assign(y=[0.0, 0, 1, 1]), PROBABILITY) == 0
    assert _prompt_c(rows.assign(y=[0.0, 1, 1, 0]), PROBABILITY) == 1  # never above 1
    assert _prompt_c(rows.assign(y=[0.0, 2, 2, 0]), MEAN_NLL) > 1


@pytest.mark.parametrize(
    # Beta's tails are lighter than the normal's, so the chi-squared error is too wide in the
    # middle; near the edge they are heavy and the jackknife takes over.
    ("between", "low", "high"),
    [((0.3, 0.7), 0.4, 1.0), ((0.01, 0.05), 0.7, 1.4)],
)
def test_measured_c_comes_with_its_error(between, low, high):
    """Over simulated curves log c scatters around the truth no more than its error says."""
    rng = np.random.default_rng(8)
    c, found = 0.3, []
    for _ in range(60):
        rows = beta_prompts(c, 6, 40, rng, between=between)
        table = rows.assign(shots=rows["cell"], prob=rows["y"]).drop(columns=["cell", "y", "total"])
        _, data = arrays(read_curves(table).studies[0])
        assert data["has_spread"].tolist() == [True]
        found.append((data["log_c"][0], data["log_c_se"][0]))
    value, error = np.transpose(found)
    z = (value - np.log(c)) / error
    assert low < np.sqrt(np.mean(z**2)) < high


# Choosing one


@of_every_noise
def test_noises_by_name(name):
    noise = NOISES[name]
    assert noise.name == name
    assert noise.summary
    for kind in noise.kinds:
        assert load_noise(name, kind) is noise
        # Each kind has one, alone and with a misfit.
        assert load_noise("misfit" if "+misfit" in name else None, kind) is noise
    for kind in {k for other in NOISES.values() for k in other.kinds} - set(noise.kinds):
        message = (
            f"noise '{re.escape(name)}' does not suit an outcome of kind '{kind}': it is for .*use "
        )
        with pytest.raises(InputError, match=message):
            load_noise(name, kind)


def test_unknown_noise():
    with pytest.raises(
        InputError, match=r"unknown noise 'gauss': choose from misfit, beta-binomial, "
    ):
        load_noise("gauss", "counts")
