"""Any numeric table becomes a model; whatever is wrong with one is said, with row and column."""

import gzip
import hashlib
import io
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from iris_serve.data.contract import Contract
from iris_serve.data.files import MAX_ISSUES, FileIssue, TableError
from iris_serve.data.rows import RowError, check_row
from iris_serve.data.table import Table, fingerprint, held_out, iris, split
from iris_serve.data.tables import MAX_FEATURES, MAX_NAME, MIN_CLASS_ROWS, load_table, read_table
from iris_serve.forest import Forest
from iris_serve.model.card import make_card
from iris_serve.model.load import load, open_model
from iris_serve.model.save import save
from iris_serve.model.train import (
    Params,
    Scores,
    cross_validate,
    cv_folds,
    fit,
    make_estimator,
    score,
)

BUNCHES = {"wine": load_wine, "breast cancer": load_breast_cancer, "iris": load_iris}
ROWS = [(f"{i}.5", f"{i * i}", "red" if i % 2 else "blue") for i in range(20)]


def frame_of(bunch):
    frame = pd.DataFrame(bunch.data, columns=bunch.feature_names)
    return frame.assign(kind=[f"class {bunch.target_names[i]}" for i in bunch.target])


def lines(rows, header=("size", "weight", "kind")):
    return "\n".join([",".join(header), *(",".join(row) for row in rows)]) + "\n"


def changed(row, column, text):
    """The good rows, but for one cell; both counted from 0."""
    rows = [list(r) for r in ROWS]
    rows[row][column] = text
    return lines(rows)


@pytest.fixture
def refused(tmp_path):
    """The error about a CSV file with this content."""

    def read(content, target="kind", features=None, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(TableError) as refusal:
            read_table(path, target, features)
        assert refusal.value.source == name
        assert str(tmp_path) not in str(refusal.value)
        return refusal.value

    return read


@pytest.fixture
def accepted(tmp_path):
    def read(content, target="kind", features=None, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, target, features)

    return read


# What is read


@pytest.mark.parametrize("name", BUNCHES)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_table_from_a_file_has_every_number_to_the_last_bit(name, kind, tmp_path):
    frame, path = frame_of(BUNCHES[name]()), tmp_path / f"table.{kind}"
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
    table = read_table(path, "kind")
    assert table.X.tobytes() == (frame.drop(columns="kind").to_numpy() + 0.0).tobytes()
    assert table.X.dtype == np.float64
    assert table.X.flags.c_contiguous
    assert table.y.tolist() == frame.kind.tolist()
    assert table.source == path.name
    assert table.file == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", BUNCHES)
def test_the_same_numbers_have_the_same_fingerprint_in_every_kind_of_file(name, tmp_path):
    frame = frame_of(BUNCHES[name]())
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    frame.to_parquet(tmp_path / "c.parquet", compression="gzip", row_group_size=7)
    tables = [read_table(tmp_path / n, "kind") for n in ("a.csv", "b.parquet", "c.parquet")]
    assert len({fingerprint(table) for table in tables}) == 1
    assert len({table.file for table in tables}) == 3
    assert tables[0].contract == tables[1].contract


@pytest.mark.parametrize("name", BUNCHES)
def test_the_contract_is_that_of_the_file_and_its_example_is_nobodys_row(name, tmp_path):
    frame = frame_of(BUNCHES[name]())
    frame.to_csv(tmp_path / "table.csv", index=False)
    contract = read_table(tmp_path / "table.csv", "kind").contract
    values = frame.drop(columns="kind")
    assert contract.names == list(values.columns)
    assert [f.low for f in contract.features] == values.min().tolist()
    assert [f.high for f in contract.features] == values.max().tolist()
    assert contract.classes == contract.labels == tuple(sorted(set(frame.kind)))
    assert check_row(list(contract.example), contract) == list(contract.example)
    for feature, value in zip(contract.features, contract.example, strict=True):
        assert value in values[feature.name].tolist()
        assert feature.low <= value <= feature.high
    if name != "iris":  # with four columns of few values chance may make a row
        assert list(contract.example) not in values.to_numpy().tolist()


@pytest.mark.parametrize("name", ["wine", "breast cancer"])
def test_a_csv_with_string_classes_becomes_a_model_bit_equal_to_scikit_learn(name, tmp_path):
    frame = frame_of(BUNCHES[name]())
    frame.to_csv(tmp_path / "table.csv", index=False)
    table = load_table(str(tmp_path / "table.csv"), "kind")
    params = Params(n_estimators=20)
    train, test = split(table, params.test_size)
    estimator = fit(make_estimator(params), train)
    card = make_card("any", params, table, score(estimator, test), estimator)
    save(estimator, card, tmp_path / "model")

    forest, card = open_model(tmp_path / "model")
    assert isinstance(forest, Forest)
    assert (card.data.source, card.data.file) == ("table.csv", table.file)
    assert card.data.sha256 == fingerprint(table)
    assert card.contract == table.contract
    assert card.metrics.accuracy > 0.85
    plain = make_estimator(params).fit(
        train.X, train.y
    )  # nothing of this project but the parameters
    assert forest.predict_proba(table.X).tobytes() == plain.predict_proba(table.X).tobytes()
    assert forest.predict(table.X).tolist() == plain.predict(table.X).tolist()
    assert load(tmp_path / "model")[0].classes_.tolist() == list(table.contract.classes)


def test_a_built_in_table_has_no_file():
    table = load_table()
    assert fingerprint(table) == fingerprint(iris())
    assert table.file is None
    assert table.contract.example == (6.1, 2.8, 4.7, 1.2)


def test_a_feature_called_label_is_looked_at_beside_the_label(accepted):
    lines = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(20)]
    frame = accepted("\n".join(["label,size,kind", *lines])).frame()
    assert list(frame) == ["label", "size", "label"]
    assert frame.iloc[:3, 0].tolist() == [0.0, 1.0, 2.0]
    assert frame.iloc[:3, 2].tolist() == ["a", "b", "a"]


