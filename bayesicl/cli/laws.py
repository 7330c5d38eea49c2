"""Show the laws: formula, parameters, priors and source.

Without a name, a short block for each law that comes with bayesicl. With names, or files of your
own laws, all that their authors say, and what their priors mean in numbers.

Example:
  bayesicl laws
  bayesicl laws scoring path/to/my_law.py
"""

import argparse
import inspect
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common

if TYPE_CHECKING:
    import pandas as pd

    from bayesicl.law import Law

DRAWS = 4000


def add_options(parser: common.Parser) -> None:
    """Optional names, and --json."""
    parser.add_argument("law", nargs="*", metavar="NAME|PATH", help="laws to show in full")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print blocks, or one row a parameter as JSON."""
    import pandas as pd

    from bayesicl.law import LAWS, load_law

    laws = [load_law(name) for name in args.law or LAWS]
    if args.json:
        common.show(
            pd.concat(
                priors(law).assign(law=law.name, formula=law.formula, reference=law.reference)
                for law in laws
            ),
            as_json=True,
        )
        return 0
    for law in laws:
        if args.law:
            print(f"{law.name}\n{'-' * len(law.name)}\n{inspect.getdoc(inspect.getmodule(law.model))}\n")
            print("Priors in numbers, for two hypotheses and one background")
            common.show(priors(law))
        else:
            print(f"{law.name}\n  {law.formula}")
            print(f"  parameters: {', '.join(priors(law, draws=1)['parameter'].unique())}")
            print(f"  source: {law.reference}")
        print()
    return 0


def priors(law: "Law", *, draws: int = DRAWS) -> "pd.DataFrame":
    """What the law samples and reports for two hypotheses and a background, from its own program."""
    import jax
    import numpy as np
    import pandas as pd
    from numpyro.infer import Predictive

    from bayesicl.fit import ...
