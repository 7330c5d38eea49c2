"""LC-PFN (Adriaensen et al. 2023), a transformer trained on curves drawn from a prior.

Weights come from `train_lcpfn.py`. It knows x from 1 to 100, where its prior's curves rise as
learning curves do: 0 shots are at 1, the longest shots asked for at 100, and others between them by
log(1 + shots). It foretells each measurement alone, its noise, which it learns from the curve,
included; totals are not told to it. A draw has one quantile, the same at all cells, and the draws
of the mean curve are those of the measurements, cut to [0, 1].
"""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bayesicl.errors import InputError
from peers import Cells, Forecast

LONGEST = 100  # its x
HOW = """
    pip install 'torch>=2.4' requests && pip install --no-deps lcpfn==0.1.3
    python benchmarks/train_lcpfn.py --out lcpfn.pt"""

# x and y of a curve and further x -> borders of bars (bars + 1,), their probabilities (x, bars)
Model = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def forecast(model: Model, curve: Cells, ahead: Cells, rng: np.random.Generator, n_draws: int):
    """See `peers`; model: of `load`."""
    longest = max(curve.shots.max(), ahead.shots.max())
    borders, p = model(position(curve.shots, longest), curve.y, position(ahead.shots, longest))
    below = np.pad(np.cumsum(p, axis=1), [(0, 0), (1, 0)])
    u = rng.uniform(size=n_draws)
    drawn = np.stack([np.interp(u, up_to, borders) for up_to in below], axis=1)
    drawn = np.clip(drawn, 0.0, 1.0)
    return drawn, drawn


def position(shots: np.ndarray, longest: float) -> np.ndarray:
    """Where on the model's axis shots are."""
    return 1.0 + (LONGEST - 1.0) * np.log1p(shots) / np.log1p(longest)


def load(path: Path) -> tuple[str, Forecast]:
    """The peer with these weights, and a name for its scores that tells them from others'.

    The file is a pickle, which can run any code: load none but your own.
    """
    if not path.is_file():
        raise InputError(f"--lcpfn {path}: there is no such file; it is made by{HOW}")
    torch = library()[0]
    transformer = torch.load(path, weights_only=False)["model"].eval()

    def model(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column = lambda values: torch.tensor(values, dtype=torch.float32)[:, None]  # noqa: E731
        every = column(np.concatenate([x, x_new]))[..., None]
        with torch.no_grad():
            logits = transformer((every, column(y)), single_eval_pos=len(x))[:, 0]
        return transformer.criterion.borders.numpy(), logits.double().softmax(-1).numpy()

    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return f"lcpfn-{digest}", partial(forecast, model)


@cache
def library() -> tuple[Any, Any]:
    """torch and lcpfn, which was written for torch 1.11: what has changed since is bridged here."""
    try:
        torch = import_module("torch")
        transformer: Any = import_module("torch.nn.modules.transformer")
        # lcpfn imports * from there, which is what __all__ names since it was added.
        transformer.__all__ += ["MultiheadAttention", "Linear", "Dropout", "LayerNorm"]
        lcpfn = import_module("lcpfn")
    except ImportError as error:
        raise InputError(f"LC-PFN cannot be loaded ({error}); it needs{HOW}") from error
    layer = import_module("lcpfn.layer").TransformerEncoderLayer
    forward = layer.forward
    layer.forward = lambda self, *args, is_causal=False, **more: forward(self, *args, **more)
    return torch, lcpfn
