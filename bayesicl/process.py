"""A process over log(1 + shots) that is integrated out: what `misfit` adds to a noise.

f is an Ornstein-Uhlenbeck process, one a curve, seen with independent errors. Its precision has
three diagonals, so that all here takes time in proportion to the number of cells. In the sampler,
by elimination of every second cell at a time; for predictions, by a filter and a smoother.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesicl.law import Design
from bayesicl.noise import Arrays, Moments

CLOSE = 1e-6  # in log(1 + shots): nearer cells count as this far apart


class Links(NamedTuple):
    """Of each cell, (cells,): the correlation of f with the cell before, and 1 less its square.

    0 and 1 where a curve begins. Cells of padding hang together, and on nothing else. sd: the
    process's own.
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
        left, right = e[..., 1::2], following(e[..., ::2], 0.0)
        share, share_next = left / gone, right / following(gone, 1.0)
        pivots.append(gone)
        sides.append(y_gone)
        diagonal = kept - left * share - right * share_next
        before = _previous(-share_next, 0.0) * left
        x = y_kept - share * y_gone - share_next * following(y_gone, 0.0)
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


def following(a, fill):
    """Of each entry the one after it; `fill` after the last."""
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
    after = following(own.keep, 0.0) ** 2 / following(own.fresh, 1.0)
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
    keep = following(own.keep, 0.0)
    tiny = jnp.finfo(both.dtype).tiny
    slope = variance * keep / jnp.maximum(following(ahead, 1.0), tiny)

    def backward(carry, cell):
        later, later_variance = carry
        mean, variance, slope, keep, ahead = cell
        mean = mean + slope * (later - keep * mean)
        variance = variance + slope**2 * (later_variance - ahead)
        return (mean, variance), (mean, variance)

    steps = mean, variance, slope, keep, following(ahead, 1.0)
    _, (smoothed, spread) = jax.lax.scan(backward, start, steps, reverse=True)
    left = jnp.sqrt(jnp.maximum(variance - slope**2 * following(ahead, 1.0), 0.0))
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
