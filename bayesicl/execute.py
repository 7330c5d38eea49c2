"""Where studies are fitted: here, in processes of this machine, or by workers of a Dask cluster.

All three do the same work, a study and law at a time, and a fit's draws depend on neither who made
it nor what else was made. Whoever makes a fit writes it to the store, so that only a few numbers
come back; an exception or a dead worker costs one fit and no other.
"""

import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bayesicl.errors import CurveWarning, InputError
from bayesicl.fit import Fitter
from bayesicl.plan import Task
from bayesicl.retry import Progress
from bayesicl.settings import Settings
from bayesicl.store import Store

MANY = 20  # fits, for which it is worth while to start processes
AT_ONCE = 1000  # fits on a GPU
RENEWED = 2000  # fits of a process before a new one replaces it: each leaves some 70 kB behind
TRIES = 2  # of a fit whose worker died, perhaps for another's fault
_one_at_a_time = threading.Lock()  # NumPyro's handlers are one stack for all threads


@dataclass(frozen=True)
class Job:
    """One fit to be made, and where it goes; it can be sent to another process.

    number: of the task in its plan.
    """

    number: int
    task: Task
    settings: Settings
    seed: int
    device: str
    store: Store
    path: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a job: the attributes of the fit that was written, or why there is none.

    seconds: that it took, compilation included.
    """

    number: int
    attrs: dict[str, Any] | None = None
    seconds: float = 0.0
    failure: str = ""
    bad_input: bool = False  # the user's to put right; other jobs would fare no better


Executor = Callable[[Iterable[Job], Progress], Iterator[Outcome]]
"""Does jobs and tells what came of each as it is finished, in any order."""


def executor_of(text: str, fits: int, device: str) -> Executor:
    """The executor that the command line calls so: auto, here, processes[=N] or dask[=ADDRESS].

    auto: a process a core where there are many fits for the CPU, else here.
    """
    name, given, where = text.partition("=")
    if name == "auto" and not given:
        name = "processes" if fits >= MANY and device == "cpu" else "here"
    if name == "here" and not given:
        return here
    if name == "processes" and (not given or where.isdecimal()) and where != "0":
        count = int(where or os.cpu_count() or 1)
        return lambda jobs, progress: processes(jobs, progress, count=count)
    if name == "dask" and (not given or where):
        from bayesicl.cluster import dask

        return lambda jobs, progress: dask(jobs, progress, address=where or None)
    raise InputError(
        f"--executor must be auto, here, processes, processes=N, dask or dask=ADDRESS, got {text!r}"
    )


# -- what a worker does ---------------------------------------------------------------------------


@cache
def _fitter(settings: Settings, seed: int, device: str) -> Fitter:
    """This process's, kept: a program is compiled once a worker."""
    return Fitter(settings, seed, device)


def do(job: Job, progress: Progress = lambda what: None) -> Outcome:
    """Fit and write; never raises but for an interrupt."""
    begin = time.monotonic()
    try:
        with _one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore", CurveWarning)  # the fit keeps them, and who asked says
            tree = _fitter(job.settings, job.seed, job.device)(job.task, progress)
            attrs = job.store.write(tree, job.path)
            return Outcome(job.number, attrs, time.monotonic() - begin)
    except Exception as error:
        return failed(job.number, error)


def failed(number: int, error: BaseException) -> Outcome:
    """An outcome that says what went wrong, and where in the code."""
    if isinstance(error, InputError):
        return Outcome(number, failure=str(error), bad_input=True)
    words = (str(error).splitlines() or ["no message"])[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return Outcome(number, failure=f"{type(error).__name__}: {words}{where}")


# -- executors of this machine --------------------------------------------------------------------


def here(jobs: Iterable[Job], progress: Progress) -> Iterator[Outcome]:
    """One after the other in this process; on a GPU their first attempts AT_ONCE together."""
    jobs = iter(jobs)
    for job in jobs:
        some = [job]
        if job.device == "gpu":
            some += islice(jobs, AT_ONCE - 1)
            with suppress(InputError):  # each job says so by itself
                ahead = _fitter(job.settings, job.seed, job.device).ahead
                ahead([one.task for one in some], progress)
        for one in some:
            yield do(one, progress)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that a process started meanwhile inherits, unless the user has set them."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


class _Worker:
    """A process that does one job at a time, and the job that it has."""

    def __init__(self):
        # Spawned: a fork would copy JAX's threads as they stand, locks and all.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment(NPROC="1"):  # of XLA's threads: each process has a core of its own
            self.process.start()
        theirs.close()  # so that its death is heard
        self.job: Job | None = None
        self.given = 0  # jobs

    def give(self, job: Job) -> None:
        self.job = job
        self.given += 1
        try:
            self.pipe.send(job.number)
            self.pipe.send(job)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died while idle; `wait` says so

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _end_with_parent() -> None:
    """Leave at once when the parent dies, whose next run may make this very fit."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _serve(pipe) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and stops all
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        number = -1
        try:
            number, job = pipe.recv(), pipe.recv()
            outcome = do(job)
        except (EOFError, ConnectionResetError):
            return  # the parent is gone, or has no more
        except Exception as error:  # the job cannot be read, such as a law that is not here
            outcome = failed(number, error)
        pipe.send(outcome)


def processes(jobs: Iterable[Job], progress: Progress, *, count: int) -> Iterator[Outcome]:
    """In `count` processes of this machine, each with programs of its own."""
    waiting, again, tries = iter(jobs), [], {}
    busy: list[_Worker] = []
    idle: list[_Worker] = []
    try:
        while True:
            while len(busy) < count and (job := again.pop() if again else next(waiting, None)):
                worker = idle.pop() if idle else _Worker()
                worker.give(job)
                busy.append(worker)
            progress(f"{len(busy)} processes at work")
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                busy.remove(worker)
                job = worker.job
                assert job is not None
                try:
                    yield worker.pipe.recv()
                    if worker.given < RENEWED:
                        idle.append(worker)
                    else:
                        worker.stop()
                except (EOFError, ConnectionResetError):
                    worker.stop()
                    tries[job.number] = tries.get(job.number, 0) + 1
                    if tries[job.number] < TRIES:
                        again.append(job)
                        continue
                    code = worker.process.exitcode
                    words = f"its process died {TRIES} times (exit code {code})"
                    yield Outcome(job.number, failure=f"{words}; was there enough memory?")
    finally:
        for worker in [*busy, *idle]:
            worker.stop()
