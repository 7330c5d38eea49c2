"""bayesicl collect as a command: a table that fit reads, and one line about bad input."""

import json

import pandas as pd
import pytest
from fake_model import Fake

from bayesicl.cli import collect, main
from bayesicl.collect.backend import answer
from bayesicl.errors import InputError

QUESTIONS = "input,output\n" + "".join(f"{n} + 1,{n + 1}\n" for n in range(12))


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "sums.csv"
    path.write_text(QUESTIONS)
    return str(path)


@pytest.fixture
def fake(monkeypatch):
    def use(*backends):
        monkeypatch.setattr(collect, "open_backends", lambda args: list(backends))

    use(Fake())
    return use


def last_line(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_measure_then_fit_then_recognition(questions, fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["collect", questions, "--model", "m", "--out", "measured", "--orders", "4"]
    command += ["--labels", "gold", "random", "--name", "toy", "--variant", "base"]
    assert main(command) == 0
    assert "8 orders of toy are in measured/curves.csv" in capsys.readouterr().out
    table = pd.read_csv("measured/curves.csv")
    assert set(table["hypothesis"]) == {"gold", "random"}
    [line] = (tmp_path / "measured" / "runs.jsonl").read_text().splitlines()
    run = json.loads(line)
    assert run["model_hash"] == "f" * 64
    assert run["self_test"][0]["agreement"] == 1
    assert main(command) == 0
    assert "8 of 8 orders were finished before and are kept" in capsys.readouterr().err
    short = ["--warmup", "100", "--draws", "100", "--law", "constant"]
    fitted = ["fit", "measured/curves.csv", "--out", "fits", "--outcome", "nll", *short]
    assert main(fitted) in (0, 3)
    assert main(["recognition", "fits"]) in (0, 3)
    assert "share recognised" in capsys.readouterr().out


def test_where_orders_are_missing_is_told(fake, tmp_path, capsys):
    path = tmp_path / "sums.csv"
    long = " and again" * 4
    path.write_text("input,output\n" + "".join(f"{n}{long * (n % 3)},{n}\n" for n in range(12)))
    command = ["collect", str(path), "--model", "m", "--labels", "gold", "random"]
    fake(Fake(context=60))
    assert main([*command, "--variant", "short", "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "curves.csv")
    gold = table[table["labels"] == "gold"].groupby("shots")["replicate"].nunique()
    first = gold.index[gold < 24][0]
    assert 1 < first < gold.index.max()
    line = last_line(capsys)
    assert f"from {first} shots on (sums gold) orders are missing, which the window" in line
    fake(Fake())
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "orders are missing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("input,answer\na,b\nc,d\n", "no field `output`"),
        ("input,output\na,b\nc,\n", "line 3: `output` is empty"),
    ],
)
def test_bad_questions(text, words, fake, tmp_path, capsys):
    path = tmp_path / "q.csv"
    path.write_text(text)
    assert main(["collect", str(path), "--model", "m", "--out", str(tmp_path / "out")]) == 2
    assert words in last_line(capsys)
    assert not (tmp_path / "out").exists()


def test_a_prompt_longer_than_the_window(questions, fake, tmp_path, capsys):
    fake(Fake(context=5))
    out = tmp_path / "new" / "out"
    assert main(["collect", questions, "--model", "m", "--out", str(out)]) == 2
    assert "is longer than the window of 5 tokens" in last_line(capsys)
    assert not out.parent.exists()
    out.mkdir(parents=True)
    assert main(["collect", questions, "--model", "m", "--out", str(out)]) == 2
    assert not list(out.iterdir())


def test_answers_that_tokenise_across_the_edge(questions, fake, tmp_path, capsys):
    command = ["collect", questions, "--model", "m", "--out", str(tmp_path / "out")]
    assert main([*command, "--template", "{input}: Nr{output}"]) == 2
    assert "tokens do not begin and end with the answer" in last_line(capsys)


def test_scores_that_are_none(questions, fake, tmp_path, capsys):
    class Broken(Fake):
        def score(self, prompts):
            return [[answer(float("inf"), 1, False, p, i) for i, _ in enumerate(p.spans)]
                    for p in prompts]  # fmt: skip

    fake(Broken())
    assert main(["collect", questions, "--model", "m", "--out", str(tmp_path / "out")]) == 2
    assert "which is no score" in last_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--template", ""], "--template must have {input} and then {output}"),
        (["--column", "question=input"], "nothing reads `question`; write input=input"),
        (["--out", "x" * 300], "cannot be written to (File name too long)"),
        (["--labels", "golden"], "--labels must be gold, random, permuted, symbol"),
        (["--model", "a", "b"], "give one --model at a time"),
        (["--model", "http://127.0.0.1:9/v1", "a"], "--model of transformers must be no URLs"),
        (["--model", "http://127.0.0.1:9/v1"], "no answer that can be read"),
        (["--model", "http://["], "no answer that can be read (Invalid IPv6 URL)"),
        (["--backend", "llama.cpp", "--model", "x" * 5000], "llama.cpp needs a|pip install"),
        (["--backend", "server"], "--model of server must be URLs"),
        (["--backend", "llama.cpp", "--model", "no.gguf"], "no.gguf|pip install"),
        (["--model", "no.gguf"], "no such file|pip install"),
        (["--context", "0"], "--context must be at least 1, got 0"),
        (["--threads", "-5"], "--threads must be at least 1, got -5"),
        (["--backend", "llama.cpp", "--context", "-5"], "--context must be at least 1, got -5"),
        (["--model", "http://127.0.0.1:9/v1", "--context", "0"], "--context must be at least 1"),
        (["--dtype", "float31"], "choose from 'float32', 'bfloat16'|choose from float32"),
        (["--backend", "llama.cpp", "--device", "cuda"], "--device is not for llama.cpp"),
        (["--backend", "llama.cpp", "--dtype", "float16"], "--dtype is not for llama.cpp"),
        (["--served-model", "a"], "--served-model is not for transformers; leave it out"),
        (["--model", "http://127.0.0.1:9/v1", "--threads", "2"], "--threads is not for server"),
    ],
)
def test_bad_options(options, words, questions, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["collect", questions, "--model", "m", "--out", out, *options]) == 2
    line = last_line(capsys)
    assert any(word in line for word in words.split("|")), line
    assert not (tmp_path / "out").exists()


def test_what_was_measured_before_an_error_is_kept(questions, fake, tmp_path, capsys):
    class Stops(Fake):
        def score(self, prompts):
            if self.log.exists() and len(self.log.read_text().splitlines()) > 8:
                raise InputError("the server is gone")
            return super().score(prompts)

    fake(Stops(log=tmp_path / "log"))
    out = tmp_path / "out"
    command = ["collect", questions, "--model", "m", "--out", str(out)]
    assert main(command) == 2
    assert "the server is gone" in last_line(capsys)
    measured = len(list((out / "orders").iterdir()))
    assert measured > 0
    assert (out / "runs.jsonl").exists()
    assert list((out / "settings").iterdir())
    fake(Fake())
    assert main(command) == 0
    assert f"{measured} of 24 orders were finished before and are kept" in capsys.readouterr().err
