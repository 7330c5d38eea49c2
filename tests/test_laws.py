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
from bayesicl.law import BAYESIAN, LAWS, TYINGS, Design, Law, laws, laws_of, load_law
from bayesicl.noises import NOISES
from bayesicl.scale import MEAN_NLL, PROBABILITY
from bayesicl.settings import Settings
from bayesicl.summary import meaning

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


TIES = TYINGS[0]
OTHER_TIES = TYINGS[1][1:]
BUILT = [law for law in BAYESIAN if law not in TIES]  # on one of these
FIRST_SIZE = {law: (1, 1) if law in TIES else (2, 1) for law in LAWS}
PER_CURVE = [law for law in LAWS if law not in BAYESIAN]  # no parameter is shared by curves
BAYESIAN_STUDIES = of_studies(TIES, SIZES, MORE_SIZES)
BAYESIAN_STUDIES += of_studies(BUILT, [(2, 1)], [(1, 1), (1, 3), (2, 0), (5, 2)])
STUDIES = BAYESIAN_STUDIES + of_studies(PER_CURVE, [(2, 1)], [(1, 1), (5, 1)])
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


def constant(n, p):
    return np.log(np.asarray(p, np.longdouble)) + 0 * n


def hill(n, gamma, beta, n_0, k):
    return np.log(beta + (gamma - beta) / (1 + ((n + 1) / np.asarray(n_0, np.longdouble)) ** -k))


def belief(n, gamma, b, g, discount):
    b = np.asarray(b, np.longdouble)
    return np.log(gamma / (1 + np.exp(-(b + g * n ** (1 - discount)))))


def broken(n, C, alpha, alpha_2, n_c, f, L):
    x = np.asarray(n + 1, np.longdouble)
    return -(C * x**-alpha * (1 + (x / n_c) ** (1 / f)) ** (-(alpha_2 - alpha) * f) + L)


def recognition(n, log_r, log_r0, floor, n_l, a):
    r, learned = np.exp(log_r), 1 - (1 + n / np.asarray(n_l, np.longdouble)) ** -a
    return np.log(floor + (1 - floor) * (1 - (1 - r) * (1 - learned)))


def context(n, log_q, log_q0, n_ctx, s):
    q, q0, n = np.exp(log_q), np.exp(log_q0), np.asarray(n, np.longdouble)
    return np.log(q0 + (q - q0) * expit(s * (n_ctx - n)) / expit(s * n_ctx))


def manyshot(n, C, alpha, L):
    return np.log(C * (n + 1) ** -np.asarray(alpha, np.longdouble) + L)


# A law is one entry in each of these. Curves with their own parameters, by name:
OWN = (power, bounded, logistic, constant, hill, belief, broken, manyshot)
CURVES = {f.__name__: f for f in OWN}
# The table of P of the others, what is made of log p and of log p at 0 shots (if not that itself),
# and what they have besides pi, P and K: of a study, or of each curve.
TIE_OF = dict.fromkeys(BAYESIAN, "scoring") | {name: name for name in TIES}
TIE_OF |= {f"discounted_{tie}": tie for tie in TIES}
MADE_OF = {"recognition": recognition, "context": context}
OF_STUDY = dict.fromkeys(TYINGS[1], ("discount",)) | {"context": ("discount", "n_ctx", "s")}
OF_CURVE = {"recognition": ("floor", "n_l", "a")}
FALLING = ("context",)
OF_NLL = ("manyshot",)


def names_of(name):
    """Parameters of a curve of its own."""
    return list(inspect.signature(CURVES[name]).parameters)[1:]


def table_of_P(name, H, M, v):
    """P (draws, H, M) from the sampled sites, (draws, ...) each."""
    P = np.empty((len(v["K"]), H, M))
    tie = TIE_OF[name]
    for h in range(H):
        rest = iter(range(M))
        for m in range(M):
            if tie == "general":
                P[:, h, m] = v["_hit"][:, h] if m == h else v["_miss"][:, h, next(rest)]
            elif m == h:
                P[:, h, m] = v["gamma"][:, h]
            elif tie == "scoring":
                P[:, h, m] = v["beta"][:, h]
            else:  # with one observed hypothesis beta_0 is left out
                P[:, h, m] = v["beta"][:, m - 1 if H == 1 else m]
    return P


