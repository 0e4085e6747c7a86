"""A file becomes a table, or an error that lists all that is wrong with it, row by row."""

import gzip
import hashlib
import io
import json
import pickle
import subprocess
import sys
from decimal import Decimal

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from iris_serve.data import delimited
from iris_serve.data.choices import DEFAULTS, Choices
from iris_serve.data.files import MAX_ISSUES, FileIssue, TableError
from iris_serve.data.rows import RowError, check_row
from iris_serve.data.split import MIN_CLASS_ROWS, content_fractions, split
from iris_serve.data.table import data_frame, fingerprint, iris
from iris_serve.data.tables import MAX_COLUMNS, MAX_NAME, load_table, read_table
from iris_serve.forest import Forest
from iris_serve.model.card import make_card
from iris_serve.model.load import open_model
from iris_serve.model.save import MODEL_FILE, write_artifact
from iris_serve.model.scores import score
from iris_serve.model.train import Params, fit, make_estimator

BUNCHES = {"wine": load_wine, "breast cancer": load_breast_cancer, "iris": load_iris}
ROWS = [(f"{i}.5", f"{i * i}", "red" if i % 2 else "blue") for i in range(40)]


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
    """A function that returns the error about a CSV file with this content."""

    def read(content, target="kind", features=None, name="table.csv", choices=DEFAULTS):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(TableError) as refusal:
            read_table(path, target, features, choices)
        assert refusal.value.source == name
        assert str(tmp_path) not in str(refusal.value)
        return refusal.value

    return read


@pytest.fixture
def accepted(tmp_path):
    """A function that returns the table in a CSV file with this content."""

    def read(content, target="kind", features=None, name="table.csv", choices=DEFAULTS):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, target, features, choices)

    return read


# What is read


@pytest.mark.parametrize("name", BUNCHES)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_table_from_a_file_equals_its_source_to_the_last_bit(name, kind, tmp_path):
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
def test_equal_numbers_have_equal_fingerprints_in_every_file_format(name, tmp_path):
    frame = frame_of(BUNCHES[name]())
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    frame.to_parquet(tmp_path / "c.parquet", compression="gzip", row_group_size=7)
    tables = [read_table(tmp_path / n, "kind") for n in ("a.csv", "b.parquet", "c.parquet")]
    assert len({fingerprint(table) for table in tables}) == 1
    assert len({table.file for table in tables}) == 3
    assert tables[0].contract == tables[1].contract


@pytest.mark.parametrize("name", BUNCHES)
def test_the_contract_describes_the_file_and_its_example_is_one_of_the_rows(name, tmp_path):
    frame = frame_of(BUNCHES[name]())
    frame.to_csv(tmp_path / "table.csv", index=False)
    contract = read_table(tmp_path / "table.csv", "kind").contract
    values = frame.drop(columns="kind")
    assert contract.names == list(values.columns)
    assert [f.low for f in contract.features] == values.min().tolist()
    assert [f.high for f in contract.features] == values.max().tolist()
    assert contract.classes == contract.labels == tuple(sorted(set(frame.kind)))
    assert check_row(list(contract.example), contract) == list(contract.example)
    assert list(contract.example) in values.to_numpy().tolist()
    example = pd.Series(contract.example, values.columns)
    middle = (values.median() - example).abs() / (values.max() - values.min())
    assert middle.mean() < 0.1


