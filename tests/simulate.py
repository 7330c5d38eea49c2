"""Simulation-based calibration of a law: studies from its priors, fitted as `fit` does, ranked.

Where truths are drawn from the prior and data from the noise, a truth's rank among the draws of
its posterior is uniform (Cook, Gelman & Rubin 2006; Talts et al. 2018, arXiv 1804.06788). The band
is that of Saeilynoja, Buerkner & Vehtari 2022 ("Graphical test for discrete uniformity", Statistics
and Computing 32): at every rank the ECDF of N uniform ranks is binomial; the least of these
two-sided tail probabilities is compared with its distribution over simulated sets of N uniform
ranks.

Plain functions of a law.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import islice

import jax
import numpy as np
import pandas as pd
import pytest
from numpyro import handlers
from scipy import stats

from bayesicl.curves import Study, read_curves
from bayesicl.device import precision
from bayesicl.engine import Engine, Settings
from bayesicl.labels import Labels
from bayesicl.law import Law, load_law
from bayesicl.noise import load_noise
from bayesicl.program import arrays
from bayesicl.retry import attempts, first_that_passes

SEEN = (0, 1, 2, 4, 8, 16, 32, 64)
UNSEEN = (3, 20, 200)  # between, between, and far beyond
ITEMS = 50
RANKED = 99  # draws a truth is ranked among: 100 ranks, so that 5..94 is exactly 90 %
BLOCK = 500  # truths drawn at once: the first studies are the same however many there are


@dataclass(frozen=True)
class Recovery:
    """Of N studies: ranks and truths (N rows, a column each quantity), draws (N, RANKED) of each
    quantity, and passed (N,) bool.
    """

    ranks: pd.DataFrame
    truths: pd.DataFrame
    draws: dict[str, np.ndarray]
    passed: np.ndarray


def study_of_shots(H: int = 1, seen=SEEN, unseen=UNSEEN, items: int = ITEMS) -> Study:
    """A study of counts whose values are to be filled in; cells at `unseen` are not fitted."""
    shots = sorted({*seen, *unseen})
    h, n = (x.ravel() for x in np.meshgrid(range(H), shots, indexing="ij"))
    table = pd.DataFrame({"hypothesis": h, "shots": n, "correct": n % 2 + 1, "total": items})
    study = read_curves(table).studies[0]
    fitted = ~study.cells["shots"].isin(unseen).to_numpy()
    return replace(study, cells=study.cells.assign(fitted=fitted))


def recover(
    law: str | Law,
    n: int,
    *,
    H: int = 1,
    backgrounds: int = 1,
    settings: Settings | None = None,
    retry: bool = True,
    seed: int = 0,
    study: Study | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Recovery:
    """Draw n studies from the law's and the noise's priors, fit each, rank the truths; drop none.

    retry: extend and run again where gates fail, as `fit` does; a study that fails at last stays.
    """
    study = study or study_of_shots(H)
    with precision():
        engine = Engine(load_law(law), load_noise(None, study.kind), settings or Settings())
        design, data = arrays(study, backgrounds=backgrounds)
        labels = Labels(engine, study, design, data)
        curve = _unseen_curve(engine, study, design)
        truths, draws, passed = [], [], []
        for i, truth, y in simulated(engine, n, design, data, seed):
            key = jax.random.fold_in(jax.random.key(seed + 1), i)
            measured = data | {"y": np.where(data["fitted"], y, data["y"])}
            runs = attempts(engine, key, design, measured, lambda what: None)
            runs = runs if retry else islice(runs, 1)
            _, values, checks, _ = first_that_passes(engine, runs, labels, design, measured)
            few = {name: _thinned(x) for name, x in values.items()}
            one = {name: np.asarray(x)[None] for name, x in truth.items()}
            there = _columns(curve(one), one, labels)
            truths.append({name: float(x[0]) for name, x in there.items()})
            draws.append(_columns(curve(few), few, labels))
            passed.append(checks.passed)
            if i % 25 == 24:
                progress(f"{i + 1} of {n} studies, {np.mean(passed):.1%} passed their gates")
    joined = {name: np.array([x[name] for x in draws]) for name in draws[0]}
    table = pd.DataFrame(truths)
    return Recovery(ranks_of(table, joined, seed), table, joined, np.array(passed))


def simulated(engine: Engine, n: int, design, data, seed: int) -> Iterator[tuple]:
    """Number, true parameters and measured means of each study."""
    for block in range(0, n, BLOCK):
        key = jax.random.fold_in(jax.random.key(seed), block)
        truths = engine.prior(jax.random.fold_in(key, 0), BLOCK, design, data)
        drawn = engine.describe(jax.random.fold_in(key, 1), truths, design, data, seen=False)["y"]
        for j in range(min(BLOCK, n - block)):
            yield block + j, {name: x[0, j] for name, x in truths.items()}, drawn[0, j]


def _unseen_curve(engine: Engine, study: Study, design) -> Callable:
    """p at the unseen cells, from natural parameters (draws, ...): {name: (draws,)}."""
    cells = study.cells[~study.cells["fitted"]]
    there = replace(
        design,
        shots=cells["shots"].to_numpy(float),
        hypothesis=cells["hypothesis"].to_numpy(),
    )
    names = [
        f"p({n})" if len(study.hypotheses) == 1 else f"p({n})[{study.hypotheses[h]}]"
        for n, h in zip(cells["shots"], cells["hypothesis"], strict=True)
    ]

    def logp(values):
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=values):
            return engine.law.model(there)

    run = jax.jit(jax.vmap(logp))
    sites = engine.posterior.sites(design, arrays(study)[1])
    sampled = {name for name, site in sites.items() if site["type"] == "sample"}

    def curve(values):
        p = np.exp(run({name: x for name, x in values.items() if name in sampled}))
        return dict(zip(names, p.T, strict=True))

    return curve


def _columns(curve: dict, values: dict, labels: Labels) -> dict[str, np.ndarray]:
    """Every reported number by name, (draws,) each: parameters of law and noise, and the curve.

    Left out is what has the ranks of another: the ceiling, P where it is gamma and beta, and the
    last of a simplex of two.
    """
    out = {}
    twins = {"ceiling", *(["P"] if "gamma" in labels.reported else [])}
    for name in (name for name in labels.reported if name not in twins):
        x = np.asarray(values[name])
        for index in np.ndindex(x.shape[1:]):
            if name == "pi" and x.shape[1:] == (2,) and index == (1,):
                continue
            at = f"[{','.join(map(str, index))}]" if x[0].size > 1 else ""
            out[f"{name}{at}"] = x[(slice(None), *index)]
    return out | curve


def _thinned(x: np.ndarray) -> np.ndarray:
    """RANKED draws, evenly spaced over all chains: nearly independent where ESS is enough."""
    flat = x.reshape(-1, *x.shape[2:])
    return flat[((np.arange(RANKED) + 0.5) * flat.shape[0] / RANKED).astype(int)]


def ranks_of(truths: pd.DataFrame, draws: dict[str, np.ndarray], seed: int = 0) -> pd.DataFrame:
    """Number of draws below each truth, in 0 ... RANKED; ties fall either way."""
    rng, ranks = np.random.default_rng(seed), {}
    for name, x in draws.items():
        truth = truths[name].to_numpy()[:, None]
        ties = (x == truth).sum(1)
        ranks[name] = (x < truth).sum(1) + rng.integers(0, ties + 1)
    return pd.DataFrame(ranks)


# -- a law of two parameters, whose posterior can be had on a grid ------------------------------

STRAIGHT = '''"""From one probability to another: p(n) = a + (b - a) n / (n + 5); priors Beta(2, 2).

