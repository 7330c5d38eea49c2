"""One contract over all laws: whatever is in LAWS must pass, against oracles in plain NumPy.

The oracles write the formulas literally, in extended precision where it matters, and draw P by
loops from the tables of ties; they share nothing with the laws but the names of parameters.
"""

import hashlib
import importlib
import inspect
import math
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bayesicl.models.bounded import MEAN_C
from bayesicl.models.logistic import FAR
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import constrain_fn, potential_energy
from scipy import optimize, stats
from scipy.special import expit, log_expit, logit

from bayesicl import coordinates, priors
from bayesicl.device import on_device
from bayesicl.engine import Engine
from bayesicl.errors import InputError
from bayesicl.law import BAYESIAN, LAWS, Design, Law, laws, load_law
from bayesicl.noise import NOISES
from bayesicl.settings import Settings

pytestmark = pytest.mark.usefixtures("x64")

SHOTS = np.array([0, 1, 2, 5, 30, 1e3, 1e6])
N = 1500  # prior draws of a study
SIZES = [(1, 1), (1, 3), (2, 0), (5, 2)]  # observed hypotheses, backgrounds
MORE_SIZES = [(H, B) for H in (1, 2, 5) for B in range(4) if H + B > 1 and (H, B) not in SIZES]


def of_studies(names, sizes, more=()):
    """Parametrise over laws and sizes; `more` sizes are left to the slow tests."""
    fast = [pytest.param(name, *size) for name in names for size in sizes]
    slow = [pytest.param(name, *size, marks=pytest.mark.slow) for name in names for size in more]
    return fast + slow


BASELINE_LAWS = [law for law in LAWS if law not in BAYESIAN]
BAYESIAN_STUDIES = of_studies(BAYESIAN, SIZES, MORE_SIZES)
STUDIES = BAYESIAN_STUDIES + of_studies(BASELINE_LAWS, [(1, 1), (2, 1)], [(5, 1)])
of_every_study = pytest.mark.parametrize(("name", "H", "B"), STUDIES)
of_every_law = pytest.mark.parametrize("name", LAWS)


def mapped(f, in_axes=0):
    """Compiled and mapped over draws, in a hurry: compiling takes longer than running here."""
    level = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.vmap(f, in_axes), compiler_options=level)


# Oracles


def bayes(n, pi, P, K):
    """Log p and belief by the law as it is written. pi, P: (..., M), log p: (...)."""
    n, pi, P, K = (np.asarray(x, np.longdouble) for x in (n, pi, P, K))
    w = np.log(pi) + (K * n)[..., None] * np.log(P)
    total = np.logaddexp.reduce(w, axis=-1)
    logp = np.logaddexp.reduce(w + np.log(P), axis=-1) - total
    return logp, np.exp(w - total[..., None])


def power(n, C, alpha, L):
    return -(C * (n + 1) ** -np.asarray(alpha, np.longdouble) + L)


def bounded(n, C, n_c, alpha, L):
    return -(C * (1 + (n + 1) / np.asarray(n_c, np.longdouble)) ** -alpha + L)


def logistic(n, A, n_0, k, L):
    return -(A / (1 + ((n + 1) / np.asarray(n_0, np.longdouble)) ** k) + L)


BASELINES = {"power": power, "bounded": bounded, "logistic": logistic}


def table_of_P(name, H, M, v):
    """P (draws, H, M) from the sampled sites, (draws, ...) each."""
    P = np.empty((len(v["K"]), H, M))
    for h in range(H):
        rest = iter(range(M))
        for m in range(M):
            if name == "general":
                P[:, h, m] = v["_hit"][:, h] if m == h else v["_miss"][:, h, next(rest)]
            elif m == h:
                P[:, h, m] = v["gamma"][:, h]
            elif name == "scoring":
                P[:, h, m] = v["beta"][:, h]
            else:  # with one observed hypothesis beta_0 is left out
                P[:, h, m] = v["beta"][:, m - 1 if H == 1 else m]
    return P


def oracle(name, design, v):
    """Log p (draws, cells) from the sampled sites."""
    h, n = design.hypothesis, design.shots
    if name in BASELINES:
        names = inspect.signature(BASELINES[name]).parameters
        return BASELINES[name](n, *(v[p][:, h] for p in list(names)[1:]))
    P = table_of_P(name, design.n_hypotheses, design.n_believed, v)
    return bayes(n, v["pi"][:, None], P[:, h], v["K"][:, None])[0]


def design_of(H, B):
    """Every hypothesis at all SHOTS."""
    return Design(np.tile(SHOTS, H), np.repeat(np.arange(H), len(SHOTS)), H, B)


@cache
def drawn(name, H, B, seed=0):
    """Design, log p (N, cells) and all sites (N, ...) of prior draws."""
    design = design_of(H, B)
    return design, *_numpy(_prior_program(name)(design, _keys(N, seed)))


@cache
def _prior_program(name):
    def one(design, key):
        with handlers.trace() as trace, handlers.seed(rng_seed=key):
            logp = laws()[name].model(design)
        kinds = ("sample", "deterministic")
        return logp, {k: s["value"] for k, s in trace.items() if s["type"] in kinds}

    return mapped(one, in_axes=(None, 0))


def _keys(n, seed):
    return jax.random.split(jax.random.PRNGKey(seed), n)


def _numpy(tree):
    return jax.tree.map(np.asarray, tree)


# The file


