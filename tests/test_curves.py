import gzip
import re
import warnings

import numpy as np
import pandas as pd
import pytest

from bayesicl.curves import read_curves
from bayesicl.errors import CurveWarning, InputError
from bayesicl.scale import MEAN_NLL

SHOTS = [0, 1, 2, 4, 8, 16, 32, 64]


def frame(**columns):
    return pd.DataFrame(columns)


def counts(shots=(0, 1, 2), correct=(2, 5, 7), total=10, **columns):
    return frame(shots=list(shots), correct=list(correct), total=total, **columns)


def replicated(values, totals=(10, 10, 10), **columns):
    """Replicate r of shots s measured values[r][s] correct of totals[r]."""
    rows = [(s, r, v, totals[r]) for r, one in enumerate(values) for s, v in enumerate(one)]
    table = pd.DataFrame(rows, columns=["shots", "replicate", "correct", "total"])
    return table.assign(**columns)


def prompts(values, name="prob"):
    """Replicate r of shots s measured values[r][s]."""
    rows = [(s, r, v) for r, one in enumerate(values) for s, v in enumerate(one)]
    return pd.DataFrame(rows, columns=["shots", "replicate", name])


def only(source, **settings):
    (study,) = read_curves(source, **settings)
    return study


# Kinds and their cells


def test_counts():
    study = only(counts(correct=(0, 5, 10), model="m", task="t"))
    assert (study.kind, study.outcome, study.items) == ("counts", "counts", None)
    assert study.key == {"model": "m", "variant": "", "task": "t"}
    assert study.label == "m | t"
    assert study.hypotheses == ("0",)
    cells = study.cells
    assert list(cells) == [
        *("hypothesis", "shots", "y", "replicates", "total", "se", "error", "chance", "fitted")
    ]
    assert isinstance(cells.index, pd.RangeIndex)
    assert cells["hypothesis"].tolist() == [0, 0, 0]
    assert cells["shots"].tolist() == [0, 1, 2]
    assert cells["y"].tolist() == [0.0, 0.5, 1.0]
    assert cells["replicates"].tolist() == [1, 1, 1]
    assert cells["total"].tolist() == [10.0, 10.0, 10.0]
    assert cells[["se", "chance"]].isna().to_numpy().all()
    assert cells["fitted"].tolist() == [True, True, True]
    # (y n + 2) / (n + 4) = 1/7, 1/2, 6/7 of 14
    expected = np.sqrt([1 / 7 * 6 / 7 / 14, 0.25 / 14, 1 / 7 * 6 / 7 / 14])
    np.testing.assert_allclose(cells["error"], expected)
    assert study.rows.empty
    assert list(study.rows) == ["cell", "replicate", "y", "total"]
    assert study.fraction == 1.0


def test_single_prompts_collapse_to_one_count():
    for total in ({}, {"total": 1}):
        table = prompts([[0, 1, 1], [0, 0, 1], [0, 1, 1], [1, 0, 1]], "correct").assign(**total)
        study = only(table)
        assert study.kind == "counts"
        assert study.items is None
        assert study.cells["y"].tolist() == [0.25, 0.5, 1.0]
        assert study.cells["total"].tolist() == [4.0, 4.0, 4.0]
        assert study.cells["replicates"].tolist() == [1, 1, 1]
        assert study.rows.empty


def test_replicated_counts():
    study = only(replicated([[2, 4], [4, 16]], totals=(10, 20)))
    assert (study.kind, study.items) == ("replicated counts", "shared")
    np.testing.assert_allclose(study.cells["y"], [0.2, 0.6])  # replicates count alike
    assert study.cells["total"].tolist() == [15.0, 15.0]
    assert study.cells["replicates"].tolist() == [2, 2]
    # Replicates that agree: Agresti and Coull. Else sd / sqrt(2).
    p = (3 + 2) / (15 + 4)
    np.testing.assert_allclose(study.cells["error"], [np.sqrt(p * (1 - p) / 19), 0.2])
    assert study.rows["cell"].tolist() == [0, 0, 1, 1]
    assert study.rows["replicate"].tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(study.rows["y"], [0.2, 0.2, 0.4, 0.8])
    assert study.rows["total"].tolist() == [10.0, 20.0, 10.0, 20.0]
    assert only(replicated([[2, 4], [4, 8]]), items="fresh").items == "fresh"


