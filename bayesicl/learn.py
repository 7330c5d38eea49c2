"""Learn a prior from a bank of curves: what law parameters and noise are usual.

Every curve of the bank is fitted by itself under the declared priors. Then a t distribution over
curves, in the unconstrained space, is fitted to all of their posteriors at once, by expectation
maximisation: a curve's draws z are weighted by t(z; centre, scale) / prior(z), so that what its
data leave open is filled in by the others and not by the declared prior. This is the two-stage form
of a hierarchical fit. Its tails are a t's, since the next source of curves may be like none of
these.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.distributions.transforms import biject_to
from scipy.special import logsumexp

from bayesicl.device import precision
from bayesicl.errors import InputError
from bayesicl.law import AT
from bayesicl.misfit import SUFFIX
from bayesicl.population import FREEDOM, MISFIT
from bayesicl.program import arrays
from bayesicl.restore import engine_of, natural_values
from bayesicl.tree import label, study_of

ROUNDS = 2000
TOLERANCE = 1e-4
LEAST = 1.0  # sd that one more curve of the bank, at the mean but for this, would have
MIN_CURVES = 8
# Added to the centre of log misfit_sd: whole curves show less misfit than forecasts of their ends
# need. Of 0, .3, .6 and .9, forecasts of models that the bank has not seen are as good at .3 as at
# 0, those of sources that it has not seen better (benchmarks/README.md).
DOUBT = 0.3


class Draws(NamedTuple):
    """Of a curve, in the unconstrained space: z (draws, d); log_prior (draws,) there."""

    z: np.ndarray
    log_prior: np.ndarray


def learn(
    fits: Sequence[xr.DataTree], *, source: str, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """A prior's record, ready for JSON, from fits of single curves under declared priors.

    fits: of whole curves, under any laws and noises; each law and each noise is learned from its
    own; curves fitted under several laws tell of the noise several times, and count once in all.
    Noises of too few curves are left out. source: what the bank is, in words. groups: what each fit
    counts with, such as the name of its curve's model; of a law, and of a noise, groups weigh alike
    and so do the curves of a group, however many fits they have. None for curves that all do.

    Raises InputError where there are no fits or too few curves, fits are of two quantities, a fit
    is of several curves, its prior was learned itself, or a parameter is more than one number.
    """
    if not fits:
        raise InputError("no fits: there is nothing to learn from")
    scales = sorted({study_of(tree).scale.name for tree in fits})
    if len(scales) > 1:  # a misfit is in units of what the curve is of
        raise InputError(f"fits are of {' and '.join(scales)}: learn a prior from each alone")
    laws, noises = defaultdict(list), defaultdict(list)
    for tree, group in zip(fits, groups or [""] * len(fits), strict=True):
        law, *of_noise = _unconstrained(tree)
        curve = (group, tree.attrs["data_hash"])
        laws[tree.attrs["law"]].append((*law, curve))
        name = tree.attrs["noise"].removesuffix(SUFFIX)
        for kind, found in zip((name, MISFIT), of_noise, strict=True):
            if found[0]:
                noises[kind].append((*found, curve))
    return {
        "source": source,
        "quantity": scales[0],
        "seen": sorted({study_of(tree).digest for tree in fits}),
        "laws": {name: _usual(name, found) for name, found in laws.items()},
        "noises": {
            name: _usual(name, found)
            for name, found in noises.items()
            if len({curve for *_, curve in found}) >= MIN_CURVES
        },
    }


def _unconstrained(tree: xr.DataTree):
    """Sites and draws of the law, of the noise and of the law's misfit."""
    study = study_of(tree)
    if len(study.hypotheses) != 1 or int(tree.attrs["backgrounds"]) != 1:
        raise InputError(f"{label(tree)}: a prior is learned from studies of one curve each")
    with precision():
        engine = engine_of(tree)
        design, data = arrays(study)
        outline = engine.outline(design, data)
        sites = tuple(outline.shapes)
        if AT in tree.attrs["law"] + tree.attrs["noise"]:
            raise InputError(f"{label(tree)}: its prior was learned; learn from declared ones")
        if long := [name for name in sites if np.prod(outline.shapes[name]) != 1]:
            raise InputError(f"{label(tree)}: {', '.join(long)} of the law are several numbers")

        def one(design, data, values, key):
            found = engine.posterior.sites(design, data, values)
            z, density = {}, {}
            for name in sites:
                move = biject_to(found[name]["fn"].support)
                z[name] = move.inv(values[name])
                slope = move.log_abs_det_jacobian(z[name], values[name])
                density[name] = jnp.sum(found[name]["fn"].log_prob(values[name])) + jnp.sum(slope)
            return jax.tree.map(jnp.sum, z), density  # of one number each

        values = {name: x for name, x in natural_values(tree).items() if name in sites}
        key = jax.random.key(0)  # unused
        z, density = engine.over_draws("unconstrained", one, values, design, data, key)
    n = np.size(next(iter(density.values())))

    def draws_of(names):
        columns = np.empty((n, len(names)))
        for i, name in enumerate(names):
            columns[:, i] = np.ravel(z[name])
        return names, Draws(columns, sum((np.ravel(density[k]) for k in names), np.zeros(n)))

    law = tuple(name for name in sites if name in outline.law)
    misfit = tuple(name for name in sites if name.startswith(f"{MISFIT}_"))
    rest = tuple(name for name in sites if name not in (*law, *misfit))
    return draws_of(law), draws_of(rest), draws_of(misfit)


