"""nutpie on a PyMC model: compiled once (Numba), data swapped with `with_data`, a thread a core."""

import os
import warnings

import numpy as np
import nutpie
import pymc as pm
import pytensor.tensor as pt

from rivals.problem import EPS, LEAST_SCATTER, NAMES, Curve, Draws, Settings


class Side:
    """One compiled model for all curves."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Write the model and compile it."""
        self.settings, self.curves = settings, curves
        first = curves[0]
        with pm.Model() as self.model:
            shots = pm.Data("shots", first.shots.astype(float))
            correct = pm.Data("correct", first.correct)
            total = pm.Data("total", first.total)
            pi = pm.Beta("pi", 0.5, 0.5)
            gamma = pm.Uniform("gamma", 0.0, 1.0)
            ratio = pm.Beta("ratio", 0.5, 1.0)
            beta = pm.Deterministic("beta", gamma * ratio)
            K = pm.LogNormal("K", -1.0, 2.0)
            scatter = pm.Beta("scatter", 1.0, 9.0)
            belief = pm.math.sigmoid(pm.math.logit(pi) - K * shots * pt.log(ratio))
            p = pt.clip(beta + (gamma - beta) * belief, EPS, 1.0)
            q = pt.clip((1.0 - beta) - (gamma - beta) * belief, EPS, 1.0)
            c = 1.0 / pt.maximum(scatter, LEAST_SCATTER) ** 2 - 1.0
            pm.BetaBinomial("y", alpha=p * c, beta=q * c, n=total, observed=correct)
        self.compiled = nutpie.compile_pymc_model(self.model)

    def sample(self, i: int) -> Draws:
        """Swap the data and sample."""
        s, curve = self.settings, self.curves[i]
        swapped = self.compiled.with_data(correct=curve.correct, total=curve.total)
        more = {"low_rank_modified_mass_matrix": True} if s.dense else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ArviZ's next version
            tree = nutpie.sample(
                swapped, draws=s.draws, tune=s.warmup, chains=s.chains, cores=os.cpu_count(),
                seed=s.seed + i, target_accept=s.target_accept, save_warmup=False,
                progress_bar=False, **more,
            )  # fmt: skip
        stats = {name: tree["sample_stats"][name].to_numpy() for name in STATS}
        return Draws({name: tree["posterior"][name].to_numpy() for name in NAMES}, stats)

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """PyMC's, with the Jacobian of its transforms: the expression that nutpie compiles."""
        curve = self.curves[i]
        with self.model:
            pm.set_data({"correct": curve.correct, "total": curve.total})
        names = [self.model.rvs_to_values[rv].name for rv in self.model.free_RVs]
        at = self.model.compile_logp()
        return [float(at(dict(zip(names, map(np.asarray, x), strict=True)))) for x in u]


STATS = ("diverging", "n_steps", "energy")
