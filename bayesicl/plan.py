"""What is to be fitted: every study under every law, but once where laws are one function."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpyro import handlers

from bayesicl.curves import Curves, Study
from bayesicl.errors import InputError
from bayesicl.law import AT, BAYESIAN, LAWS, TYINGS, Law, laws_of, load_law, parted
from bayesicl.misfit import SUFFIX
from bayesicl.noise import Noise
from bayesicl.noises import load_noise
from bayesicl.population import load_population
from bayesicl.program import arrays


@dataclass(frozen=True)
class Task:
    """One study, to be fitted under one law; `same` names the laws that are this one for it."""

    study: Study
    law: Law
    noise: Noise
    backgrounds: int
    same: tuple[str, ...]

    def __reduce__(self):
        """What another process needs to have the same task: the law by name or file, no code."""
        law = self.law.name if self.law.bundled else self.law.path
        return _task, (
            self.study, law, self.law.source_hash, self.noise.name, self.backgrounds, self.same
        )  # fmt: skip


def _task(study: Study, law: str, source_hash: str, noise: str, backgrounds: int, same) -> Task:
    found = load_law(law)
    if found.source_hash != source_hash:
        raise InputError(f"law {law}: its file is not the same for all processes that fit")
    return Task(study, found, load_noise(noise, study.kind), backgrounds, same)


def plan(
    curves: Curves,
    laws: str | Path | Law | Sequence[str | Path | Law],
    *,
    noise: str | None = None,
    backgrounds: int = 1,
) -> list[Task]:
    """All fits to be made, arguments as of `fit`; whatever can be wrong with them is found here."""
    chosen = [laws] if isinstance(laws, str | Path | Law) else list(laws)
    loaded = [load_law(law) for law in chosen]
    names = [law.name for law in loaded]
    if not loaded:
        raise InputError("no laws to fit: name at least one")
    if len(set(names)) < len(names):
        raise InputError(f"laws must have different names, got {', '.join(names)}")
    if backgrounds < 0:
        raise InputError(f"--backgrounds must be 0 or more, got {backgrounds}")
    weighing = [law for law in loaded if law.base in BAYESIAN or not law.bundled]
    if backgrounds > 1 and not weighing:
        raise InputError(
            f"--backgrounds {backgrounds}: no law here weighs hypotheses ({', '.join(names)}); "
            "leave it out"
        )
    tasks: list[Task] = []
    tried: set[tuple] = set()
    for study in curves:
        for law in loaded:
            if law.scale != study.scale:
                raise InputError(
                    f"{study.label}: law {law.name} is of {law.scale.name}, and the outcome here "
                    f"is {study.scale.name}, another quantity; laws of that are "
                    f"{', '.join(laws_of(study.scale))}; or read another outcome (--outcome)"
                )
        suited = load_noise(noise, study.kind)
        _check_learned(study, loaded, suited, backgrounds)
        if AT in suited.name and (suited.name,) not in tried:
            try_noise(suited, study, backgrounds)
            tried.add((suited.name,))
        for law, same in distinct(loaded, study, backgrounds):
            shape = (len(study.hypotheses), study.cells["shots"].to_numpy().tobytes())
            what = (law.name,) if law.base in LAWS else (law.name, *shape)  # all that a law sees
            if what not in tried:
                try_law(law, study, backgrounds)
                tried.add(what)
            tasks.append(Task(study, law, suited, backgrounds, same))
    return tasks


def _check_learned(study: Study, laws: Sequence[Law], noise: Noise, backgrounds: int) -> None:
    """Raise InputError where a learned prior does not know such studies; says what would do."""
    _check_units(study, noise)
    learned = [one.name for one in (*laws, noise) if AT in one.name]
    if not learned or (len(study.hypotheses) == 1 and backgrounds == 1):
        return
    known = "one background; leave out --backgrounds"
    if (curves := len(study.hypotheses)) > 1:
        first = study.hypotheses[0]
        first = first if first.isdecimal() else repr(first)
        known = (
            f"one curve, and here are {curves}; make each a study (--by {' '.join(study.key)} "
            f'hypothesis), read one (--where "hypothesis == {first}")'
        )
    declared = f"--law {' '.join(dict.fromkeys(map(_declared, laws)))}"
    if AT in noise.name:
        own = noise.name.partition(AT)[0]
        declared += f" --noise {'misfit' if own.endswith(SUFFIX) else own}"
    raise InputError(
        f"{study.label}: {learned[0]} has a learned prior, which is for studies of {known}, or "
        f"take declared priors, in the place of --prior: {declared}"
    )


def _check_units(study: Study, noise: Noise) -> None:
    """Raise InputError where a misfit is as usual of another quantity: it is in units of that."""
    own, _, prior = noise.name.partition(AT)
    if not prior or not own.endswith(SUFFIX):
        return
    if (quantity := load_population(prior).quantity) != study.scale.name:
        raise InputError(
            f"{study.label}: prior {prior} was learned from {quantity}, and the outcome "
            f"here is {study.scale.name}, another quantity; take the declared prior (--noise "
            "misfit), or learn one from fits of that (bayesicl learn)"
        )


def _declared(law: Law) -> str:
    """The name or file of a law under its own prior."""
    if law.base in LAWS:
        return law.base
    return parted(law.path)[0]


def distinct(
    laws: Sequence[Law], study: Study, backgrounds: int
) -> list[tuple[Law, tuple[str, ...]]]:
    """The laws to fit, each with the names of those that are the same function for this study."""
    H = len(study.hypotheses)
    if H + backgrounds < 2 and any(law.base in BAYESIAN for law in laws):
        raise InputError(
            f"{study.label}: a Bayesian law weighs at least 2 hypotheses; with one observed "
            "hypothesis it needs a background (--backgrounds 1)"
        )
    same: dict[str, tuple[str, ...]] = {}
    for scoring, general, sampling in TYINGS:
        if H + backgrounds == 2:  # one rival: the tables of P differ in names alone
            alike = (scoring, general, sampling)
        elif H == 1:  # a miss for each background
            alike = (sampling, general)
        else:
            continue
        same |= dict.fromkeys(alike, alike)
    out: dict[str, tuple[Law, tuple[str, ...]]] = {}
    for law in laws:
        first, *others = same.get(law.name, (law.name,))
        out.setdefault(first, (law if law.name == first else load_law(first), tuple(others)))
    return list(out.values())


def try_noise(noise: Noise, study: Study, backgrounds: int) -> None:
    """Run a noise once, so that a learned prior of other parameters says so."""
    design, data = arrays(study, backgrounds=backgrounds)
    with handlers.seed(rng_seed=0), handlers.block():
        noise.model(design, data)


def try_law(law: Law, study: Study, backgrounds: int) -> None:
    """Run a law on the shape of a study, so that what is wrong with it, or its prior, says so."""
    if law.bundled:
        return
    design, _ = arrays(study, backgrounds=backgrounds)
    try:
        outs = []
        for draw in range(8):  # of the law's own prior
            with handlers.seed(rng_seed=draw), handlers.block():
                outs.append(np.asarray(law.model(design)))
        out = np.stack(outs)
    except InputError:  # of its prior
        raise
    except Exception as error:
        raise InputError(
            f"law file {law.path}: model(design) does not run on {study.label} "
            f"({type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]})"
        ) from error
    if out.shape[1:] != design.shots.shape or out.dtype.kind != "f":
        raise InputError(
            f"law file {law.path}: model(design) must return log p of every cell, shape "
            f"{design.shots.shape}, got {out.shape[1:] or outs[0]}"
        )
    highest = np.log(law.scale.top)
    wrong = np.isnan(out) | (out > highest + 1e-6)
    if wrong.any():
        raise InputError(
            f"law file {law.path}: log p must be a number of at most {highest:g} for every draw of "
            f"the prior, got {out[wrong][0]:g}; check the signs in `curve`"
            + (", and the scale in the prior's file" if AT in law.name else "")
        )
