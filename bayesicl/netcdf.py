"""DataTrees as netCDF-4 files, written straight through HDF5.

xarray's own writer takes 3 ms for every variable, whatever its size, and a fit has eighty of them.
What is written here is what the netCDF-4 format asks of an HDF5 file: a dimension is a dimension
scale, a variable lists its scales, a group is a group ("NetCDF-4 file format", Unidata). xarray,
h5netcdf and the netCDF library read it. Floats are not compressed: the digits of draws are noise.
"""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

_NO_VALUES = "This is a netCDF dimension but not a netCDF variable. {:10d}"
_TEXT = h5py.string_dtype()
_REFERENCES = h5py.vlen_dtype(h5py.ref_dtype)
_BACK = np.dtype([("dataset", h5py.ref_dtype), ("dimension", np.int32)])


def write(tree: xr.DataTree, path: Path) -> None:
    """Write every group of `tree` to a new file; its numbers, truth values, texts and attributes.

    Raises TypeError where a variable is of another type (times, objects), OSError as files do.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.nc")
    >>> write(xr.DataTree.from_dict({"a": xr.Dataset({"x": ("n", [1.0, 2.0])})}), path)
    >>> xr.open_datatree(path, engine="h5netcdf")["a"]["x"].to_numpy()
    array([1., 2.])
    """
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        dimensions = 0
        for node in tree.subtree:
            group = file.require_group(node.path)
            _set(group, node.attrs)
            data = node.to_dataset(inherit=False)
            if odd := [name for name in data.coords if name not in data.dims]:
                raise TypeError(f"coordinates that are no dimensions: {odd}")
            dimensions = _write_group(group, data, dimensions)


def _write_group(group: h5py.Group, data: xr.Dataset, dimensions: int) -> int:
    """Write scales, then the variables along them; returns how many dimensions the file has now."""
    scales: dict[Hashable, h5py.Dataset] = {}
    for name, size in data.sizes.items():
        if name in data.coords:
            scale, word = _write_values(group, str(name), data[name].variable), str(name)
        else:
            scale, word = group.create_dataset(str(name), (size,), ">f4"), _NO_VALUES.format(size)
        _text(scale, "CLASS", "DIMENSION_SCALE")
        _text(scale, "NAME", word)
        scale.attrs.create("_Netcdf4Dimid", dimensions, dtype=np.int32)
        scales[name], dimensions = scale, dimensions + 1
    back: dict[Hashable, list[tuple[h5py.Reference, int]]] = {name: [] for name in scales}
    references = {name: np.array([scale.ref], h5py.ref_dtype) for name, scale in scales.items()}
    for name, x in data.data_vars.items():
        dataset = _write_values(group, str(name), x.variable)
        if x.dims:
            listed = np.empty(len(x.dims), object)
            for axis, dim in enumerate(x.dims):
                listed[axis] = references[dim]
                back[dim].append((dataset.ref, axis))
            dataset.attrs.create("DIMENSION_LIST", listed, dtype=_REFERENCES)
    for name, uses in back.items():
        if uses:
            scales[name].attrs.create("REFERENCE_LIST", np.array(uses, _BACK), dtype=_BACK)
    return dimensions


def _write_values(group: h5py.Group, name: str, x: xr.Variable) -> h5py.Dataset:
    values, attrs = np.asarray(x.values), dict(x.attrs)
    if values.dtype.kind == "b":  # as xarray writes and reads truth values
        values, attrs["dtype"] = values.astype("i1"), "bool"
    elif values.dtype.kind in "OUT":
        if not all(isinstance(value, str) for value in values.flat):
            raise TypeError(f"{group.name}/{name}: a variable of mixed types")
        values = values.astype(object)
    elif values.dtype.kind not in "iuf":
        raise TypeError(f"{group.name}/{name}: a variable of type {values.dtype}")
    dtype = _TEXT if values.dtype.kind == "O" else values.dtype
    dataset = group.create_dataset(name, data=values, dtype=dtype)
    _set(dataset, attrs)
    return dataset


def _set(place: h5py.Group | h5py.Dataset, attrs: Mapping[Any, Any]) -> None:
    for name, value in attrs.items():
        place.attrs[str(name)] = value


def _text(scale: h5py.Dataset, name: str, text: str) -> None:
    scale.attrs.create(name, np.bytes_(text))  # of fixed length: the format asks for it


def read(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> xr.DataTree:
    """Read what `write` wrote, into memory: the root, and the groups whose names are wanted.

    Raises OSError where the file is not one of HDF5, KeyError where it was not written so.
    """
    with h5py.File(path, "r") as file:
        found = {"/": _read_group(file)}
        for name, child in file.items():
            if isinstance(child, h5py.Group) and wanted(name):
                found |= _read_groups(child)
    return xr.DataTree.from_dict(found)


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of the root, without a look at anything else; raises OSError as `read`."""
    with h5py.File(path, "r") as file:
        return dict(file.attrs)


def read_value(path: Path, name: str) -> Any:
    """The values of one variable, GROUP/NAME, without a look at anything else."""
    with h5py.File(path, "r") as file:
        return _values(file[name])  # pyright: ignore[reportArgumentType]


def _values(x: h5py.Dataset) -> Any:
    return x.asstr()[()] if h5py.check_string_dtype(x.dtype) else x[()]


def _read_groups(group: h5py.Group) -> dict[str, xr.Dataset]:
    found = {str(group.name): _read_group(group)}
    for child in group.values():
        if isinstance(child, h5py.Group):
            found |= _read_groups(child)
    return found


def _read_group(group: h5py.Group) -> xr.Dataset:
    held = {name: x for name, x in group.items() if isinstance(x, h5py.Dataset)}
    # One place in a file has many references, which tell nothing; its address does.
    names = {h5o.get_info(x.id).addr: name for name, x in held.items()}
    variables = {
        name: _read_values(name, x, names)
        for name, x in held.items()
        if not bytes(x.attrs.get("NAME", b"")).startswith(_NO_VALUES[:40].encode())
    }
    coords = {name: x for name, x in variables.items() if x.dims == (name,)}
    rest = {name: x for name, x in variables.items() if name not in coords}
    return xr.Dataset(rest, coords, dict(group.attrs))


def _read_values(name: str, x: h5py.Dataset, names: Mapping[int, str]) -> xr.Variable:
    attrs = {key: value for key, value in x.attrs.items() if key not in _OF_FORMAT}
    if "CLASS" in x.attrs:  # a dimension's own values
        dims = [name]
    else:
        lists: Any = x.attrs["DIMENSION_LIST"] if x.ndim else []
        dims = [names[h5o.get_info(x.file[of[0]].id).addr] for of in lists]
    values = _values(x)
    if attrs.pop("dtype", "") == "bool":
        values = values.astype(bool)
    return xr.Variable(dims, values, attrs)


_OF_FORMAT = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid"}