@of_every_law
def test_file(name):
    module = importlib.import_module(f"bayesicl.models.{name}")
    law, text = module.law, " ".join(module.__doc__.split())
    assert isinstance(law, Law)
    assert law.name == name == Path(load_law(name).path).stem == load_law(name).name
    assert law.curve is module.curve
    assert law.model is module.model
    assert law.reference
    assert law.monotone
    # The formula of the value is the formula of the docstring, or names the law it starts from.
    formula = law.formula.removeprefix("as general, with ")
    assert formula
    assert formula in text
    assert " Priors " in text
    assert " Source: " in text
    symbols, prior = text.split(" Priors ")
    for site in ("pi", *inspect.signature(law.curve).parameters)[1 if name in BASELINES else 0 :]:
        if site not in ("shots", "hypothesis"):
            assert f" {site}" in symbols, f"{site} is not explained"
            assert f"{site} " in prior or f"{site}_" in prior, f"{site} has no prior"
    loaded = load_law(name)
    assert loaded.source_hash == hashlib.sha256(Path(loaded.path).read_bytes()).hexdigest()


def test_registry():
    assert tuple(laws()) == LAWS
    assert all(law.name == name for name, law in laws().items())
    assert set(BAYESIAN) < set(LAWS)
    assert load_law(laws()["power"]) == laws()["power"]


# Prior draws


@of_every_study
def test_log_p_of_prior_draws(name, H, B):
    design, logp, v = drawn(name, H, B)
    assert logp.shape == (N, H * len(SHOTS))
    assert np.isfinite(logp).all()
    assert (logp <= 0).all()
    expected = oracle(name, design, v).astype(float)
    np.testing.assert_allclose(np.exp(logp), np.exp(expected), rtol=0, atol=1e-9)
    np.testing.assert_allclose(logp, expected, rtol=1e-6, atol=1e-9)
    curves = logp.reshape(N, H, len(SHOTS))
    assert (np.diff(curves, axis=-1) > -1e-12).all()  # monotone in shots
    assert (np.diff(curves, axis=-1) > 1e-3).any()


@of_every_study
def test_sites_keep_their_constraints(name, H, B):
    _, _, v = drawn(name, H, B)
    sites = {k: x for k, x in v.items() if k not in ("belief", "P", "ceiling", "rate")}
    for site, values in sites.items():
        assert (values > 0).all(), site
    if name in BASELINES:
        assert set(sites) == set(inspect.signature(BASELINES[name]).parameters) - {"n"}
        assert all(x.shape == (N, H) for x in sites.values())
        np.testing.assert_allclose(v["ceiling"], np.exp(-v["L"]))
        return
    M = H + B
    P = table_of_P(name, H, M, v)
    hit = P[:, range(H), range(H)]
    assert v["K"].shape == (N,)
    assert v["pi"].shape == (N, M)
    np.testing.assert_allclose(v["pi"].sum(-1), 1)
    assert (np.diff(v["pi"][:, H:]) < 0).all()  # backgrounds, the largest first
    if H > 1:  # the observed ones are free
        assert (np.diff(v["pi"][:, :H]) < 0).any()
        assert (np.diff(v["pi"][:, :H]) > 0).any()
    np.testing.assert_array_equal(v["P"], P)
    np.testing.assert_array_equal(v["ceiling"], hit)
    assert (P < 1).all()
    misses = np.where(np.eye(H, M, dtype=bool), 0, P)
    assert (misses.max(-1) < hit).all()  # every curve ends with its own hypothesis
    np.testing.assert_allclose(v["rate"], v["K"][:, None] * np.log(hit / misses.max(-1)))
    shape = {
        "general": {"_hit": (H,), "_miss": (H, M - 1)},
        "sampling": {"gamma": (H,), "beta": (M if H > 1 else B,)},
        "scoring": {"gamma": (H,), "beta": (H,)},
    }[name]
    assert set(sites) == {"pi", "K", *shape}
    assert all(sites[k].shape == (N, *s) for k, s in shape.items())


@pytest.mark.parametrize(("name", "H", "B"), BAYESIAN_STUDIES)
def test_belief(name, H, B):
    design, _, v = drawn(name, H, B)
    P = table_of_P(name, H, H + B, v)[:, design.hypothesis]
    expected = bayes(design.shots, v["pi"][:, None], P, v["K"][:, None])[1]
    np.testing.assert_allclose(v["belief"].sum(-1), 1)
    np.testing.assert_allclose(v["belief"], expected.astype(float), rtol=0, atol=1e-7)
    np.testing.assert_allclose(  # before the first demonstration
        v["belief"][:, :: len(SHOTS)], np.repeat(v["pi"][:, None], H, axis=1)
    )


@of_every_law
def test_prior_draws_are_reproducible(name):
    design, logp, _ = drawn(name, 1, 1)
    again, _ = _prior_program(name)(design, _keys(N, 0))
    other, _ = _prior_program(name)(design, _keys(N, 1))
    np.testing.assert_array_equal(logp, again)
    assert (np.asarray(other) != logp).any(-1).all()


# The curve


