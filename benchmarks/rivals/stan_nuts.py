"""Stan through PyStan: compiled once, then data swapped by `stan.build`; a process a chain.

httpstan keeps programs and fits in a cache on disk, where a fit of the same data and seed is
found again without sampling: `engines.py` gives every run an empty cache.
"""

import re

import numpy as np
import stan

from rivals.problem import EPS, LEAST_SCATTER, NAMES, Curve, Draws, Settings

PROGRAM = f"""
data {{
  int N;
  vector[N] shots;
  array[N] int correct;
  array[N] int total;
}}
parameters {{
  real<lower=0, upper=1> pi;
  real<lower=0, upper=1> gamma;
  real<lower=0, upper=gamma> beta;
  real<lower=0> K;
  real<lower=0, upper=1> scatter;
}}
model {{
  pi ~ beta(0.5, 0.5);
  beta / gamma ~ beta(0.5, 1);
  target += -log(gamma);  // of beta/gamma in beta
  K ~ lognormal(-1, 2);
  scatter ~ beta(1, 9);
  real c = inv_square(fmax(scatter, {LEAST_SCATTER})) - 1;
  vector[N] belief = inv_logit(logit(pi) + K * log(gamma / beta) * shots);
  vector[N] p = fmin(fmax(beta + (gamma - beta) * belief, {EPS}), 1);
  vector[N] q = fmin(fmax((1 - beta) - (gamma - beta) * belief, {EPS}), 1);
  correct ~ beta_binomial(total, p * c, q * c);
}}
"""


class Side:
    """One compiled program for all curves."""

    def __init__(self, settings: Settings, curves: list[Curve]):
        """Compile."""
        if settings.dense:
            raise ValueError("PyStan offers no dense mass matrix")
        self.settings, self.curves = settings, curves
        self.with_data(0)
        self.own_seconds: list[float] = []

    def with_data(self, i: int):
        """The program with the data of curve i; compiled where it is not yet."""
        data = {name: x.tolist() for name, x in self.curves[i]._asdict().items()}
        seed = self.settings.seed + i + 1
        return stan.build(PROGRAM, data=data | {"N": len(data["shots"])}, random_seed=seed)

    def sample(self, i: int) -> Draws:
        """Sample in parallel chains."""
        s = self.settings
        fit = self.with_data(i).sample(
            num_chains=s.chains, num_warmup=s.warmup, num_samples=s.draws, delta=s.target_accept
        )
        take = lambda name: fit[name].reshape(s.draws, s.chains).T  # noqa: E731
        stats = {
            "diverging": take("divergent__") > 0,
            "n_steps": take("n_leapfrog__").astype(int),
            "energy": take("energy__"),
        }
        self.own_seconds.append(_elapsed(fit))
        return Draws({name: take(name) for name in NAMES}, stats)

    def log_density(self, i: int, u: np.ndarray) -> list[float]:
        """Stan's own, with the Jacobian of its transforms."""
        program = self.with_data(i)
        return [program.log_prob(x.tolist()) for x in u]


def _elapsed(fit) -> float:
    """Seconds of warm-up and sampling by Stan's own clock, summed over chains."""
    clock = re.compile(rb"([0-9.e-]+) seconds \((?:Warm-up|Sampling)\)")
    lines = [line for out in fit.stan_outputs for line in out.splitlines() if b'"logger"' in line]
    return sum(float(x) for line in lines for x in clock.findall(line))
