"""Write Inspect logs into an empty folder: python inspect_logs.py (inspect-ai 0.3.285).

The model is Inspect's own mock, which answers as it is told: more often right after more examples.
"""

from types import SimpleNamespace

import tiktoken
from inspect_ai import Task, eval, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.scorer import Score, match, mean, scorer
from inspect_ai.solver import generate, solver

# Inspect counts the mock's tokens by an encoding that it would fetch: words do as well.
tiktoken.get_encoding = lambda name: SimpleNamespace(encode=lambda text, **more: text.split())

SHOWN = dict(cat="zig", hammer="zaggy", dog="zig", saw="zaggy", cow="zig", axe="zaggy")
ASKED = dict(lion="zig", fork="zaggy", crow="zig", rope="zaggy")


@scorer(metrics=[mean()])
def likeness():
    async def score(state, target):
        pairs = zip(state.output.completion, target.text, strict=False)
        return Score(value=sum(a == b for a, b in pairs) / max(len(target.text), 5))

    return score


@solver
def examples(num_shots: int = 0):
    async def solve(state, generate):
        shown = list(SHOWN.items())[:num_shots]
        lines = [f"Word: {word}\nKind: {kind}\n\n" for word, kind in shown]
        state.user_prompt.text = "".join(lines) + state.user_prompt.text
        return state

    return solve


@task
def kinds(fewshot: int = 0):
    samples = [Sample(f"Word: {word}\nKind:", target=kind, id=word) for word, kind in ASKED.items()]
    return Task(
        dataset=samples, solver=[examples(fewshot), generate()], scorer=[match(), likeness()]
    )


@task
def told():
    samples = [Sample(f"Word: {word}\nKind:", target=kind, id=word) for word, kind in ASKED.items()]
    return Task(dataset=samples, solver=[examples(), generate()], scorer=match())


def answers(shots: int, epochs: int):
    """What the mock says to each sample of each epoch."""
    for epoch in range(epochs):
        for i, kind in enumerate(ASKED.values()):
            right = (5 * i + 3 * epoch) % 7 <= shots + 1
            yield ModelOutput.from_content("mockllm/model", kind if right else "zag")


def run(what, shots: int, folder: str, epochs: int = 1, **more):
    model = get_model("mockllm/model", custom_outputs=list(answers(shots, epochs)))
    eval(
        what, model=model, log_dir=folder, epochs=epochs, max_samples=1, max_connections=1,
        display="none", log_model_api=False, **more,
    )  # fmt: skip


for shots in (0, 2, 6):
    run(kinds(fewshot=shots), shots, "task-args", log_format="eval")
for shots in (0, 6):
    run(kinds(fewshot=shots), shots, "epochs", epochs=2, log_format="json")
for shots in (0, 6):
    run(told(), shots, "metadata", log_format="eval", metadata={"k_shot": shots})
for shots in (0, 6):
    run(told(), shots, "solver", log_format="eval", solver=[examples(num_shots=shots), generate()])
