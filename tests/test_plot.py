"""Figures without pixels: what is drawn, where, and what the words beside it say."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bayesicl.curves import read_curves
from bayesicl.errors import InputError
from bayesicl.law import load_law
from bayesicl.plot import (
    plot_belief,
    plot_comparison,
    plot_curves,
    plot_forest,
    plot_ppc,
    plot_stack,
    save_figure,
)
from bayesicl.plot_check import pit
from bayesicl.plot_parts import ALERT, CAUTION, colour, from_scale, to_scale
from bayesicl.tree import study_dataset

SHOTS = [0, 1, 2, 4, 8, 16]
SHAPE = (2, 50)  # chains, draws
BANDS = {
    "mean": "mean curve",
    "replicate": "one new run of 20 new items",
    "items": "a run on other items",
}


def study(hypotheses=("0",), fit_points=None, **columns):
    frames = [
        pd.DataFrame({"shots": SHOTS, "correct": [0, 5, 9, 13, 15, 20 - h], "total": 20}).assign(
            hypothesis=name, **columns
        )
        for h, name in enumerate(hypotheses)
    ]
    made = read_curves(pd.concat(frames)).studies[0]
    return made if fit_points is None else made.hold_out(fit_points=fit_points)


def make_tree(study, rng, *, law="power", passed=1, failures=(), **posterior):
    """A fit of the schema of `fit`, with made-up draws."""
    H = len(study.hypotheses)
    at = np.flatnonzero(study.cells["fitted"])
    y = study.cells["y"].to_numpy()[at]
    draw = lambda *size: rng.uniform(0.1, 0.9, (*SHAPE, *size))  # noqa: E731
    believed = [*study.hypotheses, "background"]
    if law == "power":
        sites = {name: (["hypothesis"], draw(H)) for name in ("C", "alpha", "L", "ceiling")}
    else:
        sites = {
            "pi": (["believed"], rng.dirichlet(np.ones(H + 1), SHAPE)),
            "K": ([], 10 ** rng.normal(0, 1.5, SHAPE)),
            "gamma": (["hypothesis"], 0.7 + 0.2 * draw(H)),
            "P": (["hypothesis", "believed"], draw(H, H + 1)),
            "ceiling": (["hypothesis"], draw(H)),
        }
    sites |= {"scatter": (["hypothesis"], draw(H) / 5)} | posterior
    coords = {
        "chain": range(SHAPE[0]), "draw": range(SHAPE[1]), "cell": at,
        "hypothesis": list(study.hypotheses), "believed": believed,
    }  # fmt: skip
    predicted = rng.binomial(20, np.clip(y, 0.05, 0.95), (*SHAPE, len(at))) / 20

    def dataset(variables):
        full = {
            name: (["chain", "draw", *dims], value) for name, (dims, value) in variables.items()
        }
        used = {"chain", "draw", *(d for dims, _ in variables.values() for d in dims)}
        return xr.Dataset(full, coords={d: v for d, v in coords.items() if d in used})

    tree = xr.DataTree.from_dict(
        {
            "posterior": dataset(sites),
            "prior": dataset(sites).map(lambda x: x * rng.lognormal(0, 3, x.shape)),
            "log_prior": dataset({"all": ([], rng.normal(size=SHAPE))}),
            "posterior_predictive": dataset({"y": (["cell"], predicted)}),
            "observed_data": xr.Dataset({"y": ("cell", y)}, coords={"cell": at}),
            "study": study_dataset(study),
        }
    )
    tree.attrs = {
        "law": law, "law_path": "", "law_hash": load_law(law).source_hash, "same_as": "[]",
        "noise": "beta-binomial", "backgrounds": 1, "passed": passed, "settings": "{}",
        "diagnostics": json.dumps({"failures": list(failures)}),
        "law_parameters": json.dumps([name for name in sites if name != "scatter"]),
        "warnings": "[]", "warning_kinds": "[]",
    }  # fmt: skip
    return tree


def make_prediction(tree, rng, *, shots=tuple(range(17)), belief=False):
    names = json.loads(tree["study"].attrs["hypotheses"])
    dims, size = ["chain", "draw", "hypothesis", "shots"], (*SHAPE, len(names), len(shots))
    mean = np.clip(0.1 + 0.05 * np.asarray(shots) + 0.02 * rng.normal(size=size), 0, 1)
    noisy = np.clip(mean + 0.1 * rng.normal(size=size), 0, 1)
    data = xr.Dataset(
        {"mean": (dims, mean), "replicate": (dims, noisy), "items": (dims, noisy)},
        coords={"hypothesis": names, "shots": list(shots)},
        attrs={"bands": json.dumps(BANDS)},
    )
    if belief:
        values = rng.dirichlet(np.ones(len(names) + 1), size)
        data["belief"] = ([*dims, "believed"], values)
        data = data.assign_coords(believed=[*names, "background"])
    return data


def texts(figure):
    """All that is written in a figure, its legends included."""
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def legend(figure):
    return [t.get_text() for key in figure.legends for t in key.get_texts()]


def lines(ax, start):
    """Lines whose label begins with `start`."""
    return [line for line in ax.lines if str(line.get_label()).startswith(start)]


def markers(ax, words):
    """The point line of each errorbar whose label holds `words`, and its bars' segments."""
    found = [c for c in ax.containers if words in str(c.get_label())]
    return [(c.lines[0], c.lines[2][0].get_segments()) for c in found]


