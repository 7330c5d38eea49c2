"""Importers, on files that the tools themselves wrote: data/README.md tells how."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesicl import read_curves
from bayesicl.cli import main

DATA = Path(__file__).parent / "data"
CLEAR = ["--metric", "acc", "exact_match,stripped"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    for tool in ("lm_eval", "inspect"):
        zipfile.ZipFile(DATA / f"{tool}.zip").extractall(folder)
    return folder


@pytest.fixture
def imported(tmp_path, capsys):
    """Import by the command; gives the table and what was said."""

    def run(*argv):
        out = tmp_path / "table.csv"
        code = main(["import", *map(str, argv), "--out", str(out)])
        run.printed, said = capsys.readouterr()
        assert code == 0, said
        return pd.read_csv(out), said

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """The one line of an import that is refused, and leaves nothing behind."""

    def run(*argv):
        out = tmp_path / "out" / "table.csv"
        out.parent.mkdir(exist_ok=True)
        assert main(["import", *map(str, argv), "--out", str(out)]) == 2
        assert not list(out.parent.iterdir())
        [line] = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
        return line

    return run


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def edit(file: Path, change) -> None:
    """Change a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def results(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in folder.rglob("results_*.json")]


def of_shots(folder: Path, shots: int) -> Path:
    [file] = [
        file
        for file in folder.rglob("results_*.json")
        if json.loads(file.read_text())["n-shot"]["kinds"] == shots
    ]
    return file


def samples(folder: Path, shots: int) -> Path:
    result = of_shots(folder, shots)
    return result.with_name(f"samples_kinds_{result.stem.removeprefix('results_')}.jsonl")


# -- lm-evaluation-harness ------------------------------------------------------------------------


def test_documents_add_up_to_what_the_harness_says(logs, imported):
    table, said = imported("lm-eval", logs / "lm_eval/words", *CLEAR)
    assert said == ""
    assert set(table["shots"]) == {0, 1, 2, 4, 8}
    assert len(table) == 2 * 5 * 12
    for run in results(logs / "lm_eval/words"):
        for task, measure in (("kinds", "acc,none"), ("plurals", "exact_match,stripped")):
            rows = table[(table["task"] == task) & (table["shots"] == run["n-shot"][task])]
            assert rows["correct"].mean() == pytest.approx(run["results"][task][measure])


def test_nll_is_that_of_the_right_answer(logs, imported):
    table, _ = imported("lm-eval", logs / "lm_eval/words", "--task", "kinds", "--metric", "acc")
    nll = table.set_index(["shots", "replicate"])["nll"]
    for shots in (0, 1, 2, 4, 8):
        for line in samples(logs / "lm_eval/words", shots).read_text().splitlines():
            sample = json.loads(line)
            scored = [float(response[0][0]) for response in sample["resps"]]
            right = scored[int(sample["target"])]
            assert nll[shots, f"{sample['doc_id']}:{sample['doc_hash'][:8]}"] == -right
            # The harness calls right what has the larger log probability.
            assert sample["acc"] == (right == max(scored))


