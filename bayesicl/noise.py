"""How measured cells scatter around a law's mean curve.

A noise never sees which law drew the curve: it gets log p of every cell, the log of the law's mean,
and says how likely the cell's measured mean y is. All are one of two families:

- beta-binomial, for counts of one run;
- a normal distribution of the cell's mean with the variance taken at the law's mean p,
  y_i = p_i + sqrt(v_i) (l_i b + sqrt(D_i) e_i), where b is common to a curve. It is linear in the
  measured mean, so that skewed values of single prompts do not bend the curve. v is p (1 - p), in
  which p keeps a small distance from 0 and 1, or, where p is a mean nll, p^1.5 (`scale`).

Sizes are learned per curve. Where replicates show the spread directly, that spread is evidence
about the sizes alone (`spread`), never about the curve.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Design
from bayesicl.priors import hypotheses
from bayesicl.scale import MEAN_NLL, PROBABILITY, Scale
from bayesicl.special import log_rising

Arrays = Mapping[str, Any]
"""Of a study: y, total, replicates, se, fitted (cells,), and what `spread` needs."""


class Moments:
    """Normal noise of a study at given parameters: mean, independent sd and common loading."""

    def __init__(self, mean, v, D, load):
        """All (cells,); D and load in units of v and of its root."""
        self.mean = mean
        self.variance = D * v
        self.unit = jnp.sqrt(v)
        self.common = load * self.unit


def about_p(logp, D, load, least=0.0) -> Moments:
    """Moments of a mean probability: v is p(1 - p).

    least: the nearest to 0 and 1 that p counts for in it. Without it a few cells measured as
    exactly 0 or 1 would drive the variance, and p with it, to nothing.
    """
    p = jnp.exp(logp)
    least = jnp.maximum(least, jnp.finfo(p.dtype).eps)
    return Moments(p, (p + least) * (least - jnp.expm1(logp)) / (1.0 + 2.0 * least) ** 2, D, load)


def about_nll(logp, D) -> Moments:
    """Moments of a mean nll, of which log p is the logarithm; nothing is common to a curve."""
    mean = jnp.exp(logp)
    return Moments(mean, MEAN_NLL.variance(mean), D, jnp.zeros_like(mean))


@dataclass(frozen=True)
class Noise:
    """One way of scattering.

    name, summary: for tables. kinds: the kinds of study it suits. scale: what these measure.
    model(design, data): samples the sizes of the scatter; returns them, each (H,).
    moments(logp, sizes, design, data): Moments, or None for the beta-binomial family.
    source_hash: of a learned prior's file, or "".
    """

    name: str
    summary: str
    kinds: tuple[str, ...]
    model: Callable[[Design, Arrays], dict[str, Any]]
    moments: Callable[..., Moments] | None
    source_hash: str = ""
    scale: Scale = PROBABILITY

    def log_density(self, logp, sizes, design: Design, data: Arrays) -> jax.Array:
        """Log density of all fitted cells together: ()."""
        if self.moments is None:
            return jnp.sum(jnp.where(data["fitted"], _beta_binomial(logp, sizes, design, data), 0))
        m = self.moments(logp, sizes, design, data)
        seen = _common(m, design, data)
        z2 = (data["y"] - m.mean) ** 2 / m.variance + jnp.log(2 * jnp.pi * m.variance)
        separate = -0.5 * jnp.sum(jnp.where(data["fitted"], z2, 0.0))
        shared = 0.5 * (seen.pull**2 / seen.precision - jnp.log(seen.precision))
        return separate + jnp.sum(shared)

    def cell_log_density(self, logp, sizes, design: Design, data: Arrays) -> jax.Array:
        """Log density of each cell given the other fitted cells: (cells,)."""
        if self.moments is None:
            return _beta_binomial(logp, sizes, design, data)
        m = self.moments(logp, sizes, design, data)
        seen = _common(m, design, data)
        own = jnp.where(data["fitted"], 1.0, 0.0) * m.common / m.variance
        precision = design.per_cell(seen.precision) - own * m.common
        pull = design.per_cell(seen.pull) - own * (data["y"] - m.mean)
        mean = m.mean + m.common * pull / precision
        sd = jnp.sqrt(m.variance + m.common**2 / precision)
        return dist.Normal(mean, sd).log_prob(data["y"])

    def scatter(self, logp, sizes, design: Design, data: Arrays, *, seen=True) -> dict[str, Any]:
        """What `measure` draws new measurements of every cell from: (cells,) each.

        seen (bool): on the replicates of the fitted cells, of whose common shift the data tell
        something; otherwise on new ones.
        """
        if self.moments is None:
            a, b = _beta(logp, sizes, design)
            return {"a": a, "b": b}
        m = self.moments(logp, sizes, design, data)
        known = _common(m, design, data)
        shift = jnp.where(seen, known.pull / known.precision, 0.0)
        spread = jnp.where(seen, 1.0 / jnp.sqrt(known.precision), 1.0)
        return {
            "mean": m.mean + m.common * design.per_cell(shift),
            "sd": jnp.sqrt(m.variance),
            "common": m.common * design.per_cell(spread),
        }

    def measure(
        self,
        rng: np.random.Generator,
        scatter: Mapping[str, np.ndarray],
        design: Design,
        data: Arrays,
        *,
        cut: bool = True,
    ) -> dict[str, np.ndarray]:
        """New measurements y of every cell, of its own size: (..., cells), as means can be.

        scatter: from `scatter`, for any number of draws: (..., cells). cut: without it a normal may
        leave the scale, as the likelihood would have it. NumPy draws betas and binomials faster
        than JAX does. Beside y, `mean`: the mean curve, where that is not the law's alone.
        """
        if self.moments is None:
            total = np.asarray(data["total"]).astype(int)
            p = rng.beta(scatter["a"], scatter["b"])
            known = np.isfinite(p)  # one cell of one draw that overflows is no reason to stop
            count = rng.binomial(total, np.where(known, p, 0.0))
            return {"y": np.where(known, count / total, np.nan)}
        mean, sd, load = (scatter[name] for name in ("mean", "sd", "common"))
        common = rng.standard_normal((*mean.shape[:-1], design.n_hypotheses))
        y = mean + load * common[..., design.hypothesis] + sd * rng.standard_normal(mean.shape)
        return {"y": self.scale.cut(y) if cut else y}


@dataclass
class _Common:
    """Normal posterior of each curve's common shift b: precision and precision times mean."""

    precision: jax.Array
    pull: jax.Array


