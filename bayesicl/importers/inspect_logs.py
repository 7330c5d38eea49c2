"""Logs of Inspect (the UK AI Security Institute's inspect-ai), .eval or .json.

A .eval file is a ZIP archive of JSON: its header and its samples' summaries say all that is needed,
and the samples, which are most of it, are never unpacked. Inspect's own reader would bring all of
Inspect and read the samples, too. Archives are compressed by Zstandard, which Python's zipfile does
not know before 3.14: `zstandard` unpacks them. Read as version 0.3.285 writes them.
"""

import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bayesicl.errors import InputError
from bayesicl.importers.inspect_settings import how, without_demonstrations
from bayesicl.importers.logs import (
    Asked,
    caution,
    check_scores,
    files_in,
    reading,
)
from bayesicl.importers.runs import Run
from bayesicl.table import listed

SHOTS = (
    "num_fewshot", "n_fewshot", "fewshot", "few_shot", "num_shots", "n_shots", "num_shot", "n_shot",
    "k_shot", "shots", "fewshot_count", "num_examples",
)  # fmt: skip
_SEEDS = ("fewshot_seed", "seed")
_LISTS = {"eval-set.json", "logs.json", "listing.json"}  # of logs, beside them
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # as Inspect counts them
_ZSTANDARD = 93
_NO_LOG, _LEAVE = "is no log of Inspect, or was cut off", "leave it out"


def read(
    paths: Sequence[str | Path],
    metric: Sequence[str],
    tasks: Sequence[str],
    shots_key: str | None = None,
) -> list[Run]:
    """All runs in logs, and in folders of them, each epoch as a run of its own.

    Args:
        paths: .eval or .json logs, or folders in which all of them are read.
        metric: scorers to read; of each task the first that it has. Empty: each task's only one.
        tasks: the tasks to read; empty: all.
        shots_key: which task argument, solver parameter or metadata is the number of
            demonstrations; None: whichever of SHOTS is there.

    Raises:
        InputError: a file that cannot be read, a scorer or task that is not there, or a number of
            demonstrations that is not told, or is told in two ways.
    """
    found, asked = [], Asked(metric, tasks)
    none = "no .eval or .json log in it; give the folder --log-dir named"
    for file in files_in(paths, _is_log, none):
        header, samples = _load(file)
        about = header["eval"]
        task = about["task"]
        if not asked.wants(task):
            continue
        status = "invalidated" if header.get("invalidated") else header["status"]
        if status != "success":
            asked.leave_out(f"{file}: {task} has status {status!r}; left out")
            continue
        names = list(dict.fromkeys(name for s in samples for name in s["scores"]))
        if (scorer := asked.measure(names, file, task, kind="score")) is not None:
            found.append((file, header, samples, scorer))
    asked.end(found)
    runs = []
    for file, header, samples, scorer in found:
        with reading(file, _NO_LOG, _LEAVE):
            runs += _runs(file, header, samples, scorer, shots_key)
    return without_demonstrations(runs)


def _is_log(file: Path) -> bool:
    return file.suffix in (".eval", ".json") and file.name not in _LISTS


