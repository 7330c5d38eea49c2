"""What the ranks of simulated truths say: coverage, whether they stay in their band, a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from bayesicl.uniformity import RANKED, least_narrowness, least_shift, p_value

LEVEL = 0.99  # of the band that holds for all quantities at once
TELLING = 0.5  # posterior sd: simulations that would miss such a shift cannot tell


class Ranked(NamedTuple):
    """Of one study: names of quantities, truths (names,), draws (names, RANKED), gates passed."""

    names: list[str]
    truths: np.ndarray
    draws: np.ndarray
    passed: bool


@dataclass(frozen=True)
class Calibration:
    """Of N simulated studies, what became of every quantity.

    title: law and noise, for people. ranks, truths: N rows, a column each quantity; ranks are in
    0 ... RANKED. draws: (N, RANKED) of each quantity. passed: (N,) bool, the gates of the fits.
    """

    title: str
    ranks: pd.DataFrame
    truths: pd.DataFrame
    draws: dict[str, np.ndarray]
    passed: np.ndarray

    @property
    def level(self) -> float:
        """Of each quantity's own band, so that all of them hold together (Bonferroni)."""
        return 1 - (1 - LEVEL) / self.ranks.shape[1]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a quantity: coverage of 50 % and 90 % intervals, mean rank, and the band.

        mean_rank: as a share, 0.5 if right. p_value: of the ECDF of the ranks, see `uniformity`.
        calibrated: within the 99 % band that holds for all quantities at once.
        """
        rows = []
        for name, ranks in self.ranks.items():
            inside = {level: ranks.between(k, RANKED - k) for level, k in ((50, 25), (90, 5))}
            row = {"quantity": name, "simulations": len(ranks)}
            row |= {f"coverage {level}%": x.mean() for level, x in inside.items()}
            row |= {"mean_rank": ranks.mean() / RANKED, "p_value": p_value(ranks.to_numpy())}
            rows.append(row | {"calibrated": row["p_value"] >= 1 - self.level})
        return pd.DataFrame(rows)

    @property
    def strays(self) -> list[str]:
        """Quantities whose ranks leave the band."""
        return self.table.loc[~self.table["calibrated"], "quantity"].tolist()

    @cached_property
    def calibrated(self) -> bool | None:
        """Whether all ranks stay in the band; None where they do, but are too few to tell."""
        if self.strays:
            return False
        return True if least_shift(len(self.ranks), level=self.level) <= TELLING else None

    @property
    def verdict(self) -> str:
        """What came out, in words."""
        n, quantities = self.ranks.shape
        words = {
            True: f"calibrated: the ranks of all {quantities} quantities stay in the",
            None: f"too few simulations to tell: the ranks of all {quantities} quantities stay in "
            "the",
            False: f"NOT calibrated: the ranks of {len(self.strays)} of {quantities} quantities "
            "leave the",
        }[self.calibrated]
        lines = [
            f"{self.title}: {words} {100 * LEVEL:g} % band that holds for all of them at once.",
            *(f"{name}: {self._fault(name)}." for name in self.strays),
        ]
        if not self.strays:
            lines.append(_power(n, self.level))
        failed = int((~self.passed).sum())
        lines.append(
            f"{n} studies were simulated and fitted; {failed} failed the gates of a fit in the "
            "end, and count like the others."
        )
        return "\n".join(lines)

    def _fault(self, name: str) -> str:
        """How the ranks of a quantity are off."""
        row = self.table.set_index("quantity").loc[name]
        n, faults = len(self.ranks), []
        if abs(shift := row["mean_rank"] - 0.5) > 2.6 * np.sqrt(1 / 12 / n):
            faults.append(f"estimates are too {'low' if shift > 0 else 'high'}")
        if abs(off := row["coverage 50%"] - 0.5) > 2.6 * np.sqrt(0.25 / n):
            faults.append(f"50 % intervals are too {'narrow' if off < 0 else 'wide'}")
        if abs(off := row["coverage 90%"] - 0.9) > 2.6 * np.sqrt(0.09 / n):
            faults.append(f"90 % intervals are too {'narrow' if off < 0 else 'wide'}")
        return " and ".join(faults) or "ranks are not uniform, though its intervals cover about so"


def _power(n: int, level: float) -> str:
    """What would have been found, in words."""
    shift, narrow = least_shift(n, level=level), least_narrowness(n, level=level)
    if not np.isfinite(shift):
        return f"With {n} nothing could have been found."
    return (
        f"Would be found nine times in ten with {n}: a posterior that is off by {shift:.2g} of its "
        + (f"sd, or whose sd is {100 * narrow:.0f} % too small." if np.isfinite(narrow) else "sd.")
    )


def calibration(title: str, found: Sequence[Ranked], seed: int = 0) -> Calibration:
    """All studies together, ranked; quantities that say again what another says are left out."""
    names = found[0].names
    truths = pd.DataFrame([one.truths for one in found], columns=names)
    draws = {name: np.array([one.draws[j] for one in found]) for j, name in enumerate(names)}
    ranks = ranks_of(truths, draws, seed)
    own = [name for i, name in enumerate(names) if not _told(ranks, name, names[:i])]
    passed = np.array([one.passed for one in found])
    return Calibration(title, ranks[own], truths[own], {n: draws[n] for n in own}, passed)


def _told(ranks: pd.DataFrame, name: str, before: list[str]) -> bool:
    """Its ranks are everywhere those of another, or their mirror image: a function of it alone."""
    x = ranks[name].to_numpy()[:, None]
    others = ranks[before].to_numpy()
    return bool(((others == x).all(0) | (others == RANKED - x).all(0)).any())


def ranks_of(truths: pd.DataFrame, draws: dict[str, np.ndarray], seed: int = 0) -> pd.DataFrame:
    """Number of draws below each truth, in 0 ... RANKED; ties fall either way."""
    rng, ranks = np.random.default_rng(seed), {}
    for name, x in draws.items():
        truth = truths[name].to_numpy()[:, None]
        ranks[name] = (x < truth).sum(1) + rng.integers(0, (x == truth).sum(1) + 1)
    return pd.DataFrame(ranks)