def test_features_choose_columns_and_their_order(accepted):
    table = accepted(lines(ROWS), features=["weight", "size"])
    assert table.contract.names == ["weight", "size"]
    assert table.X[3].tolist() == [9.0, 3.5]
    assert accepted(lines(ROWS), features=["size"]).X.shape == (20, 1)


def test_columns_that_nobody_chose_may_hold_anything(accepted):
    rows = [("", *row, "x", "") for row in ROWS]
    header = ("", "size", "weight", "kind", "note", "note")
    assert len(accepted(lines(rows, header), features=["size", "weight"])) == 20


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + lines(ROWS).encode(),
        lines(ROWS).replace("\n", "\r\n"),
        lines(ROWS).replace("\n", "\r"),
        lines(ROWS).rstrip(),
        lines(ROWS) + "\n\n \n",
        lines(ROWS).replace(",", " , "),
        lines(ROWS).replace("red", '"red"').replace("size", '"size"'),
    ],
    ids=["BOM", "CRLF", "CR", "no last newline", "empty lines at the end", "spaces", "quotes"],
)
def test_the_dress_of_a_csv_file_does_not_matter(content, accepted):
    plain, other = accepted(lines(ROWS)), accepted(content)
    assert fingerprint(other) == fingerprint(plain)
    assert other.contract == plain.contract


@given(st.lists(st.floats(-1e38, 1e38), min_size=10, max_size=30, unique=True))
def test_a_number_is_read_as_python_reads_it(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("numbers") / "n.csv"
    rows = [[repr(x), str(i % 2)] for i, x in enumerate(numbers)]
    path.write_text(lines(rows, ["x", "kind"]))
    if len(set(np.float32(numbers))) == 1:  # so close together that 32 bits see one number
        with pytest.raises(TableError, match="constant"):
            read_table(path, "kind")
    else:
        assert read_table(path, "kind").X[:, 0].tolist() == [x + 0.0 for x in numbers]


# Classes


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["0", "1"], [0, 1]),
        (["1.0", "2.0"], [1, 2]),
        (["-1", "+1"], [-1, 1]),
        (["1e3", "10"], [10, 1000]),
        (["007", "008"], ["007", "008"]),
        (["1", "b"], ["1", "b"]),
        (["1.5", "b"], ["1.5", "b"]),
        (["True", "False"], ["False", "True"]),
        (["none", "Na"], ["Na", "none"]),
        (["зелёный", "緑"], ["зелёный", "緑"]),
        (['"a ""b"""', '"c,d"'], ['a "b"', "c,d"]),
    ],
)
def test_classes_are_whole_numbers_if_all_are_and_else_texts(written, read, accepted):
    rows = [(f"{i}", written[i % 2]) for i in range(20)]
    table = accepted(lines(rows, ["size", "kind"]))
    assert list(table.contract.classes) == read
    assert list(table.contract.labels) == [str(c) for c in read]
    assert set(table.y.tolist()) == set(read)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([0, 1], [0, 1]),
        ([1.0, 2.0], [1, 2]),
        (["1", "2"], ["1", "2"]),
        ([True, False], ["False", "True"]),
        (pd.Categorical(["b", "a"]), ["a", "b"]),
        (np.array([3, 4], dtype="uint8"), [3, 4]),
    ],
    ids=["int", "float", "text", "bool", "category", "uint8"],
)
def test_parquet_says_itself_what_a_class_is(values, read, tmp_path):
    frame = pd.DataFrame({"size": range(20), "kind": [*values] * 10})
    frame["kind"] = frame["kind"].astype(pd.Series(values).dtype)
    frame.to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet", "kind").contract.classes) == read


