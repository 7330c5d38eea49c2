"""Ever more careful runs of a study that fails its gates, and when to stop."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from arviz_stats import rhat

from bayesicl.diagnose import Checks, diagnose
from bayesicl.engine import Chains, Engine
from bayesicl.labels import Labels
from bayesicl.law import Design
from bayesicl.nuts import mixture_of

Progress = Callable[[str], None]


class Outcome(NamedTuple):
    """Chains, natural parameters (chains, draws, ...), the gates, and how many attempts."""

    chains: Chains
    values: dict[str, np.ndarray]
    checks: Checks
    attempts: int


def first_that_passes(
    engine: Engine, runs: Iterable[Chains], labels: Labels, design: Design, data: Mapping
) -> Outcome:
    """The first of some runs that passes the gates, or the last."""
    outcome = None
    for attempt, chains in enumerate(runs, 1):
        values = engine.natural(chains, design, data)
        posterior = labels.named(values, labels.reported)
        checks = diagnose(posterior, labels.statistics(chains))
        outcome = Outcome(chains, values, checks, attempt)
        if checks.passed:
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
    targets: Sequence[float] = (0.97, 0.99, 0.995),
) -> Iterator[Chains]:
    """Ever more careful runs, until the caller is content.

    As asked; extended where chains agree; with jumps between modes where they do not; then warmed
    up again with smaller steps.
    """
    progress("sampling")
    chains, mixture = engine.run(key, design, data), None
    yield chains
    for i, target in enumerate((*targets, None)):
        if apart(chains):
            progress("jumping between modes")
            mixture = mixture_of(chains.w, engine.settings.draws)
            # The first draws lead to the modes that matter.
            chains = engine.go_on(chains, design, data, mixture=mixture)
            chains = engine.go_on(chains, design, data, mixture=mixture)
            yield chains
        if not chains.stats["diverging"].any():
            progress("extending")
            chains = engine.extend(chains, design, data, mixture=mixture)
            yield chains
        if target is None:
            return
        progress(f"sampling again, target acceptance {target}")
        chains = engine.run(
            jax.random.fold_in(key, i), design, data,
            target_accept=target, warm_rounds=2, after=chains, mixture=mixture,
        )  # fmt: skip
        yield chains


def apart(chains: Chains) -> bool:
    """Chains favour different regions (R-hat above 1.02 in a sampling coordinate)."""
    worst = 1.0
    for x in chains.w.values():
        columns = x.reshape(*x.shape[:2], -1)
        worst = max([worst, *(rhat(columns[:, :, j]) for j in range(columns.shape[2]))])
    return worst > 1.02
