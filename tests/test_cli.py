"""The command line as its users meet it: help, bad input, and one study from table to figure."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesicl.cli import COMMANDS, main, parser

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]
TINY = ["--chains", "2", "--warmup", "100", "--draws", "50"]
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
    assert f"Example:\n  bayesicl {name}" in capsys.readouterr().out


def test_examples_parse(monkeypatch):
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
        "sys.exit(', '.join(heavy))"
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
    assert all(name in out for name in ("general", "scoring", "logistic", "arXiv 2410.16531"))
    code, out, err = run(capsys, "laws", "power", "--json")
    rows = {row["parameter"]: row for row in json.loads(out)}
    assert list(rows) == ["C[0]", "alpha[0]", "L[0]", "ceiling[0]"]
    assert rows["alpha[0]"]["prior"] == "LogNormal"
    # alpha: LogNormal(log 1/2, 1), 10,000 draws
    assert rows["alpha[0]"]["median"] == pytest.approx(0.5, rel=0.1)
    assert rows["alpha[0]"]["upper 90%"] == pytest.approx(0.5 * np.exp(1.645), rel=0.1)


def test_cache_folder(tmp_path, monkeypatch):
    import jax

    from bayesicl.cli import keep_compiled_programs

    before = jax.config.jax_compilation_cache_dir
    try:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # cannot be written to
        keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "bayesicl")
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "theirs")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        keep_compiled_programs()
        assert not (tmp_path / "other").exists()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


# -- bad input ------------------------------------------------------------------------------------


def rows(**columns):
    """A good table of one curve, with some columns changed; None drops one."""
    table = {"shots": SHOTS, "correct": [1, 4, 6, 8, 9, 9], "total": [10] * 6} | columns
    return pd.DataFrame({name: value for name, value in table.items() if value is not None})


def nth(value, good, at=2):
    """`good` six times, but for one value."""
    return [value if i == at else good for i in range(6)]


PROB = {"correct": None, "total": None, "replicate": [0, 0, 0, 0, 0, 0]}
NOT_A_LAW = "def curve(shots): return shots\n"

BAD = {  # name: (table or text of the file, arguments after TABLE, words of the message)
    "no shots": (rows(shots=None), [], ["no column `shots`", "--column shots=NAME"]),
    "no outcome": (rows(correct=None), [], ["no outcome", "`correct`"]),
    "unknown column": (rows(), ["--column", "shots=n_demos"], ["no column `n_demos`"]),
    "column without =": (rows(), ["--column", "shots"], ["CANONICAL=NAME", "'shots'"]),
    "column without name": (rows(), ["--column", "shots="], ["CANONICAL=NAME"]),
    "unknown --by": (rows(), ["--by", "family"], ["no column `family`"]),
    "no rows left": (rows(), ["--where", "shots > 99"], ["no rows are left"]),
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
    "unknown law": (rows(), ["--law", "hill"], ["unknown law 'hill'", "scoring"]),
    "no law file": (rows(), ["--law", "mine.py"], ["mine.py", "no such file"]),
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
