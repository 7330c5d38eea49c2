"""NUTS for many chains at once: every tick is one leapfrog, or one jump, of every chain.

The No-U-Turn Sampler (Hoffman & Gelman 2014; multinomial weights and the generalised U-turn of
Betancourt 2017; the tree without recursion of Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554) as
a state machine. A chain that ends a trajectory begins its next one in the same tick, whatever the
others do: nobody waits for the longest tree, on SIMD lanes as on a GPU. A tick holds one gradient,
so that is all there is to compile. A step takes more leapfrogs where one is not accurate: see
`strides`.

Momenta are standard normal in whitened coordinates: with S = L L' the estimated covariance of the
posterior in sampling coordinates q, velocities are L r, which is NUTS with the dense mass matrix
S^-1. Pure functions of one lane; `advance` maps them over lanes (studies, chains), but for a lane
alone: unmapped, a branch that is not taken costs nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random

from bayesicl.jumps import Mixture
from bayesicl.lanes import Chance, Lane, Luck, Point, StepSize, Tree, choose, stride_from
from bayesicl.special import two_uniforms
from bayesicl.strides import energy, first_try, lands_at_once, onward, share

Fn = Callable[..., tuple[jax.Array, jax.Array]]  # potential and gradient at q, (d,)

CHUNK = 500  # transitions in one call of the compiled sampler
JUMPS = 2  # after each trajectory
UNROLLED = 16  # lanes: for more, rows are scattered, which is slow on CPU but right on a GPU
STATISTICS = (
    "lp", "energy", "diverging", "no_way_back", "n_steps", "tree_depth", "acceptance_rate",
    "step_size",
)  # fmt: skip


def _begin(lane: Lane, point: Point, luck: Luck) -> Lane:
    """A new trajectory from a point."""
    r = luck.momentum
    zero, none = jnp.zeros_like(point.potential), jnp.int32(0)
    twice = lambda x: jnp.stack([x, x])  # noqa: E731
    return lane._replace(
        at=point, r=r, stride=stride_from(point, r), ends=jax.tree.map(twice, point),
        ends_r=twice(r), tree=Tree(point, zero, r),
        sub=Tree(point, zero - jnp.inf, jnp.zeros_like(r)), leaf=none, depth=none,
        rightward=(luck.bits & 1).astype(bool), energy=energy(point, r), accepted=zero, tried=none,
        n_steps=none, jumping=none,
    )  # fmt: skip


def _turns(r_one, r_other, rho) -> jax.Array:
    """A stretch of trajectory between two momenta has turned: at each its sum points back."""
    middle = rho - 0.5 * (r_one + r_other)
    return (jnp.sum(r_one * middle, -1) <= 0) | (jnp.sum(r_other * middle, -1) <= 0)


def _tick(
    lane: Lane, luck: Luck, fn: Fn, chol, chance: Chance, mixture: Mixture | None
) -> tuple[Lane, Any]:
    """One leapfrog or jump, and whatever it completes. luck: of all transitions of the call.

    Returns the chain and its row of the record, which counts when `i` has moved on. What few ticks
    need stands in branches: one lane skips it, of many lanes mapped at once all compute it.
    """
    kind = lane.r.dtype
    step = jnp.exp(lane.step.log_step)
    h = jnp.where(lane.rightward, step, -step) * share(lane.stride, kind)
    back = lambda gradient: jnp.sum(chol * gradient[:, None], axis=0)  # noqa: E731 (L' g)
    r = lane.r - 0.5 * h * back(lane.at.gradient)
    q = lane.at.q + h * jnp.sum(chol * r, axis=1)
    if mixture is not None:  # a lane that jumps stands at the place proposed
        q = jnp.where(lane.jumping > 0, lane.at.q, q)
    new = Point(q, *fn(q))
    r = r - 0.5 * h * back(new.gradient)
    u_leaf, u_merge = two_uniforms(lane.key, lane.ticks, kind)
    lane = lane._replace(ticks=lane.ticks + 1)
    grow = lambda lane: _grow(lane, new, r, luck.bits[lane.i], u_leaf, u_merge)  # noqa: E731
    if mixture is None:
        lane, stops = grow(lane)
    else:
        yes = jnp.asarray(True)
        land = lambda lane: (_land(lane, new, luck.jump_log_density, mixture, u_merge), yes)  # noqa: E731
        lane, stops = lax.cond(lane.jumping > 0, land, grow, lane)
    rate = lane.accepted / lane.tried
    chosen = lane.tree.proposal
    how = [lane.diverged, lane.no_way_back, lane.n_steps, lane.depth]
    row = [-chosen.potential, lane.energy, *how, rate, step]
    row = jnp.concatenate([chosen.q, jnp.stack([jnp.asarray(x, kind) for x in row])])

    def begin(lane: Lane) -> Lane:
        adapted = choose(chance.adapt, _adapt(lane.step, chance.target - rate), lane.step)
        own = jax.tree.map(lambda x: x[lane.i + 1], luck)
        return _begin(lane._replace(step=adapted, i=lane.i + 1), lane.tree.proposal, own)

    def jump(lane: Lane) -> Lane:
        at = lane.at._replace(q=luck.jump[lane.i, lane.jumping])
        return lane._replace(at=at, jumping=lane.jumping + 1)

    def go_on(lane: Lane) -> Lane:
        return lax.cond(lane.jumping == JUMPS, begin, jump, lane)

    after = begin if mixture is None else go_on
    return lax.cond(stops, after, lambda lane: lane, lane), row


def _grow(lane: Lane, new: Point, r, bits, u_leaf, u_merge) -> tuple[Lane, Any]:
    """The chain after a leapfrog to `new` with momentum r, and whether its trajectory is done."""
    at_once = lands_at_once(lane.stride, new, r)
    accepted = jnp.minimum(1.0, jnp.exp(lane.energy - energy(new, r)))
    lane = lane._replace(
        accepted=lane.accepted + jnp.where(at_once, accepted, 0.0),
        tried=lane.tried + first_try(lane.stride),
        n_steps=lane.n_steps + 1,
    )
    yes, no = jnp.asarray(True), jnp.asarray(False)
    whole = lambda: (new, r, lane.stride, yes, no, no)  # noqa: E731
    parts = lambda: onward(lane.stride, new, r)  # noqa: E731
    new, r, stride, lands, no_way_back, diverges = lax.cond(at_once, whole, parts)
    lane = lane._replace(diverged=diverges, no_way_back=no_way_back)
    leaf = lambda lane: _leaf(lane, new, r, lands, bits, u_leaf, u_merge)  # noqa: E731
    under_way = lambda lane: (lane._replace(at=new, r=r, stride=stride), no)  # noqa: E731
    return lax.cond(lands | no_way_back | diverges, leaf, under_way, lane)


def _leaf(lane: Lane, new: Point, r, lands, bits, u_leaf, u_merge) -> tuple[Lane, Any]:
    """The growing half takes in a stride that lands at `new`, or fails."""
    error = jnp.where(lands, energy(new, r) - lane.energy, jnp.inf)
    weight, rho = jnp.logaddexp(lane.sub.log_weight, -error), lane.sub.rho + r
    proposal = choose(jnp.log(u_leaf) < -error - weight, new, lane.sub.proposal)
    n = lane.leaf
    top = lax.population_count(n >> 1)  # corners that subtrees of this half have open
    last = (n & 1).astype(bool)  # of one subtree or more: each is checked from its first corner
    lowest = top - lax.population_count(n ^ (n + 1)) + 2
    corner = jnp.arange(lane.corners_r.shape[0])
    put = ((corner == top) & ~last)[:, None]
    corners_r = jnp.where(put, r, lane.corners_r)
    corners_rho = jnp.where(put, rho, lane.corners_rho)
    checked = (corner >= lowest) & (corner <= top) & last
    turned = jnp.any(checked & _turns(corners_r, r, rho - corners_rho + corners_r))
    stopped = turned | ~lands
    lane = lane._replace(
        at=new, r=r, stride=stride_from(new, r), sub=Tree(proposal, weight, rho), leaf=n + 1,
        corners_r=corners_r, corners_rho=corners_rho,
    )  # fmt: skip
    complete = (n + 1 == 1 << lane.depth) & ~stopped
    join = lambda lane: _join(lane, bits, u_merge)  # noqa: E731
    return lax.cond(complete, join, lambda lane: (lane, stopped), lane)


def _join(lane: Lane, bits, u_merge) -> tuple[Lane, Any]:
    """The half that is complete joins the trajectory, which doubles, and may be done."""
    sub, tree = lane.sub, lane.tree
    swap = jnp.log(u_merge) < sub.log_weight - tree.log_weight
    joint = Tree(
        choose(swap, sub.proposal, tree.proposal),
        jnp.logaddexp(tree.log_weight, sub.log_weight),
        tree.rho + sub.rho,
    )
    side = jnp.arange(2) == lane.rightward.astype(int)
    put_end = lambda old, x: jnp.where(side.reshape(2, *[1] * x.ndim), x, old)  # noqa: E731
    ends, ends_r = jax.tree.map(put_end, (lane.ends, lane.ends_r), (lane.at, lane.r))
    depth = lane.depth + 1
    done = _turns(ends_r[0], ends_r[1], joint.rho) | (depth >= lane.corners_r.shape[0])
    rightward = ((bits >> depth.astype(jnp.uint32)) & 1).astype(bool)
    end = lambda both: jnp.where(rightward, both[1], both[0])  # noqa: E731
    at, r = jax.tree.map(end, (ends, ends_r))
    empty = Tree(sub.proposal, jnp.full_like(sub.log_weight, -jnp.inf), jnp.zeros_like(sub.rho))
    lane = lane._replace(
        at=at, r=r, stride=stride_from(at, r), ends=ends, ends_r=ends_r, tree=joint, sub=empty,
        leaf=jnp.zeros_like(lane.leaf), depth=depth, rightward=rightward,
    )  # fmt: skip
    return lane, done


def _land(lane: Lane, new: Point, log_density, mixture: Mixture, u) -> Lane:
    """A chain that has jumped to `new` stays there, or goes back to where it was.

    Every trajectory is followed by JUMPS Metropolis proposals drawn from `mixture`. NUTS is slow
    along bent ridges and does not cross from one mode to another; an independence proposal does
    (Tierney 1994, "Markov chains for exploring posterior distributions"). The mixture is fixed
    beforehand, so the posterior stays the chain's equilibrium. Each proposal's potential takes a
    tick of its own, after the trajectory is done.
    """
    here = lane.tree.proposal
    log_ratio = here.potential - new.potential - log_density[lane.i, lane.jumping - 1]
    accept = jnp.log(u) < log_ratio + mixture.log_density(here.q)
    proposal = choose(accept, new, here)
    return lane._replace(tree=lane.tree._replace(proposal=proposal))


def _adapt(step: StepSize, shortfall) -> StepSize:
    count = step.count + 1.0
    error = (1.0 - 1.0 / (count + 10.0)) * step.error + shortfall / (count + 10.0)
    log_step = step.centre - jnp.sqrt(count) / 0.05 * error
    new = count**-0.75
    average = new * log_step + (1 - new) * step.log_average
    return StepSize(log_step, average, error, count, step.centre)


def _fortune(key, chains: int, d: int, kind, mixture: Mixture | None) -> Luck:
    """All that one call can need of chance, for the chains of a study: (chains, CHUNK + 1, ...)."""
    k_momentum, k_bits, k_jump = random.split(key, 3)
    shape = (chains, CHUNK + 1)
    momentum = random.normal(k_momentum, (*shape, d), kind)
    bits = random.bits(k_bits, shape, jnp.uint32)
    jump = (None, None) if mixture is None else mixture.draw(k_jump, (*shape, JUMPS))
    return Luck(momentum, bits, *jump)


def advance(
    lanes: Lane, n, keys, chance: Chance, mixture: Mixture | None, chol, data, *, fn: Fn
) -> tuple[Lane, jax.Array]:
    """`n` <= CHUNK transitions of every chain: where they stand, and what each transition drew.

    lanes: (studies, chains, ...). keys, chance, mixture, chol (d, d), data: (studies, ...).
    fn(data, q): potential and gradient. The record is (studies, chains, CHUNK + 1, d +
    len(STATISTICS)), of which n rows count: q, then the statistics.
    """
    studies, chains, d = lanes.r.shape
    kind = lanes.r.dtype
    luck = jax.vmap(lambda key, m: _fortune(key, chains, d, kind, m))(keys, mixture)
    # The last row is for chains that wait for others.
    record = jnp.zeros((studies, chains, CHUNK + 1, d + len(STATISTICS)), kind)
    of_study = (chance, chol, mixture, data)

    def begin(lane, luck):
        lane = lane._replace(i=jnp.zeros_like(lane.i))
        return _begin(lane, lane.tree.proposal, jax.tree.map(lambda x: x[0], luck))

    def move(lane, luck, chance, chol, mixture, data):
        return _tick(lane, luck, lambda q: fn(data, q), chol, chance, mixture)

    if studies * chains == 1:  # not mapped: branches are branches
        lane, luck, record = jax.tree.map(lambda x: x[0, 0], (lanes, luck, record))
        own = jax.tree.map(lambda x: x[0], of_study)

        def tick_one(carry):
            lane, record = carry
            moved, row = move(lane, luck, *own)
            return moved, lax.dynamic_update_slice(record, row[None], (lane.i, jnp.int32(0)))

        under_way = lambda carry: carry[0].i < n  # noqa: E731
        done = lax.while_loop(under_way, tick_one, (begin(lane, luck), record))
        return jax.tree.map(lambda x: x[None, None], done)

    each = jax.vmap(jax.vmap(move, in_axes=(0, 0, None, None, None, None)))

    def tick(carry):
        lanes, record = carry
        moved, row = each(lanes, luck, *of_study)
        record = _write(record, row, lanes.i)
        return jax.vmap(jax.vmap(choose))(lanes.i < n, moved, lanes), record

    lanes = jax.vmap(jax.vmap(begin))(lanes, luck)
    return lax.while_loop(lambda carry: jnp.any(carry[0].i < n), tick, (lanes, record))


def _write(record, row, i):
    """Every chain's row at its place i; a transition's last word stands."""
    studies, chains = i.shape
    if studies * chains > UNROLLED:
        return record.at[jnp.arange(studies)[:, None], jnp.arange(chains), i].set(row, mode="drop")
    for s in range(studies):
        for c in range(chains):
            at = [jnp.int32(x) for x in (s, c, i[s, c], 0)]
            record = lax.dynamic_update_slice(record, row[s, c][None, None, None], at)
    return record