def evidence(n, v):
    """Demonstrations that count, (draws, cells): all, or n^(1 - discount)."""
    if "discount" not in v:
        return np.broadcast_to(n, (len(v["K"]), len(n)))
    return np.asarray(n, np.longdouble) ** (1 - v["discount"][:, None])


def oracle(name, design, v):
    """Log p, or log of the mean nll, (draws, cells) from the sampled sites."""
    h, n = design.hypothesis, design.shots
    if name in CURVES:
        return CURVES[name](n, *(v[p][:, h] for p in names_of(name)))
    P = table_of_P(name, design.n_hypotheses, design.n_believed, v)[:, h]
    e = evidence(n, v)
    q, q0 = (bayes(x, v["pi"][:, None], P, v["K"][:, None])[0] for x in (e, 0 * e))
    if name not in MADE_OF:
        return q
    more = {k: v[k][:, None] for k in OF_STUDY.get(name, ()) if k != "discount"}
    more |= {k: v[k][:, h] for k in OF_CURVE.get(name, ())}
    return MADE_OF[name](n, q, q0, **more)


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
    assert law.monotone == (name not in FALLING)
    assert law.scale == (MEAN_NLL if name in OF_NLL else PROBABILITY)
    # The formula of the value is the formula of the docstring, or names the law it starts from.
    formula = law.formula.removeprefix("as general, with ")
    assert formula
    assert formula in text
    assert " Priors " in text
    assert " Source: " in text
    symbols, prior = text.split(" Priors ")
    for site in ("pi", *inspect.signature(law.curve).parameters)[1 if name in CURVES else 0 :]:
        if site not in ("shots", "hypothesis"):
            assert f" {site}" in symbols, f"{site} is not explained"
            assert f"{site} " in prior or f"{site}_" in prior, f"{site} has no prior"
    loaded = load_law(name)
    assert loaded.source_hash == hashlib.sha256(Path(loaded.path).read_bytes()).hexdigest()


def test_registry():
    assert tuple(laws()) == LAWS
    assert all(law.name == name for name, law in laws().items())
    assert set(BAYESIAN) < set(LAWS)
    assert laws_of(MEAN_NLL) == OF_NLL
    assert laws_of(PROBABILITY) == tuple(name for name in LAWS if name not in OF_NLL)
    assert load_law(laws()["power"]) == laws()["power"]


# Prior draws


@of_every_study
def test_log_p_of_prior_draws(name, H, B):
    design, logp, v = drawn(name, H, B)
    assert logp.shape == (N, H * len(SHOTS))
    assert np.isfinite(logp).all()
    scale = laws()[name].scale
    assert (np.exp(logp) <= scale.top).all()
    expected = oracle(name, design, v).astype(float)
    np.testing.assert_allclose(np.exp(logp), np.exp(expected), rtol=0, atol=1e-9)
    np.testing.assert_allclose(logp, expected, rtol=1e-6, atol=1e-9)
    steps = scale.better * np.diff(logp.reshape(N, H, len(SHOTS)), axis=-1)
    assert (steps > -1e-12).all() == (name not in FALLING)  # monotone in shots
    assert (steps > 1e-3).any() == (name != "constant")


