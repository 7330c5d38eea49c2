import json
import re
from pathlib import Path

import pytest

from bayesicl.collect.labels import SYMBOLS, demonstrated
from bayesicl.collect.questions import read_task, read_tasks
from bayesicl.errors import CurveWarning, InputError

OWN = Path(__file__).parents[1] / "examples" / "questions" / "README.md"


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


LINES = '{"input": " a ", "output": 1}\n\n{"input": "b", "output": "zwei"}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", LINES),
        ("t.json", '[{"input": "a", "output": 1}, {"input": "b", "output": "zwei"}]'),
        ("t.csv", 'output,input\n1,a\nzwei,"b"\n'),
        ("t.tsv", "input\toutput\na\t1\nb\tzwei\n"),
    ],
)
def test_formats_are_the_same_task(tmp_path, name, text):
    task = read_task(write(tmp_path, name, text))
    assert (task.name, task.inputs, task.answers) == ("t", ("a", "b"), {"": ("1", "zwei")})
    other = read_task(write(tmp_path, "other.jsonl", LINES))
    assert task.hash == other.hash


def test_text_is_read_verbatim(tmp_path):
    task = read_task(write(tmp_path, "t.csv", "input,output\n007,NA\n1.0,null\n"))
    assert (task.inputs, task.answers[""]) == (("007", "1.0"), ("NA", "null"))


def test_persona_sets_have_two_behaviours(tmp_path):
    record = {"question": 'Q?\n"x"', "answer_matching_behavior": " Yes"}
    rows = [record | {"question": q, "answer_not_matching_behavior": " No"} for q in "ab"]
    task = read_task(write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows))))
    assert task.answers == {"matching": ("Yes", "Yes"), "not_matching": ("No", "No")}


def test_renamed_fields_and_folders(tmp_path):
    write(tmp_path, "b.csv", "word,opposite\nhot,cold\nup,down\n")
    [task] = read_tasks([str(tmp_path)], columns={"input": "word", "output": "opposite"})
    assert task.answers[""] == ("cold", "down")


def test_repeated_questions_are_kept_once(tmp_path):
    path = write(tmp_path, "t.csv", "input,output\na,1\nb,2\na,3\n")
    with pytest.warns(CurveWarning, match="1 of 3 questions come again"):
        task = read_task(path)
    assert task.answers[""] == ("1", "2")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.jsonl", '{"input": "a"}\n', "line 1: no field `output`; the fields are input"),
        ("t.jsonl", LINES + '{"input": "c", "output": " "}', "line 4: `output` is empty"),
        ("t.jsonl", '{"input": "a", "output": null}', "line 1: `output` must be text or a number"),
        ("t.jsonl", '{"input": "a", "output": ["b"]}', "must be text or a number, got list"),
        ("t.jsonl", "{", "line 1: is not JSON"),
        ("t.json", "[1]", "entry 1: must be a JSON object"),
        ("t.csv", "input,output\na,1,2\n", "line 2: more fields than the header"),
        ("t.csv", "input,output\na\n", "line 2: `output` must be text or a number, got nothing"),
        ("t.csv", "input,output\na,\n", "line 2: `output` is empty"),
        ("t.csv", "input,output\n", "no questions"),
        ("t.csv", "", "no questions"),
        ("t.csv", "input,input,output\na,b,1\n", "two columns are called `input`"),
        ("t.csv", "input;output\na;1\n", "is separated by semicolons; save it with commas"),
        ("t.tsv", "input,output\na,1\n", "is separated by commas; save it with tabs"),
        ("t.csv", "input,output\na,1\na,2\n", "at least 2 different questions"),
        ("t.txt", "input,output\na,1\n", r"is not JSON .*\(a table must end in .csv or .tsv\)"),
        ("t.jsonl", '{"input": "a", "output": NaN}', "must be text or a number, got nan"),
        ("t.jsonl", '{"input": "\\ud800", "output": 1}', "line 1: is not JSON .*surrogates"),
        ("t.json", "[" * 100_000, "t.json: is not JSON .*recursion"),
        ("t.csv", "input,output\na,1\n", "at least 2 different questions"),
        ("p.jsonl", '{"question": "a", "answer_matching_behavior": "b"}', "no field `answer_not_"),
    ],
)  # fmt: skip
def test_bad_files_are_told(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words):
        read_task(write(tmp_path, name, text))