def test_a_cell_with_one_replicate_gets_the_error_of_a_count():
    study = only(replicated([[2, 4], [4, 8]]).iloc[:3])
    assert study.cells["replicates"].tolist() == [2, 1]
    np.testing.assert_allclose(study.cells["error"][1], np.sqrt(6 / 14 * 8 / 14 / 14))


def test_one_replicate_is_plain_counts():
    study = only(replicated([[2, 4]]))
    assert study.kind == "counts"
    assert study.rows.empty


def test_prompts_average_probability_not_nll():
    nll = [[-0.0, 1.0], [2.0, -1e-10]]
    study = only(prompts(nll, "nll"))
    assert (study.kind, study.outcome) == ("prompts", "prob")
    p = np.exp(-np.array([[0.0, 1.0], [2.0, 0.0]]))
    np.testing.assert_allclose(study.cells["y"], p.mean(axis=0))
    assert study.cells["total"].tolist() == [2.0, 2.0]
    np.testing.assert_allclose(study.cells["error"], p.std(axis=0, ddof=1) / np.sqrt(2))
    np.testing.assert_allclose(study.rows["y"], p.T.ravel())
    assert study.rows["total"].tolist() == [1.0] * 4
    same = only(prompts(np.exp(-np.maximum(nll, 0.0)).tolist(), "prob"))
    assert same.hash == study.hash


def test_batches_of_prompts_average_over_prompts():
    table = prompts([[0.2, 0.5], [0.8, 0.5]]).assign(total=[1, 1, 3, 3])
    study = only(table)
    assert study.kind == "prompts"
    np.testing.assert_allclose(study.cells["y"], [0.65, 0.5])  # (.2 + 3 x .8) / 4
    assert study.cells["total"].tolist() == [4.0, 4.0]
    assert study.rows["total"].tolist() == [1.0, 3.0, 1.0, 3.0]


def test_aggregated():
    study = only(frame(shots=[0, 1], prob=[0.1, 0.7], total=[50, 40]))
    assert (study.kind, study.outcome) == ("aggregated", "prob")
    assert study.cells["y"].tolist() == [0.1, 0.7]  # not a rounding away
    assert study.cells["total"].tolist() == [50.0, 40.0]
    np.testing.assert_allclose(study.cells["error"][0], np.sqrt(7 / 54 * 47 / 54 / 54))


def test_nll_of_mean_is_converted():
    study = only(frame(shots=[0, 1], nll_of_mean=[0.0, np.log(4)], total=9))
    assert (study.kind, study.outcome) == ("aggregated", "prob")
    np.testing.assert_allclose(study.cells["y"], [1.0, 0.25])


def test_given_se_is_kept():
    study = only(frame(shots=[0, 1], nll_of_mean=[1.0, 0.5], se=[0.01, 0.02]))
    assert study.kind == "given se"
    assert study.cells["se"].tolist() == study.cells["error"].tolist() == [0.01, 0.02]
    assert study.cells["total"].isna().to_numpy().all()


@pytest.mark.parametrize("name", ["nll", "mean_nll"])
def test_mean_nll_averages_nll(name):
    nll = np.array([[12.0, 1.0], [2.0, 0.0]])
    study = only(prompts(nll, name), outcome="mean_nll")
    assert (study.kind, study.outcome, study.scale) == ("nll prompts", "mean_nll", MEAN_NLL)
    assert study.cells["y"].tolist() == [7.0, 0.5]
    assert study.cells["total"].tolist() == [2.0, 2.0]
    np.testing.assert_allclose(study.cells["error"], nll.std(axis=0, ddof=1) / np.sqrt(2))
    assert study.rows["y"].tolist() == nll.T.ravel().tolist()
    # The same numbers as a probability's are other data.
    assert study.hash != only(prompts(nll / 12), outcome="prob").hash


