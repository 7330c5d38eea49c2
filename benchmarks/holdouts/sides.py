"""Who forecasts: bayesicl's laws and their peers, each unit once, kept under a key."""

import hashlib
import inspect
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from peers import Cells, Forecast
from scipy.special import logsumexp
from tqdm import tqdm

from bayesicl.combine import combine
from bayesicl.curves import Curves
from bayesicl.errors import InputError
from bayesicl.execute import Job, executor_of
from bayesicl.files import load
from bayesicl.fit import attributes
from bayesicl.plan import Task, plan
from bayesicl.score import HeldOut, held_out, held_out_cells, score_draws
from bayesicl.settings import Settings
from bayesicl.stack import Ahead, ahead, at_origin, foretold, mix, origins, sound, stacking
from bayesicl.store import Store
from bayesicl.study import Study
from bayesicl.widen import widened_cells
from holdouts import reach
from holdouts.sources import NO_LEARNING, ROLLING, Unit

LEVELS = (0.5, 0.8, 0.9, 0.95)
N_DRAWS = 1000  # of a peer, and about as many of a law's fit are kept
SEED = 0
CHAINS = Settings().chains


class Scored(NamedTuple):
    """A side's scores of a unit, as it is kept. passed: the fit's gates; of a peer, True."""

    cells: dict[str, list]
    reach: list[dict[str, Any]]
    passed: bool


class Kept:
    """Scores of one side in a file of JSON lines, to which each unit adds one when it is done."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, Scored] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    key, *rest = json.loads(line)
                except ValueError:
                    continue  # cut off when the run was killed
                self.found[key] = Scored(*rest)

    def add(self, key: str, scored: Scored) -> None:
        """Keep it from now on."""
        self.found[key] = scored
        with self.path.open("a") as file:
            file.write("\n" + json.dumps([key, *scored]))  # after a line that was cut off, too


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:20]


def _sources_hash(*files: str) -> str:
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in sorted(files))).hexdigest()


def unit_key(unit: Unit) -> str:
    return digest(unit.study.hash, unit.study.cells["fitted"].tolist())


def _rng(unit: Unit, side: str) -> np.random.Generator:
    """A side's own for each unit, whatever else was changed in the code."""
    return np.random.default_rng(int(digest(unit_key(unit), side, SEED), 16))


HERE = (__file__, str(reach.__file__), inspect.getfile(score_draws))  # what scores depend on


def _scored(unit: Unit, found: HeldOut, passed: bool, rng: np.random.Generator) -> Scored:
    y = found.cells["y"].to_numpy()
    scores = score_draws(y, found.measured, found.log_score, rng=rng, levels=LEVELS)
    cells = pd.concat([found.cells.drop(columns="y").reset_index(drop=True), scores], axis=1)
    cells["ahead"] = cells.groupby("hypothesis").cumcount() + 1
    events = reach.events(unit.study, found.curve)
    columns = {str(name): cells[name].tolist() for name in cells}
    return Scored(columns, events, passed)


# -- peers ----------------------------------------------------------------------------------------


def run_peer(name: str, peer: Forecast, units: Sequence[Unit], out: Path) -> list[Scored]:
    """The scores of a peer for each unit."""
    own = inspect.getfile(getattr(peer, "func", peer))
    code = _sources_hash(*HERE, own, inspect.getfile(Cells))
    kept = Kept(out / "scored" / f"{name}.jsonl")
    rows = []
    for unit in tqdm(units, desc=name, file=sys.stderr, mininterval=5):
        key = digest(unit_key(unit), name, code)
        if key not in kept.found:
            rng = _rng(unit, name)
            with np.errstate(all="ignore"):
                found = peer_forecast(peer, unit.study, rng)
            kept.add(key, _scored(unit, found, True, rng))
        rows.append(kept.found[key])
    return rows


