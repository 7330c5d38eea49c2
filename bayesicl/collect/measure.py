"""Doing what is planned: orders are scored, and written one by one.

A run that was killed goes on: orders that are there are not measured again.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pandas as pd

from bayesicl.collect.backend import Answer, Backend
from bayesicl.collect.collection import Collection, differences
from bayesicl.collect.plan import Order, Plan, settings_key
from bayesicl.collect.prompts import Passage
from bayesicl.collect.questions import Task
from bayesicl.errors import InputError


def settings_of(task: Task, plan: Plan, backend: Backend) -> dict[str, Any]:
    """All that the rows of a task depend on."""
    model = {"backend": backend.name, "digest": backend.digest, "context": backend.context}
    model |= {} if backend.digest else {"model": backend.model}
    model |= {} if backend.dtype == "float32" else {"dtype": backend.dtype}
    return plan.of(task) | model


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
