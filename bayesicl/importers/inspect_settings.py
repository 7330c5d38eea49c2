"""What must be the same along a curve of Inspect's runs: how samples were solved, and by what."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from bayesicl.importers.runs import Run

# What of the model's arguments need not be the same along a curve; mock models are told answers.
_HARDWARE = {
    "device", "device_map", "batch_size", "max_model_len", "tensor_parallel_size",
    "gpu_memory_utilization", "host", "port", "timeout", "custom_outputs",
}  # fmt: skip
_SHORTEST = 5  # characters that a demonstration adds to a text, at least


def how(header: Mapping[str, Any], apart: Collection[str]) -> dict[str, str]:
    """How the model was called and the samples were solved, but for parameters named in `apart`."""
    about, steps = header["eval"], (header.get("plan") or {}).get("steps") or []
    found = {"solver_args": _pruned(about.get("solver_args") or {}, apart)}
    for step in reversed(steps):  # demonstrations may be a step more, before those of all runs
        name = f"solver {step.get('solver')}"
        while name in found:  # a solver that comes twice
            name += " before"
        found[name] = _pruned(step.get("params") or {}, apart)
    found["model_args"] = _pruned(about.get("model_args") or {}, _HARDWARE)
    config = about.get("config") or {}
    found["config"] = {k: v for k, v in config.items() if k.endswith("_limit") or k == "approval"}
    return {
        f"{part} {name}": str(value)
        for part, params in found.items()
        for name, value in params.items()
        if value is not None
    }


def _pruned(value: Any, apart: Collection[str]) -> Any:
    """A value without what is named in `apart`, at any depth: chains of solvers hold theirs."""
    if isinstance(value, dict):
        return {k: _pruned(v, apart) for k, v in value.items() if k not in apart}
    return [_pruned(v, apart) for v in value] if isinstance(value, list) else value


def without_demonstrations(runs: Sequence[Run]) -> list[Run]:
    """Runs without the settings of solvers that are their demonstrations, or tell their number.

    Demonstrations stand in a system message, a template or a list: whatever it is, it is longer in
    all runs of a curve with more of them. All else must be the same, as `runs.join` sees to; where
    a curve has few runs, another, longer template cannot be told from demonstrations.
    """
    curves: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        curves.setdefault(run.curve, []).append(run)
    kept = []
    for curve in curves.values():
        names = {name for run in curve for name in run.settings if name.startswith("solver")}
        apart = {name for name in names if _of_demonstrations(name, curve)}
        kept += [replace(run, settings=_pruned(run.settings, apart)) for run in curve]
    return kept


def _of_demonstrations(setting: str, curve: Sequence[Run]) -> bool:
    texts: dict[int, set[str]] = {}
    for run in sorted(curve, key=lambda run: run.shots):
        texts.setdefault(run.shots, set()).add(run.settings.get(setting, ""))
    if all(own <= {str(shots), ""} for shots, own in texts.items()):
        return True
    return all(
        max(map(len, texts[few])) + _SHORTEST * (more - few) <= min(map(len, texts[more]))
        for few, more in pairwise(texts)
    )