def peer_forecast(peer: Forecast, study: Study, rng: np.random.Generator) -> HeldOut:
    """What a peer says of each curve of a study, on which it sees the fitted cells alone."""
    cells = held_out_cells(study)
    measured, curve = (np.empty((N_DRAWS, len(cells))) for _ in range(2))
    size = (study.cells["total"] * study.cells["replicates"]).to_numpy()
    for h in range(len(study.hypotheses)):
        own = study.cells["hypothesis"] == h
        seen = own & study.cells["fitted"]
        ahead = own & ~study.cells["fitted"]
        place = cells.index.isin(study.cells.index[ahead])
        columns = study.cells[["shots", "y"]].to_numpy(float)
        before = Cells(columns[seen, 0], columns[seen, 1], size[seen])
        after = Cells(columns[ahead, 0], np.full(ahead.sum(), np.nan), size[ahead])
        measured[:, place], curve[:, place] = peer(before, after, rng, N_DRAWS)
    return HeldOut(cells, measured, curve, kernel_score(study, cells, measured))


def kernel_score(study: Study, cells: pd.DataFrame, measured: np.ndarray) -> np.ndarray:
    """The log score of draws of held-out cells that come without a density of their own."""
    total = (study.cells["total"] * study.cells["replicates"]).to_numpy()[cells.index]
    density = log_density(cells["y"].to_numpy(), measured, 1.0 / total)
    if study.kind == "counts":  # bayesicl's log score of counts is that of a probability
        density = density - np.log(total)
    return density