@of_every_study
def test_sites_keep_their_constraints(name, H, B):
    _, _, v = drawn(name, H, B)
    sites = {k: x for k, x in v.items() if k not in ("belief", "P", "ceiling", "rate")}
    for site, values in sites.items():
        assert site == "b" or (values > 0).all(), site
        if site in ("p", "gamma", "beta", "discount", "floor"):
            assert (values < 1).all(), site
    if {"gamma", "beta"} <= sites.keys() and TIE_OF.get(name, "scoring") == "scoring":
        assert (v["beta"] < v["gamma"]).all()
    if name in CURVES:
        assert set(sites) == set(names_of(name))
        assert all(x.shape == (N, H) for x in sites.values())
        assert ("ceiling" in v) == (name not in ("constant", *OF_NLL))
        if "ceiling" in v:
            np.testing.assert_allclose(v["ceiling"], np.exp(-v["L"]) if "L" in v else v["gamma"])
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
    assert ("ceiling" in v) == (name not in MADE_OF)
    np.testing.assert_array_equal(v.get("ceiling", hit), hit)
    assert (P < 1).all()
    misses = np.where(np.eye(H, M, dtype=bool), 0, P)
    assert (misses.max(-1) < hit).all()  # every curve ends with its own hypothesis
    np.testing.assert_allclose(v["rate"], v["K"][:, None] * np.log(hit / misses.max(-1)))
    shapes = sites_of(name, H, B) | {"pi": (M,)}
    assert {k: x.shape[1:] for k, x in sites.items()} == shapes


@pytest.mark.parametrize(("name", "H", "B"), BAYESIAN_STUDIES)
def test_belief(name, H, B):
    design, _, v = drawn(name, H, B)
    P = table_of_P(name, H, H + B, v)[:, design.hypothesis]
    expected = bayes(evidence(design.shots, v), v["pi"][:, None], P, v["K"][:, None])[1]
    np.testing.assert_allclose(v["belief"].sum(-1), 1)
    np.testing.assert_allclose(v["belief"], expected.astype(float), rtol=0, atol=1e-7)
    np.testing.assert_allclose(  # before the first demonstration
        v["belief"][:, :: len(SHOTS)], np.repeat(v["pi"][:, None], H, axis=1)
    )


@of_every_law
def test_what_a_law_reports_has_a_meaning(name):
    sites = drawn(name, *FIRST_SIZE[name])[2]
    assert all(meaning(k, name) for k in sites if k != "belief" and not k.startswith("_"))


@of_every_law
def test_prior_draws_are_reproducible(name):
    design, logp, _ = drawn(name, *FIRST_SIZE[name])
    again, _ = _prior_program(name)(design, _keys(N, 0))
    other, _ = _prior_program(name)(design, _keys(N, 1))
    np.testing.assert_array_equal(logp, again)
    assert (np.asarray(other) != logp).any(-1).all()


# The curve


def parameters(name, rng, n=300):
    """Arguments of `curve` after `shots`, (n, 1, ...) each, and the oracle's log p of shots."""
    u = lambda low, high, *shape: rng.uniform(low, high, (n, 1, *shape))  # noqa: E731
    e = lambda low, high, *shape: np.exp(u(low, high, *shape))  # noqa: E731
    shares = {"p": (0.02, 1), "gamma": (0.02, 1), "discount": (0, 0.9), "b": (-15, 5)}
    logs = {"n_c": (-2, 6), "n_0": (-2, 6), "n_l": (-2, 6), "n_ctx": (0, 8), "s": (-6, 1)}
    logs |= {"alpha": (-2, 1), "alpha_2": (-2, 1), "a": (-2, 1), "k": (-2, 2), "K": (-6, 2)}
    logs |= {"g": (-6, 2), "floor": (-9, -0.01)}
    one = lambda p: u(*shares[p]) if p in shares else e(*logs.get(p, (-3, 1)))  # noqa: E731
    if name in CURVES:
        v = {p: one(p) for p in names_of(name)}
        if "beta" in v:
            v["beta"] = v["gamma"] * e(-9, -0.001)
        return v, lambda shots, v: CURVES[name](shots, **v)
    tie, more = TIE_OF[name], [*OF_STUDY.get(name, ()), *OF_CURVE.get(name, ())]
    if tie == "scoring":
        gamma = one("gamma")
        v = {"pi": expit(u(-15, 5)), "gamma": gamma, "beta": gamma * e(-9, -0.001)}
    else:
        v = {"pi": rng.dirichlet([0.5] * 3, (n, 1))}
        v |= {"P": e(-7, 0, 3)} if tie == "general" else {"gamma": e(-2, 0, 2)}
        v |= {} if tie == "general" else {"beta": e(-9, -2, 3)}
    v |= {p: one(p) for p in ("K", *more)}

    def expected(shots, v):
        pi, P = v["pi"], v.get("P")
        if tie == "scoring":
            pi = np.stack(np.broadcast_arrays(pi, 1 - pi), axis=-1)
            P = np.stack(np.broadcast_arrays(v["gamma"], v["beta"]), axis=-1)
        elif tie == "sampling":  # of hypothesis 1
            P = np.stack([v["beta"][..., 0], v["gamma"][..., 1], v["beta"][..., 2]], axis=-1)
        counted = np.asarray(shots, np.longdouble) ** (1 - v.get("discount", 0.0))
        q, q0 = (bayes(x, pi, P, v["K"])[0] for x in (counted, 0 * counted))
        if name not in MADE_OF:
            return q
        return MADE_OF[name](shots, q, q0, **{p: v[p] for p in more if p != "discount"})

    return v, expected


