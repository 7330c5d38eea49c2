"""A back end without a model: words are tokens, and every score is known in advance."""

import hashlib
import os
import re
import signal
from pathlib import Path

from bayesicl.collect.backend import Answer, Tokens
from bayesicl.collect.prompts import chat

WORDS = re.compile(r"\s*(?:\w+|[^\w\s])")


def nll_of(text: str) -> float:
    """What the fake gives to an answer at the end of `text`: from 0 to 3 nats."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32 * 3


class Fake:
    """See `backend.Backend`. log: a file that gets a line for each prompt; dies after so many."""

    name = "fake"
    digest = "f" * 64
    dtype = "float32"
    at_once = 1
    versions = {"fake": "1"}  # noqa: RUF012

    def __init__(self, model="tiny", *, context=10_000, log: Path | None = None, dies_after=None):
        self.model, self.context, self.log, self.dies_after = model, context, log, dies_after

    def chat(self):
        return chat(
            lambda messages, ask: (
                "".join(f"<{m['role']}>{m['content']}</s>" for m in messages) + "<assistant>" * ask
            )
        )

    def fitting(self, prompt):
        ends = [m.end() for m in WORDS.finditer(prompt.text)]
        if self.context is None or len(ends) <= self.context:
            return len(prompt.spans)
        return sum(stop <= ends[self.context - 1] for _, stop in prompt.spans)

    def score(self, prompts):
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt):
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{len(prompt.spans)}\n")
            if len(self.log.read_text().splitlines()) == self.dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
        found = list(WORDS.finditer(prompt.text))
        tokens = Tokens([m.start() for m in found], [m.end() for m in found])
        scores = []
        for i, span in enumerate(prompt.spans):
            start, stop = tokens.of(span, prompt, i)
            nll = nll_of(prompt.text[: span[1]])
            scores.append(Answer(nll, stop - start, nll < 1))
        return scores

    def goes_on(self, text):
        words = (f" {n}" for n in range(1000))
        return next(word for word in words if nll_of(text + word) < 1)
