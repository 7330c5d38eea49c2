"""The sampler against distributions that are known, and against NumPyro's NUTS."""

from functools import partial

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import scipy.stats
from numpyro.infer import MCMC, NUTS

from bayesicl import lanes as lane
from bayesicl import nuts, strides, warmup
from bayesicl.device import precision
from bayesicl.jumps import FREEDOM, mixture_about, mixture_of
from bayesicl.special import two_uniforms

pytestmark = pytest.mark.usefixtures("x64")
COV = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, -0.2], [0.0, -0.2, 0.25]])


def sample(potential, starts, n=1000, *, log_step=-0.5, chol=None, mixture=None, depth=8, seed=0):
    """Draws (studies, chains, n, d), statistics, and where chains ended.

    starts: (studies, chains, d). potential(data, q), where data is the study's number.
    """
    starts = jnp.asarray(starts, float)
    studies, chains, d = starts.shape
    fn = jax.value_and_grad(potential, argnums=1)
    data = jnp.arange(studies, dtype=float)
    own = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(studies))
    keys = jax.vmap(lambda key: jax.random.split(key, chains))(own)
    stand = lambda key, data, q: lane.stand(key, lane.Point(q, *fn(data, q)), depth)  # noqa: E731
    lanes = jax.vmap(jax.vmap(stand, in_axes=(0, None, 0)))(keys, data, starts)
    lanes = lane.with_step(lanes, jnp.full((studies, chains), log_step))
    chol = jnp.broadcast_to(jnp.eye(d) if chol is None else jnp.asarray(chol), (studies, d, d))
    if mixture is not None:
        mixture = jax.tree.map(lambda x: jnp.broadcast_to(x, (studies, *x.shape)), mixture)
    run = jax.jit(partial(nuts.advance, fn=fn))
    chance = lane.Chance(jnp.full(studies, 0.8), jnp.full(studies, False))
    parts = []
    for i in range(0, n, nuts.CHUNK):
        size = min(nuts.CHUNK, n - i)
        step = jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(own)
        lanes, record = run(lanes, jnp.int32(size), step, chance, mixture, chol, data)
        parts.append(np.asarray(record)[:, :, :size])
    record = np.concatenate(parts, axis=2)
    stats = dict(zip(nuts.STATISTICS, np.moveaxis(record[..., d:], -1, 0), strict=True))
    return record[..., :d], stats, lanes


def gaussian(data, q):
    return 0.5 * q @ jnp.linalg.solve(jnp.asarray(COV), q)


def assert_mean(x, expected):
    """x: (chains, draws). Within five standard errors."""
    error = x.std() / np.sqrt(float(arviz_stats.ess(x, method="mean")))
    assert abs(x.mean() - expected) < 5 * error, (x.mean(), expected, error)


@pytest.mark.parametrize("whitened", [False, True])
def test_a_gaussian(whitened):
    log_step, chol = (-0.4, np.linalg.cholesky(COV)) if whitened else (-1.2, None)
    q, stats, _ = sample(gaussian, np.zeros((1, 4, 3)), 2000, log_step=log_step, chol=chol)
    for i in range(3):
        assert_mean(q[0, ..., i], 0.0)
        for j in range(i + 1):
            assert_mean(q[0, ..., i] * q[0, ..., j], COV[i, j])
    energy = stats["energy"][0]  # potential + kinetic: half a chi-squared of twice 3
    assert_mean(energy, 3.0)
    assert_mean((energy - 3.0) ** 2, 3.0)
    np.testing.assert_allclose(stats["lp"][0], -jax.vmap(jax.vmap(partial(gaussian, 0)))(q[0]))
    assert not stats["diverging"].any()
    assert (stats["n_steps"].mean() < 7) == whitened


def test_a_skewed_one():
    """Log of a gamma variate: moments by polygamma."""
    from scipy.special import polygamma, psi

    potential = lambda data, q: jnp.sum(jnp.exp(q) - (2.0 + data) * q)  # noqa: E731
    q, _, _ = sample(potential, np.zeros((2, 4, 1)), 3000, log_step=-0.3)
    for study, shape in enumerate((2.0, 3.0)):
        x = q[study, ..., 0]
        assert_mean(x, psi(shape))
        assert_mean((x - psi(shape)) ** 2, polygamma(1, shape))
        assert_mean((x - psi(shape)) ** 3, polygamma(2, shape))


