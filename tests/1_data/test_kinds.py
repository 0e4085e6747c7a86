"""A value that is not a number becomes one and comes back, or is refused with a reason."""

import csv
import io
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import MARKS, NUMBERS, TEXTS, contracts, features, rows, values

from iris_serve.data.contract import Contract, Feature, contract_changes, contract_extension
from iris_serve.data.kinds import (
    category_hint,
    decode_value,
    encode_column,
    encode_value,
    find_code,
    parse_cell,
    parse_column,
    value_error,
)
from iris_serve.data.rows import RowError, check_row, encode_rows

FEATURES = features("f")
VALUES = TEXTS | NUMBERS | st.floats() | st.integers() | st.booleans() | st.none()
JUNK = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(TEXTS, VALUES) | st.dates()


def same(one, other):
    """Are both the same number, or both NaN?"""
    return one == other or (one != one and other != other)


@settings(max_examples=300, print_blob=True, deadline=None)
@given(st.data())
def test_a_value_comes_back_as_the_table_has_it(data):
    feature = data.draw(FEATURES)
    value = data.draw(values(feature))
    assert value_error(value, feature) is None
    code = encode_value(value, feature)
    assert type(code) is float
    back = decode_value(code, feature)
    assert back == value
    assert type(back) is type(value)
    assert feature.kind == "number" or value is None or value == feature.values[int(code)]


@settings(max_examples=300, print_blob=True, deadline=None)
@given(st.data())
def test_a_column_is_encoded_as_its_values_are_or_not_at_all(data):
    feature = data.draw(FEATURES)
    column = data.draw(st.lists(values(feature) | JUNK, max_size=8))
    codes = encode_column(column, feature)
    if codes is None:
        return
    assert [value_error(value, feature) for value in column] == [None] * len(column)
    expected = [encode_value(value, feature) for value in column]
    assert len(codes) == len(column)
    assert all(map(same, codes, expected))
    assert {type(code) for code in codes} <= {float}


@settings(max_examples=200, print_blob=True, deadline=None)
@given(st.data())
def test_a_column_of_the_table_is_encoded_at_once(data):
    feature = data.draw(FEATURES)
    column = data.draw(st.lists(values(feature), max_size=8))
    assert encode_column(column, feature) is not None


@settings(max_examples=300, print_blob=True, deadline=None)
@given(st.data())
def test_rows_are_encoded_at_once_as_they_are_one_by_one(data):
    contract = data.draw(contracts())
    many = data.draw(st.lists(rows(contract), min_size=1, max_size=4))
    named = [dict(zip(contract.names, row, strict=True)) for row in many]
    expected = [check_row(row, contract) for row in many]
    for written in (many, named, list(map(tuple, many))):
        encoded = encode_rows(written, contract)
        assert [list(map(same, *pair)) for pair in zip(encoded, expected, strict=True)] == [
            [True] * len(contract.features)
        ] * len(many)
    strange = [*many, data.draw(st.lists(JUNK, max_size=4) | JUNK)]
    if encode_rows(strange, contract) is not None:
        check_row(strange[-1], contract)


@settings(max_examples=300, print_blob=True, deadline=None)
@given(st.data())
def test_a_cell_of_csv_is_the_value_that_json_would_have(data):
    feature = data.draw(FEATURES)
    value = data.draw(values(feature))
    text = io.StringIO()
    csv.writer(text).writerow([value])
    ((cell,),) = csv.reader(io.StringIO(text.getvalue(), newline=""))
    if value is None and find_code("", feature) is not None:  # the empty text is a category
        return
    parsed = parse_cell(cell, feature, MARKS)
    assert value_error(parsed, feature) is None
    assert same(encode_value(parsed, feature), encode_value(value, feature))
    assert parse_column([cell, cell], feature, MARKS) == [parsed, parsed]


@settings(max_examples=300, print_blob=True, deadline=None)
@given(st.data())
def test_anything_is_valid_or_has_a_short_message(data):
    feature, value = data.draw(FEATURES), data.draw(JUNK)
    wrong = value_error(value, feature)
    if wrong is None:
        assert isinstance(encode_value(value, feature), float)
    else:
        assert wrong.startswith("must be ")
        assert wrong.isprintable()
        assert len(wrong) < 1000


