"""One law and one noise as a density in sampling coordinates, and what follows from one draw.

Pure functions of a study's arrays, meant to be compiled; `engine` compiles and runs them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from bayesicl.law import Design, Law
from bayesicl.noise import Noise
from bayesicl.program import compose

HUGE = 1e15  # its square is still a float32


class Outline(NamedTuple):
    """What a program samples and records for studies of one shape, in plain data.

    shapes: of each sampled site in the unconstrained space. dims: names of the dimensions of each
    site that is not one of cells, from plates and event dimensions. law: those that the law
    records; the rest are the noise's.
    """

    shapes: dict[str, tuple[int, ...]]
    dims: dict[str, tuple[str, ...]]
    law: tuple[str, ...]


class Posterior:
    """The posterior of any study under a law and a noise.

    w: every sampled site in sampling coordinates. seen: bool, whether replicates are those fitted.
    """

    def __init__(self, law: Law, noise: Noise):
        """Compose the program."""
        self.law, self.noise = law, noise
        self.program = compose(law, noise)

    def sites(
        self, design: Design, data: Mapping, values: Mapping | None = None, seed: Any = 0
    ) -> dict:
        """NumPyro's record of all sampled and deterministic sites, at `values` where given."""
        fixed = handlers.substitute(self.program, data=dict(values or {}))
        with handlers.block():
            trace = handlers.trace(handlers.seed(fixed, seed)).get_trace(design, data)
        return {
            name: site
            for name, site in trace.items()
            if site["type"] == "deterministic"
            or (site["type"] == "sample" and not site["is_observed"])
        }

    def outline(self, design: Design, data: Mapping) -> Outline:
        """What is sampled and recorded for studies of this shape."""
        found = []

        def look():  # traced alone: nothing is computed
            sites = self.sites(design, data)
            with handlers.block():
                seeded = handlers.seed(self.law.model, rng_seed=0)
                own = set(handlers.trace(seeded).get_trace(design))
            shapes = {
                name: tuple(jnp.shape(biject_to(site["fn"].support).inv(site["value"])))
                for name, site in sites.items()
                if site["type"] == "sample"
            }
            dims = {
                name: _dims(name, site) for name, site in sites.items() if not by_cell(site, design)
            }
            found.append(Outline(shapes, dims, tuple(name for name in dims if name in own)))

        jax.eval_shape(look)
        return found[0]

    def _coordinates(self, design: Design, data: Mapping, w: Mapping):
        """The law's own, in sight of the fitted cells alone."""
        shots = jnp.where(data["in_sight"], design.shots, 0.0)
        return self.law.coordinates(replace(design, shots=shots), w)

    def potential(self, design: Design, data: Mapping, w: Mapping) -> jax.Array:
        """Minus the log posterior density at w, up to a constant.

        Infinite where undefined, and where so large that the momentum would overflow: the kinetic
        energy with it, to either sign, and a chain might be led there.
        """
        z, log_det = self._coordinates(design, data, w)
        value = potential_energy(self.program, (design, data), {}, z) - log_det
        return jnp.where(jnp.abs(value) < HUGE, value, jnp.inf)

    def natural(self, design: Design, data: Mapping, w: Mapping) -> dict[str, jax.Array]:
        """Natural parameters and deterministic values at w."""
        z, _ = self._coordinates(design, data, w)
        return constrain_fn(self.program, (design, data), {}, z, return_deterministic=True)

    def prior(self, design: Design, data: Mapping, key: jax.Array) -> dict[str, jax.Array]:
        """The same of one draw of the prior."""
        return {k: s["value"] for k, s in self.sites(design, data, seed=key).items()}

    def describe(
        self,
        design: Design,
        data: Mapping,
        values: dict[str, jax.Array],
        seen: Any,
    ) -> dict[str, Any]:
        """What follows from the sampled sites' natural values; see `Engine.describe`.

        With `scatter`, from which measurements are drawn, in the place of y.
        """
        sites = self.sites(design, data, values)
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=values):
            logp, sizes = self.program(design, data)
        return {
            "logp": logp,
            "scatter": self.noise.scatter(logp, sizes, design, data, seen=seen),
            "log_likelihood": self.noise.cell_log_density(logp, sizes, design, data),
            "by_cell": {n: s["value"] for n, s in sites.items() if by_cell(s, design)},
            "log_prior": {
                name: jnp.sum(site["fn"].log_prob(site["value"]))
                for name, site in sites.items()
                if site["type"] == "sample"
            },
        }


def by_cell(site: Mapping, design: Design) -> bool:
    """A law's record of something at every cell: a prediction, not a parameter."""
    return (
        site["type"] == "deterministic"
        and not site["cond_indep_stack"]
        and np.shape(site["value"])[:1] == np.shape(design.shots)
    )


def _dims(name: str, site: Mapping) -> tuple[str, ...]:
    """Dimensions of a site, from its plates and event dimensions."""
    plates = tuple(f.name for f in sorted(site["cond_indep_stack"], key=lambda f: f.dim))
    # NumPyro lets only sampled sites name their inner axes.
    named = name in ("P", "pi")
    inner = ["believed"] if named else site.get("infer", {}).get("event_dims", [])
    known = (*plates, *inner)
    rest = len(np.shape(site["value"])) - len(known)
    return (*known, *(f"{name}_dim_{i}" for i in range(rest)))
