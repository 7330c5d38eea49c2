"""Language models of Hugging Face transformers, on CPU or GPU, from safetensors or GGUF files."""

import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bayesicl.collect.backend import Answer, Tokens, answer, need, positive
from bayesicl.collect.prompts import Passage, Render, chat
from bayesicl.errors import InputError

PACKAGE = "package:"
SHARE = 0.4  # of free GPU memory that a batch's activations may take
AT_ONCE = 16  # orders that a GPU is given together


class Transformers:
    """A causal language model; see `backend.Backend`."""

    name = "transformers"

    def __init__(
        self,
        model: str,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        context: int | None = None,
        threads: int | None = None,
    ):
        """Load it.

        Args:
            model: a .gguf file, a folder, a name on the hub, or package:NAME for the .gguf file in
                an installed Python package.
            device: cpu, cuda, cuda:1, ...
            dtype: float32, bfloat16, ...; None for float32 on CPU and the file's own elsewhere.
            context: use at most so many tokens.
            threads: of the CPU; None for all.

        Raises:
            InputError: a library, the file or the device is missing, an option is below 1, or the
                model cannot be loaded.
        """
        positive(context=context, threads=threads)
        self._torch = torch = need("torch", "collect")
        library = need("transformers", "collect")
        if threads:
            torch.set_num_threads(threads)
        path = located(model)
        where, more = _arguments(path)
        kind = dtype or ("float32" if device == "cpu" else "auto")
        try:
            self._tokenizer = library.AutoTokenizer.from_pretrained(where, **more)
            self._model = library.AutoModelForCausalLM.from_pretrained(where, dtype=kind, **more)
            self._model.to(device).eval()
        except (
            OSError, ValueError, ImportError, RuntimeError, KeyError,
            AssertionError,  # what a torch without CUDA says of it
        ) as error:  # fmt: skip
            words = " ".join(str(error).split())
            raise InputError(
                f"--model {model}: transformers cannot load it ({words[:300]})"
            ) from error
        if not self._tokenizer.is_fast:
            raise InputError(
                f"--model {model}: its tokenizer does not tell where tokens are (no fast "
                "tokenizer); use another back end"
            )
        self.model = Path(path).stem if path.endswith(".gguf") else Path(path).name
        self.digest = digest(Path(path)) if Path(path).exists() else _commit(self._model)
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        config = self._model.config.get_text_config()
        limits = [context, getattr(config, "max_position_embeddings", None)]
        self.context = min((n for n in limits if n), default=None)
        self.at_once = 1 if device == "cpu" else AT_ONCE
        self.versions = {name: version(name) for name in ("torch", "transformers")}
        self._device = device
        wide = getattr(config, "intermediate_size", 0) or 4 * config.hidden_size
        # What a token of one layer needs at the widest place, in float32, with room to spare.
        self._bytes_per_token = 4 * (12 * config.hidden_size + 4 * wide)
        self._positions: Any = None  # (rows, columns) whose logits are wanted; None for all
        self._model.get_output_embeddings().register_forward_pre_hook(self._gather)

    def _gather(self, module, inputs):
        """Logits of the wanted positions only: all of a long prompt's would take gigabytes."""
        if self._positions is None:
            return None
        rows, columns = self._positions
        return (inputs[0][rows, columns].unsqueeze(0), *inputs[1:])

    def chat(self) -> Render:
        """The model's own chat template; InputError where it has none."""
        if not self._tokenizer.chat_template:
            raise InputError(f"{self.model} has no chat template; leave out --chat")
        return chat(
            lambda messages, ask: self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=ask
            )
        )

    def _encode(self, prompt: Passage) -> tuple[list[int], Tokens]:
        found = self._tokenizer(
            prompt.text, add_special_tokens=not prompt.whole, return_offsets_mapping=True,
            verbose=False,
        )  # fmt: skip
        ids, begin = found["input_ids"], self._tokenizer.bos_token_id
        if len(ids) > 1 and begin is not None and ids[0] == ids[1] == begin:
            raise InputError(
                f"the prompt of {self.model} begins with {self._tokenizer.bos_token!r} twice: the "
                "template has it, and the tokenizer adds it; take it out of the template"
            )
        starts, stops = zip(*found["offset_mapping"], strict=True)
        return ids, Tokens(starts, stops)

    def fitting(self, prompt: Passage) -> int:
        """How many of the prompt's answers lie within the context window."""
        ids, tokens = self._encode(prompt)
        if self.context is None or len(ids) <= self.context:
            return len(prompt.spans)
        end = tokens.stops[self.context - 1]
        return sum(int(stop <= end) for _, stop in prompt.spans)

    def score(self, prompts: Sequence[Passage]) -> list[list[Answer]]:
        """Each answer of each prompt, by one forward pass over it."""
        encoded = [self._encode(prompt) for prompt in prompts]
        by_length = sorted(range(len(prompts)), key=lambda k: -len(encoded[k][0]))
        scores: dict[int, list[Answer]] = {}
        room = self._room()
        while by_length:
            longest = len(encoded[by_length[0]][0])
            some = by_length[: max(room // longest, 1)]
            try:
                found = self._batch([encoded[k] for k in some], [prompts[k] for k in some])
            except self._torch.cuda.OutOfMemoryError as error:
                self._torch.cuda.empty_cache()
                if len(some) == 1:
                    raise InputError(
                        f"{self._device} has no memory for a prompt of {longest} tokens; lower "
                        "--max-shots or --context"
                    ) from error
                room = longest * (len(some) // 2)
                continue
            scores |= dict(zip(some, found, strict=True))
            by_length = by_length[len(some) :]
        return [scores[k] for k in range(len(prompts))]

    def _room(self) -> int:
        """Tokens that one batch may have: on CPU one prompt at a time is as fast."""
        if self._torch.device(self._device).type != "cuda":
            return 1
        free, _ = self._torch.cuda.mem_get_info(self._device)
        return int(SHARE * free / self._bytes_per_token)

    def _batch(self, encoded, prompts: list[Passage]) -> list[list[Answer]]:
        torch = self._torch
        own = [
            [tokens.of(span, prompt, i) for i, span in enumerate(prompt.spans)]
            for (_, tokens), prompt in zip(encoded, prompts, strict=True)
        ]
        width = max(len(ids) for ids, _ in encoded)
        padded = torch.zeros((len(encoded), width), dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, (ids, _) in enumerate(encoded):
            padded[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        places = [
            (row, t)
            for row, spans in enumerate(own)
            for start, stop in spans
            for t in range(start, stop)
        ]
        rows, columns = torch.tensor(places).T
        logits = self._logits(padded, mask, rows, columns - 1)
        targets = padded[rows, columns].to(logits.device)
        chosen = logits.gather(1, targets[:, None])[:, 0]
        nll = (torch.logsumexp(logits, 1) - chosen).double().cpu()
        best = (logits.argmax(1) == targets).cpu()  # of equal ones the first, as in decoding
        scores, k = [], 0
        for prompt, spans in zip(prompts, own, strict=True):
            scores.append([])
            for i, (start, stop) in enumerate(spans):
                here = slice(k, k + stop - start)
                total, all_best = float(nll[here].sum()), bool(best[here].all())
                scores[-1].append(answer(total, stop - start, all_best, prompt, i))
                k += stop - start
        return scores

    def _logits(self, ids, mask, rows, columns):
        """Logits at the given places, float32: (places, vocabulary)."""
        torch = self._torch
        self._positions = rows.to(self._device), columns.to(self._device)
        more = {} if bool(mask.all()) else {"attention_mask": mask.to(self._device)}
        try:
            with torch.inference_mode():
                out = self._model(ids.to(self._device), use_cache=False, **more)
        finally:
            self._positions = None
        return out.logits[0].float()

    def goes_on(self, text: str) -> str:
        """The one token, as text, that greedy decoding puts after `text`: by a plain pass."""
        torch = self._torch
        ids = self._tokenizer(text, return_tensors="pt")["input_ids"].to(self._device)
        with torch.inference_mode():
            found = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False
            )
        return self._tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)


def located(model: str) -> str:
    """The path or hub name that --model means."""
    if not model.startswith(PACKAGE):
        return model
    name = model.removeprefix(PACKAGE)
    found = find_spec(name) if name.isidentifier() else None
    folders = (found.submodule_search_locations if found else None) or []
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.gguf"))
    if len(files) != 1:
        raise InputError(
            f"--model {model}: an installed Python package with one .gguf file is needed, "
            f"{'it has ' + str(len(files)) if found else 'there is no such package'}"
        )
    return str(files[0])


def _arguments(path: str) -> tuple[str, dict[str, Any]]:
    """What from_pretrained is called with."""
    if not path.endswith(".gguf"):
        if os.path.isdir(path) and not list(Path(path).glob("*config.json")):
            raise InputError(
                f"--model {path}: is a folder without config.json, so no model of transformers is "
                "in it; give the folder that has it, or a .gguf file"
            )
        return path, {}
    if not os.path.isfile(path):
        raise InputError(f"--model {path}: no such file")
    need("gguf", "collect")
    return str(Path(path).parent), {"gguf_file": Path(path).name}


def digest(path: Path) -> str:
    """SHA-256 of a model's file, or of those of the weights and configuration in its folder."""
    if path.is_file():
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    endings = (".safetensors", ".bin", ".json", ".model", ".gguf")
    files = sorted(file for file in path.iterdir() if file.suffix in endings)
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


def _commit(model) -> str:
    """What the hub calls the version of a model that came from there."""
    return getattr(model.config, "_commit_hash", None) or ""
