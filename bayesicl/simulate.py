"""Studies whose truth is known: parameters from the priors, measurements from the noise.

Two ways to measure. As the noise declares: exactly the model whose posterior a fit draws, so that
what goes wrong is the fit's fault. Or in rows, as a table would hold them: counts of right answers
and probabilities of single prompts, read by `read_curves`; what then goes wrong may also be the
fault of the noise's approximations.

What each noise declares:

- beta-binomial: counts; declared and measured are the same.
- replicates: row r of cell i is p_i + sqrt(v_i) (replicate_sd b_r + sqrt(d_i / items) e_ri), all b
  and e standard normal and b common to a replicate; cells are means over r, and the spread is told
  by the deviations from them in units of sqrt(v_i), which a real table can only estimate.
- mean-probability: cells are Normal(p, c v / prompts). Of single prompts, the spread tells
  log c + Normal(0, se). A fit takes se from a jackknife of the very rows; here it is what the fit
  takes at the least, sqrt(2 / degrees of freedom), for otherwise nothing would be declared.
- given-se: cells are Normal(p, se).
- mean-nll, nll-given-se: as the two before, p a mean nll.

v is p (1 - p), kept from 0 as in `noise.about_p`, or the variance of mean nll (`scale`). No normal
is cut off at 0 or 1, since the likelihood does not do so either.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro import handlers
from scipy import stats

from bayesicl.curves import Curves, Study, read_curves
from bayesicl.device import on_device
from bayesicl.errors import CurveWarning, InputError
from bayesicl.law import Design, Law
from bayesicl.noise import Noise, dispersion_of_cells
from bayesicl.noises import NOISES, load_noise
from bayesicl.program import arrays, compose, log_choices
from bayesicl.scale import MEAN_NLL

SHOTS = (0, 1, 2, 4, 8, 16, 32, 64)
KINDS = tuple(dict.fromkeys(kind for noise in NOISES.values() for kind in noise.kinds))
MAX_SHOTS = 3_000_000  # a third of what tables may hold: the curve is asked for beyond


@dataclass(frozen=True)
class Layout:
    """What is measured of every simulated study.

    kind: what a cell is made of, as in `Study.kind`. hypotheses: how many curves. shots: where
    they are measured. total: items of each count, or prompts behind each mean; with given standard
    errors, these are those of a coin tossed so often, or of so many prompts whose nll has an sd of
    1 nat. replicates: of replicated counts.

    Raises InputError where no such study could be measured.

    Example:
        >>> from bayesicl.simulate import Layout
        >>> Layout("prompts").unseen
        (3, 12, 192)
    """

    kind: str = "counts"
    hypotheses: int = 1
    shots: tuple[int, ...] = SHOTS
    total: int = 50
    replicates: int = 8

    def __post_init__(self):
        """Raise InputError where a number makes no sense."""
        if self.kind not in KINDS:
            raise InputError(f"--kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if len(set(self.shots)) < 2 or not 0 <= min(self.shots) <= max(self.shots) <= MAX_SHOTS:
            raise InputError(
                f"--shots must be at least 2 different numbers from 0 to {MAX_SHOTS:,}, got "
                f"{','.join(map(str, self.shots)) or 'none'}"
            )
        for name, least in (("hypotheses", 1), ("total", 2), ("replicates", 2)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def unseen(self) -> tuple[int, ...]:
        """Three numbers of shots that are not measured: two between, if there is room, and beyond.

        Without room between they lie beyond, the farthest at ten times the longest.
        """
        shots = sorted(set(self.shots))
        middles = [(a + b) // 2 for a, b in pairwise(shots) if b - a > 1]
        between = dict.fromkeys(middles[i] for i in (0, len(middles) // 2) if i < len(middles))
        beyond = (3 * shots[-1], 2 * shots[-1], 10 * shots[-1])
        return tuple(sorted([*between, *beyond][:3]))

    @property
    def rows(self) -> int:
        """Rows of a table for each cell."""
        if self.kind.endswith("prompts"):
            return self.total
        return self.replicates if self.kind == "replicated counts" else 1

    @property
    def noise(self) -> Noise:
        """The default noise of such studies."""
        return load_noise(None, self.kind)

    def curves(self, y: np.ndarray | None = None) -> Curves:
        """One study with these measurements, (cells, rows) as means can be; else all alike.

        Cells at `unseen` are there, but are not fitted.
        """
        shots = sorted({*self.shots, *self.unseen})
        h, n, r = np.meshgrid(range(self.hypotheses), shots, range(self.rows), indexing="ij")
        counts = self.kind.endswith("counts")
        if y is None:
            y = np.full((h.size // self.rows, self.rows), 1 / self.total if counts else 0.5)
        table = pd.DataFrame({"hypothesis": h.ravel(), "shots": n.ravel(), "replicate": r.ravel()})
        if counts:
            table = table.assign(correct=np.round(y.ravel() * self.total), total=self.total)
        else:
            nll = self.noise.scale == MEAN_NLL
            table = table.assign(**{"mean_nll" if nll else "prob": y.ravel()})
            if self.kind.endswith("aggregated"):
                table = table.assign(total=self.total)
            elif self.kind.endswith("given se"):
                table = table.assign(se=np.sqrt((1.0 if nll else 0.25) / self.total))
        with warnings.catch_warnings():  # a prior may well draw a flat curve
            warnings.simplefilter("ignore", CurveWarning)
            curves = read_curves(table)
        [study] = curves
        fitted = ~study.cells["shots"].isin(self.unseen).to_numpy()
        return replace(curves, studies=(replace(study, cells=study.cells.assign(fitted=fitted)),))


class Simulated(NamedTuple):
    """A study with its truth.

    truth: every site's natural value. logp: true log p of every cell, padding included. design,
    data: what a fit takes.
    """

    truth: dict[str, np.ndarray]
    logp: np.ndarray
    design: Design
    data: dict[str, Any]


def simulator(
    law: Law, noise: Noise, layout: Layout, *, backgrounds: int = 1, rows: bool = False
) -> Callable[[jax.Array], Simulated]:
    """A function of a random key that draws a study from the priors of law and noise.

    rows: measure as a table would hold it, instead of as the noise declares (see the module).

    Raises:
        InputError: counts of one run in rows, which they are anyway.

    Example:
        >>> import jax
        >>> from bayesicl.device import precision
        >>> from bayesicl.law import load_law
        >>> from bayesicl.noises import load_noise
        >>> from bayesicl.simulate import Layout, simulator
        >>> with precision():
        ...     draw = simulator(load_law("power"), load_noise(None, "counts"), Layout())
        ...     study = draw(jax.random.key(0))
        >>> sorted(study.truth), study.data["y"].shape
        (['C', 'L', 'alpha', 'ceiling', 'scatter'], (16,))
    """
    if rows and layout.kind == "counts":
        raise InputError("--rows is not for counts of one run: they are simulated as rows anyway")
    [study] = layout.curves()
    design, data = declared(study, backgrounds)
    program, on = compose(law, noise), on_device((design, data))

    @jax.jit
    def draw(key):
        key_truth, key_measured = jax.random.split(key)
        with handlers.block(), handlers.trace() as trace, handlers.seed(rng_seed=key_truth):
            logp, sizes = program(*on)
        truth = {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] in ("sample", "deterministic") and not site.get("is_observed")
        }
        unseen = {**on[1], "fitted": jnp.zeros_like(on[1]["fitted"])}
        scatter = noise.scatter(logp, sizes, on[0], unseen, seen=False)
        return truth, logp, sizes, scatter, spread(key_measured, sizes, *on)

    def one(key: jax.Array) -> Simulated:
        truth, logp, sizes, scatter, measured = jax.tree.map(np.asarray, draw(key))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        if not rows:
            measured |= means(noise, rng, scatter, design, data)
            return Simulated(truth, logp, design, data | measured)
        cells = study.cells.assign(p=np.exp(logp[: len(study.cells)]))
        [again] = layout.curves(measured_rows(layout, cells, sizes, rng))
        return Simulated(truth, logp, *arrays(again, backgrounds=backgrounds))

    return one


def declared(study: Study, backgrounds: int) -> tuple[Design, dict[str, Any]]:
    """The arrays of a study, with what its noise takes as known."""
    design, data = arrays(study, backgrounds=backgrounds)
    if study.kind.endswith("prompts"):
        fitted = study.cells[study.cells["fitted"]]
        freedom = (fitted["total"] - 1).groupby(fitted["hypothesis"]).sum().to_numpy()
        data |= {"log_c_se": np.sqrt(2 / freedom), "has_spread": freedom > 0}
    return design, data


def means(
    noise: Noise, rng: np.random.Generator, scatter: Mapping, design: Design, data: Mapping
) -> dict[str, np.ndarray]:
    """The cells' means in `data`, y (cells,), and what goes with them, drawn anew."""
    y = noise.measure(rng, scatter, design, data, cut=False)["y"]
    measured = {"y": np.where(data["fitted"], y, data["y"])}
    if "log_choices" in data:
        measured["log_choices"] = log_choices(measured["y"], data["total"])
    return measured


