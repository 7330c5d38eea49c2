"""The command line as its users meet it: help, bad input, and one study from table to figure."""

import json
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import simulate

from bayesicl import load
from bayesicl.cli import COMMANDS, main, parser, progress
from bayesicl.cli.chosen import chosen_laws
from bayesicl.law import LAWS, PAPER, laws_of
from bayesicl.scale import MEAN_NLL, PROBABILITY
from bayesicl.tree import study_of

NAMES = [module.__name__.rpartition(".")[2].rstrip("_") for module in COMMANDS]
SHOTS = [0, 1, 2, 4, 8, 16]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Compiled programs go to a folder of the test session, not to the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def run(capsys, *argv):
    """Exit code, stdout and stderr of one command."""
    code = main([str(word) for word in argv])
    return code, *capsys.readouterr()


# -- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"  bayesicl {name}" in capsys.readouterr().out.partition("Example:\n")[2]


def test_examples_parse():
    """What the help shows is what the parser takes."""
    import shlex

    for module in COMMANDS:
        example = module.__doc__.partition("Example:\n")[2]
        for line in example.strip().splitlines():
            words = shlex.split(line.partition("|")[0])
            assert words[0] == "bayesicl"
            assert parser().parse_args(words[1:]).run


@pytest.mark.parametrize("argv", [["--help"], ["laws", "--help"], ["--version"]])
def test_help_is_quick_and_loads_no_heavy_library(argv):
    code = (
        "import sys; from bayesicl.cli import main\n"
        f"try: main({argv})\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'numpyro', 'pandas', 'numpy', 'matplotlib', 'xarray'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    took = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.5


def test_public_names_are_lazy_and_stay_functions():
    code = (
        "import sys, bayesicl\n"
        "assert 'jax' not in sys.modules and len(bayesicl.__all__) <= 20\n"
        "import bayesicl.fit, bayesicl.compare, bayesicl.contrast, bayesicl.diagnose\n"
        "from bayesicl.fit import fits\n"
        "assert all(callable(getattr(bayesicl, name)) for name in bayesicl.__all__)\n"
        "from bayesicl import fit\n"
        "assert fit.__module__ == 'bayesicl.fit' and bayesicl.__version__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "bayesicl", "--version"], capture_output=True)
    assert done.returncode == 0
    assert done.stdout.strip()


def test_laws(capsys):
    code, out, err = run(capsys, "laws")
    assert (code, err) == (0, "")
    assert all(f"{name}\n---" in out for name in LAWS)
    assert "arXiv 2410.16531" in out
    assert "  mean-probability: mean of per-prompt" in out
    code, out, err = run(capsys, "laws", "power", "--json")
    rows = {row["parameter"]: row for row in json.loads(out)}
    assert list(rows) == ["C[0]", "alpha[0]", "L[0]", "ceiling[0]"]
    assert rows["alpha[0]"]["prior"] == "LogNormal"
    # alpha: LogNormal(log 1/2, 1), 10,000 draws
    assert rows["alpha[0]"]["median"] == pytest.approx(0.5, rel=0.1)
    assert rows["alpha[0]"]["upper 90%"] == pytest.approx(0.5 * np.exp(1.645), rel=0.1)


def test_laws_by_keyword():
    of = lambda given, scale: tuple(law.name for law in chosen_laws(given, scale))  # noqa: E731
    names = lambda *given: of(given, PROBABILITY)  # noqa: E731
    assert names("paper") == PAPER
    assert names("all") == laws_of(PROBABILITY)
    assert of(["all"], MEAN_NLL) == laws_of(MEAN_NLL)
    assert names("power", "paper", "hill") == ("power", *PAPER[:3], *PAPER[4:], "hill")


# -- bad input ------------------------------------------------------------------------------------


def rows(**columns):
    """A good table of one curve, with some columns changed; None drops one."""
    table = {"shots": SHOTS, "correct": [1, 4, 6, 8, 9, 9], "total": [10] * 6} | columns
    return pd.DataFrame({name: value for name, value in table.items() if value is not None})


def nth(value, good, at=2):
    """`good` six times, but for one value."""
    return [value if i == at else good for i in range(6)]


PROB = {"correct": None, "total": None, "replicate": [0, 0, 0, 0, 0, 0]}
BROKEN = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Law
from bayesicl.priors import hypotheses


def model(design):
    with hypotheses(design):
        L = numpyro.sample("L", dist.Exponential(1.0))
    return RETURNED


law = Law("mine", lambda shots: shots, model, reference="made for the tests")
"""
NOT_A_LAW = "def curve(shots): return shots\n"

BAD = {  # name: (table or text of the file, arguments after TABLE, words of the message)
    "no shots": (rows(shots=None), [], ["no column `shots`", "--column shots=NAME"]),
    "no outcome": (rows(correct=None), [], ["no outcome", "`correct`"]),
    "unknown column": (rows(), ["--column", "shots=n_demos"], ["no column `n_demos`"]),
    "column without =": (rows(), ["--column", "shots"], ["CANONICAL=NAME", "'shots'"]),
    "column without name": (rows(), ["--column", "shots="], ["CANONICAL=NAME"]),
    "unknown --by": (rows(), ["--by", "family"], ["no column `family`"]),
    "no rows left": (rows(), ["--where", "shots > 99"], ["no rows are left"]),
    "two --where": (
        rows(),
        ["--where", "shots > 0", "--where", "shots < 1"],
        ["(shots > 0) and (shots < 1)"],
    ),
    "broken --where": (rows(), ["--where", "shots >"], ["--where"]),
    "several outcomes": (rows(nll=[1.0] * 6), [], ["several outcomes", "--outcome nll"]),
    "unknown outcome": (rows(), ["--outcome", "accuracy"], ["--outcome must be one of"]),
    "NaN": (rows(**PROB, prob=nth(None, 0.5)), [], ["line 4", "`prob`", "missing"]),
    "infinite": (rows(**PROB, prob=nth(np.inf, 0.5)), [], ["line 4", "`prob`"]),
    "probability above 1": (rows(**PROB, prob=nth(1.2, 0.5)), [], ["[0, 1]", "1.2"]),
    "negative nll": (rows(**PROB, nll=nth(-0.5, 0.5)), [], ["line 4", "-0.5"]),
    "correct above total": (rows(correct=nth(11, 5)), [], ["at most `total`", "11"]),
    "total 0": (rows(total=nth(0, 10)), [], ["line 4", "`total`"]),
    "negative shots": (rows(shots=[-1, 1, 2, 4, 8, 16]), [], ["line 2", "`shots`", "-1"]),
    "fractional shots": (rows(shots=[0, 1.5, 2, 4, 8, 16]), [], ["line 3", "1.5"]),
    "text in shots": (rows(shots=["none", 1, 2, 4, 8, 16]), [], ["line 2", "'none'"]),
    "repeated key": (rows(shots=[0, 1, 1, 4, 8, 16]), [], ["line 3 and line 4", "replicate"]),
    "one cell": (rows().head(1), [], ["at least 2 numbers of shots"]),
    "empty file": ("", [], ["empty"]),
    "not text": (b"\x00\xff\xfe\x01" * 50, [], ["table"]),
    "unknown law": (rows(), ["--law", "cubic"], ["unknown law 'cubic'", "scoring"]),
    "misspelt law": (rows(), ["--law", "pwoer"], ["unknown law 'pwoer' ('power'?): choose from"]),
    "no law file": (rows(), ["--law", "mine.py"], ["mine.py", "no such file"]),
    "law that does not run": (
        rows(),
        ["--law", "BROKEN:1 / 0"],
        ["does not run", "ZeroDivisionError"],
    ),
    "law of one value": (rows(), ["--law", "BROKEN:-L[0]"], ["log p of every cell, shape"]),
    "law above 1": (rows(), ["--law", "BROKEN:L[0] + 0 * design.shots"], ["at most 0", "signs"]),
    "law that is no number": (
        rows(),
        ["--law", "BROKEN:jnp.log(-L[0]) + 0 * design.shots"],
        ["at most 0", "nan"],
    ),
    "Excel": ("PK\x03\x04 and so on [Content_Types].xml", [], ["Excel", "save the sheet as CSV"]),
    "semicolons": ("shots;correct;total\n0;1;10\n1;3;10\n", [], ["semicolons"]),
    "law file without a law": (rows(), ["--law", "LAW"], ["must define `law = Law("]),
    "unknown noise": (rows(), ["--noise", "gaussian"], ["unknown noise 'gaussian'"]),
    "unsuited noise": (rows(), ["--noise", "given-se"], ["does not suit"]),
    "items without replicates": (rows(), ["--items", "shared"], ["--items shared"]),
    "too few draws": (rows(), ["--draws", "10"], ["draws must be at least 50"]),
    "no number": (rows(), ["--chains", "many"], ["--chains", "'many'"]),
    "negative seed": (rows(), ["--seed", "-1"], ["--seed"]),
    "no background": (rows(), ["--backgrounds", "0"], ["--backgrounds 1"]),
    "--fit-shots as words": (rows(), ["--fit-shots", "half"], ["--fit-shots", "25%"]),
    "--fit-shots 0%": (rows(), ["--fit-shots", "0%"], ["--fit-shots", "above 0"]),
    "--fit-shots of all": (rows(), ["--fit-shots", "100%"], ["leaves nothing to predict"]),
    "no hypotheses": (rows(), ["--law", "power", "--backgrounds", "2"], ["power", "leave it out"]),
    "two splits": (rows(), ["--fit-shots", "4", "--fit-points", "3"], ["not both"]),
    "no GPU": (rows(), ["--device", "gpu"], ["--device cpu"]),
    "unknown option": (rows(), ["--epochs", "3"], ["--epochs", "--help"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_table_or_options(case, tmp_path, capsys):
    content, more, words = BAD[case]
    if case == "no GPU":
        import jax

        if jax.default_backend() != "cpu":
            pytest.skip("there is one here")
    file, out = tmp_path / "curves.csv", tmp_path / "fits"
    if isinstance(content, pd.DataFrame):
        content.to_csv(file, index=False)
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    law = tmp_path / "mine.py"
    if "LAW" in more:
        law.write_text(NOT_A_LAW)
        more = [str(law) if word == "LAW" else word for word in more]
    for word in more:
        if word.startswith("BROKEN:"):
            law.write_text(BROKEN.replace("RETURNED", word.removeprefix("BROKEN:")))
            more = [str(law) if w == word else w for w in more]
    refused(run(capsys, "fit", file, "--out", out, *more), words)
    assert not out.exists()


def refused(result, words):
    """One line that says it all, and nothing else."""
    code, out, err = result
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if "warning" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("bayesicl: error: ")
    assert not [word for word in words if word not in lines[0]], lines[0]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["summary", "FILE"], ["not a netCDF or zarr file"]),
        (["summary", "TABLE"], ["no saved fit", "fit it first"]),
        (["forecast", "FITS", "--draws", "100"], ["--draws is for a table"]),
        (["forecast", "FITS", "--noise", "foo"], ["--noise is for a table"]),
        (["forecast", "FITS", "--law", "scoring"], ["--law scoring", "your own law's file"]),
        (["fit", "TABLE", "--out", ""], ["--out must name a folder"]),
        (["summary", "FOREIGN"], ["not written by bayesicl"]),
        (["summary", "nowhere"], ["nowhere", "no such file"]),
        (["summary", "EMPTY"], ["no fits"]),
        (["summary", "FITS", "--level", "90"], ["--level", "between 0 and 1"]),
        (["compare", "ONE"], ["nothing to compare"]),
        (["compare", "ONE", "OTHER"], ["different data"]),
        (["forecast", "FITS", "--shots", "0;10"], ["--shots", "whole numbers", "0;10"]),
        (["forecast", "FITS", "--shots", "99999999"], ["--shots", "at most 10000000"]),
        (["forecast", "FITS", "--threshold", "90"], ["--threshold"]),
        (["forecast", "FITS", "--fit-shots", "25%"], ["--fit-shots is for a table"]),
        (["forecast", "TABLE", "--law", "power", "--out", "new"], ["--fit-shots 25%"]),
        (["forecast", "TABLE", "--noise", "binomial", "--out", "new"], ["--fit-shots 25%"]),
        (["forecast", "TABLE", "--fit-shots", "25%"], ["--out DIR"]),
        (["forecast", "TABLE", "--law", "hil"], ["unknown law 'hil' ('hill'?)"]),
        (["forecast", "TABLE", "--law", "stak"], ["unknown law 'stak' ('stack'?)"]),
        (["forecast", "TABLE", "--out", ""], ["--out DIR"]),
        (["fit", "TABLE", "--out", "new", "--noise", "misfitt"], ["('misfit'?): choose from"]),
        (["contrast", "FITS", "--between", "variant"], ["--between", "variant=base,instruct"]),
        (["contrast", "ONE", "--between", "size=1,2"], ["--between size"]),
        (["contrast", "ONE", "--between", "model=,b"], ["--between", "two different values"]),
        (["plot", "FITS", "--out", "FILE"], ["--out", "is a file; name a folder"]),
        (["plot", "ONE", "--out", "new", "--kind", "belief"], ["no belief"]),
        (["plot", "ONE", "--out", "new", "--kind", "pie"], ["--kind", "pie"]),
        (["plot", "ONE", "--out", "new", "--shots", "0"], ["--shots", "between 1 and"]),
        (["fit", "TABLE", "--out", "FILE"], ["--out", "is a file; name a folder"]),
        (["fit", "TABLE"], ["--out"]),
        (
            ["fit", "TABLE", "--out", "FITS", "--law", "power", "--noise", "misfit"],
            ["is a fit under noise beta-binomial, not noise beta-binomial+misfit; choose another"],
        ),
        (["fit", "nowhere.csv", "--out", "new"], ["nowhere.csv", "no such file"]),
        (["laws", "cubic"], ["unknown law"]),
        (["demo", "--out", "FILE"], ["--out", "is a file; name a folder"]),
        (["check", "power", "--out", "FILE"], ["--out", "is a file; name a folder"]),
        (["check", "power", "--out", ""], ["--out must name a folder"]),
        (["check", "cubic", "--out", "new"], ["unknown law 'cubic'"]),
        (["check", "FILE", "--out", "new"], ["unknown law"]),
        (["check", "scoring", "--out", "new", "--backgrounds", "0"], ["--backgrounds 1"]),
        (["check", "power", "--out", "new", "--noise", "gauss"], ["unknown noise 'gauss'"]),
        (
            ["check", "power", "--out", "new", "--noise", "given-se", "--kind", "prompts"],
            ["noise 'given-se' does not suit", "prompts"],
        ),
        (["check", "power", "--out", "new", "--kind", "means"], ["--kind must be one of"]),
        (["check", "power", "--out", "new", "--shots", "4"], ["--shots", "2 different"]),
        (["check", "power", "--out", "new", "--simulations", "0"], ["--simulations"]),
        (["check", "power", "--out", "new", "--rows"], ["--rows is not for counts of one run"]),
        (["forecast", "FITS", "--law", "stack"], ["--law stack fits a table", "holds fits"]),
        (["forecast", "TABLE", "--law", "stack"], ["is a table", "--out DIR"]),
        (
            ["forecast", "TABLE", "--law", "stack", "power", "--out", "new", "--fit-points", "3"],
            ["--law stack has laws of its own", "leave out power"],
        ),
        (["fit", "TABLE", "--out", "new", "--law", "stack"], ["bayesicl forecast TABLE --law"]),
        (["forecast", "FITS", "--plot", "new"], ["--plot is for --law stack", "bayesicl plot"]),
        (
            [
                "forecast",
                "TABLE",
                "--law",
                "stack",
                "--out",
                "new",
                "--plot",
                "new",
                "--shots",
                "0",
            ],
            ["--plot draws up to the last of --shots", "beyond 0"],
        ),
        (["fit", "TABLE", "--out", "new", "--law", "bounded@population"], ["knows no law 'bound"]),
        (["fit", "TABLE", "--out", "new", "--law", "hill@no.json"], ["prior 'no.json': no such"]),
        (["fit", "TABLE", "--out", "new", "--prior", "no.json"], ["prior 'no.json': no such file"]),
        (
            ["fit", "TABLE", "--out", "new", "--prior", "population", "--law", "bounded"],
            ["knows no law 'bounded'", "discounted_scoring, hill, power"],
        ),
        (
            [
                "fit",
                "TABLE",
                "--out",
                "new",
                "--prior",
                "population",
                "--noise",
                "misfit@population",
            ],
            ["misfit@population names a prior of its own", "leave out --prior"],
        ),
        (
            ["fit", "TABLE", "--out", "new", "--prior", "population", "--law", "hill@population"],
            ["hill@population names a prior of its own", "leave out --prior"],
        ),
        (["forecast", "FITS", "--prior", "population"], ["--prior is for a table", "holds fits"]),
        (
            ["fit", "TABLE", "--out", "new", "--noise", "@no.json"],
            ["prior 'no.json': no such file"],
        ),
        (["learn", "FITS", "--out", "new.csv"], ["--out new.csv", "ends in .json"]),
        (["learn", "ONE", "--out", "new.json"], ["1 curves are too few", "give 8"]),
        (["learn", "nowhere", "--out", "new.json"], ["nowhere"]),
        ([], ["COMMAND"]),
        (["sample"], ["sample"]),
    ],
    ids=" ".join,
)
def test_bad_fits_or_places(argv, words, fitted, tmp_path, monkeypatch, capsys):
    import xarray as xr

    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.nc").write_bytes(b"not a fit")
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "foreign.nc", engine="h5netcdf")
    [one] = fitted.glob("*power*.nc")
    [other] = (fitted / "other").glob("m_*.nc")
    places = {"FITS": fitted, "ONE": one, "OTHER": other, "TABLE": fitted / "curves.csv"}
    places |= {"FILE": "file.nc", "FOREIGN": "foreign.nc", "EMPTY": "empty"}
    refused(run(capsys, *(places.get(word, word) for word in argv)), words)


# -- from a table to figures ----------------------------------------------------------------------


def table_of(p, seed):
    """Counts of one model on one task whose accuracy rises to `p`."""
    shots = np.arange(30)  # as few as are not left out by refits
    correct = np.random.default_rng(seed).binomial(200, p * (1 - 0.8 * np.exp(-shots / 2)))
    return pd.DataFrame({"model": "m", "task": "t", "shots": shots, "correct": correct}).assign(
        total=200
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Fits of one study under two laws, and in other/ of two studies, too short to pass."""
    out = tmp_path_factory.mktemp("fits")
    table_of(0.8, 1).to_csv(out / "curves.csv", index=False)
    pair = [table_of(0.5, 2), table_of(0.5, 2).assign(model="twin")]
    pd.concat(pair).to_csv(out / "other.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        assert main(fit_command(out)) == 0
        other = [str(out / "other.csv"), "--out", str(out / "other"), "--law", "power"]
        assert main(["fit", *other, "--chains", "2", "--warmup", "50", "--draws", "50"]) == 3
    return out


def fit_command(out):
    """The fit of the study that must pass its gates."""
    return [
        *("fit", str(out / "curves.csv"), "--out", str(out), "--law", "power", "bounded"),
        *("--warmup", "300", "--draws", "600", "--json"),
    ]


def test_fit_writes_fits_and_summary(fitted):
    from bayesicl import load

    trees = [load(path) for path in sorted(fitted.glob("*.nc"))]
    assert [tree.attrs["law"] for tree in trees] == ["bounded", "power"]
    assert dict(trees[0]["posterior"].sizes)["draw"] >= 600
    table = pd.read_csv(fitted / "summary.csv").set_index(["law", "parameter"])
    assert table["passed"].all()
    assert table.loc[("power", "L"), "lower"] < table.loc[("power", "L"), "upper"]
    assert set(table.index.get_level_values("law")) == {"power", "bounded"}
    assert not list(fitted.glob(".*"))


def test_summary_of_all_fits_tells_what_is_odd(tmp_path, capsys):
    """Wide scatter may swallow a fall, and gates and missed cells then say nothing."""
    steps = {"falls": [90, 90, 90, 90, 20, 20, 20, 20], "rises": [10, 20, 30, 40, 50, 55, 60, 60]}
    rows = [(task, n, y, 100) for task, curve in steps.items() for n, y in enumerate(curve)]
    table = pd.DataFrame(rows, columns=["task", "shots", "correct", "total"])
    table.to_csv(tmp_path / "steps.csv", index=False)
    short = ["--law", "power", "--chains", "2", "--warmup", "50", "--draws", "50"]
    run(capsys, "fit", tmp_path / "steps.csv", "--out", tmp_path / "fits", *short)
    _, _, err = run(capsys, "fit", tmp_path / "steps.csv", "--out", tmp_path / "fits", *short)
    assert "1 of 2 fits have warnings" in err
    found = pd.read_csv(tmp_path / "fits" / "summary.csv").set_index("study")
    assert found.loc["falls", "warnings"].str.contains("law power cannot fall").all()
    assert found.loc["rises", "warnings"].isna().all()
    assert (found["missed_cells"] >= 0).all()


def test_rerun_keeps_what_is_finished(fitted, capsys):
    before = {path: path.stat().st_mtime_ns for path in fitted.glob("*.nc")}
    code, out, err = run(capsys, *fit_command(fitted))
    assert code == 0
    assert "2 of 2 fits were finished before" in err
    assert {path: path.stat().st_mtime_ns for path in fitted.glob("*.nc")} == before
    rows = json.loads(out)
    assert [row["law"] for row in rows] == ["power", "bounded"]
    assert all(row["passed"] and row["worst_rhat"] < 1.01 and row["ess_bulk"] > 400 for row in rows)


def test_broken_file_and_other_settings_are_fitted_again(fitted, tmp_path, capsys):
    [one] = (fitted / "other").glob("m_*.nc")
    (tmp_path / one.name).write_bytes(one.read_bytes()[:1000])
    short = ["--law", "power", "--chains", "2", "--warmup", "50", "--draws", "50"]
    command = ["fit", fitted / "other.csv", "--where", "model == 'm'", "--out", tmp_path, *short]
    code, out, err = run(capsys, *command)
    assert code == 3
    assert f"1 of 1 fits are made anew, in the place of those in {tmp_path}: 1 cut off" in err
    assert "m | t, power" in err
    assert "ESS" in err
    assert "False" in out
    code, out, err = run(capsys, *command, "--seed", "1")
    assert "1 made with seed 0, now 1\n" in err


def test_summary(fitted, capsys):
    code, out, err = run(capsys, "summary", fitted)
    assert (code, err) == (0, "")
    assert "m | t, law power" in out
    code, out, _ = run(capsys, "summary", fitted, "--json", "--level", "0.5")
    rows = {(row["law"], row["parameter"]): row for row in json.loads(out)}
    ceiling = rows["power", "ceiling"]
    assert ceiling["lower"] < ceiling["median"] < ceiling["upper"]
    assert isinstance(ceiling["identified"], bool)


def test_failed_fits_are_named(fitted, capsys):
    code, out, err = run(capsys, "summary", fitted / "other", "--json")
    assert code == 3
    assert json.loads(out)
    assert err.startswith("bayesicl: not converged, do not rely on it: m | t, power (")


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # arviz-stats 0.8 on pandas 3.1
def test_compare(fitted, capsys):
    code, out, _ = run(capsys, "compare", fitted, "--json")
    assert code == 0
    rows = json.loads(out)
    assert {row["law"] for row in rows} == {"power", "bounded"}
    assert rows[0]["elpd_diff"] == 0
    assert [row["cells"] for row in rows] == [30, 30]


def test_forecast_of_fits(fitted, capsys):
    code, out, _ = run(
        capsys, "forecast", fitted, "--shots", "0,20,500", "--threshold", "0.75", "--json"
    )
    assert code == 0
    tables = json.loads(out)
    assert set(tables) == {"fits", "curves", "sensitivity", "reached", "shots_to"}
    mean = {(r["law"], r["shots"]): r for r in tables["curves"] if r["band"] == "mean curve"}
    assert mean["power", 0]["median"] < mean["power", 20]["median"] <= mean["power", 500]["median"]
    assert 0.7 < mean["power", 20]["median"] < 0.9
    new = [r["band"] for r in tables["curves"] if r["band"] != "mean curve"]
    assert set(new) == {"one new run of 200 new items"}
    assert all(0 <= r["probability"] <= 1 for r in tables["reached"])


def test_forecast_for_people(fitted, capsys):
    """Decisions first; what is one for all rows is left out, and no shots are infinite."""
    _, out, _ = run(
        capsys, "forecast", min(fitted.glob("*.nc")), "--shots", "0,20,500", "--threshold", "0.99",
        "--gain", "0.00001",
    )  # fmt: skip
    parts = out.split("\n\n")
    heads = [part.strip().splitlines()[0].partition(":")[0] for part in parts]
    assert heads == [
        "Fitted",
        "Shots to the threshold, n*",
        "Useful shots, as the laws have it",
        "Probability that the mean curve reaches the threshold at these shots or fewer (it may "
        "lie below again later)",
        "Predictions",
        "How far the mean curve hangs on the prior",
        "Of single laws under declared priors, bands beyond the fit were too narrow on real "
        "curves; the recommended forecast is that of a table with --law stack.",
    ]
    assert "yes" in parts[0]
    assert "> 500" in parts[1]
    assert "> N: not even from N on, the `last` that was looked at" in parts[2]
    assert re.search(r"> 250 +1e-05 +0\.9 +250 +(<0\.001|0\.\d{3})\n?$", parts[2])  # at_last
    assert re.search(r"500  outside  mean curve  +0\.\d+ +0\.\d{3} to 0\.\d{3}", parts[4])
    assert "inf" not in out
    assert "hypothesis" not in parts[4]
    assert max(map(len, parts[4].splitlines()[1:])) <= 100


FAILED = (
    "HOLD-OUT FAILED: 90 % intervals held {} of {} held-out cells, where {} were due. Do not "
    "report its bands, n* or probabilities beyond the fit as if they held"
)


@pytest.mark.parametrize(
    ("inside", "cells", "known", "words"),
    [
        (8, 20, "not decided", "HOLD-OUT IN DOUBT: 90 % intervals held 8 of 20 held-out cells, "
         "where 18 were due. On these curves they did not hold; cells of a curve miss together, "
         "so these few cannot tell whether the law fails elsewhere, too. Hold out cells of more "
         "curves or models before you report its bands, n* or probabilities beyond the fit as if "
         "they held."),
        (83, 100, "not reached", f"{FAILED.format(83, 100, 90)}."),
        (880, 1000, "not reached", "90 % intervals held 880 of 1000 held-out cells, where 900 were "
         "due: its bands are a little too narrow."),
        (99, 100, "not reached", "where 90 were due: its bands are wider than they need be."),
        (91, 100, "reached", None),
        (1750, 2000, "reached", None),  # its standard error is wide
        (2, 4, "not decided", None),  # one time in twenty, with a law that is right
        (11, 14, "not decided", None),
    ],
)  # fmt: skip
def test_forecast_cautions_where_the_hold_out_went_wrong(inside, cells, known, words):
    from bayesicl.cli.forecast import _misses

    row = {"law": "power", "cells": cells, "coverage 90%": inside / cells, "verdict 90%": known}
    lines = _misses(pd.DataFrame([row]))
    assert len(lines) == (words is not None)
    assert all(line.startswith("power: ") and line.endswith(words) for line in lines)


def test_a_study_rings_where_all_its_laws_do():
    from bayesicl.alarm import Heard
    from bayesicl.cli.forecast import _rung
    from bayesicl.cli.told import Verdict

    def of(study, law, *why, split=5, complaint="", judged=True):
        heard = Heard(list(why), [], judged)
        return Verdict({"study": study, "law": law}, 0.1 * split, (split,), complaint, heard, 2.0)

    pair = [of("a", "flat", "odd"), of("a", "hill")]
    alarms, cautions, lines = _rung([*pair, of("b", "flat", "odd")])
    assert alarms == [{"study": "b", "law": "flat", "fitted": 0.5, "alarm": "odd", "widened": 2.0}]
    [row] = cautions
    assert row["study"] == "a"
    assert row["caution"] == "this law is not adequate: odd; lean on none of its bands"
    assert lines[0].startswith("a, flat: caution: this law is not adequate")
    assert lines[1].startswith("b, flat: ALARM: odd. No law judged here is adequate")
    assert lines[2].startswith("1 of 2 studies rang; of sound ones ")
    for no_help in (
        of("a", "hill", complaint="not converged"),
        of("a", "hill", judged=False),
        of("a", "hill", split=9),
    ):
        alarms, _, _ = _rung([pair[0], no_help])
        assert [row["law"] for row in alarms] == ["flat"]


def test_nothing_is_shown_where_every_fit_broke_down(capsys):
    from bayesicl.cli.shown import for_people

    for_people({}, 10)
    assert capsys.readouterr().out == ""


def test_decisions_of_a_study_that_rang_say_so(capsys):
    from bayesicl.cli.shown import for_people

    share = [1.0, 1.0, 0.5]  # of b, the fit of a part of it rang
    whose = {"study": ["a", "b", "b"], "law": "stack", "fitted": share, "hypothesis": "0"}
    whose = pd.DataFrame(whose)
    useful = whose.assign(useful_shots=[8.0, np.inf, np.inf], gain=0.01, last=50)
    useful = useful.assign(at_last=[1.0, 0.5, 0.0])
    curves = whose.assign(shots=9, band="mean", within=True, median=0.5)
    for_people({"curves": curves, "useful": useful, "alarms": whose[2:]}, 100)
    rows = capsys.readouterr().out.splitlines()
    ends = [row.split()[-1] for row in rows if row.startswith(("a ", "b "))]
    assert ends == [">0.999", "0.500", "ALARM", "0.5", "0.5", "0.5"]
    assert any("> 50" in row for row in rows)


def test_forecast_of_a_table_scores_the_rest(fitted, tmp_path, capsys):
    code, out, _ = run(
        capsys, "forecast", fitted / "curves.csv", "--fit-points", "25", "--law", "power",
        "--out", tmp_path, "--shots", "12", "--warmup", "300", "--draws", "600",
    )  # fmt: skip
    assert code == 0
    assert "Held-out cells" in out
    code, out, _ = run(capsys, "forecast", tmp_path, "--json")
    tables = json.loads(out)
    assert [cell["shots"] for cell in tables["cells"]] == [25, 26, 27, 28, 29]
    assert tables["scores"][0]["cells"] == 5
    [row] = tables["held_out"]
    assert (row["cells"], row["fitted"]) == (5, pytest.approx(24 / 29))
    assert row["inside 90%"] == sum(cell["inside 90%"] for cell in tables["cells"])
    assert tables["scores"][0]["se 90%"] is None  # one curve has no standard error
    assert tables["scores"][0]["fitted"] == pytest.approx(24 / 29)


def test_a_share_that_is_not_the_one_asked_for(capsys):
    from bayesicl.cli.fit import tell_share
    from bayesicl.curves import read_curves

    def told(asked, **tasks):
        parts = [
            pd.DataFrame({"task": task, "shots": n, "correct": np.minimum(n, 8), "total": 9})
            for task, n in tasks.items()
        ]
        tell_share(asked, read_curves(pd.concat(parts)).hold_out(fit_shots=asked))
        return capsys.readouterr().err

    short, long, coarse = [0, 1, 2, 4, 7, 50], list(range(101)), [0, 1, 2, 3, 4, 5, 90, 100]
    assert "--fit-shots 10%: of 1 of 2 studies 14 % of the" in told("10%", a=short, b=long)
    assert "of 2 of 2 studies 5 to 14 % of the longest" in told("50%", a=short, b=coarse)
    assert told("25%", a=long) == ""
    assert told("25", a=long) == ""


def test_forecast_of_fits_whose_law_has_moved(tmp_path, capsys):
    """Predictions, scores and sensitivities all ask for the law."""
    law = tmp_path / "mine.py"
    law.write_text(simulate.STRAIGHT)
    table_of(0.8, 1).to_csv(tmp_path / "curves.csv", index=False)
    short = ["--law", law, "--fit-points", "25", "--warmup", "200", "--draws", "300"]
    run(capsys, "fit", tmp_path / "curves.csv", "--out", tmp_path / "fits", *short)
    _, before, _ = run(capsys, "forecast", tmp_path / "fits", "--shots", "0,50", "--json")
    moved = law.rename(tmp_path / "moved.py")
    refused(
        run(capsys, "forecast", tmp_path / "fits"), ["'straight'", "no longer there", "--law PATH"]
    )
    command = ["forecast", tmp_path / "fits", "--shots", "0,50", "--law", moved, "--json"]
    code, after, _ = run(capsys, *command)
    assert code == 0
    assert after == before
    assert {"prior", "likelihood", "pareto_k"} <= set(json.loads(after)["sensitivity"][0])


def test_a_stack_refuses_studies_of_one_name(tmp_path, capsys):
    rows = pd.DataFrame({"shots": [0, 1, 2, 4, 8], "correct": [1, 3, 5, 6, 7], "total": 10})
    twins = [rows.assign(model="m | a", task="b"), rows.assign(model="m", task="a | b")]
    pd.concat(twins).to_csv(tmp_path / "twins.csv", index=False)
    command = ("forecast", tmp_path / "twins.csv", "--law", "stack", "--out", tmp_path / "fits")
    code, out, err = run(capsys, *command)
    assert (code, out) == (2, "")
    assert "2 studies are all called 'm | a | b': give them other names" in err
    assert not (tmp_path / "fits").exists()


def test_stack_of_a_curve_that_collapses(tmp_path, capsys):
    """Too short to pass: fits at origins are left out, and bands cannot be wider; alarms ring."""
    p = [0.3, 0.8, 0.8, 0.8, 0.01, 0.01]
    table = pd.DataFrame({"shots": 2 ** np.arange(6), "correct": np.multiply(p, 200).round()})
    table.assign(task="falls", total=200).to_csv(tmp_path / "curve.csv", index=False)
    code, out, err = run(
        capsys, "forecast", tmp_path / "curve.csv", "--law", "stack", "--out", tmp_path / "fits",
        "--plot", tmp_path / "figures", "--shots", "0,1000", "--json",
        "--chains", "2", "--warmup", "100", "--draws", "100",
    )  # fmt: skip
    assert code == 3
    assert (
        "falls: 9 of 9 fits to the first cells alone did not converge or broke down, and no origin"
        in err
    )
    tables = json.loads(out)
    rung = pd.DataFrame(tables["alarms"])
    assert (rung["widened"] == 1).all()
    assert rung["alarm"].str.contains("conflict with the prior").any()
    told = [
        *rung["alarm"],
        *pd.DataFrame(tables.get("cautions", []), columns=["caution"])["caution"],
    ]
    assert sum("cannot fall" in words for words in told) == 1  # once, as the one or the other
    assert sum("1000 shots are over 30 times those fitted" in words for words in told) == 1
    assert sum(row["weight"] for row in tables["weights"]) == pytest.approx(1)
    [figure] = (tmp_path / "figures").iterdir()
    assert figure.name.startswith("falls_stack")
    assert str(figure) in err


def test_stack_forecasts_each_hypothesis_on_its_own(tmp_path, capsys):
    shots = [0, 1, 2, 4, 8, 16]
    table = pd.DataFrame(
        {
            "task": "t",
            "hypothesis": np.repeat(["gold", "random"], 6),
            "shots": shots * 2,
            "correct": [20, 60, 90, 120, 140, 150, 20, 22, 30, 31, 35, 34],
            "total": 200,
        }
    )
    table.to_csv(tmp_path / "curves.csv", index=False)
    command = [
        "forecast", tmp_path / "curves.csv", "--law", "stack", "--out", tmp_path / "fits",
        "--plot", tmp_path / "figures", "--fit-points", "3", "--shots", "0,100", "--threshold",
        ".5", "--chains", "2", "--warmup", "100", "--draws", "100", "--json",
    ]  # fmt: skip
    _, out, err = run(capsys, *command)
    assert "each hypothesis is forecast on its own" in err
    tables = json.loads(out)
    studies = {"t | gold", "t | random"}
    for name in ("curves", "shots_to", "reached", "cells", "held_out", "weights", "sensitivity"):
        assert {row["study"] for row in tables[name]} == studies, name
    assert len(tables["shots_to"]) == 2
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert [name.partition("_stack")[0] for name in names] == ["t_gold", "t_random"]


def test_learn_a_prior_and_fit_under_it(tmp_path, capsys):
    """Ten tasks of two models that rise at their own pace, as measured curves do."""
    rng, shots = np.random.default_rng(5), np.array([0, 1, 2, 4, 8, 16, 32])
    tables = []
    for i in range(10):
        ceiling, start, rate = rng.uniform(0.6, 0.95), rng.uniform(0.1, 0.4), rng.uniform(0.4, 1.2)
        p = ceiling - (ceiling - start) * (shots + 1.0) ** -rate
        tables.append(
            pd.DataFrame({"model": f"m{i % 2}", "task": f"t{i}", "shots": shots, "total": 250})
            .assign(correct=rng.binomial(250, p))
        )  # fmt: skip
    pd.concat(tables).to_csv(tmp_path / "many.csv", index=False)
    tables[0].query("shots < 10").assign(task="new").to_csv(tmp_path / "new.csv", index=False)
    cheap = ["--warmup", "300", "--draws", "500", "--executor", "here"]
    many = [tmp_path / "many.csv", "--out", tmp_path / "fits", "--law", "hill", *cheap]
    run(capsys, "fit", *many)
    prior = tmp_path / "mine.json"
    code, out, _ = run(capsys, "learn", tmp_path / "fits", "--out", prior, "--weigh-by", "model")
    assert code in (0, 3)  # fits that failed their gates are named and left out
    assert f"use it with --prior {prior}" in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("of ", "hill "))]
    assert rows[0][:5] == ["of", "parameter", "curves", "median", "lower"]
    assert [row[1] for row in rows[1:]] == ["gamma", "beta", "n_0", "k"]
    middle, low, high = map(float, rows[1][3:6])  # of the ceiling, a probability
    assert 0 < low < 0.6 < middle < high < 1
    assert middle < 0.98
    record = json.loads(prior.read_text())
    assert record["laws"]["hill"]["sites"] == ["gamma", "beta", "n_0", "k"]
    assert 8 <= record["laws"]["hill"]["curves"] <= 10
    (tmp_path / "copies").mkdir()  # a curve weighs the same, however many of its fits are given
    for file in sorted((tmp_path / "fits").glob("m0*.nc"))[:3]:
        shutil.copy(file, tmp_path / "copies")
    both = [tmp_path / "fits", tmp_path / "copies", "--out", tmp_path / "both.json"]
    run(capsys, "learn", *both, "--weigh-by", "model")
    twice = json.loads((tmp_path / "both.json").read_text())
    for kind, name in (("laws", "hill"), ("noises", "beta-binomial")):
        once, again = (told[kind][name]["centre"] for told in (record, twice))
        np.testing.assert_allclose(again, once, atol=2e-3)
    ceiling = 1 / (1 + np.exp(-record["laws"]["hill"]["centre"][0]))
    assert 0.6 < ceiling < 0.98
    under = ["--prior", prior, "--fit-points", "4", "--out", tmp_path / "held", *cheap]
    command = ["forecast", tmp_path / "new.csv", "--json", *under]
    code, out, _ = run(capsys, *command, "--law", "all")  # all that it knows, and the misfit
    alone = json.loads(out)
    assert alone["curves"][0]["law"] == "hill@mine"
    assert [cell["shots"] for cell in alone["cells"]] == [8]
    [path] = (tmp_path / "held").glob("*.nc")
    assert load(path).attrs["noise"] == f"beta-binomial+misfit@{prior}"
    made = path.stat().st_mtime_ns
    code, out, _ = run(capsys, *command)  # a stack, where no law is named
    tables = json.loads(out)
    assert [(row["law"], row["weight"]) for row in tables["weights"]] == [("hill@mine", 1.0)]
    assert path.stat().st_mtime_ns == made  # the same fit
    assert tables["curves"][0]["median"] == pytest.approx(alone["curves"][0]["median"], abs=0.02)
    record["seen"].append(study_of(load(path)).digest)
    prior.write_text(json.dumps(record))
    for again in ([*command, "--law", "stack"], ["forecast", path, "--json"]):
        told = [row["caution"] for row in json.loads(run(capsys, *again)[1])["cautions"]]
        assert sum("was learned from this very curve" in words for words in told) == 1


def test_contrast(fitted, capsys):
    """Two models with the same curve: no difference."""
    command = ["contrast", fitted / "other", "--between", "model=m,twin"]
    code, out, _ = run(capsys, *command, "--shots", "12", "--json")
    assert code == 3  # too short to pass
    [curve] = [row for row in json.loads(out) if row["quantity"] == "p(n)"]
    assert abs(curve["median"]) < 0.05
    assert curve["shots"] == 12
    code, out, _ = run(capsys, *command)
    assert "law power: second minus first" in out


def test_plot(fitted, tmp_path, capsys):
    code, out, _ = run(
        capsys, "plot", fitted, "--out", tmp_path, "--shots", "50", "--log-shots",
        "--kind", "curves", "--format", "svg",
    )  # fmt: skip
    assert code == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 2
    assert all(name.endswith("_curves.svg") for name in files)
    assert sorted(line.rpartition("/")[2] for line in out.splitlines()) == files
    assert "mean curve" in (tmp_path / files[0]).read_text()


def test_plot_all_leaves_out_what_has_no_use(fitted, tmp_path, capsys):
    [one] = fitted.glob("*power*.nc")
    code, _, err = run(capsys, "plot", one, "--out", tmp_path)
    assert code == 0
    assert "no figure of a comparison" in err
    assert {path.stem.rpartition("_")[2] for path in tmp_path.iterdir()} == {
        *("curves", "ppc", "forest"),
    }


# -- calibration ----------------------------------------------------------------------------------


def test_check_goes_on_after_it_was_killed(tmp_path, capsys):
    """Killed at any moment, the same command ends with the files of one that was not."""
    law = tmp_path / "straight.py"
    law.write_text(simulate.STRAIGHT)

    def command(out, n):
        short = ["--warmup", "200", "--draws", "250", "--noise", "given-se"]
        return ["check", str(law), "--out", str(out), "--simulations", str(n), *short]

    killed = tmp_path / "killed"
    words = [sys.executable, "-m", "bayesicl", *command(killed, 1000)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 240
        while len(list(killed.glob("*/[0-9]*.npz"))) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
    made = len(list(killed.glob("*/[0-9]*.npz")))
    assert 3 <= made < 1000
    assert not (killed / "ranks.csv").exists()
    code, out, err = run(capsys, *command(killed, made + 1))
    assert code == 3
    assert f"{made} of {made + 1} simulations were finished before" in err
    assert "too few simulations to tell" in out
    whole = tmp_path / "whole"
    code, out, err = run(capsys, *command(whole, made + 1), "--json")
    assert code == 3
    assert "left" in err
    for name in ("ranks.csv", "truths.csv", "coverage.csv", "calibration.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    rows = json.loads(out)
    assert [row["quantity"] for row in rows] == ["a", "b", "p(3)", "p(12)", "p(192)"]
    assert "straight, given-se" in err.splitlines()[-1]


# -- how commands end -----------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0)])
def test_interrupts(stop, code, fitted, monkeypatch):
    from bayesicl.cli import summary

    def stopped(args):
        raise stop

    monkeypatch.setattr(summary, "run", stopped)
    monkeypatch.setattr("os.dup2", lambda *fds: None)
    assert main(["summary", str(fitted)]) == code


def test_curve_warnings_are_one_line(tmp_path, capsys):
    flat = pd.DataFrame({"shots": SHOTS, "correct": 0, "total": 10})
    flat.to_csv(tmp_path / "flat.csv", index=False)
    command = ["forecast", tmp_path / "flat.csv", "--fit-points", "6", "--out", tmp_path / "fits"]
    code, _, err = run(capsys, *command)
    assert code == 2  # nothing is left to predict
    assert err.splitlines()[0] == "bayesicl: warning: study: all counts are 0"


def test_bundled_table():
    from bayesicl import data, read_curves

    curves = read_curves(data.path(), outcome="nll", where="shots <= 2")
    assert len(curves) == 18
    assert all(len(study.hypotheses) == 2 for study in curves)
    assert {int(study.cells["total"].min()) for study in curves} == {24}
    assert data.path().stat().st_size < 2_000_000


def test_long_work_is_told_of_without_a_terminal(capsys, monkeypatch):
    for quiet, told in ((15.0, ""), (-1.0, "bayesicl: leaving out cell 3\n")):
        monkeypatch.setattr(progress, "QUIET", quiet)
        with progress.status() as show:
            show("leaving out cell 3")
        assert capsys.readouterr().err == told