def _usual(name: str, found: list) -> dict[str, Any]:
    """Centre and scale over curves."""
    sites = found[0][0]
    curves = [curve for *_, curve in found]
    n = len(set(curves))
    if n < MIN_CURVES:
        raise InputError(
            f"{name}: {n} curves are too few to learn what is usual; give {MIN_CURVES}"
        )
    weight = weights_of_fits(curves)
    least = LEAST**2 * np.sum(weights_of_fits(list(dict.fromkeys(curves))) ** 2)
    centre, scale = moments([draws for _, draws, *_ in found], weight, least)
    centre += DOUBT * (np.array(sites) == "misfit_sd")
    return {
        "sites": list(sites),
        "centre": centre.tolist(),
        "scale": scale.tolist(),
        "curves": n,
    }


def weights_of_fits(curves: Sequence[tuple[str, str]]) -> np.ndarray:
    """Weight of each fit, summing to 1, from its group and curve: see `learn`.

    >>> weights_of_fits([("a", "1"), ("a", "1"), ("a", "2"), ("b", "3")]).tolist()
    [0.125, 0.125, 0.25, 0.5]
    """
    fits = Counter(curves)
    members = Counter(group for group, _ in fits)
    own = [1.0 / (len(members) * members[curve[0]] * fits[curve]) for curve in curves]
    return np.array(own)


def moments(
    curves: Sequence[Draws], weight: np.ndarray, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Centre (d,) and scale (d, d) of a t distribution over curves, each known by its draws.

    weight: of each curve, summing to 1. least: is added to the scale's diagonal.
    """
    n = min(len(c.z) for c in curves)
    few = [np.linspace(0, len(c.z) - 1, n).astype(int) for c in curves]
    z = np.stack([c.z[i] for c, i in zip(curves, few, strict=True)])  # (curves, n, d)
    log_prior = np.stack([c.log_prior[i] for c, i in zip(curves, few, strict=True)])
    mean, covariance = np.median(z, axis=(0, 1)), np.diag(z.reshape(-1, z.shape[2]).var(axis=0))
    d = len(mean)
    for _ in range(ROUNDS):
        away = z - mean
        far = np.sum((away @ np.linalg.inv(np.linalg.cholesky(covariance)).T) ** 2, axis=-1)
        log_w = -0.5 * (FREEDOM + d) * np.log1p(far / FREEDOM) - log_prior
        w = np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True)) * weight[:, None]
        near = (w * (FREEDOM + d) / (FREEDOM + far))[..., None]  # far out, a curve counts for less
        first = np.sum(near * away, axis=(0, 1)) / near.sum()
        away = (away - first).reshape(-1, d)
        second = (near.reshape(-1, 1) * away).T @ away + least * np.eye(d)
        moved = max(np.abs(first).max(), np.abs(second - covariance).max())
        mean, covariance = mean + first, second
        if moved < TOLERANCE:
            break
    return mean, covariance