def spread(key: jax.Array, sizes: Mapping, design: Design, data: Mapping) -> dict[str, jax.Array]:
    """What `data` tell of the scatter within cells, drawn anew from what the noise declares.

    row_pull, square: of replicates' deviations. log_c: (H,), of the spread of prompts.
    """
    measured = {}
    if "log_c" in data:
        error = data["log_c_se"] * jax.random.normal(key, jnp.shape(data["log_c"]))
        measured["log_c"] = jnp.log(sizes["c"]) + error
    if "row_items" in data:
        measured |= _deviations(key, sizes, design, data)
    return measured


def _deviations(key, sizes: Mapping, design: Design, data: Mapping) -> dict[str, jax.Array]:
    """Rows less their cell's mean, in units of sqrt(v), independent of that mean."""
    key_replicate, key_row = jax.random.split(key)
    items, used = data["row_items"], data["row_items"] > 0
    common = jax.random.normal(key_replicate, (design.n_hypotheses, len(items)))
    common = design.per_cell(sizes["replicate_sd"][:, None] * common).T
    sd = jnp.sqrt(dispersion_of_cells(sizes, design) / jnp.where(used, items, 1.0))
    row = jnp.where(used, common + sd * jax.random.normal(key_row, items.shape), 0.0)
    z = row - row.sum(0) / jnp.maximum(used.sum(0), 1)
    return {"row_pull": items * z, "square": jnp.sum(items * z**2, axis=0)}


