"""bayesicl as `fit` uses it at its first attempt: one Engine, every curve one run."""

import jax
import numpy as np
import pandas as pd
from numpyro.infer.util import potential_energy

from bayesicl import engine
from bayesicl.curves import Study, read_curves
from bayesicl.device import on_device, precision
from bayesicl.law import load_law
from bayesicl.noises import load_noise
from bayesicl.program import arrays, compose, study_key
from rivals.problem import STATS, Curve, Draws, Settings


class Side:
    """The engine with its own settings for what the gates do not fix."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """The engine compiles when it sees the first study."""
        self.seed = settings.seed
        self.studies = [study_of(curve, i) for i, curve in enumerate(curves)]
        noise = load_noise(None, self.studies[0].kind)
        sampling = engine.Settings(settings.chains, settings.warmup, settings.draws)
        self.engine = engine.Engine(load_law("scoring"), noise, sampling)

    def sample(self, i: int) -> Draws:
        """Run all chains and compute the natural parameters."""
        with precision():
            design, data = arrays(self.studies[i])
            key = study_key(self.seed, self.studies[i], "scoring")
            chains = self.engine.run(key, design, data)
            values = self.engine.natural(chains, design, data)
        return Draws(
            {
                "pi": values["pi"][..., 0],
                "gamma": values["gamma"][..., 0],
                "beta": values["beta"][..., 0],
                "K": values["K"],
                "scatter": values["scatter"][..., 0],
            },
            {name: chains.stats[name] for name in (*STATS, "tree_depth")},
        )

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """Of the law's and the noise's own program, without sampling coordinates."""
        program = compose(self.engine.law, self.engine.noise)

        def at(x):
            z = {"pi": x[:1], "gamma": x[1:2], "beta": x[2:3], "K": x[3], "scatter": x[4:]}
            return -potential_energy(program, (design, data), {}, z)

        with precision():
            design, data = on_device(arrays(self.studies[i]))
            return [float(at(x)) for x in jax.numpy.asarray(u)]


def study_of(curve: Curve, i: int) -> Study:
    """A curve as bayesicl reads it from a table."""
    return read_curves(pd.DataFrame(curve._asdict()).assign(task=f"curve {i:05d}")).studies[0]
