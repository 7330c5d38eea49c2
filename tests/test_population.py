"""Learned priors: the densities that they declare, their files, and learning them."""

import json
import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import simulate
from scipy import stats
from scipy.special import expit, logit

from bayesicl import InputError, Settings, fit, load, load_law, predict, read_curves, save
from bayesicl.cli.chosen import chosen_laws, learned_noise
from bayesicl.engine import Engine
from bayesicl.learn import DOUBT, Draws, learn, moments, weights_of_fits
from bayesicl.misfit import sample_misfit
from bayesicl.noises import load_noise
from bayesicl.plan import plan
from bayesicl.population import FREEDOM, draws_of, learned_from, load_population
from bayesicl.posterior import Posterior
from bayesicl.program import arrays
from bayesicl.restore import engine_of
from bayesicl.scale import MEAN_NLL, PROBABILITY

CENTRE = {"hill": [1.0, 0.5, 2.0, 0.2], "beta-binomial": [-3.0], "misfit": [-2.0, 1.0]}
SITES = {
    "hill": ["gamma", "beta", "n_0", "k"],
    "beta-binomial": ["scatter"],
    "misfit": ["misfit_sd", "misfit_length"],
}


def scale(d):
    root = 0.3 * np.tril(np.ones((d, d))) + np.diag(np.linspace(0.2, 0.6, d))
    return root @ root.T


def record():
    one = lambda name: {  # noqa: E731
        "sites": SITES[name],
        "centre": CENTRE[name],
        "scale": scale(len(CENTRE[name])).tolist(),
    }
    return {
        "source": "made up",
        "quantity": "probability",
        "laws": {"hill": one("hill")},
        "noises": {name: one(name) for name in ("beta-binomial", "misfit")},
        "weights": {"hill": 1.0},
    }


@pytest.fixture
def prior(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(record()))
    return path


@pytest.fixture
def curves():
    table = pd.DataFrame({"shots": [0, 1, 2, 4, 8, 16], "correct": [9, 21, 30, 38, 41, 45]})
    return read_curves(table.assign(total=50))


def test_prior_draws_are_as_usual(prior, curves, x64):
    law = load_law(f"hill@{prior}")
    noise = load_noise(f"misfit@{prior}", "counts")
    assert law.name == "hill@mine"
    assert not law.bundled
    posterior, (design, data) = Posterior(law, noise), arrays(curves.studies[0])
    keys = jax.random.split(jax.random.key(1), 4000)
    draw = jax.jit(jax.vmap(lambda key: posterior.prior(design, data, key)))
    v = {k: np.asarray(x).reshape(4000, -1)[:, 0] for k, x in draw(keys).items()}
    z = {
        "hill": [
            logit(v["gamma"]), logit(v["beta"] / v["gamma"]), np.log(v["n_0"]), np.log(v["k"]),
        ],
        "beta-binomial": [logit(v["scatter"])],
        "misfit": [np.log(v["misfit_sd"]), np.log(v["misfit_length"])],
    }  # fmt: skip
    for name, columns in z.items():
        x = np.array(columns).T - CENTRE[name]
        whitened = np.linalg.solve(np.linalg.cholesky(scale(x.shape[1])), x.T)
        # A t of 4 degrees in every direction.
        for i, one in enumerate(whitened):
            assert stats.kstest(one, stats.t(FREEDOM).cdf).pvalue > 1e-4, (name, i)
        far = np.sum(whitened**2, axis=0) / x.shape[1]
        assert stats.kstest(far, stats.f(x.shape[1], FREEDOM).cdf).pvalue > 1e-4