def measured_rows(
    layout: Layout, cells: pd.DataFrame, sizes: Mapping, rng: np.random.Generator
) -> np.ndarray:
    """Rows of every cell as a table would hold them, with the noise's moments: (cells, rows).

    cells: `Study.cells` with the true p. Prompts are Beta with variance c p (1 - p). A replicate's
    p is shifted by a normal; its count is beta-binomial where the dispersion d is above 1, and
    below 1 a sum over the same items of unequal difficulty, which scatters less than a binomial.
    The nll of prompts is Gamma.
    """
    scale = layout.noise.scale
    h, p = cells["hypothesis"].to_numpy(), cells["p"].to_numpy()
    p = np.clip(p, 1e-12, scale.top - 1e-12)
    if layout.kind.endswith("given se"):
        return scale.cut(rng.normal(p, cells["se"]))[:, None]
    if layout.kind.endswith(("prompts", "aggregated")):
        c, size = sizes["c"][h], (len(p), layout.total)
        if scale == MEAN_NLL:
            k = (p**2 / (c * scale.variance(p)))[:, None]
            prompts = rng.gamma(k, p[:, None] / k, size)
        else:
            k = 1 / c - 1
            prompts = rng.beta((p * k)[:, None], ((1 - p) * k)[:, None], size)
        return prompts if layout.kind.endswith("prompts") else prompts.mean(1, keepdims=True)
    design = Design(cells["shots"].to_numpy(float), h, layout.hypotheses)
    d = np.asarray(dispersion_of_cells(sizes, design))[:, None]
    shift = sizes["replicate_sd"][:, None] * rng.standard_normal((layout.hypotheses, layout.rows))
    p = np.clip(p[:, None] + np.sqrt(p * (1 - p))[:, None] * shift[h], 1e-12, 1 - 1e-12)
    rho = np.clip((d - 1) / (layout.total - 1), 1e-9, 1 - 1e-9)
    over = rng.binomial(layout.total, rng.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1)))
    k = 1 / np.clip(1 - d, 1e-9, 1 - 1e-9)[..., None] - 1
    share = (np.arange(layout.total) + 0.5) / layout.total
    items = stats.beta.ppf(share, p[..., None] * k, (1 - p[..., None]) * k)
    under = (rng.random(items.shape) < items).sum(-1)
    return np.where(d > 1, over, under) / layout.total