def _common(m: Moments, design: Design, data: Arrays) -> _Common:
    weight = jnp.where(data["fitted"], m.common / m.variance, 0.0)
    total = design.per_curve
    return _Common(1.0 + total(weight * m.common), total(weight * (data["y"] - m.mean)))


def _beta(logp, sizes, design: Design):
    tiny = jnp.finfo(jnp.result_type(float)).eps
    # Beyond this log-gammas cancel to a false mode; so little scatter is as good as none.
    scatter = jnp.maximum(sizes["scatter"], 1e-3 if tiny < 1e-10 else 1e-2)
    concentration = design.per_cell(1.0 / scatter**2 - 1.0)
    p = jnp.clip(jnp.exp(logp), tiny, 1.0)
    q = jnp.clip(-jnp.expm1(logp), tiny, 1.0)
    return p * concentration, q * concentration


def _beta_binomial(logp, sizes, design: Design, data: Arrays):
    a, b = _beta(logp, sizes, design)
    total, count = data["total"], jnp.round(data["y"] * data["total"])
    x = jnp.stack([a, b, a + b])
    rising = log_rising(x, jnp.stack([count, total - count, total]))
    return data["log_choices"] + rising[0] + rising[1] - rising[2]


def sample_scatter(design: Design, data: Arrays):
    """Of the beta-binomial: sd of its extra scatter, in units of sqrt(p (1 - p))."""
    with hypotheses(design):
        return {"scatter": numpyro.sample("scatter", dist.Beta(1.0, 9.0))}


def count_moments(logp, sizes, design: Design, data: Arrays):
    """Those of the beta-binomial, as a normal."""
    total, extra = data["total"], design.per_cell(sizes["scatter"]) ** 2
    return about_p(logp, extra + (1.0 - extra) / total, jnp.zeros_like(logp), 0.5 / total)


