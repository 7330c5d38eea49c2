"""Scales by calculus; and mean nll, the other one, from a table to figures."""

import json

import numpy as np
import pandas as pd
import pytest
import simulate

from bayesicl import fit, load, read_curves, summarise
from bayesicl.cli import main
from bayesicl.errors import CurveWarning, InputError
from bayesicl.forecast import predict
from bayesicl.learn import learn
from bayesicl.plot import plot_belief, plot_curves, plot_ppc
from bayesicl.scale import MEAN_NLL, PROBABILITY, scale_of
from bayesicl.settings import Settings

reuse_engines = simulate.reuse_engines  # a fixture
SHOTS = [0, 1, 2, 4, 8, 16, 32, 64]
SHORT = Settings(chains=2, warmup=100, draws=100)
LEVEL = '''"""Mean nll that does not change."""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesicl.law import Law
from bayesicl.priors import hypotheses
from bayesicl.scale import MEAN_NLL


def curve(shots, L):
    return jnp.log(L) + 0.0 * shots


def model(design):
    with hypotheses(design):
        L = numpyro.sample("L", dist.Exponential(1.0))
    return curve(design.shots, design.per_cell(L))


law = Law("level", curve, model, reference="made for the tests", scale=MEAN_NLL)
'''


@pytest.mark.parametrize("scale", [PROBABILITY, MEAN_NLL], ids=lambda scale: scale.name)
def test_bend_is_half_the_second_derivative_of_the_variance(scale):
    m, h = np.linspace(0.05, 0.95, 7), 1e-4
    up, here, down = (scale.variance(x) for x in (m + h, m, m - h))
    np.testing.assert_allclose(scale.bend(m), (up - 2 * here + down) / (2 * h**2), rtol=1e-4)


def test_scales_by_outcome():
    assert scale_of("counts") == scale_of("prob") == PROBABILITY
    assert scale_of("mean_nll") == MEAN_NLL
    y = np.array([-0.5, 0.5, 1.5])
    assert PROBABILITY.cut(y).tolist() == [0.0, 0.5, 1.0]
    assert MEAN_NLL.cut(y).tolist() == [0.0, 0.5, 1.5]
    assert MEAN_NLL.of_probability(0.25) == pytest.approx(np.log(4))