def relabel(folder: Path, change) -> None:
    """Change every sample of kinds in place."""
    for file in folder.rglob("samples_kinds_*"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for sample in lines:
            change(sample)
        file.write_text("".join(json.dumps(sample) + "\n" for sample in lines))


def answers_are(*texts: str, target):
    def change(sample):
        for request, text in zip(sample["arguments"].values(), texts, strict=True):
            request["arg_1"] = f" {text}"
        sample["target"] = target[int(sample["target"])]

    return change


@pytest.mark.parametrize(
    ("texts", "target"),
    [
        (("zig", "zaggy"), ("zig", "zaggy")),  # texts
        (("1", "2"), ("1", "2")),  # texts, which are also numbers
        (("1", "0"), ("0", "1")),  # numbers, which are also other choices' texts
    ],
)
def test_targets_are_texts_or_numbers(texts, target, logs, imported, tmp_path):
    kinds = ["--task", "kinds", "--metric", "acc"]
    folder = copy(logs / "lm_eval/words", tmp_path)
    relabel(folder, answers_are(*texts, target=target))
    table, said = imported("lm-eval", folder, *kinds)
    assert said == ""
    before, _ = imported("lm-eval", logs / "lm_eval/words", *kinds)
    assert table["nll"].tolist() == before["nll"].tolist()


def test_nll_of_what_the_harness_did_not_call_right_is_left_out(logs, imported, tmp_path):
    folder = copy(logs / "lm_eval/words", tmp_path)
    relabel(folder, answers_are("a", "b", target=("b", "a")))
    table, said = imported("lm-eval", folder, "--task", "kinds", "--metric", "acc")
    assert "which choice is the right one is not clear" in said
    assert "nll" not in table
    assert len(table) == 5 * 12


def test_the_table_can_be_fitted_on_either_outcome(logs, imported):
    table, _ = imported("lm-eval", logs / "lm_eval/words", *CLEAR)
    curves = read_curves(table, outcome="counts")
    assert [study.kind for study in curves] == ["counts", "counts"]
    assert curves.studies[0].cells["total"].tolist() == [12] * 5
    [study] = read_curves(table, outcome="nll", where="task == 'kinds'")
    assert study.kind == "prompts"


def test_means_of_runs_without_samples(logs, imported, tmp_path):
    counts = imported("lm-eval", logs / "lm_eval/words", *CLEAR)[0]
    folder = copy(logs / "lm_eval/words", tmp_path)
    files = sorted(folder.rglob("samples_*"))
    files.pop().unlink()
    mixed, said = imported("lm-eval", folder, *CLEAR)
    assert "some runs kept no documents" in said
    assert sorted(mixed["total"].unique()) == [1, 12]
    for file in files:
        file.unlink()
    means, said = imported("lm-eval", folder, *CLEAR)
    assert said == ""
    assert len(means) == 2 * 5
    both = [
        table.groupby(["task", "shots"])[["correct", "total"]].sum() for table in (counts, means)
    ]
    pd.testing.assert_frame_equal(*both)


def test_seeds_of_demonstrations_are_replicates(logs, imported):
    table, _ = imported(
        "lm-eval", logs / "lm_eval/words", logs / "lm_eval/seeds", "--task", "kinds",
        "--metric", "acc",
    )  # fmt: skip
    assert len(table) == 5 + 2
    assert set(table.loc[table["shots"] == 1, "replicate"]) == {"1234", "5"}
    [study] = read_curves(table, outcome="counts")
    assert study.kind == "replicated counts"
    assert study.items == "shared"


def test_the_newest_of_runs_alike_counts_and_only_documents_of_all_runs(logs, imported):
    table, said = imported(
        "lm-eval", logs / "lm_eval/words", logs / "lm_eval/again", "--task", "kinds",
        "--metric", "acc",
    )  # fmt: skip
    assert "2 runs alike at 2 shots; the newest counts" in said
    assert "again" in said
    assert "8 documents of up to 12 are in all runs" in said
    assert (table.groupby("shots").size() == 8).all()


def test_prompts_that_were_cut(logs, imported):
    table, said = imported(
        "lm-eval", logs / "lm_eval/words", logs / "lm_eval/short", "--task", "kinds",
        "--metric", "acc",
    )  # fmt: skip
    assert "at 32 shots: 24 of 24 prompts have more words than the model's window" in said
    assert set(table["shots"]) == {0, 1, 2, 4, 8}


def test_prompts_that_may_have_been_cut(logs, imported, tmp_path):
    folder = copy(logs / "lm_eval/words", tmp_path)
    edit(of_shots(folder, 8), lambda run: run.update(max_length=50))
    table, said = imported("lm-eval", folder, "--task", "kinds", "--metric", "acc")
    assert "at 8 shots" in said
    assert "may have been cut" in said
    assert 8 in set(table["shots"])


def test_fewer_demonstrations_than_asked_for(logs, imported, tmp_path):
    folder = copy(logs / "lm_eval/words", tmp_path)
    edit(of_shots(folder, 8), lambda run: run["n-shot"].update(kinds=16))
    table, said = imported("lm-eval", folder, "--task", "kinds", "--metric", "acc")
    assert "24 of 24 prompts held fewer than 16 demonstrations; left out" in said
    assert set(table["shots"]) == {0, 1, 2, 4}


def test_chat_templates_are_another_curve(logs, refused):
    line = refused("lm-eval", logs / "lm_eval/words", logs / "lm_eval/chat", *CLEAR)
    assert "runs differ in chat_template" in line


def test_a_measure_must_be_chosen(logs, refused, imported):
    line = refused("lm-eval", logs / "lm_eval/words")
    assert "acc,none | acc_norm,none" in line
    line = refused("lm-eval", logs / "lm_eval/words", "--metric", "exact_match")
    assert "exact_match,strict, exact_match,stripped; name one" in line
    table, said = imported("lm-eval", logs / "lm_eval/words", "--metric", "acc")
    assert set(table["task"]) == {"kinds"}
    assert "plurals has exact_match,strict, exact_match,stripped only; left out" in said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["lm-eval", "lm_eval", "--metric", "f1"],
            "--metric f1: no task has it; there are acc,none | acc_norm,none | "
            "exact_match,strict | exact_match,stripped",
        ),
        (
            ["lm-eval", "lm_eval", "--metric", "acc", "--task", "kinds", "colours"],
            "--task colours: not here; the tasks are kinds, plurals",
        ),
        (
            ["inspect", "inspect/epochs", "--metric", "f1"],
            "--metric f1: no task has it; there are likeness | match",
        ),
        (
            ["inspect", "inspect/epochs", "--metric", "match", "--task", "kinds", "colours"],
            "--task colours: not here; the tasks are kinds",
        ),
    ],
)
def test_what_is_nowhere_is_told_alone(argv, words, logs, capsys, tmp_path):
    tool, folder, *options = argv
    out = tmp_path / "table.csv"
    assert main(["import", tool, str(logs / folder), *options, "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"bayesicl: error: {words}\n"


def test_a_mean_that_is_no_count(logs, refused, tmp_path):
    folder = copy(logs / "lm_eval/words", tmp_path)
    for file in folder.rglob("samples_*"):
        file.unlink()
    edit(of_shots(folder, 8), lambda run: run["results"]["kinds"].update({"acc,none": 0.7}))
    assert "0.7 over 12 documents is no number of right answers" in refused(
        "lm-eval", folder, *CLEAR
    )


def broken(folder: Path, how: str) -> None:
    result, documents = of_shots(folder, 4), samples(folder, 4)
    lines = documents.read_text().splitlines()
    if how == "results cut off":
        result.write_text(result.read_text()[:500])
    elif how == "other JSON":
        result.write_text("[1, 2]")
    elif how == "sample cut off":
        documents.write_text("\n".join(lines)[:-100])
    elif how == "samples missing":
        documents.write_text("\n".join(lines[:5]))
    elif how == "not a sample":
        documents.write_text('{"filter": "none"}\n')
    elif how == "samples in Latin-1":
        documents.write_bytes(lines[0].encode() + b"\n" + lines[1].encode()[:-1] + b"\xe9\n")
    elif how in ("n-shot", "config", "results"):
        edit(result, lambda run: run.update({how: None}))
    elif how == "date":
        edit(result, lambda run: run.update(date="today"))
    elif how == "shots":
        edit(result, lambda run: run["n-shot"].update(kinds=None))
    elif how == "one run":
        shutil.move(result, folder.parent)
        for file in folder.rglob("results_*"):
            file.unlink()
        shutil.move(folder.parent / result.name, folder)
    else:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("results cut off", "cannot be read as JSON"),
        ("other JSON", "is no result of lm-evaluation-harness"),
        ("sample cut off", "line 12: is no JSON"),
        ("samples missing", "has 5 of 12 documents"),
        ("not a sample", "line 1: is no sample of acc,none"),
        ("samples in Latin-1", "line 2: is no JSON ('utf-8' codec can't decode"),
        ("n-shot", "n-shot must be objects"),
        ("config", "config must be objects"),
        ("results", "results must be objects"),
        ("shots", "lacks a part about kinds"),
        ("date", "is no result of lm-evaluation-harness on kinds (ValueError: could not convert"),
        ("one run", "at two numbers of shots or more"),
        ("no folder", "no such file or folder"),
    ],
)
def test_broken_results(how, words, logs, refused, tmp_path):
    folder = copy(logs / "lm_eval/words", tmp_path)
    broken(folder, how)
    line = refused("lm-eval", folder, *CLEAR)
    assert words in line
    assert str(tmp_path) in line or how == "one run"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--task", "colours"], "--task colours: not here; the tasks are kinds, plurals"),
        (["--prompts", "3"], "--prompts"),
    ],
)
def test_what_cannot_be_asked_for(argv, words, logs, refused):
    assert words in refused("lm-eval", logs / "lm_eval/words", *argv)


