"""The stack as its users meet it: what it says of its fits, its weights and what it was asked."""

import json

import pandas as pd
import pytest

from bayesicl import load, save
from bayesicl.cli import main
from bayesicl.cli.stacks import HELD, _failed
from bayesicl.population import BUNDLED

FITS = 6  # of two laws: all five cells, the first three, the first four
LAWS = {"power": 0.75, "hill": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A curve and one held-out cell, a prior of two laws, and the stack's first run."""
    folder = tmp_path_factory.mktemp("stacks")
    shots, correct = [0, 1, 2, 4, 8, 16], [20, 60, 90, 120, 140, 150]
    table = pd.DataFrame({"task": "t", "shots": shots, "correct": correct, "total": 200})
    table.to_csv(folder / "curve.csv", index=False)
    told = json.loads(BUNDLED.read_text())
    del told["seen"]
    told |= {"laws": {name: told["laws"][name] for name in LAWS}, "weights": LAWS}
    (folder / "mine.json").write_text(json.dumps(told))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        with pytest.MonkeyPatch.context() as own:
            lines: list[str] = []
            own.setattr("bayesicl.cli.common.say", lines.append)
            assert main(command(folder)) == 0
        (folder / "said").write_text("\n".join(lines))
        yield folder


def command(folder, *more, prior="mine.json"):
    words = ["forecast", folder / "curve.csv", "--law", "stack", "--prior", folder / prior]
    words += ["--out", folder / "fits", "--fit-shots", "25%", "--warmup", "200", "--draws", "250"]
    return [str(word) for word in (*words, *more)]


def run(capsys, folder, *more, **how):
    code = main(command(folder, *more, **how))
    out, err = capsys.readouterr()
    return code, out, [line.removeprefix("bayesicl: ") for line in err.splitlines()]


def test_the_first_run_says_what_it_does_and_does_not(folder):
    said = (folder / "said").read_text().splitlines()
    assert [line for line in said if line.startswith("leaving")] == [
        f"leaving the future out: the first {k} cells of 1 studies" for k in (3, 4)
    ]
    assert not [line for line in said if "anew" in line or "kept" in line]
    assert [line for line in said if line.startswith("left out")] == [
        "left out: 1000 shots, over 30 times the fitted ones (8 of t); so far ahead 90 % bands "
        f"held {HELD}. Name them with --shots to have them"
    ]
    assert [line for line in said if "fits to make" in line] == [
        f"{FITS} fits to make: of all that is fitted, and of its first cells"
    ]
    [unknown] = [line for line in said if "does not list the curves" in line]
    assert f"prior {folder / 'mine.json'} does not list" in unknown
    [share] = [line for line in said if line.startswith("--fit-shots 25%: of 1 of 1 studies 50 %")]
    assert "at least the first 5 are taken" in share


def test_a_run_that_is_all_there_says_so_in_one_line(folder, capsys):
    code, out, err = run(capsys, folder, "--json")
    assert code == 0
    assert [line for line in err if "kept" in line] == [
        f"{FITS} of {FITS} fits were finished before and are kept"
    ]
    assert not [line for line in err if line.startswith("leaving") or "passed" in line]
    assert not [line for line in err if "fits to make" in line]
    tables = json.loads(out)
    assert {row["shots"] for row in tables["curves"]} == {0, 10, 100}
    assert not [row for row in tables.get("cautions", []) if "over 30 times" in row["caution"]]
    weights = {row["law"]: row for row in tables["weights"]}
    total = sum(LAWS.values())
    for law, start in LAWS.items():
        assert weights[f"{law}@mine"]["usual"] == pytest.approx(start / total)
    assert sum(row["weight"] for row in weights.values()) == pytest.approx(1)
    assert weights["hill@mine"]["weight"] != pytest.approx(weights["hill@mine"]["usual"], abs=1e-6)


def test_what_was_asked_for_is_not_left_out(folder, capsys):
    """Then the distance is a caution, with the kind of curves that it is known of."""
    _, out, err = run(capsys, folder, "--shots", "0,1000", "--json")
    tables = json.loads(out)
    assert {row["shots"] for row in tables["curves"]} == {0, 1000}
    [far] = [row["caution"] for row in tables["cautions"] if "over 30 times" in row["caution"]]
    assert far == (
        "1000 shots are over 30 times those fitted: so far ahead 90 % bands of probability held "
        f"{HELD}"
    )
    assert "long-context" in HELD
    assert not [line for line in err if line.startswith("left out")]
    _, out, _ = run(capsys, folder)
    assert "usual  weight" in out.partition("\nWeights of the laws: `usual`")[2].splitlines()[1]


def fail(folder, *which):
    """Let fits at these origins have failed their gates."""
    for path in sorted((folder / "fits" / "origins").rglob("*.nc")):
        tree = load(path)
        k = int(path.parent.name)
        checks = json.loads(tree.attrs["diagnostics"])
        checks["failures"] = ["R-hat 1.2"] * (k in which)
        tree.attrs |= {"passed": int(k not in which), "diagnostics": json.dumps(checks)}
        save(tree, path)


def test_fits_at_origins_that_failed(folder, capsys):
    """A caution while an origin is left; where none is, nothing weighs the laws: exit code 3."""
    fail(folder, 3)
    code, out, err = run(capsys, folder, "--json")
    assert code == 0
    [told] = [row["caution"] for row in json.loads(out)["cautions"] if "converge" in row["caution"]]
    failed = "fits to the first cells alone did not converge or broke down"
    assert told.startswith(f"2 of 4 {failed}: 1 of 2 origins")
    assert told.endswith("by more --warmup and --draws (all fits are then made anew)")
    assert not [line for line in err if "converge" in line]
    fail(folder, 3, 4)
    code, out, err = run(capsys, folder, "--json")
    assert code == 3
    [line] = [line for line in err if "converge" in line]
    assert line.startswith(f"t: 4 of 4 {failed}, and no origin is left")
    assert line.endswith("give more --warmup and --draws (all fits are then made anew)")
    tables = json.loads(out)
    assert line.removeprefix("t: ") in [row["caution"] for row in tables["cautions"]]
    for row in tables["weights"]:
        assert row["weight"] == pytest.approx(row["usual"])
    fail(folder)
    code, out, _ = run(capsys, folder, "--json")
    assert code == 0
    assert not [row for row in json.loads(out).get("cautions", []) if "conv" in row["caution"]]


def test_no_failure_is_no_words():
    assert _failed(0, 4, 2, 2) == ""


def test_fits_that_are_made_anew_are_told_before_they_are_lost(folder, capsys, monkeypatch):
    """In one line for all origins; here nothing is fitted."""

    def stop(batch, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesicl.cli.stacks.made", stop)
    record = json.loads((folder / "mine.json").read_text())
    for more, why in (
        (["--seed", "1"], "made with seed 0, now 1"),
        (["--draws", "300"], "made with draws 250, now 300"),
        ([], f"made with what {folder / 'mine.json'} held before it was changed"),
    ):
        if not more:
            record["laws"]["hill"]["centre"][0] += 0.1
            record["noises"]["misfit"]["centre"][0] += 0.1
            (folder / "mine.json").write_text(json.dumps(record) + " ")
        code, _, err = run(capsys, folder, *more)
        assert code == 130
        anew = [line for line in err if "anew" in line]
        assert anew == [
            f"{FITS} of {FITS} fits are made anew, in the place of those in {folder / 'fits'}: "
            f"{FITS} {why}"
        ]


def test_a_stack_of_one_law_says_that_nothing_is_weighed(folder, capsys, monkeypatch):
    record = json.loads((folder / "mine.json").read_text())
    record["laws"] = {"powr": record["laws"]["power"], "hill": record["laws"]["hill"]}
    record["weights"] = {}
    (folder / "one.json").write_text(json.dumps(record))
    monkeypatch.setattr(
        "bayesicl.cli.stacks.planned", lambda *a, **k: (_ for _ in ()).throw(EOFError)
    )
    with pytest.raises(EOFError):
        main(command(folder, prior="one.json"))
    err = capsys.readouterr().err
    assert "law 'powr' ('power'?) is none of bayesicl's and goes unused" in err
    assert "the stack is of one law, hill@one: nothing is weighed" in err