def test_density_is_a_round_t_and_the_likelihood(prior, curves, x64, rng):
    law, noise = load_law(f"hill@{prior}"), load_noise(f"misfit@{prior}", "counts")
    posterior, (design, data) = Posterior(law, noise), arrays(curves.studies[0])
    shapes = posterior.outline(design, data).shapes
    assert shapes == {"_usual": (4,), "_usual_noise": (1,), "_usual_misfit": (2,)}
    u = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    z = {k: CENTRE[k] + np.linalg.cholesky(scale(len(CENTRE[k]))) @ u[site]
         for k, site in zip(CENTRE, shapes, strict=True)}  # fmt: skip
    gamma, share, n_0, k = z["hill"]
    gamma, n_0, k = expit(gamma), np.exp(n_0), np.exp(k)
    beta = gamma * expit(share)
    shots = np.asarray(design.shots)
    p = beta + (gamma - beta) / (1 + ((shots + 1) / n_0) ** -k)
    sizes = {"scatter": expit(z["beta-binomial"])} | {
        name: jnp.exp(z["misfit"][i : i + 1]) for i, name in enumerate(SITES["misfit"])
    }
    expected = noise.log_density(np.log(p), sizes, design, data)
    expected += sum(
        stats.multivariate_t(shape=np.eye(len(x)), df=FREEDOM).logpdf(x) for x in u.values()
    )
    np.testing.assert_allclose(-posterior.potential(design, data, u), expected, rtol=1e-9)
    natural = posterior.natural(design, data, u)
    np.testing.assert_allclose(natural["beta"], [beta], rtol=1e-9)


def test_parameters_keep_their_names_and_axes(prior, curves, x64):
    outline = Engine(
        load_law(f"hill@{prior}"), load_noise(f"misfit@{prior}", "counts"), Settings()
    ).outline(*arrays(curves.studies[0]))
    for name in (*SITES["hill"], *SITES["beta-binomial"], *SITES["misfit"], "ceiling"):
        assert outline.dims[name] == ("hypothesis",), name
    assert {"gamma", "beta", "n_0", "k", "ceiling"} < set(outline.law)


def test_laws_and_noise_that_a_prior_knows(prior, curves, tmp_path, capsys):
    """Those of the scale by default; a user's own by its file; what it does not know is said."""
    told = record()
    told["laws"] |= {name: told["laws"]["hill"] for name in ("power", "mine", "manyshot")}
    told["noises"] = {"beta-binomial": told["noises"]["beta-binomial"]}
    prior.write_text(json.dumps(told))

    def names(asked, scale=PROBABILITY):
        return [law.name for law in chosen_laws(asked, scale, str(prior))]

    assert names(None) == names(["all"]) == ["power@mine", "hill@mine"]
    assert capsys.readouterr().err.count("law 'mine' is none of bayesicl's and goes unused") == 2
    assert names(["paper"]) == ["power@mine"]
    assert f"of the paper's laws prior {prior} knows power\n" in capsys.readouterr().err
    assert names(None, MEAN_NLL) == ["manyshot@mine"]
    with pytest.raises(
        InputError, match=r"prior population knows .* has none of mean_nll; .* \(bayesicl learn"
    ):
        chosen_laws(None, MEAN_NLL, "population")
    (tmp_path / "own.py").write_text(simulate.STRAIGHT.replace('"straight"', '"mine"'))
    own = str(tmp_path / "own.py")
    capsys.readouterr()
    assert names([own, "hill"]) == ["mine@mine", "hill@mine"]
    assert names([own, "all"]) == ["mine@mine", "power@mine", "hill@mine"]
    found = chosen_laws(None, PROBABILITY, str(prior), beside=[own])  # of a stack
    assert [law.name for law in found] == ["power@mine", "hill@mine", "mine@mine"]
    assert not capsys.readouterr().err
    told |= {"laws": {"mine": told["laws"]["mine"]}, "weights": {}}
    alone = tmp_path / "alone" / "mine.json"
    alone.parent.mkdir()
    alone.write_text(json.dumps(told))
    [found] = chosen_laws(None, PROBABILITY, str(alone), beside=[own])
    assert found.name == "mine@mine"
    assert learned_noise(curves, "misfit", str(prior)) == f"misfit@{prior}"
    assert (
        f"prior {prior} has nothing on noise misfit: there the declared prior holds"
        in capsys.readouterr().err
    )
    assert learned_noise(curves, "beta-binomial", str(prior)) == f"beta-binomial@{prior}"
    assert not capsys.readouterr().err
    table = pd.DataFrame({"shots": [0, 1, 2, 4], "prob": [0.1, 0.2, 0.3, 0.4], "se": 0.01})
    assert learned_noise(read_curves(table), "given-se", str(prior)) == "given-se"


