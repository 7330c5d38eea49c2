"""The demo: the whole story on measured curves, told from what comes out.

No finding is written here: every sentence about the curves is made of the numbers of this run.
"""

import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pandas as pd
import xarray as xr

from bayesicl import data
from bayesicl.cli import common
from bayesicl.cli.batch import fit_and_save, gate_row
from bayesicl.cli.chosen import chosen_laws
from bayesicl.cli.plot import figures_of_fits, figures_over_fits
from bayesicl.cli.progress import status
from bayesicl.cli.tables import write_table
from bayesicl.compare import compare
from bayesicl.contrast import contrast, verdict
from bayesicl.curves import Curves, read_curves
from bayesicl.files import load
from bayesicl.plot import plot_comparison, save_figure
from bayesicl.score import score, score_cells
from bayesicl.settings import Settings
from bayesicl.summary import summarise
from bayesicl.tree import label, law_label, study_of

ONE, TWO = "past_tense", "patience"  # tasks of one hypothesis and of two, under gold labels
LAWS = {ONE: ("scoring", "power"), TWO: ("scoring",)}
# Thinned, so that curves take few cells and all of them the same: programs are compiled once.
THINNED = "(shots <= 20 or shots % 4 == 0)"
PART = "25%"


def story(out: str | Path = "demo") -> int:
    """Tell it, and keep fits/, tables/ and figures/ in `out`; 3 if some fit did not converge."""
    start, out = time.monotonic(), common.writable_folder(out)
    curves = _read()
    fits = _fit(curves, out)
    every = [*fits[ONE], *fits[TWO]]
    _summarise(fits, out)
    comparison = _compare(fits[ONE], out)
    held_out = _forecast(curves[ONE], out)
    _contrast(fits[TWO], out)
    _draw(every, held_out, comparison, out)
    print(f"\nDone in {time.monotonic() - start:.0f} s. Fits, tables and figures are in {out}.")
    return common.finish(map(common.complaint, [*every, *held_out]))


def _step(title: str, *commands: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}")
    for command in commands:
        print(f"$ bayesicl {command}")
    if commands:
        print()


def _rows(task: str) -> str:
    return f"{THINNED} and task == '{task}' and labels == 'gold'"


def _read() -> dict[str, Curves]:
    _step("1. The curves")
    whole = pd.read_csv(data.path(), usecols=["task", "shots"])
    print(
        f"{data.path().name} holds {len(whole)} measurements of two small language models on "
        f"{whole['task'].nunique()} tasks, up to {whole['shots'].max()} shots.\n"
        "To be short, the demo takes two tasks with their right answers (permuted ones are there, "
        "too), and\nof them shots 0 to 20, then every 4th.\n"
        f"A cell is the mean probability of the answer over orders of the demonstrations.\n"
    )
    curves = {task: read_curves(data.path(), outcome="nll", where=_rows(task)) for task in LAWS}
    rows = []
    for study in chain(*curves.values()):
        for h, hypothesis in enumerate(study.hypotheses):
            cells = study.cells[study.cells["hypothesis"] == h].set_index("shots")
            row = {"study": study.label, "hypothesis": hypothesis, "cells": len(cells)}
            rows.append(row | {f"p at {n} shots": cells["y"].get(n) for n in (0, 4, 16, 40)})
    common.show(pd.DataFrame(rows))
    return curves


def _fit(curves: dict[str, Curves], out: Path) -> dict[str, list[xr.DataTree]]:
    folders = {task: out / "fits" / task for task in LAWS}
    _step(
        "2. Fits",
        *(
            f'fit {data.path()} --outcome nll --where "{_rows(task)}" --law {" ".join(laws)} '
            f"--out {folders[task]}"
            for task, laws in LAWS.items()
        ),
    )
    fits = {task: _trees(curves[task], laws, folders[task]) for task, laws in LAWS.items()}
    _gates([*fits[ONE], *fits[TWO]])
    for law in dict.fromkeys(map(law_label, fits[ONE])):
        if " = " in law:
            print(f"{law}: with one hypothesis and one background these are one function.")
    return fits


def _trees(curves: Curves, laws: Sequence[str], folder: Path) -> list[xr.DataTree]:
    rows = fit_and_save(curves, chosen_laws(laws, curves.scale), folder, settings=Settings())
    if failures := [row.failure for row in rows if row.failure]:
        raise RuntimeError(f"the demo's own fits broke down: {'; '.join(failures)}")
    return [load(row.path) for row in rows]