def test_folders_without_results(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "--output_path" in refused("lm-eval", tmp_path / "empty")
    assert "--log-dir" in refused("inspect", tmp_path / "empty")
    assert "too long" in refused("lm-eval", "x" * 5000)


@pytest.mark.parametrize("tool", ["lm-eval", "inspect"])
@pytest.mark.parametrize("kind", ["zip", "gztar", "tar"])
def test_archives_and_other_files(tool, kind, logs, refused, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "logs"), kind, logs / "lm_eval/seeds")
    assert f"{packed}: is an archive; unpack it and give the folder" in refused(tool, packed)
    other = tmp_path / "notes.md"
    other.write_text("# Notes")
    words = {"lm-eval": "cannot be read as JSON", "inspect": "is no log of Inspect"}[tool]
    line = refused(tool, other)
    assert words in line
    assert "give the folder that --" in line


def test_a_folder_that_is_called_like_a_log_is_none(refused, tmp_path):
    for name in ("results_2026-11-28T13-50-22.926487.json", "a.eval"):
        (tmp_path / "logs" / name).mkdir(parents=True)
    assert "no results_DATE.json in it" in refused("lm-eval", tmp_path / "logs")
    assert "no .eval or .json log in it" in refused("inspect", tmp_path / "logs")


@pytest.mark.parametrize("argv", [["import"], ["import", "helm", "x"], ["import", "lm-eval"]])
def test_the_format_is_never_guessed(argv, capsys):
    assert main(argv) == 2
    assert "see bayesicl import" in capsys.readouterr().err


