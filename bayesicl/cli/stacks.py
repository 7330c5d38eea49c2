"""Fits of a stack: its laws on what is to be fitted, and at every rolling origin before."""

import argparse
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bayesicl.cli import common
from bayesicl.cli.batch import Batch, made, planned, tell
from bayesicl.cli.chosen import chosen_laws, learned_noise
from bayesicl.cli.progress import status
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from bayesicl.alarm import Heard
    from bayesicl.curves import Curves
    from bayesicl.stack import Ahead, Foretold
    from bayesicl.study import Study

STACK = "stack"
SHOTS = [0, 10, 100, 1000]  # of a forecast, where none are asked for
ORIGINS = "origins"  # folder of fits from which the laws were weighed
KEPT = 250  # draws a chain of a fit at an origin, as in benchmarks/forecast.py
TRIED = 5  # cells of the shortest fits on which forecasts were tried (benchmarks/forecast.py)
FAR = 30  # times the fitted shots, beyond which they held too little: HELD
# In 90 % bands, of all splits (benchmarks/README.md):
HELD = "40 % of 48 cells of long-context curves, 91 % of 22 of two small models'"
LONGER = "--warmup and --draws (all fits are then made anew)"


@dataclass(frozen=True)
class Stacked:
    """A study's fits under the laws of the stack, and their weights.

    usual: the weights before any forecast. heard: what speaks against all of its laws (see
    `alarm`). factor: by which bands are wider for that. complaint: that its laws could not be
    weighed, since no origin is left of which all fits passed; "" where one is, or there are none.
    """

    study: str
    trees: "list[xr.DataTree]"
    usual: list[float]
    weights: list[float]
    heard: "Heard"
    factor: float
    complaint: str

    @property
    def laws(self) -> list[str]:
        """Names of the laws, in the order of the weights."""
        return [str(tree.attrs["law"]) for tree in self.trees]


def stacks(curves: "Curves", args: argparse.Namespace, failures: list[str]) -> Iterator[Stacked]:
    """Fit, weigh, and give one study after the other; `failures` takes why some fits are not."""
    from bayesicl.combine import combine
    from bayesicl.curves import Curves
    from bayesicl.files import load
    from bayesicl.law import load_law
    from bayesicl.population import NAME, load_population
    from bayesicl.settings import Settings
    from bayesicl.stack import at_origin, by_origin, origins

    label, times = Counter(study.label for study in curves).most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} studies are all called {label!r}: give them other names")
    prior = args.prior or NAME
    told = load_population(prior).weights
    own = [law for law in args.law if law != STACK]
    laws = [
        law
        for law in chosen_laws(None, curves.scale, prior, beside=own)
        if not told or told.get(law.base, 0.0) > 0
    ]
    named = {load_law(law).name for law in own}
    if told and (bare := sorted(named - {law.base for law in laws})):
        raise InputError(
            f"prior {prior} gives law {bare[0]} no weight in a stack; add one under its `weights`"
        )
    usual = {law.name: told.get(law.base, 1.0) for law in laws}
    if len(laws) == 1:
        common.say(f"the stack is of one law, {laws[0].name}: nothing is weighed")
    noise = learned_noise(curves, "misfit", prior)
    args.shots = args.shots or _near(SHOTS, curves)
    settings = Settings(chains=args.chains, warmup=args.warmup, draws=args.draws)

    def batch(some: Curves, out: Path, keep: int | None) -> Batch:
        return planned(
            some, laws, out, settings=settings, noise=noise, seed=args.seed, device=args.device,
            ending=args.format, keep=keep, executor=args.executor,
        )  # fmt: skip

    def fits(batch: Batch) -> dict[tuple[str, str], Path]:
        rows = made(batch, remark=False)  # falls are told once, by the stack
        failures.extend(row.failure for row in rows)
        return {(r.gates["study"], r.gates["law"]): r.path for r in rows if not r.failure}

    first = batch(curves, Path(args.out), args.keep_draws)
    ahead = {}
    for k in sorted({k for study in curves for k in origins(study)}):
        some = tuple(at_origin(study, k) for study in curves if k in origins(study))
        ahead[k] = batch(replace(curves, studies=some), Path(args.out, ORIGINS, str(k)), KEPT)
    tell([first, *ahead.values()])
    whole = fits(first)
    earlier: dict[str, list[Path]] = {}
    for k, some in ahead.items():
        if not some.whole:
            n = len({task.study.label for task in some.tasks})
            common.say(f"leaving the future out: the first {k} cells of {n} studies")
        for (study, _), path in fits(some).items():
            earlier.setdefault(study, []).append(path)
    with TemporaryDirectory() as folder:
        before = _Before(folder, curves, earlier, args.seed)
        for study in curves:
            trees = {law: load(path) for (name, law), path in whole.items() if name == study.label}
            if not trees:
                continue
            found, asked = before.of(study.label), len(origins(study))
            left, tried = len(by_origin(found, trees)), asked * len(trees)
            passed = sum(one.law in trees for one in found)
            failed = _failed(tried - passed, tried, left, asked)
            others = before.others(study.label, tuple(trees))
            weights, heard, factor = combine(trees, found, usual, others, seed=args.seed)
            cautions = [*heard.cautions, *_untried(study, max(args.shots))]
            cautions += [failed] if failed else []
            whole_of = sum(usual[law] for law in trees)
            yield Stacked(
                study.label,
                list(trees.values()),
                [usual[law] / whole_of for law in trees],
                [weights[law] for law in trees],
                heard._replace(cautions=cautions),
                factor,
                f"{study.label}: {failed}" if failed and not left else "",
            )


