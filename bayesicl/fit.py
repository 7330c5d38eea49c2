"""From curves to posteriors: one DataTree for each study and law."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
import xarray as xr
from arviz_stats import rhat
from numpyro import handlers

from bayesicl.curves import Curves, Study
from bayesicl.diagnose import Checks, diagnose
from bayesicl.engine import Chains, Engine, Settings, by_cell, precision
from bayesicl.errors import CurveWarning, InputError
from bayesicl.law import BAYESIAN, Design, Law, load_law
from bayesicl.noise import load_noise
from bayesicl.nuts import mixture_of
from bayesicl.program import arrays
from bayesicl.tree import FORMAT, believed, study_dataset

N_PRIOR = 1000
Progress = Callable[[str], None]


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
        ArviZ DataTrees in the order study by study, law by law. `diagnose` tells which may be
        trusted. Laws that are one function for a study (general, sampling and scoring, where it
        has one hypothesis and one background) are fitted once.

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
    return list(
        fits(
            curves, laws, noise=noise, backgrounds=backgrounds, settings=settings, seed=seed,
            device=device, progress=progress,
        )
    )  # fmt: skip


def fits(
    curves: Curves,
    laws: str | Path | Law | Sequence[str | Path | Law],
    *,
    noise: str | None = None,
    backgrounds: int = 1,
    settings: Settings = Settings(),  # noqa: B008
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = lambda what: None,
    done: Callable[[dict[str, Any], Study], xr.DataTree | None] = lambda attrs, study: None,
) -> Iterator[xr.DataTree]:
    """Like `fit`, one at a time as they are finished.

    done(attrs, study): an earlier fit of the same content, if there is one.
    """
    chosen = [laws] if isinstance(laws, str | Path | Law) else list(laws)
    tasks = [
        (study, law, same)
        for study in curves
        for law, same in distinct([load_law(law) for law in chosen], study, backgrounds)
    ]
    noises = {study.kind: load_noise(noise, study.kind) for study in curves}
    engines: dict[tuple[str, str], Engine] = {}
    for i, (study, law, same) in enumerate(tasks, 1):
        suited = noises[study.kind]
        at = f"[{i}/{len(tasks)}] {study.label}, {law.name}"
        attrs = _attributes(study, law, same, suited, backgrounds, settings, seed, device)
        if (tree := done(attrs, study)) is not None:
            progress(f"{at}: already done")
            yield tree
            continue
        if (law.name, suited.name) not in engines:
            engines[law.name, suited.name] = Engine(law, suited, settings, device=device)
        engine = engines[law.name, suited.name]
        engine.on_compile = lambda what, at=at: progress(f"{at}: compiling {what}")
        with precision(device):
            say = lambda what, at=at: progress(f"{at}: {what}")  # noqa: E731
            tree = _fit_study(engine, study, backgrounds, seed, attrs, say)
        yield tree


def distinct(
    laws: Sequence[Law], study: Study, backgrounds: int
) -> list[tuple[Law, tuple[str, ...]]]:
    """The laws to fit, each with the names of those that are the same function for this study."""
    H = len(study.hypotheses)
    if backgrounds < 0:
        raise InputError(f"backgrounds must be 0 or more, got {backgrounds}")
    if H + backgrounds < 2 and any(law.name in BAYESIAN for law in laws):
        raise InputError(
            f"{study.label}: a Bayesian law weighs at least 2 hypotheses; with one observed "
            "hypothesis it needs a background (--backgrounds 1)"
        )
    if (H, backgrounds) != (1, 1):
        return [(law, ()) for law in laws]
    bayesian = [law.name for law in laws if law.name in BAYESIAN]
    if not bayesian:
        return [(law, ()) for law in laws]
    one = (load_law("scoring"), tuple(name for name in BAYESIAN if name != "scoring"))
    first = next(i for i, law in enumerate(laws) if law.name in BAYESIAN)
    others = [(law, ()) for law in laws if law.name not in BAYESIAN]
    return [*others[:first], one, *others[first:]]


def study_key(seed: int, study: Study, law: Law) -> jax.Array:
    """The random key of a study under a law: the same whatever else is fitted beside it."""
    digest = hashlib.sha256(f"{study.hash}{law.name}".encode()).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "big") >> 1)


def _attributes(study, law, same, noise, backgrounds, settings, seed, device) -> dict[str, Any]:
    libraries = ("bayesicl", "jax", "numpyro", "numpy", "arviz-base", "arviz-stats")
    return {
        "bayesicl_format": FORMAT,
        "law": law.name,
        "law_path": "" if law.bundled else law.path,
        "law_hash": law.source_hash,
        "same_as": json.dumps(same),
        "noise": noise.name,
        "backgrounds": backgrounds,
        "seed": seed,
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "device": device,
        "data_hash": study.hash,
        "fitted_hash": hashlib.sha256(study.cells["fitted"].to_numpy().tobytes()).hexdigest(),
        "versions": json.dumps({name: version(name) for name in libraries}),
    }


def _fit_study(engine: Engine, study: Study, backgrounds, seed, attrs, progress) -> xr.DataTree:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CurveWarning)
        warn_misfits(study, engine.law)
    remarks = [str(w.message) for w in caught]
    for remark in remarks:
        warnings.warn(remark, CurveWarning, stacklevel=4)
    design, data = arrays(study, backgrounds=backgrounds)
    key = study_key(seed, study, engine.law)
    labels = Labels(engine, study, design, data)
    runs = attempts(engine, key, design, data, progress)
    outcome = first_that_passes(engine, runs, labels, design, data)
    chains, values, checks, attempt = outcome
    progress("describing")
    tree = to_tree(engine, chains, values, labels, study, design, data, jax.random.fold_in(key, 99))
    own = engine.law_sites(design)
    tree.attrs = attrs | {
        "law_parameters": json.dumps([name for name in labels.reported if name in own]),
        "attempts": attempt,
        "passed": int(checks.passed),
        "diagnostics": json.dumps(asdict(checks)),
        "warnings": json.dumps(remarks),
    }
    return tree


class Outcome(NamedTuple):
    """Chains, natural parameters (chains, draws, ...), the gates, and how many attempts."""

    chains: Chains
    values: dict[str, np.ndarray]
    checks: Checks
    attempts: int


def first_that_passes(
    engine: Engine, runs: Iterable[Chains], labels: "Labels", design: Design, data: Mapping
) -> Outcome:
    """The first of some runs that passes the gates, or the last."""
    outcome = None
    for attempt, chains in enumerate(runs, 1):
        values = engine.natural(chains, design, data)
        posterior = labels.named(values, labels.reported)
        checks = diagnose(posterior, labels.statistics(chains))
        outcome = Outcome(chains, values, checks, attempt)
        if checks.passed:
            break
    assert outcome is not None, "no runs"
    return outcome


def attempts(
    engine: Engine,
    key: jax.Array,
    design: Design,
    data: Mapping,
    progress: Progress,
    *,
    targets: Sequence[float] = (0.97, 0.99, 0.995),
) -> Iterator[Chains]:
    """Ever more careful runs, until the caller is content.

    As asked; extended where chains agree; with jumps between modes where they do not; then warmed
    up again with smaller steps.
    """
    progress("sampling")
    chains, mixture = engine.run(key, design, data), None
    yield chains
    for i, target in enumerate((*targets, None)):
        if apart(chains):
            progress("jumping between modes")
            mixture = mixture_of(chains.w, engine.settings.draws)
            # The first draws lead to the modes that matter.
            chains = engine.go_on(chains, design, data, mixture=mixture)
            chains = engine.go_on(chains, design, data, mixture=mixture)
            yield chains
        if not chains.stats["diverging"].any():
            progress("extending")
            chains = engine.extend(chains, design, data, mixture=mixture)
            yield chains
        if target is None:
            return
        progress(f"sampling again, target acceptance {target}")
        chains = engine.run(
            jax.random.fold_in(key, i), design, data,
            target_accept=target, warm_rounds=2, after=chains, mixture=mixture,
        )  # fmt: skip
        yield chains


def apart(chains: Chains) -> bool:
    """Chains favour different regions (R-hat above 1.02 in a sampling coordinate)."""
    worst = 1.0
    for x in chains.w.values():
        columns = x.reshape(*x.shape[:2], -1)
        worst = max([worst, *(rhat(columns[:, :, j]) for j in range(columns.shape[2]))])
    return worst > 1.02


def warn_misfits(study: Study, law: Law) -> None:
    """Warn where a curve has fewer cells than the law parameters, or falls as the law cannot."""
    with handlers.seed(rng_seed=0), numpyro.validation_enabled(False):
        trace = handlers.trace(law.model).get_trace(Design(np.zeros(1), np.zeros(1, int)))
    n_parameters = sum(
        np.size(s["value"]) - (s["name"] == "pi") for s in trace.values() if s["type"] == "sample"
    )
    fitted = study.cells[study.cells["fitted"]]
    for h in range(len(study.hypotheses)):
        cells, curve = fitted[fitted["hypothesis"] == h], study.curve_name(h)
        if len(cells) < n_parameters:
            warnings.warn(
                f"{curve}: {len(cells)} cells for the {n_parameters} parameters of "
                f"{law.name}: much of what comes out is the prior",
                CurveWarning,
                stacklevel=2,
            )
        if law.monotone and (fall := _fall(cells)):
            message = f"{curve}: falls {fall}; law {law.name} cannot fall"
            warnings.warn(message, CurveWarning, stacklevel=2)


def _fall(cells) -> str:
    """Where the second half of a curve lies below an earlier peak beyond noise, in words; or ''."""
    n = len(cells)
    if n < 4:
        return ""
    # Means over stretches of a quarter of the curve: one noisy cell is no fall.
    parts = np.array_split(np.arange(n), 4)
    y, e = cells["y"].to_numpy(), cells["error"].to_numpy()
    mean = np.array([y[p].mean() for p in parts])
    error = np.array([np.sqrt((e[p] ** 2).sum()) / len(p) for p in parts])
    peak = int(np.argmax(mean[:-1]))
    drop = mean[peak] - mean[-1]
    if drop > 4 * np.hypot(error[peak], error[-1]) and drop > 0.02:
        return f"from {mean[peak]:.2f} to {mean[-1]:.2f} towards its end"
    return ""


# -- assembling the DataTree ---------------------------------------------------------------------


class Labels:
    """Names for the axes of draws: ArviZ datasets from plain arrays."""

    def __init__(self, engine: Engine, study: Study, design: Design, data: Mapping):
        """Read the names off the program and the study."""
        self.dims = site_dims(engine, design, data)
        self.reported = [name for name in self.dims if not name.startswith("_")]
        self.internal = [name for name in self.dims if name.startswith("_")]
        self.fitted = np.flatnonzero(study.cells["fitted"])
        self.n_cells = len(study.cells)
        by_curve = study.cells.loc[self.fitted].groupby("hypothesis")
        self.last = [group.index[-1] for _, group in by_curve]
        self.coords = {
            "hypothesis": list(study.hypotheses),
            "believed": believed(study.hypotheses, design.backgrounds),
            "cell": self.fitted,
        }

    def dataset(self, values: Mapping[str, np.ndarray], dims: Mapping | None = None) -> xr.Dataset:
        """values: (chains, draws, ...) each."""
        dims = self.dims if dims is None else dims
        out = {name: (("chain", "draw", *dims[name]), value) for name, value in values.items()}
        sizes = dict(zip(("chain", "draw"), np.shape(next(iter(values.values()))), strict=False))
        used = {d for names, _ in out.values() for d in names}
        coords = {d: np.arange(n) for d, n in sizes.items()}
        return xr.Dataset(out, coords=coords | {k: v for k, v in self.coords.items() if k in used})

    def named(self, values: Mapping[str, np.ndarray], names: Sequence[str]) -> xr.Dataset:
        """The dataset of these sites."""
        return self.dataset({name: values[name] for name in names})

    def scalars(self, values: Mapping[str, np.ndarray]) -> xr.Dataset:
        """One number a draw."""
        return self.dataset(values, dict.fromkeys(values, ()))

    def cells(self, y: np.ndarray) -> xr.Dataset:
        """Of the fitted cells, from (chains, draws, all cells)."""
        return self.dataset({"y": y[..., self.fitted]}, {"y": ("cell",)})

    def ends(self, logp: np.ndarray) -> xr.Dataset:
        """Of each curve: p_zero at 0 shots and p_last at the longest fitted, from log p (arrays)."""
        p = np.exp(logp)
        zero = p[..., self.n_cells : self.n_cells + len(self.last)]
        dims = dict.fromkeys(("p_zero", "p_last"), ("hypothesis",))
        return self.dataset({"p_zero": zero, "p_last": p[..., self.last]}, dims)

    def statistics(self, chains: Chains) -> xr.Dataset:
        """The sampler's statistics under ArviZ's names."""
        depth = np.floor(np.log2(np.maximum(chains.stats["n_steps"], 1))).astype(int) + 1
        return self.scalars(chains.stats | {"tree_depth": depth})


def to_tree(
    engine: Engine,
    chains: Chains,
    values: Mapping[str, np.ndarray],
    labels: Labels,
    study: Study,
    design: Design,
    data: Mapping,
    key: jax.Array,
) -> xr.DataTree:
    """All that follows from the draws, as an ArviZ DataTree."""
    key_posterior, key_prior, key_draw = jax.random.split(key, 3)
    after = engine.describe(key_posterior, values, design, data)
    prior = engine.prior(key_prior, N_PRIOR, design, data)
    before = engine.describe(key_draw, prior, design, data, seen=False)
    cells = study.cells.iloc[labels.fitted]
    known = ("shots", "hypothesis", "total", "replicates")
    at = {"cell": labels.fitted}
    # Building blocks of the law that are not reported, but that predictions need.
    internals = {"internals": labels.named(values, labels.internal)} if labels.internal else {}
    posterior = labels.named(values, labels.reported).assign(labels.ends(after["logp"]))
    before_data = labels.named(prior, labels.reported).assign(labels.ends(before["logp"]))
    return xr.DataTree.from_dict(
        internals
        | {
            "posterior": posterior,
            "sample_stats": labels.statistics(chains),
            "log_likelihood": labels.cells(after["log_likelihood"]),
            "log_prior": labels.scalars(after["log_prior"]),
            "posterior_predictive": labels.cells(after["y"]),
            "prior": before_data,
            "prior_predictive": labels.cells(before["y"]),
            "observed_data": xr.Dataset({"y": ("cell", cells["y"])}, coords=at),
            "constant_data": xr.Dataset({k: ("cell", cells[k]) for k in known}, coords=at),
            "study": study_dataset(study),
        }
    )


def site_dims(engine: Engine, design: Design, data: Mapping) -> dict[str, tuple[str, ...]]:
    """Dimensions of every reported site, from its plates and event dimensions."""
    dims = {}
    for name, site in engine.sites(design, data).items():
        if by_cell(site, design):
            continue
        shape = np.shape(site["value"])
        plates = tuple(f.name for f in sorted(site["cond_indep_stack"], key=lambda f: f.dim))
        # NumPyro lets only sampled sites name their inner axes; P is the one other that has any.
        inner = ["believed"] if name == "P" else site.get("infer", {}).get("event_dims", [])
        known = (*plates, *inner)
        rest = tuple(f"{name}_dim_{i}" for i in range(len(shape) - len(known)))
        dims[name] = (*known, *rest)
    return dims
