"""Fit the paper's six laws to every study of real curves; say which fits pass the gates.

    python benchmarks/dev_fits.py --data DIR [--out fits.csv]

DIR holds long_context_icl.csv and measured_small_llms.csv. A simulated study of GINC's size (five
hypotheses, no background, 1000 prompts a point) is fitted beside them. One line a fit as it
finishes, then the share that passes and the cause of each failure.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from bayesicl.curves import Curves, read_curves
from bayesicl.errors import CurveWarning
from bayesicl.fit import fits
from bayesicl.law import PAPER
from bayesicl.plan import plan
from bayesicl.tree import label, law_label


def simulated_ginc(seed: int = 0) -> Curves:
    """Five hypotheses that explain each other's examples unequally well, 0 to 63 shots."""
    rng = np.random.default_rng(seed)
    H, shots, prompts, c = 5, np.arange(64), 1000, 0.2
    hit = rng.uniform(0.6, 0.9, H)
    P = hit[:, None] * rng.uniform(0.3, 0.8, (H, H))
    P[np.arange(H), np.arange(H)] = hit
    pi = rng.dirichlet(np.full(H, 5.0))
    w = pi * P[:, None, :] ** (0.3 * shots[None, :, None])
    p = (w * P[:, None, :]).sum(-1) / w.sum(-1)
    y = np.clip(p + rng.standard_normal(p.shape) * np.sqrt(c * p * (1 - p) / prompts), 0, 1)
    h, n = np.meshgrid(np.arange(H), shots, indexing="ij")
    table = {"hypothesis": h.ravel(), "shots": n.ravel(), "prob": y.ravel(), "total": prompts}
    return read_curves(pd.DataFrame(table).assign(model="simulated", task="GINC size"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=["long", "small", "ginc"])
    args = parser.parse_args()
    warnings.simplefilter("ignore", CurveWarning)
    sources = {
        "long": lambda: (read_curves(args.data / "long_context_icl.csv"), 1),
        "small": lambda: (read_curves(args.data / "measured_small_llms.csv", outcome="nll"), 1),
        "ginc": lambda: (simulated_ginc(), 0),
    }
    rows, begin = [], time.perf_counter()
    for source in args.only:
        curves, backgrounds = sources[source]()
        last = time.perf_counter()
        for tree in fits(plan(curves, PAPER, backgrounds=backgrounds)):
            checks = json.loads(tree.attrs["diagnostics"])
            now = time.perf_counter()
            rows.append(
                {
                    "source": source,
                    "study": label(tree),
                    "law": law_label(tree),
                    "passed": bool(tree.attrs["passed"]),
                    "attempts": tree.attrs["attempts"],
                    "steps": float(tree["sample_stats"]["n_steps"].mean()),
                    "seconds": now - last,
                    "cause": "; ".join(checks["failures"]),
                }
            )
            last = now
            row = rows[-1]
            print(
                f"{now - begin:7.0f} s  {source:6} {row['law']:32} {row['study'][:48]:48} "
                f"{'passed' if row['passed'] else 'FAILED'} after {row['attempts']}, "
                f"{row['steps']:.0f} leapfrogs, {row['seconds']:.1f} s  {row['cause']}",
                flush=True,
            )
    table = pd.DataFrame(rows)
    if args.out:
        table.to_csv(args.out, index=False)
    print(table.groupby(["source", "law"])["passed"].agg(["sum", "size"]).to_string())
    print(f"passed {table['passed'].sum()} of {len(table)} ({table['passed'].mean():.1%})")
    print(f"passed at the first attempt: {(table['attempts'] == 1).mean():.1%}")
    print(f"median {table['seconds'].median():.1f} s a fit, compilation included")


if __name__ == "__main__":
    main()
