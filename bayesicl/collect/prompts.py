"""The text that a language model is given, and where in it the answers are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bayesicl.errors import InputError

PLAIN = "Q: {input}\nA: {output}"
BETWEEN = "\n\n"


@dataclass(frozen=True)
class Passage:
    """One text to be scored.

    text: what the model reads. It ends with the last answer. spans: (k, 2) first and one past the
    last character of each answer that is scored, with the white space before it, in order. shots:
    (k,) demonstrations before each. questions: (k,) which question of the task each answers.
    whole: the text has the model's special tokens (a chat template's), and none is to be added.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    shots: tuple[int, ...]
    questions: tuple[int, ...] = ()
    whole: bool = False

    def first(self, n: int) -> "Passage":
        """The prompt up to its n-th scored answer, n >= 1."""
        cut = self.text[: self.spans[n - 1][1]]
        kept = {"spans": self.spans[:n], "shots": self.shots[:n], "questions": self.questions[:n]}
        return replace(self, text=cut, **kept)

    def answer(self, i: int) -> str:
        """The i-th answer that is scored, without the white space before it."""
        start, stop = self.spans[i]
        return self.text[start:stop].strip()


@dataclass(frozen=True)
class Example:
    """A question, the answer that is shown, and the one that is scored at the query."""

    question: str
    shown: str
    scored: str


Render = Callable[[Sequence[Example]], tuple[str, list[tuple[int, int]]]]
"""Examples, all but the last demonstrations, to a text and the span of every answer in it."""


def plain(template: str = PLAIN) -> Render:
    """Blocks of `template`, which has {input} and then {output}, with a blank line between.

    Raises InputError where the template cannot be used.

    >>> text, spans = plain()([Example("1 + 1", "2", "2"), Example("1 + 2", "3", "3")])
    >>> text, [text[i:j] for i, j in spans]
    ('Q: 1 + 1\\nA: 2\\n\\nQ: 1 + 2\\nA: 3', [' 2', ' 3'])
    """
    before, _, rest = template.partition("{input}")
    between, output, after = rest.partition("{output}")
    if not output or "{input}" in between or "{output}" in after:
        raise InputError(
            f"--template must have {{input}} and then {{output}}, each once, got {template!r}"
        )
    if not (before + between).strip():
        raise InputError(f"--template needs a word or a sign before {{output}}, got {template!r}")
    space = len(between) - len(between.rstrip())

    def render(examples: Sequence[Example]) -> tuple[str, list[tuple[int, int]]]:
        text, spans = "", []
        for i, example in enumerate(examples):
            last = i == len(examples) - 1
            answer = example.scored if last else example.shown
            text += f"{BETWEEN if i else ''}{before}{example.question}{between}"
            spans.append((len(text) - space, len(text) + len(answer)))
            text += answer + ("" if last else after)
        return text, spans

    return render


Apply = Callable[[list[dict[str, str]], bool], str]
"""Messages, and whether the assistant is about to speak, to text: a chat template."""


def chat(apply: Apply) -> Render:
    """Questions as a user's turns, answers as the assistant's.

    Rendering raises InputError where the template cannot be applied, or rewrites earlier turns, so
    that one prompt does not hold all shots.
    """

    def applied(messages: list[dict[str, str]], ask: bool) -> str:
        try:
            return apply(messages, ask)
        except Exception as error:  # a template is a program of the model's makers
            raise InputError(
                f"this model's chat template cannot be applied ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}); leave out --chat"
            ) from error

    def render(examples: Sequence[Example]) -> tuple[str, list[tuple[int, int]]]:
        messages: list[dict[str, str]] = []
        spans, text = [], ""
        for i, example in enumerate(examples):
            last = i == len(examples) - 1
            answer = example.scored if last else example.shown
            messages.append({"role": "user", "content": example.question})
            head = applied(messages, True)
            messages.append({"role": "assistant", "content": answer})
            whole = applied(messages, False)
            if not head.startswith(text) or not whole.startswith(head + answer):
                raise InputError(
                    "this model's chat template rewrites earlier turns, or writes something before "
                    "answers, so that a prompt does not grow by examples alone; leave out --chat"
                )
            spans.append((len(head), len(head) + len(answer)))
            text = head + answer
        return text, spans

    return render