def test_out_must_be_a_table(logs, capsys, tmp_path):
    argv = ["import", "lm-eval", str(logs / "lm_eval/words"), "--out", str(tmp_path / "t.txt")]
    assert main(argv) == 2
    assert ".csv or .parquet" in capsys.readouterr().err


# -- Inspect --------------------------------------------------------------------------------------


def test_samples_add_up_to_what_inspect_says(logs, imported):
    table, said = imported("inspect", logs / "inspect/task-args", "--metric", "match")
    assert said == ""
    assert sorted(set(table["shots"])) == [0, 2, 6]
    from bayesicl.importers.inspect_logs import _load

    for file in (logs / "inspect/task-args").iterdir():
        header, _ = _load(file)
        [match] = [s for s in header["results"]["scores"] if s["name"] == "match"]
        rows = table[table["shots"] == header["eval"]["task_args"]["fewshot"]]
        assert rows["correct"].mean() == match["metrics"]["accuracy"]["value"]
    assert [study.kind for study in read_curves(table)] == ["counts"]


def test_epochs_are_replicates(logs, imported):
    table, _ = imported("inspect", logs / "inspect/epochs", "--metric", "match")
    assert table["replicate"].tolist() == ["epoch 1", "epoch 2"] * 2
    assert table["total"].tolist() == [4] * 4
    [study] = read_curves(table)
    assert (study.kind, study.items) == ("replicated counts", "shared")


def test_seeds_are_replicates_where_there_are_demonstrations(logs, imported, tmp_path):
    folder = copy(logs / "inspect/epochs", tmp_path)
    for file in sorted(folder.iterdir()):
        edit(file, lambda log: log["eval"]["task_args"].update(fewshot_seed=1))
        other = Path(shutil.copy(file, file.with_name(f"{file.stem}_other.json")))
        edit(other, lambda log: log["eval"]["task_args"].update(fewshot_seed=2))
    table, said = imported("inspect", folder, "--metric", "match")
    assert said.count("2 runs alike at 0 shots; the newest counts") == 2  # of each epoch
    replicates = table.groupby("shots")["replicate"].agg(list).to_dict()
    assert replicates == {
        0: ["epoch 1", "epoch 2"], 6: ["epoch 1 1", "epoch 2 1", "epoch 1 2", "epoch 2 2"],
    }  # fmt: skip


def test_lists_of_logs_are_no_logs(logs, imported, tmp_path):
    """As Inspect's eval_set and its bundles leave them."""
    folder = copy(logs / "inspect/epochs", tmp_path)
    for name in ("eval-set.json", "logs.json", "listing.json"):
        (folder / name).write_text('{"eval_set_id": "a", "tasks": []}')
    table, said = imported("inspect", folder, "--metric", "match")
    assert said == ""
    assert len(table) == 4


def test_that_all_cells_are_of_the_same_documents_is_told(logs, imported):
    told = "the same documents are behind every number of shots"
    imported("inspect", logs / "inspect/task-args", "--metric", "match")
    assert told in imported.printed
    imported("inspect", logs / "inspect/epochs", "--metric", "match")
    assert told not in imported.printed
    imported("authors", GINC, "--prompts", 3)
    assert told not in imported.printed


def test_scores_that_are_shares(logs, imported):
    table, _ = imported("inspect", logs / "inspect/task-args", "--metric", "likeness")
    assert table["prob"].between(0, 1).all()
    assert [study.kind for study in read_curves(table)] == ["prompts"]