@pytest.mark.parametrize("name", ["wine", "breast cancer"])
def test_a_model_from_a_csv_with_text_classes_answers_bit_for_bit_as_scikit_learn(name, tmp_path):
    frame = frame_of(BUNCHES[name]())
    frame.to_csv(tmp_path / "table.csv", index=False)
    table = load_table(str(tmp_path / "table.csv"), "kind")
    params = Params(n_estimators=20)
    train, test = split(table, params.test_size)
    estimator = fit(make_estimator(params, table.contract), train)
    card = make_card("any", params, table, score(estimator, test, train), estimator)
    (tmp_path / "model").mkdir()
    write_artifact(tmp_path / "model", estimator, card)

    forest, card = open_model(tmp_path / "model")
    assert isinstance(forest, Forest)
    assert (card.data.source, card.data.file) == ("table.csv", table.file)
    assert card.data.sha256 == fingerprint(table)
    assert card.contract == table.contract
    assert card.metrics.accuracy > 0.85
    plain = make_estimator(params, table.contract).fit(
        train.X, train.y
    )  # nothing of this project but the parameters
    assert forest.predict_proba(table.X).tobytes() == plain.predict_proba(table.X).tobytes()
    assert forest.predict(table.X).tolist() == plain.predict(table.X).tolist()
    kept = joblib.load(tmp_path / "model" / MODEL_FILE)
    assert kept.classes_.tolist() == list(table.contract.classes)


def test_the_built_in_table_has_no_file_digest():
    table = load_table()
    assert fingerprint(table) == fingerprint(iris())
    assert table.file is None
    assert table.contract.example == (6.1, 2.8, 4.7, 1.2)


def test_a_feature_called_label_is_shown_beside_the_label(accepted):
    lines = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(20)]
    frame = accepted("\n".join(["label,size,kind", *lines])).frame()
    assert list(frame) == ["label", "size", "label"]
    assert frame.iloc[:3, 0].tolist() == [0.0, 1.0, 2.0]
    assert frame.iloc[:3, 2].tolist() == ["a", "b", "a"]


def test_the_named_features_decide_the_columns_and_their_order(accepted):
    table = accepted(lines(ROWS), features=["weight", "size"])
    assert table.contract.names == ["weight", "size"]
    assert table.X[3].tolist() == [9.0, 3.5]
    assert accepted(lines(ROWS), features=["size"]).X.shape == (40, 1)


def test_columns_that_were_not_chosen_may_hold_anything(accepted):
    rows = [("", *row, "x", "") for row in ROWS]
    header = ("", "size", "weight", "kind", "note", "note")
    assert len(accepted(lines(rows, header), features=["size", "weight"])) == 40


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + lines(ROWS).encode(),
        lines(ROWS).replace("\n", "\r\n"),
        lines(ROWS).replace("\n", "\r"),
        lines(ROWS).rstrip(),
        lines(ROWS) + "\n\n \n",
        lines(ROWS).replace(",", " , ").replace(" red", "red").replace(" blue", "blue"),
        lines(ROWS).replace("red", '"red"').replace("size", '"size"'),
        lines([(a, f' "{b}"', f' "{c}"') for a, b, c in ROWS]),
        lines(ROWS).replace("\n", ",\n"),
        lines(ROWS).replace("\n", ",\n").replace("kind,", "kind"),
        lines(ROWS).replace(",", ";"),
        lines(ROWS).replace(",", ";").replace(".", ","),
        lines(ROWS).replace(",", "\t"),
        lines(ROWS).replace(",", "|"),
        "sep=;\n" + lines(ROWS).replace(",", ";"),
        "sep=,\r\n" + lines(ROWS),
        lines(ROWS).replace("red\n", "red\n\n", 3),
        lines(ROWS).replace(",", '","').replace("\n", '"\n"')[:-1].replace('size"', '"size"', 1),
        lines(ROWS)
        .replace("0.5,0,", '"0,5",0,')
        .replace(".5,", ",5,")
        .replace(",5,", ',5",')
        .replace("\n", '\n"')
        .replace('""', '"')[:-1],
    ],
    ids=[
        *("BOM", "CRLF", "CR", "no last newline", "empty lines at the end", "spaces", "quotes"),
        *("quotes behind blanks", "commas at the ends", "commas at the ends but in the header"),
        *("semicolons", "decimal commas", "tabs", "bars", "sep=;", "sep=,", "empty lines"),
        *("quotes everywhere", "quoted decimal commas"),
    ],
)
def test_the_variants_of_csv_make_the_same_table(content, accepted):
    plain, other = accepted(lines(ROWS)), accepted(content)
    assert fingerprint(other) == fingerprint(plain)
    assert other.contract == plain.contract


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (lines(ROWS).replace(",", ";"), "the cells are separated by semicolons"),
        (lines(ROWS).replace(",", "\t"), "the cells are separated by tabs"),
        (lines(ROWS).replace("red\n", "red\n\n", 3), "empty lines are skipped: 3"),
    ],
)
def test_what_is_unusual_about_a_file_is_said(content, note, accepted):
    assert accepted(content).notes == (note,)
    assert accepted(lines(ROWS)).notes == ()


