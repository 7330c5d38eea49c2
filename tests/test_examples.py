"""Every example runs, and its own assertions hold."""

import runpy
import warnings
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path):
    assert "# %%" in path.read_text(), "examples are in percent format"
    with warnings.catch_warnings():  # an example may set filters of its own
        runpy.run_path(str(path))