@pytest.mark.parametrize("text", ["0.5", "1e400", str(2**53), "-inf", "1" * 100, "-" + "9" * 90])
def test_a_target_of_measurements_or_of_long_identifiers_is_refused(text, refused):
    rows = [(f"{i}", text if i == 7 else f"{i % 2}") for i in range(20)]
    (complaint,) = refused(lines(rows, ["size", "kind"])).complaints
    assert (complaint.row, complaint.column, complaint.value) == (8, "kind", text)
    assert "not a measurement" in complaint.problem


def test_a_target_with_nearly_a_class_a_row_is_refused_in_one_complaint(refused):
    rows = [(f"{i}", f"{i * 7}") for i in range(300)]
    (complaint,) = refused(lines(rows, ["size", "kind"])).complaints
    assert (complaint.row, complaint.column, complaint.value) == (1, "kind", "0")
    assert "300 different values in 300 rows" in complaint.problem


def test_one_row_a_class_is_refused_with_row_column_and_value(refused):
    rows = [("1", "a"), ("2", "b"), ("3", "c")]
    error = refused(lines(rows, ["size", "kind"]))
    assert [(c.row, c.column, c.value) for c in error.complaints] == [
        (1, "kind", "a"),
        (2, "kind", "b"),
        (3, "kind", "c"),
    ]
    assert all("only 1 row of this class, and at least 5" in c.problem for c in error.complaints)


def test_a_class_needs_its_least_rows_and_no_more(accepted, refused):
    rows = [(f"{i}", "few" if i < MIN_CLASS_ROWS else "many") for i in range(30)]
    assert len(accepted(lines(rows, ["size", "kind"]))) == 30
    (complaint,) = refused(lines(rows[1:], ["size", "kind"])).complaints
    assert (complaint.row, complaint.value) == (1, "few")


def test_a_single_class_is_refused(refused):
    (complaint,) = refused(lines([(a, b, "red") for a, b, _ in ROWS])).complaints
    assert (complaint.column, complaint.value) == ("kind", "red")
    assert "only class" in complaint.problem


# Complaints


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "missing"),
        ("NA", "missing"),
        ("nan", "missing"),
        ("big", "text in a column of numbers"),
        ('"6,1"', "write a decimal point"),
        ('"6,125"', "write numbers without a comma, decimals with a point"),
        ('"1,234,567.5"', "write numbers without a comma, decimals with a point"),
        ("1_000", "text in a column of numbers"),
        ("٣", "text in a column of numbers"),
        ("0x10", "text in a column of numbers"),
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("1e400", "infinite"),
        ("1e39", "beyond 3.4e38"),
        ("1" * 399, "beyond 3.4e38"),
        ("9" * 5000, "infinite"),
        ("True", "write 1 or 0"),
        ("9007199254740993", "a whole number beyond 2**53"),
    ],
)
def test_a_bad_cell_is_refused_with_row_column_and_value(text, problem, refused):
    (complaint,) = refused(changed(11, 1, text)).complaints
    assert (complaint.row, complaint.column) == (12, "weight")
    assert complaint.value == text.strip('"')[:100]
    assert problem in complaint.problem


def test_a_hole_in_the_target_is_refused_with_its_row(refused):
    (complaint,) = refused(changed(4, 2, "NA")).complaints
    assert complaint == FileIssue(5, "kind", "NA", "missing")