def test_headers_may_have_spaces_and_columns_without_a_name(tmp_path):
    task = read_task(write(tmp_path, "t.csv", "input, output,,\na, 1,,\nb, 2,,\n"))
    assert task.answers[""] == ("1", "2")


def test_what_cannot_be_read_as_text(tmp_path):
    for content in (b"\xff\xfea\0", b"PK\x03\x04\xf0"):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read as text .* in UTF-8"):
            read_task(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"cannot be read .*too long"):
        read_tasks(["2 + 2?" * 100])


def test_columns_that_nothing_reads(tmp_path):
    path = write(tmp_path, "t.csv", "word,output\na,1\nb,2\n")
    with pytest.raises(InputError, match="nothing reads `question`; write input=word or output="):
        read_task(path, columns={"question": "word"})


def test_missing_files_and_equal_names(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_task(tmp_path / "no.csv")
    with pytest.raises(InputError, match="no question files"):
        read_tasks([str(tmp_path)])
    path = str(write(tmp_path, "t.csv", "input,output\na,1\nb,2\n"))
    with pytest.raises(InputError, match="two question files are called 't'"):
        read_tasks([path, path])


ANSWERS = ["x", "y", "z", "x"] * 25


def test_mappings_are_fixed_and_leave_none_in_place():
    for policy in ("permuted", "symbol"):
        shown = demonstrated(policy, ANSWERS, seed=3, order=0)
        assert shown == demonstrated(policy, ANSWERS, seed=3, order=9)
        assert len(set(zip(ANSWERS, shown, strict=True))) == 3
        assert all(a != b for a, b in zip(ANSWERS, shown, strict=True))
    assert set(demonstrated("symbol", ANSWERS, seed=3, order=0)) < set(SYMBOLS)
    assert set(demonstrated("permuted", ANSWERS, seed=3, order=0)) == set("xyz")


def test_random_answers_are_new_in_each_order_and_know_nothing_of_the_right_ones():
    one, two = (demonstrated("random", ANSWERS, seed=0, order=k) for k in (0, 1))
    assert one != two
    assert one == demonstrated("random", ANSWERS, seed=0, order=0)
    agree = sum(a == b for a, b in zip(ANSWERS, one, strict=True))
    assert 20 <= agree <= 47  # a third of 100, within 3 sd


def test_gold_stays_and_few_or_many_answers_are_told():
    assert demonstrated("gold", ANSWERS, seed=0, order=0) == ANSWERS
    with pytest.raises(InputError, match="needs at least 2 different answers, got only 'x'"):
        demonstrated("permuted", ["x", "x"], seed=0, order=0)
    with pytest.raises(InputError, match="300 different answers"):
        demonstrated("symbol", [str(n) for n in range(300)], seed=0, order=0)


def test_the_projects_own_questions():
    tasks = read_tasks([str(OWN.parent)])
    table = {
        name: (int(questions), int(answers))
        for name, questions, answers in re.findall(
            r"^\| `(\w+)\.csv` \|.*\| (\d+) \| (\d+) \|$", OWN.read_text(), re.M
        )
    }
    assert len(tasks) >= 8
    assert table == {
        task.name: (len(task.inputs), len(set(next(iter(task.answers.values()))))) for task in tasks
    }
    assert all(len(task.inputs) > 60 for task in tasks)
    [patience] = [task for task in tasks if task.name == "patience"]
    pairs = zip(patience.answers["matching"], patience.answers["not_matching"], strict=True)
    assert sorted(pairs) == [("No", "Yes")] * 34 + [("Yes", "No")] * 34


def test_fields_too_long_for_csv_are_told(tmp_path):
    path = write(tmp_path, "t.csv", f'input,output\na,1\n"{"b" * 140_000}",2\n')
    with pytest.raises(InputError, match=r"t\.csv, after line 2: cannot be read \(field larger"):
        read_task(path)