@given(st.lists(st.floats(-1e38, 1e38), min_size=10, max_size=30, unique=True))
def test_a_number_is_read_as_python_reads_it(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("numbers") / "n.csv"
    rows = [[repr(x), str(i % 2)] for i, x in enumerate(numbers)]
    path.write_text(lines(rows, ["x", "kind"]))
    assert read_table(path, "kind", ["x"]).X[:, 0].tolist() == [x + 0.0 for x in numbers]


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
        (["True", "False"], [False, True]),
        (["TRUE", "false"], [False, True]),
        ([" true", "false"], [" true", "false"]),
        (["yes", "no"], ["no", "yes"]),
        ([" <=50K", " >50K"], [" <=50K", " >50K"]),
        (["red ", "red"], ["red", "red "]),
        (["none", "Na"], ["Na", "none"]),
        (["зелёный", "緑"], ["зелёный", "緑"]),
        (['"a ""b"""', '"c,d"'], ['a "b"', "c,d"]),
    ],
)
def test_classes_are_whole_numbers_if_all_of_them_are_and_texts_otherwise(written, read, accepted):
    rows = [(f"{i}.5", written[i % 2]) for i in range(20)]
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
        ([True, False], [False, True]),
        (["True", "False"], ["False", "True"]),
        ([Decimal("1.0"), Decimal("2.0")], [1, 2]),
        (pd.Categorical(["b", "a"]), ["a", "b"]),
        (np.array([3, 4], dtype="uint8"), [3, 4]),
    ],
    ids=["int", "float", "text", "bool", "bool as text", "decimal", "category", "uint8"],
)
def test_the_type_of_a_parquet_column_decides_what_its_classes_are(values, read, tmp_path):
    frame = pd.DataFrame({"size": [i + 0.5 for i in range(20)], "kind": [*values] * 10})
    frame["kind"] = frame["kind"].astype(pd.Series(values).dtype)
    frame.to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet", "kind").contract.classes) == read


@pytest.mark.parametrize("text", [str(2**53), "1" * 100, "-" + "9" * 90])
def test_a_target_of_long_identifiers_is_refused(text, refused):
    rows = [(f"{i}.5", text if i == 7 else f"{i % 2}") for i in range(20)]
    (issue,) = refused(lines(rows, ["size", "kind"])).issues
    assert (issue.row, issue.column, issue.value) == (8, "kind", text)
    assert "not a measurement" in issue.problem


@pytest.mark.parametrize(("text", "problem"), [("1e400", "infinite"), ("-inf", "infinite")])
def test_an_infinite_number_to_predict_is_an_issue(text, problem, refused):
    rows = [(f"{i}.5", text if i == 7 else f"{i % 2}") for i in range(20)]
    (issue,) = refused(lines(rows, ["size", "kind"])).issues
    assert issue == FileIssue(8, "kind", text, problem)


