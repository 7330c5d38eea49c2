"""All peers by name, and those that run only with weights of one's own, and why."""

from functools import partial

from peers import Forecast, gp, last_value, lcpfn, least_squares

PEERS: dict[str, Forecast] = {
    **{f"least_squares_{law}": partial(least_squares.forecast, law) for law in least_squares.LAWS},
    "last_value": last_value.forecast,
    "gp": partial(gp.forecast, 0.0),
    "gp_trend": partial(gp.forecast, 0.5),
}
NOT_RUN = {"lcpfn": f"no weights were given; with --lcpfn lcpfn.pt, made by{lcpfn.HOW}"}