def curve(name, shots, v):
    """Log p of shots (1, s) at parameters (n, 1, ...) by the library: (n, s)."""
    return _curve_program(name)(shots, v)


@cache
def _curve_program(name):
    f = laws()[name].curve

    def many(shots, v):
        if TIE_OF.get(name) != "sampling":
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
    if name == "context":  # what was gained is lost
        end = np.exp(curve(name, np.zeros((1, 1)), v))
    elif TIE_OF.get(name) == "general":
        end = v["P"].max(-1)
    elif TIE_OF.get(name) == "sampling":
        end = v["gamma"][..., 1]
    else:
        end = {"recognition": 1.0, "constant": v.get("p")}.get(name, v.get("gamma"))
        end = np.exp(-v["L"]) if "L" in v else end
        end = v["L"] if name in OF_NLL else end
    p = np.exp(curve(name, np.full((1, 1), 1e300), v))
    np.testing.assert_allclose(p, np.broadcast_to(end, p.shape), rtol=1e-12)


@pytest.mark.parametrize("name", [law for law in BAYESIAN if law != "recognition"])
def test_without_evidence_the_curve_is_flat(name, rng):
    v, _ = parameters(name, rng)
    v["K"] = np.zeros_like(v["K"])
    if TIE_OF[name] == "scoring":
        level = v["pi"] * v["gamma"] + (1 - v["pi"]) * v["beta"]
    elif TIE_OF[name] == "general":
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


@pytest.mark.parametrize("name", TYINGS[1])
def test_without_a_discount_the_law_is_the_papers(name, rng):
    v, _ = parameters(name, rng)
    discount = v.pop("discount")
    paper = curve(TIE_OF[name], MANY, v)
    none = curve(name, MANY, {**v, "discount": np.zeros_like(discount)})
    np.testing.assert_allclose(none, paper, rtol=1e-9, atol=1e-12)
    # n demonstrations count as n^(1 - discount), and no discount counts for 0 or 1.
    half = curve(name, MANY**2, {**v, "discount": np.full_like(discount, 0.5)})
    np.testing.assert_allclose(half, paper, rtol=1e-9, atol=1e-12)
    most = curve(name, MANY[:, :2], {**v, "discount": np.full_like(discount, 1 - 1e-12)})
    np.testing.assert_allclose(most, paper[:, :2], rtol=1e-12)