def parameters(name, rng, n=300):
    """Arguments of `curve` after `shots`, (n, 1, ...) each, and the oracle's log p of shots."""
    u = lambda low, high, *shape: rng.uniform(low, high, (n, 1, *shape))  # noqa: E731
    e = lambda low, high, *shape: np.exp(u(low, high, *shape))  # noqa: E731
    if name in BASELINES:
        ranges = {"n_c": (-2, 6), "n_0": (-2, 6), "alpha": (-2, 1), "k": (-2, 2)}
        names = list(inspect.signature(BASELINES[name]).parameters)[1:]
        v = {p: e(*ranges.get(p, (-3, 1))) for p in names}
        return v, lambda shots, v: BASELINES[name](shots, **v)
    K = e(-6, 2)
    if name == "scoring":
        gamma = u(0.02, 1)
        v = {"pi": expit(u(-15, 5)), "gamma": gamma, "beta": gamma * e(-9, -0.001), "K": K}

        def scoring(shots, v):
            pair = [
                np.broadcast_arrays(v[a], b) for a, b in (("pi", 1 - v["pi"]), ("gamma", v["beta"]))
            ]
            return bayes(shots, *(np.stack(x, axis=-1) for x in pair), v["K"])[0]

        return v, scoring
    pi = rng.dirichlet([0.5] * 3, (n, 1))
    if name == "general":
        v = {"pi": pi, "P": e(-7, 0, 3), "K": K}
        return v, lambda shots, v: bayes(shots, v["pi"], v["P"], v["K"])[0]
    gamma = e(-2, 0, 2)
    v = {"pi": pi, "gamma": gamma, "beta": e(-9, -2, 3), "K": K}

    def sampling(shots, v):  # of hypothesis 1
        P = np.stack([v["beta"][..., 0], v["gamma"][..., 1], v["beta"][..., 2]], axis=-1)
        return bayes(shots, v["pi"], P, v["K"])[0]

    return v, sampling


def curve(name, shots, v):
    """Log p of shots (1, s) at parameters (n, 1, ...) by the library: (n, s)."""
    return _curve_program(name)(shots, v)


@cache
def _curve_program(name):
    f = laws()[name].curve

    def many(shots, v):
        if name != "sampling":
            return f(shots, **v)
        # (M,) and (H,) belong to one study: the draws are mapped over.
        one = lambda v: f(shots[0], jnp.ones(shots.shape[1], int), **v)  # noqa: E731
        return jax.vmap(one)({k: x[:, 0] for k, x in v.items()})

    return jax.jit(many)


MANY = np.concatenate([[0, 1, 2, 3], np.geomspace(5, 1e6, 40)])[None]


@of_every_law
def test_curve_against_oracle(name, rng):
    v, expected = parameters(name, rng)
    logp = np.asarray(curve(name, MANY, v))
    assert logp.shape == (300, MANY.size)
    np.testing.assert_allclose(logp, expected(MANY, v).astype(float), rtol=1e-7, atol=1e-8)


@of_every_law
def test_float32_up_to_a_million_shots(name, rng):
    v, expected = parameters(name, rng, n=2000)
    v = {k: x.astype(np.float32) for k, x in v.items()}
    v64 = {k: x.astype(float) for k, x in v.items()}
    with jax.enable_x64(False):
        logp = curve(name, MANY.astype(np.float32), v)
        assert logp.dtype == np.float32
    for exact in (expected(MANY.astype(np.float32).astype(float), v64), curve(name, MANY, v64)):
        p = np.exp(np.asarray(exact, float))
        np.testing.assert_allclose(np.exp(np.asarray(logp, float)), p, rtol=0, atol=1e-5)


@of_every_law
def test_endless_demonstrations_give_the_ceiling(name, rng):
    v, _ = parameters(name, rng)
    top = {"scoring": "gamma", "general": "P", "sampling": "gamma"}.get(name)
    ceiling = np.exp(-v["L"]) if top is None else v[top]
    if name == "general":
        ceiling = ceiling.max(-1)
    elif name == "sampling":
        ceiling = ceiling[..., 1]
    p = np.exp(curve(name, np.full((1, 1), 1e300), v))
    np.testing.assert_allclose(p, ceiling, rtol=1e-12)


@pytest.mark.parametrize("name", BAYESIAN)
def test_without_evidence_the_curve_is_flat(name, rng):
    v, _ = parameters(name, rng)
    v["K"] = np.zeros_like(v["K"])
    if name == "scoring":
        level = v["pi"] * v["gamma"] + (1 - v["pi"]) * v["beta"]
    elif name == "general":
        level = (v["pi"] * v["P"]).sum(-1)
    else:
        level = v["pi"][..., 1] * v["gamma"][..., 1]
        level = level + (v["pi"] * v["beta"])[..., [0, 2]].sum(-1)
    p = np.exp(curve(name, MANY, v))
    np.testing.assert_allclose(p, np.broadcast_to(level, p.shape), rtol=1e-10)
    p = np.exp(curve(name, MANY, {**v, "K": v["K"] + 1e-16}))
    np.testing.assert_allclose(p, np.broadcast_to(level, p.shape), rtol=1e-8)


def test_scoring_is_logistic_in_shots(rng):
    v, _ = parameters("scoring", rng)
    pi, gamma, beta, K = v.values()
    logistic = expit(logit(pi) + K * MANY * np.log(gamma / beta))
    p = np.exp(curve("scoring", MANY, v))
    np.testing.assert_allclose(p, beta + (gamma - beta) * logistic, rtol=0, atol=1e-8)


def test_three_laws_are_one_for_one_hypothesis_and_one_background(rng):
    v, _ = parameters("scoring", rng)
    pi, gamma, beta, K = v.values()
    pair = np.stack([pi, 1 - pi], axis=-1)
    P = np.stack([gamma, beta], axis=-1)
    reference = curve("scoring", MANY, v)
    tied = {"pi": pair, "P": P, "K": K}
    np.testing.assert_allclose(curve("general", MANY, tied), reference, rtol=1e-12)
    one = lambda v: laws()["sampling"].curve(MANY[0], jnp.zeros(MANY.size, int), **v)  # noqa: E731
    tied = {"pi": pair, "gamma": gamma[..., None], "beta": np.stack([beta * 9, beta], -1), "K": K}
    sampled = jax.vmap(one)({k: x[:, 0] for k, x in tied.items()})
    np.testing.assert_allclose(sampled, reference, rtol=1e-12)


