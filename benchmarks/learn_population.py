"""Learn the prior that comes with bayesicl (`LAW@population`) from the sources' whole curves.

    python benchmarks/learn_population.py --data DIR --out DIR [--laws NAME ...]
    python benchmarks/learn_population.py --data DIR --out DIR --stack FORECAST/stack.csv

Every curve that is neither a failure case nor without learning is fitted by itself, with the law's
misfit, under the declared priors; fits are kept in --out, and the same command goes on where it was
killed. Then `bayesicl.learn` finds what is usual. Sources count alike, and so do the curves of a
source. Writes --out/all.json; without-SOURCE.json for each source, and without-models-FOLD.json for
each fold of the models of all: forecasts are judged under a prior that has not seen their source,
or their model. With --stack, all.json tells with which weights a stack starts: those that
forecast.py, whose --out is FORECAST, found with nothing left out.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import xarray as xr
from holdouts.sides import NOTHING, OTHERS, STARTED, WHOLE, prior_without
from holdouts.sources import (
    FOLDS,
    NO_LEARNING,
    SOURCES,
    committed_failures,
    folds,
    read_sources,
)

from bayesicl.cli.batch import fit_and_save
from bayesicl.cli.chosen import chosen_laws
from bayesicl.curves import Curves
from bayesicl.files import load
from bayesicl.learn import learn
from bayesicl.settings import Settings

LAWS = ("power", "hill", "discounted_scoring")


def starting_weights(path: Path, laws: Sequence[str]) -> dict[str, float]:
    """Weights of laws before any was tried, from the table of a stack under `LAW@others`."""
    table = pd.read_csv(path).set_index("source")
    own = table.loc[f"{STARTED} {NOTHING}"]
    return {law: round(float(own[f"{law}{OTHERS}:misfit{OTHERS}"]), 3) for law in laws}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with the sources' CSV files")
    add("--out", type=Path, required=True, help="folder for fits and priors")
    add("--laws", nargs="+", default=list(LAWS), metavar="NAME")
    add("--stack", type=Path, metavar="CSV", help="stack.csv of forecast.py, without --usual")
    add("--keep", type=int, default=250, help="draws a chain that are kept (default 250)")
    add("--warmup", type=int, default=Settings().warmup)
    add("--draws", type=int, default=Settings().draws)
    args = parser.parse_args()
    sources = read_sources(args.data, list(SOURCES))
    failures = committed_failures(sources)
    bank = {
        source: [
            study
            for study in studies
            if (source, *study.key.values()) not in failures and len(study.hypotheses) == 1
        ]
        for source, studies in sources.items()
        if source not in NO_LEARNING
    }
    found: list[tuple[str, int, xr.DataTree]] = []
    for source, studies in bank.items():
        curves = Curves(tuple(studies), pd.DataFrame(), studies[0].outcome, source)
        rows = fit_and_save(
            curves,
            chosen_laws(args.laws, curves.scale),
            args.out / source,
            settings=Settings(warmup=args.warmup, draws=args.draws),
            noise="misfit",
            keep=args.keep,
            executor="processes=2",
        )
        every = sources[source]
        part = {study.label: fold for study, fold in zip(every, folds(every), strict=True)}
        found += [(source, part[r.gates["study"]], load(r.path)) for r in rows if not r.failure]
    for left_out in (None, *bank, *range(FOLDS)):
        here = [(source, tree) for source, fold, tree in found if left_out not in (source, fold)]
        count = Counter(source for source, _ in here)
        groups = [source for source, _ in here]
        said = ", ".join(f"{name} ({n // len(args.laws)} curves)" for name, n in count.items())
        record = learn([tree for _, tree in here], source=said, groups=groups)
        name = WHOLE if left_out is None else prior_without(left_out)
        if name == WHOLE and args.stack:
            record["weights"] = starting_weights(args.stack, args.laws)
        (args.out / name).write_text(json.dumps(record, indent=1) + "\n")
        print(f"{name}: {said}")


if __name__ == "__main__":
    main()
