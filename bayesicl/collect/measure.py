"""Doing what is planned: orders are scored, written one by one, and joined to a table.

A folder holds `orders/`, a file each, written in one step when it is measured; `prompts/`, the
exact text of each first order; `settings/`, what the rows of a key depend on; `runs.jsonl`, a line
for each run; and `curves.csv`, the table of all orders in the folder. A run that was killed goes
on: orders that are there are not measured again.
"""

import csv
import json
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from bayesicl.collect.backend import Answer, Backend
from bayesicl.collect.plan import Order, Plan, settings_key
from bayesicl.collect.prompts import Passage
from bayesicl.collect.questions import Task
from bayesicl.errors import InputError
from bayesicl.writing import in_one_step, spelled

TABLE = "curves.csv"
WORDS = {
    "max_shots": "--max-shots", "context": "window", "backend": "back end", "digest": "model file",
    "chat": "--chat",
}  # fmt: skip


@dataclass(frozen=True)
class Collection:
    """A folder of measured orders, and what the rows say of the model.

    variant: of the model, such as base or instruct; None for no such column.
    """

    folder: Path
    model: str
    variant: str | None = None

    def place(self, order: Order) -> Path:
        """Where the rows of an order belong."""
        names = [self.model, *([self.variant] if self.variant else [])]
        return self.folder / "orders" / f"{spelled('_'.join(names))}_{order.slug}.csv"

    def check(self, settings: Mapping[str, dict[str, Any]]) -> set[Path]:
        """The model's orders that are there; InputError where one has other settings than its task.

        Orders of one task are curves of one study: they may differ in their labels, and in nothing
        else.
        """
        own = set()
        keys = {task: settings_key(own) for task, own in settings.items()}
        for path in self._orders():
            with path.open(encoding="utf-8", newline="") as file:
                row = next(csv.DictReader(file), {})
            if "settings" not in row:
                raise InputError(f"{path}: has no measured rows; remove it")
            if (row.get("model"), row.get("variant")) != (self.model, self.variant):
                continue
            own.add(path)
            if keys.get(row["task"], row["settings"]) == row["settings"]:
                continue
            kept = self._settings(row["settings"])
            what = "settings"
            if kept.exists():
                before = json.loads(kept.read_text(encoding="utf-8"))
                what = differences(settings[row["task"]], before, ("now", "then"))
            raise InputError(
                f"{path}: measured before with other {what}; name another --out, or remove it"
            )
        return own

    def _orders(self) -> list[Path]:
        return sorted((self.folder / "orders").glob("*.csv"))

    def _settings(self, key: str) -> Path:
        return self.folder / "settings" / f"{key}.json"

    def keep(self, settings: dict[str, Any]) -> None:
        """Write the settings of a task whose orders are in the folder, if they are not there."""
        path = self._settings(settings_key(settings))
        if not path.exists():
            with in_one_step(path) as part:
                part.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")

    def write(self, order: Order, prompts: Sequence[Passage], rows: pd.DataFrame) -> None:
        """Keep an order's rows, and the text of a first order."""
        path = self.place(order)
        if order.number == 0:
            with in_one_step(self.folder / "prompts" / f"{path.stem}.txt") as part:
                part.write_text(prompts[-1].text, encoding="utf-8", newline="")
        with in_one_step(path) as part:
            rows.to_csv(part, index=False, lineterminator="\n")

    def join(self) -> Path:
        """Write the table of all orders in the folder, by model, task, hypothesis and order."""
        frames = [pd.read_csv(p, dtype=str, keep_default_na=False) for p in self._orders()]
        table = pd.concat(frames, ignore_index=True)
        if "variant" in table:  # a key, which must be filled in
            table["variant"] = table["variant"].fillna("unstated")
        with in_one_step(self.folder / TABLE) as part:
            table.to_csv(part, index=False, lineterminator="\n")
        return self.folder / TABLE

    def record(self, run: dict) -> None:
        """Add a line about a run: who, what, when."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(run, ensure_ascii=False) + "\n")


def settings_of(task: Task, plan: Plan, backend: Backend) -> dict[str, Any]:
    """All that the rows of a task depend on."""
    model = {"backend": backend.name, "digest": backend.digest, "context": backend.context}
    model |= {} if backend.digest else {"model": backend.model}
    model |= {} if backend.dtype == "float32" else {"dtype": backend.dtype}
    return plan.of(task) | model


def differences(one: Mapping[str, Any], other: Mapping[str, Any], when: tuple[str, str]) -> str:
    """What differs between settings, in words: "seed (1 now, 0 then), --template (...)"."""
    texts = []
    for name in {**one, **other}:
        values = [part.get(name, "float32" if name == "dtype" else "") for part in (one, other)]
        if values[0] != values[1]:
            told = ", ".join(
                f"{_short(value)} {word}" for value, word in zip(values, when, strict=True)
            )
            texts.append(f"{WORDS.get(name, name)} ({told})")
    return ", ".join(texts)


def _short(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else "none" if value is None else str(value)


def measure(
    orders: Sequence[Order],
    plan: Plan,
    backends: Sequence[Backend],
    collection: Collection,
) -> Iterator[tuple[Order, bool]]:
    """Measure what is not in the folder yet; yields each order, and whether it was there before.

    Every back end of `backends`, which are the same model on several GPUs or servers, takes the
    next orders as soon as it is free.

    Raises:
        InputError: the back ends differ; a task was measured with other settings; not even the
            first answer fits the window, or that is unknown and shots are not limited; a back end
            cannot score.
    """
    if backends[0].context is None and plan.max_shots is None:
        raise InputError(
            f"{backends[0].model} does not tell how long its window is; give --context or "
            "--max-shots"
        )
    tasks = {order.task.name: order.task for order in orders}
    settings = [
        {name: settings_of(task, plan, backend) for name, task in tasks.items()}
        for backend in backends
    ]
    for number, others in enumerate(settings[1:], 2):
        for name, own in settings[0].items():
            if what := differences(own, others[name], ("in the first", f"in number {number}")):
                raise InputError(
                    f"the {len(backends)} back ends must be the same model, and differ in {what}; "
                    "give those that are alike"
                )
    kept = collection.check(settings[0])
    todo = []
    for order in orders:
        place = collection.place(order)
        if place in kept:
            collection.keep(settings[0][order.task.name])
            yield order, True
        elif place.exists():
            raise InputError(
                f"{place}: is of another model or variant, whose name is written alike in files; "
                "give another --name or --out"
            )
        else:
            todo.append(order)
    left, done = iter(todo), queue.SimpleQueue()
    lock, stop = threading.Lock(), threading.Event()

    def work(backend: Backend) -> None:
        try:
            while not stop.is_set():
                with lock:
                    some = list(islice(left, backend.at_once))
                if not some:
                    break
                for order in _measured(some, plan, backend, collection):
                    done.put(order)
        except BaseException as error:
            done.put(error)

    threads = [threading.Thread(target=work, args=(b,), daemon=True) for b in backends]
    for thread in threads:
        thread.start()
    try:
        for _ in todo:
            came = done.get()
            if isinstance(came, BaseException):
                raise came
            collection.keep(settings[0][came.task.name])  # here, for threads would do so at once
            yield came, False
    finally:
        stop.set()
    for thread in threads:
        thread.join()


def _measured(
    some: Sequence[Order], plan: Plan, backend: Backend, collection: Collection
) -> Iterator[Order]:
    """Score orders together and write each."""
    render = plan.render(backend)
    prompts = [fitted(order.prompts(plan, render), order.task.name, backend) for order in some]
    scores = iter(backend.score([prompt for own in prompts for prompt in own]))
    for order, own in zip(some, prompts, strict=True):
        frame = rows(order, own, [next(scores) for _ in own], plan, backend, collection)
        collection.write(order, own, frame)
        yield order


def fitted(prompts: Sequence[Passage], task: str, backend: Backend) -> list[Passage]:
    """The prompts of an order, cut to the window after a whole answer; InputError if none fits."""
    kept = []
    for prompt in prompts:
        if n := backend.fitting(prompt):
            kept.append(prompt.first(n))
        if n < len(prompt.spans):
            break
    if not kept:
        raise InputError(
            f"{task}: the first question of an order, with its answer, is longer than the window "
            f"of {backend.context} tokens; shorten the questions, or choose another model"
        )
    return kept


def rows(
    order: Order,
    prompts: Sequence[Passage],
    scores: Sequence[Sequence[Answer]],
    plan: Plan,
    backend: Backend,
    collection: Collection,
) -> pd.DataFrame:
    """One row a scored answer: keys, shots, nll in nats, correct, tokens; who, what and when."""
    named = {"model": collection.model}
    named |= {"variant": collection.variant} if collection.variant else {}
    named |= {"task": order.task.name, "hypothesis": order.hypothesis, "labels": order.labels}
    named |= {"behaviour": order.behaviour} if order.behaviour else {}
    about = {
        "backend": backend.name,
        "model_hash": backend.digest[:12] or "unknown",
        "settings": settings_key(settings_of(order.task, plan, backend)),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return pd.DataFrame(
        [
            named
            | {
                "replicate": order.number,
                "shots": shots,
                "nll": round(answer.nll, 6),
                "correct": int(answer.correct),
                "tokens": answer.tokens,
                "question": question,
            }
            | about
            for prompt, answers in zip(prompts, scores, strict=True)
            for shots, question, answer in zip(prompt.shots, prompt.questions, answers, strict=True)
        ]
    )
