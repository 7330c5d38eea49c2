"""Steps of a trajectory: one leapfrog each, and more where one is not accurate.

NUTS with one step size must take small steps everywhere to pass a wall somewhere. Here a step that
would gain or lose more energy than TOLERANCE is made again from where it began, in four times as
many leapfrogs, and so on. That alone would favour places that are easier to leave than to enter. So
the way back is tried from its end at every coarser level, and the step counts only if each of them
fails there too: then it is the same step from either side, a trajectory is the same from all its
points, and NUTS on it is exact. If not, the trajectory ends before it, as it would where it turns.

Source: Bou-Rabee, Carpenter, Kleppe & Liu (2025), "The within-orbit adaptive leapfrog No-U-Turn
Sampler", arXiv 2506.18746; theirs draws the number of leapfrogs, ours is a function of the place.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

TOLERANCE = 1.0  # nats
LEVELS = 3  # of splitting: a step that fails at the last, of 64 leapfrogs, has diverged


class Point(NamedTuple):
    """A place in sampling coordinates. q, gradient: (d,). potential: ()."""

    q: Any
    potential: Any
    gradient: Any


class Stride(NamedTuple):
    """A step of a trajectory, in 4^level leapfrogs.

    begin, begin_r: where it starts. end, end_r: where it ends, while the way back is tried. check:
    0, or 1 + the level at which that is tried. part: leapfrogs done at this level.
    """

    begin: Point
    begin_r: Any
    end: Point
    end_r: Any
    level: Any
    check: Any
    part: Any


class Fails(NamedTuple):
    """How a step may fail for good. diverges: at the last level. no_way_back: another would."""

    diverges: Any
    no_way_back: Any


def energy(point: Point, r) -> jax.Array:
    """Potential and kinetic, in nats."""
    return point.potential + 0.5 * jnp.sum(r * r)


def stride_from(point: Point, r) -> Stride:
    """A step that has not begun, in one leapfrog."""
    none = jnp.int32(0)
    return Stride(point, r, point, r, none, none, none)


def whole_step(stride: Stride) -> jax.Array:
    """Whether the next leapfrog is the whole step, on the way forth."""
    return (stride.level == 0) & (stride.check == 0)


def share(stride: Stride, kind) -> jax.Array:
    """How much of the step the next leapfrog is; less than 0 on the way back."""
    return jnp.where(stride.check > 0, -1.0, 1.0).astype(kind) / _parts(stride).astype(kind)


def _parts(stride: Stride) -> jax.Array:
    return 1 << 2 * jnp.where(stride.check > 0, stride.check - 1, stride.level)


def onward(stride: Stride, new: Point, r) -> tuple[Point, Any, Stride, Any, Fails]:
    """What a leapfrog that ends at `new` with momentum r makes of a step.

    Returns the point and momentum where it lands or, under way, where the next leapfrog begins; the
    step; whether it lands; and how it fails.
    """
    checking = stride.check > 0
    over = stride.part + 1 == _parts(stride)
    begin, end = (stride.begin, stride.begin_r), (stride.end, stride.end_r)
    origin = choose(checking, end, begin)
    good = over & (jnp.abs(energy(new, r) - energy(*origin)) <= TOLERANCE)  # not where NaN
    bad = over & ~good
    last = jnp.where(checking, stride.check == stride.level, stride.level == LEVELS)
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
    return at, at_r, after, lands, Fails(bad & last & ~checking, good & checking)


def choose(condition, one, other):
    """Select between two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
