"""Ever more careful runs of a study that fails its gates, and when to stop."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from bayesicl.chains import Chains, flat, jumping
from bayesicl.convergence import convergence
from bayesicl.diagnose import Checks, diagnose
from bayesicl.engine import Engine
from bayesicl.labels import Labels
from bayesicl.law import Design

Progress = Callable[[str], None]
HOPELESS = 600.0  # leapfrogs a draw, summed over attempts: fifty times what mixing takes


class Outcome(NamedTuple):
    """Chains, natural parameters (chains, draws, ...), the gates, and how many attempts."""

    chains: Chains
    values: dict[str, np.ndarray]
    checks: Checks
    attempts: int


def first_that_passes(
    engine: Engine, runs: Iterable[Chains], labels: Labels, design: Design, data: Mapping
) -> Outcome:
    """The first of some runs that passes the gates, or the last before hope is given up."""
    outcome, spent = None, 0.0
    for attempt, chains in enumerate(runs, 1):
        values = engine.natural(chains, design, data)
        posterior = labels.named(values, labels.reported)
        depth = engine.settings.max_tree_depth
        checks = diagnose(posterior, labels.scalars(chains.stats), max_tree_depth=depth)
        outcome = Outcome(chains, values, checks, attempt)
        spent += float(chains.stats["n_steps"].mean())
        if checks.passed or spent > HOPELESS:
            break
    assert outcome is not None, "no runs"
    return outcome


def attempts(
    engine: Engine,
    key: jax.Array,
    design: Design,
    data: Mapping,
    progress: Progress,
    *,
    first: Chains | None = None,
    targets: Sequence[float] = (0.97, 0.99, 0.995),
) -> Iterator[Chains]:
    """Ever more careful runs, until the caller is content.

    As asked; extended where chains agree; with jumps to all that they found where they do not;
    then warmed up again with smaller steps.

    first: of the runs, if it has been made.
    """
    progress("sampling")
    chains = first or engine.run(key, design, data)
    yield chains
    for i, target in enumerate((*targets, None)):
        if apart(chains):
            progress("jumping between modes")
            found = flat(chains.w)[None, :, -engine.settings.draws :]
            chains = chains._replace(state=jumping(chains.state, found))
            # The first draws lead to the modes that matter.
            chains = engine.go_on(engine.go_on(chains, design, data), design, data)
            yield chains
        deepest = chains.stats["tree_depth"] >= engine.settings.max_tree_depth
        if not (chains.stats["diverging"] | deepest).any():  # more draws would not undo these
            progress("extending")
            chains = engine.extend(chains, design, data)
            yield chains
        if target is None:
            return
        progress(f"sampling again, target acceptance {target}")
        again = jax.random.fold_in(key, i)
        chains = engine.run(again, design, data, target_accept=target, after=chains)
        yield chains


def apart(chains: Chains) -> bool:
    """Chains favour different regions: R-hat above 1.02 in a sampling coordinate, or undefined."""
    return not (convergence(flat(chains.w)).rhat <= 1.02).all()
