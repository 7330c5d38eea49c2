"""Bayesian scaling laws for in-context learning: fit, trust and extend ICL curves.

Names are imported when first used: importing bayesicl never loads JAX.
"""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesicl.compare import compare
    from bayesicl.contrast import contrast
    from bayesicl.curves import Curves, read_curves
    from bayesicl.decide import reach
    from bayesicl.diagnose import diagnose
    from bayesicl.errors import CurveWarning, InputError
    from bayesicl.files import load, save
    from bayesicl.fit import fit
    from bayesicl.forecast import bands, predict
    from bayesicl.law import Law, laws, load_law
    from bayesicl.score import score, score_cells
    from bayesicl.settings import Settings
    from bayesicl.summary import summarise

    __version__: str

__all__ = [
    "CurveWarning",
    "Curves",
    "InputError",
    "Law",
    "Settings",
    "bands",
    "compare",
    "contrast",
    "diagnose",
    "fit",
    "laws",
    "load",
    "load_law",
    "predict",
    "reach",
    "read_curves",
    "save",
    "score",
    "score_cells",
    "summarise",
]


def _compile_whole_loops() -> None:
    """Have XLA compile a loop whose arrays are small (16 MiB) into one function.

    Instead of a hundred that it calls in turn, and calling takes longer than what they compute.
    XLA reads its options when JAX first computes: where it has, or they are not ours to add to,
    they stay.
    """
    flags, jax = os.environ.get("XLA_FLAGS", ""), sys.modules.get("jax._src.xla_bridge")
    late = jax is not None and getattr(jax, "backends_are_initialized", lambda: False)()
    if late or "xla_backend_extra_options" in flags or (flags and not flags.startswith("--")):
        return
    ours = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=16777216"
    os.environ["XLA_FLAGS"] = f"{flags} {ours}".strip()


_compile_whole_loops()

_MODULES = {
    "compare": ("compare",),
    "contrast": ("contrast",),
    "curves": ("Curves", "read_curves"),
    "diagnose": ("diagnose",),
    "errors": ("CurveWarning", "InputError"),
    "files": ("load", "save"),
    "fit": ("fit",),
    "decide": ("reach",),
    "forecast": ("bands", "predict"),
    "law": ("Law", "laws", "load_law"),
    "score": ("score", "score_cells"),
    "settings": ("Settings",),
    "summary": ("summarise",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bayesicl")
    if name in _HOME:
        return getattr(import_module(f"bayesicl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bayesicl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Importing the module bayesicl.fit must not hide the function bayesicl.fit behind it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
