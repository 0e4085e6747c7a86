"""What is found in the columns of a file: kinds, what is missing, and what is left out."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from iris_serve.data.choices import MARKS, Choices, missing_marks
from iris_serve.data.columns import NUMBER
from iris_serve.data.contract import Feature
from iris_serve.data.files import TableError
from iris_serve.data.kinds import comma_hint
from iris_serve.data.split import held_out
from iris_serve.data.table import data_frame, estimator_input, fingerprint, iris
from iris_serve.data.tables import load_table, read_table

N = 60
KIND = ["ab"[i * 7 % 3 % 2] for i in range(N)]
SIZE = [i * 37 % 101 / 2 for i in range(N)]


@pytest.fixture
def found(tmp_path):
    """A function that reads a frame of these columns, as CSV or Parquet, and returns the table."""

    def read(columns, *features, parquet=False, **choices):
        frame = pd.DataFrame({"size": SIZE, **columns, "kind": KIND})
        path = tmp_path / ("t.parquet" if parquet else "t.csv")
        frame.to_parquet(path) if parquet else frame.to_csv(path, index=False)
        return read_table(path, "kind", features or None, Choices(**choices))

    return read


def note(table, name):
    """The kind of a column and why."""
    (found,) = [note for note in table.columns if note.name == name]
    return found.kind, found.why


# Numeric tables are read as ever

PINNED = {
    "wine": (load_wine, "d4dda88389772c2833d950882e1ec5346a500fc26506197fd194280192fceddc"),
    "cancer": (
        load_breast_cancer,
        "91010bfb6564e4ff8c632f3e771b0ea7ba24a83c55ef2b7ee7b02203317a9e5e",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_a_numeric_table_is_the_same_to_the_bit_as_in_the_versions_before(name, tmp_path):
    load, digest = PINNED[name]
    load(as_frame=True).frame.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", "target")
    assert fingerprint(table) == digest
    assert table.contract.numeric
    assert not any(feature.missing for feature in table.contract.features)
    assert table.contract.marks == ()
    assert estimator_input(table.X, table.contract) is table.X


def test_the_iris_flowers_are_the_same_to_the_bit_as_in_the_versions_before():
    digest = "a306076834ef27aa40954ca07e684b93186768757ebc47ec0858514fa7fd7ecb"
    assert fingerprint(iris()) == digest
    assert np.flatnonzero(held_out(iris(), 0.2))[:5].tolist() == [8, 15, 18, 19, 24]
    assert iris().contract.target == ""


# Kinds

KINDS = {
    "true and false": (["true", "false"], "boolean", (False, True)),
    "TRUE and False": (["TRUE", "False"], "boolean", (False, True)),
    "yes and no": (["yes", "no"], "boolean", ("no", "yes")),
    "Yes and NO": (["Yes", "NO"], "boolean", ("NO", "Yes")),
    "y and n": (["y", "n"], "boolean", ("n", "y")),
    "T and F": (["T", "F"], "boolean", ("F", "T")),
    "yes with blanks": ([" yes", " no"], "boolean", (" no", " yes")),
    "yes, Yes and no": (["yes", "Yes", "no"], "category", ("Yes", "no", "yes")),
    "yes, no and maybe": (["yes", "no", "maybe"], "category", ("maybe", "no", "yes")),
    "yes and true": (["yes", "true"], "category", ("true", "yes")),
    "zero and one": (["0", "1"], "number", ()),
    "texts": (["ä", "Z", "a", "緑"], "category", ("Z", "a", "ä", "緑")),
    "blanks": ([" a", "a", "a "], "category", (" a", "a", "a ")),
    "some numbers": (["1", "b", "2"], "category", ("1", "2", "b")),
    "numbers with zeros": (["007", "008", "010"], "number", ()),
    "numbers with blanks": ([" 7", "8 ", "  9.5"], "number", ()),
    "ranges": (["1-2", "3-4", "5+"], "category", ("1-2", "3-4", "5+")),
    "months": (["Jan-2018", "Feb-2018"], "category", ("Feb-2018", "Jan-2018")),
    "versions": (["1.2.3", "1.2.4", "2.0.1"], "category", ("1.2.3", "1.2.4", "2.0.1")),
    "a long text": (["x" * 5000, "y"], "category", ("x" * 5000, "y")),
    "a comma, a quote and a line": (['a,"b"\nc', "d"], "category", ('a,"b"\nc', "d")),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_of_a_column_follows_from_its_values(name, found):
    values, kind, listed = KINDS[name]
    table = found({"c": [values[i % len(values)] for i in range(N)]})
    feature = table.contract.features[1]
    assert (feature.kind, feature.values, feature.missing) == (kind, listed, False)
    assert note(table, "c")[0] == kind
    if listed:
        assert (feature.low, feature.high) == (0, len(listed) - 1)
        assert set(table.X[:, 1]) == set(range(len(listed)))


@pytest.mark.parametrize("parquet", [False, True])
@pytest.mark.parametrize(
    ("values", "dtypes"),
    [
        ([True, False], ("bool", "object")),
        (["yes", "no"], ("object", "object")),
        (["red", "blue", "green"], ("object", "object")),
        ([1.5, 2.0], ("float64", "float64")),
    ],
)
def test_the_frame_has_what_the_table_has(values, dtypes, parquet, found):
    column = [values[i % len(values)] for i in range(N)]
    for gaps, dtype in zip((False, True), dtypes, strict=True):
        cells = pd.Series(column, dtype=object)
        cells[5] = None if gaps else cells[5]
        table = found({"c": cells.convert_dtypes()}, parquet=parquet)
        frame = data_frame(table.X, table.contract)
        assert str(frame["c"].dtype) == dtype
        assert table.contract.features[1].missing == gaps
        assert [v for v in frame["c"] if v == v] == [v for v in cells if v is not None]
        assert all(v is not None for v in frame["c"])


def test_a_boolean_with_one_value_and_gaps_keeps_both(found):
    table = found({"c": ["true" if i % 3 else None for i in range(N)]})
    assert table.contract.features[1] == Feature("c", "", 0, 1, "boolean", (False, True), True)


@pytest.mark.parametrize("text", ["yes", "red"])
def test_a_text_in_some_rows_and_none_in_the_others_is_a_category(text, found):
    table = found({"c": [text if i % 3 else None for i in range(N)]})
    assert table.contract.features[1] == Feature("c", "", 0, 0, "category", (text,), True)


# Missing


@pytest.mark.parametrize("mark", [*MARKS, " ? ", "  ", " NA"])
def test_a_mark_is_missing_in_a_column_of_any_kind(mark, found):
    numbers = [mark if i == 7 else f"{i % 9}.5" for i in range(N)]
    texts = [mark if i == 7 else ["red", "blue"][i % 2] for i in range(N)]
    truths = [mark if i == 7 else ["no", "yes"][i % 2] for i in range(N)]
    table = found({"n": numbers, "t": texts, "b": truths})
    for i, kind in enumerate(("number", "category", "boolean"), start=1):
        feature = table.contract.features[i]
        assert (feature.kind, feature.missing) == (kind, True)
        assert np.flatnonzero(np.isnan(table.X[:, i])).tolist() == [7]
        assert note(table, feature.name)[1].endswith(", 1 missing")
    assert table.contract.marks == MARKS
    assert None not in table.contract.example


@pytest.mark.parametrize("parquet", [False, True])
def test_more_marks_and_fewer(parquet, found):
    columns = {
        "n": [-999 if i % 9 == 0 else i % 9 for i in range(N)],
        "t": ["unknown" if i % 9 == 0 else "NA" if i % 2 else "EU" for i in range(N)],
    }
    table = found(columns, parquet=parquet, missing=("unknown", "-999"), present=("NA",))
    assert np.isnan(table.X[::9, 1:]).all()
    assert np.isnan(table.X).sum() == 2 * len(range(0, N, 9))
    assert table.contract.features[2].values == ("EU", "NA")
    assert table.contract.features[1].low == 1
    assert table.contract.marks == (*(m for m in MARKS if m != "NA"), "unknown", "-999")


def test_marks_are_in_the_contract_only_if_a_feature_may_be_missing(found):
    assert found({}).contract.marks == ()
    assert missing_marks(Choices(missing=(" x ", "NA"))) == (*MARKS, "x")


def test_one_text_in_twenty_numbers_is_a_mistake_and_more_are_values(found):
    numbers = [f"{i % 7}" for i in range(N)]
    with pytest.raises(TableError, match="see `missing` and `categories`") as refusal:
        found({"c": ["n.a.", "n.a.", "n.a.", *numbers[3:]]})
    assert [(issue.row, issue.value) for issue in refusal.value.issues] == [
        (row, "n.a.") for row in (1, 2, 3)
    ]
    assert note(found({"c": ["n.a."] * 4 + numbers[4:]}), "c")[0] == "category"
    assert note(found({"c": ["n.a."] * 3 + numbers[3:]}, missing=("n.a.",)), "c")[0] == "number"
    chosen = found({"c": ["n.a."] * 3 + numbers[3:]}, categories=("c",)).contract.features[1]
    assert chosen.values == (*map(str, range(7)), "n.a.")


@pytest.mark.parametrize("parquet", [False, True])
def test_numbers_that_are_names_become_a_category_of_numbers(parquet, found):
    columns = {"ward": [[12, 7, 101][i % 3] for i in range(N)]}
    columns["share"] = [None if i == 4 else [0.5, 2.0][i % 2] for i in range(N)]
    table = found(columns, parquet=parquet, categories=("ward", "share"), unknown="missing")
    ward, share = table.contract.features[1:]
    assert ward == Feature("ward", "", 0, 2, "category", (7, 12, 101), False, "missing")
    assert share == Feature("share", "", 0, 1, "category", (0.5, 2), True, "missing")
    frame = data_frame(table.X, table.contract)
    assert frame["ward"].dtype == frame["share"].dtype == np.float64
    assert frame["ward"].tolist() == columns["ward"]
    assert note(table, "ward") == ("category", "3 different numbers")


def test_decimal_commas_are_read_where_they_can_be_nothing_else(found):
    commas = [f"{i % 9},{i % 7}" for i in range(N)]
    table = found({"c": commas})
    assert table.X[:, 1].tolist() == [float(text.replace(",", ".")) for text in commas]
    assert note(table, "c") == ("number", "numbers, with decimal commas")
    with pytest.raises(TableError, match="write numbers without a comma"):
        found({"c": [f"{i % 9 + 1},{i:03}" for i in range(N)]})
    with pytest.raises(TableError, match="write a decimal point"):
        found({"c": ["1.5", *commas[1:]]})
    with pytest.raises(TableError, match="write a decimal point"):
        found({"c": ["1,5", *(str(i % 9) for i in range(1, N))]})


# Left out

TEXT = [f"passenger {i * 31 % 97}" for i in range(N)]
LEFT_OUT = {
    "from 0": ("n", range(N), "it counts the rows from 0"),
    "from 1": ("day", range(1, N + 1), "it counts the rows from 1"),
    "no name": ("", SIZE[::-1], "it has no name"),
    "Unnamed": ("Unnamed: 0", SIZE[::-1], "it has no name"),
    "index level": ("__index_level_0__", SIZE[::-1], "it has no name"),
    "Id": ("Id", [7 * i for i in range(N)], "an identifier"),
    "customerID": ("customerID", [f"C-{i}" for i in range(N)], "an identifier"),
    "user_id": ("user_id", [i * 17 % 101 for i in range(N)], "an identifier"),
    "rownames": ("rownames", [f"car {i}" for i in range(N)], "an identifier"),
    "constant": ("c", [7] * N, "the same in every row: 7"),
    "constant in 32 bits": (
        *("c", [1e9 + i * 1e-3 for i in range(N)]),
        "the same in every row once rounded to 32 bits, as a forest reads numbers: 1000000000",
    ),
    "constant text": ("c", ["EU"] * N, "the same in every row: EU"),
    "empty": ("c", ["NA"] * N, "no row has a value"),
    "a copy": ("copy", SIZE, "the same as the column size"),
    "a copy in 32 bits": ("copy", [x * (1 + 1e-12) for x in SIZE], "the same as the column size"),
    "free text": ("name", TEXT, "free text: 60 different values in 60 rows"),
    "some free text": ("note", [t if i % 2 else "" for i, t in enumerate(TEXT)], "free text: 30 "),
    "dates": ("day", [f"2026-01-{i % 28 + 1:02}" for i in range(N)], "dates or times"),
    "times": ("at", [f"{i % 24}:30" for i in range(N)], "dates or times"),
    "moments": ("at", [f"2026-01-02T{i % 24:02}:30:00Z" for i in range(N)], "dates or times"),
    "American dates": ("day", [f"1/{i % 28 + 1}/2026" for i in range(N)], "dates or times"),
    "German dates": ("day", [f"{i % 28 + 1}.1.26" for i in range(N)], "dates or times"),
    "a date in words": ("day", [f"Jan {i % 28 + 1}, 2026" for i in range(N)], "dates or times"),
}
LEARNED = {
    "numbers that do not begin at the top": ("n", range(2, N + 2)),
    "numbers in another order": ("n", [*range(1, N), 0]),
    "an identifier that occurs twice": ("user_id", [*range(7, N + 6), 7]),
    "a measurement called Id": ("Id", [i / 8 for i in range(N)]),
    "paid": ("paid", [i * 7 for i in range(N)]),
    "all different numbers": ("weight", [i * i for i in range(N)]),
    "years": ("year", [1990 + i % 30 for i in range(N)]),
    "a value and gaps": ("c", [7 if i % 5 else None for i in range(N)]),
    "twenty different texts": ("c", [f"t{i % 20}" for i in range(N)]),
    "texts of which less than half differ": ("c", [f"t{i % 29}" for i in range(N)]),
    "a few dates among texts": ("c", ["2026-01-02" if i % 5 else "never" for i in range(N)]),
    "the target under another name": ("again", KIND),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_column_is_left_out_with_a_note(name, found):
    column, values, why = LEFT_OUT[name]
    table = found({column: list(values)})
    assert table.contract.names == ["size"]
    assert note(table, column)[0] == "left out"
    assert note(table, column)[1].startswith(why)


@pytest.mark.parametrize("name", LEARNED)
def test_a_column_that_only_looks_odd_is_learned_from(name, found):
    column, values = LEARNED[name]
    assert found({column: list(values)}).contract.names == ["size", column]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_feature_that_is_named_is_not_left_out(name, found):
    column, values, why = LEFT_OUT[name]
    columns = {"other": SIZE[::-1], column: list(values)}
    if not column or why in ("dates or times", "no row has a value"):
        problem = f"has no name|{why}.*leave the column out with `drop`"
        with pytest.raises(TableError, match=problem):
            found(columns, column, "size")
    else:
        table = found(columns, column, "size")
        assert table.contract.names == [column, "size"]
        assert note(table, "other") == ("left out", "not among the features")


def test_a_dropped_column_is_left_out_and_may_hold_anything(found):
    bad = ["inf" if i == 3 else f"{i % 9}.5" for i in range(N)]
    table = found({"bad": bad, "worse": bad}, drop=("bad", "worse"))
    assert table.contract.names == ["size"]
    assert note(table, "bad") == ("left out", "as it was chosen")
    assert found({"bad": bad}, "bad", "size", drop=("bad",)).contract.names == ["size"]


def test_the_choices_name_columns_of_the_table(found):
    with pytest.raises(TableError, match="no such column; did you mean size"):
        found({}, drop=("sise",))
    with pytest.raises(TableError, match="no such column"):
        found({}, categories=("ward",))
    with pytest.raises(TableError, match="it is the target; `task` says what it holds"):
        found({"c": SIZE[::-1]}, drop=("kind",))


def test_if_nothing_is_left_the_reasons_are_the_error(tmp_path):
    rows = "".join(f"{i},2026-01-01,{k}\n" for i, k in enumerate(KIND))
    (tmp_path / "t.csv").write_text("Id,day,kind\n" + rows)
    with pytest.raises(
        TableError, match="left out: it counts the rows from 0; `features`"
    ) as error:
        read_table(tmp_path / "t.csv", "kind")
    assert [issue.column for issue in error.value.issues] == ["Id", "day"]


def test_there_is_a_note_on_each_column_in_the_order_of_the_file(found):
    table = found({"Id": range(N), "c": ["x", "y", "z"] * (N // 3)}, "c", "size")
    assert [note.name for note in table.columns] == ["size", "Id", "c", "kind"]
    assert table.contract.names == ["c", "size"]


@pytest.mark.parametrize("index", ["passenger", None])
def test_the_index_of_a_frame_is_left_out_of_a_parquet_file(index, tmp_path):
    frame = pd.DataFrame({"size": SIZE, "kind": KIND}, index=[i * 3 % 7 for i in range(N)])
    frame.rename_axis(index).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", "kind")
    assert table.contract.names == ["size"]
    assert table.columns[-1].kind == "left out"
    if index:
        assert note(table, index) == ("left out", "an index, as the file says")
        assert read_table(tmp_path / "t.parquet", "kind", [index]).contract.names == [index]


@pytest.mark.parametrize(
    "values",
    [
        pd.date_range("2026-01-01", periods=N),
        pd.timedelta_range("1h", periods=N),
        pd.date_range("2026-01-01", periods=N).date,
        pd.date_range("2026-01-01", periods=N, tz="Europe/Berlin"),
    ],
)
def test_dates_of_a_parquet_file_are_left_out_by_their_type(values, found):
    assert note(found({"day": values}, parquet=True), "day") == ("left out", "dates or times")


def test_the_digits_keep_all_but_their_constant_columns(tmp_path):
    frame = load_digits(as_frame=True).frame
    frame.to_csv(tmp_path / "digits.csv", index=False)
    table = read_table(tmp_path / "digits.csv", "target")
    left_out = [note.name for note in table.columns if note.kind == "left out"]
    assert left_out == [c for c in frame if frame[c].nunique() == 1]
    assert table.X.shape == (1797, 61)


# The example


def test_the_example_is_a_row_near_the_middle_without_gaps(found):
    columns = {
        "age": [None if i < 30 else i for i in range(N)],
        "sex": ["male" if i % 3 else "female" for i in range(N)],
        "member": [i % 4 != 1 for i in range(N)],
    }
    size, age, sex, member = found(columns).contract.example
    rows = list(zip(SIZE, *columns.values(), strict=True))
    assert (size, age, sex, member) in rows
    assert (sex, member) == ("male", True)
    assert 35 < age < 55


def test_an_example_has_gaps_only_if_every_row_has(found):
    columns = {"a": [None if i % 2 else i * i % 37 for i in range(N)]}
    columns["b"] = [i * i % 23 if i % 2 else None for i in range(N)]
    example = found(columns).contract.example
    assert example.count(None) == 1


# Files


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.pq", lambda f, p: f.to_parquet(p)),
        ("t.parquet.gzip", lambda f, p: f.to_parquet(p, compression="gzip")),
        ("t.parquet.gz", lambda f, p: p.write_bytes(gzip.compress(f.to_parquet()))),
        ("t.tsv", lambda f, p: f.to_csv(p, index=False, sep="\t")),
        ("t.tsv.gz", lambda f, p: f.to_csv(p, index=False, sep="\t")),
        ("t.TXT", lambda f, p: f.to_csv(p, index=False, sep=";", decimal=",")),
        ("t.csv.gz", lambda f, p: f.to_csv(p, index=False)),
    ],
)
def test_usual_forms_of_a_file_make_the_same_table(name, write, tmp_path):
    table = iris()
    frame = table.frame()
    write(frame, tmp_path / name)
    frame.to_csv(tmp_path / "t.csv", index=False)
    plain, other = read_table(tmp_path / "t.csv", "label"), read_table(tmp_path / name, "label")
    assert fingerprint(other) == fingerprint(plain)
    assert other.contract == plain.contract


def test_a_directory_of_parquet_parts_is_read_in_the_order_of_their_names(tmp_path):
    frame = pd.DataFrame({"size": SIZE, "kind": KIND})
    folder = tmp_path / "table"
    folder.mkdir()
    for part in range(4):
        frame[part * 15 : part * 15 + 15].to_parquet(folder / f"part-{part}.parquet", index=False)
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-0.parquet.crc").write_text("x")
    table = load_table(str(folder), "kind")
    assert table.X[:, 0].tolist() == SIZE
    assert (table.source, len(table.file)) == ("table", 64)
    (folder / "part-3.parquet").unlink()
    assert load_table(str(folder), "kind").file != table.file


# Tables of all kinds


def is_number(text):
    """Is the text a number, perhaps with commas?"""
    return bool(NUMBER.fullmatch(text) or comma_hint(text))


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
WORDS = NAMES.filter(lambda text: not (is_number(text.strip()) or text.strip() in MARKS))
COLUMNS = {
    "number": st.sampled_from([0.0, -1.5, 1e-7, 123456.789, 2.0]),
    "boolean": st.booleans(),
    "spelled": st.sampled_from(["no", "yes"]),
    "text": st.sampled_from(["red", "Blue", "a b", "ä", 'q"uote', "com,ma", "0x", "line\nbreak"]),
    "odd": WORDS,
}


@st.composite
def mixed_frames(draw):
    """A frame of a few columns of any kind, with gaps or not, and a target."""
    n = draw(st.integers(12, 30))
    frame = pd.DataFrame(index=range(n))
    for i in range(draw(st.integers(1, 5))):
        values = COLUMNS[draw(st.sampled_from(sorted(COLUMNS)))]
        gaps = draw(st.booleans())
        cells = draw(st.lists(st.none() | values if gaps else values, min_size=n, max_size=n))
        frame[f"c{i}"] = pd.Series(cells, dtype=object)
    answers = draw(st.sampled_from([["a", "b"], [0, 1], [True, False], [1.5, 2.5, -3.0]]))
    frame["y"] = [answers[i % len(answers)] for i in range(n)]
    return frame


def outcome(path):
    """The table in the file `path` and None, or None and the error."""
    try:
        return read_table(path, "y"), None
    except TableError as error:
        return None, error


@settings(max_examples=150, deadline=None, print_blob=True)
@given(mixed_frames())
def test_a_table_is_the_same_from_csv_and_as_pandas_reads_it(tmp_path_factory, frame):
    path = tmp_path_factory.getbasetemp() / "mixed.csv"
    frame.to_csv(path, index=False)
    table, error = outcome(path)
    if error:
        assert all("left out" in issue.problem for issue in error.issues)
        return
    read = pd.read_csv(path, na_values=list(MARKS), keep_default_na=False)
    ours = data_frame(table.X, table.contract)
    assert len(table) == len(read)
    assert list(ours) == table.contract.names
    for feature in table.contract.features:
        mine, theirs = ours[feature.name], read[feature.name]
        assert mine.isna().tolist() == theirs.isna().tolist()
        assert mine.dropna().tolist() == theirs.dropna().tolist()
        assert feature.missing == bool(theirs.isna().any())
    values = table.X[~np.isnan(table.X)]
    assert np.isfinite(values).all()
    assert fingerprint(table) == fingerprint(read_table(path, "y"))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(mixed_frames())
def test_a_table_is_the_same_from_csv_and_parquet(tmp_path_factory, frame):
    folder, typed = tmp_path_factory.getbasetemp(), frame.convert_dtypes()
    typed.to_csv(folder / "same.csv", index=False)
    typed.to_parquet(folder / "same.parquet")
    (one, error), (two, same) = outcome(folder / "same.csv"), outcome(folder / "same.parquet")
    if error:
        assert same
        assert error.issues == same.issues
        return
    assert fingerprint(one) == fingerprint(two)
    assert (one.contract, one.columns) == (two.contract, two.columns)
