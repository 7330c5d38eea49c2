"""Fits made by any executor are the same, and what is finished survives whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import simulate
import xarray as xr

from bayesicl import InputError, execute, load
from bayesicl.cli import main
from bayesicl.execute import Job, _Worker, executor_of, here
from bayesicl.store import find_fits

SHORT = ["--chains", "2", "--warmup", "50", "--draws", "50"]
# A law that breaks down where a curve is long: it raises an exception, or takes its process along.
FRAGILE = simulate.STRAIGHT.replace(
    "def model(design):\n",
    """def model(design):
    import os, multiprocessing
    if multiprocessing.parent_process() is not None and design.shots.shape[0] > 16:
        if design.shots.shape[0] > 32:
            os._exit(7)
        raise OSError("worn out")
""",
)
CELLS = {"raises": 20, "dies": 40}  # others have 8


def table_of(names):
    """A curve a study."""
    rng, tables = np.random.default_rng(0), []
    for name in names:
        shots = np.arange(CELLS.get(name, 8))
        prob = np.round(rng.uniform(0.3, 0.7, shots.size), 3)
        tables.append(pd.DataFrame({"task": name, "shots": shots, "prob": prob, "se": 0.05}))
    return pd.concat(tables)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs go to a folder of the test session, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "straight.py").write_text(simulate.STRAIGHT)
    table_of("abcd").to_csv(folder / "curves.csv", index=False)
    return folder


def command(folder, out, *more):
    law = ["--law", str(folder / "straight.py")]
    return ["fit", str(folder / "curves.csv"), "--out", str(out), *law, *SHORT, *map(str, more)]


@pytest.fixture(scope="module")
def undisturbed(folder):
    """Four fits made here, one after the other; too short to pass their gates."""
    assert main(command(folder, folder / "fits")) == 3
    return folder / "fits"


def same_store(one, two):
    """The same fits with the same draws and attributes, the same summary, and nothing else."""
    assert sorted(os.listdir(one)) == sorted(os.listdir(two))
    paths = find_fits([one])
    assert len(paths) == 4
    for path, other in zip(paths, find_fits([two]), strict=True):
        xr.testing.assert_identical(load(path), load(other))
    assert (one / "summary.csv").read_bytes() == (two / "summary.csv").read_bytes()


# -- who fits -------------------------------------------------------------------------------------


def test_processes_draw_the_same(undisturbed, folder, capsys, monkeypatch):
    """However often they are replaced by new ones."""
    made = []
    monkeypatch.setattr(execute, "RENEWED", 1)
    monkeypatch.setattr(execute, "_Worker", lambda: made.append(_Worker()) or made[-1])
    assert main(command(folder, folder / "processes", "--executor", "processes=2")) == 3
    assert capsys.readouterr().out.count("straight") == 4
    same_store(undisturbed, folder / "processes")
    assert [worker.given for worker in made] == [1, 1, 1, 1]


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(processes=False, **options) as cluster:
        yield cluster


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dask_draws_the_same(undisturbed, folder, cluster, capsys):
    address = f"dask={cluster.scheduler_address}"
    assert main(command(folder, folder / "dask", "--executor", address)) == 3
    same_store(undisturbed, folder / "dask")
    # All is there: no worker is asked for anything.
    assert main(command(folder, folder / "dask", "--executor", "dask=tcp://127.0.0.1:1")) == 3
    assert "4 of 4 fits were finished before" in capsys.readouterr().err


def test_a_broken_study_costs_no_other(tmp_path, capsys):
    (tmp_path / "straight.py").write_text(FRAGILE)
    table_of(["dies", "raises", "short"]).to_csv(tmp_path / "curves.csv", index=False)
    assert main(command(tmp_path, tmp_path / "fits", "--executor", "processes=1")) == 4
    out, err = capsys.readouterr()
    died, raised = sorted(line for line in err.splitlines() if "failed: " in line)
    assert "failed: dies, straight: its process died 2 times (exit code 7)" in died
    assert "failed: raises, straight: OSError: worn out, straight.py line " in raised
    assert "1 fits in" in out
    assert len(find_fits([tmp_path / "fits"])) == 1
    assert set(pd.read_csv(tmp_path / "fits" / "summary.csv")["study"]) == {"short"}


@pytest.mark.parametrize("text", ["threads", "processes=", "processes=0", "dask=", "here=2"])
def test_executors_that_there_are_not(text):
    with pytest.raises(
        InputError, match="--executor must be auto, here, processes, processes=N, dask"
    ):
        executor_of(text, 3, "cpu")


def test_dask_that_is_not_there(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(command(folder, folder / "none", "--executor", "dask")) == 2
    assert "pip install 'bayesicl[dask]'" in capsys.readouterr().err


def test_workers_must_see_the_folder(tmp_path):
    pytest.importorskip("distributed")
    from bayesicl.cluster import _look
    from bayesicl.code import code_hash

    assert "does not see the folder" in _look(tmp_path / "mark", code_hash())
    (tmp_path / "mark").touch()
    assert _look(tmp_path / "mark", code_hash()) == ""
    assert "another version of bayesicl" in _look(tmp_path / "mark", "other")


# -- what is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_tables_and_draws_that_are_kept(ending, undisturbed, folder, capsys):
    out = folder / f"few_{ending}"
    more = ["--summary", "parquet", "--keep-draws", "none", "--format", ending]
    assert main(command(folder, out, *more)) == 3
    table = pd.read_parquet(out / "summary.parquet")
    table.to_csv(out / "again.csv", index=False)
    assert (out / "again.csv").read_text() == (undisturbed / "summary.csv").read_text()
    capsys.readouterr()
    assert main(["summary", str(out)]) == 3
    text = capsys.readouterr().out
    assert main(["summary", str(undisturbed)]) == 3
    assert capsys.readouterr().out == text
    for argv in (["compare"], ["forecast"], ["plot", "--out", str(folder / "figures")]):
        assert main([argv[0], str(out), *argv[1:]]) == 2
        assert "its draws were not kept" in capsys.readouterr().err
    # The same with a few draws must be fitted again; with none, nothing must.
    assert main(command(folder, out, *more)) == 3
    assert "4 of 4 fits were finished before" in capsys.readouterr().err


# -- killed runs ----------------------------------------------------------------------------------

# The command, killed by itself when the fit of this number is whole but not yet in its place.
SUICIDE = """
import os, signal, sys
from bayesicl.cli import main
left, replace = int(sys.argv[1]), os.replace

