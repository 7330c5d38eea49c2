"""The one place where a law and a noise become a NumPyro program, and a study its arrays."""

import hashlib
import json
from collections.abc import Callable, Mapping

import jax
import numpy as np
import numpyro
import pandas as pd
from scipy.special import betaln

from bayesicl.curves import Study
from bayesicl.law import Design, Law
from bayesicl.noise import Noise
from bayesicl.scale import Scale


def padded_size(n: int) -> int:
    """The padded length for n entries, a power of two: few lengths mean few compilations."""
    return max(8, 1 << (n - 1).bit_length())


def compose(law: Law, noise: Noise) -> Callable[[Design, Mapping], tuple[jax.Array, dict]]:
    """The NumPyro program of a study: the law's parameters, the noise's sizes, the likelihood.

    It returns log p of every cell and the sizes of the noise.
    """

    def program(design: Design, data: Mapping) -> tuple[jax.Array, dict]:
        logp = law.model(design)
        sizes = noise.model(design, data)
        numpyro.factor("likelihood", noise.log_density(logp, sizes, design, data))
        return logp, sizes

    return program


def arrays(study: Study, *, backgrounds: int = 1) -> tuple[Design, dict[str, np.ndarray]]:
    """A study as padded arrays: its design and its data.

    Padding cells and held-out cells have `fitted` False and weigh nothing. The first H padding
    cells stand at 0 shots, one for each hypothesis: there p(0) is read off.
    """
    cells, H = study.cells, len(study.hypotheses)
    size = padded_size(len(cells) + H)

    def pad(column, fill):
        values = np.full(size, fill, dtype=np.asarray(fill).dtype)
        values[: len(cells)] = column
        return values

    design = Design(
        shots=pad(cells["shots"], 0.0),
        hypothesis=pad(cells["hypothesis"], 0),
        n_hypotheses=H,
        backgrounds=backgrounds,
    )
    design.hypothesis[len(cells) : len(cells) + H] = np.arange(H)
    data = {
        "y": pad(cells["y"], 0.5),
        "total": pad(cells["total"].fillna(1.0), 1.0),
        "replicates": pad(cells["replicates"], 1.0),
        "se": pad(cells["se"].fillna(1.0), 1.0),
        "fitted": pad(cells["fitted"], False),
        # For the coordinates alone, which stay when a cell is left out of the fit.
        "in_sight": pad(cells["fitted"], False),
    }
    if study.kind == "counts":
        data["log_choices"] = log_choices(data["y"], data["total"])
    if study.kind.endswith("prompts"):
        data |= _prompt_spread(study)
    if study.kind == "replicated counts":
        data |= _replicate_rows(study, size)
    return design, data


def log_choices(y, total) -> np.ndarray:
    """Log binomial coefficients: constant, and dear to compute at every step."""
    count = np.round(y * total)
    return -np.log1p(total) - betaln(total - count + 1, count + 1)


def study_key(seed: int, study: Study, law: str = "") -> jax.Array:
    """The random key of a study's fitted cells under the law of this name."""
    seen = study.cells.loc[study.cells["fitted"], ["hypothesis", "shots", "y"]].astype(float)
    name = json.dumps([study.key, law]).encode()
    digest = hashlib.sha256(name + seen.to_numpy().tobytes()).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "big") >> 1)


def _prompt_spread(study: Study) -> dict[str, np.ndarray]:
    """Per curve: log c from the spread of prompts within cells, its standard error, or none."""
    H = len(study.hypotheses)
    out = {"log_c": np.zeros(H), "log_c_se": np.ones(H), "has_spread": np.zeros(H, bool)}
    cells = study.cells
    rows = study.rows[cells["fitted"].to_numpy()[study.rows["cell"]]]
    owner = cells["hypothesis"].to_numpy()[rows["cell"]]
    for h in range(H):
        own = rows[owner == h]
        c = _prompt_c(own, study.scale)
        if not c > 0:
            continue
        # Delete-a-block jackknife over replicates: prompts of one order may go together, and
        # skewed probabilities make a chi-squared's degrees of freedom a fiction.
        codes = own["replicate"].unique()
        blocks = np.array_split(codes, min(len(codes), 20))
        partial = [_prompt_c(own[~own["replicate"].isin(b)], study.scale) for b in blocks]
        logs = np.log([p for p in partial if p > 0])
        g = len(logs)
        jackknife = np.sqrt((g - 1) / g * np.sum((logs - logs.mean()) ** 2)) if g > 1 else 1.0
        freedom = len(own) - own["cell"].nunique()
        out["log_c"][h] = np.log(c)
        out["log_c_se"][h] = max(jackknife, np.sqrt(2.0 / freedom))
        out["has_spread"][h] = True
    return out


def _prompt_c(rows: pd.DataFrame, scale: Scale) -> float:
    """Variance of one prompt over the scale's own, pooled over the cells of a curve."""
    y, n = rows["y"].to_numpy(), rows["total"].to_numpy()
    _, cell = np.unique(rows["cell"].to_numpy(), return_inverse=True)
    total = np.bincount(cell, n)
    mean = np.bincount(cell, n * y) / total
    freedom = np.bincount(cell) - 1.0
    square = np.sum(n * (y - mean[cell]) ** 2)
    own = freedom * scale.variance(mean)
    if not square > 0 or not own.sum() > 0:
        return 0.0
    c = 0.0
    for _ in range(20):  # at the measured mean it is off by a factor 1 + bend c/total
        c = square / np.sum(own / np.clip(1.0 + scale.bend(mean) * c / total, 0.5, 2.0))
    return min(c, scale.most)


def _replicate_rows(study: Study, size: int) -> dict[str, np.ndarray]:
    """Deviations z of replicates from their cells' means, in units of sqrt(p(1 - p)).

    Of each replicate's row in each cell: its items and items times z, (replicates, cells). Of each
    cell: the sum of items times z^2, the number of rows, and log(2 pi / items) summed over them. Of
    each curve: the share of the rows' degrees of freedom that the means left.
    """
    cells, rows = study.cells, study.rows
    mean, count = cells["y"].to_numpy(), cells["replicates"].to_numpy()
    # A cell at 0 or 1 in every replicate, or with one replicate, tells nothing of the spread.
    useful = cells["fitted"].to_numpy() & (count > 1) & (mean > 0) & (mean < 1)
    rows = rows[useful[rows["cell"]]]
    cell, items = rows["cell"].to_numpy(), rows["total"].to_numpy()
    z = (rows["y"].to_numpy() - mean[cell]) / np.sqrt(mean[cell] * (1 - mean[cell]))
    place = rows["replicate"].to_numpy(), cell
    replicates = int(study.rows["replicate"].max()) + 1 if len(study.rows) else 1
    table = np.zeros((2, padded_size(replicates), size))
    table[0][place], table[1][place] = items, items * z
    hypothesis = cells["hypothesis"].to_numpy()
    share = np.zeros(len(study.hypotheses))
    for h in range(len(share)):
        own = useful & (hypothesis == h)
        if own.any():
            share[h] = (count[own] - 1).sum() / count[own].sum()
    return {
        "row_items": table[0],
        "row_pull": table[1],
        "square": np.bincount(cell, items * z**2, minlength=size),
        "rows": np.bincount(cell, minlength=size).astype(float),
        "log_unit": np.bincount(cell, np.log(2 * np.pi / items), minlength=size),
        "share": share,
    }