def test_trees_are_those_of_numpyro():
    """The same law of tree sizes and acceptance at the same step size."""
    model = lambda: numpyro.sample(  # noqa: E731
        "q", numpyro.distributions.MultivariateNormal(jnp.zeros(3), jnp.asarray(COV))
    )
    kernel = NUTS(model, step_size=0.2, adapt_step_size=False, adapt_mass_matrix=False)
    mcmc = MCMC(kernel, num_warmup=100, num_samples=3000, progress_bar=False)
    mcmc.run(jax.random.key(0), extra_fields=("num_steps", "accept_prob"))
    theirs = mcmc.get_extra_fields()
    _, stats, _ = sample(gaussian, np.zeros((1, 4, 3)), 3000, log_step=np.log(0.2))
    ours = stats["n_steps"][0, :, 100:]
    assert ours.mean() == pytest.approx(float(theirs["num_steps"].mean()), rel=0.03)
    for size in (7, 15, 31):
        share = float((theirs["num_steps"] == size).mean())
        assert (ours == size).mean() == pytest.approx(share, abs=0.04)
    accepted = float(theirs["accept_prob"].mean())
    assert stats["acceptance_rate"].mean() == pytest.approx(accepted, abs=0.005)


def test_chains_do_not_depend_on_company():
    """A study's draws are the same alone and beside a hundred times harder one."""
    potential = lambda data, q: 0.5 * jnp.sum(q**2 * jnp.exp(9.0 * data))  # noqa: E731
    starts = np.full((2, 4, 2), 0.01)
    both, stats, _ = sample(potential, starts, 600, log_step=-4.0)
    assert stats["n_steps"][0].mean() > 5 * stats["n_steps"][1].mean()
    alone, _, _ = sample(potential, starts[:1], 600, log_step=-4.0)
    np.testing.assert_array_equal(both[0], alone[0])


@pytest.mark.parametrize("jumps", [False, True])
def test_a_lane_alone_goes_where_it_goes_among_others(jumps, rng):
    """Unmapped, with branches instead of choices: until rounding has grown into other paths."""
    mixture = mixture_of(rng.standard_normal((4, 100, 2))) if jumps else None
    starts = rng.normal(size=(2, 1, 2))
    both, among, _ = sample(steep_study, starts, 15, mixture=mixture)
    alone, own, _ = sample(steep_study, starts[:1], 15, mixture=mixture)
    assert len(np.unique(alone[0, 0], axis=0)) > 8
    np.testing.assert_allclose(alone, both[:1], rtol=0, atol=1e-8)
    for name in ("n_steps", "tree_depth", "diverging", "no_way_back"):
        np.testing.assert_array_equal(own[name], among[name][:1])
    assert own["n_steps"].max() > 2.0 ** own["tree_depth"].max(), "no stride was split"


def steep_study(data, q):
    return steep(q)


def test_many_lanes_record_what_few_do(rng):
    """Beyond UNROLLED lanes rows are scattered, to the same places."""
    potential = lambda data, q: 0.5 * jnp.sum(q**2 * jnp.exp(data))  # noqa: E731
    starts = rng.normal(size=(5, 4, 2))
    few = starts[:3]
    assert few.shape[0] * 4 <= nuts.UNROLLED < starts.shape[0] * 4
    many, stats, _ = sample(potential, starts, 600, log_step=-2.0)
    alone, own, _ = sample(potential, few, 600, log_step=-2.0)
    np.testing.assert_array_equal(many[:3], alone)
    for name, values in own.items():
        np.testing.assert_array_equal(stats[name][:3], values)
    assert len(np.unique(stats["n_steps"].sum(2))) > 15, "chains go at paces of their own"