def test_mean_nll_of_a_table():
    table = frame(shots=[0, 1], mean_nll=[4.0, -1e-10])
    study = only(table.assign(total=[50, 40]))
    assert (study.kind, study.outcome) == ("nll aggregated", "mean_nll")
    assert study.cells["y"].tolist() == [4.0, 0.0]
    assert study.cells["total"].tolist() == [50.0, 40.0]
    # As if a prompt's sd went with the mean to the power of 3/4; never without length.
    np.testing.assert_allclose(study.cells["error"], [4.001**0.75 / 50**0.5, 0.001**0.75 / 40**0.5])
    unknown = only(table)
    assert unknown.kind == "nll aggregated"
    assert unknown.cells[["total", "error"]].isna().to_numpy().all()
    given = only(table.assign(se=0.2))
    assert given.kind == "nll given se"
    assert given.cells["error"].tolist() == [0.2, 0.2]
    both = table.assign(prob=[0.5, 0.6], total=9)
    assert only(both, outcome="prob").kind == "aggregated"
    assert only(both, outcome="mean_nll").hash != only(both, outcome="prob").hash


# Keys


def test_hypotheses_sort_by_number_and_belong_to_their_study():
    table = pd.concat(
        [counts(task="a", hypothesis=h) for h in ("10", "9")]
        + [counts(task="b", hypothesis=h) for h in ("y", "x")]
    )
    a, b = read_curves(table)
    assert a.hypotheses == ("9", "10")
    assert b.hypotheses == ("x", "y")
    assert b.cells["hypothesis"].tolist() == [0, 0, 0, 1, 1, 1]
    assert b.cells["shots"].tolist() == [0, 1, 2, 0, 1, 2]


def test_studies_keep_the_order_of_the_table_and_cells_are_sorted():
    table = pd.concat([counts(model="z"), counts(model="a", correct=(1, 2, 3))]).iloc[::-1]
    curves = read_curves(table)
    assert len(curves) == 2
    assert [study.label for study in curves] == ["a", "z"]
    assert curves.studies[0].cells["y"].tolist() == [0.1, 0.2, 0.3]


def test_replicate_codes_are_common_to_the_curves_of_a_study():
    table = replicated([[2, 4], [4, 8], [5, 9]]).assign(hypothesis=0)
    other = table[table["replicate"] > 0].assign(hypothesis=1)
    study = only(pd.concat([table, other]))
    assert study.rows["replicate"].tolist() == [0, 1, 2, 0, 1, 2, 1, 2, 1, 2]
    assert study.rows["cell"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]


def test_by_and_covariates():
    table = pd.concat([counts(model="m", size=s, run=[1, 2, 3], seed=7.0) for s in (1.0, 2.5)])
    one, two = read_curves(table, by=("model", "size"))
    assert one.key == {"model": "m", "size": "1"}
    assert two.label == "m | 2.5"
    assert one.covariates == {"seed": "7"}  # `run` varies, `size` is a key
    assert len(read_curves(table, by="size")) == 2
    assert only(counts(), by=()).label == "study"


def test_table_has_canonical_names_and_all_keys():
    curves = read_curves(counts(size="7B").rename(columns={"shots": "n"}), columns={"shots": "n"})
    assert curves.table["size"].tolist() == ["7B"] * 3
    assert curves.table["hypothesis"].tolist() == ["0"] * 3
    assert curves.table["shots"].tolist() == [0, 1, 2]
    assert {"model", "variant", "task", "replicate", "correct", "total"} <= set(curves.table)
    assert "n" not in curves.table
    assert (curves.outcome, curves.source) == ("counts", "DataFrame")