def test_a_misspelt_noise_of_a_prior_is_refused(prior):
    told = record()
    told["noises"] = {"misfitt": told["noises"]["misfit"]}
    prior.write_text(json.dumps(told))
    table = pd.DataFrame({"shots": [0, 1, 2, 4], "correct": [2, 3, 5, 6], "total": 9})
    wrong = r"noise 'misfitt' is none of bayesicl's \('misfit'\?\); correct it in the file"
    with pytest.raises(InputError, match=wrong):
        learned_noise(read_curves(table), "misfit", str(prior))
    with pytest.raises(InputError, match=wrong):
        load_noise(f"misfit@{prior}", "counts")


def test_a_misspelt_law_of_a_prior_is_told(prior, capsys):
    told = record()
    told["laws"] = {"powr": told["laws"]["hill"], "hill": told["laws"]["hill"]}
    prior.write_text(json.dumps(told))
    assert [law.name for law in chosen_laws(None, PROBABILITY, str(prior))] == ["hill@mine"]
    [line] = capsys.readouterr().err.splitlines()
    assert f"prior {prior}: law 'powr' ('power'?) is none of bayesicl's and goes unused" in line
    assert "correct it in the file, or, if it is your own" in line
    assert [law.name for law in chosen_laws(["hill"], PROBABILITY, str(prior))] == ["hill@mine"]
    assert not capsys.readouterr().err  # no other was asked for
    told |= {"laws": {"powr": told["laws"]["powr"]}, "weights": {}}
    prior.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"'powr' \('power'\?\) is none of bayesicl's"):
        chosen_laws(None, PROBABILITY, str(prior))


def test_what_is_usual_in_its_own_units(prior, curves):
    usual = load_population(str(prior)).laws["hill"]
    design, data = arrays(curves.studies[0])
    found = draws_of(load_law("hill").model, usual, (design,))
    wide = stats.t(FREEDOM).ppf(0.95) * np.sqrt(np.diag(scale(4)))
    for i, (name, move) in enumerate({"gamma": expit, "n_0": np.exp, "k": np.exp}.items()):
        at = CENTRE["hill"][i + (i > 0)] + wide[i + (i > 0)] * np.array([-1, 0, 1])
        np.testing.assert_allclose(np.quantile(found[name], [0.05, 0.5, 0.95]), move(at), rtol=0.1)
    assert (found["beta"] <= found["gamma"]).all()
    sizes = draws_of(sample_misfit, load_population(str(prior)).noises["misfit"], (design, data))
    assert np.median(sizes["misfit_sd"]) == pytest.approx(np.exp(-2.0), rel=0.1)


@pytest.mark.parametrize("name", ["mine@home.json", "a@b/mine.json"])
def test_an_at_sign_in_the_place_of_a_prior(name, tmp_path, curves):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record()))
    [task] = plan(curves, f"hill@{path}", noise=f"misfit@{path}")
    again = pickle.loads(pickle.dumps(task))
    assert (again.law.source_hash, again.noise.name) == (task.law.source_hash, task.noise.name)


def test_weights_and_words_of_a_prior_make_no_other_fits(prior):
    before = load_law(f"hill@{prior}").source_hash
    told = record() | {"source": "made up again", "weights": {"hill": 0.5}}
    prior.write_text(json.dumps(told, indent=2))
    assert load_law(f"hill@{prior}").source_hash == before


