"""A row is accepted if every number in it is finite as a 32-bit float, and for no other reason."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iris_serve.data.contract import FLOAT32_LIMIT
from iris_serve.data.rows import RowError, check_row, range_notes
from iris_serve.data.table import iris

CONTRACT = iris().contract
BELOW = math.nextafter(FLOAT32_LIMIT, 0)
NUMBERS = st.floats() | st.integers() | st.integers(-(10**400), 10**400)
JUNK = st.none() | st.booleans() | st.text() | st.binary() | st.complex_numbers() | st.dates()
VALUES = NUMBERS | JUNK | st.lists(NUMBERS, max_size=5) | st.dictionaries(st.text(), NUMBERS)


def fits(value):
    """Judged by numpy, and not by the code under test: is `value` finite as a float32?"""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float32(float(value))))
    except OverflowError:  # an integer beyond even a float64
        return False


@settings(max_examples=300, print_blob=True)
@given(row=st.lists(NUMBERS, min_size=4, max_size=4))
def test_exactly_the_numbers_that_float32_can_hold_are_accepted(row):
    if all(map(fits, row)):
        assert check_row(row, CONTRACT) == [float(value) for value in row]
        return
    with pytest.raises(RowError) as refusal:
        check_row(row, CONTRACT)
    for feature, value in zip(CONTRACT.features, row, strict=True):
        assert (f"({feature.name})" in str(refusal.value)) != fits(value)


def outcome(values):
    """The accepted row and None, or None and the message; any other exception is a bug."""
    try:
        return check_row(values, CONTRACT), None
    except RowError as refusal:
        return None, str(refusal)


@settings(max_examples=300, print_blob=True)
@given(values=VALUES | st.lists(VALUES, max_size=6) | st.tuples(VALUES, VALUES, VALUES, VALUES))
def test_anything_else_is_a_row_error_with_a_short_message(values):
    row, message = outcome(values)
    assert (row is None) != (message is None)
    assert row is None or [type(value) for value in row] == [float] * 4
    assert message is None or (0 < len(message) < 2000 and message.isprintable())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_is_the_first_number_that_overflows_float32(sign):
    assert not fits(sign * FLOAT32_LIMIT)
    assert fits(sign * BELOW)
    assert check_row([sign * BELOW] * 4, CONTRACT) == [sign * BELOW] * 4
    with pytest.raises(RowError, match="32-bit float"):
        check_row([sign * FLOAT32_LIMIT, 1, 1, 1], CONTRACT)


@pytest.mark.parametrize(
    "value", [int(FLOAT32_LIMIT), 10**400, -(10**100_000)], ids=["39 digits", "401", "100,001"]
)
def test_an_integer_of_any_length_is_refused_like_a_float(value):
    with pytest.raises(RowError, match=r"features\[3\] \(petal_width\)"):
        check_row([1, 1, 1, value], CONTRACT)


def test_every_wrong_field_is_named_at_once():
    with pytest.raises(RowError) as refusal:
        check_row([None, "x", True, math.nan], CONTRACT)
    assert all(f"({feature.name})" in str(refusal.value) for feature in CONTRACT.features)


@pytest.mark.parametrize("value", [6.9000001, math.nextafter(6.9, 7), 47, 1e300])
def test_a_note_shows_a_value_that_differs_from_the_bound(value):
    ((position, note),) = range_notes([6.1, 2.8, value, 1.2], iris().contract)
    shown, bound = re.match(r"(\S+) is above (\S+), the highest value seen", note).groups()
    assert (position, float(shown), float(bound)) == (2, value, 6.9)
