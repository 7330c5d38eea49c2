"""The folder of what is measured: orders, and the table that they are joined to.

It holds `orders/`, a file each, written in one step when it is measured; `prompts/`, the exact text
of each first order; `settings/`, what the rows of a key depend on; `runs.jsonl`, a line for each
run that had orders; and `curves.csv`, the table of all orders in the folder.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bayesicl.collect.plan import Order, settings_key
from bayesicl.collect.prompts import Passage
from bayesicl.errors import InputError
from bayesicl.writing import in_one_step, spelled

TABLE = "curves.csv"
WORDS = {
    "max_shots": "--max-shots", "context": "window", "backend": "back end", "digest": "model file",
    "chat": "--chat",
}  # fmt: skip


@dataclass(frozen=True)
class Collection:
    """A folder of measured orders, and what the rows say of the model.

    variant: of the model, such as base or instruct; None for no such column.
    """

    folder: Path
    model: str
    variant: str | None = None

    def place(self, order: Order) -> Path:
        """Where the rows of an order belong."""
        names = [self.model, *([self.variant] if self.variant else [])]
        return self.folder / "orders" / f"{spelled('_'.join(names))}_{order.slug}.csv"

    def check(self, settings: Mapping[str, dict[str, Any]]) -> set[Path]:
        """The model's orders that are there; InputError where one has other settings than its task.

        Orders of one task are curves of one study: they may differ in their labels, and in nothing
        else.
        """
        own = set()
        keys = {task: settings_key(own) for task, own in settings.items()}
        for path in self._orders():
            with _handling(path, "read"), path.open(encoding="utf-8", newline="") as file:
                row = next(csv.DictReader(file), {})
            if not all(row.get(name) for name in ("model", "task", "shots", "settings")):
                raise InputError(f"{path}: has no measured rows; remove it")
            if (row.get("model"), row.get("variant")) != (self.model, self.variant):
                continue
            own.add(path)
            if keys.get(row["task"], row["settings"]) == row["settings"]:
                continue
            kept = self._settings(row["settings"])
            what = "settings"
            if kept.exists():
                with _handling(kept, "read"):
                    before = json.loads(kept.read_text(encoding="utf-8"))
                what = differences(settings[row["task"]], before, ("now", "then"))
            raise InputError(
                f"{path}: measured before with other {what}; name another --out, or remove it"
            )
        return own

    def _orders(self) -> list[Path]:
        return sorted((self.folder / "orders").glob("*.csv"))

    def _settings(self, key: str) -> Path:
        return self.folder / "settings" / f"{key}.json"

    def keep(self, settings: dict[str, Any]) -> None:
        """Write the settings of a task whose orders are in the folder, if they are not there."""
        path = self._settings(settings_key(settings))
        if not path.exists():
            with _handling(path), in_one_step(path) as part:
                part.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")

    def write(self, order: Order, prompts: Sequence[Passage], rows: pd.DataFrame) -> None:
        """Keep an order's rows, and the text of a first order."""
        path = self.place(order)
        if order.number == 0:
            text = self.folder / "prompts" / f"{path.stem}.txt"
            with _handling(text), in_one_step(text) as part:
                part.write_text(prompts[-1].text, encoding="utf-8", newline="")
        with _handling(path), in_one_step(path) as part:
            rows.to_csv(part, index=False, lineterminator="\n")

    def join(self) -> Path:
        """Write the table of all orders in the folder, by model, task, hypothesis and order."""
        frames = []
        for path in self._orders():
            with _handling(path, "read"):
                frames.append(pd.read_csv(path, dtype=str, keep_default_na=False))
        table = pd.concat(frames, ignore_index=True)
        if "variant" in table:  # a key, which must be filled in
            table["variant"] = table["variant"].fillna("unstated")
        path = self.folder / TABLE
        with _handling(path), in_one_step(path) as part:
            table.to_csv(part, index=False, lineterminator="\n")
        return path

    def record(self, run: dict) -> None:
        """Add a line about a run: who, what, when."""
        path = self.folder / "runs.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with _handling(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run, ensure_ascii=False) + "\n")


@contextmanager
def _handling(path: Path, what: str = "written") -> Iterator[None]:
    """Raise InputError where a file cannot be read or written, or is not what it should be."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # pandas' errors are ValueErrors
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        advice = "remove it" if what == "read" else "make room for it, or name another --out"
        raise InputError(f"{path}: cannot be {what} ({reason}); {advice}") from error


def differences(one: Mapping[str, Any], other: Mapping[str, Any], when: tuple[str, str]) -> str:
    """What differs between settings, in words: "seed (1 now, 0 then), --template (...)"."""
    texts = []
    for name in {**one, **other}:
        values = [part.get(name, "float32" if name == "dtype" else "") for part in (one, other)]
        if values[0] != values[1]:
            told = ", ".join(
                f"{_short(value)} {word}" for value, word in zip(values, when, strict=True)
            )
            texts.append(f"{WORDS.get(name, name)} ({told})")
    return ", ".join(texts)


def _short(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else "none" if value is None else str(value)
