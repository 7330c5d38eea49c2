"""NUTS for many chains at once: every tick is one leapfrog, or one jump, of every chain.

The No-U-Turn Sampler (Hoffman & Gelman 2014; multinomial weights and the generalised U-turn of
Betancourt 2017; the tree without recursion of Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554) as
a state machine. A chain that ends a trajectory begins its next one in the same tick, whatever the
others do: nobody waits for the longest tree, on SIMD lanes as on a GPU. A tick holds one gradient,
so that is all there is to compile.

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
from bayesicl.lanes import Chance, Lane, Luck, Point, StepSize, Tree, choose
from bayesicl.special import two_uniforms

Fn = Callable[..., tuple[jax.Array, jax.Array]]  # potential and gradient at q, (d,)

CHUNK = 500  # transitions in one call of the compiled sampler
JUMPS = 2  # after each trajectory
MAX_ERROR = 1000.0  # nats of energy: beyond, a trajectory has diverged
UNROLLED = 16  # lanes: for more, rows are scattered, which is slow on CPU but right on a GPU
STATISTICS = ("lp", "energy", "diverging", "n_steps", "acceptance_rate", "step_size")


def _begin(lane: Lane, point: Point, luck: Luck) -> Lane:
    """A new trajectory from a point."""
    r = luck.momentum
    zero = jnp.zeros_like(point.potential)
    return lane._replace(
        at=point, r=r, ends_q=jnp.stack([point.q, point.q]), ends_r=jnp.stack([r, r]),
        ends_gradient=jnp.stack([point.gradient, point.gradient]), tree=Tree(point, zero, r),
        sub=Tree(point, zero - jnp.inf, jnp.zeros_like(r)), leaf=jnp.int32(0), depth=jnp.int32(0),
        rightward=(luck.bits & 1).astype(bool), energy=point.potential + 0.5 * jnp.sum(r * r),
        accepted=zero, n_steps=jnp.int32(0), jumping=jnp.int32(0),
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
    h = jnp.where(lane.rightward, step, -step)
    back = lambda gradient: jnp.sum(chol * gradient[:, None], axis=0)  # noqa: E731 (L' g)
    r = lane.r - 0.5 * h * back(lane.at.gradient)
    q = lane.at.q + h * jnp.sum(chol * r, axis=1)
    if mixture is not None:  # a lane that jumps stands at the place proposed
        q = jnp.where(lane.jumping > 0, lane.at.q, q)
    potential, gradient = fn(q)
    new = Point(q, potential, gradient)
    r = r - 0.5 * h * back(gradient)
    error = potential + 0.5 * jnp.sum(r * r) - lane.energy
    error = jnp.where(jnp.isnan(error), jnp.inf, error)
    diverging = error > MAX_ERROR
    u_leaf, u_merge = two_uniforms(lane.key, lane.ticks, kind)
    accepted, n_steps = lane.accepted + jnp.minimum(1.0, jnp.exp(-error)), lane.n_steps + 1

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
    stopped = turned | diverging

    # A complete half joins the trajectory, which doubles.
    joins = (n + 1 == 1 << lane.depth) & ~stopped
    swap = joins & (jnp.log(u_merge) < weight - lane.tree.log_weight)
    chosen = choose(swap, proposal, lane.tree.proposal)
    whole_weight = jnp.logaddexp(lane.tree.log_weight, weight)
    whole_rho = lane.tree.rho + rho
    side = ((jnp.arange(2) == lane.rightward.astype(int)) & joins)[:, None]
    ends_q = jnp.where(side, q, lane.ends_q)
    ends_r = jnp.where(side, r, lane.ends_r)
    ends_gradient = jnp.where(side, gradient, lane.ends_gradient)
    depth = lane.depth + joins
    turned = _turns(ends_r[0], ends_r[1], whole_rho) | (depth >= lane.corners_r.shape[0])
    done = stopped | (joins & turned)
    flip = ((luck.bits >> depth.astype(jnp.uint32)) & 1).astype(bool)
    rightward = jnp.where(joins, flip, lane.rightward)
    end = lambda both: jnp.where(rightward, both[1], both[0])  # noqa: E731
    grown = lane._replace(
        at=choose(joins, Point(end(ends_q), potential, end(ends_gradient)), new),
        r=jnp.where(joins, end(ends_r), r), ends_q=ends_q, ends_r=ends_r,
        ends_gradient=ends_gradient,
        tree=Tree(
            chosen,
            jnp.where(joins, whole_weight, lane.tree.log_weight),
            jnp.where(joins, whole_rho, lane.tree.rho),
        ),
        sub=Tree(proposal, jnp.where(joins, -jnp.inf, weight), jnp.where(joins, 0.0, rho)),
        leaf=jnp.where(joins, 0, n + 1), depth=depth, rightward=rightward, corners_r=corners_r,
        corners_rho=corners_rho, accepted=accepted, n_steps=n_steps, diverged=diverging,
    )  # fmt: skip

    if mixture is not None:
        grown, chosen, done = _jump(lane, grown, new, done, luck, mixture, u_merge)
    rate = grown.accepted / jnp.maximum(grown.n_steps, 1)
    row = [-chosen.potential, lane.energy, grown.diverged, grown.n_steps, rate, step]
    row = jnp.concatenate([chosen.q, jnp.stack([jnp.asarray(x, kind) for x in row])])
    adapted = choose(chance.adapt, _adapt(lane.step, chance.target - rate), lane.step)
    fresh = _begin(grown._replace(step=adapted, i=lane.i + 1), chosen, luck)
    return choose(done, fresh, grown)._replace(ticks=lane.ticks + 1), row


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
        return each(lambda go, a, b: choose(go, a, b))(lanes.i < n, moved, lanes), record

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
