"""Check that a law's posteriors can be trusted: simulate, fit, and see if the truth is found.

Simulation-based calibration. Parameters are drawn from the priors of the law and of the noise,
measurements from the noise; each study is fitted as `bayesicl fit` does; the ranks of the truths
among the draws must be uniform, for every parameter and for the curve at three numbers of shots
that were not measured. Use it on a law of your own, a noise or a layout before you believe fits.

Writes figure and tables to DIR. Each finished simulation is kept there: the same command run again,
or with more simulations, goes on from them.

Exit codes: 0 calibrated, 3 not calibrated, or too few simulations to tell (they must be able to
find a posterior that is off by half its sd, nine times in ten: some 150), 2 bad input.

Example:
  bayesicl check scoring --out check
  bayesicl check path/to/my_law.py --out check --simulations 1000
  bayesicl check power --out check --noise mean-probability --shots 0,1,2,5,10,20
"""

import argparse
from pathlib import Path

from bayesicl.cli import common
from bayesicl.cli.progress import counted
from bayesicl.cli.tables import write_table


def add_options(parser: common.Parser) -> None:
    """LAW, --out, and what to simulate and how to fit it."""
    parser.add_argument("law", metavar="LAW", help="name or file of a law")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for figure and tables")
    common.add_json(parser)
    add = parser.add_argument_group("simulating").add_argument
    add("--simulations", type=int, default=200, metavar="N", help="(default 200; full check: 1000)")
    add("--noise", metavar="NAME", help="how measurements scatter (default: by --kind)")
    add(
        "--kind", type=lambda text: text.replace("-", " "), metavar="KIND",
        help="what a cell is made of: counts, replicated-counts, prompts, aggregated or given-se "
        "(default: by --noise, else by the law); of mean nll nll-aggregated, nll-prompts or "
        "nll-given-se",
    )  # fmt: skip
    add("--hypotheses", type=int, default=1, metavar="H", help="curves of a study (default 1)")
    add("--backgrounds", type=int, default=1, metavar="B", help="unobserved hypotheses (default 1)")
    add(
        "--shots", type=common.shot_list, metavar="LIST",
        help="where each curve is measured (default 0,1,2,4,8,16,32,64)",
    )  # fmt: skip
    add("--total", type=int, default=50, metavar="N", help="items or prompts a cell (default 50)")
    add("--replicates", type=int, default=8, metavar="R", help="of replicated counts (default 8)")
    add(
        "--rows", action="store_true",
        help="simulate rows of a table instead of what the noise declares: this tests the noise's "
        "approximations, too",
    )  # fmt: skip
    common.add_sampling_options(parser.add_argument_group("fitting"))


def run(args: argparse.Namespace) -> int:
    """Simulate and fit, write tables and figure, say what came out."""
    from bayesicl.calibrate import calibrate
    from bayesicl.law import load_law
    from bayesicl.noises import NOISES, kinds_of
    from bayesicl.plot import plot_calibration, save_figure
    from bayesicl.settings import Settings
    from bayesicl.simulate import SHOTS, Layout

    suited = (
        NOISES[args.noise].kinds if args.noise in NOISES else kinds_of(load_law(args.law).scale)
    )
    kind = args.kind or suited[0]
    layout = Layout(kind, args.hypotheses, tuple(args.shots or SHOTS), args.total, args.replicates)
    settings = Settings(chains=args.chains, warmup=args.warmup, draws=args.draws)
    with counted(args.simulations, "simulations") as progress:
        found = calibrate(
            args.law, layout, simulations=args.simulations, noise=args.noise,
            backgrounds=args.backgrounds, rows=args.rows, settings=settings, seed=args.seed,
            device=args.device, folder=args.out, progress=progress,
        )  # fmt: skip
    out = Path(args.out)
    for name in ("ranks", "truths"):
        write_table(getattr(found, name), out / f"{name}.csv")
    write_table(found.table, out / "coverage.csv")
    figure = save_figure(plot_calibration(found), out / "calibration.png")
    common.show(found.table, as_json=args.json)
    if not args.json:
        print(f"\n{found.verdict}\nTables in {out}, figure in {figure}")
    elif not found.calibrated:
        common.say(found.verdict.partition("\n")[0])
    return 0 if found.calibrated else 3
