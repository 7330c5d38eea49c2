"""How a law's first attempts go on studies drawn from its own priors: gates and leapfrogs.

Without a way back: trajectories that end at a step that had to be split; see `bayesicl.strides`.
"""

import argparse
import time

import jax
import pandas as pd

from bayesicl.device import precision
from bayesicl.diagnose import diagnose
from bayesicl.engine import Engine
from bayesicl.labels import Labels
from bayesicl.law import load_law
from bayesicl.noises import load_noise
from bayesicl.settings import Settings
from bayesicl.simulate import KINDS, Layout, declared, simulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("laws", nargs="+")
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--hypotheses", type=int, default=1)
    parser.add_argument("--kind", default="counts", choices=KINDS)
    parser.add_argument("--target-accept", type=float, default=Settings().target_accept)
    args = parser.parse_args()
    settings = Settings(target_accept=args.target_accept)
    layout = Layout(args.kind, hypotheses=args.hypotheses)
    noise, [study] = load_noise(None, args.kind), layout.curves()
    for name in args.laws:
        law, rows = load_law(name), []
        with precision():
            engine, draw = Engine(law, noise, settings), simulator(law, noise, layout)
            labels = Labels(engine, study, *declared(study, backgrounds=1))
            for i in range(args.studies):
                _, _, design, data = draw(jax.random.fold_in(jax.random.key(7), i))
                begin = time.perf_counter()
                chains = engine.run(jax.random.fold_in(jax.random.key(8), i), design, data)
                seconds = time.perf_counter() - begin
                draws = labels.named(engine.natural(chains, design, data), labels.reported)
                checks = diagnose(draws, labels.scalars(chains.stats))
                diverged = bool(chains.stats["diverging"].any())
                no_way_back = chains.stats["no_way_back"].mean()
                steps = chains.stats["n_steps"].mean()
                rows.append((checks.passed, diverged, no_way_back, steps, checks.ess_bulk, seconds))
        names = ["passed", "diverged", "no_way_back", "leapfrogs", "ess_bulk", "seconds"]
        table = pd.DataFrame(rows, columns=names)
        print(
            f"{name}, {args.kind}, H = {args.hypotheses}: {len(table)} studies, passed "
            f"{table['passed'].mean():.1%}, diverged {table['diverged'].mean():.1%}, trajectories "
            f"without a way back {table['no_way_back'].mean():.2%}, leapfrogs a draw "
            f"{table['leapfrogs'].mean():.1f} (worst {table['leapfrogs'].max():.1f}), median "
            f"{table['seconds'].median():.3f} s, bulk ESS {table['ess_bulk'].median():.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
