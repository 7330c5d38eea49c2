"""Result folders of EleutherAI's lm-evaluation-harness.

A run writes `results_DATE.json` and, with --log_samples, `samples_TASK_DATE.jsonl` beside it, a
line a document and filter. (Where --output_path names a file NAME.json, it writes NAME_DATE.json.)
Read as version 0.4.13 writes them.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bayesicl.errors import InputError
from bayesicl.importers.logs import (
    Asked,
    caution,
    check_scores,
    files_in,
    reading,
)
from bayesicl.importers.prompts import Prompt, trouble
from bayesicl.importers.runs import Run
from bayesicl.table import listed

_DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?"
_RESULTS = re.compile(rf"(?P<stem>.+)_(?P<date>{_DATE})\.json")
# What of a task's configuration must be the same along a curve, and of the model's arguments need
# not be.
_TEMPLATE = (
    "description", "doc_to_text", "doc_to_target", "doc_to_choice", "target_delimiter",
    "fewshot_delimiter", "output_type",
)  # fmt: skip
_HARDWARE = {"device", "device_map", "parallelize", "max_length", "max_model_len"}
_AGAIN = "remove it, or run again"


def read(paths: Sequence[str | Path], metric: Sequence[str], tasks: Sequence[str]) -> list[Run]:
    """All runs in result files, and in folders of them.

    Groups of tasks are read as the tasks that they are made of. Runs whose prompts were cut, or
    held fewer demonstrations than asked for, are left out with a warning.

    Args:
        paths: result files, or folders in which all of them are read.
        metric: measures to read, such as "acc" or "exact_match,strict-match"; of each task the
            first that it has. Empty: each task's only one.
        tasks: the tasks to read; empty: all.

    Raises:
        InputError: a file that cannot be read, or a measure or task that is not there.
    """
    found, asked = [], Asked(metric, tasks)
    none = "no results_DATE.json in it; give the folder that --output_path named"
    for file in files_in(paths, _is_result, none):
        results = _load(file)
        for task in results["n-samples"]:
            if not asked.wants(task):
                continue
            names = [name for name in results["results"][task] if _is_measure(name)]
            if (measure := asked.measure(names, file, task, kind="measure")) is not None:
                found.append((file, results, task, measure))
    asked.end(found)
    runs = []
    for file, results, task, measure in found:
        with reading(file, f"is no result of lm-evaluation-harness on {task}", _AGAIN):
            if run := _run(file, results, task, measure):
                runs.append(run)
    return runs


def _is_result(file: Path) -> bool:
    return _RESULTS.fullmatch(file.name) is not None


def _load(file: Path) -> dict[str, Any]:
    advice = _AGAIN if _is_result(file) else "give the folder that --output_path named"
    with reading(file, "cannot be read as JSON", advice):
        results = json.loads(file.read_text(encoding="utf-8"))
    needed = {"results", "configs", "n-shot", "n-samples", "versions", "config"}
    if not isinstance(results, dict) or needed - results.keys():
        lacks = needed - set(results if isinstance(results, dict) else ())
        raise InputError(
            f"{file}: is no result of lm-evaluation-harness 0.4.3 or newer (it lacks "
            f"{listed(sorted(lacks))}); {advice}"
        )
    if odd := [part for part in sorted(needed) if not isinstance(results[part], dict)]:
        raise InputError(f"{file}: {listed(odd)} must be objects; {_AGAIN}")
    for task in results["n-samples"]:
        about = [results[part].get(task) for part in ("n-samples", "results", "configs")]
        if (
            not all(isinstance(part, dict) for part in about)
            or not _is_whole(about[0].get("effective"))
            or not _is_whole(results["n-shot"].get(task))
        ):
            raise InputError(f"{file}: lacks a part about {task}; {_AGAIN}")
    return results


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_measure(name: str) -> bool:
    return "," in name and not name.partition(",")[0].endswith("_stderr")


def _run(file: Path, results: Mapping[str, Any], task: str, measure: str) -> Run | None:
    shots = results["n-shot"][task]
    size = results["n-samples"][task]["effective"]
    mean = results["results"][task][measure]
    if not isinstance(mean, float | int) or not math.isfinite(mean):
        raise InputError(f"{file}: {task}: {measure} must be a number, got {mean!r}")
    scores, prompts = _scores(file, results, task, measure)
    model = _model(results)
    if wrong := trouble(prompts, shots):
        left_out = "; left out" if wrong.certain else ""
        caution(f"{file}: {task} at {shots} shots: {wrong.text}{left_out}")
        if wrong.certain:
            return None
    return Run(
        place=str(file),
        model=model,
        task=task,
        shots=shots,
        # Without demonstrations their seed changes nothing.
        replicate=str(results["config"].get("fewshot_seed", 0)) if shots else "none",
        when=f"{float(results.get('date') or 0):020.6f}",
        settings=_settings(results, task),
        mean=mean,
        size=size,
        scores=scores,
    )


def _model(results: Mapping[str, Any]) -> str:
    """The model's name; where its arguments tell none, the harness makes one up for each run."""
    name, about = str(results.get("model_name")), results["config"]
    return name if name in str(about.get("model_args")) else str(about["model"])