def curves_figure(rng, made, **settings):
    tree = make_tree(made, rng)
    return plot_curves(tree, prediction=make_prediction(tree, rng), **settings)


# plot_curves


def test_measured_cells_have_bars_of_one_se_within_0_and_1(rng):
    made = study()
    [ax] = curves_figure(rng, made).axes
    [(points, bars)] = markers(ax, "measured, fitted, hypothesis 0")
    np.testing.assert_array_equal(points.get_xdata(), SHOTS)
    np.testing.assert_allclose(points.get_ydata(), made.cells["y"])
    y, error = made.cells["y"].to_numpy(), made.cells["error"].to_numpy()
    ends = np.array([segment[:, 1] for segment in bars])
    np.testing.assert_allclose(ends[:, 0], np.maximum(y - error, 0))
    np.testing.assert_allclose(ends[:, 1], np.minimum(y + error, 1))
    assert ends[0, 0] == 0
    assert ends[-1, 1] == 1


def test_intervals_are_posterior_quantiles(rng):
    tree = make_tree(study(), rng)
    prediction = make_prediction(tree, rng)
    [ax] = plot_curves(tree, prediction=prediction).axes
    draws = prediction["mean"].to_numpy()[:, :, 0].reshape(-1, 17)
    [median] = lines(ax, "median")
    np.testing.assert_allclose(median.get_ydata(), np.median(draws, axis=0))
    bands = {c.get_label(): c for c in ax.collections if "interval" in str(c.get_label())}
    for level, tails in (("50 %", (25, 75)), ("90 %", (5, 95))):
        ys = bands[f"{level} interval, mean curve, hypothesis 0"].get_paths()[0].vertices[:, 1]
        edges = np.percentile(draws, tails, axis=0)
        assert (ys.min(), ys.max()) == pytest.approx((edges[0].min(), edges[1].max()))
    new = prediction["replicate"].to_numpy()[:, :, 0].reshape(-1, 17)
    [low], [high] = lines(ax, "5 %"), lines(ax, "95 %")
    assert low.get_linestyle() == high.get_linestyle() == "--"
    np.testing.assert_allclose(low.get_ydata(), np.percentile(new, 5, axis=0))
    np.testing.assert_allclose(high.get_ydata(), np.percentile(new, 95, axis=0))


def test_words_of_one_curve(rng):
    figure = curves_figure(rng, study(model="m", variant="base", task="t", chance=0.25))
    [ax] = figure.axes
    assert figure.get_suptitle() == "m | base | t — power"
    assert ax.get_xlabel() == "demonstrations before the query (shots)"
    assert ax.get_ylabel() == "accuracy"
    assert legend(figure) == [
        "measured, ± 1 standard error",
        "posterior median, mean curve",
        "50 % interval, mean curve",
        "90 % interval, mean curve",
        "90 % interval, one new run of 20 new items",
        "chance level (0.25)",
    ]
    [chance] = lines(ax, "chance")
    assert chance.get_linestyle() == ":"
    assert set(chance.get_ydata()) == {0.25}
    assert not lines(ax, "divider")


