"""Simulated studies follow the density that fits use; rows have the moments of the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from bayesicl.errors import InputError
from bayesicl.law import load_law
from bayesicl.noises import load_noise
from bayesicl.scale import MEAN_NLL
from bayesicl.simulate import (
    KINDS,
    Layout,
    declared,
    means,
    measured_rows,
    simulator,
    spread,
)

pytestmark = pytest.mark.usefixtures("x64")

SIZES = {
    "scatter": [0.2, 0.1],
    "dispersion": [1.7, 0.6],
    "dispersion_slope": [-0.4, 0.2],
    "replicate_sd": [0.11, 0.25],
    "c": [0.35, 0.1],
}


def test_unseen_shots():
    assert Layout(shots=(0, 1, 2, 4, 8, 16)).unseen == (3, 6, 48)
    assert Layout(shots=(0, 5)).unseen == (2, 10, 15)
    assert Layout(shots=(3, 0, 1, 2)).unseen == (6, 9, 30)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "means"}, "--kind must be one of"),
        ({"shots": (4, 4)}, "--shots must be at least 2 different"),
        ({"shots": (0, 10**8)}, "to 3,000,000"),
        ({"hypotheses": 0}, "--hypotheses must be at least 1, got 0"),
        ({"total": 1}, "--total must be at least 2"),
        ({"replicates": 1}, "--replicates"),
    ],
)
def test_layouts_that_cannot_be(wrong, words):
    with pytest.raises(InputError, match=words):
        Layout(**wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_gives_a_study_of_its_kind(kind):
    layout = Layout(kind, hypotheses=2, shots=(0, 1, 2, 4), total=20, replicates=3)
    [study] = layout.curves()
    assert study.kind == kind
    assert study.hypotheses == ("0", "1")
    of_one = study.cells[study.cells["hypothesis"] == 0]
    assert of_one.loc[of_one["fitted"], "shots"].tolist() == [0, 1, 2, 4]
    assert tuple(of_one.loc[~of_one["fitted"], "shots"]) == layout.unseen
    y = np.random.default_rng(0).integers(1, 20, (len(study.cells), layout.rows)) / 20
    [again] = layout.curves(y)
    np.testing.assert_allclose(again.cells["y"], y.mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_declared_is_what_the_likelihood_says(kind):
    """The score, the gradient of the log density of the data, is 0 on average at the truth."""
    layout = Layout(kind, hypotheses=2, shots=(0, 1, 4, 16), total=30, replicates=5)
    noise = load_noise(None, kind)
    [study] = layout.curves()
    design, data = declared(study, 1)
    rng = np.random.default_rng(1)
    logp = jnp.log(rng.uniform(0.05, 0.95, len(design.shots)))
    with handlers.seed(rng_seed=0):
        sizes = {name: jnp.array(SIZES[name]) for name in noise.model(design, data)}

    def density(parameters, data):
        logp, sizes = parameters
        prior_and_spread, _ = log_density(noise.model, (design, data), {}, sizes)
        return noise.log_density(logp, sizes, design, data) + prior_and_spread

    def silent(data):  # what tells of the spread taken out: the prior alone is left
        rest = {name: x for name, x in data.items() if name != "log_c"}
        rows = {"row_items", "row_pull", "square", "share"} & data.keys()
        return rest | {k: np.zeros_like(data[k]) for k in rows}

    def prior(parameters):
        return log_density(noise.model, (design, silent(data)), {}, parameters[1])[0]

    n = 20_000
    scatter = noise.scatter(logp, sizes, design, data, seen=False)
    many = {name: np.broadcast_to(x, (n, *logp.shape)) for name, x in scatter.items()}
    drawn = means(noise, np.random.default_rng(2), many, design, data)

    @jax.jit
    @jax.vmap
    def score(key, drawn):
        drawn = data | drawn | spread(key, sizes, design, data)
        return jax.grad(density)((logp, sizes), drawn)

    scores = score(jax.random.split(jax.random.key(2), n), drawn)
    of_prior = jax.grad(prior)((logp, sizes))
    assert jax.tree.structure(scores) == jax.tree.structure(of_prior)
    for x, less in zip(jax.tree.leaves(scores), jax.tree.leaves(of_prior), strict=True):
        z = (x.mean(0) - less) / (x.std(0) / np.sqrt(len(x)) + 1e-12)
        assert np.abs(z).max() < 4.5, z


@pytest.mark.parametrize("kind", KINDS[1:])
def test_rows_have_the_moments_that_the_noise_claims(kind):
    total = 4000 if kind.endswith("prompts") else 40
    layout = Layout(kind, hypotheses=2, total=total, replicates=4000)
    # Dispersions at 10 shots: 1.7 and 0.6, more and less than binomial.
    cells = pd.DataFrame({"hypothesis": [0, 1], "shots": 10, "p": [0.3, 0.6], "se": [0.02, 0.05]})
    cells = pd.concat([cells] * (1 if layout.rows > 1 else 4000), ignore_index=True)
    sizes = {name: np.array(x) for name, x in SIZES.items()}
    sizes["replicate_sd"] = np.array([0.05, 0.1])
    y = measured_rows(layout, cells, sizes, np.random.default_rng(3))
    assert y.shape == (len(cells), layout.rows)
    assert ((y >= 0) & (y <= layout.noise.scale.top)).all()
    for h, p in enumerate((0.3, 0.6)):
        own, v = y[cells["hypothesis"] == h].ravel(), p * (1 - p)
        variance = {
            "replicated counts": v * (sizes["dispersion"][h] / 40 + sizes["replicate_sd"][h] ** 2),
            "prompts": v * sizes["c"][h],
            "aggregated": v * sizes["c"][h] / 40,
            "given se": cells["se"][h] ** 2,
            "nll prompts": MEAN_NLL.variance(p) * sizes["c"][h],
            "nll aggregated": MEAN_NLL.variance(p) * sizes["c"][h] / 40,
            "nll given se": cells["se"][h] ** 2,
        }[kind]
        assert abs(own.mean() - p) < 4.5 * np.sqrt(variance / 4000)
        # A replicate's shift acts on p(1 - p), too: a few per cent.
        assert own.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("kind", ["prompts", "replicated counts"])
@pytest.mark.parametrize("rows", [False, True])
def test_studies_keep_their_shape_and_hold_their_truth(kind, rows):
    noise = load_noise(None, kind)
    draw = simulator(load_law("power"), noise, Layout(kind, total=20), rows=rows)
    one, two = draw(jax.random.key(1)), draw(jax.random.key(2))
    assert one.data["y"].shape == two.data["y"].shape == one.logp.shape
    assert not np.array_equal(one.data["y"], two.data["y"])
    again = draw(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, one.data, again.data)
    C, alpha, L = (one.truth[name][0] for name in ("C", "alpha", "L"))
    n = np.asarray(one.design.shots)
    np.testing.assert_allclose(one.logp, -C * (n + 1) ** -alpha - L, rtol=1e-9)


def test_counts_of_one_run_are_rows():
    with pytest.raises(InputError, match="simulated as rows anyway"):
        simulator(load_law("power"), load_noise(None, "counts"), Layout(), rows=True)
