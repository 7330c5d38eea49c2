"""How long `bayesicl fit` takes on one small study in a new process, before and after compiling.

    python benchmarks/start.py [--repeats 3] [--out start.json] [-- OPTIONS]

Cold: an empty cache folder, so that every program is compiled. Warm: the same command again with
the cache that it left. Imports: a new process that imports the modules which the command has in
the end, and does nothing more. Everything after `--` goes to `bayesicl fit` as it is. The operating
system has read all files before: a first start after boot takes longer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from options import parse

NOTE_MODULES = """
import json, sys
from pathlib import Path
out, arguments = Path(sys.argv[1]), sys.argv[2:]
from bayesicl.cli import main
code = main(arguments)
out.write_text(json.dumps([name for name in sys.modules if name != "__main__"]))
sys.exit(code)
"""
IMPORT_ALL = """
import importlib, json, sys
lost = 0
for name in json.loads(open(sys.argv[1]).read()):
    try:
        importlib.import_module(name)
    except ImportError:  # made by another module, not found by name
        lost += 1
print(lost)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="(default 3)")
    parser.add_argument("--out", type=Path, help="all figures as JSON")
    args, options = parse(parser)
    options = ["--law", "scoring", *options]
    with tempfile.TemporaryDirectory(prefix="start-") as scratch:
        seconds, lost = _measure(Path(scratch), options, args.repeats)
    print(f"bayesicl fit {' '.join(options)}: one study of 12 cells, {os.cpu_count()} cores,")
    print(f"median of {args.repeats} (least to most)\n")
    print("| start | seconds | of which imports | beyond imports |\n| --- | --- | --- | --- |")
    imports = statistics.median(seconds["imports"])
    for start in ("cold", "warm"):
        middle, least, most = _spread(seconds[start])
        print(
            f"| {start} | {middle:.2f} ({least:.2f} to {most:.2f}) | {imports:.2f} "
            f"| {middle - imports:.2f} |"
        )
    bare = statistics.median(seconds["python"])
    print(f"\nImports hold Python's own start, {bare:.2f} s; modules not found by name: {lost}.")
    if args.out:
        record = {"options": options, "cores": os.cpu_count(), "seconds": seconds}
        args.out.write_text(json.dumps(record, indent=1))
    return 0


def _measure(folder: Path, options: list[str], repeats: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of every repeat, and how many modules could not be imported by name."""
    correct = [2, 1, 3, 2, 5, 6, 9, 12, 13, 15, 16, 15]
    rows = [f"{n},{k},20" for n, k in enumerate(correct)]
    table = folder / "study.csv"
    table.write_text("\n".join(["shots,correct,total", *rows]))
    modules, numbers = folder / "modules.json", iter(range(10**6))

    def command() -> list[str]:
        out = folder / f"fits-{next(numbers)}"  # a fit that is found is not made again
        return ["fit", str(table), "--out", str(out), *options]

    _run(folder / "noted", "-c", NOTE_MODULES, str(modules), *command())
    seconds: dict[str, list[float]] = {name: [] for name in ("python", "imports", "cold", "warm")}
    lost = 0
    for i in range(repeats):
        cache = folder / f"cache-{i}"
        seconds["python"].append(_run(cache, "-c", "")[0])
        taken, said = _run(cache, "-c", IMPORT_ALL, str(modules))
        seconds["imports"].append(taken)
        lost = int(said)
        for start in ("cold", "warm"):
            seconds[start].append(_run(cache, "-m", "bayesicl", *command())[0])
    return seconds, lost


def _run(cache: Path, *arguments: str) -> tuple[float, str]:
    """Run Python with this cache folder: seconds and what it printed last."""
    env = os.environ | {"BAYESICL_CACHE": str(cache)}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would go before our own
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode not in (0, 3):  # 3: a fit did not converge, which takes as long
        raise SystemExit(f"python {' '.join(arguments[:3])} failed:\n{done.stderr[-2000:]}")
    return seconds, (done.stdout.strip().splitlines() or [""])[-1]


def _spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


if __name__ == "__main__":
    sys.exit(main())
