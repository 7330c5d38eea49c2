"""Files of learned priors that are none: each is told in one line, with its place in the file."""

import json

import numpy as np
import pytest

from bayesicl.cli import main
from bayesicl.errors import InputError
from bayesicl.population import ADVICE, load_population


def record():
    """A sound prior of one law, made for each test anew."""
    one = lambda *sites: {  # noqa: E731
        "sites": list(sites),
        "centre": [0.5] * len(sites),
        "scale": np.eye(len(sites)).tolist(),
    }
    return {
        "source": "made up",
        "quantity": "probability",
        "laws": {"hill": one("gamma", "beta", "n_0", "k")},
        "noises": {"misfit": one("misfit_sd", "misfit_length")},
        "weights": {"hill": 1.0},
        "seen": ["0123456789abcdef"],
    }


def at(*path, value):
    """What puts a value at a place in a record, or takes the place away (None)."""

    def change(told):
        inner = told
        for name in path[:-1]:
            inner = inner[name]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
        return told

    return change


def hill(*path, value):
    return at("laws", "hill", *path, value=value)


BAD = {  # text of a file, or what becomes of a record: what is said of it
    "empty": ("  \n", "the file is empty"),
    "no JSON": ('{"source": "x",\n "laws": }', "line 2, column 10: is not JSON (Expecting value)"),
    "digits": ('{"source": ' + "1" * 5000 + "}", "holds what is no number of JSON"),
    "a list": ("[1, 2]", "the file must be an object, {...}, got a list"),
    "a number": ("3", "the file must be an object, {...}, got a number"),
    "no laws": (at("laws", value=None), "the file lacks `laws`"),
    "misspelt": (
        at("weihgts", value={}),
        "the file has 'weihgts', which is none of source, quantity",
    ),
    "part": (hill("center", value=[0.0]), "laws.hill has 'center', which is none of sites"),
    "curves": (hill("curves", value="many"), "laws.hill.curves must be how many there were"),
    "nothing": ("{}", "the file lacks `source`, `quantity`, `laws`, `noises`"),
    "quantity": (at("quantity", value="nats"), "`quantity`, what curves are of, must be probabil"),
    "source": (at("source", value=3), "`source` must be text, got a number"),
    "laws": (at("laws", value=["hill"]), "`laws` must be an object, {...}, got a list"),
    "law": (hill(value=[1, 2]), "laws.hill must be an object, {...}, got a list"),
    "no centre": (hill("centre", value=None), "laws.hill lacks `centre`"),
    "noise": (at("noises", "misfit", "scale", value=None), "noises.misfit lacks `scale`"),
    "sites": (hill("sites", value="gamma"), "laws.hill.sites must be a list of names"),
    "twice": (hill("sites", 1, value="gamma"), "laws.hill.sites names a parameter twice"),
    "short centre": (
        hill("centre", value=[1.0, 2.0]),
        "laws.hill.centre must be a list of 4 numbers, one for each of its sites, got 2",
    ),
    "text": (hill("centre", 2, value="x"), "laws.hill.centre must hold finite numbers, got 'x'"),
    "true": (hill("centre", 2, value=True), "laws.hill.centre must hold finite numbers, got True"),
    "infinite": (hill("scale", 1, 1, value=np.inf), "laws.hill.scale, row 2 must hold finite num"),
    "huge": (hill("centre", 0, value=10**400), "laws.hill.centre must hold finite numbers, got 10"),
    "flat scale": (
        hill("scale", value=[1.0] * 4),
        "laws.hill.scale, row 1 must be a list of 4 numbers, one for each of its sites, got a num",
    ),
    "few rows": (
        hill("scale", value=np.eye(4)[:3].tolist()),
        "laws.hill.scale must be a list of 4 rows, one for each of its sites, got 3 rows",
    ),
    "not square": (
        hill("scale", value=np.eye(4)[:, :3].tolist()),
        "laws.hill.scale, row 1 must be a list of 4 numbers, one for each of its sites, got 3",
    ),
    "lopsided": (
        hill("scale", 0, 2, value=0.3),
        "laws.hill.scale must be symmetric, got 0.3 in row 1, column 3, and 0 in row 3, column 1",
    ),
    "not positive definite": (
        hill("scale", 3, 3, value=-2.0),
        "laws.hill.scale must be positive definite, as variances and covariances are, and its "
        "least eigenvalue is -2",
    ),
    "weight of no law": (
        at("weights", value={"hill": 0.5, "powr": 0.5}),
        "weights.powr: no law of that name is among its laws (hill)",
    ),
    "weight": (at("weights", "hill", value=-1), "weights.hill must be a number of at least 0, got"),
    "weights": (at("weights", value=[1.0]), "`weights` must be an object, {...}, got a list"),
    "no weight": (at("weights", "hill", value=0), "`weights` are all 0"),
    "seen": (at("seen", value=[1, 2]), "`seen` must be a list of texts"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_its_place(case, tmp_path):
    made, words = BAD[case]
    path = tmp_path / "mine.json"
    path.write_text(made if isinstance(made, str) else json.dumps(made(record())))
    with pytest.raises(InputError) as told:
        load_population(str(path))
    assert str(told.value).startswith(f"prior {path}: {words}")
    assert str(told.value).endswith(f"; {ADVICE}")
    assert "Error" not in str(told.value)
    assert "\n" not in str(told.value)


def test_sound_priors_and_what_is_not_there(tmp_path):
    path = tmp_path / "mine.json"
    rounded = hill("scale", 0, 1, value=1e-17)  # as a sum in another order may leave it
    for told in (
        rounded(record()),
        at("seen", value=None)(record()),
        at("weights", value={})(record()),
    ):
        path.write_text(json.dumps(told))
        load_population(str(path))
    path.write_text("")  # a file that was changed is looked at again
    with pytest.raises(InputError, match="the file is empty"):
        load_population(str(path))
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_population(str(path))
    with pytest.raises(InputError, match="is a folder; name the file"):
        load_population(str(tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "TABLE", "--out", "OUT", "--prior", "PRIOR"],
        ["fit", "TABLE", "--out", "OUT", "--law", "power", "hill@PRIOR"],
        ["fit", "TABLE", "--out", "OUT", "--noise", "misfit@PRIOR"],
        ["forecast", "TABLE", "--out", "OUT", "--law", "stack", "--prior", "PRIOR"],
        ["check", "hill@PRIOR", "--out", "OUT"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("folder", [False, True])
def test_every_command_says_it_in_one_line(words, folder, tmp_path, capsys):
    prior, table = tmp_path / "mine.json", tmp_path / "curves.csv"
    if folder:
        prior.mkdir()
    else:
        prior.write_text('{"laws": 3}')
    table.write_text("shots,correct,total\n0,1,9\n1,3,9\n2,4,9\n")
    places = {"PRIOR": str(prior), "TABLE": str(table), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    wrong = "is a folder" if folder else "the file lacks `source`, `quantity`, `noises`"
    assert line.startswith(f"bayesicl: error: prior {prior}: {wrong}")
    assert not (tmp_path / "out").exists()