def test_three_programs_are_one_for_one_hypothesis_and_one_background(rng):
    design = design_of(1, 1)
    draws = {k: rng.normal(size=(20, 1)) for k in ("pi", "hit", "miss")}
    results = []
    for name, hit, miss, shape in (
        ("general", "_hit", "_miss", (1, 1)),
        ("sampling", "gamma", "beta", (1,)),
        ("scoring", "gamma", "beta", (1,)),
    ):
        model = laws()[name].model

        def one(w, model=model, hit=hit, miss=miss, shape=shape):
            w = {"pi": w["pi"], "K": w["pi"][0], hit: w["hit"], miss: w["miss"].reshape(shape)}
            natural = constrain_fn(model, (design,), {}, w)
            with handlers.seed(rng_seed=0), handlers.substitute(data=natural):
                # The same curve and the same prior density at the same parameters.
                return model(design), potential_energy(model, (design,), {}, w)

        results.append(mapped(one)(draws))
    for logp, energy in results[1:]:
        np.testing.assert_allclose(logp, results[0][0], rtol=1e-10)
        np.testing.assert_allclose(energy, results[0][1], rtol=1e-10)


# Gradients


@of_every_law
@pytest.mark.parametrize("shots", [0.0, 1.0, 1e6, 1e9, 1e15])
def test_gradients(name, shots, rng):
    v, expected = parameters(name, rng, n=200)
    n = np.full((1, 1), shots)
    by_shots, by_parameter = _gradient(name)(jnp.broadcast_to(n, (200, 1)), v)
    for key, g in {"shots": by_shots, **by_parameter}.items():
        assert np.isfinite(g).all(), key
    if shots > 1:
        return  # nearly all gradients are 0 there
    h = np.longdouble(1e-6)
    up = expected(n + h, v), expected(n + 2 * h, v)  # shots stay >= 0
    slope = (4 * up[0] - up[1] - 3 * expected(n, v)) / (2 * h)
    np.testing.assert_allclose(np.asarray(by_shots), slope.astype(float), rtol=1e-6, atol=1e-8)
    for key, g in by_parameter.items():
        for i in np.ndindex(v[key].shape[2:]):
            at = (slice(None), slice(None), *i)
            factor = np.ones(v[key].shape, np.longdouble)
            factor[at] += h  # gradients by the logarithm: parameters span decades
            up = expected(n, {**v, key: v[key] * factor})
            down = expected(n, {**v, key: v[key] / factor})
            slope = ((up - down) / (2 * np.log(1 + h))).astype(float)
            np.testing.assert_allclose((g * v[key])[at], slope, rtol=1e-6, atol=1e-9, err_msg=key)


@cache
def _gradient(name):
    def one(shots, v):
        v = jax.tree.map(lambda x: x[None], v)
        return curve(name, shots[None], v)[0, 0]

    # A scalar at a time: shots (1,), parameters (1, ...).
    return mapped(jax.grad(one, argnums=(0, 1)))


# Coordinates and the posterior, in the unconstrained space


def study(H, B, rng):
    """A design and data for noise of given standard errors, one cell of them held out."""
    design, size = design_of(H, B), H * len(SHOTS)
    fitted = np.arange(size) != 3
    data = {"y": rng.uniform(size=size), "se": np.full(size, 0.3), "fitted": fitted}
    return design, data | {"in_sight": np.ones(size, bool)}


@dataclass
class Points:
    """Random points w of the unconstrained space and what belongs to them, (n, ...) each."""

    w: dict  # in sampling coordinates
    z: dict  # in NumPyro's
    z_log_det: np.ndarray  # log |dz/dw| as the law says
    z_jacobian: np.ndarray  # dz/dw by autodiff
    v: dict  # natural parameters
    v_jacobian: np.ndarray  # of the free ones
    energy: np.ndarray
    slope: dict


SPACES = of_studies(BAYESIAN, [(1, 1), (2, 2)], [(1, 3), (5, 0), (5, 2)])
SPACES += of_studies(["scoring"], [(2, 0), (5, 1)]) + of_studies(BASELINE_LAWS, [(2, 1)], [(1, 1)])
of_every_space = pytest.mark.parametrize(("name", "H", "B"), SPACES)


def sites_of(name, H, B):
    """Shapes of the unconstrained sites."""
    M = H + B
    if name in BASELINES:
        return dict.fromkeys(list(inspect.signature(BASELINES[name]).parameters)[1:], (H,))
    return {"pi": (M - 1,), "K": ()} | {
        "general": {"_hit": (H,), "_miss": (H, M - 1)},
        "sampling": {"gamma": (H,), "beta": (M if H > 1 else B,)},
        "scoring": {"gamma": (H,), "beta": (H,)},
    }[name]


@cache
def points(name, H, B, scale=1.0, n=60):
    rng = np.random.default_rng(7)
    w = {k: scale * rng.normal(size=(n, *shape)) for k, shape in sites_of(name, H, B).items()}
    design, data = study(H, B, rng)
    return design, data, Points(w, *_numpy(_space_program(name, H, B)(design, data, w)))


