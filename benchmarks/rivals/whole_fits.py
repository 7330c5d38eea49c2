"""bayesicl end to end: `fits`, from a table to a DataTree with predictions, retries included."""

import json

import numpy as np
import pandas as pd

from bayesicl import engine
from bayesicl.curves import read_curves
from bayesicl.fit import fits
from bayesicl.plan import plan
from rivals.problem import NAMES, STATS, Curve, Draws, Settings


class Side:
    """One call of `fits` over all curves; each is taken as it is finished."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Read one table of all curves, as a user has it."""
        tables = [
            pd.DataFrame(curve._asdict()).assign(task=f"curve {i:05d}")
            for i, curve in enumerate(curves)
        ]
        tasks = plan(read_curves(pd.concat(tables, ignore_index=True)), "scoring")
        sampling = engine.Settings(settings.chains, settings.warmup, settings.draws)
        self.trees = fits(tasks, settings=sampling, seed=settings.seed)

    def sample(self, i: int) -> Draws:
        """The next fit."""
        tree = next(self.trees)
        task = json.loads(tree["study"].attrs["key"])["task"]
        assert task == f"curve {i:05d}", f"fits came out of order: {task} for curve {i}"
        values = {name: tree["posterior"][name] for name in NAMES}
        # pi is (believed,) in every draw, of which the first is observed; the rest are scalars.
        flat = {name: x.to_numpy().reshape(*x.shape[:2], -1)[..., 0] for name, x in values.items()}
        stats = tree["sample_stats"]
        return Draws(flat, {n: stats[n].to_numpy() for n in (*STATS, "tree_depth")})

    def log_density(self, i: int, u: np.ndarray) -> None:
        """The engine's: see there."""
        return None