def test_what_cannot_be_used(prior, curves, tmp_path):
    with pytest.raises(InputError, match="knows no law 'power': it was learned for hill"):
        load_law(f"power@{prior}")
    with pytest.raises(InputError, match="knows no noise 'replicates': it was learned for beta-b"):
        load_noise(f"replicates@{prior}", "replicated counts")
    load_noise(f"misfit@{prior}", "replicated counts")  # it knows the misfit
    with pytest.raises(InputError, match="no such file; the name of bayesicl's own is"):
        load_law("hill@nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"laws": 3}')
    with pytest.raises(InputError, match="'population' is bayesicl's own; give yours another"):
        load_law(f"hill@{tmp_path / 'population.json'}")
    with pytest.raises(
        InputError, match=r"broken\.json: the file lacks `source`, `quantity`, `noises`"
    ):
        load_law(f"hill@{broken}")
    broken.write_text('{"source": "none", "quantity": "probability", "laws": {}, "noises": {}}')
    with pytest.raises(InputError, match=r"broken\.json: it holds no laws; learn it anew"):
        chosen_laws(None, PROBABILITY, str(broken))
    short, alone = record(), record()
    short["laws"]["hill"]["sites"] = SITES["hill"][:3]
    broken.write_text(json.dumps(short))
    with pytest.raises(InputError, match=r"laws\.hill\.centre must be a list of 3 numbers"):
        load_law(f"hill@{broken}")
    odd = record()
    odd["laws"]["hill"]["centre"] = [float("nan"), *odd["laws"]["hill"]["centre"][1:]]
    broken.write_text(json.dumps(odd))
    with pytest.raises(InputError, match=r"laws\.hill\.centre must hold finite numbers"):
        load_law(f"hill@{broken}")
    alone |= {"laws": {}, "weights": {}}
    broken.write_text(json.dumps(alone) + " ")
    with pytest.raises(InputError, match=r"knows no law 'hill': it holds no laws"):
        load_law(f"hill@{broken}")
    with pytest.raises(InputError, match=rf"holds no laws; --noise misfit@{broken}"):
        chosen_laws(None, PROBABILITY, str(broken))
    load_noise(f"misfit@{broken}", "counts")
    with pytest.raises(InputError, match="no fits: there is nothing to learn from"):
        learn([], source="none")


@pytest.mark.parametrize(
    ("kind", "name", "old", "noise"),
    [
        ("laws", "hill", "gamma", "beta-binomial"),
        ("noises", "beta-binomial", "scatter", "beta-binomial"),
        ("noises", "beta-binomial", "scatter", "misfit"),
        ("noises", "misfit", "misfit_length", "misfit"),
    ],
)
def test_a_prior_of_other_parameters_is_refused_before_fitting(
    kind, name, old, noise, prior, curves
):
    damaged = record()
    sites = damaged[kind][name]["sites"]
    damaged[kind][name]["sites"] = ["odd" if site == old else site for site in sites]
    prior.write_text(json.dumps(damaged))
    with pytest.raises(InputError) as told:
        plan(curves, f"hill@{prior}", noise=f"{noise}@{prior}")
    assert str(told.value) == (
        f"prior {prior}, {kind[:-1]} {name}: parameters that it lacks: {old}; parameters that "
        "are unknown: odd; learn it anew with `bayesicl learn`"
    )


def test_a_prior_of_other_parameters_of_a_users_law(prior, curves, tmp_path):
    mine, told = tmp_path / "mine.py", record()
    mine.write_text(simulate.STRAIGHT)
    told["laws"]["straight"] = told["laws"]["hill"]
    prior.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"lacks: a, b; parameters that are unknown: beta, gamma"):
        plan(curves, f"{mine}@{prior}")


