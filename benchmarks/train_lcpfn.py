"""Weights of LC-PFN for forecast.py --lcpfn, by the training code and the prior of its package.

    pip install torch && pip install --no-deps lcpfn==0.1.3
    python benchmarks/train_lcpfn.py --out lcpfn.pt

A small model: the paper's has --emsize 512 --layers 12 --bars 1000 --epochs 1000 --batch 100
--lr 1e-4. The paper trains on all of x = 1, 2, ..., 100 (--cells 100), the first of which are
given; measured curves have few cells at uneven shots, so each curve here is drawn on 1 to 100, and
seen at --cells of these. Then 90 % intervals and log densities are checked on new curves of the
prior, and go into the file with the settings.
"""

import argparse
import json
import random
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from peers.lcpfn import LONGEST, library

NEW = 4000  # curves of the check


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file for the weights")
    add("--epochs", type=int, default=120, help="of 100 steps (default 120)")
    add("--batch", type=int, default=50, help="curves a step (default 50)")
    add("--cells", type=int, default=32, help="of a curve (default 32)")
    add("--emsize", type=int, default=128, help="a multiple of 128 (default 128)")
    add("--layers", type=int, default=3)
    add("--bars", type=int, default=500, help="of the predictive density (default 500)")
    add("--lr", type=float, default=1e-3)
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    return parser.parse_args()


class Batches:
    """The prior's curves, each seen at some of x = 1, ..., 100."""

    def __init__(self, torch: Any, lcpfn: Any, rng: np.random.Generator):
        self.torch, self.rng = torch, rng
        self.whole = lcpfn.create_get_batch_func(lcpfn.sample_from_prior)

    def __call__(self, batch_size: int, seq_len: int, num_features: int, **more: Any):
        """As lcpfn's: x (cells, curves, 1), y and what is to be foretold of y (cells, curves)."""
        x, y, target = self.whole(batch_size, LONGEST, num_features, **more)
        some = self.rng.random((LONGEST, batch_size)).argsort(axis=0)[:seq_len]
        some = self.torch.from_numpy(np.sort(some, axis=0))
        return x.gather(0, some[..., None]), y.gather(0, some), target.gather(0, some)


def check(torch: Any, model: Any, batches: Batches, cells: int) -> dict[str, float]:
    """How new curves of the prior are foretold, from each number of first cells in equal parts.

    Log densities are means a cell, in nats; beside the model's, those of the prior's own density of
    y, and of a normal about the last cell given with the standard deviation best for these very
    curves. within_90: the share of cells in the model's central 90 % intervals.
    """
    nll, inside, misses = [], [], []
    prior = 0.0
    for given in range(1, cells):
        x, y, _ = batches(max(1, NEW // cells), cells, 1)
        with torch.no_grad():
            logits = model((x, y), single_eval_pos=given)
            ahead = y[given:]
            bars = model.criterion
            nll.append(bars(logits, ahead).mean())
            prior += bars(torch.zeros_like(logits), ahead).mean() / (cells - 1)
            inside.append(
                ((bars.icdf(logits, 0.05) <= ahead) & (ahead <= bars.icdf(logits, 0.95)))
                .double()
                .mean()
            )
            misses.append((ahead - y[given - 1]).square().mean())
    spread = torch.stack(misses).mean()
    found = {
        "log_density": -torch.stack(nll).mean(),
        "log_density_prior": -prior,
        "log_density_last_value": -0.5 * torch.log(2 * np.pi * np.e * spread),
        "within_90": torch.stack(inside).mean(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def main() -> None:
    args = parse()
    torch, lcpfn = library()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  the package draws from these
    batches = Batches(torch, lcpfn, np.random.default_rng(args.seed))
    start = time.monotonic()
    loss, _, model, _ = lcpfn.train_lcpfn(
        batches,
        seq_len=args.cells,
        emsize=args.emsize,
        nlayers=args.layers,
        num_borders=args.bars,
        lr=args.lr,
        batch_size=args.batch,
        epochs=args.epochs,
    )
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    record = {
        **settings,
        **{name: version(name) for name in ("lcpfn", "torch")},
        "seconds": round(time.monotonic() - start),
        "last_loss": round(float(loss), 4),
        **check(torch, model.eval(), batches, args.cells),
    }
    torch.save({"model": model, "record": record}, args.out)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
