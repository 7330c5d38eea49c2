"""Run one side in a process of its own: `python -m rivals.worker FOLDER NAME JSON`.

Curve 0, an easy one, is sampled first and thrown away: what it takes beyond the median curve is
building. Draws of the others go to FOLDER/NAME as they are made, times and log densities to
times.json there.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from rivals import load, problem

N_CHECKED, N_POINTS = 3, 8  # curves and points at which log densities are compared


def main() -> None:
    folder, name, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    n, limit = options["curves"], options["limit"]
    settings = problem.Settings(**options["settings"])
    out = folder / name
    out.mkdir()
    found = {"seconds": []}
    curves = problem.simulate(n, settings.seed)
    start = time.perf_counter()
    module = load(name)
    found["import"] = time.perf_counter() - start

    start = time.perf_counter()
    side = module.Side(settings, curves)
    side.sample(0)
    found["first"] = time.perf_counter() - start
    for i in range(1, n + 1):
        begin = time.perf_counter()
        draws = side.sample(i)
        found["seconds"].append(time.perf_counter() - begin)
        np.savez(out / f"{i}.npz", **draws.values, **draws.stats)
        print(f"{name}: {i} of {n}, {found['seconds'][-1]:.2f} s", flush=True)
        (out / "times.json").write_text(json.dumps(found))
        if time.perf_counter() - start > limit:
            break
    found["own_seconds"] = getattr(side, "own_seconds", [])[1:]  # by Stan's clock
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    points = problem.points(N_POINTS, settings.seed)
    checked = range(1, min(N_CHECKED, n) + 1)
    found["log_density"] = [side.log_density(i, points) for i in checked]
    (out / "times.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
