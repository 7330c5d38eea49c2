import pytest
from fake_model import Fake

from bayesicl.collect.plan import Order, Plan, grid, orders
from bayesicl.collect.prompts import Example, chat, plain
from bayesicl.collect.questions import Task
from bayesicl.errors import CurveWarning, InputError

SUMS = [Example(f"{n} + 1", str(n + 1), str(n + 1)) for n in range(4)]
TASK = Task("sums", tuple(f"{n} + 1" for n in range(9)), {"": tuple(str(n + 1) for n in range(9))})


def test_plain_text_ends_with_the_last_answer():
    text, spans = plain("In: {input}. Out: '{output}';")(SUMS[:2])
    assert text == "In: 0 + 1. Out: '1';\n\nIn: 1 + 1. Out: '2"
    assert [text[i:j] for i, j in spans] == ["1", "2"]


@pytest.mark.parametrize("template", ["", "{input}", "{output} {input}", "{input}{output}{output}"])
def test_templates_that_cannot_be_used(template):
    with pytest.raises(InputError, match="--template"):
        plain(template)


def test_chat_template_is_applied_once():
    text, spans = Fake().chat()(SUMS[:2])
    assert text == "<user>0 + 1</s><assistant>1</s><user>1 + 1</s><assistant>2"
    assert [text[i:j] for i, j in spans] == ["1", "2"]


def test_chat_templates_that_rewrite_are_refused():
    forgets = chat(lambda messages, ask: messages[-1]["content"])
    with pytest.raises(InputError, match="rewrites earlier turns"):
        forgets(SUMS)


def test_chat_templates_that_fail_are_told():
    def fails(messages, ask):
        raise KeyError("no such\nrole")

    with pytest.raises(InputError, match=r"cannot be applied \(KeyError: .*\); leave out --chat"):
        chat(fails)(SUMS)


def test_one_prompt_has_all_shots():
    order = Order(TASK, "", "gold", 2)
    [prompt] = order.prompts(Plan(max_shots=5), plain())
    assert prompt.shots == (0, 1, 2, 3, 4, 5)
    assert prompt.questions == tuple(order.permutation(0)[:6])
    assert [prompt.answer(i) for i in range(6)] == [str(q + 1) for q in prompt.questions]
    cut = prompt.first(2)
    assert cut.text == prompt.text[: prompt.spans[1][1]]
    assert cut.shots == (0, 1)


def test_random_answers_are_shown_and_the_right_one_is_scored():
    order = Order(TASK, "", "random", 2)
    prompts = order.prompts(Plan(), plain())
    assert [prompt.shots for prompt in prompts] == [(n,) for n in grid(8)]
    permutation = order.permutation(0)
    for prompt in prompts:
        [n], [question] = prompt.shots, prompt.questions
        assert question == permutation[n]  # the same as with gold answers
        assert prompt.answer(0) == str(question + 1)
        assert prompt.text.count("A:") == n + 1
    long, short = prompts[-1], prompts[-2]
    assert long.text.startswith(short.text[: short.spans[0][0]])


def test_orders_are_seeded_and_shared():
    gold, permuted = Order(TASK, "", "gold", 0), Order(TASK, "", "permuted", 0)
    assert (gold.permutation(0) == permuted.permutation(0)).all()
    assert (gold.permutation(0) != gold.permutation(1)).any()
    assert (gold.permutation(0) != Order(TASK, "", "gold", 1).permutation(0)).any()


def test_hypotheses_are_what_generated_the_demonstrations():
    pair = Task("p", ("a", "b"), {"matching": ("Yes", "No"), "not_matching": ("No", "Yes")})
    planned = orders([TASK, pair], Plan(("gold", "random"), 1))
    assert [(o.task.name, o.hypothesis) for o in planned] == [
        ("sums", "gold"), ("sums", "random"), ("p", "matching"), ("p", "matching, random"),
        ("p", "not_matching"), ("p", "not_matching, random"),
    ]  # fmt: skip


def test_permuted_labels_that_are_the_other_behaviour_are_left_out():
    pair = Task("p", ("a", "b"), {"matching": ("Yes", "No"), "not_matching": ("No", "Yes")})
    with pytest.warns(CurveWarning, match="p: permuted labels are those of the other behaviour"):
        planned = list(orders([TASK, pair], Plan(("gold", "permuted"), 2)))
    assert [(o.number, o.hypothesis) for o in planned] == [
        (n, name) for n in (0, 1) for name in ("gold", "permuted", "matching", "not_matching")
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ["golden"]}, "--labels must be gold, random, permuted, symbol, got 'golden'"),
        ({"labels": ["gold", "gold"]}, "--labels names one twice"),
        ({"orders": 0}, "--orders"),
        ({"max_shots": 0}, "--max-shots"),
        ({"template": "x"}, "--template"),
        ({"template": "{input} {output}", "chat": True}, "not both"),
    ],
)
def test_designs_that_cannot_be(settings, words):
    with pytest.raises(InputError, match=words):
        Plan(**settings)
