"""Columns that look like something else than what they are."""

import pytest

from iris_serve.data.choices import DEFAULTS, Choices
from iris_serve.data.files import TableError
from iris_serve.data.tables import read_table


@pytest.fixture
def read(tmp_path):
    """A function that reads a CSV file with these columns of texts."""

    def write_and_read(choices=DEFAULTS, features=None, **columns):
        path = tmp_path / "table.csv"
        rows = [columns, *zip(*columns.values(), strict=True)]
        path.write_text("\n".join(",".join(row) for row in rows) + "\n")
        return read_table(path, "kind", features, choices)

    return write_and_read


SIZES = [f"{i}.5" for i in range(40)]
KINDS = ["red", "blue"] * 20


def test_an_infinite_number_is_no_class(read):
    with pytest.raises(TableError) as refusal:
        read(Choices(task="classes"), size=SIZES, kind=["1", "2"] * 19 + ["1", "inf"])
    (issue,) = refusal.value.issues
    assert (issue.row, issue.value, issue.problem) == (40, "inf", "infinite")


def test_if_all_classes_are_rare_dropping_them_is_a_complaint(read):
    with pytest.raises(TableError) as refusal:
        read(Choices(rare="drop"), size=SIZES[:4], kind=KINDS[:4])
    (issue,) = refusal.value.issues
    assert issue.problem == "no class with 5 rows is left; `-p rare keep` keeps them"


def test_a_feature_that_tells_the_target_is_kept_and_said(read):
    code = ["7" if kind == "red" else "5" for kind in KINDS]
    size, code, _ = read(size=SIZES, code=code, kind=KINDS).columns
    assert (code.kind, code.why) == ("number", "numbers; tells the target exactly")
    assert "exactly" not in size.why


def test_values_that_differ_only_by_case_or_blanks_are_said_once(read):
    kinds = ["Yes", "yes", "no", "No"] * 10
    _size, color, kind = read(size=SIZES, color=["red", "Red"] * 20, kind=kinds).columns
    assert kind.why.endswith("; 'No' and 'no' are two classes here")
    assert color.why.endswith("; 'Red' and 'red' are two values here")


@pytest.mark.parametrize(
    ("name", "hint"), [("color", "`missing`"), ("kind", "`missing` and `task`")]
)
def test_texts_among_many_numbers_are_said_with_what_may_help(read, name, hint):
    mixed = ["none" if i % 4 == 0 else str(i % 7) for i in range(40)]
    columns = {"size": SIZES, "color": KINDS, "kind": KINDS, name: mixed}
    note = next(note for note in read(**columns).columns if note.name == name)
    assert note.why.endswith(f"; 75% of them are numbers, see {hint}")


def test_a_point_beside_decimal_commas_is_never_guessed(read):
    sizes, prices = [f'"{i},5"' for i in range(40)], [f"{i + 1}.250" for i in range(40)]
    with pytest.raises(TableError) as refusal:
        read(size=sizes, price=prices, kind=KINDS)
    (issue,) = refusal.value.issues
    assert (issue.row, issue.column, issue.value) == (1, "price", "1.250")
    assert "is the point a decimal one?" in issue.problem
    assert read(size=sizes, price=[*prices[:-1], "7.5"], kind=KINDS).X[0].tolist() == [0.5, 1.25]


def test_a_number_to_predict_has_no_doubtful_points_either(read):
    sizes, prices = [f'"{i},5"' for i in range(40)], [f"{i + 1}.250" for i in range(40)]
    with pytest.raises(TableError, match="is the point a decimal one"):
        read(Choices(task="number"), size=sizes, kind=prices)


def test_long_numbers_that_are_names_stay_apart(read):
    ids = [f"1234567890123456789{i % 2}" for i in range(40)]
    with pytest.raises(TableError, match="64-bit floats are no longer exact"):
        read(size=SIZES, account=ids, kind=KINDS)
    table = read(Choices(categories=("account",)), size=SIZES, account=ids, kind=KINDS)
    assert table.contract.features[1].values == (ids[0], ids[1])
    assert table.X[:, 1].tolist() == [0, 1] * 20


def test_three_decimals_behind_a_comma_are_decimals_if_a_zero_stands_before_it(read):
    sizes = [f'"{("", "-")[i % 2]}0,{850 + i}"' for i in range(40)]
    assert read(size=sizes, kind=KINDS).X[:2, 0].tolist() == [0.85, -0.851]


def test_a_measurement_is_no_class_even_if_classes_are_asked_for(read):
    with pytest.raises(TableError, match="a class is a text or a whole number"):
        read(Choices(task="classes"), size=SIZES, kind=["0.5", "1.5"] * 20)
