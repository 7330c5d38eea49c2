"""Programs on disk: found again, made again when anything differs, never half there."""

import ast
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesicl
from bayesicl.cache import Programs, _tidy, folder
from bayesicl.code import SHARED
from bayesicl.device import precision
from bayesicl.engine import Engine
from bayesicl.lanes import Point
from bayesicl.law import laws, load_law
from bayesicl.noises import NOISES
from bayesicl.program import arrays
from bayesicl.settings import Settings
from bayesicl.simulate import Layout


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESICL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def double(point, numbers):
    return Point(2 * point.q, jnp.sum(point.q), numbers["a"])


def run(identity="here", size=3):
    """The result of a compiled function, and what had to be compiled."""
    compiled = []
    args = (Point(jnp.arange(float(size)), jnp.asarray(1.0), None), {"a": jnp.asarray(3)})
    program = Programs(identity).compiled("double", double, *args, on_compile=compiled.append)
    return program(*args), compiled


def test_found_again(place):
    (first, compiled), (again, nothing) = run(), run()
    assert (compiled, nothing) == (["double"], [])
    assert isinstance(again, Point)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(again.q, [0, 2, 4])
    assert len(list(place.glob("*.program"))) == 1
    assert not list(place.glob("*.part"))


def test_made_again_for_another_identity_or_shape():
    run()
    assert run("there")[1] == ["double"]
    assert run(size=4)[1] == ["double"]
    with precision("cpu"):
        assert run()[1] == ["double"], "float64 is another program"
    assert run()[1] == []


@pytest.mark.parametrize("damage", ["cut off", "empty", "another thing"])
def test_damaged_files_are_made_again(place, damage):
    (first, _) = run()
    [path] = place.glob("*.program")
    content = path.read_bytes()
    path.write_bytes({"cut off": content[:-50], "empty": b"", "another thing": b"hello"}[damage])
    again, compiled = run()
    assert compiled == ["double"]
    np.testing.assert_array_equal(first.q, again.q)
    assert run()[1] == []


def test_without_identity_found_by_what_is_computed(monkeypatch):
    assert run(None)[1] == ["double"]
    assert run(None)[1] == []
    monkeypatch.setitem(globals(), "double", lambda point, numbers: (3 * point.q, numbers["a"]))
    (tripled, _), compiled = run(None)
    assert compiled == ["double"]
    np.testing.assert_array_equal(tripled, [0, 3, 6])


def test_unused_arguments_are_told_apart():
    for function in (lambda a, b: 2 * a, lambda a, b: 2 * b):
        args = jnp.asarray(1.0), jnp.asarray(2.0)
        program = Programs(None).compiled("f", function, *args, on_compile=lambda what: None)
        assert program(*args) == function(*args)


def test_none_where_jax_keeps_what_it_compiles(place, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
        assert folder() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert folder() == place


def test_turned_off(monkeypatch):
    monkeypatch.setenv("BAYESICL_CACHE", "off")
    assert folder() is None
    assert run()[1] == run()[1] == ["double"]


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BAYESICL_CACHE", str(tmp_path / "file" / "below"))
    assert folder() is None
    assert run()[1] == ["double"]


def test_facts_are_plain_data():
    calls = []

    def compute():
        calls.append(1)
        return {"shapes": (3, 2)}

    for _ in range(2):
        assert Programs("here").fact("outline", compute, jnp.zeros(3)) == {"shapes": (3, 2)}
    assert calls == [1]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("bayesicl.cache.IN_MEMORY", 2)
    programs = Programs(None)
    for n in (1, 2, 3):
        programs.fact("f", lambda n=n: n, jnp.zeros(n))
    assert len(programs._held) == 2
    assert programs.fact("f", lambda: "again", jnp.zeros(1)) == "again"


def test_the_oldest_go_first(place, monkeypatch):
    monkeypatch.setattr("bayesicl.cache.MOST_BYTES", 250)
    place.mkdir()
    for i in range(4):
        (place / f"{i}.program").write_bytes(bytes(100))
        os.utime(place / f"{i}.program", (time.time() - 100 + i,) * 2)
    (place / "old.part").touch()
    os.utime(place / "old.part", (0, 0))
    (place / "new.part").touch()
    _tidy(place)
    assert sorted(p.name for p in place.iterdir()) == ["2.program", "3.program", "new.part"]


def test_users_laws_and_noises_have_no_identity(tmp_path):
    """They may import anything, of which no key knows."""
    noise = NOISES["given-se"]
    assert Engine(load_law("power"), noise, Settings())._identity()
    assert (
        Engine(load_law("power"), replace(noise, summary="another"), Settings())._identity() is None
    )
    own, text = tmp_path / "own.py", Path(load_law("power").path).read_text()
    own.write_text(text.replace('"power"', '"own"'))
    assert Engine(load_law(own), noise, Settings())._identity() is None


def test_engines_share_what_is_the_same_alone():
    """What is built into a program, but is no argument of it, tells programs apart."""
    study = Layout("given se").curves().studies[0]
    design, data = arrays(study)
    for chains, depth in ((2, 3), (3, 3), (3, 2)):
        settings = Settings(chains=chains, warmup=50, draws=50, max_tree_depth=depth)
        with precision("cpu"):
            engine = Engine(load_law("power"), NOISES["given-se"], settings)
            found = engine.run(jax.random.key(0), design, data)
        assert found.stats["n_steps"].shape == (chains, 50)
        assert found.stats["tree_depth"].max() <= depth


def test_nothing_is_serialised_in_vain(monkeypatch):
    monkeypatch.setenv("BAYESICL_CACHE", "off")
    monkeypatch.setattr("bayesicl.cache.serialize_executable", None)
    assert run()[1] == ["double"]


CODE = """
import jax.numpy as jnp
from bayesicl.cache import Programs
said = []
x = jnp.arange(5.0)
run = Programs("both").compiled("f", lambda x: (x * 2, x.sum()), x, on_compile=said.append)
print(len(said), float(run(x)[1]))
"""


def test_two_processes_share_a_folder(place):
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True
    )
    both = [start(), start()]
    assert all(process.communicate()[0].endswith(" 10.0\n") for process in both)
    later = start().communicate()[0]
    assert later == "0 10.0\n", "what either compiled is found"
    assert len(list(place.glob("*.program"))) == 1


def _imports(path):
    """Modules of bayesicl that a file imports, by name."""
    own = {file.stem for file in Path(bayesicl.__file__).parent.glob("*.py")}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bayesicl":
            names = [node.module.rpartition(".")[2], *(alias.name for alias in node.names)]
            found |= own & set(names)
    return found


def test_code_hash_is_of_all_that_fits_are_made_by():
    """But for how data come in and how results are told and written."""
    package, seen, waiting = Path(bayesicl.__file__).parent, set(), {"fit", "engine", "retry"}
    for law in laws().values():
        waiting |= _imports(Path(law.path))
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= _imports(package / f"{name}.py") - seen
    data = {"curves", "checks", "alike", "prior_file", "parse", "table", "study"}
    results = {"fit", "plan", "tree", "writing", "fall"}
    assert seen - data - results - {"errors", "code", "cache"} == set(SHARED)
