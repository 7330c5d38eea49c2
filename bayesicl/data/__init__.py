"""Small measured curves for the demo; see README.md beside this file."""

from pathlib import Path


def path() -> Path:
    """The bundled table, for `read_curves`; it holds two outcomes: choose "nll" or "counts".

    >>> path().name
    'collected_small_llms.csv.gz'
    """
    return Path(__file__).with_name("collected_small_llms.csv.gz")