def test_parquet_is_refused_in_the_same_words(tmp_path):
    frame = pd.DataFrame([(float(a), int(b), c) for a, b, c in ROWS], columns=["x", "n", "kind"])
    frame = frame.astype({"n": "Int64"})
    frame.loc[3, "x"] = np.inf
    frame.loc[5, "n"] = pd.NA
    frame.loc[6, "n"] = 2**53 + 1
    frame.loc[7, "kind"] = None
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError) as refusal:
        read_table(tmp_path / "t.parquet", "kind")
    found = [(c.row, c.column, c.value) for c in refusal.value.complaints]
    assert found[:2] == [(4, "x", "inf"), (6, "n", "")]
    assert found[2:] == [(7, "n", str(2**53 + 1)), (8, "kind", "")]


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2026-01-01", periods=20),
        [b"x"] * 20,
        [[1.0, 2.0]] * 20,
        [{"a": 1}] * 20,
        [True, False] * 10,
        ["6.1"] * 20,
    ],
    ids=["dates", "bytes", "lists", "objects", "booleans", "texts"],
)
def test_a_parquet_column_of_another_kind_has_one_complaint(values, tmp_path):
    frame = pd.DataFrame({"size": range(20), "odd": values, "kind": ["a", "b"] * 10})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError) as refusal:
        read_table(tmp_path / "t.parquet", "kind")
    (complaint,) = refusal.value.complaints
    assert (complaint.row, complaint.column) == (1, "odd")
    assert "no other row is better" in complaint.problem
    assert len(read_table(tmp_path / "t.parquet", "kind", ["size"])) == 20


def test_a_constant_column_is_refused_as_a_forest_sees_it(refused):
    for numbers in (["0"], ["1", "1.00000000001"]):
        rows = [(a, numbers[i % len(numbers)], c) for i, (a, _, c) in enumerate(ROWS)]
        (complaint,) = refused(lines(rows)).complaints
        assert (complaint.row, complaint.column) == (None, "weight")
        assert "constant" in complaint.problem


def test_a_column_with_the_content_of_another_is_refused(refused):
    rows = [(a, b, a, c) for a, b, c in ROWS]
    (complaint,) = refused(lines(rows, ["size", "weight", "copy", "kind"])).complaints
    assert complaint == FileIssue(None, "copy", None, "the same numbers as the column size")


def test_columns_that_a_forest_cannot_tell_apart_are_the_same(refused):
    rows = [(a, b, f"{float(a) * (1 + 1e-12)!r}", c) for a, b, c in ROWS]
    (complaint,) = refused(lines(rows, ["size", "weight", "copy", "kind"])).complaints
    assert complaint == FileIssue(None, "copy", None, "the same numbers as the column size")


def test_two_columns_of_one_name_are_refused_and_not_renamed(refused):
    rows = [(a, b, c) for a, b, c in ROWS]
    (complaint,) = refused(lines(rows, ["size", "size", "kind"])).complaints
    assert (complaint.column, complaint.problem) == ("size", "named more than once")
    (complaint,) = refused(lines(rows, ["size", "kind", "kind"])).complaints
    assert complaint.column == "kind"