@pytest.mark.parametrize("name", TYINGS[1])
def test_programs_without_a_discount_are_the_papers(name):
    """The same curve, and the same priors but for the discount's, whose density is 1."""
    _, _, v = drawn(TIE_OF[name], 2, 2)
    found = []
    for law, more in ((TIE_OF[name], {}), (name, {"discount": 0.0})):
        model, design = laws()[law].model, design_of(2, 2)

        def one(v, model=model, design=design, more=more):
            with handlers.substitute(data=v | more), handlers.trace() as trace:
                logp = model(design)
            sites = [s for s in trace.values() if s["type"] == "sample"]
            return logp, sum(jnp.sum(s["fn"].log_prob(s["value"])) for s in sites)

        sampled = {k: v[k][:50] for k in (*sites_of(TIE_OF[name], 2, 2),)}
        found.append(mapped(one)(sampled))
    for paper, discounted in zip(*found, strict=True):
        np.testing.assert_allclose(discounted, paper, rtol=1e-9, atol=1e-12)


def test_manyshot_is_the_power_law_of_another_quantity(rng):
    v, _ = parameters("power", rng)
    nll = np.exp(curve("manyshot", MANY, v))
    np.testing.assert_allclose(nll, -curve("power", MANY, v), rtol=1e-12)


def test_hill_is_logistic_in_log_shots(rng):
    v, _ = parameters("hill", rng)
    gamma, beta, n_0, k = v.values()
    belief = expit(k * (np.log(MANY + 1) - np.log(n_0)))
    p = np.exp(curve("hill", MANY, v))
    np.testing.assert_allclose(p, beta + (gamma - beta) * belief, rtol=0, atol=1e-12)


def test_belief_is_discounted_scoring_without_a_floor(rng):
    v, _ = parameters("belief", rng)
    beta = v["gamma"] * 1e-280
    K = v["g"] / np.log(v["gamma"] / beta)
    of = {"pi": expit(v["b"]), "gamma": v["gamma"], "beta": beta, "K": K}
    same = curve("discounted_scoring", MANY, of | {"discount": v["discount"]})
    np.testing.assert_allclose(curve("belief", MANY, v), same, rtol=1e-9, atol=1e-12)


def test_broken_without_a_break_is_the_power_law(rng):
    v, _ = parameters("broken", rng)
    v["alpha_2"] = v["alpha"]
    power = curve("power", MANY, {k: v[k] for k in ("C", "alpha", "L")})
    np.testing.assert_allclose(curve("broken", MANY, v), power, rtol=1e-12)


def test_what_is_built_on_scoring(rng):
    """Without learning and floor recognition is scoring; without a limit context is discounted."""
    v, _ = parameters("recognition", rng)
    scoring = curve("scoring", MANY, {k: v[k] for k in ("pi", "gamma", "beta", "K")})
    bare = {**v, "floor": v["floor"] * 1e-30, "a": v["a"] * 1e-30}
    np.testing.assert_allclose(curve("recognition", MANY, bare), scoring, rtol=1e-9, atol=1e-12)
    v, _ = parameters("context", rng)
    names = ("pi", "gamma", "beta", "K", "discount")
    endless = {**v, "n_ctx": np.full_like(v["n_ctx"], 1e9), "s": np.full_like(v["s"], 1e-6)}
    found = curve("context", MANY, endless)
    discounted = curve("discounted_scoring", MANY, {k: v[k] for k in names})
    np.testing.assert_allclose(found, discounted, rtol=1e-9, atol=1e-12)


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
    h = np.longdouble(1e-8)
    if shots or "discount" not in v:  # discounted evidence begins with an endless slope
        up = expected(n + h, v), expected(n + 2 * h, v)  # shots stay >= 0
        slope = (4 * up[0] - up[1] - 3 * expected(n, v)) / (2 * h)
        np.testing.assert_allclose(np.asarray(by_shots), slope.astype(float), rtol=1e-6, atol=1e-8)
    h = np.longdouble(1e-6)
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


def noise_of(law):
    """Given standard errors, on the law's scale."""
    return NOISES["nll-given-se" if law.name in OF_NLL else "given-se"]


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