def replace_or_die(part, path):
    global left
    if str(part).endswith(".part") and "{ending}" in str(part):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)

os.replace = replace_or_die
main(sys.argv[2:])
"""


def test_killed_while_saving(undisturbed, folder):
    out, number = folder / "killed", 3
    argv = [sys.executable, "-c", SUICIDE.replace("{ending}", ".nc"), str(number)]
    done = subprocess.run([*argv, *command(folder, out)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(list(out.glob(".*.part"))) == 1
    assert len(list(out.glob("*.nc"))) == number - 1
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nc")}
    assert main(command(folder, out)) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    same_store(undisturbed, out)


# A worker in the midst of a job that takes ten minutes, and its parent.
BUSY = """
import time
from bayesicl.execute import _Worker

class Long:
    def __reduce__(self):
        return time.sleep, (600,)

worker = _Worker()
worker.pipe.send(0)
worker.pipe.send(Long())
print("at work", flush=True)
time.sleep(600)
"""


def test_workers_end_with_their_parent():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"at work\n"
        run.kill()
        assert run.communicate(timeout=60)[0] == b""  # when no process has it open any more


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["here", "processes=2"])
@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_killed_at_random_moments(executor, ending, undisturbed, folder):
    """Ten times, between the first fit's beginning and the last one's end."""
    rng, out = random.Random(executor + ending), folder / f"random_{executor}_{ending}"
    argv = [sys.executable, "-m", "bayesicl", *command(folder, out, "--executor", executor)]
    argv += ["--format", ending]
    begin = time.monotonic()
    subprocess.run(argv, capture_output=True)
    whole = time.monotonic() - begin
    for path in find_fits([out]):
        remove(path)
    (out / "summary.csv").unlink()
    kills = 0
    for _ in range(10):
        run = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            run.wait(rng.uniform(0.3, 1.0) * whole)
        except subprocess.TimeoutExpired:
            run.kill()
            kills += run.wait() == -signal.SIGKILL
        made = [path for path in out.rglob("*") if path.suffix == ".nc"]
        if len(made) == 4 and made:  # all there: begin anew with half of it
            for path in made[::2]:
                remove(path)
    assert kills > 0
    assert subprocess.run(argv, capture_output=True).returncode == 3
    if ending == "nc":
        same_store(undisturbed, out)
    else:
        assert sorted(os.listdir(out)) == ["fits.zarr", "summary.csv"]
        for path in find_fits([out]):
            xr.testing.assert_identical(load(path), load(undisturbed / f"{path.name}.nc"))
        assert (out / "summary.csv").read_bytes() == (undisturbed / "summary.csv").read_bytes()


def remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_fits_on_a_gpu_begin_together(monkeypatch):
    said = []
    fitter = SimpleNamespace(ahead=lambda tasks, progress: said.append(tasks))
    monkeypatch.setattr("bayesicl.execute._fitter", lambda *what: fitter)
    monkeypatch.setattr("bayesicl.execute.do", lambda job, progress: said.append(job.task))
    monkeypatch.setattr("bayesicl.execute.AT_ONCE", 2)
    for device in ("gpu", "cpu"):
        jobs = [Job(i, f"{device}{i}", None, 0, device, None, None) for i in range(3)]
        list(here(jobs, said.append))
    gpu = [["gpu0", "gpu1"], "gpu0", "gpu1", ["gpu2"], "gpu2"]
    assert said == [*gpu, "cpu0", "cpu1", "cpu2"]


@pytest.mark.parametrize(("fits", "device"), [(19, "cpu"), (20, "cpu"), (20, "gpu")])
def test_many_fits_are_made_by_processes(fits, device, monkeypatch):
    monkeypatch.setattr("bayesicl.execute.processes", lambda jobs, progress, count: count)
    monkeypatch.setattr("bayesicl.execute.here", "here")
    chosen = executor_of("auto", fits, device)
    if (fits, device) == (20, "cpu"):
        assert chosen([], print) == os.cpu_count()
    else:
        assert chosen == "here"