def test_where_the_number_of_demonstrations_is_told(logs, imported, refused):
    table, _ = imported("inspect", logs / "inspect/solver")
    assert set(table["shots"]) == {0, 6}
    # The task's own solver says 0 there, because it was told so by other means.
    line = refused("inspect", logs / "inspect/metadata")
    assert "num_shots = 0 and k_shot = 6 disagree" in line
    table, _ = imported("inspect", logs / "inspect/metadata", "--shots-key", "k_shot")
    assert set(table["shots"]) == {0, 6}
    line = refused("inspect", logs / "inspect/metadata", "--shots-key", "n")
    assert "does not tell the number of demonstrations" in line
    assert "k_shot, num_shots" in line
    line = refused("inspect", logs / "inspect/metadata", "--shots-key", "tool_calls")
    assert "whole number of demonstrations, got 'loop'" in line


def is_told(log, text="Word: cat\nKind: zig\n\n"):
    """The solver gets a step that puts text in front."""
    log["plan"]["steps"].insert(0, {"solver": "system_message", "params": {"template": text}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda log: log["eval"]["model_args"].update(dtype="int4"), "model_args dtype: 'none' in"),
        (lambda log: log["eval"].update(solver_args={"style": "short"}), "solver_args style"),
        (lambda log: log["plan"]["steps"][1]["params"].update(tool_calls="none"),
         "solver generate tool_calls: 'none' in"),
        (lambda log: log["eval"]["config"].update(token_limit=9), "config token_limit: '9' in"),
        (is_told, "solver system_message template: 'Word: cat"),
    ],
)  # fmt: skip
def test_runs_made_in_other_ways_are_another_curve(change, words, logs, refused, tmp_path):
    folder = copy(logs / "inspect/epochs", tmp_path)
    without = sorted(folder.iterdir())[words.startswith("model_args")]
    edit(without, change)
    line = refused("inspect", folder, "--metric", "match")
    assert f"runs differ in {words}" in line


def test_what_need_not_be_the_same(logs, imported, tmp_path):
    """Machines, and settings that are demonstrations or their number."""
    folder = copy(logs / "inspect/epochs", tmp_path)
    _, longer = sorted(folder.iterdir())
    edit(longer, lambda log: log["eval"]["model_args"].update(device="cuda:1"))
    edit(longer, lambda log: log["eval"]["config"].update(max_samples=9, limit=4))
    edit(longer, lambda log: is_told(log, "Word: cat\nKind: zig\n\n" * 6))
    for i, file in enumerate(sorted(folder.iterdir())):
        edit(file, lambda log, n=6 * i: log["plan"]["steps"][-1]["params"].update(n=n))
    table, said = imported("inspect", folder, "--metric", "match")
    assert said == ""
    assert set(table["shots"]) == {0, 6}


def test_a_scorer_must_be_chosen(logs, refused):
    assert "match | likeness" in refused("inspect", logs / "inspect/task-args")


def test_logs_that_ended_early(logs, imported, refused, tmp_path):
    folder = copy(logs / "inspect/epochs", tmp_path)
    first, second = sorted(folder.iterdir())
    edit(second, lambda log: log["samples"].pop()["scores"])
    edit(second, lambda log: log["samples"][-1].pop("scores"))
    _, said = imported("inspect", folder, "--metric", "match")
    assert "1 of 7 samples have no score; left out" in said
    assert "documents of up to 4 are in all runs" in said
    edit(first, lambda log: log.update(status="cancelled"))
    assert "two numbers of shots" in refused("inspect", folder, "--metric", "match")
    first.write_text(first.read_text()[:1000])
    assert "was cut off" in refused("inspect", folder, "--metric", "match")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda log: log["samples"][1].pop("id"), "sample 2 is no object with id and epoch"),
        (lambda log: log["samples"].append(7), "sample 9 is no object with id and epoch"),
        (lambda log: log["samples"][0]["scores"].update(match=1), "sample 1: a score is no object"),
        (lambda log: log["eval"].update(dataset=None), "nothing is told of the dataset"),
        (lambda log: log["eval"].update(model=[]), "no task, model, date or status"),
        (lambda log: log.update(plan=[1]), "is no log of Inspect, or was cut off (AttributeError"),
    ],
)
def test_logs_that_are_not_inspects(change, words, logs, refused, tmp_path):
    folder = copy(logs / "inspect/epochs", tmp_path)
    edit(sorted(folder.iterdir())[0], change)
    line = refused("inspect", folder, "--metric", "match")
    assert words in line
    assert "leave it out" in line