It may fall, has no coordinates of its own and compiles fast.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Law
from bayesicl.priors import hypotheses


def curve(shots, a, b):
    return jnp.log(a + (b - a) * shots / (shots + 5.0))


def model(design):
    with hypotheses(design):
        a = numpyro.sample("a", dist.Beta(2.0, 2.0))
        b = numpyro.sample("b", dist.Beta(2.0, 2.0))
    h = design.hypothesis
    return curve(design.shots, a[h], b[h])


law = Law("straight", curve, model, reference="made for the tests", monotone=False)
'''


class Grid:
    """The posterior of STRAIGHT on a grid, for one curve with given standard errors."""

    def __init__(self, shots, y, se, size: int = 400):
        mid = (np.arange(size) + 0.5) / size
        self.a, self.b = np.meshgrid(mid, mid, indexing="ij")
        self.shots, self.y, self.se = (np.asarray(x, float) for x in (shots, y, se))
        self.log_prior = stats.beta.logpdf(self.a, 2, 2) + stats.beta.logpdf(self.b, 2, 2)
        self.cells = stats.norm.logpdf(self.y, self.p(self.shots), self.se)  # (size, size, cells)

    def p(self, shots) -> np.ndarray:
        """The curve at every point of the grid: (size, size, shots)."""
        share = np.asarray(shots, float) / (np.asarray(shots, float) + 5)
        return self.a[..., None] + (self.b - self.a)[..., None] * share

    def weights(self, without: int | None = None) -> np.ndarray:
        """The posterior, summing to 1; without one of the cells where told."""
        kept = np.arange(self.y.size) != (-1 if without is None else without)
        log = self.log_prior + self.cells[..., kept].sum(-1)
        w = np.exp(log - log.max())
        return w / w.sum()

    def mean(self, f: np.ndarray, without: int | None = None) -> float:
        """Posterior mean of something known at every point of the grid."""
        return float((self.weights(without) * f).sum())

    def sd(self, f: np.ndarray) -> float:
        """Posterior standard deviation of it."""
        return float(np.sqrt(self.mean(f**2) - self.mean(f) ** 2))

    def left_out(self) -> np.ndarray:
        """Log predictive density of each cell given the others, exactly."""
        return np.array(
            [np.log(self.mean(np.exp(self.cells[..., i]), i)) for i in range(self.y.size)]
        )


@pytest.fixture(scope="module", autouse=True)
def reuse_engines():
    """Within a module programs are compiled once: compiling takes longer than running here.

    An engine keeps nothing from run to run but what it compiled.
    """
    engines = {}

    def engine(law, noise, settings, *, device="cpu"):
        key = (law.name, law.source_hash, law.coordinates, noise.name, settings, device)
        if key not in engines:
            engines[key] = Engine(law, noise, settings, device=device)
        return engines[key]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("bayesicl.fit", "bayesicl.restore"):
            patch.setattr(import_module(name), "Engine", engine)
        yield


# -- what ranks say -------------------------------------------------------------------------------


def least_tail(counts: np.ndarray) -> np.ndarray:
    """Least two-sided binomial tail of the ECDF over all ranks; counts: (..., ranks)."""
    n, size = int(counts.reshape(-1, counts.shape[-1])[0].sum()), counts.shape[-1]
    table = _tails(n, size)
    below = np.cumsum(counts, axis=-1)[..., :-1]
    return table[np.arange(size - 1), below].min(axis=-1)


@cache
def _tails(n: int, size: int) -> np.ndarray:
    z = (np.arange(1, size) / size)[:, None]
    k = np.arange(n + 1)
    return np.minimum(1.0, 2 * np.minimum(stats.binom.cdf(k, n, z), stats.binom.sf(k - 1, n, z)))


@cache
def _uniform_tails(n: int, size: int, sets: int = 50_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.multinomial(n, np.full(size, 1 / size), 5_000) for _ in range(sets // 5_000)]
    return np.sort(np.concatenate([least_tail(part) for part in parts]))


def p_value(ranks: np.ndarray, *, size: int = RANKED + 1) -> float:
    """Share of sets of as many uniform ranks whose ECDF strays at least as far as this one's.

    Below .01: outside of the simultaneous 99 % band.
    """
    simulated = _uniform_tails(len(ranks), size)
    own = least_tail(np.bincount(np.asarray(ranks, int), minlength=size))
    return (np.searchsorted(simulated, own * (1 + 1e-9), side="right") + 1) / (simulated.size + 1)


def band(n: int, *, level: float = 0.99, size: int = RANKED + 1) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the simultaneous band for the ECDF at ranks 0 ... size - 2."""
    worst = np.quantile(_uniform_tails(n, size), 1 - level)
    inside = _tails(n, size) >= worst
    k = np.arange(n + 1)
    return np.where(inside, k, n).min(axis=1) / n, np.where(inside, k, 0).max(axis=1) / n


def coverage(recovery: Recovery) -> pd.DataFrame:
    """One row a quantity: coverage of 50 % and 90 % intervals, standard error, and the band.

    p_value, inside_band: of the simultaneous 99 % band of this quantity alone. inside_all: of a
    band that holds for all quantities at once (Bonferroni).
    """
    rows, n = [], len(recovery.ranks)
    for name, ranks in recovery.ranks.items():
        row = {"quantity": name, "studies": n}
        for level, low in ((50, 25), (90, 5)):
            inside = ranks.between(low, RANKED - low)
            row[f"coverage {level}%"] = inside.mean()
            row[f"se {level}%"] = np.sqrt(level / 100 * (1 - level / 100) / n)
        row["mean rank"] = ranks.mean() / RANKED
        row["p_value"] = p_value(ranks.to_numpy())
        row["inside_band"] = row["p_value"] >= 0.01
        row["inside_all"] = row["p_value"] >= 0.01 / recovery.ranks.shape[1]
        rows.append(row)
    return pd.DataFrame(rows)