NUMBERS = {
    "fractions": [f"{i % 2}.5" for i in range(40)],
    "many whole numbers": [f"{i % 21}" for i in range(400)],
    "few rows of each": [f"{i % 10}" for i in range(49)],
    "a gap": [*(f"{i}.5" for i in range(30)), ""],
    "decimal commas": [f'"{i},5"' for i in range(30)],
}
CLASSES = {
    "zero and one": (["0", "1", "0"], (0, 1)),
    "digits": ([f"{i % 10}" for i in range(50)], tuple(range(10))),
    "twenty grades": ([f"{i % 20}" for i in range(100)], tuple(range(20))),
    "written by pandas": (["1.0", "2.0", ""] * 5, (1, 2)),
    "leading zeros": ([f"{i % 2:03}" for i in range(10)], ("000", "001")),
    "a text among numbers": (["1", "2", "b"] * 5, ("1", "2", "b")),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_target_of_measurements_is_a_number(name, accepted):
    rows = [(f"{i % 7}.5", value) for i, value in enumerate(NUMBERS[name])]
    table = accepted(lines(rows, ["size", "kind"]))
    known = [value for value in NUMBERS[name] if value]
    assert table.contract.task == "number"
    assert table.contract.classes == table.contract.labels == ()
    assert table.contract.target == "kind"
    assert table.y.dtype == np.float64
    assert table.y.tolist() == [float(v.strip('"').replace(",", ".")) for v in known]
    assert table.columns[1].why.startswith("a number: ")


@pytest.mark.parametrize("name", CLASSES)
def test_a_target_of_few_values_is_classes(name, accepted):
    values, classes = CLASSES[name]
    table = accepted(lines([(f"{i % 3}.5", v) for i, v in enumerate(values)], ["size", "kind"]))
    assert table.contract.task == "classes"
    assert table.contract.classes == classes


def test_the_choice_of_a_task_overrules_what_was_found(accepted):
    rows = [(f"{i % 7}.5", f"{i % 3}") for i in range(60)]
    content = lines(rows, ["size", "kind"])
    assert "unless `task` says number" in accepted(content).columns[1].why
    numbers = accepted(content, choices=Choices(task="number"))
    assert (numbers.contract.task, numbers.y.dtype) == ("number", np.float64)
    halves = content.replace(",1", ",1.5")
    assert accepted(halves).contract.task == "number"


def test_a_text_that_should_be_a_number_is_an_issue(refused):
    rows = [(f"{i % 7}.5", "many" if i == 9 else f"{i}.5") for i in range(60)]
    (issue,) = refused(lines(rows, ["size", "kind"])).issues
    assert (issue.row, issue.value) == (10, "many")
    assert "text in a column of numbers" in issue.problem
    (issue,) = refused(lines(ROWS), choices=Choices(task="number")).issues
    assert "no number" in issue.problem


def test_a_constant_target_is_refused(refused):
    (issue,) = refused(lines([(a, "7.5") for a, _, _ in ROWS], ["size", "kind"])).issues
    assert "the same number in every row" in issue.problem


def test_a_target_with_nearly_as_many_classes_as_rows_is_one_issue(refused, accepted):
    rows = [(f"{i % 7}.5", f"n{i * 7}") for i in range(300)]
    (issue,) = refused(lines(rows, ["size", "kind"])).issues
    assert (issue.row, issue.column, issue.value) == (None, "kind", "n0")
    assert "300 different values in 300 rows" in issue.problem
    chosen = accepted(lines(rows, ["size", "kind"]), choices=Choices(task="classes"))
    assert len(chosen.contract.classes) == 300


def test_a_rare_class_is_kept_and_said_or_dropped(accepted):
    rows = [(f"{i}.5", "few" if i < MIN_CLASS_ROWS - 1 else "ab"[i % 2]) for i in range(30)]
    content = lines(rows, ["size", "kind"])
    kept, dropped = accepted(content), accepted(content, choices=Choices(rare="drop"))
    assert kept.contract.classes == ("a", "b", "few")
    assert "the score says little about those with fewer than 5 rows: few" in kept.columns[1].why
    assert dropped.contract.classes == ("a", "b")
    assert (len(kept), len(dropped)) == (30, 26)
    assert dropped.X.min() == MIN_CLASS_ROWS - 0.5
    assert dropped.contract.features[0].low == MIN_CLASS_ROWS - 0.5
    assert "left out, with fewer than 5 rows: few" in dropped.columns[1].why


def test_if_only_one_class_is_not_rare_dropping_leaves_none_to_tell_apart(refused):
    rows = [(f"{i}.5", "few" if i < 3 else "many") for i in range(30)]
    error = refused(lines(rows, ["size", "kind"]), choices=Choices(rare="drop"))
    assert "the only class" in error.issues[0].problem


MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "?", "#N/A"]
MISSING += ["#N/A N/A", "#NA", "#DIV/0!", "#VALUE!", "#REF!", "-", "--", ".", " ? ", "  "]


