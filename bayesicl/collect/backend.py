"""What scores text: the contract of back ends, their self-test, and what they share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from bayesicl.collect.prompts import Passage, Render
from bayesicl.errors import InputError

# Texts that every language model goes on with in one obvious way or another.
KNOWN = ("1, 2, 3, 4, 5, 6, 7, 8,", "Monday, Tuesday, Wednesday, Thursday,", "a b c d e f g h")
SUMS = "Q: 1 + 1\nA: 2\n\nQ: 2 + 1\nA: 3\n\nQ: 2 + 2\nA: 4"


@dataclass(frozen=True)
class Answer:
    """How a model scored one answer.

    nll: of the whole answer, -log p, nats >= 0. tokens: it has, >= 1. correct: greedy decoding
    gives exactly it.
    """

    nll: float
    tokens: int
    correct: bool


class Backend(Protocol):
    """A language model that scores answers within a text.

    name: of the kind of back end. model: a short name for tables. digest: SHA-256 of its files, ""
    where they cannot be seen. dtype: in which it computes, such as float32; "" where unknown.
    context: tokens that it can read, or None where it does not say.
    at_once: orders that it likes to get together. versions: of what computes.
    """

    name: str
    model: str
    digest: str
    dtype: str
    context: int | None
    at_once: int
    versions: dict[str, str]

    def chat(self) -> Render:
        """The model's own chat template; InputError where it has none."""
        ...

    def fitting(self, prompt: Passage) -> int:
        """How many of the prompt's answers lie within the context window."""
        ...

    def score(self, prompts: Sequence[Passage]) -> list[list[Answer]]:
        """Each answer of each prompt; InputError where the back end cannot."""
        ...

    def goes_on(self, text: str) -> str:
        """The one token, as text, that greedy decoding puts after `text`."""
        ...


class Tokens:
    """Which tokens of a text belong to which of its answers.

    starts, stops: (n,) first and one past the last character, or byte, of each token.
    """

    def __init__(self, starts: Sequence[int], stops: Sequence[int]):
        """Positions of special tokens may be (0, 0)."""
        self.starts, self.stops = np.asarray(starts), np.asarray(stops)

    def of(self, span: tuple[int, int], prompt: Passage, i: int) -> tuple[int, int]:
        """First and one past the last token of the i-th answer, which is at `span`.

        Raises InputError where a token is partly the answer's and partly of what stands around it:
        then no token's probability is that of the answer.
        """
        own = np.flatnonzero(
            (self.starts < span[1]) & (self.stops > span[0]) & (self.stops > self.starts)
        )
        whole = own.size and self.starts[own[0]] >= span[0] and self.stops[own[-1]] <= span[1]
        if not whole or own[0] == 0:
            raise InputError(
                f"this model's tokens do not begin and end with the answer {prompt.answer(i)!r} "
                f"in {_around(prompt, i)!r}; choose a --template with a space before {{output}} "
                "and a line break after it, or change the answer"
            )
        return int(own[0]), int(own[-1]) + 1


def _around(prompt: Passage, i: int) -> str:
    start, stop = prompt.spans[i]
    return prompt.text[max(start - 12, 0) : stop + 4]


def answer(nll: float, tokens: int, correct: bool, prompt: Passage, i: int) -> Answer:
    """An answer's score; InputError where it is no number."""
    if not math.isfinite(nll) or nll < -1e-3:
        raise InputError(
            f"the model gave nll {nll} to the answer {prompt.answer(i)!r} after {prompt.shots[i]} "
            "shots, which is no score; try another precision (--dtype float32) or back end"
        )
    return Answer(max(nll, 0.0), tokens, correct)


def positive(**options: int | None) -> None:
    """InputError where an option is given and below 1."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")


def need(module: str, extra: str) -> Any:
    """Import an optional library; InputError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module} is not installed ({error}); pip install 'bayesicl[{extra}]'"
        ) from error


def self_test(backend: Backend) -> dict[str, float]:
    """Score known texts; InputError with the reason where the back end cannot be relied on.

    Returns what was seen: nll of a known text in nats, its tokens, and the share of greedy tokens
    that scoring also finds greedy.
    """
    reason = f"{backend.name} cannot be used to measure {backend.model}: "
    text, spans = SUMS, [(i, i + 2) for i in range(len(SUMS)) if SUMS.startswith("A: ", i - 2)]
    parts = Passage(text, tuple(spans), tuple(range(len(spans))))
    alone = [Passage(text[:stop], ((start, stop),), (n,)) for n, (start, stop) in enumerate(spans)]
    [together], *single = backend.score([parts]), *map(backend.score, [[p] for p in alone])
    for n, (one, [[other]]) in enumerate(zip(together, single, strict=True)):
        if one.tokens != other.tokens or not math.isclose(one.nll, other.nll, abs_tol=0.05):
            raise InputError(
                f"{reason}the answer at {n} shots has nll {one.nll:.4f} ({one.tokens} tokens) in a "
                f"long prompt and {other.nll:.4f} ({other.tokens}) in a short one; they must agree"
            )
    agree = []
    for known in KNOWN:
        token = backend.goes_on(known)
        if token.strip() and "\ufffd" not in token:
            span = (len(known), len(known) + len(token))
            [[scored]] = backend.score([Passage(known + token, (span,), (0,))])
            agree.append(scored.correct)
    if not agree or sum(agree) < (len(agree) + 1) // 2:
        raise InputError(
            f"{reason}scoring calls {sum(agree)} of {len(agree)} greedily generated tokens the "
            "most probable ones; all should be: its log-probabilities are not those it decodes by"
        )
    return {
        "nll": sum(one.nll for one in together),
        "tokens": sum(one.tokens for one in together),
        "agreement": sum(agree) / len(agree),
    }
