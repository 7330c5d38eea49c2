"""The sides of `engines.py`: one module each, every log density written independently.

A module has PACKAGES, what must be installed, and `Side(settings, curves)`, which builds and
compiles; `side.sample(i)` gives the Draws of curve i and `side.log_density(i, u)` the log posterior
density at points of the unconstrained space, up to a constant. Curves are asked for in order.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

# name: (module, what is run)
SIDES = {
    "bayesicl": ("engine", "bayesicl: Engine.run, the first attempt of a fit"),
    "bayesicl-fits": ("whole_fits", "bayesicl: fits, from table to DataTree, retries included"),
    "blackjax": ("blackjax_nuts", "blackjax: window adaptation and NUTS, compiled once"),
    "nutpie": ("nutpie_pymc", "nutpie on PyMC, compiled once, with_data"),
    "stan": ("stan_nuts", "Stan through PyStan, compiled once"),
    "numpyro": ("numpyro_once", "NumPyro: MCMC under jit, data as argument, compiled once"),
    "numpyro-fresh": ("numpyro_fresh", "NumPyro: a new MCMC for each curve"),
}


def load(name: str) -> ModuleType:
    """The module of a side; needs its packages."""
    return importlib.import_module(f"rivals.{SIDES[name][0]}")


def packages(name: str) -> tuple[str, ...]:
    """What a side needs, as pip knows it."""
    return {"blackjax": ("blackjax",), "nutpie": ("nutpie", "pymc"), "stan": ("pystan",)}.get(
        name, ()
    )


def versions(name: str) -> dict[str, str]:
    """Versions of what the side needs, "" where it is not installed."""
    found = {}
    for package in (*packages(name), *(() if packages(name) else ("jax", "numpyro"))):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found