def sample_c(design: Design, data: Arrays):
    """Of mean probabilities: variance of one prompt over p (1 - p), and what prompts tell of it."""
    return _sample_c(dist.Beta(2.0, 3.0), design, data)


def sample_c_of_nll(design: Design, data: Arrays):
    """Of mean nll: variance of one prompt over p^1.5; of a mean, where prompts are not counted."""
    return _sample_c(dist.LogNormal(-1.0, 2.0), design, data)


def _sample_c(prior: dist.Distribution, design: Design, data: Arrays):
    with hypotheses(design):
        c = numpyro.sample("c", prior)
    if "log_c" in data:
        spread = dist.Normal(jnp.log(c), data["log_c_se"]).log_prob(data["log_c"])
        numpyro.factor("spread", jnp.sum(jnp.where(data["has_spread"], spread, 0.0)))
    return {"c": c}


def mean_moments(logp, sizes, design: Design, data: Arrays):
    """Of means over prompts, of probabilities."""
    n = data["total"]
    # Probabilities resolve more than counts do: half a prompt squared, not half a prompt.
    return about_p(logp, design.per_cell(sizes["c"]) / n, jnp.zeros_like(logp), 0.25 / n**2)


def nll_moments(logp, sizes, design: Design, data: Arrays):
    """Of means over prompts, of nll."""
    return about_nll(logp, design.per_cell(sizes["c"]) / data["total"])


def sample_replicates(design: Design, data: Arrays):
    """Dispersion at 10 shots, its slope over log(1 + shots), and sd of what replicates share."""
    with hypotheses(design):
        dispersion = numpyro.sample("dispersion", dist.LogNormal(0.5, 1.0))
        slope = numpyro.sample("dispersion_slope", dist.Normal(-0.3, 0.5))
        sd = numpyro.sample("replicate_sd", dist.HalfNormal(0.15))
    sizes = {"dispersion": dispersion, "dispersion_slope": slope, "replicate_sd": sd}
    numpyro.factor("spread", _replicate_spread(sizes, design, data))
    return sizes


def dispersion_of_cells(sizes, design: Design):
    """d at each cell: log-linear in log(1 + shots), `dispersion` at 10 shots: (cells,)."""
    x = jnp.log1p(design.shots) - jnp.log(11.0)
    dispersion, slope = map(design.per_cell, (sizes["dispersion"], sizes["dispersion_slope"]))
    return dispersion * jnp.exp(slope * x)


def _replicate_spread(sizes, design: Design, data: Arrays):
    """Restricted log likelihood of the replicates' deviations from their cells' means.

    Deviations z are in units of sqrt(p(1 - p)) at the measured mean; within a replicate their
    covariance is diag(d / items) + replicate_sd^2. Exact where every replicate was measured at
    every shot count; otherwise the lost degrees of freedom are shared out evenly.
    """
    inverse = 1.0 / dispersion_of_cells(sizes, design)
    total = design.per_curve
    tau2 = sizes["replicate_sd"] ** 2
    grown = 1.0 + tau2 * total(data["row_items"] * inverse)  # (replicates, H)
    pull = total(data["row_pull"] * inverse)
    square = total(data["square"] * inverse) - tau2 * jnp.sum(pull**2 / grown, axis=0)
    each = data["log_unit"] - data["rows"] * jnp.log(inverse)
    log_det = jnp.sum(jnp.log(grown), axis=0) + total(each)
    return -0.5 * jnp.sum(square + data["share"] * log_det)


def replicate_moments(logp, sizes, design: Design, data: Arrays):
    """Of means over replicates."""
    n = data["replicates"] * data["total"]
    load = design.per_cell(sizes["replicate_sd"]) / jnp.sqrt(data["replicates"])
    return about_p(logp, dispersion_of_cells(sizes, design) / n, load, 0.5 / n)  # half an item


def given_moments(logp, sizes, design: Design, data: Arrays):
    """Of the standard errors in the table, of probabilities."""
    m = about_p(logp, jnp.ones_like(logp), jnp.zeros_like(logp))
    m.variance = data["se"] ** 2
    return m


def given_nll_moments(logp, sizes, design: Design, data: Arrays):
    """Of the standard errors in the table, of mean nll."""
    m = about_nll(logp, jnp.ones_like(logp))
    m.variance = data["se"] ** 2
    return m
