"""Columns that look like something else than what they are."""

import pytest

from iris_serve.data.columns import DEFAULTS, Choices
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
