"""Tables for people."""

from collections.abc import Sequence

import pandas as pd


def markdown(table: pd.DataFrame, index: str) -> str:
    """A Markdown table; `index` names the first column."""
    rows: list[Sequence[str]] = [[index, *map(str, table.columns)]]
    rows.append(["---"] * (len(table.columns) + 1))
    for name, values in table.iterrows():
        rows.append([str(name), *(_text(str(column), x) for column, x in values.items())])
    return "\n".join(f"| {' | '.join(r)} |" for r in rows)


def _text(column: str, x: float) -> str:
    if x != x:
        return ""
    if column == "passed":
        return f"{x:.0%}"
    return f"{x:.0f}" if abs(x) >= 100 or x == round(x) else f"{x:.3g}"
