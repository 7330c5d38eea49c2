"""Language models behind an OpenAI-compatible server that returns prompt log-probabilities.

POST /completions with echo, the way of vLLM, of llama-cpp-python's server and of OpenAI's old
completions. A server that does not score its prompt is refused with what it did instead.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from itertools import accumulate, pairwise
from typing import Any

from bayesicl.collect.backend import Answer, Tokens, answer, positive
from bayesicl.collect.prompts import Passage, Render
from bayesicl.errors import InputError

TIMEOUT = 600.0  # seconds for one prompt
SHARE = 0.9  # of the window that is filled: tokens are only estimated before they are sent
PROBE = 5  # tokens of the window for each character that is read to count what it takes


class Server:
    """A model behind a URL; see `backend.Backend`."""

    name = "server"
    digest = dtype = ""
    at_once = 1
    versions: dict[str, str] = {}  # noqa: RUF012 (it does not tell)

    def __init__(self, url: str, *, model: str | None = None, context: int | None = None):
        """Ask what it serves.

        Args:
            url: up to and with /v1. The key, if one is needed, is that of OPENAI_API_KEY.
            model: which one; None for the first that it names.
            context: window in tokens; None for what the server says, if anything.

        Raises:
            InputError: it does not answer, or `context` is below 1.
        """
        positive(context=context)
        self._url = url.rstrip("/")
        for ending in ("/chat/completions", "/completions"):
            self._url = self._url.removesuffix(ending)
        served = self._ask("/models").get("data") or []
        names = [str(entry.get("id")) for entry in served]
        if model is not None and model not in names:
            raise InputError(f"{url}: serves {', '.join(names) or 'nothing'}, not {model}")
        if not names:
            raise InputError(f"{url}: /models names no model; is it an OpenAI-compatible server?")
        self._served = model or names[0]
        self.model = self._served.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
        said = served[names.index(self._served)].get("max_model_len")
        self.context = min((n for n in (context, said) if n), default=None)

    def chat(self) -> Render:
        """Never: chat endpoints do not score a given answer."""
        raise InputError(
            "a server's chat API generates and cannot score a given answer; leave out --chat, or "
            "load the model with transformers"
        )

    def fitting(self, prompt: Passage) -> int:
        """How many of the prompt's answers lie within the window, by what its beginning takes.

        Servers tell how many tokens a text has only when they read it. One character for every
        PROBE tokens of the window fits in any language, and costs little.
        """
        if self.context is None or len(prompt.text) <= self.context / PROBE:
            return len(prompt.spans)
        begin = prompt.text[: max(self.context // PROBE, 2)]
        *_, own = self._echo(begin)
        characters = SHARE * self.context * len(begin) / own
        return sum(stop <= characters for _, stop in prompt.spans)

    def score(self, prompts: Sequence[Passage]) -> list[list[Answer]]:
        """Each answer of each prompt, by one request for it."""
        return [self._score(prompt) for prompt in prompts]

    def _score(self, prompt: Passage) -> list[Answer]:
        tokens, values, best, _ = self._echo(prompt.text)
        scores = []
        for i, span in enumerate(prompt.spans):
            here = range(*tokens.of(span, prompt, i))
            if any(values[t] is None or best[t] is None for t in here):
                raise self._refused("sent null log-probabilities of the prompt's tokens")
            nll = -sum(float(values[t]) for t in here)
            correct = all(_is_best(values[t], best[t]) for t in here)
            scores.append(answer(nll, len(here), correct, prompt, i))
        return scores

    def _echo(self, text: str) -> tuple[Tokens, list, list, int]:
        """The tokens of a text, log p of each and of the best in its place, and their number."""
        found = self._complete(text, echo=True, logprobs=1).get("logprobs") or {}
        texts = [str(t) for t in found.get("tokens") or []]
        values, best = found.get("token_logprobs") or [], found.get("top_logprobs") or []
        if not texts or not len(texts) == len(values) == len(best):
            raise self._refused("sent no log-probabilities of the prompt")
        starts, stops = _places(texts, found.get("text_offset"), text)
        own = sum(start < len(text) for start in starts)
        if own < 2 or stops[own - 1] < len(text):
            raise self._refused("sent log-probabilities of generated tokens, not of the prompt")
        return Tokens(starts, stops), values, best, own

    def _refused(self, what: str) -> InputError:
        return InputError(
            f"{self._url} cannot be used to measure {self._served}: asked for the prompt with "
            f"log-probabilities (echo), it {what}. vLLM, and llama-cpp-python's server with "
            "logits_all, can; llama.cpp's own server and OpenAI's chat API cannot: load the model "
            "with transformers or llama.cpp (--backend)"
        )

    def goes_on(self, text: str) -> str:
        """The one token, as text, that greedy decoding puts after `text`."""
        return str(self._complete(text).get("text") or "")

    def _complete(self, text: str, **more: Any) -> dict[str, Any]:
        body = {"model": self._served, "prompt": text, "max_tokens": 1, "temperature": 0.0}
        choices = self._ask("/completions", body | more).get("choices") or []
        if not choices:
            raise self._refused("sent no completion")
        return choices[0]

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self._url + path, data, headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
                found = json.load(reply)
        except urllib.error.HTTPError as error:
            words = " ".join(error.read().decode(errors="replace").split())[:300]
            if body is not None and body.get("echo"):
                raise self._refused(f"answered {error.code} ({words})") from error
            raise InputError(f"{self._url}{path}: answered {error.code} ({words})") from error
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise InputError(f"{self._url}{path}: no answer that can be read ({reason})") from error
        if not isinstance(found, dict):
            raise InputError(f"{self._url}{path}: must answer a JSON object, got a {type(found)}")
        return found


def _is_best(value: float, best: dict[str, float]) -> bool:
    """Whether a token with this log p is the best one; `best` has that one, and may have its own.

    Where another one is as probable, and is named beside it, that one is the best.
    """
    return value >= max(best.values()) and sum(other == value for other in best.values()) <= 1


def _places(texts: list[str], offsets: Any, text: str) -> tuple[list[int], list[int]]:
    """First and one past the last character of each token.

    By the tokens' own texts where they make up the prompt, for some servers count offsets in bytes,
    or from another start; else by the offsets.
    """
    for skipped in (0, 1):  # the first token may be one that is added, with or without a text
        edges = [0, *accumulate(len(t) if k >= skipped else 0 for k, t in enumerate(texts))]
        if "".join(texts[skipped:]).startswith(text):
            return [a for a, _ in pairwise(edges)], [b for _, b in pairwise(edges)]
    offsets = [int(n) for n in offsets or []]
    if len(offsets) != len(texts):
        return [0], [0]
    return offsets, [*offsets[1:], offsets[-1] + len(texts[-1])]
