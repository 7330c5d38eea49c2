"""Whether a forecast may be flattered by a prior that has seen what it is scored on."""

import json

import numpy as np
import pytest

from bayesicl.alarm import Heard
from bayesicl.cli.seen import Seen
from bayesicl.population import BUNDLED


class Fit:
    """As much of a fit as is looked at."""

    def __init__(self, prior, *fitted):
        self.attrs = {"law_path": f"hill@{prior}", "noise": f"misfit@{prior}"}
        self.study = {"fitted": np.array(fitted)}

    def __getitem__(self, name):
        return {"study": self.study}[name]


@pytest.fixture
def priors(tmp_path):
    """One that lists the curves that it was learned from, and one that does not."""
    told = json.loads(BUNDLED.read_text()) | {"source": "my curves"}
    told.pop("seen", None)
    (tmp_path / "old.json").write_text(json.dumps(told))
    (tmp_path / "new.json").write_text(json.dumps(told | {"seen": ["ab", "cd"]}))
    return tmp_path / "old.json", tmp_path / "new.json"


@pytest.mark.parametrize("digest", ["ab", "xy"])
def test_what_a_prior_does_not_tell_is_said_once(digest, priors, monkeypatch, capsys):
    monkeypatch.setattr(
        "bayesicl.population.study_of", lambda tree: type("Study", (), {"digest": digest})
    )
    (old, new), seen, calm = priors, Seen(), Heard([], ["before"])
    assert seen.flattered(calm, Fit(old, True, True)) == calm  # nothing is held out
    assert not capsys.readouterr().err
    for _ in range(3):
        assert seen.flattered(calm, Fit(old, True, False)) == calm
    [line] = capsys.readouterr().err.splitlines()
    assert f"prior {old} does not list the curves that it was learned from (my curves)" in line
    heard = seen.flattered(calm, Fit(new, True, False))
    assert not capsys.readouterr().err
    flattered = f"prior {new} was learned from this very curve"
    assert [flattered in caution for caution in heard.cautions] == [False] + [True] * (
        digest == "ab"
    )