@pytest.mark.parametrize(
    ("target", "features", "column", "problem"),
    [
        ("kynd", None, "kynd", "did you mean 'kind'? (there are size, weight, kind)"),
        ("kind", ["sise"], "sise", "did you mean 'size'?"),
        ("KIND", ["size"], "KIND", "did you mean 'kind'?"),
        ("kind", ["size", "size"], "size", "named more than once"),
        ("kind", ["size", "kind"], "kind", "named more than once"),
        ("kind", [], None, "1 to 1000 features are needed, and there are 0"),
        (None, None, None, "the target column must be named (there are size, weight, kind)"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(target, features, column, problem, refused):
    (complaint,) = refused(lines(ROWS), target, features).complaints
    assert (complaint.row, complaint.column) == (None, column)
    assert problem in complaint.problem


def test_a_file_without_a_header_is_asked_for_one(refused):
    content = lines(ROWS[1:], ROWS[0])
    assert "is the header missing?" in refused(content, "kind").complaints[0].problem


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * (MAX_NAME + 1), '"a\nb"'])
def test_a_feature_without_a_usable_name_is_refused(name, refused):
    error = refused(lines(ROWS, ["size", name, "kind"]))
    assert len(error.complaints) == 1
    assert str(error).count("\n") == 3  # whatever the name, it stays on its line


ODD = ["a'b", 'a""b', "länge (µm)", "größe 緑 🌱", "x" * MAX_NAME, "a.b[0]"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_kept_and_named_in_errors(name, accepted):
    table = accepted(lines(ROWS, ["size", f'"{name}"', "kind"]))
    assert table.contract.features[1].name == name.replace('""', '"')
    with pytest.raises(RowError) as refusal:
        check_row([1.0, None], table.contract)
    assert str(refusal.value).isprintable()
    assert name.replace('""', '"')[:40] in str(refusal.value)


def test_too_many_features_are_refused_before_a_row_is_read(refused):
    names = [f"f{i}" for i in range(MAX_FEATURES + 1)]
    assert "features are needed" in str(refused(",".join([*names, "kind"]) + "\n"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1,2", "2 values in this row, and 3 columns in the header"),
        ("1,2,red,4", "4 values in this row, and 3 columns in the header"),
        ("", "an empty line"),
        ("  ", "an empty line"),
    ],
)
def test_a_line_of_another_length_is_refused_with_its_row(line, problem, refused):
    content = lines(ROWS).splitlines()
    content.insert(6, line)
    (complaint,) = refused("\n".join(content)).complaints
    assert (complaint.row, complaint.problem) == (6, problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"size,weight,kind\n", "there is no row below the header"),
        (lines(ROWS).replace(",", ";"), "separated by semicolons"),
        (lines(ROWS).replace(",", "\t"), "separated by tabs"),
        (lines(ROWS).encode("utf-16"), "UTF-16"),
        (lines(ROWS).replace("red", "röd").encode("latin-1"), "line 3 of the file is not text in"),
        (lines(ROWS) + '1,"2', "line 22 of the file is not CSV"),
        (lines(ROWS) + f'"{"x" * 200_000}",1,red', "is not CSV: field larger than"),
    ],
)
def test_what_is_no_csv_file_is_named(content, problem, refused):
    assert problem in str(refused(content))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with Excel's mark"])
def test_a_byte_that_is_not_text_is_named_with_its_line(mark, refused):
    content = lines(ROWS).replace("red", "röd", 1).encode("latin-1")
    (complaint,) = refused(mark + content).complaints
    assert complaint.value == "byte 0xf6"
    assert complaint.problem.startswith("line 3 of the file is not text in UTF-8")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.xlsx", b"PK", "only .csv, .csv.gz and .parquet files are read"),
        ("csv", b"a,b", "only .csv, .csv.gz and .parquet files are read"),
        ("t.csv.gz", b"size,kind", "the file cannot be unpacked"),
        ("t.csv.gz", gzip.compress(lines(ROWS).encode())[:-9], "the file cannot be unpacked"),
        ("t.parquet", b"size,kind", "this is not Parquet"),
        ("t.parquet", b"", "this is not Parquet"),
    ],
)
def test_a_file_of_another_kind_or_damaged_is_refused(name, content, problem, refused):
    assert problem in str(refused(content, name=name))


@pytest.mark.parametrize("data", ["nowhere.csv", "Iris", "", ".", "a\nb.csv"])
def test_a_missing_file_is_named(data):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; data is 'iris', or a \.csv"):
        load_table(data, "kind")


def test_columns_are_not_chosen_for_the_built_in_table():
    with pytest.raises(ValueError, match="brings its own"):
        load_table("iris", features=["sepal_length"])


def test_everything_wrong_is_said_at_once_in_an_aligned_table(refused):
    rows = [[f"{i}", "7", "red" if i % 2 else "blue"] for i in range(20)]
    rows[2][0], rows[4][2], rows[9] = "big", "", ["1", "7"]
    rows[11][0] = "x" * 500
    error = refused(lines(rows))
    shown = str(error).splitlines()
    assert shown[0] == "table.csv cannot be learned from (row 1 is the first below the header):"
    assert [c.row for c in error.complaints] == [None, 3, 5, 10, 12]
    assert [part.strip() for part in shown[1].split(" | ")] == ["row", "column", "value", "problem"]
    bars = {tuple(i for i, c in enumerate(line) if c in "|+") for line in shown[1:]}
    assert len(bars) == 1
    assert all(len(line) < 130 for line in shown)