def table_of(C, alpha=0.7, L=1.0, R=30, seed=0, **columns):
    """nll of R single prompts a cell: Gamma about the many-shot law, of variance mean^1.5 / 2."""
    rng = np.random.default_rng(seed)
    mean = C * (1.0 + np.array(SHOTS)) ** -alpha + L
    k = 2 * np.sqrt(mean)
    rows = pd.DataFrame({"replicate": np.repeat(np.arange(R), 8), "shots": np.tile(SHOTS, R)})
    return rows.assign(nll=rng.gamma(k, mean / k, (R, 8)).ravel(), **columns)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Fits of two models under the many-shot law, half of one's cells held out."""
    out = tmp_path_factory.mktemp("fits")
    both = [table_of(4.0, model="small"), table_of(2.0, seed=1, model="large")]
    pd.concat(both).to_csv(out / "curves.csv", index=False)
    (out / "level.py").write_text(LEVEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAYESICL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        laws = ["manyshot", str(out / "level.py")]
        command = ["fit", str(out / "curves.csv"), "--out", str(out), "--outcome", "mean_nll"]
        settings = ["--warmup", "200", "--draws", "500", "--executor", "here", "--seed", "1"]
        assert main([*command, "--law", *laws, *settings]) == 0
    return out


def fits_of(fitted, law):
    return [str(path) for path in fitted.glob("*.nc") if load(path).attrs["law"] == law]


def run(capsys, *argv):
    """Exit code, stdout and stderr of one command."""
    code = main([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_fits_find_the_truth(fitted):
    for path in fits_of(fitted, "manyshot"):
        tree = load(path)
        summary = summarise(tree)
        table = summary.table.set_index("parameter")
        assert tree.attrs["noise"] == "mean-nll"
        assert summary.table["parameter"].tolist()[:2] == ["nll_zero", "nll_last"]
        assert not {"p_zero", "p_last", "ceiling"} & set(table.index)
        C = {"small": 4.0, "large": 2.0}[json.loads(tree["study"].attrs["key"])["model"]]
        truth = {"C": C, "alpha": 0.7, "L": 1.0, "c": 0.5, "nll_zero": C + 1.0}
        for name, value in truth.items():
            row = table.loc[name]
            sd = (row["upper"] - row["lower"]) / 3.3
            assert abs(row["median"] - value) < 3.5 * sd, name
        assert table.loc[["nll_zero", "nll_last", "c"], "identified"].all()
        assert table["meaning"].str.len().gt(0).all()
        again = tree["posterior_predictive"]["y"].to_numpy()
        assert again.min() >= 0
        assert again.max() > 1


def test_laws_are_compared(fitted, capsys):
    code, out, _ = run(capsys, "compare", fitted, "--json")
    assert code == 0
    table = pd.DataFrame(json.loads(out)).set_index("law")
    assert table["elpd_diff"]["manyshot"] == 0 > table["elpd_diff"]["level"]
    code, _, err = run(capsys, "compare", *fits_of(fitted, "manyshot"))
    assert code == 2
    assert "one law (manyshot) is nothing to compare" in err


def test_a_forecast_falls_to_its_threshold(fitted, capsys):
    fits = fits_of(fitted, "manyshot")
    asked = ["--shots", "0,4,1000", "--threshold", "2.5", "--gain", "0.2", "--json"]
    code, out, _ = run(capsys, "forecast", *fits, *asked)
    assert code == 0
    tables = json.loads(out)
    mean = {(r["study"], r["shots"]): r for r in tables["curves"] if r["band"] == "mean curve"}
    assert mean["small", 0]["median"] > 4 > mean["small", 4]["median"] > 2
    assert mean["small", 1000]["median"] < 1.5
    assert {r["band"] for r in tables["curves"]} == {"mean curve", "a new mean over 30 prompts"}
    reached = {(r["study"], r["shots"]): r["probability"] for r in tables["reached"]}
    assert reached["small", 0] == 0  # it begins at 5 nats
    assert reached["large", 4] == reached["small", 1000] == 1
    for row in tables["shots_to"]:  # C (n + 1)^-.7 + 1 = 2.5
        n = ({"small": 4.0, "large": 2.0}[row["study"]] / 1.5) ** (1 / 0.7) - 1
        assert row["n* 5%"] <= n + 1
        assert row["n* 95%"] >= n
    assert all(1 < row["useful_shots"] < 500 for row in tables["useful"])
    _, out, _ = run(capsys, "forecast", fits[0], "--shots", "0")
    assert out.endswith("with --law stack, under a prior of your own (bayesicl learn).\n")


def test_what_was_held_out_is_scored(fitted, tmp_path, capsys):
    code, out, _ = run(
        capsys, "forecast", fitted / "curves.csv", "--outcome", "mean_nll", "--law", "all",
        "--noise", "misfit", "--fit-points", "5", "--out", tmp_path, "--warmup", "200",
        "--draws", "500", "--json",
    )  # fmt: skip
    assert code in (0, 3)
    [row] = json.loads(out)["scores"]
    assert (row["law"], row["cells"]) == ("manyshot", 6)
    assert row["crps"] < 0.5
    curve = predict(load(next(tmp_path.glob("*.nc"))), [0, 10, 1000])
    assert float(curve["mean"].max()) > 1
    assert float(curve["replicate"].min()) >= 0
    wide = curve["replicate"].std(("chain", "draw")).to_numpy()[0]
    assert wide[2] > 0


def test_models_are_contrasted(fitted, capsys):
    fits = fits_of(fitted, "manyshot")
    command = ["contrast", *fits, "--between", "model=small,large"]
    code, out, _ = run(capsys, *command, "--json")
    assert code == 0
    table = pd.DataFrame(json.loads(out))
    assert table["quantity"].tolist() == ["log C", "log alpha", "log L", "nll(n)", "nll(n)"]
    first = table[table["shots"] == 0].to_dict("records")[0]
    assert first["lower"] < -2.0 < first["upper"]
    code, out, _ = run(capsys, *command)
    assert "C[0] fell" in out
    assert "nll(n) " not in out.partition("small to large:")[2]


def test_figures(fitted, tmp_path, capsys):
    code, out, _ = run(capsys, "plot", fitted, "--out", tmp_path, "--log-shots", "--kind", "forest")
    assert code == 0
    assert "forest" in out
    tree = load(fits_of(fitted, "manyshot")[0])
    curves, check = plot_curves(tree), plot_ppc(tree)
    for ax in (curves.axes[0], check.axes[0]):
        assert ax.get_ylabel() == "mean nll of the right answer (nats)"
        assert ax.get_ylim()[1] > tree["study"]["y"].max()
    with pytest.raises(InputError, match="no belief"):
        plot_belief(tree)


def wandering(n):
    """Means of 100 prompts of n tasks: many-shot curves, and a misfit that goes with the mean."""
    rng, x = np.random.default_rng(1), np.log1p(SHOTS)
    root = np.linalg.cholesky(np.exp(-np.abs(x[:, None] - x) / 2.0))
    tables = []
    for i in range(n):
        C, alpha, L = np.exp(rng.normal([1.5, -0.5, 0.0], 0.2))
        law = C * np.exp(-alpha * x) + L
        mean = law + 0.05 * law**0.75 * (root @ rng.standard_normal(8))
        y = mean + np.sqrt(0.5 * mean**1.5 / 100) * rng.standard_normal(8)
        tables.append(pd.DataFrame({"task": f"t{i}", "shots": SHOTS, "mean_nll": y, "total": 100}))
    return tables


def test_a_stack_under_a_prior_of_ones_own(tmp_path, capsys):
    """Learned from mean nll, of a law that comes with bayesicl and of one in a file."""
    own, prior, new = (tmp_path / name for name in ("level.py", "mine.json", "new.csv"))
    own.write_text(LEVEL)
    first, *others = wandering(9)
    first.to_csv(new, index=False)
    bank = fit(read_curves(pd.concat(others)), own, noise="misfit", settings=SHORT)
    record = learn(bank, source="made up")
    assert set(record["noises"]) == {"mean-nll", "misfit"}
    mean = pd.concat(others).groupby("task")["mean_nll"].mean().mean()
    assert np.exp(record["laws"]["level"]["centre"]) == pytest.approx(mean, rel=0.4)
    other = bank[0].copy(deep=True)
    other["study"].attrs["outcome"] = "prob"
    with pytest.raises(
        InputError, match="are of mean_nll and probability: learn a prior from each"
    ):
        learn([*bank, other], source="made up")
    usual = {"sites": ["C", "alpha", "L"], "centre": [1.5, -0.5, 0.0]}
    record["laws"]["manyshot"] = usual | {"scale": np.diag([0.04, 0.04, 0.04]).tolist()}
    prior.write_text(json.dumps(record))
    command = [
        "forecast", new, "--prior", prior, "--out", tmp_path / "new", "--fit-points", "5",
        "--threshold", "2.5", "--executor", "here", "--json",
    ]  # fmt: skip
    prior.write_text(json.dumps(record | {"weights": {"manyshot": 1.0}}))
    code, _, err = run(capsys, *command, "--law", "stack", own)
    assert code == 2
    assert f"prior {prior} gives law level no weight in a stack" in err
    assert not list(tmp_path.glob("new/*"))
    prior.write_text(json.dumps(record))
    code, out, err = run(capsys, *command, "--law", "stack", own)
    assert code == 0, err
    tables = json.loads(out)
    weights = {row["law"]: row["weight"] for row in tables["weights"]}
    assert list(weights) == ["manyshot@mine", "level@mine"]
    assert weights["manyshot@mine"] > 0.5
    [path] = tmp_path.glob("new/*level*.nc")
    assert load(path).attrs["noise"] == f"mean-nll+misfit@{prior}"
    assert [row["shots"] for row in tables["cells"]] == [16, 32, 64]
    assert sum(row["inside 90%"] for row in tables["cells"]) >= 2
    assert 1 <= tables["shots_to"][0]["n* 50%"] <= 32  # it falls to the threshold


# Fits that are quick to make


def aggregated(**columns):
    nll = [5.1, 3.4, 2.9, 2.2, 1.9, 1.5, 1.4, 1.2]
    return pd.DataFrame({"shots": SHOTS, "mean_nll": nll} | columns)


def test_means_of_unknown_size_and_chance(tmp_path):
    [tree] = fit(read_curves(aggregated(chance=0.1)), "manyshot", settings=SHORT)
    prediction = predict(tree, [0, 8, 100])
    bands = json.loads(prediction.attrs["bands"])
    assert bands["replicate"] == "a new measurement of the same size"
    assert prediction.attrs["outcome"] == "mean_nll"
    figure = plot_curves(tree, prediction=prediction)
    [line] = [x for x in figure.axes[0].get_lines() if x.get_label() == "chance level"]
    np.testing.assert_allclose(line.get_ydata(), -np.log(0.1))  # a guess at the answer
    figure.savefig(tmp_path / "curve.png")  # cells without bars are drawn


def test_given_errors_of_mean_nll():
    [tree] = fit(read_curves(aggregated(se=0.1)), "manyshot", settings=SHORT)
    assert tree.attrs["noise"] == "nll-given-se"
    bands = json.loads(predict(tree, [0]).attrs["bands"])
    assert bands["replicate"] == "a new measurement with se 0.1"


def test_a_mean_nll_that_rises_is_told():
    table = aggregated(se=0.1)
    table["mean_nll"] = table["mean_nll"].to_numpy()[::-1]
    with pytest.warns(CurveWarning, match=r"rises from a mean of .* shots; law manyshot cannot"):
        fit(read_curves(table), "manyshot", settings=SHORT)


# What is refused


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    aggregated(total=20).to_csv("means.csv", index=False)
    counts = pd.DataFrame({"shots": SHOTS, "correct": [1, 3, 4, 6, 7, 7, 8, 9], "total": 10})
    counts.to_csv("counts.csv", index=False)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("fit means.csv --out new --law power", "law power is of probability, and the outcome here "
         "is mean_nll, another quantity; laws of that are manyshot"),
        ("fit counts.csv --out new --law power manyshot", "law manyshot is of mean_nll, and the "
         "outcome here is probability, another quantity; laws of that are general, sampling"),
        ("fit means.csv --out new", "--law paper: none of these laws is of mean_nll; name some "
         "that are, such as --law manyshot"),
        ("fit means.csv --out new --law manyshot --noise given-se", "does not suit an outcome of "
         "kind 'nll aggregated'"),
        ("forecast means.csv --out new --law stack", "prior population knows discounted_scoring, "
         "hill, power, of which bayesicl has none of mean_nll; take --law manyshot without "
         "--prior, or learn a prior from such fits (bayesicl learn)"),
        ("forecast means.csv --out new", "of which bayesicl has none of mean_nll; take --law man"),
        ("forecast means.csv --out new --law manyshot --fit-points 4 --threshold -1",
         "--threshold must be above 0 nats, got -1"),
        ("forecast counts.csv --out new --law power --fit-points 4 --threshold 1.5",
         "--threshold must lie between 0 and 1, got 1.5"),
        ("fit means.csv --out new --law manyshot --noise misfit@population", "prior population was "
         "learned from probability, and the outcome here is mean_nll, another quantity; take the "
         "declared prior (--noise misfit), or learn one from fits of that (bayesicl learn)"),
        ("check manyshot --out new --kind counts", "law manyshot is of mean_nll"),
        ("check power --out new --kind nll-prompts", "law power is of probability"),
    ],
)  # fmt: skip
def test_what_is_on_the_other_scale_is_refused_in_a_line(argv, words, tables, capsys, tmp_path):
    code, out, err = run(capsys, *argv.split())
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("new/*.nc"))


def test_a_law_of_ones_own_on_the_scale_may_be_above_0(tables, tmp_path):
    path = tmp_path / "level.py"
    path.write_text(LEVEL)
    [tree] = fit(read_curves("means.csv"), path, settings=SHORT)
    assert float(tree["posterior"]["nll_zero"].median()) > 1
    path.write_text(LEVEL.replace(", scale=MEAN_NLL", ""))
    with pytest.raises(InputError, match="law level is of probability"):
        fit(read_curves("means.csv"), path, settings=SHORT)
    with pytest.raises(InputError, match="log p must be a number of at most 0 for every draw"):
        fit(read_curves("counts.csv"), path, settings=SHORT)
