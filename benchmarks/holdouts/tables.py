"""Scores of many sides as tables."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from bayesicl.score import MANY_CURVES, MIN_CLUSTERS, clusters, score
from holdouts.sides import Scored, unit_key
from holdouts.sources import Unit

RESAMPLES = 2000
ALL = "all sources"
EVERY = "all splits"  # each unit once


def cells_table(
    units: Sequence[Unit], sides: dict[str, Sequence[Scored | None]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a cell, unit and side; and one a curve, threshold, N, unit and side."""
    cells, events = [], []
    for side, rows in sides.items():
        for unit, scored in zip(units, rows, strict=True):
            if scored is None:
                continue
            own = {
                "side": side, "source": unit.source, "part": unit.part,
                "study": unit.study.label, "model": unit.study.key["model"],
                "unit": unit_key(unit), "splits": " ".join(unit.splits), "passed": scored.passed,
            }  # fmt: skip
            cells.append(pd.DataFrame(scored.cells).drop(columns=["study", "model"]).assign(**own))
            if scored.reach:
                events.append(pd.DataFrame(scored.reach).assign(**own))
    first = ["side", "source", "part", "splits", "study", "model", "hypothesis"]
    tables = [pd.concat(t, ignore_index=True) if t else pd.DataFrame() for t in (cells, events)]
    return tuple(t[[*first, *t.columns.difference(first, sort=False)]] for t in tables)  # type: ignore


def of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Rows of a split: "10%"; "rolling"; "rolling, next" (the cell after the fit alone); EVERY."""
    if split == EVERY:
        return table
    name, _, next_only = split.partition(", ")
    rows = table[[name in names.split() for names in table["splits"]]]
    return rows[rows["ahead"] == 1] if next_only else rows


def parts_of(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each part, and all sources together without failures and curves that do not learn."""
    parts = list(dict.fromkeys(cells["part"]))
    main = [part for part in parts if ":" not in part]
    found = [(part, cells[cells["part"] == part]) for part in main]
    if len(main) > 1:
        found.append((ALL, cells[cells["part"].isin(main)]))
    return found + [(part, cells[cells["part"] == part]) for part in parts if ":" in part]


def summary(
    cells: pd.DataFrame, events: pd.DataFrame, splits: Iterable[str], default: str
) -> pd.DataFrame:
    """One row a split, part and side: `score`, the CRPS ratio of `default` to it, Brier score."""
    rows = []
    for split in splits:
        asked = len(events) and "," not in split
        event_parts = dict(parts_of(of_split(events, split))) if asked else {}
        for part, own in parts_of(of_split(cells, split)):
            for side in dict.fromkeys(own["side"]):
                group = own[own["side"] == side]
                [scores] = score(group.assign(law=side)).to_dict("records")
                row = {"split": split, "part": part, "side": side, **scores}
                del row["law"]
                row["log_scores"] = int(group["log_score"].notna().sum())
                row["clusters"] = _clusters_in_words(group)
                row |= ratio(own, default, side)
                if part in event_parts:
                    mine = event_parts[part]
                    row |= brier(mine[mine["side"] == side])
                row["passed"] = group.groupby("unit")["passed"].first().mean()
                rows.append(row)
    return pd.DataFrame(rows)


def _clusters_in_words(cells: pd.DataFrame) -> str:
    """What standard errors take as independent."""
    words = []
    for _, own in cells.groupby("source"):
        curves = own.groupby(["study", "hypothesis"]).ngroups
        n, unit = clusters(own).nunique(), "curve" if curves >= MANY_CURVES else "model"
        words.append(f"{n} {unit}{'s' if n > 1 else ''}")
    return " + ".join(words)


def far(cells: pd.DataFrame, side: str, times: float) -> pd.DataFrame:
    """Coverage of 90 % intervals beyond `times` the fitted shots, by part."""
    last = cells["fitted_shots"].clip(lower=1)
    own = cells[(cells["side"] == side) & (cells["shots"] > times * last)]
    return own.groupby("part").agg(
        coverage=("inside 90%", "mean"), cells=("shots", "size"), curves=("study", "nunique")
    )


