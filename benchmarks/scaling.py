"""Seconds and memory of `bayesicl fit` against the number of curves: is it linear?

    python benchmarks/scaling.py [--curves 1 10 100 1000] [--out scaling.json] [-- OPTIONS]

Everything after `--` goes to `bayesicl fit` as it is, such as `-- --draws 500` or
`-- --device gpu`. Curves are those of `engines.py`, simulated from the priors, one study of 100
cells of counts each. Seconds are of the whole command, from reading the table to summary.csv.
Programs are compiled beforehand, by a run on an easy curve that is not counted, into a cache folder
of the benchmark's own; those that only hard curves need are compiled where they are met. Memory is
the peak, over time, of the resident memory of all processes of the command together; pages that
they share count once in each. Draws are not kept (`--keep-draws none`): they would take megabytes
a fit; `-- --keep-draws all` keeps them.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from options import parse
from rivals import problem
from rivals.report import markdown

MB = 2.0**20


def main() -> int:
    args, options = _arguments()
    rows = []
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=args.scratch) as scratch:
        folder = Path(scratch)
        easy, *curves = problem.simulate(max(args.curves), args.seed)
        _measure(folder, [easy], options, args.limit)
        for n in sorted(args.curves):
            rows.append(_measure(folder, curves[:n], options, args.limit))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table = pd.DataFrame(rows).set_index("curves")
    gap = table.index.to_series().diff()
    table["s a further curve"] = table["seconds"].diff() / gap
    table["memory MB a further curve"] = table["memory MB"].diff() / gap
    print(f"\nbayesicl fit {' '.join(options)}, {os.cpu_count()} cores\n")
    print(markdown(table, "curves"))
    if len(rows) > 2:
        _say_how_linear(table)
    if args.out:
        record = {"options": options, "cores": os.cpu_count(), "sizes": rows}
        args.out.write_text(json.dumps(record, indent=1))
    return 0


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--curves", type=int, nargs="+", default=[1, 10, 100, 1000, 10000], metavar="N")
    add("--limit", type=float, default=36000.0, metavar="S", help="seconds a size (default 10 h)")
    add("--seed", type=int, default=0)
    add("--scratch", type=Path, help="folder for tables and fits (default: temporary)")
    add("--out", type=Path, help="all figures as JSON")
    args, options = parse(parser)
    return args, ["--law", "scoring", "--keep-draws", "none", *options]


def _measure(folder: Path, curves: list, options: list[str], limit: float) -> dict:
    """Fit curves with one command."""
    n = len(curves)
    table, out = folder / f"{n}.csv", folder / f"fits-{n}"
    frames = [pd.DataFrame(c._asdict()).assign(task=f"curve {i}") for i, c in enumerate(curves)]
    pd.concat(frames).to_csv(table, index=False)
    command = [sys.executable, "-m", "bayesicl", "fit", str(table), "--out", str(out), "--json"]
    env = os.environ | {"BAYESICL_CACHE": str(folder / "cache")}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would go before our own
    start = time.perf_counter()
    with (folder / "stdout").open("w") as said, (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [*command, *options], env=env, stdout=said, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
        watch = _Watch(process.pid)
        late = threading.Timer(limit, os.killpg, (process.pid, signal.SIGTERM))
        late.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    watch.stop()
    left = _fits(out)
    done = len(left)
    disk = sum(map(_size, left)) / len(left) if left else 0.0
    stopped = process.returncode == -signal.SIGTERM
    if stopped and not done:
        raise SystemExit(f"{n} curves: none was fitted in {limit:.0f} s; raise --limit")
    if process.returncode not in (0, 3, -signal.SIGTERM):
        message = (folder / "stderr").read_text().strip()
        raise SystemExit(f"{' '.join(command)} failed:\n{message[-2000:]}")
    if stopped:
        print(f"{n} curves: stopped after {limit:.0f} s, {done} done", file=sys.stderr)
        passed = float("nan")
    else:
        passed = float(
            np.mean([row["passed"] for row in json.loads((folder / "stdout").read_text())])
        )
    shutil.rmtree(out, ignore_errors=True)
    table.unlink()
    return {
        "curves": done,
        "seconds": seconds,
        "s a curve": seconds / done,
        "memory MB": max(watch.peak, used.ru_maxrss / 1024),
        "disk MB a curve": disk,
        "passed": passed,
    }


class _Watch:
    """Looks at a session ten times a second for its peak memory.

    peak: MB, resident in all its processes together; 0 where the system does not tell.
    """

    def __init__(self, session: int):
        self.session, self.peak = session, 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End."""
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / MB
        while not self.over.wait(0.1):
            total = 0.0
            for stat in Path("/proc").glob("[0-9]*/stat"):
                try:  # a process may end meanwhile
                    fields = stat.read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.session:
                    total += int(fields[21]) * page
            self.peak = max(self.peak, total)


def _fits(folder: Path) -> list[Path]:
    return [*folder.glob("*.nc"), *folder.glob("*.zarr")]


def _size(fit: Path) -> float:
    """In MB; a fit is a file or a folder."""
    files = [file for file in fit.rglob("*") if file.is_file()] if fit.is_dir() else [fit]
    return sum(file.stat().st_size for file in files) / MB


def _say_how_linear(table: pd.DataFrame) -> None:
    """Seconds as a power of the number of curves, over the two largest sizes."""
    n, s = np.log(table.index.to_numpy(float)[-2:]), np.log(table["seconds"].to_numpy()[-2:])
    slope = float(np.diff(s)[0] / np.diff(n)[0])
    print(
        f"\nFrom {table.index[-2]} to {table.index[-1]} curves seconds grow as the number of "
        f"curves to the power {slope:.2f} (1 is linear; below, the start still counts), memory by "
        f"{table['memory MB'].iloc[-1] - table['memory MB'].iloc[-2]:.0f} MB."
    )


if __name__ == "__main__":
    sys.exit(main())
