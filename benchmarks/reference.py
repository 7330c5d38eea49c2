"""Posteriors of real development curves against plain NumPyro NUTS in natural parameters.

    python benchmarks/reference.py --data DIR [--laws scoring power] [--studies 6]

DIR holds measured_small_llms.csv and long_context_icl.csv. NumPyro gets a new MCMC a study, 4
chains of 1000 + 2000, a dense mass matrix and target acceptance .99. Studies that pass the gates on
both sides are compared: means (of logarithms, where numbers are positive: a few draws of K decide
its own) and 5, 50 and 95 % quantiles of every reported number, in Monte Carlo standard errors of
both. Fails where the largest is beyond what chance does in one such table of a thousand.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from arviz_stats import mcse
from numpyro.infer import MCMC, NUTS
from scipy.stats import norm

from bayesicl import read_curves
from bayesicl.device import on_device, precision
from bayesicl.diagnose import diagnose
from bayesicl.engine import Engine
from bayesicl.errors import CurveWarning
from bayesicl.fit import fits
from bayesicl.labels import Labels
from bayesicl.plan import plan
from bayesicl.program import arrays, compose, study_key
from bayesicl.settings import Settings

SOURCES = {"measured_small_llms.csv": "nll", "long_context_icl.csv": None}
QUANTILES = (0.05, 0.5, 0.95)


def plain(task) -> tuple[xr.Dataset, bool]:
    """The posterior by NumPyro alone, and whether it passes the gates."""
    design, data = arrays(task.study, backgrounds=task.backgrounds)
    kernel = NUTS(compose(task.law, task.noise), dense_mass=True, target_accept_prob=0.99)
    mcmc = MCMC(
        kernel, num_warmup=1000, num_samples=2000, num_chains=4, chain_method="sequential",
        progress_bar=False,
    )  # fmt: skip
    with precision():
        fields = ("diverging", "energy", "num_steps")
        mcmc.run(study_key(1, task.study, task.law.name), *on_device((design, data)),
                 extra_fields=fields)  # fmt: skip
        engine = Engine(task.law, task.noise, Settings())
        labels = Labels(engine, task.study, design, data)
    values = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}
    extra = {k: np.asarray(v) for k, v in mcmc.get_extra_fields(group_by_chain=True).items()}
    extra["n_steps"] = extra.pop("num_steps")
    posterior = labels.named(values, labels.reported)
    return posterior, diagnose(posterior, labels.scalars(extra)).passed


def differences(ours: xr.Dataset, theirs: xr.Dataset) -> np.ndarray:
    """Of means and quantiles of all numbers, in standard errors."""
    out = []
    for name in theirs:
        both = [ours[name], theirs[name]]
        if (both[1] > 0).all():
            both = [np.log(x).rename(name) for x in both]
        means = [x.mean(("chain", "draw")) for x in both]
        pairs = list(zip(means, [mcse(x.to_dataset(), method="mean") for x in both], strict=True))
        for q in QUANTILES:
            at = [x.quantile(q, ("chain", "draw")) for x in both]
            error = [mcse(x.to_dataset(), method="quantile", prob=q) for x in both]
            pairs += zip(at, error, strict=True)
        for (a, error_a), (b, error_b) in zip(pairs[::2], pairs[1::2], strict=True):
            error = np.hypot(error_a[name], error_b[name])
            z = (np.asarray(a) - np.asarray(b)) / np.asarray(error)
            out.append(z[np.asarray(error) > 0].ravel() if z.ndim else np.atleast_1d(z))
    return np.concatenate(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--laws", nargs="+", default=["scoring", "power", "bounded", "logistic"])
    parser.add_argument("--studies", type=int, default=6, help="of each file, evenly spaced")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CurveWarning)
    found = []
    for file, outcome in SOURCES.items():
        curves = read_curves(args.data / file, outcome=outcome)
        chosen = np.unique(np.linspace(0, len(curves) - 1, args.studies).astype(int))
        keep = {curves.studies[i].label for i in chosen}
        for task in plan(curves, args.laws):
            if task.study.label not in keep:
                continue
            begin = time.perf_counter()
            [tree] = fits([task])
            middle = time.perf_counter()
            theirs, passed = plain(task)
            seconds = middle - begin, time.perf_counter() - middle
            where = f"{task.law.name:9} {task.study.label[:50]:50}"
            if not (passed and tree.attrs["passed"]):
                who = "NumPyro" if tree.attrs["passed"] else "bayesicl"
                print(f"{where} not compared: {who} does not pass its gates", flush=True)
                continue
            z = differences(tree["posterior"].to_dataset(), theirs)
            found.append(z)
            print(
                f"{where} {z.size:3} figures, largest {np.abs(z).max():.2f}, rms "
                f"{np.sqrt(np.mean(z**2)):.2f}; {seconds[0]:.0f} s, NumPyro {seconds[1]:.0f} s",
                flush=True,
            )
    z = np.concatenate(found)
    limit = norm.isf(0.0005 / z.size)
    print(
        f"{len(found)} posteriors, {z.size} figures: largest {np.abs(z).max():.2f} standard errors "
        f"(limit {limit:.2f}), rms {np.sqrt(np.mean(z**2)):.2f}"
    )
    return int(np.abs(z).max() > limit)


if __name__ == "__main__":
    sys.exit(main())
