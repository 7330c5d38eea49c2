"""Programs kept on disk: what was compiled once is neither traced nor compiled again.

JAX's own cache would spare a new process the compiling; this one also the tracing of NumPyro's
programs, which takes as long as a fit. A program is found again by all that it depends on: the code
and the law that made it, the shapes of its arguments, the versions of libraries, and the machine's
instructions; a program of a user's law, which may import anything, by what it was traced to.
Processes may share a folder: files appear whole or not at all.
"""

import hashlib
import os
import pickle
import platform
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import jax
from jax.experimental import serialize_executable

from bayesicl.device import compile_fast
from bayesicl.writing import in_one_step

IN_MEMORY = 32  # programs that an engine holds at once
_TRACING = Lock()  # NumPyro's handlers are one stack for all threads and engines
MOST_BYTES = 2e9  # of the folder; the programs that were used longest ago go first


def folder() -> Path | None:
    """The user's cache folder, or None where there is none to write to.

    BAYESICL_CACHE names another, or turns it off with "off". Where JAX keeps what it compiles there
    is none either: a program that came out of JAX's cache cannot be kept a second time.
    """
    named = os.environ.get("BAYESICL_CACHE")
    if named == "off" or jax.config.jax_compilation_cache_dir:  # pyright: ignore
        return None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        place = Path(named) if named else Path(home, "bayesicl")
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return place if os.access(place, os.W_OK) else None


def signature(arguments: Any) -> tuple:
    """Structure, shapes and types of arguments, for which one compilation does."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((jax.numpy.shape(x), jax.numpy.result_type(x)) for x in leaves)


class Programs:
    """Compiled functions of arrays, in memory and on disk.

    identity: all that the functions depend on besides their arguments. None where that is not
    known: functions are then traced, and found again by what they compute.
    """

    def __init__(self, identity: str | None):
        """Nothing is loaded before it is asked for."""
        self.identity = identity
        self._held: OrderedDict[Any, Any] = OrderedDict()

    def compiled(
        self, name: str, function: Callable, *args, on_compile: Callable[[str], None]
    ) -> Callable:
        """`function`, compiled for the shapes of these arguments."""

        def build():
            lowered, skeleton = _lower(function, args)
            path = None if self.identity else _path("computed", lowered.as_text(), str(skeleton))
            if (found := _read(path, _Program.load)) is None:
                on_compile(name)
                found = _Program(compile_fast(lowered), skeleton)
                _write(path, found.dump)
            return found

        return self._get((name, signature(args)), build, _Program.dump, _Program.load)

    def fact(self, name: str, compute: Callable[[], Any], *args) -> Any:
        """What `compute` finds of arguments of these shapes: plain Python data."""
        return self._get((name, signature(args)), compute, lambda x: x, lambda x: x)

    def _get(self, key, build: Callable, dump: Callable, load: Callable):
        with _TRACING:
            if key not in self._held:
                path = _path(self.identity, str(key)) if self.identity else None
                found = _read(path, load)
                if found is None:
                    found = build()
                    _write(path, lambda: dump(found))
                self._held[key] = found
                if len(self._held) > IN_MEMORY:
                    self._held.popitem(last=False)
            self._held.move_to_end(key)
            return self._held[key]


def _path(*identity: str) -> Path | None:
    place = folder()
    if place is None:
        return None
    text = "\n".join([*identity, _machine()])
    return place / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.program"


def _lower(function: Callable, args) -> tuple[Any, Any]:
    """The function as one of flat lists, traced, and the tree of what it returns."""
    leaves, structure = jax.tree.flatten(args)
    skeleton = None

    def flat(leaves):
        nonlocal skeleton
        out, out_structure = jax.tree.flatten(function(*structure.unflatten(leaves)))
        skeleton = out_structure.unflatten(range(len(out)))
        return out

    # Unused arguments stay, or two functions of different ones might look the same.
    return jax.jit(flat, keep_unused=True).lower(leaves), skeleton


class _Program:
    """An executable of flat lists of arrays, and the tree of what it returns."""

    def __init__(self, executable, skeleton):
        self.executable, self.skeleton = executable, skeleton
        self.structure = jax.tree.structure(skeleton)

    def __call__(self, *args):
        return self.structure.unflatten(self.executable(jax.tree.leaves(args)))

    def dump(self):
        return serialize_executable.serialize(self.executable), self.skeleton

    @classmethod
    def load(cls, kept) -> "_Program":
        executable, skeleton = kept
        return cls(serialize_executable.deserialize_and_load(*executable), skeleton)


def _read(path: Path | None, load: Callable) -> Any:
    """What is kept there; None where nothing is, or nothing that this process can use."""
    if path is None or not path.exists():
        return None
    try:
        found = load(pickle.loads(path.read_bytes()))
        os.utime(path)
    except Exception:  # whatever is wrong with it, it can be made again
        return None
    return found


def _write(path: Path | None, dump: Callable[[], Any]) -> None:
    """Keep what `dump` gives, in one step; a full disk is no reason to stop."""
    if path is None:
        return
    try:
        content = pickle.dumps(dump())
        with in_one_step(path) as part:
            part.write_bytes(content)
        _tidy(path.parent)
    except Exception:
        return


def _tidy(place: Path) -> None:
    """Remove what was used longest ago where the folder has grown too large."""
    files = [(p.stat().st_mtime, p.stat().st_size, p) for p in place.glob("*.program")]
    files += [
        (t, 0, p) for p in place.glob("*.part") if time.time() - (t := p.stat().st_mtime) > 3600
    ]
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if size and total <= MOST_BYTES:
            continue
        path.unlink(missing_ok=True)
        total -= size


@cache
def _machine() -> str:
    """What compiled code depends on besides its source."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    kinds = [f"{d.platform} {d.device_kind}" for d in jax.devices()]
    libraries = [f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpyro", "numpy")]
    here = [platform.machine(), flags, platform.python_version(), os.environ.get("XLA_FLAGS", "")]
    return "\n".join([*here, *kinds, *libraries])
