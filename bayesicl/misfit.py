"""The law's misfit: what neighbouring cells share beyond the law and the noise of each.

    y_i = p_i + sqrt(v_i) (f_i + l_i b + sqrt(D_i) e_i)

as in `noise`, with one term more: f is an Ornstein-Uhlenbeck process over x = log(1 + shots), of
standard deviation misfit_sd and correlation exp(-|x_i - x_j| / misfit_length), one a curve. It is
integrated out: doubt is small near measured cells, and grows with distance from them. A process of
this kind has a precision of three diagonals, so that a likelihood takes time in proportion to the
number of cells.

Cells stand by curve, and by shots within a curve, as `Study.cells` does; what follows a curve with
fewer shots (padding) belongs to no curve's process. Counts are taken as normal here, with the
variance of the beta-binomial: with total items, D = 1/total + scatter^2 (1 - 1/total).

misfit_sd      HalfNormal(0.2), in units of sqrt(p (1 - p)): .1 of probability where p = 1/2.
misfit_length  LogNormal(log 2, 1), in log(1 + shots): 90 % between .4 and 10; log 10 is 2.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr

from bayesicl.law import Design
from bayesicl.noise import Arrays, Moments, Noise
from bayesicl.priors import hypotheses

CLOSE = 1e-6  # in log(1 + shots): nearer cells count as this far apart


SUFFIX = "+misfit"  # of the names of noises
Sampler = Callable[[Design, Arrays], dict[str, Any]]


class Links(NamedTuple):
    """Of each cell, (cells,): the correlation of f with the cell before, and 1 less its square.

    0 and 1 where a curve begins and at padding. sd: the process's own.
    """

    keep: jax.Array
    fresh: jax.Array
    sd: jax.Array


def links(sizes: Mapping, design: Design) -> Links:
    """The process at the cells of a design."""
    x = jnp.log1p(design.shots)
    gap = jnp.diff(x, prepend=jnp.inf)
    same = jnp.diff(design.hypothesis, prepend=-1) == 0
    on = same & (gap >= 0)
    # Where cells are predicted that were measured, too, two of them stand at one place.
    gap = jnp.where(on, jnp.maximum(gap, CLOSE), 1.0) / design.per_cell(sizes["misfit_length"])
    keep = jnp.where(on, jnp.exp(-gap), 0.0)
    fresh = jnp.where(on, -jnp.expm1(-2.0 * gap), 1.0)
    sd = jnp.broadcast_to(design.per_cell(sizes["misfit_sd"]), x.shape)
    return Links(keep, fresh, sd)


def eliminate(diagonal, before, x):
    """Solve a symmetric matrix of three diagonals, every second row at a time.

    diagonal: (n,). before: (n,) entries beside the diagonal, of each row with the one before it;
    the first is 0. x: (k, n) right-hand sides. Returns the pivots (n,) and the right-hand sides as
    they are when their row is eliminated, (k, n), both `as_eliminated`: the log determinant is the
    sum of log pivots, and x' M^-1 x that of x x / pivots.
    """
    pivots, sides = [], []
    while diagonal.shape[-1] > 1:
        d, e, y = (_even(a, fill) for a, fill in ((diagonal, 1.0), (before, 0.0), (x, 0.0)))
        gone, kept = d[..., ::2], d[..., 1::2]
        y_gone, y_kept = y[..., ::2], y[..., 1::2]
        left, right = e[..., 1::2], _next(e[..., ::2], 0.0)
        share, share_next = left / gone, right / _next(gone, 1.0)
        pivots.append(gone)
        sides.append(y_gone)
        diagonal = kept - left * share - right * share_next
        before = _previous(-share_next, 0.0) * left
        x = y_kept - share * y_gone - share_next * _next(y_gone, 0.0)
    return jnp.concatenate([*pivots, diagonal], -1), jnp.concatenate([*sides, x], -1)


def as_eliminated(a):
    """`a`, (n,), in the order in which `eliminate` takes rows, and filled up as it does."""
    taken = []
    while a.shape[-1] > 1:
        a = _even(a, 0)
        taken.append(a[::2])
        a = a[1::2]
    return jnp.concatenate([*taken, a])


def _even(a, fill):
    """`a`, filled up to an even length."""
    width = [(0, 0)] * (a.ndim - 1) + [(0, a.shape[-1] % 2)]
    return jnp.pad(a, width, constant_values=fill)


def _next(a, fill):
    return jnp.concatenate([a[..., 1:], jnp.full_like(a[..., :1], fill)], -1)


def _previous(a, fill):
    return jnp.concatenate([jnp.full_like(a[..., :1], fill), a[..., :-1]], -1)


class Known(NamedTuple):
    """Normal posterior of each curve's common shift b, f integrated out: (H,) each.

    fit: of each curve, -2 times the log density with b = 0, up to what the noise alone gives.
    """

    precision: jax.Array
    pull: jax.Array
    fit: jax.Array


class Scaled(NamedTuple):
    """A study's cells in units of sqrt(v), (cells,) each: residual, loading and information."""

    residual: jax.Array
    load: jax.Array
    weight: jax.Array