SPACES = of_studies(TIES, [(1, 1), (2, 2)], [(1, 3), (5, 0), (5, 2)])
SPACES += of_studies(["scoring"], [(2, 0), (5, 1)])
SPACES += of_studies(
    [law for law in BUILT if law not in OTHER_TIES], [(2, 1)], [(1, 1), (2, 0), (5, 2)]
)
SPACES += of_studies(OTHER_TIES, [], [(1, 1), (2, 1), (2, 0)])
SPACES += of_studies(PER_CURVE, [(2, 1)], [(1, 1)])
of_every_space = pytest.mark.parametrize(("name", "H", "B"), SPACES)


def sites_of(name, H, B):
    """Shapes of the unconstrained sites."""
    M = H + B
    if name in CURVES:
        return dict.fromkeys(names_of(name), (H,))
    more = dict.fromkeys(OF_STUDY.get(name, ()), ())
    more |= dict.fromkeys(OF_CURVE.get(name, ()), (H,))
    return (
        {"pi": (M - 1,), "K": ()}
        | more
        | {
            "general": {"_hit": (H,), "_miss": (H, M - 1)},
            "sampling": {"gamma": (H,), "beta": (M if H > 1 else B,)},
            "scoring": {"gamma": (H,), "beta": (H,)},
        }[TIE_OF[name]]
    )


@cache
def points(name, H, B, scale=1.0, n=60):
    rng = np.random.default_rng(7)
    w = {k: scale * rng.normal(size=(n, *shape)) for k, shape in sites_of(name, H, B).items()}
    design, data = study(H, B, rng)
    return design, data, Points(w, *_numpy(_space_program(name, H, B)(design, data, w)))


@cache
def _space_program(name, H, B):
    law = laws()[name]
    engine = Engine(law, noise_of(law), Settings())

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
            if k not in ("pi", "gamma", "beta", "_hit", "_miss", "b"):
                there &= ((x > 0) & np.isfinite(x)).reshape(len(x), -1).all(axis=1)
        if name == "broken":  # energies are infinite beyond
            there &= (at.v["C"] < 1e15).all(axis=1)
        # More of Hill's: its log n_0 is the log-odds of the start over -k.
        assert np.sum(~there) <= ({"hill": 20, "broken": 8}.get(name, 2) if scale == 4.0 else 0)
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


@pytest.mark.parametrize("name", PER_CURVE)
def test_coordinates_at_any_longest_shots(name, x64):
    """One to one where only 0 shots, or 1, were measured, and to ten million."""
    law, names, rng = laws()[name], names_of(name), np.random.default_rng(3)

    def one(shots, x):
        def move(x):
            design = Design(shots, jnp.zeros(2, int), 1)
            z, log_det = law.coordinates(design, {k: x[i : i + 1] for i, k in enumerate(names)})
            return jnp.concatenate([z[k] for k in names]), jnp.asarray(log_det, float)

        return *jax.jacfwd(move)(x)[:1], move(x)[1]

    program = mapped(one)
    for longest in (0.0, 1.0, 1e7):
        x = rng.normal(size=(20, len(names)))
        jacobian, log_det = program(np.tile([0.0, longest], (20, 1)), x)
        sign, expected = np.linalg.slogdet(jacobian)
        assert (sign != 0).all()
        np.testing.assert_allclose(log_det, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [law for law in LAWS if law not in OTHER_TIES])
def test_energy_in_float32(name):
    """As on a GPU: within a few hundredths of a nat of float64, at draws that matter."""
    design, data, at = points(name, *FIRST_SIZE[name], 1.0)
    near = at.energy < 100
    law = laws()[name]
    potential = Engine(law, noise_of(law), Settings()).posterior.potential
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
    assert (moved > 1) == (name != "constant")


