"""How to sample."""

from dataclasses import dataclass

from bayesicl.errors import InputError

MANY = 8  # parameters: beyond, posteriors are bent enough for smaller steps to pay


@dataclass(frozen=True)
class Settings:
    """How to sample. chains, warmup, draws: counts.

    target_accept: in (0, 1), the mean acceptance probability of steps in one leapfrog; those that
    must be split count as 0. With more than MANY parameters, the noise's included, half as many may
    fail: see `target_of`.
    """

    chains: int = 4
    warmup: int = 500
    draws: int = 1000
    target_accept: float = 0.85
    max_tree_depth: int = 10

    def __post_init__(self):
        """Raise InputError where a setting makes no sense."""
        for name in ("chains", "warmup", "draws"):
            if getattr(self, name) < (2 if name == "chains" else 50):
                raise InputError(
                    f"{name} must be at least {2 if name == 'chains' else 50}, "
                    f"got {getattr(self, name)}"
                )
        if not 0 < self.target_accept < 1:
            raise InputError(f"target_accept must lie in (0, 1), got {self.target_accept}")

    def target_of(self, d: int) -> float:
        """The acceptance that a first attempt at a posterior of `d` parameters aims at."""
        return 1.0 - (1.0 - self.target_accept) / 2.0 if d > MANY else self.target_accept