def scaled(m: Moments, data: Arrays) -> Scaled:
    """Cells that are not fitted have no information."""
    weight = jnp.where(data["fitted"], m.unit**2 / m.variance, 0.0)
    return Scaled((data["y"] - m.mean) / m.unit, m.common / m.unit, weight)


def known(cells: Scaled, own: Links, design: Design) -> Known:
    """Both moments of what was measured, by elimination."""
    after = _next(own.keep, 0.0) ** 2 / _next(own.fresh, 1.0)
    diagonal = 1.0 / own.fresh + after + own.sd**2 * cells.weight
    both = jnp.stack([cells.residual, cells.load])
    pivots, sides = eliminate(diagonal, -own.keep / own.fresh, own.sd * cells.weight * both)
    total = design.per_curve
    moved = replace(design, hypothesis=as_eliminated(jnp.asarray(design.hypothesis)))
    rr, rl, ll = (
        total(cells.weight * both[i] * both[j]) - moved.per_curve(sides[i] * sides[j] / pivots)
        for i, j in ((0, 0), (0, 1), (1, 1))
    )
    log_det = moved.per_curve(jnp.log(pivots)) + total(jnp.log(own.fresh))
    return Known(1.0 + ll, rl, rr + log_det)


class Smoothed(NamedTuple):
    """f given the fitted cells and b = 0 at each cell, and how a path is drawn backwards.

    residual, load: (cells,) mean of f where residuals, or loadings, are what was measured.
    variance: of f. filtered: (2, cells), the same means from the cells up to each alone.
    slope, sd: f_i is filtered_i + slope_i (f_{i+1} - keep_{i+1} filtered_i) + sd_i z_i.
    """

    residual: jax.Array
    load: jax.Array
    variance: jax.Array
    filtered: jax.Array
    slope: jax.Array
    sd: jax.Array


def smooth(cells: Scaled, own: Links) -> Smoothed:
    """Forwards and backwards through the cells (Kalman, Rauch-Tung-Striebel)."""
    both = jnp.stack([cells.residual, cells.load], axis=-1)

    def forward(carry, cell):
        mean, variance = carry
        y, weight, keep, fresh, sd = cell
        mean, ahead = keep * mean, keep**2 * variance + sd**2 * fresh
        variance = ahead / (1.0 + ahead * weight)
        mean = mean + variance * weight * (y - mean)
        return (mean, variance), (mean, variance, ahead)

    start = jnp.zeros(2, both.dtype), jnp.zeros((), both.dtype)
    _, (mean, variance, ahead) = jax.lax.scan(forward, start, (both, cells.weight, *own))
    keep = _next(own.keep, 0.0)
    tiny = jnp.finfo(both.dtype).tiny
    slope = variance * keep / jnp.maximum(_next(ahead, 1.0), tiny)

    def backward(carry, cell):
        later, later_variance = carry
        mean, variance, slope, keep, ahead = cell
        mean = mean + slope * (later - keep * mean)
        variance = variance + slope**2 * (later_variance - ahead)
        return (mean, variance), (mean, variance)

    steps = mean, variance, slope, keep, _next(ahead, 1.0)
    _, (smoothed, spread) = jax.lax.scan(backward, start, steps, reverse=True)
    left = jnp.sqrt(jnp.maximum(variance - slope**2 * _next(ahead, 1.0), 0.0))
    return Smoothed(smoothed[:, 0], smoothed[:, 1], spread, mean.T, slope, left)


