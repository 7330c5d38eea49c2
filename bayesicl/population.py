"""Priors learned from a bank of curves: what is usual, in the place of what is possible.

`power@population` is the power law under the prior that comes with bayesicl, learned from the
banks that data/population.json names; `power@mine.json` is it under one's own (`learn`). A learned
prior is a multivariate t of the law's parameters in NumPyro's unconstrained space, where
probabilities are log-odds and positive numbers logarithms, and another of the noise's sizes and of
the misfit's. It knows studies of one curve and one background.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to
from numpyro.infer.util import constrain_fn

from bayesicl.errors import InputError
from bayesicl.law import AT, Design, Law, parted, unmoved
from bayesicl.misfit import Misfit, both, sample_misfit
from bayesicl.noise import Noise
from bayesicl.prior_file import Wrong, read_record
from bayesicl.priors import hypotheses
from bayesicl.tree import study_of

BUNDLED = Path(__file__).parent / "data" / "population.json"
NAME = "population"
FREEDOM = 4.0  # of the t: sources of curves differ, and the next one may be like none of them
ADVICE = "correct it, or learn it anew with `bayesicl learn`"
MISFIT = "misfit"  # its name among the noises of a prior


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual of some parameters, each a number in the unconstrained space.

    sites: names in the order in which the model samples them. centre: (d,). root: (d, d), lower
    triangular root of the scale.
    """

    sites: tuple[str, ...]
    centre: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Usual":
        """From a record of sites, centre and scale."""
        root = np.linalg.cholesky(np.array(record["scale"], float))
        return cls(tuple(record["sites"]), np.array(record["centre"], float), root)

    def split(self, u) -> dict[str, jax.Array]:
        """Each site's number, (1,) as of one curve, from a round u (d,)."""
        # A sum of products: a matrix product would be a call of a library.
        z = self.centre + jnp.sum(self.root * u, axis=-1)
        return {name: z[i] for i, name in enumerate(self.sites)}


@dataclass(frozen=True, eq=False)
class Population:
    """A learned prior.

    name: as fits know it. laws, noises: by name. weights: of a stack's laws, by name, before any of
    them was tried; empty in a file of `learn`. source: where it is from. quantity: what its curves
    are of, the name of a `Scale`. seen: digests of the curves that it was learned from, where its
    file tells (`Study.digest`). digest: SHA-256 of what laws and noises are.
    """

    name: str
    laws: dict[str, Usual]
    noises: dict[str, Usual]
    weights: dict[str, float]
    source: str
    quantity: str
    seen: frozenset[str]
    digest: str


@cache
def _read(path: Path, stamp: tuple[float, int]) -> Population:
    record = read_record(path)
    densities = json.dumps([record["laws"], record["noises"]], sort_keys=True)
    digest = hashlib.sha256(densities.encode()).hexdigest()
    laws, noises = (
        {k: Usual.of(v) for k, v in record[what].items()} for what in ("laws", "noises")
    )
    name, weights = NAME if path == BUNDLED else path.stem, record.get("weights", {})
    seen = frozenset(record.get("seen", ()))
    source, quantity = record["source"], record["quantity"]
    return Population(name, laws, noises, weights, source, quantity, seen, digest)


def load_population(name: str) -> Population:
    """The prior of this name or file.

    Raises InputError where there is none, or the file is not one.

    >>> load_population("population").name
    'population'
    """
    path = path_of(name)
    if path != BUNDLED and path.stem == NAME:
        raise InputError(f"prior {name!r}: {NAME!r} is bayesicl's own; give yours another name")
    if path.is_dir():
        raise InputError(f"prior {name}: is a folder; name the file of `bayesicl learn` in it")
    if not path.is_file():
        raise InputError(f"prior {name!r}: no such file; the name of bayesicl's own is {NAME!r}")
    stat = path.stat()
    try:
        found = _read(path, (stat.st_mtime, stat.st_size))
    except Wrong as error:
        raise InputError(f"prior {name}: {error}; {ADVICE}") from error
    if not found.laws and not found.noises:
        raise InputError(f"prior {name}: it holds no laws; learn it anew with `bayesicl learn`")
    return found


def path_of(name: str) -> Path:
    """The file of a prior."""
    return BUNDLED if name == NAME else Path(name).resolve()


def learned_from(tree: xr.DataTree) -> list[str]:
    """The learned priors of a fit that were learned from its own curve, as far as they tell."""
    digest, priors = study_of(tree).digest, priors_of(tree.attrs)
    return [one for one in sorted(priors) if digest in load_population(one).seen]


def priors_of(attrs: Mapping[Any, Any]) -> set[str]:
    """Names and files of the learned priors of a fit's law and noise, from its attributes."""
    _, of_law = parted(attrs["law_path"] or attrs["law"])
    _, _, of_noise = attrs["noise"].partition(AT)
    return {of_law, of_noise} - {""}


