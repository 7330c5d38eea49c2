"""Show the laws: formula, parameters, priors and source; and the noises.

Without a name, a short block for each law that comes with bayesicl, and a line for each noise (how
measurements scatter about a law). With names, or files of your own laws, all that their authors
say, and what their priors mean in numbers.

Example:
  bayesicl laws
  bayesicl laws scoring path/to/my_law.py
"""

import argparse
import inspect
import sys
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common

if TYPE_CHECKING:
    import pandas as pd

    from bayesicl.law import Law

DRAWS = 10_000


def add_options(parser: common.Parser) -> None:
    """Optional names, and --json."""
    parser.add_argument("law", nargs="*", metavar="NAME|PATH", help="laws to show in full")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print a block a law, or one record a parameter."""
    import pandas as pd

    from bayesicl.law import LAWS, load_law
    from bayesicl.misfit import SUFFIX
    from bayesicl.noises import NOISES

    laws = [load_law(name) for name in args.law or LAWS]
    if args.json:
        frames = [
            priors(law).assign(law=law.name, formula=law.formula, reference=law.reference)
            for law in laws
        ]
        common.show(pd.concat(frames, ignore_index=True), as_json=True)
        return 0
    for law in laws:
        print(f"{law.name}\n{'-' * len(law.name)}")
        if args.law:
            print(inspect.getdoc(sys.modules[law.model.__module__]) or law.formula, end="\n\n")
            print("Priors in numbers, for one hypothesis (0) and one background (1)")
            common.show(priors(law))
        else:
            print(f"{law.formula}\nparameters  {', '.join(_sites(law))}")
            print(f"source      {law.reference}")
        print()
    if not args.law:
        print("Noises, of which the outcome has its own (--noise)")
        for noise in NOISES.values():
            if not noise.name.endswith(SUFFIX):
                print(f"  {noise.name}: {noise.summary}")
        print(f"  misfit, or any of these with {SUFFIX}: and the law's misfit, over log(1+shots)")
    return 0


def priors(law: "Law") -> "pd.DataFrame":
    """Distribution, median and 90 % interval of all that a law reports, from its own program."""
    import jax
    import numpy as np
    import pandas as pd

    sites = _sites(law)
    keys = jax.random.split(jax.random.key(0), DRAWS)
    draws = jax.vmap(lambda key: {n: s["value"] for n, s in _sites(law, key).items()})(keys)
    rows = []
    for name in sites:
        low, middle, high = np.quantile(np.asarray(draws[name]), [0.05, 0.5, 0.95], axis=0)
        for at in np.ndindex(middle.shape):
            rows.append(
                {
                    "parameter": name + (f"[{','.join(map(str, at))}]" if at else ""),
                    "prior": _family(sites[name]),
                    "median": middle[at],
                    "lower 90%": low[at],
                    "upper 90%": high[at],
                }
            )
    return pd.DataFrame(rows)


def _sites(law: "Law", key: Any = 0) -> dict[str, Any]:
    """What the law reports of a study: NumPyro's record, values of single cells left out."""
    import jax.numpy as jnp
    from numpyro import handlers

    from bayesicl.law import Design
    from bayesicl.posterior import by_cell

    # As many cells as no parameter has elements, to tell the two apart.
    design = Design(shots=jnp.zeros(7), hypothesis=jnp.zeros(7, int))
    trace = handlers.trace(handlers.seed(law.model, key)).get_trace(design)
    return {
        name: site
        for name, site in trace.items()
        if site["type"] in ("sample", "deterministic")
        and not name.startswith("_")
        and not by_cell(site, design)
    }


def _family(site: dict[str, Any]) -> str:
    """The name of a site's distribution, without its wrapping in plates."""
    if site["type"] == "deterministic":
        return "derived"
    law = site["fn"]
    while type(law).__name__ in ("ExpandedDistribution", "Independent"):
        law = law.base_dist
    return type(law).__name__