def test_complaints_are_bounded_and_the_rest_is_counted(refused):
    rows = [["NA" if 0 < i < 900 else "1", f"{i}", "red" if i % 2 else "blue"] for i in range(1000)]
    error = refused(lines(rows))
    assert (len(error.complaints), error.more) == (MAX_ISSUES, 879)
    assert [c.row for c in error.complaints] == list(range(2, 22))
    assert str(error).endswith("and 879 more")


def test_a_column_without_a_number_has_one_complaint(refused):
    (complaint,) = refused(lines([(a, "x", c) for a, _, c in ROWS])).complaints
    assert (complaint.row, complaint.column, complaint.value) == (1, "weight", "x")
    assert "name the features without this column" in complaint.problem


def test_a_column_with_different_troubles_is_not_said_to_have_the_first_in_every_row(refused):
    rows = [(a, "x" if i else "", c) for i, (a, _, c) in enumerate(ROWS)]
    (complaint,) = refused(lines(rows)).complaints
    assert complaint.problem.startswith("missing, and no other row is better")


def test_an_index_that_pandas_wrote_is_recognised(tmp_path):
    numbers = {"size": float, "weight": float}
    table = pd.DataFrame(ROWS, columns=["size", "weight", "kind"]).astype(numbers)
    table.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "twice.csv", index=False)
    table.sort_values("kind").to_parquet(tmp_path / "sorted.parquet")
    for name in ("once.csv", "twice.csv", "sorted.parquet"):
        with pytest.raises(TableError, match="is it an index"):
            read_table(tmp_path / name, "kind")
        # A column that nobody chose may be called so.
        assert len(read_table(tmp_path / name, "kind", ["size", "weight"])) == 20


def test_the_error_survives_the_way_to_another_process(refused):
    error = refused(changed(3, 0, "big"))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.complaints, again.more) == (str(error), error.complaints, 0)
    assert isinstance(again, ValueError)


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(TableError, match=r"pip install 'iris_serve\[parquet\]'"):
        read_table(tmp_path / "t.parquet", "kind")