@pytest.mark.parametrize("name", ["power", "bounded", "logistic", "broken", "manyshot"])
def test_coordinates_of_baselines_are_what_the_data_see(name):
    design, _, at = points(name, 2, 1, 2.0)
    drop, shape = ("A", "k") if name == "logistic" else ("C", "alpha")
    w, v, oracle, names = at.w, at.v, CURVES[name], names_of(name)
    N = np.array([np.max(design.shots[design.hypothesis == h]) for h in range(2)])
    logp = lambda n: oracle(n, *[v[k].astype(np.longdouble) for k in names])  # noqa: E731
    y = lambda n: np.exp(logp(n)) if name in OF_NLL else -logp(n)  # noqa: E731
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
    if name == "broken":
        same(np.log(v["alpha_2"] / v["alpha"]), w["alpha_2"])
    if name == "bounded":
        a = 1 - np.log(ratio) / span
        drop = np.log((y(0) - v["L"]).astype(float) / MEAN_C)
        bent = 2 * np.log(np.logaddexp(0, (np.log(a) - w["n_c"] + drop) / 2)) - drop
        same(np.log1p(1 / v["n_c"]), np.logaddexp(0, bent) / a)


def _n_0_without_rest(k, span, kept):
    """log n_0 at which a curve of this k, with L = 0, keeps this share of y(0) at the end."""
    f = lambda x: log_expit(k * (x - span)) - log_expit(k * x) - np.log(kept)  # noqa: E731
    return optimize.brentq(f, -1e3 / k, 1e3 / k, xtol=1e-13)


@pytest.mark.parametrize("name", ["hill", "belief", "recognition", "context", "discounted_scoring"])
def test_a_coordinate_is_the_value_at_0_shots(name):
    design, _, at = points(name, 2, 1, 1.0)
    start = np.exp(oracle(name, design, at.v)[:, :: len(SHOTS)].astype(float))
    alone = slice(None) if name in CURVES else slice(1)  # whose stick is its whole pi
    seen = at.w["gamma"][:, alone]
    np.testing.assert_allclose(logit(start)[:, alone], seen, rtol=0, atol=1e-6)


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


def lognormal(m, s):
    return stats.lognorm(s, scale=np.exp(m))


# Documented priors, and their 90 % intervals as documented.
PRIORS = {
    "C": stats.expon(scale=2), "A": stats.expon(scale=2), "L": stats.expon(),
    "alpha": lognormal(np.log(0.5), 1), "alpha_2": lognormal(np.log(0.5), 1),
    "a": lognormal(np.log(0.5), 1), "n_c": lognormal(np.log(10), 2),
    "n_0": lognormal(np.log(10), 2), "k": lognormal(0, 1), "f": lognormal(-1, 1),
    "n_l": lognormal(np.log(100), 2), "n_ctx": lognormal(np.log(100), 2), "K": lognormal(-1, 2),
    "g": lognormal(-0.9, 2.4), "b": stats.hypsecant(scale=2), "floor": stats.beta(0.5, 1),
    "p": stats.uniform(), "gamma": stats.uniform(), "discount": stats.uniform(),
}  # fmt: skip
INTERVALS = {
    "alpha": (0.10, 2.6), "alpha_2": (0.10, 2.6), "a": (0.10, 2.6), "n_c": (0.4, 270),
    "n_0": (0.4, 270), "k": (0.19, 5.2), "f": (0.07, 1.9), "n_l": (3.7, 2700),
    "n_ctx": (3.7, 2700), "K": (0.014, 9.9), "g": (0.008, 21),
}  # fmt: skip
OTHERS = {  # of one law alone
    ("broken", "n_c"): (lognormal(np.log(30), 1.5), (2.5, 350)),
    ("manyshot", "C"): (stats.expon(scale=4), (0.2, 12)),
    ("manyshot", "L"): (stats.expon(), (0.05, 3)),
}


def prior_of(name, site):
    """Distribution and 90 % interval."""
    return OTHERS.get((name, site), (PRIORS[site], INTERVALS.get(site)))


