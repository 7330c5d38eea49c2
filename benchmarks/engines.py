"""Effective draws a second of bayesicl and its rivals on one posterior, one run, one machine.

    python benchmarks/engines.py [--curves 100] [--sides bayesicl nutpie ...] [--out engines.json]

The posterior is that of `rivals/problem.py`: the scoring-wise law with beta-binomial counts, five
parameters, 100 cells a curve; curves are simulated from the priors and none is left out. Every side
draws 4 chains of 500 + 1000 with both or more cores, in a process of its own, one side after the
other; a rival that is not installed is named. ESS is the worst over the five natural parameters,
rank-normalised; gates are bayesicl's for all sides (R-hat < 1.01, bulk and tail ESS >= 400, no
divergence, BFMI >= .3, no tree-depth hit). Importing a library is not counted.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from rivals import SIDES, judge, packages, problem, versions
from rivals.report import markdown

HERE = Path(__file__).parent
BASE = "bayesicl"
FEWER = "numpyro-fresh"  # which spends minutes on compiling


def main() -> int:
    args = _arguments()
    settings = problem.Settings(target_accept=args.target_accept, dense=args.dense, seed=args.seed)
    sides = [name for name in SIDES if name in args.sides]
    results, remarks, others = {}, [], {}
    with tempfile.TemporaryDirectory(prefix="engines-", dir=args.scratch) as scratch:
        for name in sides:
            lacking = [package for package, v in versions(name).items() if not v]
            if lacking:
                remarks.append(f"{name} was not run: pip install {' '.join(packages(name))}")
                continue
            n = min(args.curves, args.fresh) if name == FEWER else args.curves
            failure, others[name] = _run(name, n, args.limit, settings, Path(scratch))
            if failure:
                remarks.append(f"{name} failed: {failure}")
            else:
                results[name] = judge.read(Path(scratch, name), settings)
                if name == FEWER:
                    results[name].times["first"] = 0.0  # nothing is built but with each curve
                if len(results[name].checks) < n:
                    remarks.append(f"{name}: {len(results[name].checks)} of {n} curves in time")
    if not results:
        print("\n".join(remarks))
        return 1
    base = results.get(BASE)
    speed = {name: judge.speed(result, base) for name, result in results.items()}
    quality = {name: judge.quality(result) for name, result in results.items()}
    for name, found in quality.items():
        found["others"] = others[name]
    densities = {name: judge.same_density(result, settings) for name, result in results.items()}
    agreements = {
        name: judge.disagreement(results[BASE], result)
        for name, result in results.items()
        if BASE in results and name != BASE
    }
    _report(speed, quality, settings)
    same = _report_sameness(densities, agreements)
    for name, result in results.items():
        if own := result.times["own_seconds"]:
            share = sum(own) / (os.cpu_count() or 1) / sum(result.times["seconds"])
            remarks.append(
                f"{name}: {share:.0%} of its seconds are warm-up and sampling by its own clock "
                "(chains spread over all cores); the rest is its interface"
            )
    print("\n".join(["", *remarks]))
    if args.out:
        record = {
            "machine": f"{platform.platform()}, {os.cpu_count()} cores",
            "versions": {name: versions(name) for name in results},
            "settings": settings._asdict(),
            "speed": speed,
            "quality": quality,
            "log_density_gap": densities,
            "agreement": agreements,
            "remarks": remarks,
            "curves": {name: _by_curve(result) for name, result in results.items()},
        }
        args.out.write_text(json.dumps(record, indent=1))
    return 0 if same else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--curves", type=int, default=100, metavar="N")
    add("--fresh", type=int, default=3, metavar="N", help=f"curves for {FEWER} (default 3)")
    add("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), metavar="SIDE",
        help=", ".join(SIDES))  # fmt: skip
    add("--target-accept", type=float, default=0.95, help="of the rivals (default 0.95)")
    add("--dense", action="store_true",
        help="rivals adapt a dense mass matrix (nutpie: low rank; stan has none)")  # fmt: skip
    add("--limit", type=float, default=3600.0, metavar="S", help="seconds a side (default 3600)")
    add("--seed", type=int, default=0)
    add("--scratch", type=Path, help="folder for draws, emptied afterwards (default: temporary)")
    add("--out", type=Path, help="all figures, curve by curve, as JSON")
    return parser.parse_args()


def _run(name: str, n: int, limit: float, settings, scratch: Path) -> tuple[str, float]:
    """Run a side in its own process: why it failed, or '', and the cores others used meanwhile."""
    options = json.dumps({"curves": n, "limit": limit, "settings": settings._asdict()})
    # Nothing compiled or drawn before is found again, and no one's flags are inherited.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "PYTENSOR"))}
    caches = {"BAYESICL_CACHE": str(scratch / f"{name}-cache")}
    caches["PYTENSOR_FLAGS"] = f"base_compiledir={scratch / f'{name}-cache'}/pytensor"
    command = [sys.executable, "-m", "rivals.worker", str(scratch), name, options]
    print(f"-- {SIDES[name][1]}", file=sys.stderr, flush=True)
    log, start, busy, own = scratch / f"{name}.log", time.monotonic(), _busy(), _own()
    with log.open("w") as errors:
        done = subprocess.run(
            command, cwd=HERE, env=clean | caches, stderr=errors, stdout=sys.stderr, check=False
        )
    others = (_busy() - busy - (_own() - own)) / (time.monotonic() - start)
    if done.returncode == 0:
        return "", others
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}", others


def _busy() -> float:
    """Seconds that all cores together have worked for anyone; NaN where that is not known."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return float("nan")
    user, nice, system, _, _, irq, soft, steal = map(int, first[:8])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds that processes we have started, and theirs, have worked."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(speed: dict, quality: dict, settings: problem.Settings) -> None:
    """Two tables for people: speed, and what it is worth."""
    print(
        f"\n{settings.chains} chains x ({settings.warmup} + {settings.draws}), "
        f"{os.cpu_count()} cores, float64; rivals: target acceptance {settings.target_accept}, "
        f"{'dense (nutpie: low-rank)' if settings.dense else 'diagonal'} mass matrix.\n"
        f"Medians over curves; totals are sums with build. x: how many times {BASE} is faster.\n"
    )
    table = pd.DataFrame(speed).T
    apart = ["build s", *(n for n in table if ("ESS/s" in n or n[0] == "x") and "with" not in n)]
    table.loc[table.index == FEWER, apart] = float("nan")  # compiles with every curve
    print(markdown(table, "side"))
    print(
        "\nOthers: cores that other processes used meanwhile; much above 0, these are figures of "
        "a busy machine.\n"
    )
    print(markdown(pd.DataFrame(quality).T, "side"))