@pytest.mark.parametrize("mark", MISSING)
def test_a_row_without_an_answer_is_dropped_and_counted(mark, accepted):
    table = accepted(changed(4, 2, mark))
    assert (len(table), table.contract.classes) == (39, ("blue", "red"))
    assert table.columns[2].why == "2 classes: texts; left out: 1 row without it"
    assert 4.5 not in table.X[:, 0]
    assert table.contract.marks == ()  # no feature may be missing


def test_a_class_called_like_a_mark_can_be_kept(accepted):
    rows = [(f"{i}.5", ["NA", "EU", ""][i % 3]) for i in range(30)]
    table = accepted(lines(rows, ["size", "kind"]), choices=Choices(present=("NA",)))
    assert table.contract.classes == ("EU", "NA")
    assert len(table) == 20


def test_what_a_dropped_row_holds_does_not_matter(accepted):
    content = changed(4, 2, "").replace("\n4.5,16,", "\n,1e400,")
    table = accepted(content)
    assert [feature.missing for feature in table.contract.features] == [False, False]
    assert len(table) == 39


def test_a_target_without_an_answer_is_refused_with_the_other_issues(refused):
    rows = [("inf" if i == 3 else f"{i}.5", "?") for i in range(30)]
    problems = [issue.problem for issue in refused(lines(rows, ["size", "kind"])).issues]
    assert problems == ["no row has an answer", "infinite"]


def test_a_single_class_is_refused(refused):
    (issue,) = refused(lines([(a, b, "red") for a, b, _ in ROWS])).issues
    assert (issue.column, issue.value) == ("kind", "red")
    assert "the only class; at least two are needed" in issue.problem


# Issues


@pytest.mark.parametrize(
    ("text", "problem"),
    [
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
        ("big", "see `missing` and `categories`"),
        ("9007199254740993", "a whole number beyond 2**53"),
    ],
)
def test_a_bad_cell_is_an_issue_with_row_column_and_value(text, problem, refused):
    (issue,) = refused(changed(11, 1, text)).issues
    assert (issue.row, issue.column) == (12, "weight")
    assert issue.value == text.strip('"')[:100]
    assert problem in issue.problem


def test_issues_with_parquet_name_row_column_and_value_as_for_csv(tmp_path):
    frame = pd.DataFrame([(float(a), int(b), c) for a, b, c in ROWS], columns=["x", "n", "kind"])
    frame = frame.astype({"n": "Int64"})
    frame.loc[3, "x"] = np.inf
    frame.loc[5, "n"] = pd.NA
    frame.loc[6, "n"] = 2**53 + 1
    frame.loc[7, "kind"] = None
    frame.loc[9, "x"] = 1e39
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError) as refusal:
        read_table(tmp_path / "t.parquet", "kind")
    found = [(c.row, c.column, c.value) for c in refusal.value.issues]
    assert found == [(4, "x", "inf"), (7, "n", str(2**53 + 1)), (10, "x", "1e+39")]


@pytest.mark.parametrize("values", [[b"x", b"y"] * 20, [[1.0, 2.0], []] * 20, [{"a": 1}] * 40])
def test_a_parquet_column_of_another_type_is_one_issue(values, tmp_path):
    frame = pd.DataFrame(
        {"size": [i / 2 for i in range(40)], "odd": values, "kind": ["a", "b"] * 20}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError) as refusal:
        read_table(tmp_path / "t.parquet", "kind")
    (issue,) = refusal.value.issues
    assert (issue.row, issue.column) == (None, "odd")
    assert "are not learned from; leave the column out with `drop`" in issue.problem
    assert len(read_table(tmp_path / "t.parquet", "kind", ["size"])) == 40
    assert len(read_table(tmp_path / "t.parquet", "kind", None, Choices(drop=("odd",)))) == 40
    with pytest.raises(TableError, match="is no target"):
        read_table(tmp_path / "t.parquet", "odd")