def path(rng: np.random.Generator, known: Mapping[str, np.ndarray], filtered: np.ndarray):
    """A path of f for each draw, drawn backwards: (..., cells)."""
    z = rng.standard_normal(filtered.shape)
    f = np.empty_like(filtered)
    later = np.zeros(filtered.shape[:-1])
    for i in reversed(range(filtered.shape[-1])):
        mean, slope = filtered[..., i], known["slope"][..., i]
        later = mean + slope * (later - known["keep"][..., i] * mean)
        f[..., i] = later = later + known["left"][..., i] * z[..., i]
    return f


@dataclass(frozen=True)
class Misfit(Noise):
    """A noise with the law's misfit beside it. base: that noise. counts: it is of counts."""

    counts: bool = False
    base: Noise | None = None

    def of(self, logp, sizes, design: Design, data: Arrays) -> Moments:
        """Moments of the noise beside the misfit: counts have some, too."""
        assert self.moments is not None
        return self.moments(logp, sizes, design, data)

    def log_density(self, logp, sizes, design: Design, data: Arrays) -> jax.Array:
        """Log density of all fitted cells together: ()."""
        m = self.of(logp, sizes, design, data)
        told = known(scaled(m, data), links(sizes, design), design)
        noise = jnp.where(data["fitted"], jnp.log(2 * jnp.pi * m.variance), 0.0)
        fit = told.fit + jnp.log(told.precision) - told.pull**2 / told.precision
        return -0.5 * (jnp.sum(noise) + jnp.sum(fit))

    def cell_log_density(self, logp, sizes, design: Design, data: Arrays) -> jax.Array:
        """Log density of each cell given the other fitted cells: (cells,); of counts, a mass."""
        m = self.of(logp, sizes, design, data)
        cells, own = scaled(m, data), links(sizes, design)
        told, f = known(cells, own, design), smooth(cells, own)
        b, precision = design.per_cell(told.pull / told.precision), design.per_cell(told.precision)
        rest = cells.load - f.load
        # Of a fitted cell, from what it adds; of another, what is expected there.
        pull = cells.weight * (cells.residual - f.residual - rest * b)
        alone = cells.weight - cells.weight**2 * (f.variance + rest**2 / precision)
        safe = jnp.where(data["fitted"], alone, 1.0)
        ahead = m.variance / m.unit**2 + f.variance + rest**2 / precision
        mean = jnp.where(data["fitted"], cells.residual - pull / safe, f.residual + rest * b)
        variance = jnp.where(data["fitted"], 1.0 / safe, ahead)
        mean, sd = m.mean + m.unit * mean, m.unit * jnp.sqrt(variance)
        if not self.counts:
            return dist.Normal(mean, sd).log_prob(data["y"])
        half = 0.5 / data["total"]
        low = jnp.where(data["y"] <= half, -jnp.inf, (data["y"] - half - mean) / sd)
        high = jnp.where(data["y"] >= 1.0 - half, jnp.inf, (data["y"] + half - mean) / sd)
        return log_mass(low, high)

    def scatter(self, logp, sizes, design: Design, data: Arrays, *, seen=True) -> dict[str, Any]:
        """What `measure` draws from: (cells,) each, and (H,) of the common shift."""
        m = self.of(logp, sizes, design, data)
        cells, own = scaled(m, data), links(sizes, design)
        told, f = known(cells, own, design), smooth(cells, own)
        return {
            "p": m.mean,
            "unit": m.unit,
            "sd": jnp.sqrt(m.variance),
            "common": m.common,
            "shift": told.pull / told.precision,
            "spread": 1.0 / jnp.sqrt(told.precision),
            "again": jnp.broadcast_to(jnp.asarray(seen), told.pull.shape),
            "residual": f.filtered[0],
            "load": f.filtered[1],
            "slope": f.slope,
            "keep": _next(own.keep, 0.0),
            "left": f.sd,
        } | ({"scatter": sizes["scatter"]} if self.counts else {})

    def measure(
        self,
        rng: np.random.Generator,
        scatter: Mapping[str, np.ndarray],
        design: Design,
        data: Arrays,
        *,
        cut: bool = True,
    ) -> dict[str, np.ndarray]:
        """See `Noise.measure`; the mean curve is the law's and its misfit together."""
        own = design.hypothesis
        z, new = rng.standard_normal((2, *scatter["shift"].shape))
        b = scatter["shift"] + scatter["spread"] * z
        f = path(rng, scatter, scatter["residual"] - b[..., own] * scatter["load"])
        mean = scatter["p"] + scatter["unit"] * f
        b = np.where(scatter["again"], b, new)
        moved = mean + scatter["common"] * b[..., own]
        if self.counts and cut:
            mean = np.clip(mean, 0.0, 1.0)
            return {"mean": mean, "y": _counts(rng, mean, scatter["scatter"][..., own], data)}
        y = moved + scatter["sd"] * rng.standard_normal(mean.shape)
        if cut:
            mean, y = np.clip(mean, 0.0, 1.0), np.clip(y, 0.0, 1.0)
        return {"mean": mean, "y": y}