@cache
def _space_program(name, H, B):
    law = laws()[name]
    engine = Engine(law, NOISES["given-se"], Settings())

    def one(design, data, w):
        flat, unravel = ravel_pytree(w)
        z, log_det = law.coordinates(design, w)
        move = lambda w: ravel_pytree(law.coordinates(design, unravel(w))[0])[0]  # noqa: E731

        def natural(w):
            v = constrain_fn(law.model, (design,), {}, law.coordinates(design, unravel(w))[0])
            free = {**v, "pi": v["pi"][:-1]} if "pi" in v else v  # the others determine the last
            return ravel_pytree(free)[0], v

        v_jacobian, v = jax.jacfwd(natural, has_aux=True)(flat)
        energy = jax.value_and_grad(lambda w: engine.posterior.potential(design, data, w))(w)
        return z, jnp.asarray(log_det, float), jax.jacfwd(move)(flat), v, v_jacobian, *energy

    return mapped(one, in_axes=(None, None, 0))


@of_every_space
def test_gradients_in_the_unconstrained_space(name, H, B):
    for scale in (0.0, 1.0, 4.0):
        at = points(name, H, B, scale)[-1]
        there = np.ones(len(at.energy), bool)  # n_0 = exp(-5000), say, is no floating-point number
        for k, x in at.v.items():
            if k not in ("pi", "gamma", "beta", "_hit", "_miss"):
                there &= ((x > 0) & np.isfinite(x)).reshape(len(x), -1).all(axis=1)
        assert np.sum(~there) <= (2 if scale == 4.0 else 0)
        assert np.all(~(at.energy[~there] < 1e4))
        assert np.isfinite(at.energy[there]).all(), scale
        assert all(np.isfinite(g[there]).all() for g in at.slope.values()), scale
    assert all((g[there] != 0).any() for g in at.slope.values())


def test_energies_that_would_overflow_are_infinite():
    """Their gradients enter the momentum, and its square would leave floating point."""
    design, data = study(1, 1, np.random.default_rng(1))
    engine = Engine(laws()["power"], NOISES["given-se"], Settings())
    w = {"C": jnp.array([45.0]), "L": jnp.array([0.0]), "alpha": jnp.array([0.0])}
    energy = jax.jit(jax.value_and_grad(lambda w: engine.posterior.potential(design, data, w)))
    there, slope = energy(w)
    assert there == jnp.inf
    assert all((x == 0).all() for x in slope.values())
    assert np.isfinite(energy(w | {"C": jnp.array([5.0])})[0])


@pytest.mark.parametrize("name", BASELINE_LAWS)
@pytest.mark.parametrize("shots", [(0.0,), (0.0, 1.0), (1.0,), (3.0, 1e7)])
def test_coordinates_at_any_longest_shots(name, shots, x64):
    """One to one where only 0 shots, or 1, were measured, and to ten million."""
    law, rng = laws()[name], np.random.default_rng(3)
    design = Design(np.array(shots), np.zeros(len(shots), int), 1)
    names = list(inspect.signature(BASELINES[name]).parameters)[1:]

    def move(x):
        z, log_det = law.coordinates(design, {k: x[i : i + 1] for i, k in enumerate(names)})
        return jnp.concatenate([z[k] for k in names]), log_det

    both = jax.jit(lambda x: (jax.jacfwd(lambda x: move(x)[0])(x), move(x)[1]))
    for x in rng.normal(size=(20, len(names))):
        jacobian, log_det = both(x)
        sign, expected = np.linalg.slogdet(jacobian)
        assert sign != 0
        np.testing.assert_allclose(log_det, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", list(laws()))
def test_energy_in_float32(name):
    """As on a GPU: within a few hundredths of a nat of float64, at draws that matter."""
    design, data, at = points(name, 1, 1, 1.0)
    near = at.energy < 100
    law = laws()[name]
    potential = Engine(law, NOISES["given-se"], Settings()).posterior.potential
    with jax.enable_x64(False):
        low = on_device(at.w)
        one = jax.jit(jax.vmap(potential, in_axes=(None, None, 0)))(*on_device((design, data)), low)
    assert one.dtype == jnp.float32
    assert near.sum() > 10
    np.testing.assert_allclose(np.asarray(one)[near], at.energy[near], rtol=0, atol=0.03)


@of_every_space
def test_jacobian_of_coordinates(name, H, B):
    for scale in (1.0, 2.0):
        at = points(name, H, B, scale)[-1]
        log_det = np.linalg.slogdet(at.z_jacobian)[1]
        np.testing.assert_allclose(at.z_log_det, log_det, rtol=0, atol=1e-9)
    moved = max(np.abs(at.z[k] - at.w[k]).max() for k in at.w)
    assert moved > 1


@pytest.mark.parametrize("name", BASELINE_LAWS)
def test_coordinates_of_baselines_are_what_the_data_see(name):
    design, _, at = points(name, 2, 1, 2.0)
    drop, shape = {"power": "C alpha", "bounded": "C alpha", "logistic": "A k"}[name].split()
    w, v, oracle = at.w, at.v, BASELINES[name]
    names = list(inspect.signature(oracle).parameters)[1:]
    N = np.array([np.max(design.shots[design.hypothesis == h]) for h in range(2)])
    y = lambda n: -oracle(n, *[v[k].astype(np.longdouble) for k in names])  # noqa: E731
    same = partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-7)
    same(np.log(y(N)).astype(float), w[drop])
    kept, span = (y(N) / y(0)).astype(float), np.log1p(N)
    if name == "logistic":
        k, m = v["k"], w["n_0"]
        far = np.logaddexp(0, -m - FAR) + np.logaddexp(0, m - span - FAR)
        same(kept, expit(w["L"] + far))
        least = -np.log(kept) / span
        same(np.log(k - least), w["k"])
        most = np.vectorize(_n_0_without_rest)(k, span, kept)
        bend = np.logaddexp(0, m) - np.logaddexp(0, m - span)
        free = (m + k * bend) / (1 + k)
        same(np.log(v["n_0"]), most - np.logaddexp(0, (1 + k) * (most - free)) / (1 + k))
        return
    same(kept, expit(w["L"]))
    ratio = ((y(N) - v["L"]) / (y(0) - v["L"])).astype(float)
    x = np.logaddexp(0, -w[shape])
    same(ratio, expit(w["L"]) * np.exp(-coordinates.BEND * np.sinh(x / coordinates.BEND)))
    if name == "bounded":
        a = 1 - np.log(ratio) / span
        drop = np.log((y(0) - v["L"]).astype(float) / MEAN_C)
        bent = 2 * np.log(np.logaddexp(0, (np.log(a) - w["n_c"] + drop) / 2)) - drop
        same(np.log1p(1 / v["n_c"]), np.logaddexp(0, bent) / a)


