"""What laws share: the simplex pi, bounded probabilities, and coordinates that the data see."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import log_sigmoid
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    ComposeTransform,
    ParameterFreeTransform,
    StickBreakingTransform,
    biject_to,
)

from bayesicl.law import Design, Sites

FLOOR = 0.2  # nats: flat curves leave log(gamma / beta) free to vanish, and K with the prior
TAIL = 4.0  # beyond, exponential tails are shortened
WALL = 4.0  # nats about the end of a rise at the longest shots, in which it is a wall
BEND = 4.0  # nats: of steeper falls the logarithm counts, in which their priors have tails


def hypotheses(design: Design) -> numpyro.plate:
    """The plate of the observed hypotheses: one entry a curve."""
    return numpyro.plate("hypothesis", design.n_hypotheses)


def simplex(design: Design, concentration: float) -> jax.Array:
    """Sample pi, shape (M,): belief before the first demonstration, backgrounds last.

    A symmetric Dirichlet. Two or more backgrounds are exchangeable, so they are ordered by pi,
    the largest first.
    """
    weights = jnp.full(design.n_believed, concentration)
    prior = dist.Dirichlet(weights)
    if design.backgrounds >= 2:
        prior = OrderedDirichlet(weights, design.backgrounds)
    return jnp.asarray(numpyro.sample("pi", prior, infer={"event_dims": ["believed"]}))


class Below(dist.Distribution):
    """A probability that stays below `upper`: upper * Beta(a, b)."""

    arg_constraints = {"upper": constraints.unit_interval}  # noqa: RUF012 (NumPyro's contract)
    reparametrized_params = ["upper"]  # noqa: RUF012
    pytree_data_fields = ("upper",)
    pytree_aux_fields = ("a", "b")

    def __init__(self, upper, a: float, b: float, *, validate_args=None):
        """upper: any shape, in (0, 1]; a, b: the shape of the Beta, both > 0."""
        self.upper, self.a, self.b = upper, a, b
        super().__init__(jnp.shape(upper), (), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # pyright: ignore
    def support(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The open interval from 0 to `upper`."""
        return constraints.interval(0.0, self.upper)

    def sample(self, key, sample_shape=()):
        """Draw from the prior."""
        return self.upper * dist.Beta(self.a, self.b).sample(key, sample_shape + self.batch_shape)

    def log_prob(self, value):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log density of `value` given `upper`."""
        return dist.Beta(self.a, self.b).log_prob(value / self.upper) - jnp.log(self.upper)


class OrderedDirichlet(dist.Distribution):
    """A Dirichlet whose last `n` entries, exchangeable by their equal weights, are sorted."""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}  # noqa: RUF012
    pytree_data_fields = ("concentration",)
    pytree_aux_fields = ("n",)

    def __init__(self, concentration, n: int, *, validate_args=None):
        """concentration: (M,), > 0; n: in [2, M]."""
        self.concentration, self.n = concentration, n
        super().__init__((), jnp.shape(concentration), validate_args=validate_args)

    @property
    def support(self):
        """Simplexes whose last `n` entries fall."""
        return _OrderedTail(self.n)

    def sample(self, key, sample_shape=()):
        """Draw from the Dirichlet and sort."""
        x = dist.Dirichlet(self.concentration).sample(key, sample_shape)
        tail = jnp.sort(x[..., -self.n :], axis=-1)[..., ::-1]
        return jnp.concatenate([x[..., : -self.n], tail], axis=-1)

    def log_prob(self, value):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The Dirichlet's density, times the number of orders that give this one."""
        orders = jax.scipy.special.gammaln(self.n + 1.0)
        return dist.Dirichlet(self.concentration).log_prob(value) + orders


