"""Fits on disk: round trips, other readers, what is left out, what is left behind."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import h5netcdf
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesicl import InputError, Settings, load, netcdf, read_curves, save, summarise
from bayesicl.files import file_name, read_attributes, read_summary
from bayesicl.fit import attributes
from bayesicl.plan import plan
from bayesicl.store import HIERARCHY, Store, load_all, load_each
from bayesicl.summary import missed, record
from bayesicl.tree import DRAWS, content_key, study_dataset, study_of, thinned
from bayesicl.writing import HERE, in_one_step


def tasks():
    table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [1, 2, 3, 4], "total": 5})
    parts = [
        table.assign(task=f"t/{i}", model="größer", correct=[1, 2, 3, i + 2]) for i in range(3)
    ]
    return plan(read_curves(pd.concat(parts)), "power")


@pytest.fixture(scope="module")
def trees():
    """Fits as `fit` would return them, of draws that are made up."""
    rng, found = np.random.default_rng(0), []
    for task in tasks():
        cells = np.arange(4)

        def group(shape, dims, at=cells, **values):
            names = {n: (("chain", "draw", *dims), x) for n, x in values.items()}
            coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
            return xr.Dataset(names, coords | ({"cell": at} if "cell" in dims else {}))

        x, y = rng.normal(size=(4, 100)), rng.uniform(size=(4, 100, 4))
        short = group((4, 100), (), L=np.exp(x))
        prior = group((1, 50), (), L=np.exp(rng.normal(size=(1, 50))))
        ends = "chain", "draw", "hypothesis"
        posterior = short.assign(p_zero=(ends, y[..., :1])).assign_coords(hypothesis=["0"])
        prior = prior.assign(p_zero=(ends, y[:1, :50, :1])).assign_coords(hypothesis=["0"])
        stats = group((4, 100), (), diverging=x > 9, n_steps=np.full((4, 100), 7), energy=x)
        predictive = group((4, 100), ("cell",), y=y.astype("float32"))
        tree = xr.DataTree.from_dict(
            {
                "posterior": posterior,
                "sample_stats": stats,
                "log_likelihood": group((4, 100), ("cell",), y=-y),
                "log_prior": group((4, 100), (), L=-x),
                "posterior_predictive": predictive,
                "prior": prior,
                "prior_predictive": group((1, 50), ("cell",), y=y[:1, :50]),
                "observed_data": xr.Dataset({"y": ("cell", cells / 4)}, {"cell": cells}),
                "study": study_dataset(task.study),
            }
        )
        tree.attrs = attributes(task, Settings(draws=100), 0, "cpu") | {
            "draws_kept": "all", "law_parameters": '["L"]', "passed": 1, "warnings": "[]",
            "diagnostics": json.dumps({"failures": []}),
        }  # fmt: skip
        tree["summary"] = xr.DataTree(record(tree))
        found.append(tree)
    return found


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr", "fits.zarr/one"])
def test_round_trip(trees, tmp_path, name):
    path = tmp_path / "folder" / name
    for tree in (trees[1], trees[0]):  # the second over the first
        assert save(tree, path) == path
        top = path.relative_to(tmp_path / "folder").parts[0]
        assert os.listdir(tmp_path / "folder") == [top], "something is left behind"
        again = load(path)
        xr.testing.assert_identical(again, tree)
        assert dict(again.attrs) == dict(tree.attrs)
        assert dict(read_attributes(path)) == dict(tree.attrs)
        assert content_key(again.attrs) == content_key(tree.attrs)
    for mine, theirs in zip(again["posterior"].data_vars.values(), trees[0]["posterior"].values(),
                            strict=True):  # fmt: skip
        assert mine.dtype == theirs.dtype
    pd.testing.assert_frame_equal(read_summary(path), summarise(trees[0]).table)


def test_netcdf_is_what_xarray_and_h5netcdf_read(trees, tmp_path):
    path = save(trees[0], tmp_path / "fit.nc")
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        xr.testing.assert_identical(opened.load(), trees[0])
    with h5netcdf.File(path, "r") as file:
        y = file["posterior_predictive/y"]
        assert y.dimensions == ("chain", "draw", "cell")
        assert y.dtype == "float32"
        assert file["posterior_predictive"].dimensions["draw"].size == 100
        assert not file["posterior_predictive"].dimensions["draw"].isunlimited()


@pytest.mark.parametrize(
    "data",
    [
        xr.Dataset({"empty": ("n", np.array([])), "none": ((), "")}),
        xr.Dataset({"a": (("m", "n"), np.ones((2, 3), "int8"))}, {"n": ["", "ä", "long" * 99]}),
        xr.Dataset(attrs={"list": [1, 2], "text": "ü", "empty": "", "number": 1.5}),
        xr.Dataset({"n": ("n", [True, False])}),
    ],
)
def test_netcdf_of_odd_groups(data, tmp_path):
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "a": data, "a/b": data})
    netcdf.write(tree, tmp_path / "odd.nc")
    xr.testing.assert_identical(netcdf.read(tmp_path / "odd.nc"), tree)
    with xr.open_datatree(tmp_path / "odd.nc", engine="h5netcdf") as opened:
        xr.testing.assert_identical(opened.load(), tree)


@pytest.mark.parametrize("values", [np.array(["2020"], "datetime64[ns]"), np.array([{}])])
def test_what_netcdf_has_no_type_for_is_refused(values, trees, tmp_path):
    tree = trees[0].copy()
    tree["odd"] = xr.DataTree(xr.Dataset({"x": ("n", values)}))
    with pytest.raises(InputError, match=r"cannot be written: /odd/x: a variable of"):
        save(tree, tmp_path / "fit.nc")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_fits(trees, tmp_path):
    """Files and a hierarchy of them side by side, each named alone or by its folder."""
    names = {file_name(study_of(tree), tree.attrs["law"]) for tree in trees}
    assert len(names) == 3
    for ending, tree in zip(("nc", "zarr", "zarr"), trees, strict=True):
        store = Store(tmp_path, ending)
        path = store.place(study_of(tree), tree.attrs["law"])
        store.write(tree, path)
        xr.testing.assert_identical(load_all([path])[0], tree)
    (tmp_path / ".fit.1.part.nc").write_text("left by a run that was killed")
    (tmp_path / "summary.csv").touch()
    assert len(load_all([tmp_path])) == 3
    assert len(load_all([tmp_path / HIERARCHY])) == 2
    assert [tree.children.keys() & set(DRAWS) for tree in load_each([tmp_path], draws=False)] == [
        set(), set(), set(),
    ]  # fmt: skip
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no fits \(.nc or .zarr\) in this folder"):
        load_all([empty])


def test_zarr_is_one_hierarchy(trees, tmp_path):
    """Others open all fits at once, without a warning."""
    zarr = pytest.importorskip("zarr")
    store = Store(tmp_path, "zarr")
    store.prepare()
    paths = [store.place(study_of(tree), "power") for tree in trees]
    for tree, path in zip(trees, paths, strict=True):
        store.write(tree, path)
    with xr.open_datatree(tmp_path / HIERARCHY, engine="zarr", consolidated=False) as whole:
        assert set(whole.children) == {path.name for path in paths}
        for tree, path in zip(trees, paths, strict=True):
            xr.testing.assert_equal(whole[path.name].load(), tree)
    group = zarr.open_group(tmp_path / HIERARCHY, mode="r")
    assert group[f"{paths[0].name}/posterior/L"].shape == (4, 100)


# What a store keeps


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_fits_without_draws(ending, trees, tmp_path):
    store = Store(tmp_path, ending, keep=0)
    path = store.place(study_of(trees[0]), "power")
    store.write(trees[0], path)
    with pytest.raises(InputError, match=r"its draws were not kept.*fit again with"):
        load(path)
    tree = load(path, draws=False)
    whole = summarise(trees[0])
    pd.testing.assert_frame_equal(summarise(tree).table, whole.table)
    assert summarise(tree).text == whole.text
    pd.testing.assert_frame_equal(missed(tree), missed(trees[0]))
    with pytest.raises(InputError, match="intervals at 50 % need its draws"):
        summarise(tree, level=0.5)


def test_thinned_fits(trees):
    few = thinned(trees[0], 10)
    assert few["posterior"].sizes["draw"] == few["log_likelihood"].sizes["draw"] == 10
    assert few["posterior"]["draw"].to_numpy().tolist() == [*range(0, 99, 11), 99]
    assert few["prior"].sizes["draw"] == 40
    assert few.attrs["draws_kept"] == "10"
    assert thinned(trees[0], 100) is trees[0]
    xr.testing.assert_identical(few["summary"].to_dataset(), trees[0]["summary"].to_dataset())


def test_what_is_finished(trees, tmp_path):
    """By content and draws kept; never by reading draws."""
    task = tasks()[0]
    all_draws, some, none = (Store(tmp_path, "nc", keep) for keep in (None, 10, 0))
    path = all_draws.place(task.study, "power")
    attrs = attributes(task, Settings(draws=100), 0, "cpu")
    assert some.finished(path, attrs) is None
    some.write(trees[0], path)
    assert some.finished(path, attrs)["draws_kept"] == "10"
    assert none.finished(path, attrs) is not None
    with pytest.raises(InputError, match="fewer draws than are now asked for"):
        all_draws.finished(path, attrs)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="cut off, or not of this version"):
        some.finished(path, attrs)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"seed": 1}, "seed 0, now 1"),
        ({"settings": Settings(draws=200)}, "draws 100, now 200"),
        (
            {"seed": 1, "settings": Settings(draws=100, warmup=300)},
            "seed 0, now 1 and warmup 500, now 300",
        ),
        ({"backgrounds": 2}, "backgrounds 1, now 2"),
        ({"data_hash": "b"}, "other data"),
        ({"fitted_hash": "b"}, "other data"),
        ({"noise_hash": "b"}, "what a/mine.json held before it was changed"),
        ({"law_hash": "b"}, "what hill held before it was changed"),
        ({"noise_hash": "b", "law_hash": "b"}, "what a/mine.json held before it was changed"),
        (
            {"noise": "misfit@b/mine.json", "law_path": "hill@b/mine.json"},
            "noise misfit@a/mine.json and prior a/mine.json, now noise misfit@b/mine.json and "
            "prior b/mine.json",
        ),
        ({"code_hash": "b"}, "another version of bayesicl"),
    ],
    ids=str,
)
def test_why_a_fit_is_not_the_one_that_is_asked_for(now, why, trees, tmp_path):
    store, task = Store(tmp_path), tasks()[0]
    path = store.place(task.study, "power")
    attrs = attributes(task, Settings(draws=100), 0, "cpu")
    attrs |= {"noise": "misfit@a/mine.json", "law_path": "hill@a/mine.json"}
    tree = trees[0].copy()
    tree.attrs = trees[0].attrs | attrs
    save(tree, path)
    assert store.finished(path, attrs)
    now = {
        name: json.dumps(asdict(value), sort_keys=True) if name == "settings" else value
        for name, value in now.items()
    }
    with pytest.raises(InputError) as told:
        store.finished(path, attrs | now)
    assert str(told.value) == f"made with {why}"


def test_a_fit_of_before_noises_had_hashes(trees, tmp_path):
    store, task = Store(tmp_path), tasks()[0]
    path = store.place(task.study, "power")
    attrs = attributes(task, Settings(draws=100), 0, "cpu")
    tree = trees[0].copy()
    old = {**trees[0].attrs, **attrs}
    del old["noise_hash"]
    tree.attrs = old
    save(tree, path)
    with pytest.raises(InputError, match=r"^made with seed 0, now 1$"):
        store.finished(path, attrs | {"seed": 1})


def test_a_fit_whose_law_alone_has_a_prior_names_both(trees, tmp_path):
    """One hash is of law and prior, and nothing else tells which of them was changed."""
    store, task = Store(tmp_path), tasks()[0]
    path = store.place(task.study, "power")
    attrs = attributes(task, Settings(draws=100), 0, "cpu") | {"law_path": "hill@a/mine.json"}
    tree = trees[0].copy()
    tree.attrs = trees[0].attrs | attrs
    save(tree, path)
    with pytest.raises(InputError, match=r"what hill or a/mine\.json held before it was changed"):
        store.finished(path, attrs | {"law_hash": "b"})


def test_finding_out_is_quick(trees, tmp_path):
    """60,000 finished fits are found within minutes: 3 ms each, on a busy machine too."""
    store, attrs = Store(tmp_path), trees[0].attrs
    paths = [tmp_path / f"{i}.nc" for i in range(20)]
    for path in paths:
        save(trees[0], path)
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        assert all(store.finished(path, attrs) for path in paths)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.003 * len(paths)


def test_a_fit_under_another_noise_or_prior_is_not_lost(trees, tmp_path):
    store, task = Store(tmp_path), tasks()[0]
    noise, other = task.noise, replace(task.noise, name="misfit")
    one, two = (
        replace(task.law, path=f"power@{folder}/mine.json", source_hash=folder) for folder in "ab"
    )
    path = store.place(task.study, "power")
    store.spare(task.study, one, other)  # nothing is there
    path.write_bytes(b"cut off")
    store.spare(task.study, one, other)
    tree = trees[0].copy()
    tree.attrs = trees[0].attrs | {"law_path": one.path, "law_hash": one.source_hash}
    save(tree, path)
    store.spare(task.study, one, noise)
    with pytest.raises(InputError, match=r"prior a/mine.json, not noise .*; choose another --out"):
        store.spare(task.study, two, noise)
    store.spare(task.study, replace(two, source_hash="a"), noise)  # the same prior has moved
    with pytest.raises(InputError, match=r"not noise misfit and prior a/mine.json; choose"):
        store.spare(task.study, one, other)
    tree.attrs["data_hash"] = "other data"
    save(tree, path)
    store.spare(task.study, two, other)


def test_parts_of_killed_runs_are_removed(tmp_path):
    """Those of processes that are gone and of other machines' past; not those being written."""
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True).stdout.strip()  # fmt: skip
    parts = {
        name: tmp_path / f".{name}.nc.{host}.{pid}.part"
        for name, host, pid in (
            ("dead", HERE, gone), ("mine", HERE, os.getpid()), ("new", "elsewhere", 1),
            ("old", "elsewhere", 1),
        )
    }  # fmt: skip
    for part in parts.values():
        part.touch()
    os.utime(parts["old"], (0, 0))
    folder = tmp_path / f".group.{HERE}.{gone}.part"
    (folder / "posterior").mkdir(parents=True)
    Store(tmp_path).prepare()
    assert set(tmp_path.iterdir()) == {parts["mine"], parts["new"]}


