"""From curves to posteriors: one DataTree for each study and law."""

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from bayesicl.cache import signature
from bayesicl.chains import Chains
from bayesicl.code import code_hash
from bayesicl.curves import Curves, Study
from bayesicl.device import precision
from bayesicl.engine import Engine
from bayesicl.errors import FALL, FEW, CurveWarning
from bayesicl.fall import fall
from bayesicl.labels import Labels, Priors, to_tree
from bayesicl.law import AT, Law
from bayesicl.plan import Task, plan
from bayesicl.program import arrays, study_key
from bayesicl.retry import Progress, attempts, first_that_passes
from bayesicl.settings import Settings
from bayesicl.summary import missed, record
from bayesicl.tree import FORMAT, content_key


def fit(
    curves: Curves,
    laws: str | Path | Law | Sequence[str | Path | Law] = "scoring",
    *,
    noise: str | None = None,
    backgrounds: int = 1,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = lambda what: None,
) -> list[xr.DataTree]:
    """Fit every study under every law; each gets its own posterior.

    Args:
        curves: from `read_curves`, with cells held out or not.
        laws: names of laws or paths of law files.
        noise: how measurements scatter; None for the default of the outcome.
        backgrounds: hypotheses that may be believed but were not observed, >= 0.
        settings: chains, warm-up, draws.
        seed: of everything random.
        device: "cpu" (float64) or "gpu" (float32).
        progress: called with a line that says what is being done.

    Returns:
        ArviZ DataTrees in the order study by study, law by law. `attrs["passed"]` tells which may
        be trusted. Laws that are one function for a study are fitted once: general, sampling and
        scoring where hypotheses and backgrounds are two in all, general and sampling where one
        hypothesis has several backgrounds.

    Raises:
        InputError: unknown laws or noise, or a law that cannot fit a study.

    Example:
        >>> import pandas as pd
        >>> from bayesicl import fit, read_curves, Settings
        >>> correct = [2, 5, 7, 8, 8]
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4, 8], "correct": correct, "total": 10})
        >>> [tree] = fit(read_curves(table), "power", settings=Settings(warmup=100, draws=100))
        >>> sorted(tree["posterior"].data_vars)[:4]
        ['C', 'L', 'alpha', 'ceiling']
    """
    tasks = plan(curves, laws, noise=noise, backgrounds=backgrounds)
    return list(fits(tasks, settings=settings, seed=seed, device=device, progress=progress))


def fits(
    tasks: Iterable[Task],
    *,
    settings: Settings = Settings(),  # noqa: B008
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = lambda what: None,
) -> Iterator[xr.DataTree]:
    """Fit what `plan` planned, one task at a time; each is yielded when it is finished."""
    fitter = Fitter(settings, seed, device)
    for i, task in enumerate(tasks, 1):
        at = f"[{i}] {task.study.label}, {task.law.name}"
        tree = fitter(task, lambda what, at=at: progress(f"{at}: {what}"))
        for remark in json.loads(tree.attrs["warnings"]):
            warnings.warn(remark, CurveWarning, stacklevel=3)
        yield tree