def test_probability_axis_of_prompts(rng):
    table = pd.DataFrame({"shots": [0, 1, 2, 4], "prob": [0.01, 0.02, 0.04, 0.05], "total": 333})
    [made] = read_curves(table)
    tree = make_tree(made, rng)
    prediction = make_prediction(tree, rng)
    prediction["mean"] = prediction["mean"] / 20
    prediction["replicate"] = prediction["replicate"] / 20
    [ax] = plot_curves(tree, prediction=prediction).axes
    assert ax.get_ylabel() == "probability of the right answer"
    assert -0.01 < ax.get_ylim()[0] <= 0  # all is low: the axis ends soon above
    assert 0.05 < ax.get_ylim()[1] < 0.2


def test_axes_show_0_to_1_and_all_shots(rng):
    made = study()
    for log in (False, True):
        [ax] = curves_figure(rng, made, log_shots=log).axes
        assert ax.get_ylim()[0] < 0 < 1 < ax.get_ylim()[1] < 1.1
        assert -1 < ax.get_xlim()[0] < 0
        assert 16 < ax.get_xlim()[1] < 18
    ticks = ax.get_xticks()
    assert [ax.xaxis.get_major_formatter()(x, 0) for x in ticks] == ["0", "1", "2", "5", "10"]
    place = ax.transScale.transform([(x, 0.0) for x in ticks])[:, 0]
    np.testing.assert_allclose(place, np.log1p(ticks))


def test_log_shots_shows_0_and_names_thousands(rng):
    tree = make_tree(study(), rng)
    prediction = make_prediction(tree, rng, shots=(1, 10, 100, 5000))
    [ax] = plot_curves(tree, prediction=prediction, log_shots=True).axes
    assert ax.get_xlim()[0] < 0
    names = [ax.xaxis.get_major_formatter()(x, 0) for x in ax.get_xticks()]
    assert names == ["0", "1", "3", "10", "30", "100", "300", "1,000", "3,000"]


def test_scale_of_shots_has_an_inverse():
    shots = np.array([0.0, 1, 10, 1e7])
    for log in (False, True):
        np.testing.assert_allclose(from_scale(to_scale(shots, log), log), shots, rtol=1e-12)


def test_held_out_cells_are_hollow_and_divided_off(rng):
    made = study(fit_points=4)
    for log, middle in ((False, 6.0), (True, np.sqrt(5 * 9) - 1)):
        figure = curves_figure(rng, made, log_shots=log)
        [ax] = figure.axes
        [(fitted, _)], [(held, _)] = markers(ax, "fitted"), markers(ax, "held out")
        assert to_hex(fitted.get_markerfacecolor()) == to_hex(colour(0))
        assert held.get_markerfacecolor() == "white"
        assert to_hex(held.get_markeredgecolor()) == to_hex(colour(0))
        assert list(fitted.get_xdata()) == SHOTS[:4]
        assert list(held.get_xdata()) == SHOTS[4:]
        [line] = lines(ax, "divider")
        assert line.get_xdata()[0] == pytest.approx(middle)
        assert [t.get_text() for t in ax.texts] == ["fitted | predicted"]
        assert ax.texts[0].xy[0] == pytest.approx(middle)
        assert "measured, held out" in legend(figure)


def test_each_hypothesis_has_its_colour_marker_and_divider(rng):
    made = study(("a", "b"), chance=0.5)
    fitted = np.array([True] * 3 + [False] * 3 + [True] * 5 + [False])
    made.cells["fitted"] = fitted
    figure = curves_figure(rng, made)
    [ax] = figure.axes
    medians = lines(ax, "median")
    assert [line.get_color() for line in medians] == [colour(0), colour(1)]
    signs = {points.get_marker() for points, _ in markers(ax, "measured")}
    assert len(signs) == 2
    dividers = lines(ax, "divider")
    assert [(d.get_color(), d.get_xdata()[0]) for d in dividers] == [
        (colour(0), 3.0),
        (colour(1), 12.0),
    ]
    assert len(ax.texts) == 1
    assert legend(figure)[:2] == ["hypothesis a", "hypothesis b"]
    assert len(lines(ax, "chance")) == 1

    made.cells["fitted"] = np.tile([True] * 5 + [False], 2)
    made.cells["chance"] = np.repeat([0.5, 0.25], 6)
    figure = curves_figure(rng, made)
    [ax] = figure.axes
    [divider] = lines(ax, "divider")  # common to both
    assert divider.get_xdata()[0] == 12.0
    assert [line.get_color() for line in lines(ax, "chance")] == [colour(0), colour(1)]
    assert "chance level of each hypothesis" in legend(figure)