def test_reading_csv_needs_neither_pandas_nor_pyarrow_nor_scikit_learn(tmp_path):
    (tmp_path / "t.csv").write_text(lines(ROWS))
    code = (
        "import sys; from iris_serve.data.tables import load_table; load_table('t.csv', 'kind'); "
        "print([m for m in ('pandas', 'pyarrow', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Fuzz

HEADER = st.lists(st.sampled_from(["a", "b", "kind", "", "a ", '"', "c;d", "\ufeff"]), max_size=5)
CELL = st.sampled_from(
    [
        "1",
        "2.5",
        "-0",
        "1e39",
        "inf",
        "NA",
        "",
        "x",
        '"',
        '"a,b"',
        "é",
        "\0",
        "true",
        "9" * 30,
        "\r",
    ]
)
TEXT = st.tuples(HEADER, st.lists(st.lists(CELL, max_size=5), max_size=30))
BYTES = TEXT.map(lambda t: "\n".join(map(",".join, [t[0], *t[1]])).encode()) | st.binary()
SIXTEEN = [(f"{i * 7 % 11}", f"{i}", f"{i % 2}") for i in range(16)]
GOOD = lines(SIXTEEN, ["a", "b", "kind"]).encode()


@st.composite
def damaged(draw, whole):
    """`whole` with a few bytes changed, lost or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def outcome(path):
    """The table in the file `path` and None, or None and the error; anything else is a bug."""
    try:
        return read_table(path, "kind"), None
    except TableError as error:
        return None, error


def check_outcome(path):
    """Whatever the bytes: a valid table or a `TableError` with short lines."""
    table, error = outcome(path)
    if error:
        assert 1 <= len(error.complaints) <= MAX_ISSUES
        assert all(line.isprintable() and len(line) < 500 for line in str(error).split("\n"))
        json.dumps([c.cells() for c in error.complaints])
        return
    assert np.isfinite(table.X.astype(np.float32)).all()
    assert table.X.shape == (len(table.y), len(table.contract.features))
    assert set(table.y.tolist()) == set(table.contract.classes)
    assert len(table.contract.classes) > 1
    assert check_row(list(table.contract.example), table.contract)
    fingerprint(table)


@settings(max_examples=400, deadline=None, print_blob=True)
@given(data=BYTES | damaged(GOOD))
@example(b"a,kind\n" + b"1,x\n" * 3 + b"\x00")
@example(b"kind\n1\n2\n")
@example(b'kind,a\n"' + b"1" * 50_000 + b'x",1\n')
def test_any_bytes_as_csv_are_a_table_or_a_table_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data)
    check_outcome(path)


@pytest.fixture(scope="module")
def good_parquet():
    buffer = io.BytesIO()
    pd.read_csv(io.BytesIO(GOOD)).to_parquet(buffer)
    return buffer.getvalue()


def test_damaged_parquet_is_a_table_or_a_table_error(good_parquet, tmp_path):
    path = tmp_path / "fuzz.parquet"
    for end in range(0, len(good_parquet), 97):
        path.write_bytes(good_parquet[:end])
        check_outcome(path)
    for at in range(0, len(good_parquet), 41):
        flipped = bytearray(good_parquet)
        flipped[at] ^= 0x10
        path.write_bytes(flipped)
        check_outcome(path)


# Splits and folds


def small(counts):
    """A table of random rows, so many of each class."""
    X = np.random.default_rng(1).uniform(0, 9, (sum(counts.values()), 2))
    y = np.array([c for c, n in counts.items() for _ in range(n)])
    contract = Contract(iris().contract.features[:2], tuple(counts), ("a", "b"), (1, 2))
    return Table(X, y, contract, "small")


def test_a_row_named_twice_differently_stands_on_one_side():
    X = np.repeat(iris().X, 2, axis=0)
    sides = held_out(X, 0.3).reshape(-1, 2)
    assert (sides[:, 0] == sides[:, 1]).all()


def test_a_split_that_leaves_nothing_says_how_large_the_table_is():
    table = small({"a": 5, "b": 5})
    with pytest.raises(ValueError, match="holds out none of the 10 rows: more rows or another"):
        split(table, 0.0001)
    with pytest.raises(ValueError, match="leaves no row of class 'a' to learn from, of 10 rows"):
        split(table, 0.9999)


def test_cross_validation_is_reproducible_and_its_numbers_belong_together():
    table, params = split(iris())[0], Params(n_estimators=5)
    one = cross_validate(params, table, 4)
    assert cross_validate(params, table, 4) == one
    assert len(one.scores) == len(one.balanced_scores) == 4
    assert one.mean == pytest.approx(np.mean(one.scores))
    assert one.std == pytest.approx(np.std(one.scores))
    assert one.balanced_mean == pytest.approx(np.mean(one.balanced_scores))
    assert 0.8 < one.balanced_mean <= 1


def test_the_folds_do_not_depend_on_the_order_of_the_rows():
    table = split(iris())[0]
    last = len(table) - 1
    turned = replace(table, X=table.X[::-1], y=table.y[::-1])
    here = [set(examine.tolist()) for _, examine in cv_folds(table, 5)]
    there = [{last - i for i in examine.tolist()} for _, examine in cv_folds(turned, 5)]
    duplicates = {i for i in range(len(table)) if (table.X[i] == table.X).all(axis=1).sum() > 1}
    assert [fold - duplicates for fold in here] == [fold - duplicates for fold in there]


def test_every_fold_has_its_share_of_every_class(accepted):
    frame = frame_of(load_breast_cancer())
    table = accepted(frame.to_csv(index=False))
    for learn, examine in cv_folds(table, 5):
        assert not set(learn.tolist()) & set(examine.tolist())
        assert len(learn) + len(examine) == len(table)
        counts = np.unique(table.y[examine], return_counts=True)[1]
        assert abs(counts - np.array([357, 212]) / 5).max() < 1
    assert cross_validate(Params(n_estimators=5), table, 5).mean > 0.9


def test_cross_validation_refuses_a_class_with_fewer_rows_than_folds():
    table = small({"a": 30, "b": 4})
    with pytest.raises(ValueError, match="class 'b' has 4 rows to learn from, too few for 5 folds"):
        cross_validate(Params(n_estimators=2), table, 5)
    assert len(cross_validate(Params(n_estimators=2), table, 4).scores) == 4


def test_metrics_written_before_cross_validation_are_still_read():
    old = b'{"rows": 1, "accuracy": 1, "balanced_accuracy": 1, "confusion": [[1]]}'
    assert msgspec.json.decode(old, type=Scores).cross_validation is None
