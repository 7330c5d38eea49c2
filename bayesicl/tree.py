"""A fit as plain labelled data: draws, study and settings in one DataTree."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesicl.curves import Study
from bayesicl.errors import InputError
from bayesicl.law import Law, load_law, parted

FORMAT = 2
DRAWS = ("posterior", "internals", "sample_stats", "log_likelihood", "log_prior")
DRAWS += ("posterior_predictive", "prior", "prior_predictive")  # groups that hold draws
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
    if not here and tree.attrs["law_path"] and not parted(own)[1] and not Path(own).exists():
        given = f" ({law} holds {moved.name!r})" if moved else ""
        raise InputError(
            f"law {tree.attrs['law']!r}: its file {own} is no longer there; say where it is with "
            f"--law PATH{given}"
        )
    found = moved if moved and here else load_law(own)
    if found.source_hash != tree.attrs["law_hash"]:
        user = tree.attrs["law_path"] and not parted(own)[1]
        own_file = ", or give the file as it was with --law" if user else ""
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
    return same_laws(tree.attrs)


def same_laws(attrs: Mapping[Any, Any]) -> str:
    """`law_label` from a fit's attributes."""
    return SAME.join([attrs["law"], *json.loads(attrs["same_as"])])


def remarks(attrs: Mapping[Any, Any], kind: str) -> list[str]:
    """What a fit found odd about its data, of one kind (see `errors.CurveWarning`)."""
    kinds = json.loads(attrs.get("warning_kinds", "[]"))  # none in files of before there were any
    texts = json.loads(attrs["warnings"])[: len(kinds)]
    return [text for text, own in zip(texts, kinds, strict=True) if own == kind]


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


def content_key(attrs: Mapping[str, Any]) -> str:
    """What a fit depends on, as one string: two fits with one key are the same fit."""
    names = ("data_hash", "fitted_hash", "law", "law_hash", "code_hash", "noise", "noise_hash",
             "backgrounds", "seed", "settings", "device")  # fmt: skip
    return hashlib.sha256(json.dumps([str(attrs.get(n, "")) for n in names]).encode()).hexdigest()


def thinned(tree: xr.DataTree, keep: int | None) -> xr.DataTree:
    """The fit with `keep` draws a chain, evenly spaced; None for all, 0 for none."""
    total = tree["posterior"].sizes["draw"]
    if keep is None or keep >= total:
        return tree
    chains = tree["posterior"].sizes["chain"]
    groups = {}
    for name, child in tree.children.items():
        data = child.to_dataset()
        if name in DRAWS and keep == 0:
            continue
        if name in DRAWS:  # the prior's draws are one chain
            n = min(keep * chains if name.startswith("prior") else keep, data.sizes["draw"])
            data = data.isel(draw=np.linspace(0, data.sizes["draw"] - 1, n).round().astype(int))
        groups[name] = data
    few = xr.DataTree.from_dict(groups)
    few.attrs = tree.attrs | {"draws_kept": str(keep)}
    return few