def test_two_columns_with_the_same_name_are_refused_and_not_renamed(refused):
    rows = [(a, b, c) for a, b, c in ROWS]
    (issue,) = refused(lines(rows, ["size", "size", "kind"])).issues
    assert (issue.column, issue.problem) == ("size", "named more than once")
    (issue,) = refused(lines(rows, ["size", "kind", "kind"])).issues
    assert issue.column == "kind"


@pytest.mark.parametrize(
    ("target", "features", "column", "problem"),
    [
        ("kynd", None, "kynd", "did you mean kind? (columns: size, weight, kind)"),
        ("kind", ["sise"], "sise", "did you mean size?"),
        ("KIND", ["size"], "KIND", "did you mean kind?"),
        ("kind", ["size", "size"], "size", "named more than once"),
        ("kind", ["size", "kind"], "kind", "it is the target, and so it cannot be a feature too"),
        ("kind", [], None, "1 to 1000 features are needed, got 0"),
        (None, None, None, "the target column must be named (columns: size, weight, kind)"),
    ],
)
def test_an_unknown_or_repeated_name_is_answered_with_the_right_ones(
    target, features, column, problem, refused
):
    (issue,) = refused(lines(ROWS), target, features).issues
    assert (issue.row, issue.column) == (None, column)
    assert problem in issue.problem


def test_a_missing_header_is_suspected_where_names_are_numbers(refused):
    content = lines(ROWS[1:], ROWS[0])
    assert "is the header missing?" in refused(content, "kind").issues[0].problem


@pytest.mark.parametrize("name", ["a\x01b", "x" * (MAX_NAME + 1), '"a\nb"'])
def test_a_feature_without_a_usable_name_is_refused(name, refused):
    error = refused(lines(ROWS, ["size", name, "kind"]))
    assert len(error.issues) == 1
    assert str(error).count("\n") == 3  # whatever the name, it stays on its line


ODD = ["a'b", 'a""b', "länge (µm)", "größe 緑 🌱", "x" * MAX_NAME, "a.b[0]"]


@pytest.mark.parametrize("name", ODD)
def test_unusual_names_are_kept_and_appear_in_errors(name, accepted):
    table = accepted(lines(ROWS, ["size", f'"{name}"', "kind"]))
    assert table.contract.features[1].name == name.replace('""', '"')
    with pytest.raises(RowError) as refusal:
        check_row([1.0, None], table.contract)
    assert str(refusal.value).isprintable()
    assert name.replace('""', '"')[:40] in str(refusal.value)


def test_too_many_features_are_refused_before_a_row_is_read(refused):
    names = [f"f{i}" for i in range(MAX_COLUMNS + 1)]
    assert "features are needed" in str(refused(",".join([*names, "kind"]) + "\n"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1,2", "2 values in this row, and 3 columns in the header"),
        ("1,2,red,4", "4 values in this row, and 3 columns in the header"),
        ("1,2,", None),
        ("1,2,red,", None),
        ("1,2,red,,", "5 values in this row, and 3 columns in the header"),
        ("1,2,red,NA", "4 values in this row, and 3 columns in the header"),
        ('"1,2",red', "2 values in this row, and 3 columns in the header"),
    ],
)
def test_a_line_with_too_few_or_too_many_cells_is_an_issue_with_its_row(
    line, problem, refused, accepted
):
    content = lines(ROWS).splitlines()
    content.insert(6, line)
    content.insert(3, "")  # which counts as a row, but is none
    if not problem:
        assert len(accepted("\n".join(content))) == 40 + bool("red" in line)
        return
    (issue,) = refused("\n".join(content)).issues
    assert (issue.row, issue.problem) == (7, problem)