def _n_0_without_rest(k, span, kept):
    """log n_0 at which a curve of this k, with L = 0, keeps this share of y(0) at the end."""
    f = lambda x: log_expit(k * (x - span)) - log_expit(k * x) - np.log(kept)  # noqa: E731
    return optimize.brentq(f, -1e3 / k, 1e3 / k, xtol=1e-13)


@pytest.mark.parametrize(("name", "H", "B"), [s for s in SPACES if s.values[0] == "scoring"])
def test_coordinates_of_scoring_are_one_to_one(name, H, B):
    design, _, at = points(name, H, B, 1.5)
    w, z, v, M = at.w, at.z, at.v, H + B
    n = min(H, M - 1)
    N = np.array([np.max(design.shots[design.hypothesis == h]) for h in range(H)])
    before = np.cumsum(v["pi"], axis=-1) - v["pi"]
    stick = (v["pi"] / (1 - before))[:, :n]
    r, gamma = v["beta"] / v["gamma"], v["gamma"][:, :n]
    q = r[:, :n] + (1 - r[:, :n]) * stick
    start = gamma * q  # the value at 0 shots, where the curve's stick is its whole pi
    centre = np.log(M - 1 - np.arange(n))  # w = 0 is the centre of the simplex
    same = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    same(w["gamma"][:, :n], logit(start))
    far = lambda u: u * np.sqrt(1 + (u / coordinates.TAIL) ** 2)  # noqa: E731
    same(far(w["pi"][:, :n] - centre), logit((gamma - start) / (1 - start)))
    same(far(w["beta"][:, :n]), logit(r[:, :n] / q))
    need = 1 + np.logaddexp(0, -1 - logit(stick))
    evidence = np.log(need / (N[:n] * (coordinates.FLOOR + np.log(1 / r[:, :n])))).mean(-1)
    scale = need.mean(-1)
    wide = np.logaddexp(0, w["K"] - coordinates.WALL) - np.logaddexp(0, -w["K"] - coordinates.WALL)
    same(np.log(v["K"]) - evidence, w["K"] / scale + (1 - 1 / scale) * wide)
    for site in ("gamma", "pi", "beta"):  # what has no stick stays as it is
        same(w[site][:, n:], z[site][:, n:])
    if M == 2 and H == 1:
        pair = np.stack([v["gamma"], v["beta"]], axis=-1)[:, 0]
        same(start[:, 0], np.exp(bayes(0.0, v["pi"], pair, v["K"])[0]).astype(float))


def log_prior(name, H, B, v):
    """Log density of the documented priors at the sampled sites of one draw."""
    lognormal = lambda x, m, s: stats.lognorm.logpdf(x, s, scale=np.exp(m)).sum()  # noqa: E731
    if name in BASELINES:
        total = stats.expon.logpdf(v["L"]).sum()
        total += stats.expon.logpdf(v["A" if name == "logistic" else "C"], scale=2).sum()
        of = {
            "alpha": (np.log(0.5), 1),
            "n_c": (np.log(10), 2),
            "n_0": (np.log(10), 2),
            "k": (0, 1),
        }
        return total + sum(lognormal(v[k], *of[k]) for k in v if k in of)
    pi = np.array(v["pi"])
    total = stats.dirichlet.logpdf(pi / pi.sum(), [0.5] * len(pi))
    total += np.log(np.arange(1, B + 1)).sum() if B >= 2 else 0  # B! labellings are one
    total += lognormal(v["K"], -1, 2)
    below = lambda x, u: (stats.beta.logpdf(x / u, 0.5, 1) - np.log(u)).sum()  # noqa: E731
    if name == "general":
        return total + below(v["_miss"], v["_hit"][:, None])
    if name == "scoring":
        return total + below(v["beta"], v["gamma"])
    gamma = v["gamma"]
    own = range(1 if H == 1 else 0, H + B)
    u = np.array([min(gamma[h] for h in range(H) if h != m) for m in own])
    return total + below(v["beta"], u)