def _load(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header of a log, and what is needed of its samples: id, epoch, limit and scores."""
    advice = _LEAVE if _is_log(file) else "give the folder that --log-dir named"
    with reading(file, _NO_LOG, advice):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if "header.json" not in archive.namelist():
                    raise InputError(f"{file}: was not finished; finish it (inspect eval-retry)")
                header = _member(file, archive, "header.json")
                samples = _member(file, archive, "summaries.json")
        else:
            header = json.loads(file.read_text(encoding="utf-8"))
            samples = header.pop("samples", None) or []
        about = header["eval"]
        told = [about.get(name) for name in ("task", "model", "created")]
        if not all(isinstance(value, str) for value in (*told, header.get("status"))):
            raise ValueError("no task, model, date or status")
        if not isinstance(about.get("dataset"), dict):
            raise ValueError("nothing is told of the dataset")
        return header, [_needed(sample, number) for number, sample in enumerate(samples, 1)]


def _needed(sample: Any, number: int) -> dict[str, Any]:
    """What is needed of a sample, of which logs may hold whole conversations."""
    if not isinstance(sample, dict) or not {"id", "epoch"} <= sample.keys():
        raise ValueError(f"sample {number} is no object with id and epoch")
    scores = sample.get("scores") or {}
    if not all(isinstance(score, dict) for score in scores.values()):
        raise ValueError(f"sample {number}: a score is no object")
    return {
        "id": sample["id"],
        "epoch": sample["epoch"],
        "limit": sample.get("limit"),
        "scores": {name: score.get("value") for name, score in scores.items()},
    }


def _member(file: Path, archive: zipfile.ZipFile, name: str) -> Any:
    about = archive.getinfo(name)
    if about.compress_type != _ZSTANDARD:
        return json.loads(archive.read(name))
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            f"{file}: needs zstandard to be unpacked; pip install 'bayesicl[inspect]', or write "
            "JSON (inspect log convert --to json)"
        ) from error
    with file.open("rb") as raw:
        raw.seek(about.header_offset)
        # The local header: 30 bytes, the last four of which tell the lengths of name and extras.
        raw.seek(sum(struct.unpack("<HH", raw.read(30)[26:])), io.SEEK_CUR)
        packed = io.BytesIO(raw.read(about.compress_size))
    try:
        return json.load(
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        )
    except zstandard.ZstdError as error:
        raise InputError(f"{file}: is damaged ({error}); leave it out") from error


def _runs(
    file: Path,
    header: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    scorer: str,
    shots_key: str | None,
) -> Iterator[Run]:
    about = header["eval"]
    place, task, arguments = str(file), about["task"], dict(about.get("task_args") or {})
    told, shots = _shots(place, header, shots_key)
    seeds = {name: str(arguments.pop(name)) for name in _SEEDS if name in arguments}
    if shots == 0:  # without demonstrations their seed changes nothing
        seeds.pop("fewshot_seed", None)
    settings = {f"task_args {k}": str(v) for k, v in arguments.items() if k not in told}
    settings |= how(header, {*told, *_SEEDS})
    settings |= {
        name: str(about[name])
        for name in ("task_version", "model_generate_config", "model_base_url")
        if about.get(name)
    }
    settings["dataset"] = str(about["dataset"].get("name"))
    epochs: dict[int, dict[str, float]] = {}
    bare = 0
    for sample in samples:
        if scorer not in sample["scores"]:
            bare += 1
            continue
        document = str(sample["id"])
        value = _score(f"{place}, sample {document}", scorer, sample["scores"][scorer])
        epochs.setdefault(sample["epoch"], {})[document] = value
    if limited := sum(bool(sample["limit"]) for sample in samples):
        caution(f"{place}: {task}: {limited} of {len(samples)} samples were ended by a limit")
    if bare:
        caution(f"{place}: {task}: {bare} of {len(samples)} samples have no score; left out")
    if not epochs:
        raise InputError(f"{place}: {task}: has no scored samples; run with --log-samples")
    for epoch, values in epochs.items():
        scores = pd.DataFrame({"score": pd.Series(values)})
        check_scores(scores["score"], scorer, place)
        yield Run(
            place=place,
            model=about["model"],
            task=task,
            shots=shots,
            replicate=" ".join(["epoch", str(epoch), *seeds.values()]),
            when=about["created"],
            settings=settings,
            mean=float(scores["score"].mean()),
            size=len(scores),
            scores=scores,
        )


def _shots(place: str, header: Mapping[str, Any], key: str | None) -> tuple[set[str], int]:
    """The names of what tells the number of demonstrations, and that number."""
    about, steps = header["eval"], (header.get("plan") or {}).get("steps") or []
    told = [about.get("task_args"), about.get("metadata"), about.get("solver_args")]
    told += [step.get("params") for step in steps]
    pairs = [(name, value) for part in told for name, value in (part or {}).items()]
    wanted = (key,) if key else SHOTS
    found = {name: value for name, value in reversed(pairs) if name in wanted}
    if not found:
        names = listed(dict.fromkeys(name for name, _ in pairs)) or "nothing"
        raise InputError(
            f"{place}: does not tell the number of demonstrations; name what does (--shots-key "
            f"NAME); there are {names}"
        )
    if len({str(value) for value in found.values()}) > 1:
        both = " and ".join(f"{name} = {value}" for name, value in found.items())
        raise InputError(f"{place}: {both} disagree; say which is right (--shots-key NAME)")
    name, value = next(iter(found.items()))
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(
            f"{place}: {name} must be a whole number of demonstrations, got {value!r}; name "
            "another (--shots-key NAME)"
        )
    return set(found), value


def _score(where: str, scorer: str, value: Any) -> float:
    if isinstance(value, str) and value in _VALUES:
        return _VALUES[value]
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise InputError(
        f"{where}: the score of {scorer} must be C, I, P, N or a number, got {value!r}; choose "
        "another scorer (--metric)"
    )
