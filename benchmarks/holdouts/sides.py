"""Who forecasts: bayesicl's laws and their peers, each unit once, kept under a key."""

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from peers import Cells, Forecast
from scipy.special import logsumexp
from tqdm import tqdm

from bayesicl.code import code_hash
from bayesicl.curves import Curves
from bayesicl.errors import InputError
from bayesicl.execute import Job, executor_of
from bayesicl.files import load
from bayesicl.fit import attributes
from bayesicl.law import load_law
from bayesicl.noises import load_noise
from bayesicl.plan import plan
from bayesicl.score import HeldOut, held_out, held_out_cells, score_draws
from bayesicl.settings import Settings
from bayesicl.store import Store
from bayesicl.study import Study
from holdouts import reach
from holdouts.sources import Unit

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
    total = size[cells.index]
    density = log_density(cells["y"].to_numpy(), measured, 1.0 / total)
    if study.kind == "counts":  # bayesicl's log score of counts is that of a probability
        density = density - np.log(total)
    return HeldOut(cells, measured, curve, density)


def log_density(y: np.ndarray, draws: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Log density of y by normal kernels on draws (n, cells), of Silverman's width.

    Not narrower than half a count (`unit`); and one draw of n + 1 is uniform, so that a miss costs
    log(n + 1) nats at most.
    """
    n = len(draws)
    width = np.maximum(1.06 * draws.std(axis=0) * n**-0.2, unit / 2)
    z = (y - draws) / width
    kernels = -0.5 * z**2 - np.log(width * np.sqrt(2 * np.pi))
    return np.logaddexp(logsumexp(kernels, axis=0), 0.0) - np.log(n + 1)


# -- laws -----------------------------------------------------------------------------------------


def run_law(
    spec: str, units: Sequence[Unit], out: Path, *, processes: int, settings: Settings
) -> tuple[list[Scored | None], list[str]]:
    """Scores of a law for each unit, None where its fit broke down, and why.

    spec: LAW or LAW:NOISE.
    """
    name, _, noise = spec.partition(":")
    kept = Kept(out / "scored" / f"{spec.replace('/', '-')}.jsonl")
    code = _sources_hash(*HERE)
    source = load_law(name).source_hash
    keys, todo = [], []
    for number, unit in enumerate(units):
        what = name, noise, source, code_hash(), code, str(settings)
        keys.append(digest(unit_key(unit), *what))
        if keys[-1] not in kept.found:
            todo.append((number, noise or None))
    failures = []
    for number, path, failure in _fits(name, units, todo, out, settings, processes):
        unit = units[number]
        if failure:
            failures.append(f"{unit.study.label} ({', '.join(unit.splits)}), {spec}: {failure}")
            continue
        tree = load(path)
        rng = _rng(unit, spec)
        found = held_out(tree, seed=SEED)
        kept.add(keys[number], _scored(unit, found, bool(tree.attrs["passed"]), rng))
    return [kept.found.get(key) for key in keys], failures


def _fits(
    law: str,
    units: Sequence[Unit],
    todo: Sequence[tuple[int, str | None]],
    out: Path,
    settings: Settings,
    processes: int,
) -> Iterator[tuple[int, Path, str]]:
    """Number of the unit, where its fit is, and why there is none; those kept from before, too."""
    jobs, ready, folders = [], [], set()
    for number, noise in todo:
        unit = units[number]
        noise = load_noise(noise, unit.study.kind).name
        store = Store(out.resolve() / "fits" / unit.source / noise, "nc", N_DRAWS // CHAINS)
        store.folder.mkdir(parents=True, exist_ok=True)
        if store.folder not in folders:
            folders.add(store.folder)
            store.prepare()
        curves = Curves((unit.study,), pd.DataFrame(), unit.study.outcome, unit.source)
        [task] = plan(curves, law, noise=noise)
        path = store.place(task.study, task.law.name)
        try:
            found = store.finished(path, attributes(task, settings, SEED, "cpu"))
        except InputError:
            found = None  # made with other code or settings
        if found is None:
            jobs.append(Job(number, task, settings, SEED, "cpu", store, path))
        else:
            ready.append((number, path, ""))
    spread = executor_of(f"processes={processes}", len(jobs), "cpu")
    with tqdm(total=len(todo), desc=law, file=sys.stderr, mininterval=5) as bar:
        for one in ready:
            yield one
            bar.update()
        places = {job.number: job.path for job in jobs}
        for outcome in spread(jobs, lambda what: None):
            yield outcome.number, places[outcome.number], outcome.failure
            bar.update()