# What goes wrong


def test_in_one_step(tmp_path):
    path = tmp_path / "new" / "a.txt"

    def write(text, *, fail=False):
        with in_one_step(path) as part:
            part.write_text(text)
            assert part.parent == path.parent
            assert not fail, "broke down"

    write("first")
    with pytest.raises(AssertionError, match="broke down"):
        write("second", fail=True)
    assert path.read_text() == "first"
    write("third")
    assert path.read_text() == "third"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fit.nc", "fit.zarr", "fits.zarr/fit"])
def test_a_place_below_a_file(name, trees, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save(trees[0], tmp_path / "file" / name)


def test_a_save_that_fails_leaves_the_old_file(trees, tmp_path, monkeypatch):
    path = save(trees[0], tmp_path / "fit.nc")

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(netcdf, "write", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left"):
        save(trees[1], path)
    assert load(path)["study"].attrs == trees[0]["study"].attrs


def test_a_save_that_is_cut_off_leaves_no_part(trees, tmp_path, monkeypatch):
    whole = netcdf.write

    def half(tree, path):
        whole(tree, path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(netcdf, "write", half)
    with pytest.raises(InputError, match="cannot be written"):
        save(trees[0], tmp_path / "fit.nc")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_fits(trees, tmp_path):
    cut = save(trees[0], tmp_path / "cut.nc")
    cut.write_bytes(cut.read_bytes()[:5000])
    text = tmp_path / "text.nc"
    text.write_text("shots,prob\n0,0.5\n")
    foreign = tmp_path / "foreign.nc"
    xr.Dataset({"x": ("n", [1.0, 2.0])}).to_netcdf(foreign, engine="h5netcdf")
    folder = tmp_path / "empty.zarr"
    folder.mkdir()
    for path, message in [
        (cut, "not a netCDF or zarr file that can be read"),
        (text, "not a netCDF or zarr file that can be read"),
        (foreign, "not written by bayesicl fit"),
        (folder, "empty.zarr: not "),
        (tmp_path / "none.nc", "no such file"),
    ]:
        with pytest.raises(InputError, match=message):
            load(path)
    with pytest.raises(InputError, match=r"saved as \.nc"):
        save(trees[0], tmp_path / "fit.json")


def test_laws_of_ones_own_are_sent_by_file(tmp_path):
    """A task goes to another process without the law's code, and comes back the same."""
    import pickle

    import simulate

    file = tmp_path / "straight.py"
    file.write_text(simulate.STRAIGHT)
    study = tasks()[0].study
    [task] = plan([study], file)
    again = pickle.loads(sent := pickle.dumps(task))
    assert again.law.source_hash == task.law.source_hash
    assert again.study.hash == study.hash
    file.write_text(simulate.STRAIGHT + "# changed\n")
    with pytest.raises(InputError, match="not the same for all processes"):
        pickle.loads(sent)
    assert replace(task, backgrounds=2).backgrounds == 2