def _report_sameness(densities: dict, agreements: dict) -> bool:
    """Whether all sides sample one posterior, in words."""
    print("\nLog density against SciPy's, largest difference up to a constant (nats):")
    same = True
    for name, gap in densities.items():
        if gap is not None:
            same &= gap <= judge.SAME
            print(f"  {name}: {gap:.1e}{'' if gap <= judge.SAME else ' NOT THE SAME POSTERIOR'}")
    print(f"\nMeans (of log K) and 5 and 95 % quantiles against {BASE}, in standard errors:")
    for name, found in agreements.items():
        if not found["compared"]:
            print(f"  {name}: no curve passed on both sides")
            continue
        same &= found["agrees"]
        print(
            f"  {name}: largest {found['largest']:.1f} of {found['compared']} over "
            f"{found['curves']} curves ({found['where']}; limit {found['limit']:.1f}), "
            f"root mean square {found['typical']:.2f}"
            f"{'' if found['agrees'] else ' DOES NOT AGREE'}"
        )
    return same


def _by_curve(result: judge.Result) -> list[dict]:
    return [
        {
            "curve": i,
            "seconds": float(result.seconds([i])[0]),
            "ess_bulk": checks.ess_bulk,
            "ess_tail": checks.ess_tail,
            "rhat": checks.rhat,
            "divergences": checks.divergences,
            "leapfrogs": result.leapfrogs[i],
            "passed": checks.passed,
            "failures": checks.failures,
        }
        for i, checks in result.checks.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