class Round(dist.Distribution):
    """A t distribution of `FREEDOM` degrees about 0, the same in all directions: (d,)."""

    support = constraints.real_vector  # pyright: ignore
    pytree_aux_fields = ("d",)

    def __init__(self, d: int, *, validate_args=None):
        """d: how many numbers."""
        self.d = d
        super().__init__((), (d,), validate_args=validate_args)

    def sample(self, key: Any, sample_shape=()):
        """Draw: a normal, over the root of a chi-squared divided by its degrees of freedom."""
        key_normal, key_scale = jax.random.split(key)
        z = jax.random.normal(key_normal, (*sample_shape, self.d))
        scale = jax.random.chisquare(key_scale, FREEDOM, sample_shape) / FREEDOM
        return z / jnp.sqrt(scale)[..., None]

    def log_prob(self, value):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Log density."""
        n, d = FREEDOM, self.d
        constant = math.lgamma((n + d) / 2) - math.lgamma(n / 2) - d / 2 * math.log(n * math.pi)
        return constant - 0.5 * (n + d) * jnp.log1p(jnp.sum(value**2, axis=-1) / n)


def model_of(model: Callable, usual: Usual, site: str, whose: str) -> Callable:
    """A program that returns what `model` does, with parameters as usual; it samples `site` alone.

    What `model` samples is recorded under its own names. For studies of one curve and one
    background, which `plan` sees to. whose: prior and law or noise, in words. The program raises
    InputError where `usual` is of other parameters than the model's.
    """

    def program(design: Design, *data):
        u = numpyro.sample(site, Round(len(usual.sites)))
        with handlers.block():
            own = handlers.trace(handlers.seed(model, 0)).get_trace(design, *data)
            own = {name: site for name, site in own.items() if _drawn(site)}
            _check_sites(whose, usual.sites, own)
            number = usual.split(u)
            z = {name: number[name].reshape(_shape(site)) for name, site in own.items()}
            natural = constrain_fn(model, (design, *data), {}, z)
        inside = handlers.substitute(model, data=natural)
        out = handlers.block(inside, hide_fn=_drawn)(design, *data)
        for name, value in natural.items():
            with hypotheses(design) if own[name]["cond_indep_stack"] else nullcontext():
                numpyro.deterministic(name, value)
        return out

    return program


def draws_of(model: Callable, usual: Usual, args: tuple, n: int = 10_000) -> dict[str, np.ndarray]:
    """Draws (n,) of what `model` samples, as usual and in its own units; args: of the model."""
    program = model_of(model, usual, "_usual", "prior")

    def one(key):
        trace = handlers.trace(handlers.seed(program, key)).get_trace(*args)
        return {name: trace[name]["value"] for name in usual.sites}

    found = jax.vmap(one)(jax.random.split(jax.random.key(0), n))
    return {name: np.ravel(x) for name, x in found.items()}


def _check_sites(whose: str, known: Collection[str], own: Collection[str]) -> None:
    lacks, strange = (sorted(set(a) - set(b)) for a, b in ((own, known), (known, own)))
    told = [f"parameters that it lacks: {', '.join(lacks)}"] if lacks else []
    told += [f"parameters that are unknown: {', '.join(strange)}"] if strange else []
    if told:
        raise InputError(f"{whose}: {'; '.join(told)}; learn it anew with `bayesicl learn`")


def _drawn(site: Mapping) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _shape(site: Mapping) -> tuple[int, ...]:
    return jnp.shape(biject_to(site["fn"].support).inv(site["value"]))


@cache
def law_under(law: Law, prior: str, population: Population) -> Law:
    """A law under a learned prior; `prior` is its name or file."""
    usual = _known(population.laws, law.name, prior, "law")
    found = replace(
        law,
        name=f"{law.name}{AT}{population.name}",
        model=model_of(law.model, usual, "_usual", f"prior {prior}, law {law.name}"),
        coordinates=unmoved,
        source_hash=hashlib.sha256(f"{law.source_hash}{population.digest}".encode()).hexdigest(),
    )
    if law.bundled and prior == NAME:
        return found
    return replace(found, path=f"{law.name if law.bundled else law.path}{AT}{path_of(prior)}")


@cache
def noise_under(noise: Noise, prior: str, population: Population) -> Noise:
    """A noise under a learned prior, with which noise and misfit are known apart.

    What the prior does not know, of the two, stays as it is declared. prior: its name or file.
    """
    place, whose = NAME if prior == NAME else path_of(prior), f"prior {prior}, noise"
    named = {"name": f"{noise.name}{AT}{place}", "source_hash": population.digest}
    own = {name: usual for name, usual in population.noises.items() if name != MISFIT}
    if not isinstance(noise, Misfit):
        usual = _known(own, noise.name, prior, "noise")
        model = model_of(noise.model, usual, "_usual_noise", f"{whose} {noise.name}")
        return replace(noise, model=model, **named)
    assert noise.base is not None
    sizes, misfit = noise.base.model, sample_misfit
    if noise.base.name in own:
        base = noise.base.name
        sizes = model_of(sizes, own[base], "_usual_noise", f"{whose} {base}")
    if MISFIT in population.noises:
        usual = population.noises[MISFIT]
        misfit = model_of(misfit, usual, "_usual_misfit", f"{whose} {MISFIT}")
    return replace(noise, model=both(sizes, misfit), **named)


def _known(of: Mapping[str, Usual], name: str, prior: str, what: str) -> Usual:
    if name not in of:
        known = f"it was learned for {', '.join(of)}" if of else f"it holds no {what}s"
        raise InputError(f"prior {prior!r} knows no {what} {name!r}: {known}")
    return of[name]
