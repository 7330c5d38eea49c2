"""An independent figure where sides of engines.py disagree: tempered sequential Monte Carlo.

    python benchmarks/referee.py 11 12 [--particles 20000] [--runs 8]

Particles are drawn from the priors and reach the posterior of `rivals/problem.py` by steps of its
likelihood, each as large as leaves half of them effective; at each they are resampled and moved by
Metropolis steps along differences of other particles. No gradient, and no code of bayesicl's. The
answer is exact as particles grow: compare 5000 with 20000. Beside it, bayesicl's engine with 4 x
4000 draws a run; means and 5 and 95 % quantiles, with standard errors by how the runs differ.
"""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from rivals import problem
from rivals.problem import EPS, LEAST_SCATTER, NAMES, Curve, Settings
from scipy.optimize import brentq
from scipy.special import betaln, expit, log_expit, logit

MOVES = 30  # Metropolis steps of each particle at each temperature
WHAT = {
    "mean": partial(np.mean, axis=1),
    "5 %": partial(np.quantile, q=0.05, axis=1),
    "95 %": partial(np.quantile, q=0.95, axis=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="+", type=int, help="numbers of curves of engines.py")
    parser.add_argument("--particles", type=int, default=20000)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.particles < 2 or args.particles % 2 or args.runs < 2:
        parser.error("--particles must be even, and --runs at least 2")
    curves = problem.simulate(max(args.curves), args.seed)
    for i in args.curves:
        _assert_same_density(curves[i])
        run = partial(particles, curves[i], args.particles)
        streams = [(args.seed, i, k, 1) for k in range(args.runs)]
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            found, moved = zip(*pool.map(run, streams), strict=True)
        print(
            f"curve {i}: at every temperature {min(moved):.1%} or more Metropolis steps were taken"
        )
        theirs, ours = _natural(np.stack(found)), _engine(curves[i], args.runs)
        for k, name in enumerate(NAMES):
            for what, of in WHAT.items():
                (a, se_a), (b, se_b) = (_over_runs(of(x[..., k])) for x in (theirs, ours))
                print(
                    f"  {'log K' if name == 'K' else name:8s}{what:5s} particles {a:.5f} "
                    f"({se_a:.5f}), bayesicl {b:.5f} ({se_b:.5f}): "
                    f"{abs(a - b) / np.hypot(se_a, se_b):.1f} standard errors",
                    flush=True,
                )


def particles(curve: Curve, n: int, stream: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Draws of the posterior of one curve in the unconstrained space, (n, 5).

    And the least share of Metropolis steps that were taken at any temperature.
    """
    rng = np.random.default_rng(stream)
    natural = rng.beta(0.5, 0.5, n), rng.uniform(size=n), rng.beta(0.5, 1.0, n)
    u = np.stack([*map(logit, natural), rng.normal(-1.0, 2.0, n), logit(rng.beta(1.0, 9.0, n))], 1)
    u = np.clip(u, -500.0, 500.0)  # the logit of what is rounded to 0 or 1
    prior, likelihood, power, least = log_prior(u), log_likelihood(curve, u), 0.0, 1.0
    while power < 1.0:
        power, weight = _further(likelihood, power)
        slots = (rng.uniform() + np.arange(n)) / n
        keep = np.searchsorted(np.cumsum(weight), slots).clip(max=n - 1)
        u, prior, likelihood = u[keep], prior[keep], likelihood[keep]
        # Those of one half move along differences of the other's, which do not move meanwhile.
        first, second = rng.permutation(n).reshape(2, -1)
        taken = 0
        for half, others in ((first, second), (second, first)) * MOVES:
            a, b = rng.choice(others, (2, len(half)))
            size = np.where(rng.uniform(size=len(half)) < 0.1, 1.0, rng.uniform(0.1, 1.2))
            step = size[:, None] * (u[a] - u[b]) + 1e-3 * rng.standard_normal((len(half), 5))
            to = u[half] + step
            to_prior, to_likelihood = log_prior(to), log_likelihood(curve, to)
            gain = to_prior - prior[half] + power * (to_likelihood - likelihood[half])
            yes = np.log(rng.uniform(size=len(half))) < gain
            u[half[yes]] = to[yes]
            prior[half[yes]], likelihood[half[yes]] = to_prior[yes], to_likelihood[yes]
            taken += yes.sum()
        least = min(least, taken / (n * MOVES))
    return u, float(least)


def _further(likelihood: np.ndarray, power: float) -> tuple[float, np.ndarray]:
    """The next power of the likelihood, and the particles' weights on the way to it."""

    def weights(step):
        w = np.exp(step * (likelihood - likelihood.max()))
        return w / w.sum()

    lost = lambda step: 1.0 / np.sum(weights(step) ** 2) - 0.5 * len(likelihood)  # noqa: E731
    rest = 1.0 - power
    step = rest if lost(rest) > 0 else float(brentq(lost, 0.0, rest))
    return power + step, weights(step)


def log_prior(u: np.ndarray) -> np.ndarray:
    """Of points (n, 5), up to a constant."""
    weight = np.array([[0.5, 0.5], [1.0, 1.0], [0.5, 1.0], [1.0, 9.0]])
    own = u[:, [0, 1, 2, 4]]
    beta = log_expit(own) * weight[:, 0] + log_expit(-own) * weight[:, 1]
    return beta.sum(1) - 0.5 * ((u[:, 3] + 1.0) / 2.0) ** 2


def log_likelihood(curve: Curve, u: np.ndarray) -> np.ndarray:
    """Of points (n, 5), up to a constant."""
    total = np.empty(len(u))
    for part in np.array_split(np.arange(len(u)), max(len(u) // 500, 1)):
        v = u[part]
        gamma, ratio, scatter = (expit(v[:, k, None]) for k in (1, 2, 4))
        w = v[:, :1] - np.exp(v[:, 3, None]) * curve.shots * log_expit(v[:, 2, None])
        p = np.clip(gamma * expit(w) + gamma * ratio * expit(-w), EPS, 1.0)
        q = np.clip((1.0 - gamma) * expit(w) + (1.0 - gamma * ratio) * expit(-w), EPS, 1.0)
        c = 1.0 / np.maximum(scatter, LEAST_SCATTER) ** 2 - 1.0
        at = betaln(curve.correct + p * c, curve.total - curve.correct + q * c)
        total[part] = np.sum(at - betaln(p * c, q * c), axis=1)
    return total


def _natural(u: np.ndarray) -> np.ndarray:
    """pi, gamma, beta, log K, scatter: (..., 5)."""
    pi, gamma, ratio, scatter = (expit(u[..., k]) for k in (0, 1, 2, 4))
    return np.stack([pi, gamma, gamma * ratio, u[..., 3], scatter], axis=-1)


def _over_runs(x: np.ndarray) -> tuple[float, float]:
    """Mean over runs, and its standard error by how they differ."""
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x)))


def _assert_same_density(curve: Curve) -> None:
    u = problem.points(8, 0)
    gap = log_prior(u) + log_likelihood(curve, u) - [problem.log_density(curve, x) for x in u]
    assert np.ptp(gap) < 1e-6, f"not the benchmark's density: {gap}"


def _engine(curve: Curve, runs: int) -> np.ndarray:
    """Draws of bayesicl's engine, a seed a run: (runs, draws, 5)."""
    from rivals.engine import Side  # here, so that processes of particles need no JAX

    found, side = [], Side(Settings(draws=4000), [curve])
    for side.seed in range(runs):
        drawn = side.sample(0)
        if drawn.stats["diverging"].any():
            print(f"  bayesicl, run {side.seed}: {drawn.stats['diverging'].sum()} divergences")
        v = {name: x.ravel() for name, x in drawn.values.items()}
        found.append(np.stack([*(v[n] for n in NAMES[:3]), np.log(v["K"]), v["scatter"]], axis=-1))
    return np.stack(found)


if __name__ == "__main__":
    main()