def _counts(rng, mean, scatter, data):
    """Shares of `total` items right, beta-binomial about the mean."""
    total = np.asarray(data["total"]).astype(int)
    k = 1.0 / np.maximum(scatter, 1e-3) ** 2 - 1.0
    tiny = 1e-9
    p = rng.beta(np.maximum(mean, tiny) * k, np.maximum(1.0 - mean, tiny) * k)
    return rng.binomial(total, np.clip(np.nan_to_num(p, nan=0.5), 0.0, 1.0)) / total


def log_mass(low, high):
    """log of Phi(high) - Phi(low), high > low; both may be infinite."""
    flip = low > 0  # the upper tail is exact where it is the smaller one
    a, b = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    top, bottom = log_ndtr(jnp.clip(b, -1e8, 1e8)), log_ndtr(jnp.clip(a, -1e8, 1e8))
    return top + jnp.log(-jnp.expm1(jnp.minimum(bottom - top, -1e-300)))


def sample_misfit(design: Design, data: Arrays) -> dict[str, Any]:
    """Sizes of the misfit, one of each a curve."""
    with hypotheses(design):
        sd = numpyro.sample("misfit_sd", dist.HalfNormal(0.2))
        length = numpyro.sample("misfit_length", dist.LogNormal(jnp.log(2.0), 1.0))
    return {"misfit_sd": sd, "misfit_length": length}


def both(first: Sampler, second: Sampler) -> Sampler:
    """Sizes of two kinds in one program."""
    return lambda design, data: {**first(design, data), **second(design, data)}


def with_misfit(noise: Noise, moments: Callable | None = None) -> Misfit:
    """This noise, with the misfit beside it; moments: of one that has none."""
    return Misfit(
        f"{noise.name}{SUFFIX}",
        f"{noise.summary}; and the law's misfit, a process over log(1+shots)",
        noise.kinds,
        both(noise.model, sample_misfit),
        moments or noise.moments,
        counts=moments is not None,
        base=noise,
    )
