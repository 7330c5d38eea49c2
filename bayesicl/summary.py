"""What a fit says about each parameter, and what the data left to the prior."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from bayesicl.convergence import convergence
from bayesicl.errors import InputError
from bayesicl.identify import (
    MAX_PRIOR_SHIFT,
    MIN_CONTRACTION,
    Element,
    elements,
    judged,
    ordered,
)
from bayesicl.law import AT
from bayesicl.tree import label, law_label, study_of

PREDICTED = ("y_mean", "y_sd", "y_lower", "y_upper")
MISSED = 0.01  # of any false alarm about a cell that the law misses, in one study

MEANING = {
    "pi": "belief before the first demonstration, probability",
    "P": "probability of an example, by who generates it and who scores it",
    "gamma": "probability of an example under its own hypothesis",
    "beta": "probability of an example under another hypothesis",
    "K": "evidence of one demonstration, in examples",
    "rate": "evidence of one demonstration, nats",
    "ceiling": "probability with endless demonstrations",
    "p_zero": "probability at 0 shots",
    "p_last": "probability at the longest fitted shots",
    "nll_zero": "mean nll at 0 shots, nats",
    "nll_last": "mean nll at the longest fitted shots, nats",
    "alpha": "exponent of the power, no unit",
    "C": "how far -log p lies above its limit before the law's fall, nats",
    "A": "how far -log p lies above its limit before the law's fall, nats",
    "L": "-log p with endless demonstrations, nats",
    "n_0": "demonstrations and query at which half of A is gone",
    "n_c": "demonstrations before the fall begins",
    "k": "steepness, no unit",
    "scatter": "extra sd of a share, in units of sqrt(p(1 - p))",
    "dispersion": "variance at 10 shots, in units of binomial variance",
    "dispersion_slope": "of log dispersion, per unit of log(1 + shots)",
    "replicate_sd": "sd common to a replicate, in units of sqrt(p(1 - p))",
    "c": "variance of one prompt, in units of p(1 - p), or of mean nll^1.5",
    "misfit_sd": "sd of the law's misfit, in units of sqrt(p(1 - p)), or of mean nll^.75",
    "misfit_length": "over which the law's misfit changes, in log(1 + shots)",
    "discount": "how much less each further demonstration counts, no unit",
}
OF_LAW = {  # where a name means something else, or would in a law of one's own
    "constant": {"p": "probability at any number of shots"},
    "hill": {
        "gamma": "probability with endless demonstrations",
        "beta": "probability before the rise",
        "n_0": "demonstrations and query at which half of the rise is done",
    },
    "belief": {
        "gamma": "probability with endless demonstrations",
        "b": "log-odds of belief before the first demonstration, nats",
        "g": "evidence of the first demonstration, nats",
    },
    "broken": {
        "alpha": "exponent of the power before the break, no unit",
        "alpha_2": "exponent of the power after the break, no unit",
        "n_c": "demonstrations and query at which the curve breaks",
        "f": "breadth of the break, in log(shots + 1)",
    },
    "recognition": {
        "floor": "probability without recognition and learning",
        "n_l": "demonstrations before learning shows",
        "a": "exponent of learning, no unit",
    },
    "manyshot": {
        "C": "how far the mean nll lies above its limit at 0 shots, nats",
        "L": "mean nll with endless demonstrations, nats",
    },
    "context": {
        "n_ctx": "demonstrations that the context holds",
        "s": "how sharply the gain is lost beyond, nats a demonstration",
    },
}


@dataclass(frozen=True)
class Summary:
    """One fit, summed up. table: one row a parameter. text: the same for people, in words.

    Columns: parameter, meaning, hypothesis, believed, median, lower, upper, contraction (1 minus
    posterior over prior variance, unconstrained scale), prior_shift (posterior sds by which the
    median moves when the prior counts twice), identified, rhat, ess_bulk, ess_tail.
    """

    table: pd.DataFrame
    text: str


def meaning(parameter: str, law: str) -> str:
    """What a parameter of a law is, and its unit; "" where that is not known."""
    return OF_LAW.get(law.partition(AT)[0], {}).get(parameter, MEANING.get(parameter, ""))


def summarise(tree: xr.DataTree, *, level: float = 0.9) -> Summary:
    """Medians and equal-tailed intervals of all that a fit reports, and what left its prior.

    A parameter is called not identified where the data took away less than half of its prior
    variance, where its 90 % interval, if it is a probability, is wider than one half, or where its
    median follows the prior (Kallioinen et al. 2023, "Detecting and diagnosing prior and likelihood
    sensitivity with power-scaling", arXiv 2107.14054).

    level: of the intervals, in (0, 1). Of a fit that was loaded without its draws, or kept none,
    what it says of itself is given, at its own level; InputError at another.
    """
    table = _table(tree, level) if "posterior" in tree.children else _kept_table(tree, level)
    return Summary(table, _text(tree, table, level))


def record(tree: xr.DataTree, *, level: float = 0.9) -> xr.Dataset:
    """What a fit says of itself, to be kept with it as the group `summary`.

    table: the table of `summarise`, as JSON records. y_mean, y_sd, y_lower, y_upper: of the
    posterior predictive of each fitted cell, the last two at 99 %.
    """
    draws = tree["posterior_predictive"]["y"]
    cells = {name: ("cell", x) for name, x in _predicted(tree).items()}
    table = json.dumps(_table(tree, level).to_dict("records"))
    coords = {"cell": draws["cell"].to_numpy()}
    return xr.Dataset(cells | {"table": table}, coords, {"level": level})


def _kept_table(tree: xr.DataTree, level: float) -> pd.DataFrame:
    kept = tree["summary"]
    if not np.isclose(level, kept.attrs["level"]):
        raise InputError(
            f"{label(tree)}, {law_label(tree)}: intervals at {100 * level:g} % need its draws, "
            f"which were not kept; take --level {kept.attrs['level']:g} or fit again with "
            "--keep-draws all"
        )
    return pd.DataFrame(json.loads(kept["table"].item()))


def _table(tree: xr.DataTree, level: float) -> pd.DataFrame:
    posterior, names = tree["posterior"].to_dataset(), ordered(tree)
    moved = judged(tree, names)
    found = [(name, *item) for name in names for item in elements(posterior[name]).items()]
    draws = np.stack([x.transpose("chain", "draw").to_numpy() for *_, x in found], axis=-1)
    marks = [(1 - level) / 2, 0.5, (1 + level) / 2]
    lower, median, upper = np.quantile(draws.reshape(-1, len(found)), marks, axis=0)
    columns = {
        "parameter": [element.parameter for _, element, _ in found],
        "meaning": [meaning(name, tree.attrs["law"]) for name, *_ in found],
        "hypothesis": [element.hypothesis for _, element, _ in found],
        "believed": [element.believed for _, element, _ in found],
        "median": median,
        "lower": lower,
        "upper": upper,
    }
    judgements = pd.DataFrame([moved[element] for _, element, _ in found])
    diagnostics = convergence(draws)._asdict()
    return pd.concat([pd.DataFrame(columns), judgements, pd.DataFrame(diagnostics)], axis=1)


def missed(tree: xr.DataTree) -> pd.DataFrame:
    """Fitted cells that the fit says should not have come out so: one row each.

    Columns: hypothesis, shots, measured, lower, upper (of the 99 % interval of such a measurement).
    A cell counts that lies further from the predictive mean, in its sds, than one study in a
    hundred would have of any cell.
    """
    study = study_of(tree)
    if "posterior_predictive" in tree.children:
        at, predicted = tree["posterior_predictive"]["cell"].to_numpy(), _predicted(tree)
    else:
        kept = tree["summary"]
        at, predicted = kept["cell"].to_numpy(), {name: kept[name].to_numpy() for name in PREDICTED}
    mean, sd, lower, upper = (predicted[name] for name in PREDICTED)
    cells = study.cells.iloc[at]
    y, z = cells["y"].to_numpy(), norm.isf(MISSED / 2 / max(len(cells), 1))
    beyond = y.astype(lower.dtype)  # counts fall on the very values that were drawn
    far = (np.abs(y - mean) > z * sd) & ((beyond < lower) | (beyond > upper))
    table = {
        "hypothesis": [study.hypotheses[h] for h in cells["hypothesis"]],
        "shots": cells["shots"].to_numpy(),
        "measured": y,
        "lower": lower,
        "upper": upper,
    }
    return pd.DataFrame(table)[far].reset_index(drop=True)


def _predicted(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Of the posterior predictive of each fitted cell: mean, sd and 99 % interval, (cells,)."""
    draws = tree["posterior_predictive"]["y"].to_numpy()
    draws = draws.reshape(-1, draws.shape[-1])
    lower, upper = np.quantile(draws, [0.005, 0.995], axis=0)
    mean, sd = draws.mean(0, dtype=float), draws.std(0, dtype=float)
    return dict(zip(PREDICTED, (mean, sd, lower, upper), strict=True))


def _text(tree: xr.DataTree, table: pd.DataFrame, level: float) -> str:
    lines = [f"{label(tree)}, law {law_label(tree)}, noise {tree.attrs['noise']}"]
    cells = study_of(tree).cells
    fitted = cells[cells["fitted"]]
    lines.append(
        f"fitted to {len(fitted)} of {len(cells)} cells, "
        f"{fitted['shots'].min():g} to {fitted['shots'].max():g} shots"
    )
    if not tree.attrs["passed"]:
        failures = json.loads(tree.attrs["diagnostics"])["failures"]
        lines.append(f"NOT CONVERGED, do not rely on it: {'; '.join(failures)}")
    for remark in json.loads(tree.attrs["warnings"]):
        lines.append(f"warning: {remark}")
    wrong = missed(tree)
    if len(wrong):
        middle = (wrong["lower"] + wrong["upper"]) / 2
        cell = wrong.to_dict("records")[int(np.argmax(np.abs(wrong["measured"] - middle)))]
        lines.append(
            f"warning: the law misses {len(wrong)} of {len(fitted)} cells; at {cell['shots']:g} "
            f"shots it expects {cell['lower']:.3g} to {cell['upper']:.3g} and "
            f"{cell['measured']:.3g} was measured. Intervals below trust the law."
        )
    columns = table[list(Element._fields)]
    names = [str(Element(*row)) for row in columns.itertuples(index=False)]
    width = max(map(len, names))
    starts = _first_shots(tree)
    lines.append(f"{'':{width}}   median   {100 * level:g}% interval       moved")
    for name, row in zip(names, table.to_dict("records"), strict=True):
        word = "" if row["identified"] else f"  not identified: {_why(row)}"
        if row["parameter"] in ("p_zero", "nll_zero") and starts.get(row["hypothesis"]):
            word += f"  extrapolated: measured from {starts[row['hypothesis']]:g} shots on"
        span = f"[{row['lower']:.3g}, {row['upper']:.3g}]"
        lines.append(
            f"{name:{width}} {row['median']:8.3g}   {span:20} "
            f"{max(row['contraction'], 0):5.0%}{word}"
        )
    lines.append(
        '"moved": share of the prior variance that the data took away (log or log-odds scale).'
    )
    lost = [n for n, ok in zip(names, table["identified"], strict=True) if not ok]
    if lost:
        lines.append(
            f"These data do not identify {', '.join(lost)}: report none of them as a finding."
        )
    return "\n".join(lines)


def _first_shots(tree: xr.DataTree) -> dict[str, float]:
    """Shots at which the fitted part of each hypothesis's curve begins."""
    study = study_of(tree)
    fitted = study.cells[study.cells["fitted"]].groupby("hypothesis")["shots"].min()
    return {study.hypotheses[int(h)]: float(n) for h, n in fitted.items()}  # pyright: ignore


def _why(row: dict) -> str:
    if row["contraction"] < MIN_CONTRACTION:
        return "largely the prior"
    if row["prior_shift"] <= MAX_PRIOR_SHIFT:
        return "anywhere in a wide interval"
    if np.isnan(row["prior_shift"]):
        return "how it follows the prior cannot be told"
    return "its median moves with the prior"