@pytest.mark.parametrize("place", [0, 20, 39])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_line_that_is_cut_off_is_found_although_the_last_column_has_gaps(place, quoted, refused):
    rows = [(b, c, "" if i % 3 else a) for i, (a, b, c) in enumerate(ROWS)]
    content = lines(rows, ["weight", "kind", "size"]).splitlines()
    if quoted:
        content = [line.replace("red", '"red"') for line in content]
    content[place + 1] = content[place + 1].rsplit(",", 1)[0]
    (issue,) = refused("\n".join(content)).issues
    assert (issue.row, issue.problem) == (
        place + 1,
        "2 values in this row, and 3 columns in the header",
    )


@pytest.mark.parametrize("quoted", [False, True])
def test_a_good_file_is_read_by_pandas_alone(quoted, accepted, monkeypatch):
    monkeypatch.setattr(delimited, "check_lines", lambda *_: pytest.fail("read line by line"))
    rows = [(b, c, "" if i % 3 else a) for i, (a, b, c) in enumerate(ROWS)]
    content = lines(rows, ["weight", "kind", "size"])
    assert len(accepted(content.replace("red", '"red"') if quoted else content)) == 40


def test_a_text_far_below_many_numbers_makes_a_column_of_texts_as_they_are_written(accepted):
    rows = [("01" if i < 250_000 else "n", f"{i % 7}", "ab"[i % 2]) for i in range(300_000)]
    feature = accepted(lines(rows)).contract.features[0]
    assert (feature.kind, feature.values) == ("category", ("01", "n"))


def test_rows_behind_a_cell_of_several_lines_have_the_right_numbers(refused):
    rows = [[a, b, '"red\nand blue"' if i == 3 else "red"] for i, (a, b, _) in enumerate(ROWS)]
    rows[10][0] = "inf"
    issues = refused(lines(rows, ["size", "weight", "note"]), "weight").issues
    assert [(issue.row, issue.column) for issue in issues] == [(11, "size")]


def test_a_quote_that_is_closed_much_later_does_not_swallow_rows(refused):
    content = lines(ROWS).replace("\n4.5", '\n"4.5')
    mended = content.replace("\n9.5", '\n9"5')
    assert "line 11 of the file is not CSV: ',' expected after" in str(refused(mended))
    (issue,) = refused(content.replace("\n9.5", '\n9.5"')).issues
    assert (issue.row, issue.column) == (5, "size")  # and not six rows less


def test_a_header_that_lacks_a_name_is_one_issue(refused):
    rows = [(f"r{i}", *row) for i, row in enumerate(ROWS)]
    (issue,) = refused(lines(rows)).issues
    assert "4 values in each row, and 3 columns in the header" in issue.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"size,weight,kind\n", "there is no row below the header"),
        (lines(ROWS).replace(",", ";").replace(";", ";|"), "separated by semicolons or bars"),
        (lines(ROWS).replace("red", "r\0d"), "line 3 of the file is not text"),
        (lines(ROWS).encode("utf-16"), "UTF-16"),
        (lines(ROWS).replace("red", "röd").encode("latin-1"), "line 3 of the file is not text in"),
        (lines(ROWS) + '1,"2', "line 42 of the file is not CSV"),
        ("sep=;\n" + lines(ROWS).replace(",", ";") + '1;"2', "line 43 of the file is not CSV"),
    ],
)
def test_the_error_says_why_a_file_is_not_csv(content, problem, refused):
    assert problem in str(refused(content))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with Excel's mark"])
def test_a_byte_that_is_not_utf_8_is_named_with_its_line(mark, refused):
    content = lines(ROWS).replace("red", "röd", 1).encode("latin-1")
    (issue,) = refused(mark + content).issues
    assert issue.value == "byte 0xf6"
    assert issue.problem.startswith("line 3 of the file is not text in UTF-8")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.xlsx", b"PK", "save the sheet as CSV UTF-8"),
        ("t.jsonl", b"{}", "pandas.read_json opens it"),
        ("t.feather", b"ARROW1", "save the table as Parquet"),
        ("t.csv.zip", b"PK", "unpack it first"),
        ("csv", b"a,b", "only .csv, .tsv, .csv.gz and .parquet files are read"),
        ("t.csv.gz", b"size,kind", "the file cannot be unpacked"),
        ("t.csv.gz", gzip.compress(lines(ROWS).encode())[:-9], "the file cannot be unpacked"),
        ("t.parquet", b"size,kind", "this is not Parquet"),
        ("t.parquet", b"", "this is not Parquet"),
    ],
)
def test_an_unknown_or_damaged_file_is_refused(name, content, problem, refused):
    assert problem in str(refused(content, name=name))


