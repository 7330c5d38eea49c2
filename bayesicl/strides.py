"""A stride: one step of a trajectory, in one leapfrog, or in more where one is not accurate.

NUTS with one step size must take small steps everywhere to pass a wall somewhere. Here a stride
that would gain or lose more energy than TOLERANCE is made again from where it began, in four times
as many leapfrogs, and so on. That alone would favour places that are entered in parts and left
whole. So the way back is tried from its end at every coarser level, and the stride counts only if
each of them fails there too: then it is the same from either side, a trajectory is the same from
all its points, and NUTS on it is exact. If not, the half that grows is given up, as where it turns.

Source: Bou-Rabee, Carpenter, Kleppe & Liu (2025), "The within-orbit adaptive leapfrog No-U-Turn
Sampler", arXiv 2506.18746. Theirs may draw the number of leapfrogs at random, in powers of two, and
looks at the energies all along; ours follows from place and momentum, goes in powers of four, and
looks at both ends alone.
"""

from typing import Any

import jax
import jax.numpy as jnp

from bayesicl.lanes import Point, Stride, choose

TOLERANCE = 3.0  # nats: less would split what fluctuates anyway, the more so with many parameters
LEVELS = 3  # of splitting: a stride that fails in 4^3 leapfrogs is at a wall, not a slope


def energy(point: Point, r) -> jax.Array:
    """Potential and kinetic, in nats."""
    return point.potential + 0.5 * jnp.sum(r * r)


def first_try(stride: Stride) -> jax.Array:
    """Whether the next leapfrog is the whole stride, on the way forth."""
    return (stride.level == 0) & (stride.check == 0)


def lands_at_once(stride: Stride, new: Point, r) -> jax.Array:
    """Whether the stride is over with its first leapfrog, which ends at `new` with momentum r."""
    change = energy(new, r) - energy(stride.begin, stride.begin_r)
    return first_try(stride) & (jnp.abs(change) <= TOLERANCE)  # not where NaN


def share(stride: Stride, kind) -> jax.Array:
    """How much of the stride the next leapfrog is; less than 0 on the way back."""
    return jnp.where(stride.check > 0, -1.0, 1.0).astype(kind) / _parts(stride).astype(kind)


def _parts(stride: Stride) -> jax.Array:
    return 1 << 2 * jnp.where(stride.check > 0, stride.check - 1, stride.level)


def onward(stride: Stride, new: Point, r) -> tuple[Point, Any, Stride, Any, Any, Any]:
    """What a leapfrog that ends at `new` with momentum r makes of a stride.

    Returns the point and momentum where it lands or, under way, where the next leapfrog begins; the
    stride; whether it lands; whether it cannot, since a coarser one leads back from its end; and
    whether it has diverged.
    """
    checking = stride.check > 0
    over = stride.part + 1 == _parts(stride)
    begin, end = (stride.begin, stride.begin_r), (stride.end, stride.end_r)
    origin = choose(checking, end, begin)
    there = energy(*origin)
    good = over & (jnp.abs(energy(new, r) - there) <= TOLERANCE)  # not where NaN
    bad = over & ~good
    # From a place without density nothing is near enough.
    finest = (stride.level == LEVELS) | ~jnp.isfinite(there)
    last = jnp.where(checking, stride.check == stride.level, finest)
    lands = jnp.where(checking, bad & last, good & (stride.level == 0))
    arrives = good & ~checking & ~lands
    again = bad & ~last
    end, end_r = choose(arrives, (new, r), end)
    after = Stride(
        stride.begin,
        stride.begin_r,
        end,
        end_r,
        stride.level + (again & ~checking),
        jnp.where(arrives, 1, stride.check + (again & checking)),
        jnp.where(over, 0, stride.part + 1),
    )
    at, at_r = choose(again | (checking & lands), origin, (new, r))
    return at, at_r, after, lands, good & checking, bad & last & ~checking
