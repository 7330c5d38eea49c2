"""Simulation-based calibration: does a fit's posterior mean what it says, for a law and a noise?

Where truths are drawn from the priors and measurements from the noise, a truth's rank among draws
of its posterior is uniform (Cook, Gelman & Rubin 2006; Talts et al. 2018, arXiv 1804.06788).
Studies are drawn (`simulate`), fitted as `fit` does, and the ranks tested (`uniformity`). None is
dropped: a study that fails its gates at last counts like any other.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from bayesicl.code import code_hash
from bayesicl.curves import Study
from bayesicl.device import precision
from bayesicl.engine import Engine
from bayesicl.errors import InputError
from bayesicl.identify import elements
from bayesicl.labels import Labels
from bayesicl.law import Law, load_law
from bayesicl.noise import Noise
from bayesicl.noises import kinds_of, load_noise
from bayesicl.plan import plan
from bayesicl.ranks import RANKED, Calibration, Ranked, calibration
from bayesicl.retry import attempts, first_that_passes
from bayesicl.settings import Settings
from bayesicl.simulate import Layout, declared, simulator
from bayesicl.writing import in_one_step


def calibrate(
    law: str | Path | Law,
    layout: Layout | None = None,
    *,
    simulations: int = 200,
    noise: str | None = None,
    backgrounds: int = 1,
    rows: bool = False,
    settings: Settings = Settings(),  # noqa: B008
    seed: int = 0,
    device: str = "cpu",
    folder: str | Path | None = None,
    progress: Callable[[int, str], None] = lambda done, what: None,
) -> Calibration:
    """Draw studies from the priors of a law and a noise, fit each as `fit` does, rank the truths.

    Args:
        law: name of a law or path of a law file.
        layout: what is measured of every study; None for the usual shots and the first kind of
            outcome on the law's scale.
        simulations: how many, at least 1. The first are the same however many there are.
        noise: how measurements scatter; None for the default of the layout's kind.
        backgrounds: hypotheses that may be believed but were not observed, >= 0.
        rows: simulate rows of a table instead of what the noise declares (see `simulate`): then
            the noise's approximations are tested as well.
        settings, device: as of `fit`.
        seed: of everything random.
        folder: where each finished simulation is kept; those found there of the same content (law,
            code, layout, settings, seed) are not made again.
        progress: called with the number of finished simulations and what is being done.

    Raises:
        InputError: a law, noise or number that cannot be used.

    Example:
        >>> from bayesicl import Settings
        >>> from bayesicl.calibrate import calibrate
        >>> short = Settings(warmup=100, draws=100)
        >>> found = calibrate("power", simulations=2, settings=short)
        >>> found.ranks.columns.tolist()
        ['C', 'alpha', 'L', 'scatter', 'p(3)', 'p(12)', 'p(192)']
    """
    if simulations < 1:
        raise InputError(f"--simulations must be at least 1, got {simulations}")
    law = load_law(law)
    layout = layout or Layout(kinds_of(law.scale)[0])
    suited = load_noise(noise, layout.kind)
    plan(layout.curves(), law, noise=noise, backgrounds=backgrounds)  # finds what is wrong
    key = content_key(law, suited, layout, backgrounds, rows, settings, seed, device)
    with precision(device):
        kept = None if folder is None else _place(folder, f"simulations-{key[:16]}")
        check = Check(law, suited, layout, backgrounds, rows, settings, device)
        found = []
        for i in range(simulations):
            path = kept and kept / f"{i:05d}.npz"
            ranked = path and _load(path)
            if ranked is None:
                ranked = check.one(seed, i, lambda what, i=i: progress(i, what))
                if path:
                    _save(ranked, path)
            found.append(ranked)
        progress(simulations, "done")
    how = " in rows" if rows else ""
    title = f"{law.name}, {suited.name} ({layout.kind}{how}), H = {layout.hypotheses}"
    return calibration(f"{title}, B = {backgrounds}", found, seed)


class Check:
    """Simulates, fits and measures one study after another; programs are compiled once."""

    def __init__(
        self,
        law: Law,
        noise: Noise,
        layout: Layout,
        backgrounds: int,
        rows: bool,
        settings: Settings,
        device: str,
    ):
        """For use within `precision`; arguments as of `calibrate`."""
        self.draw = simulator(law, noise, layout, backgrounds=backgrounds, rows=rows)
        self.engine = Engine(law, noise, settings, device=device)
        [self.study] = layout.curves()
        self.labels = Labels(self.engine, self.study, *declared(self.study, backgrounds))

    def one(self, seed: int, i: int, progress: Callable[[str], None]) -> Ranked:
        """Simulate and fit study i, and take what is to be ranked."""
        self.engine.on_compile = lambda what: progress(f"compiling {what}")
        key_study, key_fit, key_after = jax.random.split(
            jax.random.fold_in(jax.random.key(seed), i), 3
        )
        simulated = self.draw(key_study)
        design, data = simulated.design, simulated.data
        runs = attempts(self.engine, key_fit, design, data, progress)
        _, values, checks, _ = first_that_passes(self.engine, runs, self.labels, design, data)
        few = {name: _thinned(x) for name, x in values.items()}
        logp = self.engine.describe(key_after, few, design, data)["logp"]
        draws = self.quantities(few, logp)
        truth = {name: x[None, None] for name, x in simulated.truth.items()}
        truths = self.quantities(truth, simulated.logp[None, None])
        names, every = list(draws), np.stack(list(draws.values()))
        return Ranked(names, np.concatenate(list(truths.values())), every, checks.passed)

    def quantities(self, values: dict[str, np.ndarray], logp: np.ndarray) -> dict[str, np.ndarray]:
        """All that is reported, number by number, and the curve where it was not measured.

        values: (1, draws, ...) each; logp: (1, draws, cells). Returns (draws,) each.
        """
        one, out = len(self.study.hypotheses) == 1, {}
        for x in self.labels.named(values, self.labels.reported).values():
            for element, draws in elements(x).items():
                name = element._replace(hypothesis="") if one else element
                out[str(name)] = draws.to_numpy()[0]
        for at, shots, h in _unseen(self.study):
            whose = "" if one else f"[{self.study.hypotheses[h]}]"
            out[f"{self.study.scale.symbol}({shots}){whose}"] = np.exp(logp[0, :, at])
        return out


def _unseen(study: Study) -> list[tuple[int, int, int]]:
    """Cell, shots and hypothesis of what is not fitted."""
    shots, hypothesis = (study.cells[name].to_numpy() for name in ("shots", "hypothesis"))
    held_out = np.flatnonzero(~study.cells["fitted"])
    return [(int(at), int(shots[at]), int(hypothesis[at])) for at in held_out]


def _thinned(x: np.ndarray) -> np.ndarray:
    """RANKED draws, evenly spaced over all chains: nearly independent where ESS is enough."""
    flat = np.asarray(x).reshape(-1, *x.shape[2:])
    return flat[None, ((np.arange(RANKED) + 0.5) * flat.shape[0] / RANKED).astype(int)]


# -- what is kept ---------------------------------------------------------------------------------


def content_key(law: Law, noise: Noise, layout: Layout, *others) -> str:
    """What a simulation depends on besides its number, as one string."""
    here = ("simulate", "calibrate")
    code = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in here]
    whole = [law.name, law.source_hash, noise.name, code_hash(), asdict(layout)]
    whole += [asdict(x) if isinstance(x, Settings) else x for x in others]
    text = json.dumps(whole, sort_keys=True).encode()
    return hashlib.sha256(b"".join([text, *code])).hexdigest()


def _place(folder: str | Path, name: str) -> Path:
    """Make the folder for simulations."""
    if not str(folder):
        raise InputError("--out must name a folder, got nothing")
    place = Path(folder, name)
    if Path(folder).is_file():
        raise InputError(f"--out {folder}: is a file; name a folder, new or old")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"--out {folder}: cannot be written to ({reason})") from error
    return place


def _save(ranked: Ranked, path: Path) -> None:
    """Write one simulation in one step: all of it or nothing."""
    try:
        with in_one_step(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **ranked._asdict())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _load(path: Path) -> Ranked | None:
    """A finished simulation, if there is one that can be read."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            whole = {name: arrays[name] for name in Ranked._fields}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    names, passed = whole["names"].tolist(), bool(whole["passed"])
    return Ranked(names, whole["truths"], whole["draws"], passed)