def _gates(trees: Sequence[xr.DataTree]) -> None:
    table = pd.DataFrame([gate_row(label(tree), tree.attrs) for tree in trees])
    common.show(table)
    failed = sum(not passed for passed in table["passed"])
    if failed:
        print(f"\n{failed} of {len(table)} did NOT pass: do not rely on what follows from them.")
    else:
        print("\nAll passed: chains agree (R-hat), draws are enough (ESS), none diverged.")


def _summarise(fits: dict[str, list[xr.DataTree]], out: Path) -> None:
    _step("3. What the fits tell, and what they cannot", f"summary {out / 'fits' / TWO}")
    summaries = {task: [summarise(tree) for tree in fits[task]] for task in fits}
    print("\n\n".join(summary.text for summary in summaries[TWO]))
    trees, summaries = list(chain(*fits.values())), list(chain(*summaries.values()))
    tables = [common.named(t, s.table) for t, s in zip(trees, summaries, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    path = write_table(table, out / "tables" / "parameters.csv")
    lost = sum(not known for known in table["identified"])
    print(
        f"\nOf the {len(table)} numbers that these {len(trees)} fits report, {lost} are not "
        "identified: the data narrowed them too little, or they move with the prior.\n"
        f"All numbers are in {path}."
    )


def _compare(trees: Sequence[xr.DataTree], out: Path) -> pd.DataFrame:
    _step(f"4. Which law describes {ONE} better?", f"compare {out / 'fits' / ONE}")
    with status() as progress:
        comparison = compare(trees, progress=progress)
    write_table(comparison.table, out / "tables" / "comparison.csv")
    write_table(comparison.studies, out / "tables" / "comparison_studies.csv")
    common.show(comparison.table)
    print(f"\n{comparison.verdict}")
    return comparison.table


def _forecast(curves: Curves, out: Path) -> list[xr.DataTree]:
    folder = out / "fits" / f"{ONE}-first-{PART}"
    laws = LAWS[ONE]
    _step(
        f"5. Forecast: fit the first {PART} of each curve, score the rest",
        f'forecast {data.path()} --outcome nll --where "{_rows(ONE)}" --law {" ".join(laws)} '
        f"--fit-shots {PART} --out {folder}",
    )
    part = curves.hold_out(fit_shots=PART)
    trees = _trees(part, laws, folder)
    _gates(trees)
    cells = pd.concat([score_cells(tree) for tree in trees], ignore_index=True)
    scores = score(cells)
    write_table(cells, out / "tables" / "forecast_cells.csv")
    write_table(scores, out / "tables" / "forecast_scores.csv")
    print()
    common.show(scores)
    print()
    for row in scores.to_dict("records"):
        print(
            f"{row['law']}: the 90 % intervals hold {100 * row['coverage 90%']:.0f} % of "
            f"{row['cells']} held-out cells; its medians are off by {row['mae']:.3f} on average."
        )
    best = scores.sort_values("crps")["law"].iloc[0]
    print(
        f"The best (lowest) CRPS is that of {best}; {scores['curves'].iloc[0]} curves are too few "
        "to make a rule of it."
    )
    return trees


def _contrast(trees: Sequence[xr.DataTree], out: Path) -> None:
    first, second = (study_of(tree).key["model"] for tree in trees)
    _step("6. Contrast", f"contrast {out / 'fits' / TWO} --between model={first},{second}")
    table = contrast(trees, between=("model", first, second))
    write_table(table, out / "tables" / "contrast.csv")
    print(f"{second} minus {first}, 90% intervals")
    common.show(table.drop(columns=["task", "first", "second"]))
    print(f"\n{verdict(table)}")
    print(
        "These two models differ in size, training data and maker as well as in tuning, so no "
        "difference here is the effect of tuning."
    )


def _draw(
    trees: Sequence[xr.DataTree],
    held_out: Sequence[xr.DataTree],
    comparison: pd.DataFrame,
    out: Path,
) -> None:
    folder = out / "figures"
    _step(
        "7. Figures",
        *(f"plot {out / 'fits' / task} --out {folder}" for task in (ONE, TWO)),
        f"plot {out / 'fits' / f'{ONE}-first-{PART}'} --out {folder} --kind curves",
    )
    for name, figure in chain(
        figures_of_fits(trees, ("curves", "belief", "ppc")),
        figures_of_fits(held_out, ("curves",)),
        figures_over_fits(trees, ("forest",)),
        [("comparison", plot_comparison(comparison, title=ONE))],
    ):
        print(save_figure(figure, folder / f"{name}.png"))
