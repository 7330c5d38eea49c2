"""Prompts that were cut, or held fewer demonstrations than asked for, as far as logs show it.

Logs hold a prompt's text as it was before it was cut, and the model's window in tokens, but not how
many tokens the prompt had. Tokenizers in common use do not join words: a prompt has at least as
many tokens as words, and seldom more than one for every two bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

BYTES_PER_TOKEN = 2  # English prose has 4 to 5; the short lines of tests/data had 2.2


class Prompt(NamedTuple):
    """One prompt as it was before anything was cut.

    Attributes:
        text: all that had to fit, the scored answer included.
        room: the tokens that it had to fit into, or None where that is not known.
        ends: how many demonstrations have an end in it (at most), or None where that is not known.
    """

    text: str
    room: int | None
    ends: int | None


class Trouble(NamedTuple):
    """What is wrong with the prompts of a run, and whether that is certain."""

    text: str
    certain: bool


def trouble(prompts: Sequence[Prompt], shots: int) -> Trouble | None:
    """What was wrong with a run's prompts, which should hold `shots` demonstrations each.

    Example:
        >>> from bayesicl.importers.prompts import Prompt, trouble
        >>> trouble([Prompt("six words in a short text", 4, None)], 0).certain
        True
        >>> trouble([Prompt("Q: a A: b", 100, 1)], 2).text
        '1 of 1 prompts held fewer than 2 demonstrations'
    """
    of = f"of {len(prompts)} prompts"
    if few := sum(prompt.ends is not None and prompt.ends < shots for prompt in prompts):
        return Trouble(f"{few} {of} held fewer than {shots} demonstrations", True)
    limited = [(prompt.text, prompt.room) for prompt in prompts if prompt.room is not None]
    if cut := sum(len(text.split()) > room for text, room in limited):
        return Trouble(f"{cut} {of} have more words than the model's window has tokens", True)
    if doubt := sum(len(text.encode()) > BYTES_PER_TOKEN * room for text, room in limited):
        return Trouble(f"{doubt} {of} may have been cut to the model's window: check them", False)
    return None