def test_a_mapped_column_wins_over_one_of_that_name():
    table = counts().assign(n=[3, 4, 5])
    assert only(table, columns={"shots": "n"}).cells["shots"].tolist() == [3, 4, 5]
    assert table["shots"].tolist() == [0, 1, 2]  # the caller's frame is left alone


def test_where_takes_either_name():
    table = counts().rename(columns={"shots": "n"})
    for where in ("n < 2", "shots < 2"):
        study = only(table, columns={"shots": "n"}, where=where)
        assert study.cells["shots"].tolist() == [0, 1]


def test_chance_is_kept_per_curve():
    table = pd.concat([counts(hypothesis=0, chance=0.25), counts(hypothesis=1, chance=np.nan)])
    np.testing.assert_array_equal(only(table).cells["chance"], [0.25] * 3 + [np.nan] * 3)


def test_hash_depends_on_values_and_on_nothing_else():
    table = replicated([[1, 2, 4], [2, 3, 5]], model="m")
    study = only(table)
    assert re.fullmatch("[0-9a-f]{64}", study.hash)
    assert only(table.sample(frac=1, random_state=0)).hash == study.hash
    assert only(table.assign(note="x")).hash == study.hash
    assert study.hold_out(fit_points=2).hash == study.hash
    assert only(table, items="fresh").hash != study.hash
    assert only(table.assign(model="n")).hash != study.hash
    assert only(table.assign(model="n")).digest == study.digest
    assert study.hold_out(fit_points=2).digest == study.digest
    swapped = table.assign(correct=[2, 2, 4, 1, 3, 5])  # the same cells, other rows
    assert only(swapped).hash != study.hash
    assert only(swapped).digest == study.digest
    assert only(table.assign(correct=table["correct"] + 1)).digest != study.digest


# Files

