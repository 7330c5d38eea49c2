"""Study: the curves that one belief explains, and their split into fitted and held out."""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from bayesicl.errors import InputError
from bayesicl.scale import Scale, scale_of

FIRST_CELLS = 5  # a share of a short curve keeps at least these


@dataclass(frozen=True, eq=False)
class Study:
    """The curves that one belief explains, ready to be fitted. `read_curves` makes it.

    Attributes:
        key: the study columns and their values; a missing column is "".
        hypotheses: labels of the observed hypotheses, numbers first; ("0",) without such a column.
        kind: what a cell's `y` is made of: "counts", "replicated counts", "prompts" (single
            prompts or batches of them, averaged), "aggregated" (a mean with its number of prompts)
            or "given se"; of mean nll "nll prompts", "nll aggregated" or "nll given se".
        outcome: "counts", "prob" or "mean_nll".
        items: for "replicated counts", whether replicates share their test items ("shared") or
            each has its own ("fresh"); else None.
        cells: one row a (hypothesis, shots), sorted, index 0, 1, ...: hypothesis (index into
            `hypotheses`), shots, y (mean probability, in [0, 1], or mean nll, >= 0), replicates,
            total (counts: items a replicate; else prompts behind y; NaN for "given se" and where a
            table does not count them), se (as given, else NaN), error (standard error for drawing
            bars, never for fitting; NaN where unknown), chance (in (0, 1) or NaN) and fitted (False
            where held out).
        rows: for "replicated counts" and "prompts", the measurements behind the cells: cell (row of
            `cells`), replicate (the same code for the same replicate throughout the study), y,
            total (1 for a single prompt). Else empty.
        covariates: the other columns that are constant within the study.
    """

    key: dict[str, str]
    hypotheses: tuple[str, ...]
    kind: str
    outcome: str
    items: str | None
    cells: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    covariates: dict[str, str]

    @property
    def scale(self) -> Scale:
        """What `y` is a number of."""
        return scale_of(self.outcome)

    @property
    def label(self) -> str:
        """The key for people: "model | variant | task", empty parts left out."""
        return " | ".join(part for part in self.key.values() if part) or "study"

    def curve_name(self, hypothesis: int) -> str:
        """One curve for people: the label, and which hypothesis (an index) if there are several."""
        if len(self.hypotheses) == 1:
            return self.label
        return f"{self.label}, hypothesis {self.hypotheses[hypothesis]}"

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what was measured; the split into fitted and held out does not enter."""
        digest = hashlib.sha256()
        head = [self.key, self.hypotheses, self.kind, self.items]
        digest.update(json.dumps(head, sort_keys=True).encode())
        for frame in (self.cells.drop(columns="fitted"), self.rows):
            for column in frame:
                values = frame[column].to_numpy()
                digest.update(str(column).encode())
                digest.update(values.astype("<f8" if values.dtype.kind == "f" else "<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def digest(self) -> str:
        """A short hash of the cells, by which curves are known again under any name."""
        values = self.cells[["hypothesis", "shots", "y", "total"]].fillna(0.0).to_numpy("<f8")
        return hashlib.sha256(np.round(values, 9).tobytes()).hexdigest()[:16]

    @property
    def fraction(self) -> float:
        """Longest fitted shots over longest shots, in (0, 1]; the smallest over the curves."""
        curve, shots, fitted = (self.cells[n].to_numpy() for n in ("hypothesis", "shots", "fitted"))
        return min(
            float(shots[fitted & (curve == code)].max() / shots[curve == code].max())
            for code in range(len(self.hypotheses))
        )

    def hold_out(
        self, *, fit_shots: str | int | None = None, fit_points: int | None = None
    ) -> "Study":
        """Keep the beginning of each curve for fitting and hold out the rest.

        Args:
            fit_shots: "25%" fits the cells up to 25 % of each curve's own longest shots, and at
                least its first 5 cells; 50 or "50" fits shots <= 50.
            fit_points: fits the first cells of each curve, this many.

        Returns:
            A new study with `cells["fitted"]` set anew; the values are the same.

        Raises:
            InputError: not exactly one of the two, one that cannot be read, a curve with fewer than
                2 cells to fit, or no cell left to predict.

        Example:
            >>> import pandas as pd
            >>> from bayesicl.curves import read_curves
            >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
            >>> read_curves(table).studies[0].hold_out(fit_shots=2).cells["fitted"].tolist()
            [True, True, True, False]
        """
        study = split(self, fit_shots, fit_points)
        if study.cells["fitted"].to_numpy().all():
            raise InputError(f"{self.label}: {nothing_left(fit_shots, fit_points)}")
        return study


def split(study: Study, fit_shots: str | int | None, fit_points: int | None) -> Study:
    """Set `fitted` per curve; a curve may be left whole, but not with fewer than 2 fitted cells."""
    if (fit_shots is None) == (fit_points is None):
        both = "" if fit_shots is None else ", not both"
        raise InputError(f"give --fit-shots or --fit-points{both}")
    curve, shots = (study.cells[name].to_numpy() for name in ("hypothesis", "shots"))
    fitted = np.zeros(len(shots), dtype=bool)
    for code in range(len(study.hypotheses)):
        own = curve == code
        fitted[own] = _beginning(shots[own], fit_shots, fit_points)
        if fitted[own].sum() < 2:
            raise InputError(
                f"{study.curve_name(code)}: a curve needs at least 2 cells to fit, got "
                f"{fitted[own].sum()}; raise --fit-shots or --fit-points"
            )
    return replace(study, cells=study.cells.assign(fitted=fitted))


def _beginning(
    shots: np.ndarray, fit_shots: str | int | None, fit_points: int | None
) -> np.ndarray:
    """Which cells of one curve are fitted; `shots` ascend."""
    if fit_shots is None:
        return np.arange(len(shots)) < _whole(fit_points, "--fit-points")
    if str(fit_shots).strip().endswith("%"):
        within = 100 * shots <= _percent(str(fit_shots)) * shots[-1]
        return within | (np.arange(len(shots)) < FIRST_CELLS)
    return shots <= _whole(fit_shots, "--fit-shots")


def _percent(text: str) -> float:
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise InputError(
            f"--fit-shots must be a share like 25% (above 0, at most 100), got {text!r}"
        )
    return percent


def _whole(value: str | int | None, flag: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value).strip()):
        share = ", or a share like 25%" if flag == "--fit-shots" else ""
        raise InputError(f"{flag} must be a whole number of at least 0{share}, got {value!r}")
    return int(str(value))


def nothing_left(fit_shots: str | int | None, fit_points: int | None) -> str:
    """Say which split held nothing out."""
    asked = f"--fit-points {fit_points}" if fit_shots is None else f"--fit-shots {fit_shots}"
    advice = "choose less"
    if "%" in asked and _percent(str(fit_shots)) < 100:
        advice = f"a share always fits the first {FIRST_CELLS} cells; use --fit-points for fewer"
    return f"{asked} leaves nothing to predict in any curve; {advice}"
