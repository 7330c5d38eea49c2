"""Coordinates that the data see, in which NUTS mixes: bijections of the unconstrained space."""

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

from bayesicl.law import Design, Sites
from bayesicl.priors import discounted

FLOOR = 0.2  # nats: flat curves leave log(gamma / beta) free to vanish, and K with the prior
TAIL = 4.0  # beyond, exponential tails are shortened
WALL = 4.0  # nats about the end of a rise at the longest shots, in which it is a wall
BEND = 4.0  # nats: of steeper falls the logarithm counts, in which their priors have tails


def start_and_rate(design: Design, w: Sites) -> tuple[Sites, jax.Array]:
    """Coordinates for the scoring-wise law: value at 0 shots, gain, floor's share, rate.

    The data see p(0) = gamma (r + (1 - r) v), where r = beta/gamma and v is the stick of pi that
    belongs to the curve, then how far the curve rises, and how fast; pi, gamma, beta and K alone
    trade off along curved ridges. With the coordinates a, b', s' and k (real numbers), b and s the
    `shortened` b' and s',

        p(0) = sigmoid(a),    gamma = p(0) + (1 - p(0)) sigmoid(b),    q = p(0)/gamma,
        r = q sigmoid(s),    logit v = logit q + log sigmoid(-s),
        log K = rise_in_sight(k, logit v, log 1/r),

    where a curve without a stick of its own, the last without backgrounds, is left out. The map
    from (a, b, s) to (gamma, pi, beta) has determinant 1.
    """
    z = dict(w)
    z["gamma"], z["pi"], z["beta"], z["K"], log_det = starts(
        design, w["gamma"], w["pi"], w["beta"], w["K"]
    )
    return z, log_det


def starts(design: Design, gamma, pi, beta, k):
    """`start_and_rate` of arrays: gamma, beta (H,), pi (M - 1,), k (); and the log determinant."""
    n = min(design.n_hypotheses, design.n_believed - 1)  # the last of a full simplex has no stick
    # NumPyro's stick-breaking puts 0 at the centre of the simplex: undo it.
    offset = jnp.log(jnp.arange(design.n_believed - 1, 0, -1.0))[:n]
    own, odds, floor, log_det = start_gain_floor(gamma[:n], pi[:n] - offset, beta[:n])
    gamma = gamma.at[:n].set(own)
    pi = pi.at[:n].set(odds + offset)
    beta = beta.at[:n].set(floor)
    evidence = jax.nn.softplus(-beta)  # log(gamma / beta)
    log_K, log_slope = rise_in_sight(design, k, odds, evidence[:n])
    return gamma, pi, beta, log_K, log_slope + log_det


def start_gain_floor(a, b, s):
    """Log-odds of gamma, of the start's place between floor and ceiling, and of beta/gamma.

    From the coordinates a, b' and s' of `start_and_rate`; and the log determinant.
    """
    b, log_slope_b = shortened(b)
    s, log_slope_s = shortened(s)
    log_gamma, q = start_and_gain(a, b)
    log_qs = log_sigmoid(q) + log_sigmoid(s)
    floor = log_qs - jnp.log(-jnp.expm1(log_qs))
    return log_gamma, q + log_sigmoid(-s), floor, jnp.sum(log_slope_b + log_slope_s)


def start_and_gain(a, b):
    """Log-odds of gamma = p(0) + (1 - p(0)) sigmoid(b), and of p(0)/gamma, where p(0) = sigmoid(a).

    The determinant is 1.
    """
    log_gamma = jnp.logaddexp(log_sigmoid(a), log_sigmoid(-a) + log_sigmoid(b))
    return log_gamma - log_sigmoid(-a) - log_sigmoid(-b), a - log_sigmoid(b)


def shortened(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x(u), which is u near 0 and grows as u^2 far out, and the log of its slope.

    What the data leave open has exponential tails in x, a normal's in u.
    """
    r = jnp.sqrt(1.0 + (u / TAIL) ** 2)
    return u * r, jnp.log(2.0 * r - 1.0 / r)


def rise_in_sight(design: Design, k, log_odds, evidence) -> tuple[jax.Array, jax.Array]:
    """log K, from a coordinate of which the data see when the curves rise; and its log slope.

    log_odds, evidence: of each curve, its hypothesis against the rest before the first
    demonstration, and the nats that one demonstration counts where K is 1. With k = 0 the rise is
    over at the longest shots. There a late rise is a wall, the steeper the more nats it takes.
    """
    need = needed(log_odds)
    n = longest(design)[: len(need)]
    scale = jnp.log(need) - jnp.log(n) - jnp.log(FLOOR + evidence)
    t, log_slope = narrowed(k, jnp.mean(need))
    return jnp.mean(scale) + t, log_slope


def needed(log_odds):
    """Nats of evidence by which a rise from these log-odds is over, or nearly."""
    return 1.0 + jax.nn.softplus(-1.0 - log_odds)


def narrowed(m, steepness):
    """t(m), of slope 1/steepness for |m| < WALL and 1 far beyond; and the log of its slope."""
    less = 1.0 - 1.0 / steepness
    t = m / steepness + less * (jax.nn.softplus(m - WALL) - jax.nn.softplus(-m - WALL))
    slope = 1.0 / steepness + less * (jax.nn.sigmoid(m - WALL) + jax.nn.sigmoid(-m - WALL))
    return t, jnp.log(slope)


def start_and_end(w: Sites, drop: str, limit: str, shape: str):
    """Coordinates for y(n) = -log p(n) = drop f(n) + limit, where f falls from f(0) towards 0.

    The data see the values at the start and at the end; how much is still to come, they see least.
    With N the longest shots, ratio = f(N)/f(0), and the coordinates e, b, s (real numbers) in the
    places of drop, limit and shape,

        log y(N) = e,   y(N)/y(0) = sigmoid(b),   ratio = sigmoid(b) exp(-BEND sinh(x/BEND)),

    with x = softplus(-s), from which limit/y(0) follows. The law turns the ratio into its shape.

    Returns log(drop f(0)), log limit, log ratio, and the log determinant of the map from (e, b, s)
    to them.
    """
    e, b, s = w[drop], w[limit], w[shape]
    x = jax.nn.softplus(-s)
    t = BEND * jnp.sinh(x / BEND)
    log_rest = jnp.log(-jnp.expm1(-t))
    start = e - log_sigmoid(b)
    f = b + log_rest  # log-odds of limit/y(0)
    log_ratio = log_sigmoid(b) - t
    log_det = (
        jnp.log(-jnp.expm1(log_ratio)) + log_sigmoid(-s) + jnp.log(jnp.cosh(x / BEND)) - log_rest
    )
    return start + log_sigmoid(-f), start + log_sigmoid(f), log_ratio, log_det


def longest(design: Design) -> jax.Array:
    """Longest shots of each curve, at least 1: (H,)."""
    own = jnp.arange(design.n_hypotheses)[:, None] == design.hypothesis
    return jnp.max(jnp.where(own, jnp.maximum(design.shots, 1.0), 1.0), axis=-1)


def log_expm1(x: jax.Array) -> jax.Array:
    """log(exp(x) - 1) for x > 0, without overflow."""
    return x + jnp.log(-jnp.expm1(-x))


def of_discounted(coordinates):
    """The coordinates of a law for its discounted form; the discount is one of its own."""

    def moved(design: Design, w: Sites):
        return coordinates(discounted(design, jax.nn.sigmoid(w["discount"])), w)

    return moved