def log_prior(name, H, B, v):
    """Log density of the documented priors at the sampled sites of one draw."""
    below = lambda x, u: (stats.beta.logpdf(x / u, 0.5, 1) - np.log(u)).sum()  # noqa: E731
    total = sum(prior_of(name, k)[0].logpdf(x).sum() for k, x in v.items() if k in PRIORS)
    if "s" in v:
        total += lognormal(np.log(5 / v["n_ctx"]), 1).logpdf(v["s"])
    if name in CURVES:
        return total + (below(v["beta"], v["gamma"]) if "beta" in v else 0)
    pi = np.array(v["pi"])
    total += stats.dirichlet.logpdf(pi / pi.sum(), [0.5] * len(pi))
    total += np.log(np.arange(1, B + 1)).sum() if B >= 2 else 0  # B! labellings are one
    if TIE_OF[name] == "general":
        return total + below(v["_miss"], v["_hit"][:, None])
    if TIE_OF[name] == "scoring":
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


@pytest.mark.parametrize(
    ("name", "H", "B"),
    of_studies(TIES, [(1, 3), (5, 2)], [(2, 1)]) + of_studies(BUILT, [(2, 1)]),
)
def test_implied_priors_of_bayesian_laws(name, H, B):
    _, _, v = drawn(name, H, B)
    M = H + B
    P = table_of_P(name, H, M, v)
    same_law(P[:, range(H), range(H)], stats.uniform)  # any ceiling
    if TIE_OF[name] == "general":
        evidence = np.log(v["_hit"][..., None] / v["_miss"])
    elif TIE_OF[name] == "scoring" or H == 1:
        evidence = np.log(v["gamma"] / v["beta"])
    else:  # the smallest gamma of another hypothesis bounds beta
        g, M = v["gamma"], H + B
        others = [np.delete(g, m, axis=1) if m < H else g for m in range(M)]
        bound = np.stack([x.min(-1) for x in others], axis=-1)
        evidence = np.log(bound / v["beta"])
    for one in np.moveaxis(evidence.reshape(len(evidence), -1), 1, 0):
        same_law(one, stats.expon(scale=2))
    as_documented(name, v)
    if "s" in v:
        same_law(v["s"] * v["n_ctx"], lognormal(np.log(5), 1))
        interval(v["s"] * v["n_ctx"], 1, 26)
    for h in range(H):
        same_law(v["pi"][:, h], stats.beta(0.5, (M - 1) / 2))
    same_law(v["pi"][:, H:].sum(-1), stats.beta(B / 2, H / 2))  # the backgrounds' total
    if B < 2:
        return
    largest = v["pi"][:, H] / v["pi"][:, H:].sum(-1)
    u = np.random.default_rng(0).dirichlet([0.5] * B, 4000)
    assert stats.ks_2samp(largest, u.max(-1)).pvalue > 1e-3


@pytest.mark.parametrize("name", PER_CURVE)
def test_implied_priors_of_curves(name):
    _, logp, v = drawn(name, 2, 1)
    as_documented(name, v)
    if "ceiling" in v:
        same_law(v["ceiling"], stats.uniform)
    if name == "power":  # the start, relative to the ceiling
        start = logp.reshape(-1, 2, len(SHOTS))[:, :, 0]
        same_law(np.log(v["ceiling"]) - start, stats.expon(scale=2))
    if name == "hill":
        same_law(np.log(v["gamma"] / v["beta"]), stats.expon(scale=2))
    if name == "belief":
        same_law(expit(v["b"]), stats.beta(0.5, 0.5))
        implied = drawn("discounted_scoring", 2, 1)[2]
        same_moments(np.log(v["g"]), np.log(implied["rate"]))


def as_documented(name, v):
    for site in PRIORS.keys() & v.keys():
        distribution, edges = prior_of(name, site)
        same_law(v[site], distribution)
        if edges is not None:
            interval(v[site], *edges)


def same_moments(x, y):
    """Means within a tenth of a standard deviation, and standard deviations within a tenth."""
    assert abs(x.mean() - y.mean()) < 0.1 * y.std()
    assert 0.9 < x.std() / y.std() < 1.1


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
    with pytest.raises(
        InputError, match=r"unknown law 'scorin'.*general, sampling, scoring.*path"
    ) as told:
        load_law("scorin")
    assert "power@population" in str(told.value)
    assert "bayesicl forecast TABLE --law stack" in str(told.value)
