"""One fit on disk: a netCDF file, or a group of a zarr hierarchy.

A fit is written beside its place and then moved there, so that whoever is killed leaves the old
fit, the new one, or none. What tells whether a fit is finished, and how it went, can be read
without its draws.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayesicl import netcdf
from bayesicl.curves import Study
from bayesicl.errors import InputError
from bayesicl.tree import DRAWS, FORMAT
from bayesicl.writing import in_one_step, part_of, spelled

NO_ZARR = "zarr is not installed; pip install 'bayesicl[zarr]'"
ENDINGS = ("nc", "zarr")


def file_name(study: Study, law: str) -> str:
    """A readable name that is unique to this study, split and law, without its ending."""
    text = "_".join(part for part in (*study.key.values(), law) if part)
    slug = spelled(text)[:120].strip("-.")
    split = study.fraction < 1  # may stand beside the same study fitted whole
    slug += f"_first-{100 * study.fraction:.0f}pct" if split else ""
    fitted = study.cells["fitted"].to_numpy().tolist() if split else []
    key = json.dumps([study.key, study.hypotheses, law, fitted])
    return f"{slug}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a fit to `path` in one step: all of it or nothing.

    path: netCDF (.nc), zarr (.zarr), or a group of a zarr hierarchy (FOLDER.zarr/NAME). Raises
    InputError where it cannot be written.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> from bayesicl import fit, load, read_curves, save, Settings
        >>> table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 5, 7, 8], "total": 10})
        >>> short = Settings(warmup=100, draws=100)
        >>> [tree] = fit(read_curves(table), "power", settings=short)
        >>> load(save(tree, tempfile.mkdtemp() + "/fit.nc")).attrs["law"]
        'power'
    """
    path = Path(path)
    zarr = in_zarr(path)
    if not zarr and path.suffix != ".nc":
        raise InputError(f"{path}: a fit is saved as .nc (netCDF) or .zarr")
    try:
        if zarr:
            _save_zarr(tree, path)
        else:
            with in_one_step(path) as part:
                netcdf.write(tree, part)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    except TypeError as error:
        raise InputError(f"{path}: cannot be written: {error}") from error
    return path


def _save_zarr(tree: xr.DataTree, path: Path) -> None:
    check_ending("zarr")
    place = path.parent.parent if path.parent.suffix == ".zarr" else path.parent
    part = part_of(place / path.name)
    place.mkdir(parents=True, exist_ok=True)
    try:
        open_hierarchy(path.parent)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr 3 has no settled form for text yet
            tree.to_zarr(part, consolidated=False)
        _replace_folder(part, path)
    finally:
        remove(part)


def check_ending(ending: str) -> None:
    """Raise InputError where fits cannot be saved so here."""
    if ending not in ENDINGS:
        raise InputError(f"--format must be {' or '.join(ENDINGS)}, got {ending!r}")
    if ending == "zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise InputError(NO_ZARR) from error


def open_hierarchy(folder: Path) -> None:
    """Make the folder that holds a zarr hierarchy's groups, if it is to be one."""
    import zarr

    if folder.suffix == ".zarr" and not (folder / "zarr.json").exists():
        zarr.open_group(folder, mode="a", zarr_format=3)


def _replace_folder(part: Path, path: Path) -> None:
    """Move a folder to its place; an old one there is first moved out of the way."""
    old = part.with_name(f"{part.name}.old.part")
    while True:
        try:
            os.replace(part, path)
            break
        except OSError:
            if not path.is_dir():
                raise
            os.replace(path, old)
    remove(old)


def remove(part: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def load(path: str | Path, *, draws: bool = True) -> xr.DataTree:
    """Read a saved fit into memory; raises InputError where the file is not one.

    draws: whether they are needed: InputError where they were not kept. Without them only the
    attributes, the study and what the summary says are read.
    """
    path = Path(path)
    _check_place(path)
    wanted = (lambda name: True) if draws else (lambda name: name not in DRAWS)
    try:
        tree = _read_zarr(path, wanted) if in_zarr(path) else netcdf.read(path, wanted)
    except ImportError as error:
        raise InputError(NO_ZARR) from error
    except Exception as error:
        raise InputError(_unreadable(path, error)) from error
    if tree.attrs.get("bayesicl_format") != FORMAT or "study" not in tree.children:
        raise InputError(f"{path}: not written by bayesicl fit, or by another version of it")
    if draws and "posterior" not in tree.children:
        raise InputError(
            f"{path}: its draws were not kept (--keep-draws none), and this needs them; fit again "
            "with --keep-draws all"
        )
    return tree


def _read_zarr(path: Path, wanted: Callable[[str], bool]) -> xr.DataTree:
    groups = {p.name for p in path.iterdir() if p.is_dir()}
    datasets = {}
    for name in ("", *sorted(filter(wanted, groups))):
        with xr.open_zarr(path, group=name, consolidated=False) as opened:
            datasets[f"/{name}"] = opened.load()
    return xr.DataTree.from_dict(datasets)


def read_attributes(path: Path) -> dict[str, Any]:
    """How a fit was made and how it went, without its draws; InputError as `load`."""
    _check_place(path)
    try:
        if in_zarr(path):
            attrs = json.loads((path / "zarr.json").read_text())["attributes"]
        else:
            attrs = netcdf.read_attributes(path)
    except Exception as error:
        raise InputError(_unreadable(path, error)) from error
    if attrs.get("bayesicl_format") != FORMAT:
        raise InputError(f"{path}: not written by bayesicl fit, or by another version of it")
    return attrs


def read_summary(path: Path) -> pd.DataFrame:
    """The table that a fit was summed up in, without its draws; InputError as `load`."""
    _check_place(path)
    try:
        if in_zarr(path):
            with xr.open_zarr(path, group="summary", consolidated=False) as opened:
                text = opened["table"].item()
        else:
            text = netcdf.read_value(path, "summary/table")
        return pd.DataFrame(json.loads(text))
    except Exception as error:
        raise InputError(_unreadable(path, error)) from error


def _check_place(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path, or make fits with bayesicl fit")
    if not in_zarr(path) and path.suffix != ".nc":
        raise InputError(f"{path}: is no saved fit (.nc or .zarr); if it is a table, fit it first")


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path}: not a netCDF or zarr file that can be read ({type(error).__name__}); "
        "if it was cut off, fit again"
    )


def in_zarr(path: Path) -> bool:
    """This is a zarr store, or a group of one."""
    return ".zarr" in (path.suffix, path.parent.suffix)