def test_what_to_do_with_studies_that_a_prior_does_not_know(prior):
    table = pd.DataFrame({"shots": [0, 1, 2] * 2, "hypothesis": ["gold"] * 3 + ["random"] * 3})
    table = table.assign(correct=[1, 3, 5, 2, 4, 8], total=9)
    two, one = read_curves(table), read_curves(table, where="hypothesis == 'gold'")
    stack = ["power@population", f"hill@{prior}"]
    with pytest.raises(InputError) as told:
        plan(two, stack, noise=f"misfit@{prior}")
    assert str(told.value).endswith(
        "for studies of one curve, and here are 2; make each a study (--by model variant task "
        "hypothesis), read one (--where \"hypothesis == 'gold'\"), or "
        "take declared priors, in the place of --prior: --law power hill "
        "--noise misfit"
    )
    assert len(plan(two, ["power", "hill"], noise="misfit")) == 2
    apart = read_curves(table, by=["model", "variant", "task", "hypothesis"])
    assert len(plan(apart, stack, noise=f"misfit@{prior}")) == 4
    assert len(plan(one, stack, noise=f"misfit@{prior}")) == 2
    with pytest.raises(InputError, match=r"one background; leave out --backgrounds, .* hill$"):
        plan(one, f"hill@{prior}", backgrounds=0)
    with pytest.raises(InputError, match=r"--law hill --noise beta-binomial$"):
        plan(two, "hill", noise=f"beta-binomial@{prior}")
    own, mine = record(), prior.with_name("mine.py")
    own["laws"]["mine"] = own["laws"]["hill"]
    prior.write_text(json.dumps(own))
    mine.write_text(Path(load_law("hill").path).read_text().replace('"hill"', '"mine"'))
    with pytest.raises(InputError, match=rf"--law {re.escape(str(mine))}$"):
        plan(two, f"{mine}@{prior}")


def test_a_changed_prior_is_another_law(prior):
    before = load_law(f"hill@{prior}")
    assert load_law(f"hill@{prior}") is before
    changed = record()
    changed["laws"]["hill"]["centre"][0] += 1.0
    prior.write_text(json.dumps(changed) + " ")
    assert load_law(f"hill@{prior}").source_hash != before.source_hash


def test_fit_and_forecast_under_a_learned_prior(prior, curves, tmp_path):
    few = curves.hold_out(fit_points=4)
    [tree] = fit(
        few, f"hill@{prior}", noise=f"misfit@{prior}", settings=Settings(warmup=200, draws=250)
    )
    assert tree.attrs["passed"], tree.attrs["diagnostics"]
    assert tree.attrs["law"] == "hill@mine"
    assert learned_from(tree) == []
    prior.write_text(json.dumps(record() | {"seen": [curves.studies[0].digest]}))
    assert learned_from(tree) == [str(prior)]
    again = load(save(tree, tmp_path / "fit.nc"))
    assert engine_of(again).law.name == "hill@mine"
    one, two = (predict(t, [0, 16, 64])["mean"].to_numpy() for t in (tree, again))
    np.testing.assert_array_equal(one, two)
    changed = record()
    changed["laws"]["hill"]["centre"][0] += 1.0
    prior.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="has changed since this fit was made"):
        engine_of(again)


def test_moments_of_curves_that_are_known_in_part(rng):
    """Truths from a t, posteriors under a wide prior: centre and scale are found again."""
    centre, of, wide, n = np.array([1.0, -2.0]), np.array([[1.0, 0.5], [0.5, 0.6]]), 6.0, 600
    curves = []
    for i in range(n):
        truth = stats.multivariate_t(centre, of, df=FREEDOM, seed=rng).rvs()
        error = np.array([0.3, 0.3 if i % 2 else 5.0])  # of every other curve little is known
        seen = truth + error * rng.normal(size=2)
        precision = 1 / error**2 + 1 / wide**2
        z = seen / error**2 / precision + rng.normal(size=(1000, 2)) / np.sqrt(precision)
        curves.append(Draws(z, stats.norm(0, wide).logpdf(z).sum(1)))
    found, spread = moments(curves, np.full(n, 1 / n))
    np.testing.assert_allclose(found, centre, atol=0.15)
    np.testing.assert_allclose(spread, of, atol=0.2)
    some = moments(
        [*curves, *curves[:50]], np.r_[np.full(50, 0.5), np.ones(550), np.full(50, 0.5)] / n
    )
    np.testing.assert_allclose(some[0], found, atol=1e-3)  # two halves of a curve are one


