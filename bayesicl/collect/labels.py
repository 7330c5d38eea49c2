"""Label policies: what demonstrations answer, and which answer is scored.

gold      the right answers; scored: the right one
random    answers drawn independently from those of the task; scored: the right one. What still
          grows is recognition of the task, its format and its answers
permuted  each answer replaced by another one of the task's, the same everywhere; scored: the new
          one. What grows beyond chance is the learning of a new mapping
symbol    each answer replaced by a meaningless syllable, the same everywhere; scored: the syllable

After Min et al. 2022 (2202.12837) and Pan et al. 2023 (2305.09731).
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from bayesicl.errors import InputError

POLICIES = ("gold", "random", "permuted", "symbol")
# Hardly a word among them, in any of the larger languages.
SYMBOLS = tuple("".join(letters) for letters in product("vxzq", "ueio", "bfgjkvz"))


def named(behaviour: str, policy: str) -> str:
    """The hypothesis of demonstrations: "gold", "random", "matching", "matching, random", ...

    behaviour: "" for the only one of a task.
    """
    return policy if not behaviour else behaviour if policy == "gold" else f"{behaviour}, {policy}"


def demonstrated(
    policy: str, answers: Sequence[str], *, seed: int, order: int, name: str = "task"
) -> list[str]:
    """What is shown as the answer to each question, (n,).

    Args:
        policy: one of POLICIES.
        answers: (n,), the right ones.
        seed: of the mapping, which is the same in every order, and of random answers.
        order: number of the order; random answers are drawn anew in each.
        name: of the task, for messages.

    Raises:
        InputError: too few or too many different answers for the policy.

    >>> demonstrated("permuted", ["yes", "no", "no"], seed=0, order=0)
    ['no', 'yes', 'yes']
    """
    if policy == "gold":
        return list(answers)
    known = sorted(set(answers))
    if len(known) < 2:
        raise InputError(
            f"{name}: --labels {policy} needs at least 2 different answers, got only {known[0]!r}"
        )
    if policy == "random":
        drawn = np.random.default_rng([seed, 1, order]).integers(len(known), size=len(answers))
        return [known[i] for i in drawn]
    # From the answers alone, so that tasks, models and behaviours with the same ones agree.
    rng = np.random.default_rng([seed, 2])
    if policy == "permuted":
        shuffled = [known[i] for i in rng.permutation(len(known))]
        new = dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True))  # none stays
    else:
        if len(known) > len(SYMBOLS):
            raise InputError(
                f"{name}: --labels symbol has {len(SYMBOLS)} symbols, but there are {len(known)} "
                "different answers; such a mapping could not be learned anyway"
            )
        chosen = rng.permutation(len(SYMBOLS))[: len(known)]
        new = {answer: SYMBOLS[i] for answer, i in zip(known, chosen, strict=True)}
    return [new[answer] for answer in answers]
