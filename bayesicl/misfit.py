"""The law's misfit: what neighbouring cells share beyond the law and the noise of each.

    y_i = p_i + sqrt(v_i) (f_i + l_i b + sqrt(D_i) e_i)

as in `noise`, with one term more: f is an Ornstein-Uhlenbeck process over x = log(1 + shots), of
standard deviation misfit_sd and correlation exp(-|x_i - x_j| / misfit_length), one a curve. It is
integrated out (`process`): doubt is small near measured cells, and grows with distance from them.

Cells stand by curve, and by shots within a curve, as `Study.cells` does; what follows a curve with
fewer shots (padding) belongs to no curve's process. Counts are taken as normal here, with the
variance of the beta-binomial: with total items, D = 1/total + scatter^2 (1 - 1/total).

misfit_sd      HalfNormal(0.2), in units of sqrt(v): .1 of probability where p = 1/2, .2 nats where
               the mean nll is 1.
misfit_length  LogNormal(log 2, 1), in log(1 + shots): 90 % between .4 and 10; log 10 is 2.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr

from bayesicl.law import Design
from bayesicl.noise import Arrays, Moments, Noise
from bayesicl.priors import hypotheses
from bayesicl.process import following, known, links, path, scaled, smooth

SUFFIX = "+misfit"  # of the names of noises
Sampler = Callable[[Design, Arrays], dict[str, Any]]


@dataclass(frozen=True)
class Misfit(Noise):
    """A noise with the law's misfit beside it. base: that noise. counts: it is of counts."""

    counts: bool = False
    base: Noise | None = None

    def of(self, logp, sizes, design: Design, data: Arrays) -> Moments:
        """Moments of the noise beside the misfit: counts have some, too."""
        assert self.moments is not None
        return self.moments(logp, sizes, design, data)

    def log_density(self, logp, sizes, design: Design, data: Arrays) -> jax.Array:
        """Log density of all fitted cells together: ()."""
        m = self.of(logp, sizes, design, data)
        told = known(scaled(m, data), links(sizes, design), design)
        noise = jnp.where(data["fitted"], jnp.log(2 * jnp.pi * m.variance), 0.0)
        fit = told.fit + jnp.log(told.precision) - told.pull**2 / told.precision
        return -0.5 * (jnp.sum(noise) + jnp.sum(fit))

    def cell_log_density(self, logp, sizes, design: Design, data: Arrays) -> jax.Array:
        """Log density of each cell given the other fitted cells: (cells,); of counts, a mass."""
        m = self.of(logp, sizes, design, data)
        cells, own = scaled(m, data), links(sizes, design)
        told, f = known(cells, own, design), smooth(cells, own)
        b, precision = design.per_cell(told.pull / told.precision), design.per_cell(told.precision)
        rest = cells.load - f.load
        # Of a fitted cell, from what it adds; of another, what is expected there.
        pull = cells.weight * (cells.residual - f.residual - rest * b)
        alone = cells.weight - cells.weight**2 * (f.variance + rest**2 / precision)
        safe = jnp.where(data["fitted"], alone, 1.0)
        ahead = m.variance / m.unit**2 + f.variance + rest**2 / precision
        mean = jnp.where(data["fitted"], cells.residual - pull / safe, f.residual + rest * b)
        variance = jnp.where(data["fitted"], 1.0 / safe, ahead)
        mean, sd = m.mean + m.unit * mean, m.unit * jnp.sqrt(variance)
        if not self.counts:
            return dist.Normal(mean, sd).log_prob(data["y"])
        half = 0.5 / data["total"]
        low = jnp.where(data["y"] <= half, -jnp.inf, (data["y"] - half - mean) / sd)
        high = jnp.where(data["y"] >= 1.0 - half, jnp.inf, (data["y"] + half - mean) / sd)
        return log_mass(low, high)

    def scatter(self, logp, sizes, design: Design, data: Arrays, *, seen=True) -> dict[str, Any]:
        """What `measure` draws from: (cells,) each, and (H,) of the common shift."""
        m = self.of(logp, sizes, design, data)
        cells, own = scaled(m, data), links(sizes, design)
        told, f = known(cells, own, design), smooth(cells, own)
        return {
            "p": m.mean,
            "unit": m.unit,
            "sd": jnp.sqrt(m.variance),
            "common": m.common,
            "shift": told.pull / told.precision,
            "spread": 1.0 / jnp.sqrt(told.precision),
            "again": jnp.broadcast_to(jnp.asarray(seen), told.pull.shape),
            "residual": f.filtered[0],
            "load": f.filtered[1],
            "slope": f.slope,
            "keep": following(own.keep, 0.0),
            "left": f.sd,
        } | ({"scatter": sizes["scatter"]} if self.counts else {})

    def measure(
        self,
        rng: np.random.Generator,
        scatter: Mapping[str, np.ndarray],
        design: Design,
        data: Arrays,
        *,
        cut: bool = True,
    ) -> dict[str, np.ndarray]:
        """See `Noise.measure`; the mean curve is the law's and its misfit together."""
        own = design.hypothesis
        z, new = rng.standard_normal((2, *scatter["shift"].shape))
        b = scatter["shift"] + scatter["spread"] * z
        f = path(rng, scatter, scatter["residual"] - b[..., own] * scatter["load"])
        mean = scatter["p"] + scatter["unit"] * f
        b = np.where(scatter["again"], b, new)
        moved = mean + scatter["common"] * b[..., own]
        if self.counts and cut:
            mean = np.clip(mean, 0.0, 1.0)
            return {"mean": mean, "y": _counts(rng, mean, scatter["scatter"][..., own], data)}
        y = moved + scatter["sd"] * rng.standard_normal(mean.shape)
        if cut:
            mean, y = self.scale.cut(mean), self.scale.cut(y)
        return {"mean": mean, "y": y}


