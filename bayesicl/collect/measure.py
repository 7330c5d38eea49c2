"""Doing what is planned: orders are scored, written one by one, and joined to a table.

A folder holds `orders/`, a file each, written in one step when it is measured; `prompts/`, the
exact text of each first order; `runs.jsonl`, a line for each run; and `curves.csv`, the table of
all orders in the folder. A run that was killed goes on: orders that are there are not measured
again.
"""

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pandas as pd

from bayesicl.collect.backend import Answer, Backend
from bayesicl.collect.plan import Design, Order, settings_key
from bayesicl.collect.prompts import Prompt
from bayesicl.errors import InputError
from bayesicl.writing import in_one_step

TABLE = "curves.csv"


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
        head = "".join(c if c.isalnum() or c in "-._=" else "-" for c in "_".join(names))
        return self.folder / "orders" / f"{head}_{order.slug}.csv"

    def finished(self, order: Order, key: str) -> bool:
        """The order is there, measured with these settings; InputError where with others."""
        path = self.place(order)
        if not path.exists():
            return False
        found = pd.read_csv(path, nrows=1, dtype=str)["settings"].iloc[0]
        if found != key:
            raise InputError(
                f"{path}: measured before with other questions, template, seed, --max-shots, "
                "window, back end or model file; name another --out, or remove it"
            )
        return True

    def write(self, order: Order, prompts: Sequence[Prompt], rows: pd.DataFrame) -> None:
        """Keep an order's rows, and the text of a first order."""
        path = self.place(order)
        if order.number == 0:
            with in_one_step(self.folder / "prompts" / f"{path.stem}.txt") as part:
                part.write_text(prompts[-1].text, encoding="utf-8", newline="")
        with in_one_step(path) as part:
            rows.to_csv(part, index=False, lineterminator="\n")

    def join(self) -> Path:
        """Write the table of all orders in the folder, by model, task, hypothesis and order."""
        frames = [pd.read_csv(path) for path in sorted((self.folder / "orders").glob("*.csv"))]
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


def settings_of(order: Order, design: Design, backend: Backend) -> str:
    """The key of all that an order's rows depend on."""
    model = {"backend": backend.name, "digest": backend.digest, "context": backend.context}
    model |= {} if backend.digest else {"model": backend.model}
    model |= {} if backend.dtype == "float32" else {"dtype": backend.dtype}
    return settings_key(design.of(order.task) | model)


def measure(
    orders: Sequence[Order],
    design: Design,
    backends: Sequence[Backend],
    collection: Collection,
) -> Iterator[tuple[Order, bool]]:
    """Measure what is not in the folder yet; yields each order, and whether it was there before.

    Every back end of `backends`, which are the same model on several GPUs or servers, takes the
    next orders as soon as it is free.

    Raises:
        InputError: an order was measured with other settings; not even the first answer fits the
            window, or that is unknown and shots are not limited; a back end cannot score.
    """
    if backends[0].context is None and design.max_shots is None:
        raise InputError(
            f"{backends[0].model} does not tell how long its window is; give --context or "
            "--max-shots"
        )
    todo = []
    for order in orders:
        if collection.finished(order, settings_of(order, design, backends[0])):
            yield order, True
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
                for order in _measured(some, design, backend, collection):
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
            yield came, False
    finally:
        stop.set()
    for thread in threads:
        thread.join()


def _measured(
    some: Sequence[Order], design: Design, backend: Backend, collection: Collection
) -> Iterator[Order]:
    """Score orders together and write each."""
    render = design.render(backend)
    prompts = [fitted(order.prompts(design, render), order.task.name, backend) for order in some]
    scores = iter(backend.score([prompt for own in prompts for prompt in own]))
    for order, own in zip(some, prompts, strict=True):
        frame = rows(order, own, [next(scores) for _ in own], design, backend, collection)
        collection.write(order, own, frame)
        yield order


def fitted(prompts: Sequence[Prompt], task: str, backend: Backend) -> list[Prompt]:
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
    prompts: Sequence[Prompt],
    scores: Sequence[Sequence[Answer]],
    design: Design,
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
        "settings": settings_of(order, design, backend),
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
