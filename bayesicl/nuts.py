"""NUTS for many chains at once: every tick is one leapfrog, or one jump, of every chain.

The No-U-Turn Sampler (Hoffman & Gelman 2014; multinomial weights and the generalised U-turn of
Betancourt 2017; the tree without recursion of Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554) as
a state machine. A chain that ends a trajectory begins its next one in the same tick, whatever the
others do: nobody waits for the longest tree, on SIMD lanes as on a GPU. A tick holds one gradient,
so that is all there is to compile. A step takes more leapfrogs where one is not accurate: see
`strides`.

Momenta are standard normal in whitened coordinates: with S = L L' the estimated covariance of the
posterior in sampling coordinates q, velocities are L r, which is NUTS with the dense mass matrix
S^-1. Pure functions of one lane; `advance` maps them over lanes (studies, chains).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random

from bayesicl.jumps import Mixture
from bayesicl.lanes import Chance, Lane, Luck, Point, StepSize, Tree, choose, stride_from
from bayesicl.special import two_uniforms
from bayesicl.strides import energy, first_try, onward, share

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


def _tick(lane: Lane, luck: Luck, fn: Fn, chol, chance: Chance, mixture) -> tuple[Lane, Any]:
    """One leapfrog, and whatever it completes. luck: of the next transition.

    Returns the chain and its row of the record, which counts when `i` has moved on.
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
    grown, done = _grow(lane, new, r, luck.bits, u_leaf, u_merge)
    chosen = grown.tree.proposal
    if mixture is not None:
        grown, chosen, done = _jump(lane, grown, new, done, luck, mixture, u_merge)
    rate = grown.accepted / grown.tried
    how = [grown.diverged, grown.no_way_back, grown.n_steps, grown.depth]
    row = [-chosen.potential, lane.energy, *how, rate, step]
    row = jnp.concatenate([chosen.q, jnp.stack([jnp.asarray(x, kind) for x in row])])
    adapted = choose(chance.adapt, _adapt(lane.step, chance.target - rate), lane.step)
    fresh = _begin(grown._replace(step=adapted, i=lane.i + 1), chosen, luck)
    return choose(done, fresh, grown)._replace(ticks=lane.ticks + 1), row


def _grow(lane: Lane, new: Point, r, bits, u_leaf, u_merge) -> tuple[Lane, Any]:
    """The chain after a leapfrog to `new` with momentum r, and whether its trajectory is done."""
    first = first_try(lane.stride)
    accepted = jnp.minimum(1.0, jnp.exp(lane.energy - energy(new, r)))
    new, r, stride, lands, no_way_back, diverges = onward(lane.stride, new, r)
    lane = lane._replace(
        accepted=lane.accepted + jnp.where(first & lands, accepted, 0.0),
        tried=lane.tried + first,
        n_steps=lane.n_steps + 1,
    )
    error = jnp.where(lands, energy(new, r) - lane.energy, jnp.inf)

    # The growing half takes the leaf in.
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

    # A complete half joins the trajectory, which doubles.
    joins = (n + 1 == 1 << lane.depth) & ~stopped
    swap = joins & (jnp.log(u_merge) < weight - lane.tree.log_weight)
    chosen = choose(swap, proposal, lane.tree.proposal)
    joint_weight = jnp.logaddexp(lane.tree.log_weight, weight)
    joint_rho = lane.tree.rho + rho
    side = (jnp.arange(2) == lane.rightward.astype(int)) & joins
    put_end = lambda old, x: jnp.where(side.reshape(2, *[1] * x.ndim), x, old)  # noqa: E731
    ends, ends_r = jax.tree.map(put_end, (lane.ends, lane.ends_r), (new, r))
    depth = lane.depth + joins
    complete = _turns(ends_r[0], ends_r[1], joint_rho) | (depth >= lane.corners_r.shape[0])
    done = stopped | (joins & complete)
    flip = ((bits >> depth.astype(jnp.uint32)) & 1).astype(bool)
    rightward = jnp.where(joins, flip, lane.rightward)
    end = jax.tree.map(lambda both: jnp.where(rightward, both[1], both[0]), (ends, ends_r))
    at, at_r = choose(joins, end, (new, r))
    grown = lane._replace(
        at=at, r=at_r, stride=stride_from(at, at_r), ends=ends, ends_r=ends_r,
        tree=Tree(
            chosen,
            jnp.where(joins, joint_weight, lane.tree.log_weight),
            jnp.where(joins, joint_rho, lane.tree.rho),
        ),
        sub=Tree(proposal, jnp.where(joins, -jnp.inf, weight), jnp.where(joins, 0.0, rho)),
        leaf=jnp.where(joins, 0, n + 1), depth=depth, rightward=rightward, corners_r=corners_r,
        corners_rho=corners_rho, diverged=diverges,
        no_way_back=no_way_back,
    )  # fmt: skip
    ends_here = lands | no_way_back | diverges
    under_way = lane._replace(at=new, r=r, stride=stride)
    return choose(ends_here, grown, under_way), done & ends_here


def _jump(lane: Lane, grown: Lane, new: Point, done, luck: Luck, mixture: Mixture, u):
    """Follow every trajectory by JUMPS Metropolis proposals drawn from `mixture`.

    NUTS is slow along bent ridges and does not cross from one mode to another; an independence
    proposal does (Tierney 1994, "Markov chains for exploring posterior distributions"). The mixture
    is fixed beforehand, so the posterior stays the chain's equilibrium. Each proposal's potential
    takes a tick of its own, after the trajectory is done.
    """
    proposed = jnp.arange(JUMPS) == lane.jumping - 1
    log_density = jnp.sum(jnp.where(proposed, luck.jump_log_density, 0.0))
    here = lane.tree.proposal
    log_ratio = here.potential - new.potential - log_density
    accept = jnp.log(u) < log_ratio + mixture.log_density(here.q)
    landed = lane._replace(tree=lane.tree._replace(proposal=choose(accept, new, here)))
    after = choose(lane.jumping > 0, landed, grown)
    over = lane.jumping == JUMPS
    due = ~over & (done | (lane.jumping > 0))
    at = jnp.sum(jnp.where((jnp.arange(JUMPS) == lane.jumping)[:, None], luck.jump, 0.0), axis=0)
    at = after.at._replace(q=jnp.where(due, at, after.at.q))
    after = after._replace(at=at, jumping=jnp.where(due, lane.jumping + 1, 0))
    return after, after.tree.proposal, over


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
    pick = jax.vmap(jax.vmap(lambda all_luck, i: jax.tree.map(lambda x: x[i], all_luck)))
    each = lambda f: jax.vmap(jax.vmap(f))  # noqa: E731

    def study(lanes, luck, chance, chol, mixture, data):
        one = lambda lane, luck: _tick(lane, luck, lambda q: fn(data, q), chol, chance, mixture)  # noqa: E731
        return jax.vmap(one)(lanes, luck)

    def tick(carry):
        lanes, record = carry
        moved, row = jax.vmap(study)(lanes, pick(luck, lanes.i + 1), chance, chol, mixture, data)
        record = _write(record, row, lanes.i)
        alone = lanes.i.size == 1  # waits for none
        return moved if alone else each(choose)(lanes.i < n, moved, lanes), record

    lanes = lanes._replace(i=jnp.zeros_like(lanes.i))
    lanes = each(lambda lane, luck: _begin(lane, lane.tree.proposal, luck))(
        lanes, pick(luck, lanes.i)
    )
    # The last row is for chains that wait for others.
    record = jnp.zeros((studies, chains, CHUNK + 1, d + len(STATISTICS)), kind)
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