def _near(shots: Sequence[int], curves: "Curves") -> list[int]:
    """Those of the shots that lie within FAR times what was fitted of every curve.

    Says where it leaves some out: nobody asked for them, and bands so far ahead held too little.
    """
    last, label = min((_last(study), study.label) for study in curves)
    found = [n for n in shots if n <= FAR * last]
    if len(found) < len(shots):
        left = ", ".join(map(str, shots[len(found) :]))
        common.say(
            f"left out: {left} shots, over {FAR} times the fitted ones ({last} of {label}); so far "
            f"ahead 90 % bands held {HELD}. Name them with --shots to have them"
        )
    return found


def _last(study: "Study") -> int:
    """The longest shots that were fitted of all its curves, or 1 if that is 0."""
    return max(int(study.cells.loc[study.cells["fitted"], "shots"].max()), 1)


def _untried(study: "Study", asked: int) -> list[str]:
    """What of a forecast is beyond what forecasts were tried on; asked: the last shots of it."""
    fitted, cautions = int(study.cells["fitted"].sum()), []
    if fitted < TRIED:
        cautions.append(
            f"{fitted} cells were fitted: much of the forecast may be what is usual of other "
            f"curves, and it was never tried on fewer than {TRIED}"
        )
    if asked > FAR * _last(study):
        cautions.append(
            f"{asked} shots are over {FAR} times those fitted: so far ahead 90 % bands of "
            f"probability held {HELD}"
        )
    return cautions


class _Before:
    """Forecasts of each study's fitted cells from its origins, by label.

    Draws of many studies would fill the memory: they lie in this folder until they are asked for.
    """

    def __init__(
        self, folder: str, curves: "Curves", fits: Mapping[str, Sequence[Path]], seed: int
    ):
        from bayesicl.files import load
        from bayesicl.stack import ahead

        self.places = {one.label: Path(folder, str(i)) for i, one in enumerate(curves)}
        self.bare: dict[str, list[Ahead]] = {}
        with status() as show:
            for study in curves:
                found = ahead(map(load, fits.get(study.label, ())), study, seed=seed)
                self.places[study.label].write_bytes(pickle.dumps(found))
                self.bare[study.label] = [one.bare() for one in found]
                show(f"weighing laws by forecasts of {len(self.bare)} of {len(curves)} studies")
        self.tables: dict[tuple[str, ...], dict[str, Foretold]] = {}

    def of(self, study: str) -> "list[Ahead]":
        """A study's own, with draws."""
        return pickle.loads(self.places[study].read_bytes())

    def others(self, study: str, laws: tuple[str, ...]) -> "list[Foretold]":
        """What laws foretold of the other studies."""
        from bayesicl.stack import foretold

        if laws not in self.tables:
            self.tables[laws] = {name: foretold(one, laws) for name, one in self.bare.items()}
        return [one for name, one in self.tables[laws].items() if name != study]


def _failed(failed: int, tried: int, left: int, origins: int) -> str:
    """What to say of fits at origins of which some are missing or failed; left: whole origins."""
    if not failed:
        return ""
    what = f"{failed} of {tried} fits to the first cells alone did not converge or broke down"
    if left:
        return (
            f"{what}: {origins - left} of {origins} origins count neither for weights nor for "
            f"alarms; the forecast stands without them; they may be won back by more {LONGER}"
        )
    return (
        f"{what}, and no origin is left: laws are weighed by the prior and the table's other "
        f"studies alone, and no alarm looked at what cells foresaw; give more {LONGER}"
    )
