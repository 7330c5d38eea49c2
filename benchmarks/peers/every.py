"""All peers by name, and those that are known but cannot be run, and why."""

from functools import partial

from peers import Forecast, gp, last_value, least_squares

PEERS: dict[str, Forecast] = {
    **{f"least_squares_{law}": partial(least_squares.forecast, law) for law in least_squares.LAWS},
    "last_value": last_value.forecast,
    "gp": partial(gp.forecast, 0.0),
    "gp_trend": partial(gp.forecast, 0.5),
}
NOT_RUN = {"lcpfn": "the package on PyPI ships no weights, and none are trained here"}
