"""Which rows are held out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import small

from iris_serve.data.contract import Contract, Feature
from iris_serve.data.split import choose_rule, content_fractions, held_out, split
from iris_serve.data.table import Table, iris

SHARES = st.sampled_from([0.05, 0.2, 0.5, 0.9])


def coded(rows, y, grown=()):
    """A table of (color, number, boolean) rows; the `grown` colors are in the list as well."""
    colors = tuple(sorted({color for color, _, _ in rows if color} | set(grown)))
    X = [
        [colors.index(c) if c else np.nan, np.nan if x is None else x, b in ("yes", True)]
        for c, x, b in rows
    ]
    features = (
        Feature("color", "", 0, len(colors) - 1, "category", colors, missing=True),
        Feature("size", "", 0, 9, missing=True),
        Feature("sold", "", 0, 1, "boolean", ("no", "yes")),
    )
    classes = tuple(sorted(set(y)))
    contract = Contract(features, classes, classes, ("red", 1.0, "no"))
    return Table(np.array(X, dtype=float), np.array(y), contract, "mixed")


ROW = st.tuples(
    st.sampled_from(["red", "green", "blue", None]),
    st.sampled_from([0, 1, 2.5, None]),
    st.sampled_from(["no", "yes"]),
)
TABLES = st.lists(st.tuples(ROW, st.sampled_from("abc")), min_size=2, max_size=60).map(
    lambda pairs: coded([row for row, _ in pairs], [c for _, c in pairs])
)


def test_rows_with_equal_values_are_on_one_side_of_the_split():
    table = iris().take(np.repeat(np.arange(150), 2))
    sides = held_out(table, 0.3).reshape(-1, 2)
    assert (sides[:, 0] == sides[:, 1]).all()


def test_a_split_with_an_empty_side_is_refused_with_the_size_of_the_table():
    table = small({"a": 5, "b": 5})
    with pytest.raises(ValueError, match="holds out none of the 10 rows: use more rows or another"):
        split(table, 0.0001, "content")
    with pytest.raises(ValueError, match="leaves no row of class 'a' to learn from, of 10 rows"):
        split(table, 0.9999, "content")


def test_a_split_of_a_single_row_is_refused_by_either_rule():
    table = iris().take(np.array([3]))
    one = replace(table, contract=Contract(table.contract.features, (0,), ("a",), (1, 1, 1, 1)))
    for rule in ("auto", "fair"):
        with pytest.raises(ValueError, match="holds out none of the 1 rows"):
            split(one, 0.2, rule)


def test_a_split_of_numbers_keeps_a_row_on_each_side():
    table = small({"a": 3})
    contract = Contract(table.contract.features, (), (), (1, 2), target="price")
    numbers = replace(table, y=np.array([1.0, 2.0, 3.0]), contract=contract)
    assert [len(side) for side in split(numbers, 0.0001, "fair")] == [2, 1]
    assert [len(side) for side in split(numbers, 0.9999, "fair")] == [1, 2]
    assert [len(side) for side in split(numbers, 0.2)] == [2, 1]
    with pytest.raises(ValueError, match="holds out none of the 3 rows"):
        split(numbers, 0.0001)
    with pytest.raises(ValueError, match=r"test_size 0\.9999 leaves none of the 3 rows"):
        split(numbers, 0.9999, "content")


def test_the_fractions_of_numbers_are_those_of_the_versions_before():
    assert content_fractions(iris())[:3].tolist() == pytest.approx(
        [0.7152936105988744, 0.353968740865806, 0.23372308394450164], abs=1e-16
    )


@settings(deadline=None, print_blob=True)
@given(TABLES, SHARES)
def test_the_fair_rule_leaves_each_class_a_row_on_both_sides(table, share):
    out = held_out(table, share, "fair")
    for c in table.contract.classes:
        sides = out[table.y == c]
        assert not sides.all()
        assert sides.any() or len(sides) == 1


@settings(deadline=None, print_blob=True)
@given(TABLES, SHARES)
def test_the_chosen_rule_always_splits(table, share):
    few = not 0.5 <= share * len(table) <= len(table) - len(table.contract.classes) / 2
    if not few and len(table.contract.classes) < len(table):
        train, test = split(table, share)
        assert len(train) + len(test) == len(table)
        assert set(train.y) == set(table.contract.classes)


@settings(deadline=None, print_blob=True)
@given(st.lists(ROW, min_size=1, max_size=40), st.lists(ROW, max_size=20), SHARES)
def test_appended_rows_move_no_row_of_a_class_that_is_on_both_sides(rows, more, share):
    before = coded(rows, ["a"] * len(rows), ["amber", "red"])
    after = coded([*rows, *more], ["a"] * (len(rows) + len(more)), ["azure", "brown", "red"])
    n = len(rows)
    assert held_out(after, share)[:n].tolist() == held_out(before, share).tolist()
    fair, grown = held_out(before, share, "fair"), held_out(after, share, "fair")[:n]
    assert (fair != grown).sum() <= 2  # the last one to learn from, or the only one held out


@pytest.mark.parametrize("spelling", [("false", "true"), (False, True)])
def test_a_boolean_that_becomes_a_category_moves_no_row(spelling):
    feature = Feature("sold", "", 0, 1, "boolean", spelling)
    values = (*spelling, "unknown") if isinstance(spelling[0], str) else spelling
    grown = Feature("sold", "", 0, 2, "category", values)
    contracts = [Contract((f,), (0, 1), ("a", "b"), (spelling[0],)) for f in (feature, grown)]
    X, y = np.array([[0.0], [1.0]]), np.array([0, 1])
    first, second = (content_fractions(Table(X, y, c, "sold")) for c in contracts)
    assert first.tolist() == second.tolist()


def test_few_different_rows_make_the_split_fair_and_its_share_right():
    kinds = iris().take(np.arange(0, 150, 10).repeat(100))
    assert choose_rule(kinds, 0.2) == "fair"
    assert abs(held_out(kinds, 0.2, "fair").mean() - 0.2) < 0.04


@pytest.mark.parametrize("rows", [6, 20, 49, 150])
def test_a_small_table_of_different_rows_is_split_by_content(rows):
    table = small({"a": rows, "b": 0})
    numbers = replace(table, contract=Contract(table.contract.features, (), (), (1, 2)))
    if held_out(numbers, 0.5).any():
        assert choose_rule(numbers, 0.5) == "content"


def test_a_class_of_few_rows_that_is_not_held_out_does_not_change_the_rule():
    table = small({"a": 400, "b": 4})
    out = held_out(table, 0.2)
    assert out[:400].any()
    rule = choose_rule(table, 0.2)
    assert rule == ("fair" if out[400:].all() else "content")
    alone = small({"a": 400, "b": 1})
    assert choose_rule(alone, content_fractions(alone)[-1] + 0.001) == "fair"