def test_archives_that_are_not_whole(logs, refused, tmp_path, monkeypatch):
    folder = copy(logs / "inspect/task-args", tmp_path)
    first = sorted(folder.iterdir())[0]
    whole = first.read_bytes()
    middle = whole.index(b"header.json") + 60  # in its packed bytes
    first.write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    assert "damaged" in refused("inspect", folder, "--metric", "match")
    with zipfile.ZipFile(first, "w") as unfinished:
        unfinished.writestr("_journal/start.json", "{}")
    assert "was not finished" in refused("inspect", folder, "--metric", "match")
    first.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install 'bayesicl[inspect]'" in refused("inspect", folder, "--metric", "match")


# -- the authors' files ---------------------------------------------------------------------------

MEANS = DATA / "authors/random_tiny-llama___evals_persona_psychopathy___means.csv"
GINC = DATA / "authors/1-1,1-1,0/in_context_probs.csv"


def test_language_models(imported):
    table, _ = imported("authors", MEANS, "--prompts", 6)
    theirs = pd.read_csv(MEANS)
    assert table["shots"].tolist() == [shots - 1 for shots in theirs["shots"]]
    assert np.allclose(table["prob"], theirs["prob"])
    [study] = read_curves(table)
    assert study.key == {
        "model": "random/tiny-llama", "variant": "", "task": "evals/persona/psychopathy",
    }  # fmt: skip
    assert (study.kind, study.hypotheses) == ("aggregated", ("0", "1"))
    assert study.cells["shots"].tolist() == [*range(10)] * 2


def test_ginc(imported):
    table, _ = imported("authors", GINC, "--prompts", 3)
    theirs = pd.read_csv(GINC)
    curves = read_curves(table)
    assert [study.key for study in curves] == [
        {"model": "1-1,1-1,0", "variant": variant, "task": task}
        for task in ("examples of 3 tokens", "examples of 5 tokens")
        for variant in ("tuned on 0 documents", "tuned on 50 documents")
    ]
    assert set(table["shots"]) == set(theirs["shots"]) == set(range(6))
    # Of tuning, what was measured at the last step.
    tuned = table[table["variant"] == "tuned on 50 documents"]["prob"]
    assert np.allclose(tuned, theirs[(theirs["sft_amount"] == 50) & (theirs["sft"] == 4)]["prob"])


def test_the_end_of_tuning_counts_where_it_is_marked(imported, tmp_path):
    theirs = pd.read_csv(GINC).astype({"sft": object})
    theirs["sft"] = theirs["sft"].replace({0: "False", 1: "True"})
    theirs.to_csv(tmp_path / "in_context_probs.csv")
    table, _ = imported("authors", tmp_path / "in_context_probs.csv", "--prompts", 3)
    tuned = table[table["variant"] == "tuned on 50 documents"]["prob"]
    assert np.allclose(tuned, theirs[theirs["sft"] == "True"]["prob"])


def test_authors_files_that_cannot_be_read(refused, tmp_path):
    assert "give --prompts N" in refused("authors", MEANS)
    assert "import them apart" in refused("authors", MEANS, GINC, "--prompts", 3)
    assert "two rows for model random/tiny-llama" in refused(
        "authors", MEANS, MEANS, "--prompts", 3
    )
    for name, change, words in [
        ("single.csv", {"nll": 0.5}, "line 2 and 19 more: `nll` must be -log of prob"),
        ("zero.csv", {"shots": 0}, "llm.py counts the query as a shot"),
        ("high.csv", {"prob": 1.5}, "`prob` must be from 0 to 1"),
        ("none.csv", {"model": None}, "line 2 and 19 more: `model` must be filled in, got nothing"),
        ("text.csv", {"shots": "one"}, "`shots` must be a whole number, got 'one'; check the file"),
    ]:
        pd.read_csv(MEANS).assign(**change).to_csv(tmp_path / name)
        assert words in refused("authors", tmp_path / name, "--prompts", 3)
    pd.read_csv(GINC).assign(sft="some").to_csv(tmp_path / "ginc.csv")
    assert "`sft` must be True, False or a step, got 'some'" in refused(
        "authors", tmp_path / "ginc.csv", "--prompts", 3
    )
    (tmp_path / "other.csv").write_text("shots,acc\n0,1\n")
    assert "is no file of the authors' code" in refused(
        "authors", tmp_path / "other.csv", "--prompts", 3
    )
