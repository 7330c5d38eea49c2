import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fake_model import Fake, nll_of

from bayesicl import read_curves
from bayesicl.collect.backend import Answer, Tokens, answer, need, self_test
from bayesicl.collect.collection import Collection
from bayesicl.collect.measure import measure
from bayesicl.collect.plan import Plan, orders
from bayesicl.collect.prompts import Passage, plain
from bayesicl.collect.questions import Task
from bayesicl.errors import InputError

TASK = Task("sums", tuple(f"{n} + 1" for n in range(9)), {"": tuple(str(n + 1) for n in range(9))})


def run(folder, backends, plan, tasks=(TASK,), **more):
    collection = Collection(folder, "tiny", **more)
    done = list(measure(list(orders(tasks, plan)), plan, backends, collection))
    return done, pd.read_csv(collection.join())


def test_a_row_for_each_order_and_shot(tmp_path):
    plan = Plan(("gold", "random"), orders=3, seed=5)
    done, table = run(tmp_path, [Fake()], plan, variant="base")
    assert len(done) == 6
    assert table.groupby(["labels", "replicate"])["shots"].nunique().tolist() == [9] * 3 + [7] * 3
    order = next(orders([TASK], plan))
    [prompt] = order.prompts(plan, plain())
    own = table[(table["labels"] == "gold") & (table["replicate"] == 0)]
    expected = [nll_of(prompt.text[:stop]) for _, stop in prompt.spans]
    assert own["nll"].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert (own["correct"] == (own["nll"] < 1)).all()
    assert own["question"].tolist() == list(prompt.questions)
    constant = {"model": "tiny", "variant": "base", "backend": "fake", "model_hash": "f" * 12}
    assert (table[list(constant)] == pd.Series(constant)).all(axis=None)
    text = (tmp_path / "prompts" / "tiny_base_sums_gold_000.txt").read_text()
    assert text == prompt.text
    [study] = read_curves(table, outcome="nll")
    assert study.hypotheses == ("gold", "random")
    assert study.kind == "prompts"


def test_a_cut_order_gives_the_rows_that_fit(tmp_path):
    _, table = run(tmp_path, [Fake(context=30)], Plan(("gold", "random"), orders=2))
    longest = table.groupby("labels")["shots"].max()
    assert longest.tolist() == [2, 2]  # 8 words an example
    with pytest.raises(InputError, match="give --context or --max-shots"):
        run(tmp_path / "other", [Fake(context=None)], Plan())
    tiny = Fake(context=4)
    with pytest.raises(InputError, match="longer than the window of 4 tokens"):
        run(tmp_path / "other", [tiny], Plan())


def test_what_is_there_is_not_measured_again(tmp_path):
    log = tmp_path / "log"
    plan = Plan(orders=2)
    run(tmp_path, [Fake(log=log)], plan)
    done, table = run(tmp_path, [Fake(log=log)], Plan(orders=3))
    assert [there for _, there in done] == [True, True, False]
    assert len(log.read_text().splitlines()) == 3
    assert table["replicate"].nunique() == 3
    with pytest.raises(InputError, match=r"with other seed \(1 now, 0 then\); name"):
        run(tmp_path, [Fake()], Plan(orders=3, seed=1))
    others = {"dtype": "bfloat16", "digest": "", "context": 99}
    words = [r"dtype \('float32' now|'bfloat16' now", "model file", r"window \(99 now, 10000 then"]
    for (name, value), word in zip(others.items(), words, strict=True):
        other = Fake()
        setattr(other, name, value)
        with pytest.raises(InputError, match=f"measured before with other .*({word})"):
            run(tmp_path, [other], plan)


def test_curves_of_a_study_differ_in_labels_only(tmp_path):
    run(tmp_path, [Fake()], Plan(orders=2))
    run(tmp_path, [Fake()], Plan(("random",), orders=1))
    with pytest.raises(InputError, match=r"other seed \(1 now, 0 then\), template \('Is {input}"):
        run(tmp_path, [Fake()], Plan(("symbol",), seed=1, template="Is {input} {output}"))
    other = Task("sums", TASK.inputs[:5], {"": TASK.answers[""][:5]})
    with pytest.raises(InputError, match="with other questions"):
        run(tmp_path, [Fake()], Plan(("symbol",)), tasks=[other])
    (kept,) = (tmp_path / "settings").iterdir()
    kept.unlink()  # as in folders of older versions
    with pytest.raises(InputError, match="with other settings; name another --out"):
        run(tmp_path, [Fake()], Plan(("symbol",), seed=1))


def test_names_that_are_written_alike_are_told_apart(tmp_path):
    list(measure([next(orders([TASK], Plan()))], Plan(), [Fake()], Collection(tmp_path, "a b")))
    with pytest.raises(InputError, match="another model or variant, whose name is written alike"):
        list(measure(list(orders([TASK], Plan())), Plan(), [Fake()], Collection(tmp_path, "a-b")))
    next((tmp_path / "orders").iterdir()).write_text("")
    with pytest.raises(InputError, match="has no measured rows; remove it"):
        run(tmp_path, [Fake()], Plan())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("orders/a.csv", b"\xff\xfe", "cannot be read .*; remove it"),
        ("orders/a.csv", b"settings\nx\n", "has no measured rows; remove it"),
        (
            "orders/a.csv",
            b"model,task,settings,shots\na,b,c,0\nd,e,f,1,g\n",
            "cannot be read .*; remove it",
        ),
        ("orders", b"", "cannot be written .*; make room for it, or name another --out"),
        ("settings", b"", "settings/.* cannot be written"),
        ("curves.csv/a", b"", "curves.csv: cannot be written"),
    ],
)
def test_what_else_is_in_the_folder(name, content, words, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path}.*{words}"):
        run(tmp_path, [Fake()], Plan(orders=1))


