"""Studies spread over a Dask cluster, of this machine or at the address of its scheduler."""

import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesicl.code import code_hash
from bayesicl.errors import InputError
from bayesicl.execute import Job, Outcome, do, failed
from bayesicl.retry import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 30  # seconds for a scheduler to answer, and for its first worker
AHEAD = 2  # jobs that are sent ahead for every thread of a worker


def dask(
    jobs: Iterable[Job], progress: Progress, *, address: str | None = None
) -> Iterator[Outcome]:
    """On the workers of a Dask cluster; see `execute.Executor`.

    address: of a scheduler (tcp://...), or a scheduler file (.json); None for a cluster of this
    machine, a process for each core. Workers must see the store's folder under its own path: each
    fit is written by who made it.

    Raises InputError where dask.distributed is not installed, nobody answers at the address, or
    the workers cannot write to the folder or have another version of bayesicl.
    """
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    with _client(address) as client:
        _probe(client, first.store.folder, address)
        yield from _spread(client, chain([first], jobs), progress)


def _client(address: str | None) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "--executor dask: dask.distributed is not installed; pip install 'bayesicl[dask]'"
        ) from error
    if address is None:
        cores = os.cpu_count() or 1
        return Client(n_workers=cores, threads_per_worker=1, dashboard_address=None)
    where: dict[str, Any] = {"address": address}
    if address.endswith(".json"):
        where = {"scheduler_file": address}
        if not Path(address).is_file():
            raise InputError(f"--executor dask={address}: no such file")
    try:
        return Client(**where, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--executor dask={address}: no scheduler answers there "
            f"({type(error).__name__}); start one with `dask scheduler`"
        ) from error


def _probe(client: "Client", folder: Path, address: str | None) -> None:
    """Make sure that workers are there, see the folder, and would fit as this process would."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise InputError(
            f"--executor dask={address}: its scheduler has no workers; start some with "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    mark = folder / f".{uuid.uuid4().hex}.probe"
    mark.touch()
    try:
        answers: Any = client.run(_look, mark, code_hash())
    finally:
        mark.unlink()
    for problem in sorted(filter(None, answers.values())):
        raise InputError(f"--executor dask: {problem}")


def _look(mark: Path, code: str) -> str:
    """What keeps this worker from fitting; '' if nothing does."""
    host, folder = socket.gethostname(), mark.parent
    if not mark.exists():
        return (
            f"the worker on {host} does not see the folder {folder}; put --out on a file system "
            "that all workers share"
        )
    if not os.access(folder, os.W_OK):
        return f"the worker on {host} may not write to {folder}"
    if code_hash() != code:
        return f"the worker on {host} has another version of bayesicl; install the same there"
    return ""


def _spread(client: "Client", jobs: Iterator[Job], progress: Progress) -> Iterator[Outcome]:
    from distributed import as_completed

    numbers: dict[Future, int] = {}
    running = as_completed()
    while True:
        workers: Any = client.nthreads()
        threads = sum(workers.values())
        for job in islice(jobs, max(AHEAD * threads - len(numbers), 0)):
            future = client.submit(do, job, key=f"fit-{uuid.uuid4().hex}", pure=False)
            numbers[future] = job.number
            running.add(future)
        progress(f"{len(numbers)} fits sent to {threads} threads of Dask workers")
        if not numbers:
            return
        future = next(running)
        number = numbers.pop(future)
        if future.status == "finished":
            yield future.result()
        else:
            yield _lost(number, future)


def _lost(number: int, future: "Future") -> Outcome:
    """Of a job that no worker brought to an end, or could not read."""
    from distributed import KilledWorker

    if future.status == "cancelled":
        return Outcome(number, failure="the Dask scheduler cancelled it or was lost")
    error: Any = future.exception()
    if isinstance(error, KilledWorker):
        return Outcome(number, failure="its Dask worker died, again and again: was memory enough?")
    return failed(number, error or RuntimeError(future.status))