def _counts(rng, mean, scatter, data):
    """Shares of `total` items right, beta-binomial about the mean."""
    total = np.asarray(data["total"]).astype(int)
    k = 1.0 / np.maximum(scatter, 1e-3) ** 2 - 1.0
    tiny = 1e-9
    p = rng.beta(np.maximum(mean, tiny) * k, np.maximum(1.0 - mean, tiny) * k)
    return rng.binomial(total, np.clip(np.nan_to_num(p, nan=0.5), 0.0, 1.0)) / total


def log_mass(low, high):
    """log of Phi(high) - Phi(low), high > low; both may be infinite."""
    flip = low > 0  # the upper tail is exact where it is the smaller one
    a, b = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    top, bottom = log_ndtr(jnp.clip(b, -1e8, 1e8)), log_ndtr(jnp.clip(a, -1e8, 1e8))
    return top + jnp.log(-jnp.expm1(jnp.minimum(bottom - top, -1e-300)))


def sample_misfit(design: Design, data: Arrays) -> dict[str, Any]:
    """Sizes of the misfit, one of each a curve."""
    with hypotheses(design):
        sd = numpyro.sample("misfit_sd", dist.HalfNormal(0.2))
        length = numpyro.sample("misfit_length", dist.LogNormal(jnp.log(2.0), 1.0))
    return {"misfit_sd": sd, "misfit_length": length}


def both(first: Sampler, second: Sampler) -> Sampler:
    """Sizes of two kinds in one program."""
    return lambda design, data: {**first(design, data), **second(design, data)}


def with_misfit(noise: Noise, moments: Callable | None = None) -> Misfit:
    """This noise, with the misfit beside it; moments: of one that has none."""
    return Misfit(
        f"{noise.name}{SUFFIX}",
        f"{noise.summary}; and the law's misfit, a process over log(1+shots)",
        noise.kinds,
        both(noise.model, sample_misfit),
        moments or noise.moments,
        scale=noise.scale,
        counts=moments is not None,
        base=noise,
    )