def test_band_of_new_items(rng):
    figure = curves_figure(rng, study(), band="items")
    assert "90 % interval, a run on other items" in legend(figure)


@pytest.mark.parametrize("plot", [plot_curves, plot_belief, plot_ppc])
def test_a_fit_that_did_not_converge_says_so(plot, rng):
    tree = make_tree(study(), rng, law="scoring", passed=0, failures=("R-hat 1.2", "3 divergent"))
    settings = {"prediction": make_prediction(tree, rng, belief=True)}
    figure = plot(tree, **({} if plot is plot_ppc else settings))
    last = figure.get_suptitle().split("\n")[-1]
    assert last == "not converged: R-hat 1.2; 3 divergent"


def test_a_fall_is_a_caution_on_the_figure(rng):
    tree = make_tree(study(), rng)
    tree.attrs |= {"warnings": '["falls; law power cannot fall"]', "warning_kinds": '["fall"]'}
    figure = plot_curves(tree, prediction=make_prediction(tree, rng))
    assert figure.get_suptitle().split("\n")[-1] == "caution: falls; law power cannot fall"


def test_cautions_are_calmer_than_alarms(rng):
    tree = make_tree(study(task="t"), rng)
    part = make_prediction(tree, rng)
    failed = make_tree(study(task="t"), rng, passed=0, failures=["R-hat"])
    tones = [
        plot_stack([made], [part], [1.0], part, wrong=wrong)._suptitle.get_color()
        for made, wrong in (
            (tree, ["", "caution: far."]),
            (tree, ["ALARM: odd.", "caution: far."]),
            (failed, ["caution: far."]),
            (tree, []),
        )
    ]
    assert tones[:3] == [CAUTION, ALERT, ALERT]
    assert tones[3] not in (CAUTION, ALERT)


def test_stack_shows_laws_with_weights_bands_and_alarm(rng):
    made = study(fit_points=4, task="t")
    trees = [
        make_tree(made, rng),
        make_tree(made, rng, law="scoring", passed=0, failures=["R-hat"]),
    ]
    parts = [make_prediction(tree, rng) for tree in trees]
    figure = plot_stack(trees, parts, [0.25, 0.75], parts[0], wrong=["ALARM: beware."])
    [ax] = figure.axes
    assert figure.get_suptitle() == "t — stack\nALARM: beware.\nscoring not converged: R-hat"
    draws = parts[0]["mean"].to_numpy()[:, :, 0].reshape(-1, 17)
    levels = {c.get_label(): c for c in ax.collections if "interval" in str(c.get_label())}
    assert len(levels) == 3
    ys = levels["80 % interval, mean curve, stack"].get_paths()[0].vertices[:, 1]
    edges = np.percentile(draws, (10, 90), axis=0)
    assert (ys.min(), ys.max()) == pytest.approx((edges[0].min(), edges[1].max()))
    for line, part in zip(lines(ax, "law"), parts, strict=True):
        own = part["mean"].to_numpy()[:, :, 0].reshape(-1, 17)
        np.testing.assert_allclose(line.get_ydata(), np.median(own, axis=0))
    assert legend(figure) == [
        "measured, ± 1 standard error",
        "measured, held out",
        "median of the mean curve",
        "90 % interval, mean curve",
        "80 % interval, mean curve",
        "50 % interval, mean curve",
        "90 % interval, one new run of 20 new items",
        "median, power, weight 0.25",
        "median, scoring, weight 0.75",
    ]
    [(points, _)] = markers(ax, "measured, held out")
    assert points.get_xdata().tolist() == SHOTS[4:]


