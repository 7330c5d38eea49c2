"""LC-PFN among the forecast benchmark's peers, on a model that stands in for a trained one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    """The package `peers`, and its lcpfn."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers
    from peers import lcpfn

    return peers, lcpfn


def cells(peers, shots, y):
    shots = np.array(shots, float)
    return peers.Cells(shots, np.broadcast_to(y, shots.shape), np.full(shots.shape, 100.0))


def test_draws_follow_the_model_and_share_a_quantile(peers):
    peers, lcpfn = peers
    seen = []

    def model(x, y, x_new):
        seen.append((x, y, x_new))
        # Quantile u is at .2 + .2 u / .75 below .4, and at .4 + .9 (u - .75) / .25 above.
        return np.array([0.2, 0.4, 1.3]), np.tile([0.75, 0.25], (len(x_new), 1))

    curve = cells(peers, [0, 3, 15], [0.1, 0.2, 0.3])
    ahead = cells(peers, [31, 63], np.nan)
    measured, mean = lcpfn.forecast(model, curve, ahead, np.random.default_rng(0), 4000)
    assert measured.shape == mean.shape == (4000, 2)
    want = np.interp([0.1, 0.5, 0.8], [0.0, 0.75, 1.0], [0.2, 0.4, 1.3])
    np.testing.assert_allclose(np.quantile(measured[:, 0], [0.1, 0.5, 0.8]), want, atol=3e-3)
    assert measured.max() == 1.0
    np.testing.assert_array_equal(measured[:, 0], measured[:, 1])
    x, y, x_new = seen[0]
    np.testing.assert_array_equal(x, [1, 4, 16])
    np.testing.assert_array_equal(x_new, [32, 64])
    np.testing.assert_array_equal(y, curve.y)


def test_shots_beyond_the_axis_are_squeezed(peers):
    _, lcpfn = peers
    for longest in (5, 99, 100, 2000):
        x = lcpfn.position(np.arange(longest + 1), longest)
        assert x[0] == 1.0
        assert x[-1] == pytest.approx(min(longest + 1, 100))
        assert np.all(np.diff(x) > 0)


def test_weights_that_are_not_there(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "forecast.py"), "--data", str(tmp_path)]
    command += ["--out", str(tmp_path), "--lcpfn", str(tmp_path / "none.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "none.pt: there is no such file" in done.stderr
    assert "train_lcpfn.py --out" in done.stderr