def test_a_wall_diverges():
    potential = lambda data, q: jnp.where(q[0] > 0, 0.5 * q @ q, jnp.inf)  # noqa: E731
    _, stats, _ = sample(potential, np.ones((1, 4, 2)), 500)
    assert stats["diverging"].any()
    assert np.isfinite(stats["lp"]).all(), "no chain enters the wall"


WALL = 3.0


def box(data, q):
    """Flat within steep walls, and a standard normal beside: what the walls need, it does not."""
    beyond = jnp.maximum(jnp.abs(q[0]) - WALL, 0.0)
    return 200.0 * beyond**2 + 0.5 * jnp.sum(q[1:] ** 2)


def test_walls_are_passed_by_shorter_steps():
    """A step size far too long for the walls of a box neither diverges nor keeps away from them."""
    x = np.linspace(-5, 5, 100_001)
    density = np.exp(-200.0 * np.maximum(np.abs(x) - WALL, 0) ** 2)
    density /= density.sum()
    near = lambda x: np.abs(x) > WALL - 0.05  # noqa: E731
    q, stats, _ = sample(box, np.zeros((1, 4, 2)), 10_000, log_step=0.0)
    assert not stats["diverging"].any()
    assert_mean(q[0, ..., 0] ** 2, density @ x**2)
    assert_mean(near(q[0, ..., 0]).astype(float), density @ near(x))
    unsplit = 2 ** (stats["tree_depth"] + 1) - 1  # at most, where a half was left
    assert (stats["n_steps"] > unsplit).any()


@pytest.mark.parametrize("way_back", [True, False])
def test_split_steps_have_a_way_back(way_back, monkeypatch):
    """A normal that is narrower on one side, which steps may enter in parts and leave whole.

    Where every step lands, more draws are on that side than should be.
    """
    if not way_back:
        tick = nuts.onward

        def land(stride, new, r):
            at, at_r, after, lands, no_way_back, diverges = tick(stride, new, r)
            arrives = (after.check == 1) & (stride.check == 0)
            return at, at_r, after, lands | arrives, no_way_back, diverges

        monkeypatch.setattr(nuts, "onward", land)
    potential = lambda data, q: 0.5 * jnp.sum(jnp.where(q < 0, q / 0.2, q) ** 2)  # noqa: E731
    q, stats, _ = sample(potential, np.full((1, 4, 1), 0.5), 10_000)
    assert not stats["diverging"].any()
    assert stats["no_way_back"].any() == way_back
    left = (q[0, ..., 0] < 0).astype(float)
    if way_back:
        assert_mean(left, 0.2 / 1.2)
    else:
        assert left.mean() > 0.19


def test_split_steps_with_jumps_and_a_dense_scale():
    """A correlated normal that is narrower on one side of a plane."""
    chol = np.linalg.cholesky(COV)

    def potential(data, q):
        z = jnp.linalg.solve(jnp.asarray(chol), q)
        return 0.5 * jnp.sum(z[1:] ** 2) + 0.5 * jnp.where(z[0] < 0, z[0] / 0.2, z[0]) ** 2

    starts = np.full((1, 4, 3), 0.3)
    first, _, _ = sample(potential, starts, chol=chol)
    mixture = mixture_of(first[0])
    q, stats, _ = sample(potential, starts, 5000, chol=chol, mixture=mixture)
    z = np.linalg.solve(chol, q[0][..., None])[..., 0]
    assert_mean((z[..., 0] < 0).astype(float), 0.2 / 1.2)
    for i in (1, 2):
        assert_mean(z[..., i], 0.0)
        assert_mean(z[..., i] ** 2, 1.0)
    assert (stats["n_steps"] > 2 ** (stats["tree_depth"] + 1) - 1).any()


def test_steps_are_not_split_where_one_leapfrog_is_accurate(monkeypatch):
    """Draws and statistics are those of steps that are never split."""
    q, stats, _ = sample(gaussian, np.zeros((1, 4, 3)), 500, log_step=-2.5)
    monkeypatch.setattr(strides, "TOLERANCE", np.inf)
    never, same, _ = sample(gaussian, np.zeros((1, 4, 3)), 500, log_step=-2.5)
    np.testing.assert_array_equal(q, never)
    for name, values in stats.items():
        np.testing.assert_array_equal(values, same[name])