def test_a_long_alarm_has_room_of_its_own_above_the_axes(rng):
    made = make_tree(study(task="t"), rng)
    part, long = make_prediction(made, rng), "ALARM: " + "no law will do; " * 30

    def drawn(*wrong):
        figure = plot_stack([made], [part], [1.0], part, wrong=wrong)
        figure.draw_without_rendering()
        return figure, figure.axes[0].get_tightbbox(), figure._suptitle.get_window_extent()

    figure, axes, words = drawn(long)
    _, calm, _ = drawn()
    assert words.y0 >= axes.y1
    assert words.x0 >= 0
    assert words.x1 <= figure.bbox.x1
    assert words.y1 <= figure.bbox.y1
    assert axes.height == pytest.approx(calm.height, rel=0.05)


def test_stack_marks_the_shots_to_a_threshold(rng):
    tree = make_tree(study(task="t"), rng)
    part = make_prediction(tree, rng)
    rising = np.linspace(0.1, 0.6, 17) + np.linspace(-0.1, 0.1, 101)[:, None]
    mean = np.broadcast_to(rising[None, :, None, :], (1, 101, 1, 17))
    whole = part.isel(chain=[0], draw=np.zeros(101, int)).assign_coords(draw=np.arange(101))
    whole["mean"] = (("chain", "draw", "hypothesis", "shots"), mean)
    whole.attrs["outcome"] = "counts"
    figure = plot_stack([tree], [part], [1.0], whole, threshold=0.35)
    share = (rising >= 0.35).mean(axis=0)
    n = [int(np.argmax(share >= q)) for q in (0.5, 0.05, 0.95)]
    assert n[1] < n[0] < n[2]
    said = f"shots to 0.35, n*: median {n[0]}, 90 % interval {n[1]} to {n[2]}"
    assert said in [text.replace("\n", " ") for text in legend(figure)]
    [ax] = figure.axes
    interval, middle = lines(ax, "n*")
    assert middle.get_label() == "n*, median"
    assert list(interval.get_xdata()) == n[1:]
    assert list(middle.get_xdata()) == n[:1]
    figure = plot_stack([tree], [part], [1.0], whole, threshold=0.6)  # by half of the paths
    assert [line.get_xdata()[-1] for line in lines(figure.axes[0], "n*, beyond")] == [16]
    figure = plot_stack([tree], [part], [1.0], whole, threshold=0.9)
    said = "shots to 0.9, n*: median beyond\u00a016, 90 % interval beyond\u00a016"
    assert said in [text.replace("\n", " ") for text in legend(figure)]
    assert not lines(figure.axes[0], "n*")


def test_long_names_wrap_and_dollars_are_no_formulas(rng):
    made = study(model="m$_x", task="of many words " * 12, variant=r"$\frac")
    figure = curves_figure(rng, made)
    title = figure.get_suptitle()
    assert title.count("\n") >= 2
    assert r"m$_x | $\frac" in title
    figure.draw_without_rendering()  # r"$\frac" as a formula would raise


def test_it_predicts_where_no_prediction_is_given(rng):
    tree = make_tree(study(), rng)
    tree.attrs["settings"] = json.dumps({"draws": 50})
    [ax] = plot_curves(tree).axes
    [median] = lines(ax, "median")
    assert list(median.get_xdata()) == list(range(17))
    C, alpha, L = (tree["posterior"][name].to_numpy()[:, :, 0] for name in ("C", "alpha", "L"))
    at_3 = np.median(np.exp(-C * 4.0**-alpha - L))
    assert median.get_ydata()[3] == pytest.approx(at_3)


def test_bad_predictions_are_refused(rng):
    tree = make_tree(study(), rng)
    prediction = make_prediction(tree, rng)
    for band in ("mean", "nonsense"):
        with pytest.raises(InputError, match=f"no band '{band}'.*it has 'replicate', 'items'"):
            plot_curves(tree, prediction=prediction, band=band)
    other = make_prediction(make_tree(study(("a", "b")), rng), rng)
    with pytest.raises(InputError, match="other hypotheses"):
        plot_curves(tree, prediction=other)
    with pytest.raises(InputError, match="2 shots or more"):
        plot_curves(tree, prediction=prediction.isel(shots=[0]))


# plot_belief


