"""Language models in llama.cpp, through llama-cpp-python: GGUF files as they are, quantised."""

import math
import os
from collections.abc import Sequence
from ctypes import create_string_buffer
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import numpy as np

from bayesicl.collect.backend import Answer, Tokens, answer, need, positive
from bayesicl.collect.hf import digest, located
from bayesicl.collect.prompts import Passage, Render, chat
from bayesicl.errors import InputError

AT_A_TIME = 512  # tokens that llama.cpp is given together


class LlamaCpp:
    """A GGUF file; see `backend.Backend`."""

    name = "llama.cpp"
    dtype = ""  # as the file has its weights
    at_once = 1

    def __init__(self, model: str, *, context: int | None = None, threads: int | None = None):
        """Load it.

        Args:
            model: a .gguf file, or package:NAME for the one in an installed Python package.
            context: window in tokens, at most the model's, which is taken if None.
            threads: of the CPU; None for all.

        Raises:
            InputError: llama-cpp-python is missing, an option is below 1, or the file cannot be
                loaded.
        """
        positive(context=context, threads=threads)
        self._library = library = need("llama_cpp", "llama")
        path = located(model)
        if not os.path.isfile(path):
            raise InputError(f"--model {model}: llama.cpp needs a .gguf file, and there is none")
        try:
            # Keys and values in float32: in llama.cpp's usual float16 scores move by a hundredth.
            whole = library.GGML_TYPE_F32
            self._llama = library.Llama(
                path, n_ctx=context or 0, n_batch=AT_A_TIME, n_threads=threads,
                n_threads_batch=threads, verbose=False, type_k=whole, type_v=whole,
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--model {model}: llama.cpp cannot load it ({error})") from error
        limits = [context, self._llama.n_ctx(), self._llama._model.n_ctx_train()]
        self.context = min(n for n in limits if n)  # llama.cpp rounds up what it is asked for
        self.model, self.digest = Path(path).stem, digest(Path(path))
        self.versions = {"llama-cpp-python": version("llama-cpp-python")}
        self._size = self._llama.n_vocab()

    def chat(self) -> Render:
        """The chat template of the file; InputError where it has none."""
        template = self._llama.metadata.get("tokenizer.chat_template")
        if not template:
            raise InputError(f"{self.model} has no chat template; leave out --chat")
        words = {
            f"{name}_token": self._piece(token, special=True).decode(errors="replace")
            for name, token in (("bos", self._llama.token_bos()), ("eos", self._llama.token_eos()))
            if token >= 0
        }
        environment = need("jinja2.sandbox", "llama").ImmutableSandboxedEnvironment
        try:
            compiled = environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        except need("jinja2", "llama").TemplateError as error:
            raise InputError(
                f"the chat template of {self.model} cannot be read ({error}); leave out --chat"
            ) from error
        return chat(
            lambda messages, ask: compiled.render(
                messages=messages, add_generation_prompt=ask, **words
            )
        )

    def _piece(self, token: int, *, special: bool) -> bytes:
        """The text of a token, in bytes; that of a special one only where asked for."""
        room = create_string_buffer(1024)
        vocabulary = self._llama._model.vocab
        n = self._library.llama_token_to_piece(vocabulary, token, room, 1024, 0, special)
        return room.raw[: max(n, 0)]

    def _encode(self, prompt: Passage) -> tuple[list[int], Tokens, list[tuple[int, int]]]:
        """Token numbers, where they are in bytes, and where the answers are in bytes."""
        text = prompt.text.encode()
        ids = self._llama.tokenize(text, add_bos=not prompt.whole, special=prompt.whole)
        pieces = [self._piece(token, special=prompt.whole) for token in ids]
        if len(ids) > 1 and ids[0] == ids[1] == self._llama.token_bos():
            raise InputError(
                f"the prompt of {self.model} begins with its first token twice: the template has "
                "it, and the tokenizer adds it; take it out of the template"
            )
        joined = b"".join(pieces)
        ahead = len(joined) - len(text)  # some tokenizers put a space before the text
        if not joined.endswith(text) or ahead > 1:
            raise InputError(
                f"the tokens of {self.model} do not make up the prompt again, so that answers "
                "cannot be found among them; use transformers"
            )
        stops = np.array(list(accumulate(map(len, pieces)))) - ahead
        starts = stops - [len(piece) for piece in pieces]
        at = np.array([0, *accumulate(len(c.encode()) for c in prompt.text)])
        spans = [(int(at[start]), int(at[stop])) for start, stop in prompt.spans]
        return ids, Tokens(starts.tolist(), stops.tolist()), spans

    def fitting(self, prompt: Passage) -> int:
        """How many of the prompt's answers lie within the context window."""
        ids, tokens, spans = self._encode(prompt)
        if len(ids) <= self.context:
            return len(spans)
        return sum(int(stop <= tokens.stops[self.context - 1]) for _, stop in spans)

    def score(self, prompts: Sequence[Passage]) -> list[list[Answer]]:
        """Each answer of each prompt, by one pass over it."""
        return [self._score(prompt) for prompt in prompts]

    def _score(self, prompt: Passage) -> list[Answer]:
        ids, tokens, spans = self._encode(prompt)
        own = [range(*tokens.of(span, prompt, i)) for i, span in enumerate(spans)]
        logits = self._logits(ids, {t - 1 for here in own for t in here})
        scores = []
        for i, here in enumerate(own):
            total, correct = 0.0, True
            for t in here:
                row = logits[t - 1].astype(np.float64)
                top = row.max()
                total += top + math.log(np.exp(row - top).sum()) - row[ids[t]]
                correct &= int(row.argmax()) == ids[t]  # of equal ones the first, as in decoding
            scores.append(answer(total, len(here), correct, prompt, i))
        return scores

    def _logits(self, ids: list[int], wanted: set[int]) -> dict[int, np.ndarray]:
        """Logits after each wanted token, (vocabulary,) each, by passes of AT_A_TIME tokens."""
        library, llama = self._library, self._llama
        context = llama._ctx.ctx
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch = library.llama_batch_init(AT_A_TIME, 0, 1)
        found = {}
        try:
            for begin in range(0, len(ids), AT_A_TIME):
                part = ids[begin : begin + AT_A_TIME]
                batch.n_tokens = len(part)
                for k, token in enumerate(part):
                    batch.token[k], batch.pos[k] = token, begin + k
                    batch.n_seq_id[k], batch.seq_id[k][0] = 1, 0
                    batch.logits[k] = begin + k in wanted
                if code := library.llama_decode(context, batch):
                    raise InputError(f"llama.cpp cannot read {len(ids)} tokens (code {code})")
                for k in range(len(part)):
                    if begin + k in wanted:
                        row = library.llama_get_logits_ith(context, k)
                        found[begin + k] = np.ctypeslib.as_array(row, (self._size,)).copy()
        finally:
            library.llama_batch_free(batch)
        return found

    def goes_on(self, text: str) -> str:
        """The one token, as text, that greedy decoding puts after `text`: by its own sampler."""
        made = self._llama.create_completion(text, max_tokens=1, temperature=0.0)
        return str(made["choices"][0]["text"])