def _settings(results: Mapping[str, Any], task: str) -> dict[str, str]:
    config, settings = results["configs"][task], {}
    for name in ("chat_template", "system_instruction"):
        settings[name] = (results.get(f"{name}_sha") or "none")[:8]
    settings["fewshot_as_multiturn"] = results.get("fewshot_as_multiturn") or "none"
    settings["version"] = results["versions"].get(task)
    arguments = results["config"].get("model_args") or {}
    if isinstance(arguments, str):
        pairs = (pair.partition("=") for pair in arguments.split(",") if pair)
        arguments = {name: value for name, _, value in pairs}
    settings |= {f"model_args {k}": v for k, v in arguments.items() if k not in _HARDWARE}
    settings |= {name: config.get(name) for name in _TEMPLATE}
    settings["gen_kwargs"] = results["config"].get("gen_kwargs")
    return {name: str(value) for name, value in settings.items() if value is not None}


# -- documents ------------------------------------------------------------------------------------


def _scores(
    file: Path, results: Mapping[str, Any], task: str, measure: str
) -> tuple[pd.DataFrame | None, list[Prompt]]:
    """Each document's score and nll, and what its prompts were; None where none was kept."""
    named = _RESULTS.fullmatch(file.name)
    place = file.with_name(f"samples_{task}_{named['date']}.jsonl") if named else None
    if place is None or not place.exists():
        return None, []
    config, size = results["configs"][task], results["n-samples"][task]["effective"]
    metric, _, wanted = measure.partition(",")
    scores, scored, prompts = {}, {}, []
    window = results.get("max_length")
    # A chat template may set demonstrations apart by other means than the delimiter.
    own = config.get("fewshot_config") or {}
    delimiter = own.get("fewshot_delimiter") or config.get("fewshot_delimiter")
    delimiter = None if results.get("chat_template_sha") else delimiter
    for line, sample in _lines(place):
        try:
            if sample["filter"] != wanted:
                continue
            document = f"{sample['doc_id']}:{sample['doc_hash'][:8]}"
            scores[document], scored[document] = float(sample[metric]), _scored(sample, config)
            prompts += _prompts(sample, window, delimiter)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f"{place}, line {line}: is no sample of {measure} ({type(error).__name__}: "
                f"{error}); remove the file to read the run's mean, or run again"
            ) from error
    if len(scores) != size:
        raise InputError(
            f"{place}: has {len(scores)} of {size} documents; remove it to read the run's mean, or "
            "run again"
        )
    frame = pd.DataFrame({"score": pd.Series(scores)})
    check_scores(frame["score"], measure, str(place))
    nlls = _nlls(place, list(scored.values()))
    return frame if nlls is None else frame.assign(nll=nlls), prompts


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield number, json.loads(line.decode())
            except ValueError as error:
                raise InputError(
                    f"{file}, line {number}: is no JSON ({error}); remove the file to read the "
                    "run's mean, or run again"
                ) from error


class _Scored(NamedTuple):
    """What a document's choices were scored.

    logp: of each choice. readings: which choice is the right one, where the target is a text, and
    where it is a number; None where it is neither. correct: whether the harness found the right
    one most probable, or None where it does not say.
    """

    logp: list[float]
    readings: tuple[int | None, int | None]
    correct: bool | None

    def agrees(self, reading: int) -> bool:
        """The right choice, read so, is the most probable just where the harness says so."""
        best = self.logp.index(max(self.logp))
        return self.correct is None or (best == self.readings[reading]) == self.correct


def _scored(sample: Mapping[str, Any], config: Mapping[str, Any]) -> _Scored | None:
    """What the harness asked about each choice, where it asked."""
    kind, target = config["output_type"], str(sample["target"]).strip()
    if kind not in ("loglikelihood", "multiple_choice"):
        return None
    logp = [float(response[0]) for response in sample["filtered_resps"]]
    if kind == "loglikelihood":
        return _Scored(logp, (0, 0), None)
    if "acc_mutual_info" in sample:  # each choice was scored a second time, by itself
        logp = logp[: len(logp) // 2]
    asked = list(sample["arguments"].values())[: len(logp)]
    texts = [str(request.get("arg_1")).strip() for request in asked]
    number = int(target) if target.isdecimal() and int(target) < len(logp) else None
    text = texts.index(target) if texts.count(target) == 1 else number
    return _Scored(logp, (text, number), bool(sample["acc"]) if "acc" in sample else None)


def _nlls(place: Path, scored: Sequence[_Scored | None]) -> list[float] | None:
    """-log probability of each document's right answer, in nats; None where it is not known.

    The harness writes a choice's number and its text alike, so that a target "2" may be either:
    texts are looked up first, but only what agrees with the harness's own accuracy counts.
    """
    asked = [one for one in scored if one is not None]
    if len(asked) < len(scored):
        return None
    known = [k for k in (0, 1) if all(one.readings[k] is not None for one in asked)]
    if not known:
        return None
    for k in known:
        if all(one.agrees(k) for one in asked):
            # A log probability may come out above 0 by rounding.
            return [max(0.0, -one.logp[one.readings[k] or 0]) for one in asked]
    caution(
        f"{place}: which choice is the right one is not clear, for the most probable is not the "
        "target just where acc is 1; nll is left out"
    )
    return None


def _prompts(
    sample: Mapping[str, Any], window: int | None, delimiter: str | None
) -> Iterator[Prompt]:
    """The prompts of a document, each with the room that it had."""
    for request in sample["arguments"].values():
        context, rest = request["arg_0"], request.get("arg_1", "")
        if not isinstance(context, str):
            continue
        room = window
        if isinstance(rest, dict):  # generation: what may be written takes its part of the window
            room = window and window - int(rest.get("max_gen_toks", 0))
            rest = ""
        yield Prompt(context + rest, room, context.count(delimiter) if delimiter else None)