def test_belief_has_a_panel_for_each_generating_hypothesis(rng):
    tree = make_tree(study(("a", "b")), rng, law="scoring")
    prediction = make_prediction(tree, rng, belief=True)
    figure = plot_belief(tree, prediction=prediction, log_shots=True)
    assert [ax.get_title() for ax in figure.axes] == [
        "demonstrations of hypothesis a",
        "demonstrations of hypothesis b",
    ]
    for h, ax in enumerate(figure.axes):
        assert ax.get_ylabel() == "belief in a hypothesis (probability)"
        assert ax.get_xlabel() == "demonstrations before the query (shots)"
        assert len(ax.lines) == len(ax.collections) == 3
        for m, line in enumerate(ax.lines):
            draws = prediction["belief"].isel(hypothesis=h, believed=m)
            np.testing.assert_allclose(line.get_ydata(), draws.median(("chain", "draw")))
    assert legend(figure) == [
        "median belief in hypothesis a",
        "median belief in hypothesis b",
        "median belief in background",
        "90 % interval",
    ]


def test_belief_of_a_law_that_has_none_is_refused(rng):
    tree = make_tree(study(), rng)
    with pytest.raises(InputError, match="law 'power' has no belief"):
        plot_belief(tree, prediction=make_prediction(tree, rng))


# plot_forest


def panels(figure):
    return {ax.get_xlabel().split("\n")[0]: ax for ax in figure.axes}