SEX = Feature("sex", "", 0, 1, "category", ("female", "male"))
DECK = Feature("deck", "", 0, 2, "category", (0.0, 1.0, 2.5))
CODE = Feature("code", "", 0, 1, "category", ("0", "1"))
SMOKER = Feature("smoker", "", 0, 1, "boolean", ("No", "Yes"))
ADULT = Feature("adult", "", 0, 1, "boolean", (False, True))
AGE = Feature("age", "", 0, 80)


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        *((SEX, v) for v in (True, 0, 1.0, None, "Male", "", ["male"], {"sex": "male"})),
        *((DECK, v) for v in (True, False, 3, "one", None, math.nan, math.inf, 10**400)),
        *((CODE, v) for v in (0, 1.0, True, "1.0", "01")),
        *((SMOKER, v) for v in (1, 0.0, "1", "Yess", None, "")),
        *((ADULT, v) for v in (1, 0.0, "yes", "1", None)),
        *((AGE, v) for v in (True, "29", None, math.nan)),
    ],
)
def test_a_value_of_another_type_or_unknown_is_refused(feature, value):
    assert value_error(value, feature).startswith("must be ")
    with pytest.raises(RowError):
        check_row([value], Contract((feature,), (0, 1), ("", ""), (None,)))


@pytest.mark.parametrize(
    ("feature", "value", "code"),
    [
        *((SEX, v, 1.0) for v in ("male", " male", "male\t")),
        *((DECK, v, 1.0) for v in (1, 1.0, "1", "1.0", " 1e0 ")),
        *((CODE, v, 1.0) for v in ("1", " 1 ")),
        *((SMOKER, v, 1.0) for v in (True, "Yes", "YES", " yes ", "true", "True")),
        *((ADULT, v, 0.0) for v in (False, "false", "False", "FALSE ")),
        *((AGE, v, 29.0) for v in (29, 29.0)),
    ],
)
def test_a_value_may_be_spelled_in_several_ways(feature, value, code):
    assert value_error(value, feature) is None
    assert encode_value(value, feature) == code


def test_a_spelling_that_could_mean_two_values_means_none():
    grade = Feature("grade", "", 0, 2, "category", (" a", "a ", "b"))
    assert [find_code(text, grade) for text in (" a", "a ", "a", " b")] == [0.0, 1.0, None, 2.0]
    case = Feature("case", "", 0, 1, "boolean", ("t", "T"))
    assert [find_code(text, case) for text in ("t", "T", " t", True, "true")] == [0, 1, None, 1, 1]
    crossed = Feature("crossed", "", 0, 1, "boolean", ("true", "false"))
    assert [find_code(text, crossed) for text in ("true", "TRUE", True)] == [0.0, 0.0, 1.0]


def test_null_is_accepted_exactly_where_it_may_be():
    for feature in (SEX, DECK, SMOKER, ADULT, AGE):
        assert "got null" in value_error(None, feature)
        lenient = msgspec.structs.replace(feature, missing=True)
        assert value_error(None, lenient) is None
        assert math.isnan(encode_value(None, lenient))
        assert "or null" in value_error([], lenient)
        assert "NaN" not in (value_error(math.nan, lenient) or "") or feature.kind == "number"


def test_an_unknown_category_counts_as_missing_only_where_the_contract_says_so():
    lenient = msgspec.structs.replace(SEX, unknown="missing")
    assert math.isnan(encode_value("other", lenient))
    assert encode_value(" male ", lenient) == 1.0
    for wrong in (None, 1.0, True, []):
        assert value_error(wrong, lenient).startswith("must be ")
    numbers = msgspec.structs.replace(DECK, unknown="missing")
    assert math.isnan(encode_value(7, numbers))
    assert value_error(7, numbers) is None
    assert value_error(True, numbers).startswith("must be ")


@pytest.mark.parametrize(
    ("mark", "value"), [("NA", None), (" NA ", None), ("", None), (" ", None), ("na", "na")]
)
def test_a_mark_is_missing_unless_it_is_a_category(mark, value):
    country = Feature("country", "", 0, 1, "category", ("DE", "FR"), missing=True)
    assert parse_cell(mark, country, MARKS) == value
    namibia = msgspec.structs.replace(country, values=("DE", "NA"))
    assert parse_cell("NA", namibia, MARKS) == "NA"
    assert parse_cell("NA", msgspec.structs.replace(country, missing=False), MARKS) == "NA"