class _OrderTail(ParameterFreeTransform):
    """Order the last `n` entries of a simplex from large to small: v_k = sum_{j >= k} u_j / j.

    Linear, and one to one from the simplex onto its ordered part: how NUTS moves there.
    """

    domain = constraints.simplex  # pyright: ignore

    def __init__(self, n: int):
        self.n = n

    @property
    def codomain(self):
        return _OrderedTail(self.n)

    def __call__(self, x):
        tail = x[..., -self.n :] / jnp.arange(1, self.n + 1)
        return jnp.concatenate(
            [x[..., : -self.n], jnp.cumsum(tail[..., ::-1], axis=-1)[..., ::-1]], axis=-1
        )

    def _inverse(self, y):
        tail = y[..., -self.n :]
        below = jnp.concatenate([tail[..., 1:], jnp.zeros_like(tail[..., :1])], axis=-1)
        return jnp.concatenate(
            [y[..., : -self.n], (tail - below) * jnp.arange(1, self.n + 1)], axis=-1
        )

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.broadcast_to(-jax.scipy.special.gammaln(self.n + 1.0), jnp.shape(x)[:-1])

    def tree_flatten(self):
        return (), ((), {"n": self.n})

    def __eq__(self, other):
        return isinstance(other, _OrderTail) and self.n == other.n


class _OrderedTail(constraints.ParameterFreeConstraint):
    """Simplexes whose last `n` entries fall."""

    event_dim = 1

    def __init__(self, n: int):
        self.n = n

    def __call__(self, x):
        falls = jnp.all(jnp.diff(x[..., -self.n :], axis=-1) <= 1e-6, axis=-1)
        return constraints.simplex(x) & falls

    def feasible_like(self, prototype):
        return _OrderTail(self.n)(constraints.simplex.feasible_like(prototype))

    def tree_flatten(self):
        return (), ((), {"n": self.n})

    def __eq__(self, other):
        return isinstance(other, _OrderedTail) and self.n == other.n


@biject_to.register(_OrderedTail)
def _(constraint):
    return ComposeTransform([StickBreakingTransform(), _OrderTail(constraint.n)])


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
    a = gamma[:n]
    b, log_slope_b = shortened(pi[:n] - offset)
    s, log_slope_s = shortened(beta[:n])
    log_gamma = jnp.logaddexp(log_sigmoid(a), log_sigmoid(-a) + log_sigmoid(b))
    q = a - log_sigmoid(b)
    log_qs = log_sigmoid(q) + log_sigmoid(s)
    gamma = gamma.at[:n].set(log_gamma - log_sigmoid(-a) - log_sigmoid(-b))
    pi = pi.at[:n].set(q + log_sigmoid(-s) + offset)
    beta = beta.at[:n].set(log_qs - jnp.log(-jnp.expm1(log_qs)))
    evidence = jax.nn.softplus(-beta)  # log(gamma / beta)
    log_K, log_slope = rise_in_sight(design, k, q + log_sigmoid(-s), evidence[:n])
    return gamma, pi, beta, log_K, log_slope + jnp.sum(log_slope_b + log_slope_s)


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
    need = 1.0 + jax.nn.softplus(-1.0 - log_odds)
    n = longest(design)[: len(need)]
    scale = jnp.log(need) - jnp.log(n) - jnp.log(FLOOR + evidence)
    t, log_slope = narrowed(k, jnp.mean(need))
    return jnp.mean(scale) + t, log_slope


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


# -- discounted evidence --------------------------------------------------------------------------


def evidence(shots, discount):
    """Demonstrations that count as evidence, shots^(1 - discount); slopes are finite at 0 shots."""
    some = shots > 0
    return jnp.where(some, jnp.exp((1.0 - discount) * jnp.log(jnp.where(some, shots, 1.0))), 0.0)


def sample_discount() -> jax.Array:
    """Sample the discount of a study, in (0, 1): ()."""
    return jnp.asarray(numpyro.sample("discount", dist.Uniform(0.0, 1.0)))


def discounted(design: Design, discount) -> Design:
    """The design as a law sees it that counts evidence in the place of shots."""
    return replace(design, shots=evidence(design.shots, discount))


def of_discounted(coordinates):
    """The coordinates of a law for its discounted form; the discount is one of its own."""

    def moved(design: Design, w: Sites):
        return coordinates(discounted(design, jax.nn.sigmoid(w["discount"])), w)

    return moved