def rows(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_forest_of_one_fit(rng):
    tree = make_tree(study(model="m"), rng)
    figure = plot_forest(tree)
    found = panels(figure)
    assert list(found) == ["C", "alpha", "L", "ceiling"]  # without the noise's scatter
    assert rows(figure) == ["m"]
    assert found["L"].get_xlabel() == "L\n-log p with endless\ndemonstrations, nats"
    draws = tree["posterior"]["alpha"].to_numpy()
    for start, tails in (("90 %", (5, 95)), ("50 %", (25, 75)), ("median", (50,))):
        [line] = lines(found["alpha"], f"alpha, {start}")
        np.testing.assert_allclose(line.get_xdata(), np.percentile(draws, tails))
    assert legend(figure) == ["posterior median", "50 % interval", "90 % interval"]
    assert found["alpha"].get_xscale() == "linear"


def test_forest_rows_are_fits_and_hypotheses(rng):
    trees = [
        make_tree(study(("a", "b"), model="m"), rng, law="scoring"),
        make_tree(study(model="n"), rng, passed=0),
        make_tree(study(model="n", fit_points=4), rng, law="scoring"),
    ]
    figure = plot_forest(trees)
    found = panels(figure)
    # The ceiling says what gamma says, but the power law has no gamma.
    assert set(found) == {"pi", "K", "gamma", "ceiling", "C", "alpha", "L"}
    assert [name.replace("\n", " ") for name in rows(figure)] == [
        "m — scoring",
        "hypothesis a",
        "hypothesis b",
        "background",
        "n — power (not converged)",
        "n — scoring, first 25\u00a0% of shots",
    ]
    tones = [text.get_color() for text in figure.axes[0].get_yticklabels()]
    assert [tone != "black" for tone in tones] == [False] * 4 + [True, False]
    ys = dict(zip(rows(figure), figure.axes[0].get_yticks(), strict=True))
    heights = lambda name, ax: [line.get_ydata()[0] for line in lines(ax, f"{name}, median")]  # noqa: E731
    order = list(ys.values())
    assert heights("K", found["K"]) == [order[0], order[5]]
    assert heights("pi", found["pi"]) == [order[1], order[2], order[3], order[5]]
    assert heights("gamma", found["gamma"]) == [order[1], order[2], order[5]]
    assert heights("C", found["C"]) == [order[4]]
    assert found["K"].get_xscale() == "log"
    assert order == sorted(order)
    low, high = figure.axes[0].get_ylim()
    assert low > order[-1] > order[0] > high  # the first row on top


def test_forest_of_asked_parameters(rng):
    tree = make_tree(study(("a", "b")), rng, law="scoring", mine=([], np.ones(SHAPE)))
    figure = plot_forest([tree], parameters=["P", "mine"])
    assert list(panels(figure)) == ["P", "mine"]
    assert set(rows(figure)) == {
        "study", "hypothesis a", "hypothesis b", "hypothesis a under hypothesis b",
        "hypothesis b under hypothesis a", "hypothesis a under background",
        "hypothesis b under background",
    }  # fmt: skip
    assert panels(plot_forest(tree, parameters="K")).keys() == {"K"}


def test_forest_draws_faint_what_is_not_identified(rng):
    tree = make_tree(study(model="m"), rng)
    wide = tree["posterior"]["alpha"]  # as wide as its prior
    tree["prior"] = tree["prior"].to_dataset().assign(alpha=wide + 0.0)
    figure = plot_forest(tree, parameters=["C", "alpha"])
    found = panels(figure)
    for name, hollow in (("C", False), ("alpha", True)):
        [median] = lines(found[name], f"{name}, median")
        [bar] = lines(found[name], f"{name}, 90 %")
        assert (median.get_markerfacecolor() == "white") == hollow
        assert (bar.get_alpha() < 1) == hollow
    assert legend(figure)[-1] == "not identified by the data"


def test_forest_of_thirty_fits_has_a_row_for_each(rng):
    trees = [make_tree(study(model=f"model {i}"), rng) for i in range(30)]
    figure = plot_forest(trees, parameters=["C"])
    assert rows(figure) == [f"model {i}" for i in range(30)]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_forest_refuses_what_is_not_there(rng):
    tree = make_tree(study(), rng)
    with pytest.raises(InputError, match="no fit has a parameter 'gamma': choose from C, alpha"):
        plot_forest(tree, parameters=["gamma"])
    with pytest.raises(InputError, match="at least one fit"):
        plot_forest([])
    with pytest.raises(InputError, match="no parameters"):
        plot_forest(tree, parameters=[])


# plot_comparison

TABLE = pd.DataFrame(
    {
        "law": ["bounded", "power", "scoring = general = sampling, and some more words"],
        "elpd_diff": [-3.0, 0.0, -20.5],
        "elpd_diff_se": [2.0, 0.0, 4.0],
        "weight": [0.25, 0.75, np.nan],
        "verdict": ["not told apart", "best", "worse"],
    }
)


def test_comparison_shows_differences_weights_and_verdicts():
    figure = plot_comparison(TABLE, title="m | trec")
    [ax] = figure.axes
    assert figure.get_suptitle() == "m | trec"
    assert ax.get_xlabel() == "elpd difference to the best law (nats), ± 2 standard errors"
    names = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
    assert names == ["power", "bounded", TABLE["law"][2]]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the best on top
    [(points, bars)] = markers(ax, "elpd difference")
    np.testing.assert_array_equal(points.get_xdata(), [0, -3, -20.5])
    np.testing.assert_array_equal([b[:, 0] for b in bars], [[0, 0], [-7, 1], [-28.5, -12.5]])
    beside = [t.get_text() for t in ax.texts]
    assert beside == [
        "stacking\nweight", "0.75", "0.25", "n/a",
        "against\nthe best", "best", "not told apart", "worse",
    ]  # fmt: skip


def test_comparison_refuses_other_tables():
    with pytest.raises(InputError, match="column 'weight'"):
        plot_comparison(TABLE.drop(columns="weight"), title="")
    with pytest.raises(InputError, match="no laws"):
        plot_comparison(TABLE[:0], title="")


# plot_ppc


def test_ppc_shows_cells_beside_new_measurements(rng):
    made = study(("a", "b"), fit_points=5)
    tree = make_tree(made, rng)
    figure = plot_ppc(tree, log_shots=True)
    cells, ranks = figure.axes
    assert cells.get_xlabel() == "demonstrations before the query (shots)"
    assert cells.get_ylabel() == "accuracy"
    assert ranks.get_xlabel().startswith("PIT: predictive probability")
    assert "probability" in ranks.get_ylabel()
    predicted = tree["posterior_predictive"]["y"].to_numpy().reshape(-1, 10)
    for h, name in enumerate("ab"):
        own = slice(5 * h, 5 * h + 5)
        [measured] = lines(cells, f"measured, hypothesis {name}")
        assert list(measured.get_xdata()) == SHOTS[:5]
        np.testing.assert_allclose(measured.get_ydata(), made.cells.query("fitted")["y"][own])
        [median] = lines(cells, f"median, new measurement, hypothesis {name}")
        np.testing.assert_allclose(median.get_ydata(), np.median(predicted[:, own], axis=0))
        bars = np.array([s[:, 1] for s in cells.collections[h].get_segments()])
        np.testing.assert_allclose(bars.T, np.percentile(predicted[:, own], (5, 95), axis=0))
    assert legend(figure)[-1] == "90 % interval, new measurement"


def test_ppc_ecdf_runs_from_0_to_1_inside_its_axes(rng):
    tree = make_tree(study(), rng)
    one, same, other = (plot_ppc(tree, seed=seed).axes[1] for seed in (1, 1, 2))
    curve = lambda ax: lines(ax, "fitted cells")[0].get_xydata()  # noqa: E731
    assert curve(one)[0].tolist() == [0, 0]
    assert curve(one)[-1].tolist() == [1, 1]
    assert (np.diff(curve(one), axis=0) >= 0).all()
    np.testing.assert_array_equal(curve(one), curve(same))
    assert (curve(one) != curve(other)).any()
    assert {t.get_text() for t in one.get_legend().get_texts()} == {
        "90 % simultaneous band",
        "ideal: uniform PIT",
        "fitted cells",
    }


def test_pit_is_uniform_for_counts_from_the_predictive_itself(rng):
    total, n = 7, 4000
    draws = xr.DataArray(
        rng.binomial(total, 0.6, (2, 500, 1)) / total, dims=("chain", "draw", "cell")
    )
    y = rng.binomial(total, 0.6, n) / total
    values = np.concatenate([pit(draws, y[i : i + 1], rng) for i in range(n)])
    share = np.array([(values <= u).mean() for u in np.linspace(0.05, 0.95, 19)])
    np.testing.assert_allclose(share, np.linspace(0.05, 0.95, 19), atol=0.05)


# Files and matplotlib's own settings


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.PDF", b"%PDF")]
)
def test_save_is_whole_and_the_same_again(name, start, rng, tmp_path):
    figure = curves_figure(rng, study())
    path = save_figure(figure, tmp_path / "new" / name)
    first = path.read_bytes()
    assert first.startswith(start)
    assert save_figure(figure, path).read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_save_refuses_other_endings_and_places(tmp_path):
    for name in ("a.jpg", "a"):
        with pytest.raises(InputError, match=re.escape("saved as .png, .svg or .pdf")):
            save_figure(Figure(), tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(Figure(), tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(Figure(), tmp_path / "folder.png")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder.png"}


def test_matplotlib_settings_are_left_alone(rng, tmp_path):
    settings = lambda: {k: v for k, v in matplotlib.rcParams.copy().items() if k != "backend"}  # noqa: E731
    before = settings()
    tree = make_tree(study(), rng, law="scoring")
    figure = plot_belief(tree, prediction=make_prediction(tree, rng, belief=True))
    save_figure(figure, tmp_path / "a.png")
    plot_forest(tree)
    plot_ppc(tree)
    plot_comparison(TABLE, title="t")
    assert settings() == before


@pytest.mark.parametrize("cut", ["curves", "belief", "ppc", "forest", "comparison"])
def test_nothing_written_is_cut_off(cut, rng):
    names = ("a hypothesis with a rather long name", "b")
    made = study(names, fit_points=4, model="model " * 12, task="t" * 120)
    tree = make_tree(made, rng, law="scoring")
    prediction = make_prediction(tree, rng, belief=True)
    figure = {
        "curves": lambda: plot_curves(tree, prediction=prediction),
        "belief": lambda: plot_belief(tree, prediction=prediction),
        "ppc": lambda: plot_ppc(tree),
        "forest": lambda: plot_forest([tree, tree]),
        "comparison": lambda: plot_comparison(TABLE, title="word " * 60),
    }[cut]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.findobj(matplotlib.text.Text):
        if not text.get_text() or not text.get_visible() or _off_axis(text, figure):
            continue
        box = text.get_window_extent()
        words = text.get_text()
        assert box.x0 >= -1, words
        assert box.y0 >= -1, words
        assert box.x1 <= width + 1, words
        assert box.y1 <= height + 1, words


def _off_axis(text, figure):
    """A tick label beyond the limits of its axis, which is never drawn."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            drawn = {id(t) for tick in axis._update_ticks() for t in (tick.label1, tick.label2)}
            known = {id(t) for tick in axis.get_major_ticks() for t in (tick.label1, tick.label2)}
            if id(text) in known - drawn:
                return True
    return False


def test_importing_the_package_leaves_matplotlib_out():
    code = "import sys, bayesicl, bayesicl.forecast; sys.exit('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0
