"""A fit as plain labelled data: draws, study and settings in one DataTree, and files of them."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.curves import Study
from bayesicl.errors import InputError
from bayesicl.law import Law, load_law

FORMAT = 1
SAME = " = "  # between laws that are one function for a study
_STUDY_COLUMNS = ("hypothesis", "shots", "y", "replicates", "total", "se", "error", "chance")
_ROW_COLUMNS = ("cell", "replicate", "y", "total")


def study_dataset(study: Study) -> xr.Dataset:
    """All that was measured, held-out cells included, so that a file needs no table beside it."""
    cells = {name: ("cell", study.cells[name].to_numpy()) for name in (*_STUDY_COLUMNS, "fitted")}
    rows = {f"row_{name}": ("row", study.rows[name].to_numpy()) for name in _ROW_COLUMNS}
    data = xr.Dataset(cells | rows, coords={"cell": np.arange(len(study.cells))})
    data["fitted"] = data["fitted"].astype("int8")
    return data.assign_attrs(
        key=json.dumps(study.key),
        hypotheses=json.dumps(study.hypotheses),
        kind=study.kind,
        outcome=study.outcome,
        items=study.items or "",
        covariates=json.dumps(study.covariates),
    )


def study_of(tree: xr.DataTree) -> Study:
    """The study that a fit was made of."""
    data = tree["study"].to_dataset()
    cells = pd.DataFrame({name: data[name].to_numpy() for name in (*_STUDY_COLUMNS, "fitted")})
    return Study(
        key=json.loads(data.attrs["key"]),
        hypotheses=tuple(json.loads(data.attrs["hypotheses"])),
        kind=data.attrs["kind"],
        outcome=data.attrs["outcome"],
        items=data.attrs["items"] or None,
        cells=cells.assign(fitted=cells["fitted"].astype(bool)),
        rows=pd.DataFrame({name: data[f"row_{name}"].to_numpy() for name in _ROW_COLUMNS}),
        covariates=json.loads(data.attrs["covariates"]),
    )


def law_of(tree: xr.DataTree, law: str | Path | Law | None = None) -> Law:
    """The law that a fit was made with, from its name or its file.

    law: where to find a user's law that has moved; of no account for other laws. Raises InputError
    where the law's file has changed since the fit: its draws belong to the old one.
    """
    own = tree.attrs["law_path"] or tree.attrs["law"]
    moved = load_law(law) if law and tree.attrs["law_path"] else None
    here = moved is not None and moved.name == tree.attrs["law"]
    if not here and tree.attrs["law_path"] and not Path(own).exists():
        given = f" ({law} holds {moved.name!r})" if moved else ""
        raise InputError(
            f"law {tree.attrs['law']!r}: its file {own} is no longer there; say where it is with "
            f"--law PATH{given}"
        )
    found = moved if moved and here else load_law(own)
    if found.source_hash != tree.attrs["law_hash"]:
        own_file = ", or give the file as it was with --law" if tree.attrs["law_path"] else ""
        raise InputError(
            f"law {tree.attrs['law']!r} has changed since this fit was made ({found.path}); "
            f"fit again{own_file}"
        )
    return found


def believed(hypotheses: Sequence[str], backgrounds: int) -> list[str]:
    """Labels of what may be believed: the observed hypotheses, then the backgrounds."""
    extra = ["background"] if backgrounds == 1 else [f"background {i}" for i in range(backgrounds)]
    return [*hypotheses, *extra[:backgrounds]]


def label(tree: xr.DataTree) -> str:
    """The study of a fit, for people."""
    parts = json.loads(tree["study"].attrs["key"]).values()
    return " | ".join(part for part in parts if part) or "study"


def law_label(tree: xr.DataTree) -> str:
    """The law of a fit, for people; laws that are one and the same here are named together."""
    same = json.loads(tree.attrs["same_as"])
    return SAME.join([tree.attrs["law"], *same])


def owners(fits: Iterable[tuple[str, str]]) -> dict[str, set[tuple[str, str]]]:
    """The laws of a table and the fits of each, from the studies and law labels of fits.

    Where one study has several hypotheses and another has one, the fit that stands for three laws
    in the second belongs to each of them; laws with the same fits are one.

    >>> list(owners([("a", "scoring"), ("b", "scoring = general"), ("b", "power")]))
    ['scoring', 'power']
    """
    owned: dict[str, set[tuple[str, str]]] = {}
    for study, laws in fits:
        for law in laws.split(SAME):
            owned.setdefault(law, set()).add((study, laws))
    # Nobody asked for a law whose fits all belong to another that has more.
    owned = {law: own for law, own in owned.items() if not any(own < o for o in owned.values())}
    joined: dict[frozenset[tuple[str, str]], list[str]] = {}
    for law, own in owned.items():
        joined.setdefault(frozenset(own), []).append(law)
    return {SAME.join(laws): set(own) for own, laws in joined.items()}


# -- files ----------------------------------------------------------------------------------------


def file_name(study: Study, law: str) -> str:
    """A readable name that is unique to this study, split and law, without its ending."""
    text = "_".join(part for part in (*study.key.values(), law) if part)
    slug = "".join(c if c.isalnum() or c in "-._=" else "-" for c in text)[:120].strip("-.")
    split = study.fraction < 1  # may stand beside the same study fitted whole
    slug += f"_first-{100 * study.fraction:.0f}%" if split else ""
    fitted = study.cells["fitted"].to_numpy().tolist() if split else []
    key = json.dumps([study.key, study.hypotheses, law, fitted])
    return f"{slug}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a fit to `path`, netCDF (.nc) or zarr (.zarr), in one step: all of it or nothing."""
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise InputError(f"{path}: a fit is saved as .nc (netCDF) or .zarr")
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".nc":
            tree.to_netcdf(part, engine="h5netcdf", encoding=_compressed(tree))
            os.replace(part, path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zarr 3 has no settled form for text yet
                tree.to_zarr(part, consolidated=False)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    except ImportError as error:
        raise InputError(f"{path}: zarr is not installed; pip install 'bayesicl[zarr]'") from error
    finally:
        part.unlink(missing_ok=True) if part.is_file() else shutil.rmtree(part, ignore_errors=True)
    return path


def _compressed(tree: xr.DataTree) -> dict[str, dict[str, dict[str, Any]]]:
    settings = {"zlib": True, "complevel": 1, "shuffle": True}
    return {
        node.path: {
            str(name): settings for name, x in node.data_vars.items() if x.dtype.kind in "fi"
        }
        for node in tree.subtree
        if node.data_vars
    }


def load(path: str | Path) -> xr.DataTree:
    """Read a saved fit into memory; raises InputError where the file is not one."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path, or make fits with bayesicl fit")
    if path.suffix not in (".nc", ".zarr"):
        raise InputError(f"{path}: is no saved fit (.nc or .zarr); if it is a table, fit it first")
    try:
        if path.suffix == ".zarr":
            opened = xr.open_datatree(path, engine="zarr", consolidated=False)
        else:
            opened = xr.open_datatree(path, engine="h5netcdf")
        with opened:
            tree = opened.load()
    except Exception as error:
        raise InputError(
            f"{path}: not a netCDF or zarr file that can be read ({type(error).__name__}); "
            "if it was cut off, fit again"
        ) from error
    if tree.attrs.get("bayesicl_format") != FORMAT or "posterior" not in tree.children:
        raise InputError(f"{path}: not written by bayesicl fit, or by another version of it")
    return tree


def load_all(paths: Iterable[str | Path]) -> list[xr.DataTree]:
    """Read every fit named, and every fit in the folders named."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir() and path.suffix != ".zarr":
            found = sorted(p for p in path.iterdir() if _is_fit(p))
            if not found:
                raise InputError(f"{path}: no fits (.nc or .zarr) in this folder")
            files += found
        else:
            files.append(path)
    return [load(path) for path in files]


def _is_fit(path: Path) -> bool:
    return path.suffix in (".nc", ".zarr") and not path.name.startswith(".")


def content_key(attrs: Mapping[str, Any]) -> str:
    """What a fit depends on, as one string: two fits with one key are the same fit."""
    names = ("data_hash", "fitted_hash", "law", "law_hash", "code_hash", "noise", "backgrounds",
             "seed", "settings", "device")  # fmt: skip
    return hashlib.sha256(json.dumps([str(attrs[n]) for n in names]).encode()).hexdigest()
