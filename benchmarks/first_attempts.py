"""How a law's first attempts go on studies drawn from its own priors: gates and leapfrogs."""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from bayesicl.device import precision
from bayesicl.diagnose import diagnose
from bayesicl.engine import Engine, Settings
from bayesicl.labels import Labels
from bayesicl.law import load_law
from bayesicl.noise import load_noise
from bayesicl.program import arrays

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("laws", nargs="+")
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--hypotheses", type=int, default=1)
    args = parser.parse_args()
    study = simulate.study_of_shots(args.hypotheses)
    for law in args.laws:
        with precision():
            engine = Engine(load_law(law), load_noise(None, study.kind), Settings())
            design, data = arrays(study)
            labels, rows = Labels(engine, study, design, data), []
            for i, _, y in simulate.simulated(engine, args.studies, design, data, 7):
                measured = data | {"y": np.where(data["fitted"], y, data["y"])}
                chains = engine.run(jax.random.fold_in(jax.random.key(8), i), design, measured)
                draws = labels.named(engine.natural(chains, design, measured), labels.reported)
                checks = diagnose(draws, labels.statistics(chains))
                diverged = bool(chains.stats["diverging"].any())
                rows.append((checks.passed, diverged, chains.stats["n_steps"].mean()))
        table = pd.DataFrame(rows, columns=["passed", "diverged", "leapfrogs"])
        print(
            f"{law}, H = {args.hypotheses}: {len(table)} studies, passed "
            f"{table['passed'].mean():.1%}, diverged {table['diverged'].mean():.1%}, leapfrogs a "
            f"draw {table['leapfrogs'].mean():.1f} (worst {table['leapfrogs'].max():.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