class Fitter:
    """Fits one task after another, and keeps from each to the next what can be used again.

    That is programs once compiled, and draws of priors; neither changes what comes out.
    """

    def __init__(self, settings: Settings, seed: int = 0, device: str = "cpu"):
        """Nothing is compiled before the first task."""
        self.settings, self.seed, self.device = settings, seed, device
        self._kept: dict[tuple[str, str, str], tuple[Engine, Priors]] = {}
        self._first: dict[str, Chains] = {}

    def __call__(self, task: Task, progress: Progress = lambda what: None) -> xr.DataTree:
        """The fit of a task; what is odd about its data is told in attrs["warnings"]."""
        with precision(self.device):
            return self._fit(task, progress)

    def ahead(self, tasks: Sequence[Task], progress: Progress = lambda what: None) -> None:
        """Make the first attempts at many tasks, those of one shape at once: for a GPU.

        Where that fails, each task is tried by itself when its turn comes, and says why.
        """
        with precision(self.device):
            alike: dict[Any, list] = {}
            for task in tasks:
                with suppress(Exception):
                    engine, _ = self._engine(task)
                    study = arrays(task.study, backgrounds=task.backgrounds)
                    key = study_key(self.seed, task.study, task.law.name)
                    shape = id(engine), str(signature(study))
                    alike.setdefault(shape, []).append((engine, self._content(task), key, study))
            self._first.clear()
            for n, same in enumerate(alike.values(), 1):
                engines, names, keys, studies = zip(*same, strict=True)
                progress(f"{len(keys)} studies at once ({n} of {len(alike)} shapes)")
                try:
                    runs = engines[0].run_many(keys, studies)
                    self._first |= dict(zip(names, runs, strict=True))
                except Exception as error:
                    progress(f"one at a time, after {type(error).__name__}: {error}")

    def _content(self, task: Task) -> str:
        return content_key(attributes(task, self.settings, self.seed, self.device))

    def _engine(self, task: Task) -> tuple[Engine, Priors]:
        key = (task.law.name, task.law.source_hash, task.noise.name)
        if key not in self._kept:
            engine = Engine(task.law, task.noise, self.settings, device=self.device)
            self._kept[key] = engine, Priors(engine)
        return self._kept[key]

    def _fit(self, task: Task, progress: Progress) -> xr.DataTree:
        engine, priors = self._engine(task)
        engine.on_compile = lambda what: progress(f"compiling {what}")
        study = task.study
        design, data = arrays(study, backgrounds=task.backgrounds)
        outline = engine.outline(design, data)
        own = (shape for name, shape in outline.shapes.items() if name in outline.law)
        n_parameters = sum(map(math.prod, own))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CurveWarning)
            warn_misfits(study, task.law, n_parameters)
        key = study_key(self.seed, study, task.law.name)
        labels = Labels(engine, study, design, data)
        first = self._first.pop(self._content(task), None)
        runs = attempts(engine, key, design, data, progress, first=first)
        outcome = first_that_passes(engine, runs, labels, design, data)
        chains, values, checks, attempt = outcome
        progress("describing")
        before, last = priors.of(self.seed, design, data), jax.random.fold_in(key, 99)
        tree = to_tree(engine, chains, values, labels, study, design, data, before, last)
        tree.attrs = attributes(task, self.settings, self.seed, self.device) | {
            "draws_kept": "all",
            "law_parameters": json.dumps(labels.of_law),
            "attempts": attempt,
            "passed": int(checks.passed),
            "diagnostics": json.dumps(asdict(checks)),
            "warnings": json.dumps([str(w.message) for w in caught]),
            "warning_kinds": json.dumps([getattr(w.message, "kind", "") for w in caught]),
        }
        tree.attrs["missed_cells"] = len(missed(tree))
        tree.attrs["fitted"] = study.fraction
        tree["summary"] = xr.DataTree(record(tree))
        return tree


@cache
def _versions() -> str:
    libraries = ("bayesicl", "jax", "numpyro", "numpy", "arviz-base", "arviz-stats")
    return json.dumps({name: version(name) for name in libraries})


def attributes(task: Task, settings: Settings, seed: int, device: str) -> dict[str, Any]:
    """What the fit of a task would depend on, before it is made: see `tree.content_key`."""
    study = task.study
    return {
        "bayesicl_format": FORMAT,
        "law": task.law.name,
        "law_path": "" if task.law.bundled else task.law.path,
        "law_hash": task.law.source_hash,
        "code_hash": code_hash(),
        "same_as": json.dumps(task.same),
        "noise": task.noise.name,
        "noise_hash": task.noise.source_hash,
        "backgrounds": task.backgrounds,
        "seed": seed,
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "device": device,
        "data_hash": study.hash,
        "fitted_hash": hashlib.sha256(study.cells["fitted"].to_numpy().tobytes()).hexdigest(),
        "versions": _versions(),
    }


def warn_misfits(study: Study, law: Law, n_parameters: int) -> None:
    """Warn where a study has fewer cells than the law parameters, or worsens as the law cannot."""
    n_cells = int(study.cells["fitted"].sum())
    if n_cells < n_parameters and AT not in law.name:  # a learned prior is there for that
        warnings.warn(
            CurveWarning(
                f"{study.label}: {n_cells} cells for the {n_parameters} parameters of "
                f"{law.name}: much of what comes out is the prior",
                FEW,
            ),
            stacklevel=2,
        )
    fitted = study.cells[study.cells["fitted"]]
    for h in range(len(study.hypotheses)):
        cells = fitted[fitted["hypothesis"] == h]
        if law.monotone and (worse := fall(cells, study.scale)):
            how = study.scale.worse
            message = f"{study.curve_name(h)}: {how}s {worse}; law {law.name} cannot {how}"
            warnings.warn(CurveWarning(message, FALL), stacklevel=2)
