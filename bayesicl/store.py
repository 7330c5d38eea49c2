"""Folders of fits: finding, loading and adding them, with nothing lost when a run is killed."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from bayesicl.curves import Study
from bayesicl.errors import InputError
from bayesicl.files import (
    file_name,
    in_zarr,
    load,
    open_hierarchy,
    read_attributes,
    remove,
    save,
)
from bayesicl.law import AT, Law, parted
from bayesicl.noise import Noise
from bayesicl.tree import content_key, thinned
from bayesicl.writing import HERE

HIERARCHY = "fits.zarr"  # zarr complains about all else in its folder, so tables stay outside
ABANDONED = 3600.0  # seconds after which a part of another machine's is nobody's


def find_fits(paths: Iterable[str | Path]) -> list[Path]:
    """Every fit named, and every fit in the folders and zarr hierarchies named, in order."""
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
        elif in_zarr(path):
            groups = sorted(p.parent for p in path.glob("*/zarr.json"))
            whole = path.parent.suffix == ".zarr" or any(p.name == "study" for p in groups)
            found += [path] if whole or not groups else groups
        else:
            held = [p for p in path.iterdir() if p.suffix in (".nc", ".zarr") and p.name[0] != "."]
            if not held:
                raise InputError(f"{path}: no fits (.nc or .zarr) in this folder")
            found += find_fits(sorted(held))
    return found


def load_each(paths: Iterable[str | Path], *, draws: bool = True) -> Iterator[xr.DataTree]:
    """Every fit named, and every fit in the folders named, one at a time."""
    for path in find_fits(paths):
        yield load(path, draws=draws)


def load_all(paths: Iterable[str | Path]) -> list[xr.DataTree]:
    """Read every fit named, and every fit in the folders named, with its draws."""
    return list(load_each(paths))


@dataclass(frozen=True)
class Store:
    """A folder of fits that are made by one command or several.

    folder: where. ending: "nc", a file each, or "zarr", all in one hierarchy. keep: draws a chain
    that a fit keeps, evenly spaced; None for all, 0 for none.
    """

    folder: Path
    ending: str = "nc"
    keep: int | None = None

    def place(self, study: Study, law: str) -> Path:
        """Where the fit of this study under the law of this name belongs."""
        name = file_name(study, law)
        return self.folder / (f"{name}.nc" if self.ending == "nc" else f"{HIERARCHY}/{name}")

    def prepare(self) -> None:
        """Remove what killed runs left half-written, and make the zarr hierarchy."""
        for part in self.folder.glob(".*.part"):
            if _abandoned(part):
                remove(part)
        if self.ending == "zarr":
            open_hierarchy(self.folder / HIERARCHY)

    def finished(self, path: Path, attrs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The attributes of the fit at `path` if it has the content that these ask for, else None.

        Raises InputError where something is there that is not that fit, and says why in words that
        many fits may share: "made with seed 0, now 1".
        """
        if not path.exists():
            return None
        try:
            found = read_attributes(path)
        except InputError as error:
            raise InputError("cut off, or not of this version") from error
        if content_key(found) != content_key(attrs):
            raise InputError(_apart(found, attrs))
        kept = found["draws_kept"]
        if kept != "all" and (self.keep is None or int(kept) < self.keep):
            raise InputError("kept with fewer draws than are now asked for (--keep-draws)")
        return found

    def spare(self, study: Study, law: Law, noise: Noise) -> None:
        """Raise InputError where a study's place has a fit of it under another noise or prior.

        Names of places do not tell these apart: the one fit would take the other's. A prior that
        has moved is no other one.
        """
        path = self.place(study, law.name)
        try:
            found = read_attributes(path)
        except InputError:  # nothing is there, or nothing that can be read
            return
        old, new = _under(found["noise"], found["law_path"]), _under(noise.name, law.path)
        moved = [found["noise"].partition(AT)[0], found["law_hash"], found["noise_hash"]] == [
            noise.name.partition(AT)[0], law.source_hash, noise.source_hash
        ]  # fmt: skip
        if found["data_hash"] == study.hash and old != new and not moved:
            raise InputError(
                f"{path} is a fit under {old}, not {new}; choose another --out, or remove it"
            )

    def write(self, tree: xr.DataTree, path: Path) -> dict[str, Any]:
        """Write a fit to its place, with the draws that are to be kept; returns its attributes."""
        kept = thinned(tree, self.keep)
        save(kept, path)
        return {str(name): value for name, value in kept.attrs.items()}


def _apart(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """In what a fit differs from the one that is asked for; their content keys are others."""
    was, now = ({**a, **json.loads(a["settings"])} for a in (found, asked))
    names = ("seed", "backgrounds", "device", *json.loads(asked["settings"]))
    moved = [f"{n} {was.get(n)}, now {now[n]}" for n in names if str(was.get(n)) != str(now[n])]
    under = [_under(a["noise"], a["law_path"]) for a in (found, asked)]
    if under[0] != under[1]:
        moved.append(f"{under[0]}, now {under[1]}")
    elif was.get("noise_hash", "") != now["noise_hash"]:
        moved.append(f"what {now['noise'].partition(AT)[2]} held before it was changed")
    elif was.get("law_hash", "") != now["law_hash"]:
        law, prior = parted(now["law_path"] or now["law"])
        same = prior in ("", now["noise"].partition(AT)[2])  # the noise's hash would tell
        moved.append(f"what {law if same else f'{law} or {prior}'} held before it was changed")
    if [was.get("data_hash", ""), was.get("fitted_hash", "")] != [
        now["data_hash"],
        now["fitted_hash"],
    ]:
        moved.append("other data")
    if was.get("code_hash", "") != now["code_hash"]:
        moved.append("another version of bayesicl")
    return f"made with {' and '.join(moved) or 'another law'}"


def _under(noise: str, law_path: str) -> str:
    """Noise and learned prior of a fit, in words."""
    prior = parted(law_path)[1]
    return f"noise {noise}" + (f" and prior {prior}" if prior else "")


def _abandoned(part: Path) -> bool:
    """Nobody writes this part any more: its process is gone, or it has been lying long."""
    try:
        *_, host, pid = part.name.removesuffix(".old.part").removesuffix(".part").rsplit(".", 2)
        old = time.time() - part.stat().st_mtime > ABANDONED
        return old or (host == HERE and not _runs(int(pid)))
    except (ValueError, OSError):
        return True  # an older version's, or just gone


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