def test_several_back_ends_must_be_the_same_model(tmp_path):
    for one, other, words in [
        (Fake(), Fake(context=99), r"window \(10000 in the first, 99 in number 2\)"),
        (Fake("a"), Fake("b"), r"model \('a' in the first, 'b' in number 2\)"),
    ]:
        if "model" in words:
            one.digest = other.digest = ""
        with pytest.raises(InputError, match=f"must be the same model, and differ in {words}"):
            run(tmp_path, [one, other], Plan())
    assert not list(tmp_path.iterdir())


def test_names_are_kept_as_they_are(tmp_path):
    tasks = [Task(name, TASK.inputs, TASK.answers) for name in ("null", "007")]
    run(tmp_path, [Fake()], Plan(orders=1), tasks=tasks, variant="1.0")
    table = pd.read_csv(tmp_path / "curves.csv", dtype=str, keep_default_na=False)
    assert set(table["task"]) == {"null", "007"}
    assert set(table["variant"]) == {"1.0"}
    done, _ = run(tmp_path, [Fake()], Plan(orders=1), tasks=tasks, variant="1.0")
    assert all(there for _, there in done)


def test_models_share_a_folder(tmp_path):
    run(tmp_path, [Fake()], Plan(orders=2))
    _, table = run(tmp_path, [Fake()], Plan(orders=2, max_shots=3), variant="base")
    assert table.groupby("variant")["shots"].max().to_dict() == {"base": 3, "unstated": 8}
    assert len(read_curves(table, outcome="nll")) == 2


def test_killed_and_run_again(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_collect_measure import Plan, Fake, run
run(Path({str(tmp_path)!r}), [Fake(log=Path({str(tmp_path / "log")!r}), dies_after=4)], Plan())
"""
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not list((tmp_path / "orders").glob(".*.part"))
    # 24 orders: one was scored twice, the one in hand when it died.
    assert len((tmp_path / "log").read_text().splitlines()) == 25
    _, table = run(tmp_path, [Fake()], Plan())
    _, whole = run(tmp_path / "whole", [Fake()], Plan())
    pd.testing.assert_frame_equal(table.drop(columns="measured"), whole.drop(columns="measured"))


def test_several_back_ends_share_the_work(tmp_path):
    logs = [tmp_path / name for name in ("a", "b")]
    done, table = run(tmp_path, [Fake(log=log) for log in logs], Plan(orders=40))
    assert len(done) == 40
    assert sum(len(log.read_text().splitlines()) for log in logs if log.exists()) == 40
    assert not table.duplicated(["replicate", "shots"]).any()


def test_an_error_in_a_back_end_is_the_users(tmp_path):
    class Broken(Fake):
        def _one(self, prompt):
            return [answer(float("nan"), 1, False, prompt, 0)]

    with pytest.raises(InputError, match=r"nll nan to the answer '\d' after 0 shots"):
        run(tmp_path, [Broken()], Plan())


def test_self_test_passes_and_says_why_not():
    assert self_test(Fake())["agreement"] == 1

    class Drifts(Fake):
        def score(self, prompts):
            return [
                [Answer(a.nll * len(p.spans), a.tokens, a.correct) for a in self._one(p)]
                for p in prompts
            ]

    with pytest.raises(InputError, match=r"in a long prompt and .* in a short one"):
        self_test(Drifts())

    class Samples(Fake):
        def goes_on(self, text):
            return next(f" {n}" for n in range(1000) if nll_of(f"{text} {n}") > 1)

    with pytest.raises(InputError, match="calls 0 of 3 greedily generated tokens"):
        self_test(Samples())


def test_tokens_across_an_answers_edge():
    prompt = Passage("A:yes.", ((2, 5),), (0,))
    assert Tokens([0, 1, 2], [1, 2, 5]).of((2, 5), prompt, 0) == (2, 3)
    for starts, stops in (([0, 1], [1, 5]), ([0, 1, 2], [1, 2, 6])):
        with pytest.raises(InputError, match="do not begin and end with the answer 'yes'"):
            Tokens(starts, stops).of((2, 5), prompt, 0)


def test_a_missing_library_is_named_with_its_command():
    with pytest.raises(InputError, match=r"pip install 'bayesicl\[collect\]'"):
        need("no_such_library", "collect")


def test_runs_are_recorded(tmp_path):
    collection = Collection(tmp_path / "new", "tiny")
    collection.record({"a": 1})
    collection.record({"b": 2})
    lines = (tmp_path / "new" / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": 2}]
    (tmp_path / "runs.jsonl").mkdir()
    with pytest.raises(InputError, match=r"runs\.jsonl: cannot be written \(Is a directory\)"):
        Collection(tmp_path, "tiny").record({})
