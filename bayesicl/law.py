"""The Law contract, the list of laws that come with bayesicl, and users' own law files.

A law says what the mean curve is and nothing else: it knows neither how measurements scatter
(`noise`) nor how it is sampled (`nuts`). One file, one law; see `models/README.md`.
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bayesicl.errors import InputError, nearest
from bayesicl.scale import PROBABILITY, Scale

PAPER = ("general", "sampling", "scoring", "power", "bounded", "logistic")
TYINGS = (
    ("scoring", "general", "sampling"),
    ("discounted_scoring", "discounted_general", "discounted_sampling"),
)  # of one law; the first has the fewest parameters
BAYESIAN = (*TYINGS[0], *TYINGS[1], "recognition", "context")  # they weigh hypotheses
LAWS = (*PAPER, "constant", "hill", "belief", "broken", *TYINGS[1], "recognition", "context")
LAWS += ("manyshot",)

AT = "@"  # between the name of a law, or of a noise, and that of a learned prior

Sites = Mapping[str, Any]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["shots", "hypothesis"],
    meta_fields=["n_hypotheses", "backgrounds"],
)
@dataclass(frozen=True)
class Design:
    """What is known of a study before anything is measured.

    shots: (cells,) float, demonstrations before the query, >= 0.
    hypothesis: (cells,) int in [0, n_hypotheses), what generated the demonstrations.
    n_hypotheses: H, the observed hypotheses. backgrounds: unobserved ones, B; M = H + B.
    """

    shots: Any
    hypothesis: Any
    n_hypotheses: int = 1
    backgrounds: int = 1

    @property
    def n_believed(self) -> int:
        """M, the hypotheses that the language model may believe it is in."""
        return self.n_hypotheses + self.backgrounds

    def per_cell(self, x: jax.Array) -> jax.Array:
        """Entry h of x, (H, ...), for each cell of hypothesis h: (cells, ...).

        With one hypothesis it is x itself, (1, ...), which broadcasts. Plain x[design.hypothesis]
        is as right, but the gradient of an index is a slow loop on CPU.
        """
        cells = x[:1]
        for h in range(1, self.n_hypotheses):
            own = (self.hypothesis == h).reshape(-1, *(1,) * (jnp.ndim(x) - 1))
            cells = jnp.where(own, x[h], cells)
        return cells

    def per_curve(self, x: jax.Array) -> jax.Array:
        """Sum of x, (..., cells), over the cells of each hypothesis: (..., H)."""
        own = [self.hypothesis == h for h in range(self.n_hypotheses)]
        return jnp.stack([jnp.sum(jnp.where(mask, x, 0.0), axis=-1) for mask in own], axis=-1)


def unmoved(design: Design, w: Sites) -> tuple[Sites, float]:
    """The coordinates of a law that has none of its own."""
    return w, 0.0


@dataclass(frozen=True)
class Law:
    """One law of in-context learning.

    name: the name by which fits, files and tables know it.
    curve: pure function of shots and natural parameters that broadcasts and returns log p: the log
        of the mean curve, whatever its scale.
    model: NumPyro function of a Design that samples the parameters and returns log p of each
        cell, shape (cells,). Sites whose names begin with "_" are not reported.
    reference: where the law comes from. formula: one line, in the words of the docstring.
    monotone: the curve never gets worse with shots; where one is measured that does, there is a
        warning.
    coordinates: optional bijection of the unconstrained space, (design, w) -> (z, log|dz/dw|),
        through which the engine samples; posterior and priors do not depend on it. Its design
        has cells that are not fitted at 0 shots.
    scale: what the mean curve is a number of; outcomes on another scale are not fitted.
    path, source_hash: the file it was loaded from and its SHA-256, set by `load_law`: a changed
        law is another law.
    """

    name: str
    curve: Callable[..., jax.Array]
    model: Callable[[Design], jax.Array]
    reference: str
    formula: str = ""
    monotone: bool = True
    coordinates: Callable[[Design, Sites], tuple[Sites, Any]] = unmoved
    scale: Scale = PROBABILITY

    path: str = ""
    source_hash: str = ""

    def from_file(self, path: Path) -> "Law":
        """The law with its provenance: the file as it is now, and its SHA-256."""
        return replace(self, path=str(path), source_hash=_hash(path))

    @property
    def base(self) -> str:
        """The name without that of a learned prior."""
        return self.name.partition(AT)[0]

    @property
    def bundled(self) -> bool:
        """The law comes with bayesicl, and so does its prior."""
        return self.base in LAWS and not parted(self.path)[1]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parted(law: str) -> tuple[str, str]:
    """Name or file of a law, and that of the learned prior that it is under, "" for its own.

    >>> parted("power@runs@2/mine.json"), parted("runs@2/my_law.py")
    (('power', 'runs@2/mine.json'), ('runs@2/my_law.py', ''))
    """
    under = re.match(rf"(.*?\.py|[^{AT}]*){AT}", law)
    if under is None or (law.endswith(".py") and not under[1].endswith(".py")):
        return law, ""
    return under[1], law[under.end() :]


def laws() -> dict[str, Law]:
    """All laws that come with bayesicl, by name.

    >>> list(laws())[:6]
    ['general', 'sampling', 'scoring', 'power', 'bounded', 'logistic']
    """
    found = {}
    for name in LAWS:
        module = importlib.import_module(f"bayesicl.models.{name}")
        found[name] = module.law.from_file(Path(str(module.__file__)))
    return found


def laws_of(scale: Scale) -> tuple[str, ...]:
    """Names of the laws that come with bayesicl and are on this scale.

    >>> from bayesicl.scale import MEAN_NLL
    >>> laws_of(MEAN_NLL)
    ('manyshot',)
    """
    return tuple(name for name, law in laws().items() if law.scale == scale)


def load_law(law: str | Path | Law) -> Law:
    """The law of this name, or the law defined by the Python file at this path.

    LAW@PRIOR is the law under a learned prior: see `population`.

    Raises InputError where there is no such law or the file does not define one.

    >>> load_law("power").name
    'power'
    """
    if isinstance(law, Law):
        return law if law.path else law.from_file(Path(inspect.getfile(law.curve)))
    if str(law) in LAWS:
        return laws()[str(law)]
    law, prior = parted(str(law))
    if prior:
        from bayesicl.population import law_under, load_population

        return law_under(load_law(law), prior, load_population(prior))
    path = Path(law)
    if path.suffix != ".py":
        meant = nearest(str(law), [*LAWS, "stack"])
        raise InputError(
            f"unknown law {str(law)!r}{meant}: choose from {', '.join(LAWS)}, one of them under a "
            "learned prior (such as power@population), or the path of a Python file that defines "
            "one; stack is a forecast (bayesicl forecast TABLE --law stack)"
        )
    if not path.is_file():
        raise InputError(f"law file {path}: no such file")
    return _law_of_file(path.resolve())


def _law_of_file(path: Path) -> Law:
    # The name holds path and content: a file that was edited meanwhile is loaded anew.
    code = hashlib.sha256(f"{path}{_hash(path)}".encode()).hexdigest()[:16]
    name = f"bayesicl_user_law_{code}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"law file {path}: Python cannot load it")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise InputError(
                f"law file {path}: it does not run ({type(error).__name__}: {error})"
            ) from error
    law = getattr(sys.modules[name], "law", None)
    if not isinstance(law, Law):
        raise InputError(
            f"law file {path}: it must define `law = Law(name, curve, model, reference=...)`, "
            f"got {'no such name' if law is None else type(law).__name__}"
        )
    if law.name in LAWS:
        raise InputError(f"law file {path}: the name {law.name!r} is taken; give yours another")
    return law.from_file(path)