def test_groups_weigh_alike_and_so_do_their_curves():
    """However many fits a curve has, as under several laws or in two folders."""
    fits = [("a", "1"), ("b", "4"), ("a", "1"), ("a", "2"), ("a", "1")]
    np.testing.assert_allclose(weights_of_fits(fits), [1 / 12, 1 / 2, 1 / 12, 1 / 4, 1 / 12])
    np.testing.assert_allclose(
        weights_of_fits([("", "1"), ("", "1"), ("", "2")]), [1 / 4, 1 / 4, 1 / 2]
    )


def flat_curves(walk=0.0):
    rng = np.random.default_rng(3)
    shots = np.array([0, 1, 2, 4, 8, 16])
    levels = rng.normal(1.0, 0.7, 12)[:, None] + np.cumsum(walk * rng.normal(size=(12, 6)), axis=1)
    return [
        pd.DataFrame({"task": f"t{i}", "shots": shots, "total": 200,
                      "correct": rng.binomial(200, p)})
        for i, p in enumerate(expit(levels))
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*cannot fall")
def test_doubt_widens_forecasts_and_not_what_was_measured(monkeypatch, tmp_path):
    """A law that whole curves leave by little is trusted less beyond the cells that were fitted."""
    tables, settings = flat_curves(walk=0.3), Settings(warmup=150, draws=250)
    trees = fit(read_curves(pd.concat(tables)), "constant", noise="misfit", settings=settings)
    widths, learned = {}, {}
    for doubt in (0.0, DOUBT):
        monkeypatch.setattr("bayesicl.learn.DOUBT", doubt)
        path = tmp_path / f"with_{doubt}.json"
        learned[doubt] = learn(trees, source="curves that walk")
        path.write_text(json.dumps(learned[doubt]))
        few = read_curves(tables[0]).hold_out(fit_points=3)
        [tree] = fit(few, f"constant@{path}", noise=f"misfit@{path}", settings=settings)
        mean = predict(tree, [0, 1000])["mean"].stack(d=("chain", "draw"))
        edges = np.quantile(mean, [0.05, 0.95], axis=-1)
        widths[doubt] = np.diff(logit(edges), axis=0).ravel()
    plain, wide = (learned[doubt]["noises"]["misfit"] for doubt in (0.0, DOUBT))
    moved = np.subtract(wide["centre"], plain["centre"])
    np.testing.assert_allclose(moved, np.equal(plain["sites"], "misfit_sd") * DOUBT, atol=1e-12)
    assert wide["scale"] == plain["scale"]
    assert learned[DOUBT]["laws"] == learned[0.0]["laws"]
    measured, beyond = widths[DOUBT] / widths[0.0]
    # About exp(DOUBT) where cells say nothing; log-odds stretch what is wide.
    assert 1.1 < beyond < np.exp(2 * DOUBT)
    assert abs(measured - 1.0) < (beyond - 1.0) / 3  # 1.07 in long runs


def test_learning_from_fits(tmp_path):
    tables = flat_curves()
    settings = Settings(warmup=100, draws=100)
    trees = fit(read_curves(pd.concat(tables)), "constant", settings=settings)
    found = learn(trees, source="flat curves")
    usual = found["laws"]["constant"]
    assert usual["sites"] == ["p"]
    assert usual["curves"] == 12
    assert found["seen"] == sorted(study.digest for study in read_curves(pd.concat(tables)))
    assert len(set(found["seen"])) == 12
    share = pd.concat(tables).groupby("task")["correct"].sum() / 1200
    t = stats.t.fit(np.log(share / (1 - share)), fix_df=FREEDOM)  # the counts are large
    np.testing.assert_allclose(usual["centre"], t[1], atol=0.1)
    np.testing.assert_allclose(np.sqrt(usual["scale"][0][0]), np.hypot(t[2], 12**-0.5), rtol=0.3)
    path = tmp_path / "flat.json"
    path.write_text(json.dumps(found))
    assert load_law(f"constant@{path}").name == "constant@flat"
    with pytest.raises(InputError, match="7 curves are too few to learn what is usual; give 8"):
        learn(trees[:7], source="few")
