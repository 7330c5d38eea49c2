"""Which laws, and which noise, the options of a command ask for."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.errors import InputError, nearest

if TYPE_CHECKING:
    from bayesicl.curves import Curves
    from bayesicl.law import Law
    from bayesicl.scale import Scale


def chosen_laws(
    names: Sequence[str] | None,
    scale: "Scale",
    prior: str | None = None,
    *,
    beside: Sequence[str] = (),
) -> "list[Law]":
    """The laws of these names and files, each once, under a learned prior if one is named.

    "paper" and "all" are those of the scale, and those of them that the prior knows. names: None
    for "paper", or for "all" that the prior knows. beside: files of laws beside those of names.
    """
    from bayesicl.law import AT, LAWS, PAPER, laws_of, load_law, parted
    from bayesicl.population import load_population

    suited, those = laws_of(scale), "these laws"
    if prior is not None:
        if not (known := load_population(prior).laws):
            raise InputError(f"prior {prior} holds no laws; --noise misfit@{prior} takes its noise")
        suited = tuple(law for law in suited if law in known)
        those = f"the laws that prior {prior} knows"
        named = {load_law(file).name for file in beside}
        unknown = _unknown(prior, [law for law in known if law not in named], names or ["all"])
        if unknown and not named and not any(law in LAWS for law in known):
            raise InputError("; ".join(unknown))
        for line in unknown:
            common.say(line)
        if names is None and not suited and not beside:
            raise InputError(
                f"prior {prior} knows {', '.join(known)}, of which bayesicl has none of "
                f"{scale.name}; take --law {' '.join(laws_of(scale))} without --prior, or "
                "learn a prior from such fits (bayesicl learn)"
            )
        if "paper" in (names or ()):
            own = ", ".join(law for law in PAPER if law in known) or "none"
            common.say(f"of the paper's laws prior {prior} knows {own}")
        if own := [name for name in names or () if parted(name)[1]]:
            raise InputError(f"{own[0]} names a prior of its own; leave out --prior {prior}")
    usual = "paper" if prior is None else "all"
    names = [*(names or ([usual] if suited else [])), *beside]
    several = {"paper": tuple(law for law in PAPER if law in suited), "all": suited}
    if empty := [name for name in names if several.get(name) == ()]:
        some = f"name some that are, such as --law {' '.join(suited)}" if suited else "name others"
        raise InputError(f"--law {empty[0]}: none of {those} is of {scale.name}; {some}")
    if "stack" in names:
        raise InputError("a stack is a forecast: bayesicl forecast TABLE --law stack --out DIR")
    names = [law for name in names for law in several.get(name, [name])]
    laws = {name: load_law(name if prior is None else f"{name}{AT}{prior}") for name in names}
    paths: dict[str, str] = {}
    for name, law in laws.items():
        if paths.setdefault(law.name, str(law.path)) != str(law.path):
            raise InputError(
                f"law file {name}: the law of {paths[law.name]} has the same name, {law.name!r}; "
                "rename one of them, or fit them into two folders"
            )
    return list({law.name: law for law in laws.values()}.values())


def _unknown(prior: str, known: Iterable[str], names: Sequence[str]) -> list[str]:
    """Lines about laws of a prior that are neither bayesicl's nor in a file that is named.

    Nothing where laws are named one by one: then no other was asked for.
    """
    from bayesicl.law import LAWS, load_law

    if not {"all", "paper"} & set(names):
        return []
    given = {load_law(name).name for name in names if name.endswith(".py")}
    lines = []
    for law in known:
        if law not in LAWS and law not in given:
            lines.append(
                f"prior {prior}: law {law!r}{nearest(law, LAWS)} is none of bayesicl's and goes "
                "unused; correct it in the file, or, if it is your own, name its file with --law "
                "(beside stack, for a stack)"
            )
    return lines


def learned_noise(curves: "Curves", noise: str, prior: str) -> str:
    """The name of a noise under a learned prior; says what of it that does not know.

    Raises InputError where the prior's file has a noise that is none.
    """
    from bayesicl.law import AT
    from bayesicl.misfit import SUFFIX
    from bayesicl.noises import known_noises, load_noise
    from bayesicl.population import MISFIT

    if AT in noise:
        raise InputError(f"{noise} names a prior of its own; leave out --prior {prior}")
    names = {load_noise(noise, study.kind).name for study in curves}
    parts = {name.removesuffix(SUFFIX) for name in names}
    parts |= {MISFIT for name in names if name.endswith(SUFFIX)}
    known = known_noises(prior)
    if unknown := sorted(parts - known):
        common.say(
            f"prior {prior} has nothing on noise {', '.join(unknown)}: there the declared prior "
            "holds"
        )
    return f"{noise}{AT}{prior}" if parts & known else noise
