"""What laws share: the simplex pi, bounded probabilities, evidence that is discounted."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    ComposeTransform,
    ParameterFreeTransform,
    StickBreakingTransform,
    biject_to,
)

from bayesicl.law import Design


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


class LogOdds(dist.Distribution):
    """The log-odds of a probability that is Beta(1/2, 1/2)."""

    support = constraints.real  # pyright: ignore

    def sample(self, key, sample_shape=()):
        """Draw from the prior."""
        return jax.scipy.special.logit(dist.Beta(0.5, 0.5).sample(key, sample_shape))

    def log_prob(self, value):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log density of `value`, a hyperbolic secant."""
        return -0.5 * (jax.nn.softplus(value) + jax.nn.softplus(-value)) - jnp.log(jnp.pi)


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