def steep(q):
    """A potential that bends in each direction in its own way, and sharply along a line."""
    value = 0.5 * q[0] ** 2 + 40.0 * jnp.logaddexp(0.0, 8.0 * q[0] - 4.0 * q[1]) / 8.0
    return value + 0.5 * jnp.sum(q[1:] ** 2)


def leapfrogs(q, r, h, parts, chol, fn):
    """Plain leapfrogs in sampling coordinates: where they end, and the energy there."""
    slope = lambda q: chol.T @ np.asarray(fn(q)[1])  # noqa: E731
    for _ in range(parts):
        r = r - 0.5 * h / parts * slope(q)
        q = q + h / parts * chol @ r
        r = r - 0.5 * h / parts * slope(q)
    return q, r, float(fn(q)[0]) + 0.5 * r @ r


def test_a_stride_is_what_its_definition_says(rng):
    """Level by level: the first that is accurate, if no coarser one leads back from its end."""
    chol, fn = np.linalg.cholesky(COV)[:2, :2], jax.jit(jax.value_and_grad(steep))
    onward, share = jax.jit(strides.onward), jax.jit(lambda x: strides.share(x, float))
    point = lambda q: lane.Point(jnp.asarray(q), *fn(jnp.asarray(q)))  # noqa: E731
    near = lambda a, b: abs(a - b) <= strides.TOLERANCE  # noqa: E731
    seen = []
    for _ in range(100):
        q, r = rng.standard_normal((2, 2))
        h = rng.choice([-30.0, -4.0, -0.7, 0.7])
        energy = float(fn(q)[0]) + 0.5 * r @ r
        tries = [leapfrogs(q, r, h, 4**k, chol, fn) for k in range(strides.LEVELS + 1)]
        level = next((k for k, end in enumerate(tries) if near(end[2], energy)), None)
        expected = "diverges"
        if level is not None:
            end_q, end_r, end = tries[level]
            back = [leapfrogs(end_q, end_r, -h, 4**k, chol, fn)[2] for k in range(level)]
            expected = "no way back" if any(near(x, end) for x in back) else level
        at, at_r, found = point(q), jnp.asarray(r), None
        stride = lane.stride_from(at, at_r)
        while found is None:
            step = h * share(stride)
            at_r = at_r - 0.5 * step * chol.T @ at.gradient
            new = point(at.q + step * chol @ at_r)
            new_r = at_r - 0.5 * step * chol.T @ new.gradient
            before = stride
            at, at_r, stride, lands, no_way_back, diverges = onward(stride, new, new_r)
            at_once = strides.lands_at_once(before, new, new_r)
            assert at_once == (lands and before.level == 0)
            if lands:
                found = int(before.level)
                np.testing.assert_allclose(at.q, end_q, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(at_r, end_r, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(at.gradient, fn(at.q)[1], rtol=1e-9)
            elif no_way_back:
                found = "no way back"
            elif diverges:
                found = "diverges"
        assert found == expected
        seen.append(found)
    assert {0, 1, 2, 3, "no way back", "diverges"} == set(seen), seen


def test_first_tries_that_fail_are_not_accepted():
    """Those that lose energy as well as those that gain it."""
    nothing = jnp.zeros(2)
    begin = lane.stand(jax.random.key(0), lane.Point(nothing, jnp.asarray(9.0), nothing), 4)
    begin = begin._replace(energy=jnp.asarray(9.0))
    for potential, accepted in ((8.0, 1.0), (10.0, np.exp(-1)), (1.0, 0.0), (17.0, 0.0)):
        new = lane.Point(nothing, jnp.asarray(potential), nothing)
        grown, _ = nuts._grow(begin, new, nothing, jnp.uint32(0), 0.5, 0.5)
        assert grown.tried == 1
        assert grown.accepted == pytest.approx(accepted)


def test_a_place_without_density_costs_one_leapfrog():
    potential = lambda data, q: jnp.where(q[0] > 0, 0.5 * q @ q, jnp.inf)  # noqa: E731
    _, stats, _ = sample(potential, -np.ones((1, 2, 2)), 100)
    assert (stats["n_steps"] == 1).all()
    assert stats["diverging"].all()


def test_trees_stop_at_the_limit():
    _, stats, _ = sample(gaussian, np.zeros((1, 2, 3)), 100, log_step=-7.0, depth=4)
    assert stats["n_steps"].max() == stats["n_steps"].min() == 15
    assert (stats["tree_depth"] == 4).all()


def test_step_size_meets_its_target():
    fn = jax.value_and_grad(gaussian, argnums=1)
    stand = lambda key: lane.stand(key, lane.Point(jnp.zeros(3), *fn(0, jnp.zeros(3))), 8)  # noqa: E731
    lanes = jax.vmap(jax.vmap(stand))(jax.random.split(jax.random.key(0), (1, 4)))
    lanes = lane.with_step(lanes, jnp.full((1, 4), 3.0))
    run = jax.jit(partial(nuts.advance, fn=fn))
    chol, keys = jnp.eye(3)[None], jax.random.split(jax.random.key(5), 1)
    for adapt in (True, False):
        chance = lane.Chance(jnp.full(1, 0.9), jnp.full(1, adapt))
        lanes, record = run(lanes, jnp.int32(500), keys, chance, None, chol, jnp.zeros(1))
        lanes = lane.with_step(lanes, lanes.step.log_average) if adapt else lanes
    rate = np.asarray(record)[0, :, :500, 3 + nuts.STATISTICS.index("acceptance_rate")]
    np.testing.assert_allclose(rate.mean(), 0.9, atol=0.03)


def test_uniforms_are_threefry_and_uniform():
    key = jax.random.key_data(jax.random.key(7)).astype(jnp.uint32)
    x, y = jax.vmap(lambda i: jnp.stack(two_uniforms(key, i, float)))(
        jnp.arange(20000, dtype=jnp.uint32)
    ).T
    expected = jax.vmap(lambda i: jax.extend.random.threefry_2x32(key, jnp.stack([i, 0 * i])))(
        jnp.arange(50, dtype=jnp.uint32)
    )
    bits = np.stack([x[:50], y[:50]], axis=1) * 2.0**32 - 0.5
    np.testing.assert_array_equal(bits, np.asarray(expected, float))
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.04
    assert abs(x.mean() - 0.5) < 0.01


def test_start_finds_the_mode_and_its_curvature():
    fn = lambda q: jax.value_and_grad(partial(gaussian, 0))(q - 1.0)  # noqa: E731
    point, curvature = jax.jit(lambda key: warmup.start(key, fn, 3))(jax.random.key(0))
    np.testing.assert_allclose(point.q, 1.0, atol=0.5)
    np.testing.assert_allclose(curvature, np.linalg.inv(COV), rtol=1e-6)
    chol = warmup.scale_of_curvature(np.asarray(curvature)[None])
    np.testing.assert_allclose(chol @ chol.T, COV, rtol=1e-5, atol=1e-6)
    flat = warmup.scale_of_curvature(np.full((2, 1, 1), -3.0))
    assert flat == 2.0, "a flat or bent direction is as wide as a prior"


def test_scale_of_draws(rng):
    x = rng.standard_normal((4, 500, 3)) @ np.linalg.cholesky(COV).T
    x[0] += 10.0
    own = warmup.scale_of_draws(x, pooled=False)
    np.testing.assert_allclose(own @ own.T, COV, atol=0.15)
    assert (warmup.scale_of_draws(x, pooled=True) @ np.ones(3))[0] > 3


# -- jumps ----------------------------------------------------------------------------------------

FAR, HEAVY = 12.0, 0.7


def two_bumps(data, x):
    """0.7 of a standard normal at 0 and 0.3 of a narrow one at 12, in two dimensions."""
    left = jnp.log(HEAVY) - 0.5 * jnp.sum(x**2)
    right = jnp.log(1 - HEAVY) - 0.5 * jnp.sum((x - FAR) ** 2) / 0.25 - 2 * jnp.log(0.5)
    return -jnp.logaddexp(left, right)


def test_jumps_find_the_weights_of_modes():
    starts = np.broadcast_to(np.array([0.0, 0.0, FAR, FAR])[:, None], (4, 2))[None]
    stuck, _, _ = sample(two_bumps, starts, log_step=-0.7)
    right = stuck[0, ..., 0] > FAR / 2
    assert right.mean(1).tolist() == [0, 0, 1, 1], "without jumps no chain crosses"
    q, stats, lanes = sample(two_bumps, starts, log_step=-0.7, mixture=mixture_of(stuck[0]))
    right = (q[0, ..., 0] > FAR / 2).astype(float)
    assert float(arviz_stats.ess(right)) > 400
    assert_mean(right, 1 - HEAVY)
    for side, mean, sd in ((0, 0.0, 1.0), (1, FAR, 0.5)):  # the bumps keep their shapes
        inside = q[0, ..., 0][right == side]
        assert abs(inside.mean() - mean) < 5 * sd / np.sqrt(inside.size / 4)
        assert inside.std() == pytest.approx(sd, rel=0.1)
    end = lanes.tree.proposal
    energy, slope = jax.vmap(jax.value_and_grad(partial(two_bumps, 0)))(end.q[0])
    np.testing.assert_allclose(end.potential[0], energy, rtol=1e-12)
    np.testing.assert_allclose(end.gradient[0], slope, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stats["lp"][0, :, -1], -energy, rtol=1e-12)


def test_jumps_have_the_density_that_they_claim(rng):
    """Of one component, a multivariate t: its radius and its peak; of several, their mixture."""
    d, n = 3, 100_000
    one = mixture_about(rng.standard_normal((1, d)), np.linalg.cholesky(COV))
    q, log_density = map(np.asarray, jax.tree.map(jnp.asarray, one).draw(jax.random.key(0), (n,)))
    t = scipy.stats.multivariate_t(one.mean[0], COV, df=FREEDOM)
    gap = t.logpdf(q) - log_density
    np.testing.assert_allclose(gap, gap[0], rtol=0, atol=1e-9)
    radius = np.sum(np.linalg.solve(np.linalg.cholesky(COV), (q - one.mean[0]).T) ** 2, 0) / d
    assert scipy.stats.kstest(radius, scipy.stats.f(d, FREEDOM).cdf).pvalue > 1e-4

    apart = np.array([0.0, 0.0, 5.0, 5.0])[:, None, None]
    several = jax.tree.map(jnp.asarray, mixture_of(rng.standard_normal((4, 300, 1)) + apart))
    q, log_density = map(np.asarray, several.draw(jax.random.key(1), (n,)))
    weight, scale = np.exp(several.log_weight), np.asarray(several.chol)[:, 0, 0]
    z = (np.sort(q[:, 0])[:, None] - np.asarray(several.mean)[:, 0]) / scale
    below = np.sum(weight * scipy.stats.t(FREEDOM).cdf(z), axis=1)
    assert np.abs(below - (np.arange(n) + 0.5) / n).max() < 2.2 / np.sqrt(n)  # p = 1e-4
    true = np.log(np.sum(weight / scale * scipy.stats.t(FREEDOM).pdf(z), axis=1))
    gap = true - log_density[np.argsort(q[:, 0])]
    np.testing.assert_allclose(gap, gap[0], rtol=0, atol=1e-9)


def test_float32_is_sampled_as_well():
    with precision("cpu"), jax.enable_x64(False):
        start = jnp.zeros((1, 4, 3), jnp.float32)
        cov = jnp.asarray(COV, jnp.float32)
        potential = lambda data, q: 0.5 * q @ jnp.linalg.solve(cov, q)  # noqa: E731
        q, _, _ = sample(potential, start, log_step=-1.2)
    assert q.dtype == np.float32
    assert_mean(q[0, ..., 1] ** 2, COV[1, 1])