def ratio(cells: pd.DataFrame, default: str, other: str) -> dict[str, float]:
    """Mean CRPS of `default` over that of `other` on cells that both scored, and 95 % interval.

    By a bootstrap of clusters; none with fewer than MIN_CLUSTERS.
    """
    names = {"crps ratio": np.nan, "ratio low": np.nan, "ratio high": np.nan}
    key = ["source", "study", "model", "hypothesis", "unit", "shots"]
    one = cells[cells["side"] == default].set_index(key)["crps"]
    two = cells[cells["side"] == other].set_index(key)["crps"]
    both = pd.concat([one, two], axis=1, keys=["one", "two"], join="inner").reset_index()
    if default == other or both.empty:
        return names
    names["crps ratio"] = both["one"].sum() / both["two"].sum()
    sums = both.groupby(clusters(both))[["one", "two"]].sum().to_numpy()
    if len(sums) >= MIN_CLUSTERS:
        picks = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
        one, two = sums[picks].sum(axis=1).T
        names["ratio low"], names["ratio high"] = np.quantile(one / two, [0.025, 0.975])
    return names


def brier(events: pd.DataFrame) -> dict[str, float]:
    """Brier score of P(n* <= N), its clustered standard error, and that of the frequency alone."""
    happened = events["happened"].astype(float)
    loss = (events["probability"] - happened) ** 2
    sums = (loss - loss.mean()).groupby(clusters(events)).sum()
    g = len(sums)
    se = np.sqrt(g / (g - 1) * np.sum(sums**2)) / len(loss) if g >= MIN_CLUSTERS else np.nan
    base = happened.mean()
    return {"brier": loss.mean(), "brier se": se, "brier base": base * (1 - base)}


def reliability(events: pd.DataFrame, splits: Iterable[str]) -> pd.DataFrame:
    """Forecast probability against frequency in bins of a fifth: one row a bin."""
    rows = []
    for split in splits:
        for part, own in parts_of(of_split(events, split)):
            for side, group in own.groupby("side", sort=False):
                bins = np.minimum((group["probability"] * 5).astype(int), 4)
                for b, inside in group.groupby(bins):
                    rows.append(
                        {
                            "split": split, "part": part, "side": side,
                            "from": b / 5, "to": (b + 1) / 5, "forecasts": len(inside),
                            "probability": inside["probability"].mean(),
                            "frequency": inside["happened"].mean(),
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


# -- for people -----------------------------------------------------------------------------------


def markdown(table: pd.DataFrame, default: str) -> str:
    """Tables of splits and parts, a line a side."""
    out = []
    head = ["side", "50 %", "80 %", "90 %", "95 %", "CRPS", f"CRPS {default} / side", "log score",
            "width 50 %", "width 90 %", "NRMSE", "MAE", "Brier", "passed"]  # fmt: skip
    for (split, part), rows in table.groupby(["split", "part"], sort=False):
        first = rows.iloc[0]
        out.append(
            f"\n**{split}, {part}**: {first['curves']} curves, {first['cells']} cells, "
            f"{first['fitted']:.0%} of the shots fitted on average; independent: "
            f"{first['clusters']}\n"
        )
        lines = [head, ["---"] * len(head)]
        for row in rows.to_dict("records"):
            lines.append(
                [
                    row["side"],
                    *(_coverage(row, level) for level in ("50%", "80%", "90%", "95%")),
                    _figure(row["crps"], 4),
                    _ratio(row),
                    _log_score(row),
                    _figure(row["width 50%"], 3),
                    _figure(row["width 90%"], 3),
                    _figure(row["nrmse"], 3),
                    _figure(row["mae"], 4),
                    _figure(row.get("brier", np.nan), 3),
                    f"{row['passed']:.0%}",
                ]
            )
        out += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join(out)


def _figure(x: float, digits: int) -> str:
    return "" if x != x else f"{x:.{digits}f}".replace("0.", ".", 1)


def _log_score(row: dict) -> str:
    """Mean log score, and of how many cells where some have none."""
    text = _figure(row["log_score"], 2)
    few = row["log_scores"] < row["cells"]
    return f"{text} ({row['log_scores']} cells)" if text and few else text


def _coverage(row: dict, level: str) -> str:
    se = row[f"se {level}"]
    error = "" if se != se else f" ({_figure(se, 2)})"
    verdict = f", {row[f'verdict {level}']}" if level in ("50%", "90%") else ""
    return f"{_figure(row[f'coverage {level}'], 2)}{error}{verdict}"


def _ratio(row: dict) -> str:
    if row["crps ratio"] != row["crps ratio"]:
        return ""
    text = f"{row['crps ratio']:.2f}"
    if row["ratio low"] == row["ratio low"]:
        text += f" [{row['ratio low']:.2f}, {row['ratio high']:.2f}]"
    return text