def log_density(y: np.ndarray, draws: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Log density of y by normal kernels on draws (n, cells), of Silverman's width.

    Not narrower than half a count (`unit`); and one draw of n + 1 is uniform, so that a miss costs
    log(n + 1) nats at most.
    """
    n = len(draws)
    width = np.maximum(1.06 * draws.std(axis=0) * n**-0.2, unit / 2)
    z = (y - draws) / width
    kernels = -0.5 * z**2 - np.log(width * np.sqrt(2 * np.pi))
    return np.logaddexp(np.asarray(logsumexp(kernels, axis=0)), 0.0) - np.log(n + 1)


# -- laws -----------------------------------------------------------------------------------------


OTHERS = "@others"  # the prior that has not seen the unit's source, or its model
UNSEEN = ("source", "model")
WHOLE = "all.json"  # the prior that has seen every source of the bank


@dataclass(frozen=True)
class How:
    """How laws are fitted.

    priors: folder of learn_population.py, for `OTHERS`. unseen: one of `UNSEEN`, what they have not
    seen of the unit.
    """

    out: Path
    settings: Settings
    processes: int = 2
    priors: Path | None = None
    unseen: str = "source"

    def named(self, name: str, unit: Unit) -> str:
        """The name of a law or noise, with the prior's file in the place of OTHERS."""
        if not name.endswith(OTHERS):
            return name
        if self.priors is None:
            raise InputError(f"{name}: say with --priors where learn_population.py put its priors")
        banked = unit.source not in NO_LEARNING
        file = prior_without(left_out(unit, self.unseen)) if banked else WHOLE
        return f"{name.removesuffix(OTHERS)}@{self.priors.resolve() / file}"


def prior_without(what: str | int) -> str:
    """Name of the file of the prior that has not seen a source, or a fold of the models of each."""
    return f"without-{what}.json" if isinstance(what, str) else f"without-models-{what}.json"


def run_law(spec: str, units: Sequence[Unit], how: How) -> tuple[list[Scored | None], list[str]]:
    """Scores of a law for each unit, None where its fit broke down, and why.

    spec: LAW or LAW:NOISE, each with a learned prior or without.
    """
    kept = Kept(how.out / "scored" / f"{spec.replace('/', '-')}.jsonl")
    code = _sources_hash(*HERE)
    tasks = [task_of(spec, unit, how) for unit in units]
    keys = [
        digest(unit_key(unit), spec, attributes(task, how.settings, SEED, "cpu"), code)
        for unit, task in zip(units, tasks, strict=True)
    ]
    todo = [i for i, key in enumerate(keys) if key not in kept.found]
    failures = []
    for i, path, failure in _fits(spec, [(i, units[i], tasks[i]) for i in todo], how):
        if failure:
            failures.append(_failure(units[i], spec, failure))
            continue
        tree = load(path)
        found = held_out(tree, seed=SEED)
        kept.add(
            keys[i], _scored(units[i], found, bool(tree.attrs["passed"]), _rng(units[i], spec))
        )
    return [kept.found.get(key) for key in keys], failures


def _failure(unit: Unit, spec: str, why: str) -> str:
    return f"{unit.study.label} ({', '.join(unit.splits)}), {spec}: {why}"


def task_of(spec: str, unit: Unit, how: How) -> Task:
    """What is fitted."""
    law, _, noise = spec.partition(":")
    curves = Curves((unit.study,), pd.DataFrame(), unit.study.outcome, unit.source)
    noise = how.named(noise, unit) or None
    [task] = plan(curves, how.named(law, unit), noise=noise)
    return task


def _fits(
    what: str, asked: Sequence[tuple[int, Unit, Task]], how: How
) -> Iterator[tuple[int, Path, str]]:
    """Number of the unit, where its fit is, and why there is none; those kept from before, too."""
    asked_of: dict[Path, list[int]] = {}  # splits may share a fit
    jobs, ready, folders = [], [], set()
    for number, unit, task in asked:
        folder = how.out.resolve() / "fits" / unit.source / digest(task.noise.name)
        store = Store(folder, "nc", N_DRAWS // CHAINS)
        if folder not in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folders.add(folder)
            store.prepare()
        path = store.place(task.study, task.law.name)
        asked_of.setdefault(path, []).append(number)
        if len(asked_of[path]) > 1:
            continue
        try:
            found = store.finished(path, attributes(task, how.settings, SEED, "cpu"))
        except InputError:
            found = None  # made with other code or settings
        if found is None:
            jobs.append(Job(len(jobs), task, how.settings, SEED, "cpu", store, path))
        else:
            ready.append(path)
    spread = executor_of(f"processes={how.processes}", len(jobs), "cpu")
    with tqdm(total=len(asked_of), desc=what, file=sys.stderr, mininterval=5) as bar:
        for path in ready:
            yield from ((number, path, "") for number in asked_of[path])
            bar.update()
        for outcome in spread(jobs, lambda what: None):
            path = jobs[outcome.number].path
            yield from ((number, path, outcome.failure) for number in asked_of[path])
            bar.update()


# -- stacks ---------------------------------------------------------------------------------------


def run_stack(
    specs: Sequence[str],
    usual: Sequence[float] | None,
    units: Sequence[Unit],
    how: How,
    strength: float,
) -> tuple[list[Scored | None], list[str], pd.DataFrame]:
    """Scores of a stack of laws for each unit, what failed, and each unit's weights and alarms.

    Of a unit whose bands are wider for an alarm the log score is that of before.

    specs: of its laws, as of `run_law`. usual: their weights before any of them was tried; None for
    those of `starting_weights`, from the units that `how.unseen` does not leave out.
    """
    asked, failures = [], []
    for i, unit in enumerate(units):
        early = [replace(unit, study=at_origin(unit.study, k)) for k in origins(unit.study)]
        asked += [(i, one, spec) for one in (unit, *early) for spec in specs]
    todo = [(n, unit, task_of(spec, unit, how)) for n, (_, unit, spec) in enumerate(asked)]
    before: dict[int, list[Ahead]] = {}
    parts: dict[int, dict[str, HeldOut]] = {}
    whole: dict[int, dict[str, Path]] = {}
    passed: dict[int, bool] = {}
    for n, path, failure in _fits("stack", todo, how):
        i, unit, spec = asked[n]
        if failure:
            failures.append(_failure(unit, spec, failure))
            continue
        tree = load(path)
        if unit is units[i]:
            passed[i] = passed.get(i, True) and bool(tree.attrs["passed"])
            parts.setdefault(i, {})[spec] = held_out(tree, seed=SEED)
            whole.setdefault(i, {})[spec] = path
        else:
            found = ahead([tree], units[i].study, seed=SEED)
            before.setdefault(i, []).extend(one._replace(law=spec) for one in found)
    parts = {i: found for i, found in parts.items() if len(found) == len(specs)}
    started = starting_weights(specs, units, parts, how.unseen)
    if usual:
        started = {what: dict(zip(specs, usual, strict=True)) for what in started}
    origins_of = {i: foretold(before.get(i, []), specs) for i in parts}
    out, weights = [], []
    for i, unit in enumerate(units):
        if i not in parts:
            out.append(None)
            continue
        start = started[left_out(unit, how.unseen)]
        trees = {s: load(whole[i][s]) for s in specs}
        others = [origins_of[j] for j in same_table(i, units) if j in parts]
        own, heard, factor = combine(
            trees, before.get(i, []), start, others, strength=strength, seed=SEED
        )
        found = mix([parts[i][s] for s in specs], [own[s] for s in specs], seed=SEED)
        found = widened_cells(found, unit.study, factor)
        out.append(_scored(unit, found, passed[i], _rng(unit, "stack")))
        names = {"source": unit.source, "study": unit.study.label, "splits": " ".join(unit.splits)}
        weights.append(names | own | {"alarms": "; ".join(heard.rung), "widened": factor})
    weights += [{"source": f"{STARTED} {what}"} | own for what, own in started.items()]
    return out, failures, pd.DataFrame(weights)


def same_table(i: int, units: Sequence[Unit]) -> list[int]:
    """Units that a user would have forecast together with unit i.

    They are of the other studies of its source, parted as it is by the first of its splits; at
    rolling origins, with as many cells fitted. Their fitted cells count whatever the prior has
    seen.
    """
    unit, found = units[i], {}
    for j, other in enumerate(units):
        alike = other.source == unit.source and unit.splits[0] in other.splits
        if alike and unit.splits[0] == ROLLING:
            alike = fitted_cells(other) == fitted_cells(unit)
        if alike and other.study.label != unit.study.label:
            found.setdefault(other.study.label, j)
    return list(found.values())


def fitted_cells(unit: Unit) -> int:
    """How many of them, of all curves."""
    return int(unit.study.cells["fitted"].sum())


def left_out(unit: Unit, unseen: str) -> str | int:
    """What priors and first weights by which a unit is judged have not seen: source, or fold."""
    return unit.source if unseen == "source" else unit.fold


NOTHING = "nothing"
STARTED = "weights before any was tried, without"  # of rows in the table of a stack's weights


def starting_weights(
    specs: Sequence[str], units: Sequence[Unit], parts: dict[int, dict[str, HeldOut]], unseen: str
) -> dict[str | int, dict[str, float]]:
    """By what is left out, `NOTHING` too, weights of laws before any was tried on a unit.

    Half way between equal ones, since the next source may be like none of these, and those with
    which the other units are best forecast: by the mixture's log score of held-out cells, where
    sources count alike, and so do the units of a source and the cells of a unit. Failures and
    curves without learning are left out.
    """
    fair = [i for i in parts if units[i].part == units[i].source]
    found = {}
    for what in (NOTHING, *dict.fromkeys(left_out(units[i], unseen) for i in parts)):
        seen = [i for i in fair if left_out(units[i], unseen) != what]
        n = Counter(units[i].source for i in seen)
        log_score = [np.stack([parts[i][s].log_score for s in specs], axis=1) for i in seen]
        log_score = [x[sound(x)] for x in log_score]
        share = [
            np.full(len(x), 1.0 / (max(len(x), 1) * n[units[i].source]))
            for i, x in zip(seen, log_score, strict=True)
        ]
        even = np.ones(len(specs)) / len(specs)
        some = any(map(len, log_score))
        w = stacking(np.concatenate(log_score), np.concatenate(share)) if some else even
        found[what] = dict(zip(specs, ((w + even) / 2).tolist(), strict=True))
    return found