@of_every_space
def test_posterior_density_by_change_of_variables(name, H, B):
    """-potential(w) = documented prior + likelihood at the natural parameters + log |dv/dw|."""
    design, data, at = points(name, H, B, 1.0)
    assert set(at.v) == set(sites_of(name, H, B))
    p = np.exp(oracle(name, design, at.v).astype(float))
    likelihood = stats.norm.logpdf(data["y"], p, data["se"])[:, data["fitted"]].sum(-1)
    draws = range(len(p))
    prior = [log_prior(name, H, B, {k: x[i] for k, x in at.v.items()}) for i in draws]
    log_det = np.linalg.slogdet(at.v_jacobian)[1]
    np.testing.assert_allclose(-at.energy, prior + likelihood + log_det, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize(
    ("H", "B", "names"),
    [
        (1, 1, ["scoring", "general", "sampling"]),
        (2, 0, ["scoring", "general", "sampling"]),
        (1, 2, ["sampling", "general"]),
    ],
)
def test_laws_that_are_one_function(H, B, names):
    """Same curve and same prior density at the same table of P."""
    design, _ = study(H, B, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    M = H + B
    hit = rng.uniform(0.5, 0.9, H)
    miss = hit[:, None] * rng.uniform(0.1, 0.9, (H, M - 1))
    common = {"pi": np.sort(rng.dirichlet(np.ones(M)))[::-1], "K": 0.4, "gamma": hit}
    # With H = 2 and no background, beta_m belongs to the hypothesis that scores or generates.
    betas = {"scoring": miss[:, 0], "sampling": miss[::-1, 0] if H == 2 else miss[0]}
    values = {name: common | {"beta": beta} for name, beta in betas.items()}
    values["general"] = common | {"_hit": hit, "_miss": miss}
    found = []
    for name in names:
        with handlers.seed(rng_seed=0), handlers.substitute(data=values[name]):
            trace = handlers.trace(laws()[name].model).get_trace(design)
            out = laws()[name].model(design)
        sites = [s for s in trace.values() if s["type"] == "sample"]
        prior = sum(float(np.sum(s["fn"].log_prob(s["value"]))) for s in sites)
        found.append((np.asarray(out), prior))
    for out, prior in found[1:]:
        np.testing.assert_allclose(out, found[0][0], rtol=1e-12)
        assert prior == pytest.approx(found[0][1], rel=1e-12)


# Priors


def same_law(draws, distribution):
    """Kolmogorov-Smirnov: sharp enough at 1500 draws for a scale that is wrong by a fifth."""
    assert stats.kstest(np.ravel(draws), distribution.cdf).pvalue > 1e-3


def interval(draws, low, high):
    """The 90 % interval is the documented one, which is rounded to two digits."""
    n = draws.size
    for level, edge in ((0.05, low), (0.95, high)):
        below = np.mean(draws < edge)
        assert abs(below - level) < 4 * np.sqrt(0.05 * 0.95 / n) + 0.003


@pytest.mark.parametrize(("name", "H", "B"), of_studies(BAYESIAN, [(1, 3), (5, 2)], [(2, 1)]))
def test_implied_priors_of_bayesian_laws(name, H, B):
    _, _, v = drawn(name, H, B)
    M = H + B
    P = table_of_P(name, H, M, v)
    same_law(P[:, range(H), range(H)], stats.uniform)  # any ceiling
    if name == "general":
        evidence = np.log(v["_hit"][..., None] / v["_miss"])
    elif name == "scoring" or H == 1:
        evidence = np.log(v["gamma"] / v["beta"])
    else:  # the smallest gamma of another hypothesis bounds beta
        g, M = v["gamma"], H + B
        others = [np.delete(g, m, axis=1) if m < H else g for m in range(M)]
        bound = np.stack([x.min(-1) for x in others], axis=-1)
        evidence = np.log(bound / v["beta"])
    for one in np.moveaxis(evidence.reshape(len(evidence), -1), 1, 0):
        same_law(one, stats.expon(scale=2))
    same_law(np.log(v["K"]), stats.norm(-1, 2))
    interval(v["K"], 0.014, 9.9)
    for h in range(H):
        same_law(v["pi"][:, h], stats.beta(0.5, (M - 1) / 2))
    same_law(v["pi"][:, H:].sum(-1), stats.beta(B / 2, H / 2))  # the backgrounds' total
    if B < 2:
        return
    largest = v["pi"][:, H] / v["pi"][:, H:].sum(-1)
    u = np.random.default_rng(0).dirichlet([0.5] * B, 4000)
    assert stats.ks_2samp(largest, u.max(-1)).pvalue > 1e-3


@pytest.mark.parametrize("name", list(BASELINES))
def test_implied_priors_of_baselines(name):
    _, logp, v = drawn(name, 2, 1)
    drop = v["A" if name == "logistic" else "C"]
    same_law(drop, stats.expon(scale=2))
    same_law(v["ceiling"], stats.uniform)
    if name == "power":  # the start, relative to the ceiling
        start = logp.reshape(-1, 2, len(SHOTS))[:, :, 0]
        same_law(np.log(v["ceiling"]) - start, stats.expon(scale=2))
    documented = {
        "alpha": (stats.norm(np.log(0.5), 1), 0.10, 2.6),
        "n_c": (stats.norm(np.log(10), 2), 0.4, 270),
        "n_0": (stats.norm(np.log(10), 2), 0.4, 270),
        "k": (stats.norm(0, 1), 0.19, 5.2),
    }
    for site in documented.keys() & v.keys():
        distribution, low, high = documented[site]
        same_law(np.log(v[site]), distribution)
        interval(v[site], low, high)


@pytest.mark.parametrize(("a", "b"), [(0.5, 1.0), (2.0, 3.0)])
def test_below(a, b):
    upper = jnp.array([0.03, 0.6, 1.0])
    below = priors.Below(upper, a, b)
    share = np.linspace(0.001, 0.999, 50)[:, None]
    expected = stats.beta.logpdf(share, a, b) - np.log(upper)
    np.testing.assert_allclose(jax.jit(below.log_prob)(share * upper), expected, rtol=1e-10)
    draws = np.asarray(jax.jit(lambda key: below.sample(key, (N,)))(_keys(1, 0)[0]))
    assert draws.shape == (N, 3)
    for i in range(3):
        same_law(draws[:, i] / upper[i], stats.beta(a, b))
    assert below.support(jnp.array([0.02, 0.7, 0.7])).tolist() == [True, False, True]


@pytest.mark.parametrize(("M", "B"), [(3, 2), (4, 3), (5, 3), (4, 4)])
def test_order_tail(M, B, rng):
    order = priors._OrderTail(B)
    to = biject_to(order.codomain)
    u, x = rng.dirichlet([1.0] * M, 50), rng.normal(size=(50, M - 1))
    last = lambda u: order(jnp.append(u, 1 - u.sum()))[:-1]  # noqa: E731 (the free coordinates)
    free = lambda x: to(x)[:-1]  # noqa: E731
    y, back, log_det, jacobian = _numpy(
        mapped(lambda u: (
            y := order(u), order.inv(y), order.log_abs_det_jacobian(u, y), jax.jacfwd(last)(u[:-1])
        ))(u)
    )  # fmt: skip
    # Plain loops: v_k is the sum over j >= k of u_j / j.
    expected = u.copy()
    for k in range(1, B + 1):
        expected[:, M - B + k - 1] = sum(u[:, M - B + j - 1] / j for j in range(k, B + 1))
    np.testing.assert_allclose(y, expected)
    np.testing.assert_allclose(y.sum(-1), 1)
    np.testing.assert_allclose(back, u, atol=1e-12)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det)
    falls = np.array([order.codomain(one) for one in y])
    rises = np.array(
        [order.codomain(one) for one in np.hstack([y[:, : M - B], y[:, : M - B - 1 : -1]])]
    )
    assert falls.all()
    assert not rises.any()
    # From the unconstrained space and back.
    v, back, log_det, jacobian = _numpy(
        mapped(lambda x: (
            v := to(x), to.inv(v), to.log_abs_det_jacobian(x, v), jax.jacfwd(free)(x)
        ))(x)
    )  # fmt: skip
    assert (v > 0).all()
    assert (np.diff(v[:, M - B :]) < 0).all()
    np.testing.assert_allclose(v.sum(-1), 1)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det)


