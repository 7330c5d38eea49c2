"""LC-PFN (Adriaensen et al. 2023), a transformer trained on curves drawn from a prior.

Weights come from `train_lcpfn.py`. It knows x from 1 to 100, steps of training in the paper: here a
shot is a step, from 1 at 0 shots, and where the longest shots asked for are beyond 100, they are at
100 and all others in proportion. It foretells each measurement alone, with the noise that it takes
from the curve; totals are not told to it. A draw has one quantile, the same at all cells, so that
draws of the mean curve, which are those of the measurements, can rise past a threshold and stay.
Quantiles are one in each thousandth, for a thousand draws. Draws are cut to [0, 1]; in the two
outermost bars, which the model takes for halves of normals, they are uniform.

Steps were chosen on the benchmark's own curves, first tenths fitted, in the peer's favour: CRPS on
long_context_icl, tabula8b and transcendence_gpt is .077, .046, .022, and .077, .052, .019 with all
curves stretched to 100, .110, .059, .022 by log(1 + shots), in which curves bend upwards and its
prior's do not; 90 % intervals hold .56, .85, .81, and .56, .70, .72, and .58, .52, .61.
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
    pip install torch && pip install --no-deps lcpfn==0.1.3
    python benchmarks/train_lcpfn.py --out lcpfn.pt"""

# x and y of a curve and further x -> borders of bars (bars + 1,), their probabilities (x, bars)
Model = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def forecast(model: Model, curve: Cells, ahead: Cells, rng: np.random.Generator, n_draws: int):
    """See `peers`; model: of `load`."""
    longest = max(curve.shots.max(), ahead.shots.max())
    borders, p = model(position(curve.shots, longest), curve.y, position(ahead.shots, longest))
    below = np.pad(np.cumsum(p, axis=1), [(0, 0), (1, 0)])
    u = (rng.permutation(n_draws) + rng.uniform(size=n_draws)) / n_draws
    drawn = np.stack([np.interp(u, up_to, borders) for up_to in below], axis=1)
    drawn = np.clip(drawn, 0.0, 1.0)
    return drawn, drawn


def position(shots: np.ndarray, longest: float) -> np.ndarray:
    """Where on the model's axis shots are, the longest asked for among them."""
    return 1.0 + shots * min(1.0, (LONGEST - 1.0) / longest)


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
