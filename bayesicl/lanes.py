"""What a chain of the sampler is between two leapfrogs: plain arrays, of one lane."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random


class Point(NamedTuple):
    """A place in sampling coordinates. q, gradient: (d,). potential: ()."""

    q: Any
    potential: Any
    gradient: Any


class Stride(NamedTuple):
    """A step of a trajectory, in 4^level leapfrogs; see `strides`.

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


class Tree(NamedTuple):
    """Part of a trajectory. proposal: its point. log_weight: (). rho: (d,), sum of momenta."""

    proposal: Point
    log_weight: Any
    rho: Any


class StepSize(NamedTuple):
    """Dual averaging of the log step size (Hoffman & Gelman 2014, section 3.2)."""

    log_step: Any
    log_average: Any
    error: Any
    count: Any
    centre: Any


class Lane(NamedTuple):
    """One chain between two leapfrogs.

    key: (2,) uint32. ticks: leapfrogs and jumps so far. i: transitions done in this call. at, r:
    where the next leapfrog begins, and the momentum there. stride: which it is part of. ends,
    ends_r: the trajectory's (left, right). tree: the trajectory. sub: the half that grows. leaf:
    strides in it; 2^depth complete it. corners_r, corners_rho: (D, d), momenta and their sums where
    subtrees began. energy: at the trajectory's begin. tried: strides begun, each in one leapfrog at
    first; accepted: sum of the acceptance probabilities of those first tries, 0 where split.
    diverged, no_way_back: how the last stride failed. jumping: which jump after the trajectory is
    under way, from 1; 0 for none.
    """

    key: Any
    ticks: Any
    i: Any
    at: Point
    r: Any
    stride: Stride
    ends: Point
    ends_r: Any
    tree: Tree
    sub: Tree
    leaf: Any
    depth: Any
    rightward: Any
    corners_r: Any
    corners_rho: Any
    energy: Any
    accepted: Any
    tried: Any
    n_steps: Any
    diverged: Any
    no_way_back: Any
    jumping: Any
    step: StepSize


class Luck(NamedTuple):
    """What a transition needs of chance. momentum: (d,). bits: uint32, one direction a doubling.

    jump: (JUMPS, d), places to jump to, and jump_log_density there; None without jumps.
    """

    momentum: Any
    bits: Any
    jump: Any = None
    jump_log_density: Any = None


class Chance(NamedTuple):
    """How to run: target acceptance, and whether the step size is adapted."""

    target: Any
    adapt: Any


def stand(key: jax.Array, point: Point, max_tree_depth: int) -> Lane:
    """A chain that stands at a point and has not yet begun a trajectory."""
    d, kind = point.q.shape[0], point.q.dtype
    zero, nothing, none = jnp.zeros((), kind), jnp.zeros(d, kind), jnp.int32(0)
    no = jnp.asarray(False)
    ends, corners = jnp.zeros((2, d), kind), jnp.zeros((max_tree_depth, d), kind)
    tree = Tree(point, zero, nothing)
    return Lane(
        key=random.bits(key, (2,), jnp.uint32), ticks=jnp.uint32(0), i=none, at=point, r=nothing,
        stride=stride_from(point, nothing), ends=Point(ends, jnp.zeros(2, kind), ends), ends_r=ends,
        tree=tree, sub=tree, leaf=none, depth=none, rightward=no,
        corners_r=corners, corners_rho=corners, energy=zero, accepted=zero, tried=none,
        n_steps=none, diverged=no, no_way_back=no, jumping=none,
        step=StepSize(zero, zero, zero, zero, zero),
    )  # fmt: skip


def stride_from(point: Point, r) -> Stride:
    """A stride that has not begun, in one leapfrog."""
    none = jnp.int32(0)
    return Stride(point, r, point, r, none, none, none)


def with_step(lane: Lane, log_step) -> Lane:
    """The chain with this step size, from which adaptation begins anew."""
    log_step = jnp.asarray(log_step, lane.r.dtype)
    zero = jnp.zeros_like(log_step)
    return lane._replace(step=StepSize(log_step, log_step, zero, zero, log_step + jnp.log(2.0)))


def choose(condition, one, other):
    """Select between two trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
