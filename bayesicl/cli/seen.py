"""Whether a learned prior was learned from the very curves that a forecast is scored on."""

from typing import TYPE_CHECKING

from bayesicl.cli import common

if TYPE_CHECKING:
    import xarray as xr

    from bayesicl.alarm import Heard


class Seen:
    """Looks at one fit after the other, and says once of a prior what it does not tell."""

    def __init__(self):
        """Nothing was said."""
        self.silent: set[str] = set()

    def flattered(self, heard: "Heard", tree: "xr.DataTree") -> "Heard":
        """With a caution where held-out cells of a fit were among those that its prior has seen."""
        from bayesicl.population import learned_from, load_population, priors_of

        if tree["study"]["fitted"].all():
            return heard
        for prior in sorted(priors_of(tree.attrs) - self.silent):
            known = load_population(prior)
            if not known.seen:
                self.silent.add(prior)
                common.say(
                    f"prior {prior} does not list the curves that it was learned from "
                    f"({known.source}): nobody can tell here whether held-out cells are among "
                    "them; if they are, their scores flatter the forecast"
                )
        cautions = [
            f"prior {prior} was learned from this very curve, its held-out cells among them: their "
            "scores flatter the forecast"
            for prior in learned_from(tree)
        ]
        return heard._replace(cautions=[*heard.cautions, *cautions])