@pytest.mark.parametrize("data", ["nowhere.csv", "Iris", "", ".", "a\nb.csv"])
def test_the_error_names_a_missing_file(data):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; data is 'iris', or a \.csv"):
        load_table(data, "kind")


def test_no_columns_can_be_chosen_for_the_built_in_table():
    with pytest.raises(ValueError, match="has its own"):
        load_table("iris", features=["sepal_length"])


def test_all_issues_are_shown_at_once_in_an_aligned_table(refused):
    rows = [[f"{i}.5", "7", "red" if i % 2 else "blue"] for i in range(60)]
    rows[2][0], rows[4][2], rows[9] = "big", "x" * 200, ["1", "7"]
    rows[11][0] = "y" * 500
    error = refused(lines(rows))
    shown = str(error).splitlines()
    assert shown[0] == "table.csv cannot be learned from (row 1 is the first below the header):"
    assert [c.row for c in error.issues] == [3, 5, 10, 12]
    assert [part.strip() for part in shown[1].split(" | ")] == ["row", "column", "value", "problem"]
    bars = {tuple(i for i, c in enumerate(line) if c in "|+") for line in shown[1:]}
    assert len(bars) == 1
    assert all(len(line) < 130 for line in shown)


def test_at_most_so_many_issues_are_kept_and_the_rest_is_counted(refused):
    rows = [
        ["inf" if 0 < i < 900 else "1", f"{i}", "red" if i % 2 else "blue"] for i in range(1000)
    ]
    error = refused(lines(rows))
    assert (len(error.issues), error.more) == (MAX_ISSUES, 879)
    assert [c.row for c in error.issues] == list(range(2, 22))
    assert str(error).endswith("and 879 more")
    rows = [[a, b, "x" * 200 if i > 9 else c] for i, (a, b, c) in enumerate(ROWS)]
    assert (len(refused(lines(rows)).issues), refused(lines(rows)).more) == (MAX_ISSUES, 10)


def test_a_table_error_can_be_pickled(refused):
    error = refused(changed(3, 0, "big"))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.issues, again.more) == (str(error), error.issues, 0)
    assert isinstance(again, ValueError)


def test_without_pyarrow_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(TableError, match=r"pip install 'iris_serve\[parquet\]'"):
        read_table(tmp_path / "t.parquet", "kind")


def test_nothing_large_is_imported_before_a_file_is_read():
    code = (
        "import sys; from iris_serve.data.tables import load_table; "
        "print([m for m in ('pandas', 'pyarrow', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_pandas_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(lines(ROWS))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TableError, match=r"pip install 'iris_serve\[retrain\]'"):
        read_table(tmp_path / "t.csv", "kind")


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
        assert 1 <= len(error.issues) <= MAX_ISSUES
        assert all(line.isprintable() and len(line) < 500 for line in str(error).split("\n"))
        json.dumps([c.cells() for c in error.issues])
        return
    known = ~np.isnan(table.X)
    assert np.isfinite(table.X.astype(np.float32))[known].all()
    assert [feature.missing for feature in table.contract.features] == (~known).any(axis=0).tolist()
    assert table.X.shape == (len(table.y), len(table.contract.features))
    assert len(table.columns) >= len(table.contract.features) + 1
    if table.contract.task == "classes":
        assert set(table.y.tolist()) == set(table.contract.classes)
        assert len(table.contract.classes) > 1
    else:
        assert np.isfinite(table.y).all()
    assert len(table.contract.example) == len(table.contract.features)
    assert len(data_frame(table.X, table.contract)) == len(table)
    fingerprint(table)
    content_fractions(table)


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