@pytest.mark.parametrize(("M", "B"), [(3, 2), (4, 3)])
def test_mass_of_the_ordered_simplex_is_one(M, B, rng):
    # Concentration 2: a density without poles, so that the simulation's error is known.
    prior = priors.OrderedDirichlet(jnp.full(M, 2.0), B)
    points = rng.dirichlet([1.0] * M, 100_000)
    points = points[(np.diff(points[:, -B:]) < 0).all(-1)]
    volume = 1 / math.factorial(M - 1)  # of the simplex; the rest of it adds 0
    density = np.zeros(100_000)
    density[: len(points)] = np.exp(jax.jit(prior.log_prob)(points)) * volume
    assert abs(density.mean() - 1) < 4 * density.std() / np.sqrt(density.size)
    assert density.std() < 5


# Users' laws


USER = '''"""A law of mine."""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Law
from bayesicl.priors import hypotheses


def curve(shots, L):
    return -L / (1.0 + shots)


def model(design):
    with hypotheses(design):
        L = numpyro.sample("L", dist.Exponential(1.0))
    return curve(design.shots, L[design.hypothesis])


law = Law("mine", curve, model, reference="me")
'''


def test_user_law(tmp_path):
    path = tmp_path / "anything.py"
    path.write_text(USER)
    law = load_law(path)
    assert law.name == "mine"
    assert law.path == str(path.resolve())
    assert law.source_hash == hashlib.sha256(USER.encode()).hexdigest()
    assert load_law(str(path)) == law
    assert load_law(str(path)).model is law.model  # not run twice
    design = Design(SHOTS, np.zeros(len(SHOTS), int))
    with handlers.seed(rng_seed=0), handlers.substitute(data={"L": jnp.array([3.0])}):
        np.testing.assert_allclose(law.model(design), -3 / (1 + SHOTS))
    w = {"L": jnp.array([1.0])}
    assert law.coordinates(design, w) == (w, 0.0)
    path.write_text(USER.replace('"mine"', '"changed"'))
    assert load_law(path).name == "changed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", r"law\.py: it does not run \(SyntaxError: .*\)"),
        ("import nowhere_to_be_found", r"does not run \(ModuleNotFoundError: .*nowhere"),
        ("1 / 0", r"does not run \(ZeroDivisionError: division by zero\)"),
        ("x = 1", r"law\.py: it must define `law = Law\(.*\)`, got no such name"),
        ("law = 3", r"law\.py: it must define `law = Law\(.*\)`, got int"),
        (USER.replace('"mine"', '"power"'), r"law\.py: the name 'power' is taken"),
    ],
)
def test_bad_user_law(tmp_path, text, message):
    path = tmp_path / "law.py"
    path.write_text(text)
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(InputError, match=message):
            load_law(path)


def test_missing_and_unknown_laws(tmp_path):
    with pytest.raises(InputError, match=r"law file .*nothing\.py: no such file"):
        load_law(tmp_path / "nothing.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match=r"no such file"):
        load_law(tmp_path / "folder.py")
    with pytest.raises(InputError, match=r"unknown law 'scorin'.*general, sampling, scoring.*path"):
        load_law("scorin")
