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
from bayesicl.cli.chosen import chosen_laws, learned_noise
from bayesicl.cli.fit import fit_and_save
from bayesicl.cli.progress import status
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from bayesicl.alarm import Heard
    from bayesicl.curves import Curves
    from bayesicl.stack import Ahead, Foretold
    from bayesicl.study import Study

STACK = "stack"
ORIGINS = "origins"  # folder of fits from which the laws were weighed
KEPT = 250  # draws a chain of a fit at an origin, as in benchmarks/forecast.py
TRIED = 5  # cells of the shortest fits on which forecasts were tried (benchmarks/forecast.py)
FAR = 30  # times the fitted shots, beyond which they held too little: of long_context_icl, HELD
HELD = "46 %"  # of cells in 90 % bands


@dataclass(frozen=True)
class Stacked:
    """A study's fits under the laws of the stack, and their weights.

    heard: what speaks against all of its laws (see `alarm`). factor: by which bands are wider for
    that. left_out: what to say of fits at origins that failed their gates; "" if none did.
    """

    study: str
    trees: "list[xr.DataTree]"
    weights: list[float]
    heard: "Heard"
    factor: float
    left_out: str

    @property
    def laws(self) -> list[str]:
        """Names of the laws, in the order of the weights."""
        return [str(tree.attrs["law"]) for tree in self.trees]


def stacks(curves: "Curves", args: argparse.Namespace, failures: list[str]) -> Iterator[Stacked]:
    """Fit, weigh, and give one study after the other; `failures` takes why some fits are not."""
    from bayesicl.combine import combine
    from bayesicl.curves import Curves
    from bayesicl.files import load
    from bayesicl.population import NAME, load_population
    from bayesicl.settings import Settings
    from bayesicl.stack import at_origin, origins

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
    usual = {law.name: told.get(law.base, 1.0) for law in laws}
    noise = learned_noise(curves, "misfit", prior)
    settings = Settings(chains=args.chains, warmup=args.warmup, draws=args.draws)

    def fits(some: Curves, out: Path, keep: int | None) -> dict[tuple[str, str], Path]:
        rows = fit_and_save(
            some, laws, out, settings=settings, noise=noise, seed=args.seed,
            device=args.device, ending=args.format, keep=keep, executor=args.executor,
            remark=False,  # falls are told once, by the stack
        )  # fmt: skip
        failures.extend(row.failure for row in rows)
        return {(r.gates["study"], r.gates["law"]): r.path for r in rows if not r.failure}

    whole = fits(curves, Path(args.out), args.keep_draws)
    earlier: dict[str, list[Path]] = {}
    for k in sorted({k for study in curves for k in origins(study)}):
        some = tuple(at_origin(study, k) for study in curves if k in origins(study))
        common.say(f"leaving the future out: the first {k} cells of {len(some)} studies")
        found = fits(replace(curves, studies=some), Path(args.out, ORIGINS, str(k)), KEPT)
        for (study, _), path in found.items():
            earlier.setdefault(study, []).append(path)
    with TemporaryDirectory() as folder:
        before = _Before(folder, curves, earlier, args.seed)
        for study in curves:
            trees = {law: load(path) for (name, law), path in whole.items() if name == study.label}
            if not trees:
                continue
            found, made = before.of(study.label), len(earlier.get(study.label, []))
            others = before.others(study.label, tuple(trees))
            weights, heard, factor = combine(trees, found, usual, others, seed=args.seed)
            heard = heard._replace(cautions=[*heard.cautions, *_untried(study, max(args.shots))])
            yield Stacked(
                study.label,
                list(trees.values()),
                [weights[law] for law in trees],
                heard,
                factor,
                _left_out(study.label, made - len(found), made),
            )


def _untried(study: "Study", asked: int) -> list[str]:
    """What of a forecast is beyond what forecasts were tried on; asked: the last shots of it."""
    fitted, cautions = study.cells.loc[study.cells["fitted"], "shots"], []
    if len(fitted) < TRIED:
        cautions.append(
            f"{len(fitted)} cells were fitted: much of the forecast may be what is usual of other "
            f"curves, and it was never tried on fewer than {TRIED}"
        )
    if asked > FAR * max(fitted.max(), 1):
        cautions.append(
            f"{asked} shots are over {FAR} times those fitted: so far ahead 90 % bands of "
            f"probability held {HELD} of cells of real curves"
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


def _left_out(study: str, failed: int, made: int) -> str:
    if not failed:
        return ""
    return (
        f"not converged, and left out with their origins: {failed} of {made} fits by which the "
        f"laws of {study} are weighed"
    )
