"""The noises that there are, by name."""

from bayesicl.errors import InputError, nearest
from bayesicl.law import AT
from bayesicl.misfit import with_misfit
from bayesicl.noise import (
    Noise,
    count_moments,
    given_moments,
    given_nll_moments,
    mean_moments,
    nll_moments,
    replicate_moments,
    sample_c,
    sample_c_of_nll,
    sample_replicates,
    sample_scatter,
)
from bayesicl.population import MISFIT, NAME, load_population, noise_under
from bayesicl.scale import MEAN_NLL, Scale

_PLAIN = (
    Noise(
        "beta-binomial",
        "counts of one run: binomial with extra scatter of sd `scatter` sqrt(p(1-p))",
        ("counts",),
        sample_scatter,
        None,
    ),
    Noise(
        "replicates",
        "replicate mean: variance d p(1-p) / (replicates x items), d log-linear in "
        "log(1+shots), plus a shift `replicate_sd` sqrt(p(1-p)) common to a replicate",
        ("replicated counts",),
        sample_replicates,
        replicate_moments,
    ),
    Noise(
        "mean-probability",
        "mean of per-prompt probabilities: variance c p(1-p) / prompts, c learned per curve",
        ("prompts", "aggregated"),
        sample_c,
        mean_moments,
    ),
    Noise(
        "given-se",
        "the standard errors of the table, as given",
        ("given se",),
        lambda design, data: {},
        given_moments,
    ),
    Noise(
        "mean-nll",
        "mean of per-prompt nll: variance c mean^1.5 / prompts, c learned per curve; where "
        "prompts are not counted each mean counts as one",
        ("nll aggregated", "nll prompts"),
        sample_c_of_nll,
        nll_moments,
        scale=MEAN_NLL,
    ),
    Noise(
        "nll-given-se",
        "the standard errors of the table, as given, of mean nll",
        ("nll given se",),
        lambda design, data: {},
        given_nll_moments,
        scale=MEAN_NLL,
    ),
)

_MISFIT = tuple(with_misfit(noise, None if noise.moments else count_moments) for noise in _PLAIN)
NOISES = {noise.name: noise for noise in (*_PLAIN, *_MISFIT)}


def load_noise(name: str | None, kind: str) -> Noise:
    """The noise of this name, or the default for a study of this kind.

    name: "misfit" stands for the default together with the law's misfit.
    NOISE@PRIOR is the noise under a learned prior, "@PRIOR" the default: see `population`.

    Raises InputError where the name is unknown or does not suit the outcome.

    >>> load_noise(None, "counts").name
    'beta-binomial'
    """
    suited = [noise for noise in NOISES.values() if kind in noise.kinds]
    if name is not None and AT in name:
        name, _, prior = name.partition(AT)
        noise = load_noise(name or None, kind)
        known_noises(prior)
        return noise_under(noise, prior, load_population(prior))
    if name is None:
        return suited[0]
    if name == "misfit":
        name = f"{suited[0].name}+misfit"
    if name not in NOISES:
        meant = nearest(name, ["misfit", *NOISES])
        raise InputError(f"unknown noise {name!r}{meant}: choose from misfit, {', '.join(NOISES)}")
    if NOISES[name] not in suited:
        raise InputError(
            f"noise {name!r} does not suit an outcome of kind {kind!r}: it is for "
            f"{' or '.join(NOISES[name].kinds)}; for this one use "
            f"{', '.join(noise.name for noise in suited)}"
        )
    return NOISES[name]


def known_noises(prior: str) -> set[str]:
    """The noises, and the misfit, that a learned prior knows.

    Raises InputError where its file has one that is none.
    """
    known, there = set(load_population(prior).noises), [MISFIT, *(one.name for one in _PLAIN)]
    if odd := sorted(known - set(there)):
        meant = nearest(odd[0], there)
        raise InputError(
            f"prior {prior}: noise {odd[0]!r} is none of bayesicl's{meant}; correct it in the file"
        )
    return known


def kinds_of(scale: Scale) -> tuple[str, ...]:
    """The kinds of study on a scale.

    >>> kinds_of(MEAN_NLL)
    ('nll aggregated', 'nll prompts', 'nll given se')
    """
    return tuple(kind for noise in _PLAIN if noise.scale == scale for kind in noise.kinds)


def own(noise: Noise) -> bool:
    """It comes with bayesicl, and so does its prior."""
    base, _, prior = noise.name.partition(AT)
    return (
        base in NOISES and prior in ("", NAME) and load_noise(noise.name, noise.kinds[0]) == noise
    )
