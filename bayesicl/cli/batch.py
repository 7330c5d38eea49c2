"""Fits that one command makes into a folder: what of them is there, and making the others."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common
from bayesicl.cli.progress import status
from bayesicl.errors import InputError

if TYPE_CHECKING:
    from bayesicl.curves import Curves
    from bayesicl.execute import Executor, Job
    from bayesicl.law import Law
    from bayesicl.plan import Task
    from bayesicl.settings import Settings
    from bayesicl.store import Store


@dataclass(frozen=True)
class Row:
    """What is kept of a fit while others are made. number: of its task. path: where it was saved.

    gates: how it went, in one row. complaint: why it is not to be relied on. failure: why there is
    none. remarks: what is odd about its data. Each is "" where all is well.
    """

    number: int
    path: Path
    gates: dict[str, Any]
    complaint: str = ""
    failure: str = ""
    remarks: str = ""


@dataclass(frozen=True)
class Batch:
    """Fits of one folder, planned. out: its name. kept: those that are there, by number of task.

    anew: why fits that are there are made anew, and how many for each reason.
    """

    out: str | Path
    tasks: "list[Task]"
    store: "Store"
    settings: "Settings"
    seed: int
    device: str
    spread: "Executor"
    kept: dict[int, Row] = field(default_factory=dict)
    anew: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        """Nothing is left to be made."""
        return len(self.kept) == len(self.tasks)


def fit_and_save(
    curves: "Curves", laws: "Sequence[Law]", out: str | Path, *, remark: bool = True, **how: Any
) -> list[Row]:
    """Fit every study under every law into a folder, but for what is finished there.

    Whatever can be wrong with the input is found before the folder is touched. how: see `planned`.
    remark: say what fits find odd about their data.
    """
    batch = planned(curves, laws, out, **how)
    tell([batch])
    return made(batch, remark=remark)


def planned(
    curves: "Curves",
    laws: "Sequence[Law]",
    out: str | Path,
    *,
    settings: "Settings",
    noise: str | None = None,
    backgrounds: int = 1,
    seed: int = 0,
    device: str = "cpu",
    ending: str = "nc",
    keep: int | None = None,
    executor: str = "auto",
) -> Batch:
    """What is to be fitted, and what of it is there; nothing is written.

    Raises InputError where something is wrong with the input, or where a fit under another noise or
    prior would be replaced.
    """
    from bayesicl.device import precision
    from bayesicl.execute import executor_of
    from bayesicl.files import check_ending
    from bayesicl.fit import attributes
    from bayesicl.plan import plan
    from bayesicl.store import Store

    tasks = plan(curves, laws, noise=noise, backgrounds=backgrounds)
    spread = executor_of(executor, len(tasks), device)
    check_ending(ending)
    with precision(device):
        pass
    store = Store(Path(out).resolve(), ending, keep)
    for task in tasks:
        store.spare(task.study, task.law, task.noise)
    batch = Batch(out, tasks, store, settings, seed, device, spread)
    with status() as show:
        for number, task in enumerate(tasks):
            path = store.place(task.study, task.law.name)
            try:
                found = store.finished(path, attributes(task, settings, seed, device))
            except InputError as error:
                found = None
                batch.anew[str(error)] += 1
            if found is not None:
                batch.kept[number] = _made(number, path, task, found)
            show(f"looking for finished fits: {number + 1} of {len(tasks)}")
    return batch


def tell(batches: Sequence[Batch]) -> None:
    """Say in a line each what is kept, and what is made anew and why, before anything is lost."""
    total = sum(len(batch.tasks) for batch in batches)
    if kept := sum(len(batch.kept) for batch in batches):
        common.say(f"{kept} of {total} fits were finished before and are kept")
    if anew := sum((batch.anew for batch in batches), Counter()):
        why = [f"{n} {reason}" for reason, n in anew.most_common()]
        common.say(
            f"{anew.total()} of {total} fits are made anew, in the place of those in "
            f"{batches[0].out}: {'; '.join(why)}"
        )
    if len(batches) > 1 and total > kept:
        common.say(f"{total - kept} fits to make: of all that is fitted, and of its first cells")


def made(batch: Batch, *, remark: bool = True) -> list[Row]:
    """All fits of a batch, in the order of their tasks, once those that are not there are made."""
    from tqdm import tqdm

    common.writable_folder(batch.out)
    batch.store.prepare()
    rows, tasks = dict(batch.kept), batch.tasks
    with tqdm(
        total=len(tasks), initial=len(rows), file=sys.stderr, disable=True if batch.whole else None,
        dynamic_ncols=True, bar_format="{bar:20} {n_fmt}/{total_fmt} {elapsed} {desc}",
    ) as bar:  # fmt: skip
        for outcome in batch.spread(_jobs(batch), bar.set_description_str):
            number, task = outcome.number, tasks[outcome.number]
            path = batch.store.place(task.study, task.law.name)
            if outcome.bad_input:
                raise InputError(outcome.failure)
            if outcome.attrs is None:
                what = f"failed: {task.study.label}, {task.law.name}: {outcome.failure}"
                rows[number] = Row(number, path, {}, failure=what)
            else:
                if remark:
                    warn(outcome.attrs)
                rows[number] = _made(number, path, task, outcome.attrs)
            bar.update()
            if bar.disable and not rows[number].failure:  # no terminal
                gates = rows[number].gates
                passed = "passed" if gates["passed"] else "NOT CONVERGED"
                common.say(f"{gates['study']}, {gates['law']}: {passed} ({outcome.seconds:.1f} s)")
    odd = sum(bool(row.remarks) for row in rows.values())
    if remark and odd and len(tasks) > 1:
        common.say(f"{odd} of {len(tasks)} fits have warnings: see that column of the summary")
    return [rows[number] for number in sorted(rows)]


def _jobs(batch: Batch) -> "Iterator[Job]":
    from bayesicl.execute import Job

    for number, task in enumerate(batch.tasks):
        if number not in batch.kept:
            path = batch.store.place(task.study, task.law.name)
            yield Job(number, task, batch.settings, batch.seed, batch.device, batch.store, path)


def _made(number: int, path: Path, task: "Task", attrs: Mapping[str, Any]) -> Row:
    gates = gate_row(task.study.label, attrs)
    remarks = "; ".join(json.loads(attrs["warnings"]))
    return Row(number, path, gates, common.unreliable(task.study.label, attrs), remarks=remarks)


def warn(attrs: Mapping[str, Any]) -> None:
    """Warn of what a fit found odd about its data."""
    import warnings

    from bayesicl.errors import CurveWarning

    for remark in json.loads(attrs["warnings"]):
        warnings.warn(remark, CurveWarning, stacklevel=2)


def gate_row(study: str, attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """How the fit of a study went, in one row."""
    from bayesicl.tree import same_laws

    checks = json.loads(attrs["diagnostics"])
    return {
        "study": study,
        "law": same_laws(attrs),
        "passed": bool(attrs["passed"]),
        "worst_rhat": checks["rhat"],
        "ess_bulk": checks["ess_bulk"],
        "ess_tail": checks["ess_tail"],
        "divergences": checks["divergences"],
        "missed_cells": int(attrs["missed_cells"]),
        "warnings": len(json.loads(attrs["warnings"])),
        "fitted": float(attrs["fitted"]),
    }
