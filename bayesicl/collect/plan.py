"""Which orders of which questions are measured, and the prompts that they come to."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from bayesicl.collect.backend import Backend
from bayesicl.collect.labels import POLICIES, demonstrated, named
from bayesicl.collect.prompts import PLAIN, Example, Passage, Render, plain
from bayesicl.collect.questions import Task
from bayesicl.errors import CurveWarning, InputError
from bayesicl.writing import spelled

FORMAT = 1  # of the rows that are written


@dataclass(frozen=True)
class Plan:
    """How questions are put to a language model, whichever it is.

    labels: policies. orders: of the questions, >= 1 for each task, behaviour and policy. seed: of
    everything random. max_shots: None for as many as there are questions and room. template: of an
    example, None for PLAIN. chat: the model's own chat template instead.
    """

    labels: Sequence[str] = ("gold",)
    orders: int = 24
    seed: int = 0
    max_shots: int | None = None
    template: str | None = None
    chat: bool = False

    def __post_init__(self):
        """Raise InputError about what cannot be."""
        for policy in self.labels:
            if policy not in POLICIES:
                raise InputError(f"--labels must be {', '.join(POLICIES)}, got {policy!r}")
        if len(set(self.labels)) < len(self.labels):
            raise InputError(f"--labels names one twice: {' '.join(self.labels)}")
        if self.orders < 1:
            raise InputError(f"--orders must be at least 1, got {self.orders}")
        if self.max_shots is not None and self.max_shots < 1:
            raise InputError(f"--max-shots must be at least 1, got {self.max_shots}")
        if self.chat and self.template is not None:
            raise InputError("give --template or --chat, not both")
        plain(PLAIN if self.template is None else self.template)

    def render(self, backend: Backend) -> Render:
        """What writes the text for this model."""
        return backend.chat() if self.chat else plain(self.template or PLAIN)

    def of(self, task: Task) -> dict[str, Any]:
        """All that the rows of a task depend on but for the model."""
        return {
            "format": FORMAT,
            "questions": task.hash,
            "seed": self.seed,
            "max_shots": self.max_shots,
            "template": self.template or PLAIN,
            "chat": self.chat,
        }


@dataclass(frozen=True)
class Order:
    """One order of one task's questions: one replicate of one curve.

    behaviour: which answers; "" for the only ones. labels: policy. number: 0, 1, ...
    """

    task: Task
    behaviour: str
    labels: str
    number: int

    @property
    def hypothesis(self) -> str:
        """What the demonstrations were made of."""
        return named(self.behaviour, self.labels)

    def permutation(self, seed: int) -> np.ndarray:
        """The order of the questions, (n,): the same for every model, behaviour and policy."""
        return np.random.default_rng([seed, 0, self.number]).permutation(len(self.task.inputs))

    def shown(self, seed: int) -> list[str]:
        """What is shown as the answer to each question, (n,); InputError as `demonstrated`."""
        right = self.task.answers[self.behaviour]
        return demonstrated(self.labels, right, seed=seed, order=self.number, name=self.task.name)

    def prompts(self, plan: Plan, render: Render) -> list[Passage]:
        """The prompts that measure this order, before the window cuts them.

        One, where the answer that is scored is the next prompt's demonstration; else one for each
        number of shots of `grid`.
        """
        right, shown = self.task.answers[self.behaviour], self.shown(plan.seed)
        order = self.permutation(plan.seed)
        if plan.max_shots is not None:
            order = order[: plan.max_shots + 1]
        apart = self.labels == "random"
        examples = [
            Example(self.task.inputs[i], shown[i], right[i] if apart else shown[i]) for i in order
        ]
        if not apart:
            text, spans = render(examples)
            whole = tuple(range(len(spans))), tuple(map(int, order))
            return [Passage(text, tuple(spans), *whole, whole=plan.chat)]
        found = []
        for n in grid(len(order) - 1):
            text, spans = render(examples[: n + 1])
            one = (n,), (int(order[n]),)
            found.append(Passage(text, (spans[n],), *one, whole=plan.chat))
        return found

    @property
    def slug(self) -> str:
        """A readable name of the file of this order, without model and ending."""
        parts = (self.task.name, self.behaviour, self.labels, f"{self.number:03}")
        return spelled("_".join(part for part in parts if part))


def grid(longest: int) -> list[int]:
    """Numbers of shots that are measured one by one: 0 to 4, 6, 8, 12, 16, 24, ..., longest.

    >>> grid(20)
    [0, 1, 2, 3, 4, 6, 8, 12, 16, 20]
    """
    powers = [2**k for k in range(longest.bit_length())]
    halfway = [3 * 2**k for k in range(longest.bit_length())]
    return sorted({0, longest, *(n for n in [*powers, *halfway] if n <= longest)})


def orders(tasks: Sequence[Task], plan: Plan) -> Iterator[Order]:
    """Every order, the first of all tasks first, so that a run that is stopped has some of each.

    Permuted labels that are another behaviour's right ones, as in persona sets of two answers, are
    left out, with a CurveWarning: they are measured already.
    """
    curves = []
    for task in tasks:
        doubled = False
        for behaviour, labels in product(task.answers, plan.labels):
            curve = Order(task, behaviour, labels, 0)
            shown = curve.shown(plan.seed)  # or InputError before anything is measured
            other = labels == "permuted" and tuple(shown) in task.answers.values()
            doubled |= other
            curves += [] if other else [curve]
        if doubled:
            warnings.warn(
                f"{task.name}: permuted labels are those of the other behaviour, and are left out",
                CurveWarning,
                stacklevel=2,
            )
    for number in range(plan.orders):
        yield from (replace(curve, number=number) for curve in curves)


def settings_key(settings: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