def test_a_mark_that_is_a_number_is_missing_where_that_is_allowed():
    age = msgspec.structs.replace(AGE, missing=True)
    assert parse_cell("-999", age, ("-999",)) is None
    assert parse_cell("-999", AGE, ("-999",)) == -999.0


def test_one_of_ten_thousand_categories_is_found_by_a_misspelling():
    names = tuple(sorted(f"{first}{n:04}" for first in ("Berlin ", "Paris ") for n in range(5000)))
    city = Feature("city", "", 0, len(names) - 1, "category", names)
    assert category_hint("Paris 1234a", city) == "; did you mean Paris 1234?"
    assert category_hint("paris 1234", city) == "; did you mean Paris 1234?"
    wrong = value_error("x" * 1_000_000, city)
    assert "and 9992 more" in wrong
    assert len(wrong) < 500


def test_all_wrong_values_of_a_row_are_named_at_once():
    contract = Contract((SEX, DECK, SMOKER, AGE), (0, 1), ("", ""), ("male", 1.0, "No", 29.0))
    with pytest.raises(RowError) as refusal:
        check_row({"sex": "mael", "deck": None, "smoker": 1, "age": "29"}, contract)
    assert [issue.field for issue in refusal.value.issues] == ["sex", "deck", "smoker", "age"]
    assert "did you mean male?" in str(refusal.value)
    with pytest.raises(RowError, match="must hold 4 values"):
        check_row(["male"], contract)
    with pytest.raises(RowError, match="one flat list of 4 values"):
        check_row([["male", 1, "No", 29]], contract)
    with pytest.raises(RowError, match="must be a list of 4 values, got null"):
        check_row(None, contract)


@settings(max_examples=200, print_blob=True, deadline=None)
@given(st.data())
def test_a_contract_survives_being_stored_and_equals_itself(data):
    contract = data.draw(contracts())
    stored = msgspec.json.encode(contract)
    again = msgspec.json.decode(stored, type=Contract)
    assert again == contract
    assert hash(again) == hash(contract)
    assert msgspec.json.encode(again) == stored
    assert contract_changes(contract, again) == contract_extension(contract, again) == ""


@settings(max_examples=200, print_blob=True, deadline=None)
@given(st.data())
def test_what_grows_is_an_extension_and_what_shrinks_is_a_change(data):
    grown = data.draw(contracts())
    smaller = tuple(
        msgspec.structs.replace(
            feature,
            missing=feature.missing and data.draw(st.booleans()),
            values=feature.values[: -1 if feature.kind == "category" else None] or feature.values,
        )
        for feature in grown.features
    )
    small = msgspec.structs.replace(grown, features=smaller)
    assert contract_changes(small, grown) == ""
    assert (contract_extension(small, grown) == "") == (small.features == grown.features)
    assert (contract_changes(grown, small) == "") == (small.features == grown.features)
    assert contract_extension(grown, small) == ""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (SEX, DECK, "sex no longer among the features; deck new among the features"),
        (AGE, msgspec.structs.replace(SEX, name="age"), "age is a category instead of a number"),
        (
            msgspec.structs.replace(SEX, values=("female", "male", "x")),
            SEX,
            "no longer accepted: sex x",
        ),
        (msgspec.structs.replace(AGE, missing=True), AGE, "no longer accepted: a missing age"),
        (
            msgspec.structs.replace(SEX, unknown="missing"),
            SEX,
            "no longer accepted: an unknown sex",
        ),
        (SMOKER, msgspec.structs.replace(SMOKER, values=("N", "Yes")), "accepted: smoker No"),
        (msgspec.structs.replace(ADULT, name="smoker"), SMOKER, ""),
        (AGE, msgspec.structs.replace(AGE, low=-7, high=200), ""),
    ],
)
def test_a_change_is_said_in_words(old, new, words):
    before, after = (Contract((f,), (0, 1), ("a", "b"), (None,)) for f in (old, new))
    found = contract_changes(before, after)
    assert words in found
    assert bool(words) == bool(found)


def test_a_contract_of_numbers_is_stored_as_before_there_were_kinds():
    stored = b'{"name":"age","unit":"","low":0,"high":80}'
    assert msgspec.json.encode(AGE) == stored
    contract = Contract((AGE,), (0, 1), ("a", "b"), (29.0,))
    assert b"kind" not in msgspec.json.encode(contract)
    assert contract.plain
    assert not msgspec.structs.replace(
        contract, features=(msgspec.structs.replace(AGE, missing=True),)
    ).plain