CSV = "model,shots,correct,total\nm,0,2,10\n\nm,1,5,10\nm,2,7,10\n"
JSONL = "".join(
    f'{{"model": "m", "shots": {s}, "correct": {c}, "total": 10}}\n'
    for s, c in zip([0, 1, 2], [2, 5, 7], strict=True)
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", CSV.encode()),
        ("t.CSV", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("t.v1.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("t.tsv", CSV.replace(",", "\t").encode()),
        ("t.csv", CSV.replace(",", ", ").encode()),
        ("t.txt", CSV.replace(",", "\t").encode()),
        ("table", CSV.encode()),
        ("t.jsonl", JSONL.encode()),
        ("t.json", JSONL.encode()),
        ("t.ndjson.gz", gzip.compress(JSONL.encode(), mtime=0)),
        ("t.log", JSONL.encode()),
    ],
)
def test_every_format_reads_alike(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    curves = read_curves(str(path))
    assert curves.source == str(path)
    assert curves.studies[0].hash == only(counts(model="m")).hash


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    counts(model="m").to_parquet(path)
    assert only(path).hash == only(counts(model="m")).hash
    path.write_text("PAR")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_curves(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    def absent(*args, **kwargs):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", absent)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=re.escape("pip install 'bayesicl[parquet]'")):
        read_curves(path)


# Input that cannot be used: name, what is read (text of a CSV, a frame), settings, message

HEAD = "shots,correct,total\n0,2,10\n"
PROB = frame(shots=[0, 1], prob=[0.2, 0.5])
NLL = {"outcome": "mean_nll"}
TWO = counts().assign(nll=0.5)
BAD = [
    ("no shots", "n,correct,total\n0,1,2\n", {}, r"no column `shots`.*n, correct, total.*--column"),
    ("unmapped", HEAD, {"columns": {"shots": "k"}}, r"no column `k` to read as `shots`.*shots, co"),
    (
        "column nobody reads",
        HEAD,
        {"columns": {"totals": "total"}},
        r"--column totals=total: nothing reads `totals`; write total=total",
    ),
    ("percent", "shots,prob,se\n0,45%,.1\n", {}, r"line 2.*got '45%'.*without a percent sign"),
    ("thousands", 'shots,correct,total\n"1,000",1,2\n', {}, r"got '1,000'; correct the value"),
    ("comma", 'shots,prob,se\n0,"0,45",.1\n', {}, r"line 2.*got '0,45'.*with a point"),
    ("where name", HEAD, {"where": "size > 1"}, r"--where 'size > 1'.*size.*shots, correct, total"),
    ("where syntax", HEAD, {"where": "shots >"}, r"--where 'shots >' cannot be evaluated"),
    ("where value", HEAD, {"where": "shots + 1"}, r"true or false for each row"),
    ("where all", HEAD, {"where": "shots > 5"}, r"no rows are left after --where 'shots > 5'"),
    ("header only", "shots,correct,total\n", {}, r"no rows"),
    ("empty", "\n \n", {}, r"the file is empty"),
    ("prose", "Dear all\nhere is my table\n", {}, r"not a table"),
    ("long line", HEAD + "1,5,10,3\n", {}, r"not a table.*line 3.*as the header, 3"),
    (
        "long lines",
        "shots,correct,total\n0,2,10,9\n1,3,10,9\n",
        {},
        r"not a table.*as the header, 3",
    ),
    ("same name", "shots,correct,total,total\n0,2,10,9\n", {}, r"two columns are called `total`"),
    ("text shots", HEAD + "few,5,10\n", {}, r"line 3: `shots` must be a whole .*got 'few'"),
    ("half shots", HEAD + "\n1.5,5,10\n", {}, r"line 4: `shots` must be a whole .*got 1.5"),
    ("negative shots", HEAD + "-1,5,10\n", {}, r"line 3: `shots` .*at least 0, got -1"),
    ("tokens", HEAD + "10000001,5,10\n", {}, r"line 3: `shots` .*10 million.*tokens"),
    ("missing", HEAD + "1,,10\n", {}, r"line 3: `correct` .*got nothing"),
    ("infinite", HEAD + "1,inf,10\n", {}, r"line 3: `correct` .*got inf"),
    (
        "too many",
        HEAD + "1,11,10\n2,12,10\n",
        {},
        r"line 3 and 1 more: `correct` .*`total`, got 11",
    ),
    ("none measured", HEAD + "1,0,0\n", {}, r"line 3: `total` .*at least 1, got 0"),
    ("accuracy", HEAD + "1,0.5,10\n", {}, r"line 3: `correct` .*got 0.5; turn an accuracy"),
    ("no total", counts().drop(columns="total"), {}, r"row 0 and 2 more: `correct` .*add `total`"),
    ("no outcome", frame(shots=[0, 1]), {}, r"no outcome"),
    ("two outcomes", TWO, {}, r"--outcome counts or --outcome nll"),
    ("other outcome", TWO, {"outcome": "accuracy"}, r"--outcome must be one of counts, prob"),
    ("outcome absent", TWO, {"outcome": "prob"}, r"--outcome prob needs a column `prob`"),
    ("mean_nll below 0", frame(shots=[0, 1], mean_nll=[1, -1]), {}, r"row 1: `mean_nll` .*got -1"),
    ("mean_nll and prob", PROB.assign(mean_nll=1), {}, r"--outcome prob or --outcome mean_nll"),
    (
        "ask mean_nll",
        PROB,
        {"outcome": "mean_nll"},
        r"mean_nll needs a column `mean_nll`, or `nll` of",
    ),
    ("batches", prompts([[1, 2]], "nll").assign(total=5), NLL, r"`total` .*mean_nll=nll"),
    ("se of nll", prompts([[1, 2]], "nll").assign(se=5), NLL, r"a mean of nll `mean_nll`"),
    ("tiny se", frame(shots=[0, 1], mean_nll=1.0, se=1e-9), {}, r"`se` .*in nats"),
    (
        "percent",
        frame(shots=[0, 1], prob=[1, 20.0]),
        {},
        r"row 1: `prob` .*\[0, 1\], got 20.0;.*100",
    ),
    ("nll below 0", prompts([[1, 2], [-0.1, 2]], "nll"), {}, r"row 2: `nll` must be at least 0"),
    ("nll batches", prompts([[1, 2]], "nll").assign(total=5), {}, r"`total` .*nll_of_mean=nll"),
    ("nll and se", prompts([[1, 2]], "nll").assign(se=5), {}, r"`nll` is of single prompts"),
    ("both errors", PROB.assign(total=5, se=0.1), {}, r"both `total` and `se`.*drop one"),
    ("no error", PROB, {}, r"no known error; add `total`.*replicate"),
    ("se 0", PROB.assign(se=[0.1, 0]), {}, r"row 1: `se` must be above 0, got 0"),
    (
        "se replicates",
        prompts([[0.1, 0.2]] * 2).assign(se=0.1),
        {},
        r"`se` is of the mean of a cell",
    ),
    ("repeat", HEAD + "1,4,10\n0,3,10\n", {}, r"line 2 and line 4: two rows .*add a replicate col"),
    (
        "twins",
        HEAD.replace("s,c", "s,a,c").replace("0,2", "0,p,2") + "0,q,3,10\n",
        {},
        r"differ in a.*task a",
    ),
    (
        "one cell",
        counts([0, 1, 0], hypothesis=[0, 0, 1]),
        {},
        r"^DataFrame, study, hypothesis 1: .*at least 2",
    ),
    ("no model", counts(model=["m", None, "m"]), {}, r"row 1: `model` must be filled in"),
    ("nested model", counts(model=[["m"]] * 3), {}, r"`model` must hold text or numbers"),
    ("chance 1", counts(chance=1.0), {}, r"`chance` .*between 0 and 1, got 1.0"),
    (
        "chance varies",
        counts(chance=[0.5, 0.5, 0.25]),
        {},
        r"row 2: `chance` .*constant .*got 0.25",
    ),
    ("chance gap", counts(chance=[0.5, None, 0.5]), {}, r"row 1: `chance` .*got nothing"),
    ("by unknown", HEAD, {"by": ("size",)}, r"no column `size` as --by asks"),
    ("by shots", counts(), {"by": ("shots",)}, r"--by shots cannot tell studies apart"),
    ("by hypothesis", counts(), {"by": ("hypothesis",)}, r"no column `hypothesis` as --by asks"),
    ("items", counts(), {"items": "shared"}, r"--items shared is for counts with replicates"),
    ("items name", counts(), {"items": "same"}, r"--items must be shared or fresh, got 'same'"),
]


@pytest.mark.parametrize(
    ("source", "settings", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input_says_what_where_and_what_to_do(tmp_path, source, settings, message):
    if isinstance(source, str):
        path = tmp_path / "t.csv"
        path.write_text(source)
        source, message = path, message if message.startswith("^") else f"t.csv.*{message}"
    with pytest.raises(InputError, match=message) as caught:
        read_curves(source, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["total", "se"])
def test_advice_to_rename_a_column_away_works(name):
    table = pd.DataFrame({"shots": [0, 1], "prob": [0.2, 0.5], "total": 10, "se": 0.1})
    with pytest.raises(InputError, match="rename it away \\(--column unused=total\\)"):
        read_curves(table)
    kind = read_curves(table, columns={"unused": name}).studies[0].kind
    assert kind == ("aggregated" if name == "se" else "given se")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"shots\x00,correct", "not UTF-8 text; save the table as CSV"),
        ("t.xlsx", b"PK\x03\x04\xff\xfe", "is an Excel file"),
        ("t.csv", b"PK\x03\x04\xff\xfe[Content_Types].xml", "is an Excel file"),
        ("t.zip", b"PK\x03\x04\xff\xfe", "is an archive; unpack it and give the table in it"),
        ("t.csv.gz", b"shots,correct", "cannot be read"),
        ("t.jsonl", b'{"shots": 0}\n{"shots": \n', "line 2: is not JSON"),
        ("t.jsonl", b'{"model": "\\ud800"}', "line 1: is not JSON .*surrogates"),
        ("t.jsonl", b"[" * 100_000, "line 1: is not JSON .*recursion"),
        ("t.json", b"[1, 2]", "line 1: must be one JSON object, got list"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{re.escape(name)}.*{message}"):
        read_curves(path)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_may_end_as_on_other_systems(end, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(f"shots,correct{end}0,1{end}1,0{end}".encode())
    assert only(path).cells["y"].tolist() == [1, 0]
    path.write_bytes(f"shots,correct{end}0,1{end}1,x{end}".encode())
    with pytest.raises(InputError, match="line 3: `correct`"):
        read_curves(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read .*too long"):
        read_curves("x" * 5000)
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        read_curves(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_curves(tmp_path)


def test_messages_give_the_name_in_the_file():
    with pytest.raises(InputError, match=r"row 1: `shots` \(column `n`\) must be .*, got 'x'"):
        read_curves(counts().assign(n=[0, "x", 1]), columns={"shots": "n"})


# Warnings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (counts(correct=(0, 0, 0)), "study: all counts are 0$"),
        (counts(correct=(10, 10, 10)), "study: all counts are full$"),
        (counts(correct=(4, 4, 4)), r"study: the curve is constant at 0\.4$"),
        (frame(shots=[0, 1], prob=1.0, total=3), "study: the curve is constant at 1$"),
        (
            pd.concat([counts(correct=(c,) * 3, hypothesis=h) for h, c in ((1, 0), (2, 3))]),
            r"study: hypothesis 1: all counts are 0; hypothesis 2: the curve is constant at 0\.3$",
        ),
    ],
)
def test_flat_curves_warn_once_a_study(table, message):
    with pytest.warns(CurveWarning, match=message) as caught:
        read_curves(table)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_counts_given_as_probabilities_warn():
    right = [0.0, 1.0, 1.0, 0.0]
    table = frame(shots=[0, 0, 1, 1], prob=right, replicate=[0, 1, 0, 1])
    with pytest.warns(CurveWarning, match="0 or 1 throughout: give right answers as `correct`"):
        read_curves(table)
    table = frame(shots=[0, 1, 2, 3], prob=[0.25, 0.5, 0.55, 0.7], total=20)
    with pytest.warns(CurveWarning, match="whole number throughout: if it is an accuracy"):
        read_curves(table)


def test_se_that_goes_with_the_outcome_warns():
    y = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    table = frame(shots=SHOTS[:6], prob=y, se=[0.01, 0.02, 0.03, 0.04, 0.06, 0.05])
    with pytest.warns(CurveWarning, match=r"`se` goes with the outcome \(Spearman 0\.94\)"):
        read_curves(table)
    read_curves(table.head(5))  # too few cells to say
    read_curves(table.assign(se=0.01))
    read_curves(table.assign(se=[0.03, 0.02, 0.06, 0.01, 0.05, 0.04]))  # rank correlation .26


# Holding out


@pytest.mark.parametrize(
    ("settings", "fitted", "fraction"),
    [
        ({"fit_shots": "50%"}, 7, 0.5),
        ({"fit_shots": "49.9%"}, 6, 0.25),
        ({"fit_shots": "1 %"}, 5, 0.125),  # the first 5 cells in any case
        ({"fit_shots": 4}, 4, 0.0625),
        ({"fit_shots": "31"}, 6, 0.25),
        ({"fit_points": 2}, 2, 1 / 64),
    ],
)
def test_hold_out(settings, fitted, fraction):
    study = only(counts(SHOTS, range(8)))
    split = study.hold_out(**settings)
    assert split.cells["fitted"].tolist() == [True] * fitted + [False] * (8 - fitted)
    assert split.fraction == fraction
    assert study.cells["fitted"].to_numpy().all()  # the study itself is left alone


def test_hold_out_goes_by_each_curves_own_length():
    table = pd.concat(
        [
            counts(range(10), range(10), hypothesis=0),
            counts(range(0, 100, 10), range(10), hypothesis=1),
            counts(range(3), range(3), hypothesis=2),  # short: stays whole
        ]
    )
    split = only(table).hold_out(fit_shots="80%")
    assert np.bincount(split.cells["hypothesis"], split.cells["fitted"]).tolist() == [8, 8, 3]
    np.testing.assert_allclose(split.fraction, 7 / 9)


def test_hold_out_of_curves_lets_short_studies_stay_whole():
    table = pd.concat([counts(task="short"), counts(SHOTS, range(8), task="long")])
    curves = read_curves(table)
    split = curves.hold_out(fit_points=3)
    assert [study.cells["fitted"].sum() for study in split] == [3, 3]
    assert split.table is curves.table
    with pytest.raises(InputError, match="--fit-points 3 leaves nothing to predict"):
        curves.studies[0].hold_out(fit_points=3)
    with pytest.raises(InputError, match="--fit-shots 100% leaves nothing to predict"):
        curves.hold_out(fit_shots="100%")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --fit-shots or --fit-points$"),
        ({"fit_shots": 4, "fit_points": 4}, "not both"),
        (
            {"fit_shots": "half"},
            "--fit-shots must be a whole number of at least 0, or a share like 25%, got 'half'",
        ),
        ({"fit_shots": "x%"}, "must be a share like 25%"),
        ({"fit_shots": "nan%"}, "must be a share like 25%"),
        ({"fit_shots": "101%"}, "at most 100"),
        ({"fit_shots": -3}, "must be a whole number"),
        ({"fit_points": 2.5}, "--fit-points must be a whole number of at least 0, got 2.5"),
        ({"fit_points": True}, "must be a whole number"),
        ({"fit_points": 8}, "leaves nothing to predict"),
        ({"fit_points": 1}, "at least 2 cells to fit, got 1"),
        ({"fit_shots": 0}, "m: a curve needs at least 2 cells to fit, got 1"),
    ],
)
def test_bad_splits(settings, message):
    with pytest.raises(InputError, match=message):
        only(counts(SHOTS, range(8), model="m")).hold_out(**settings)


# Names that look alike


@pytest.mark.parametrize("column", ["task", "model", "hypothesis"])
@pytest.mark.parametrize(
    "other", ["caf\u00e9 ", " caf\u00e9", "caf\u00e9\u00a0", "cafe\u0301", "caf\u00e9\u200b"]
)
def test_names_that_nobody_can_tell_apart_are_refused(other, column):
    table = pd.concat([counts(**{column: "caf\u00e9"}), counts(**{column: other})])
    with pytest.raises(InputError) as told:
        read_curves(table, by=("model", "variant", "task"))
    assert str(told.value) == (
        f"DataFrame: `{column}` holds 'caf\u00e9' (row 0 first) and {other!r} (row 3 first): they "
        "look alike and are two names; write them alike, or give them names that differ to the "
        "eye"
    )


def test_names_that_differ_in_case_warn_once(tmp_path):
    parts = [counts(task=task) for task in ("b", "B", "a", "A", "c")]
    pd.concat(parts).to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(CurveWarning) as caught:
        curves = read_curves(tmp_path / "t.csv")
    assert len(curves) == 5
    [told] = caught
    assert re.search(
        r"t\.csv: `task` holds 'a' \(line 8 first\) and 'A' \(line 11 first\) and 1 more such "
        r"pairs: two names; if one is meant, write them alike$",
        str(told.message),
    )


def test_other_columns_may_look_alike():
    """Only what makes studies and curves is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pd.concat([counts(task=t, notes=n) for t, n in (("a", "x"), ("b", "X "))])
        assert len(read_curves(table)) == 2
