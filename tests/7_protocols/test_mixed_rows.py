"""Rows of all kinds are the same rows in every way of writing them, and get the same answers."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mixed import Recorder, contracts, rows

from iris_serve.data.contract import Contract, Feature
from iris_serve.data.kinds import decode_value, find_code
from iris_serve.data.rows import RowError
from iris_serve.protocols.platforms import invocation_reply, row_format_reply
from iris_serve.protocols.row_formats import INVOCATIONS, V1, VERTEX, row_format_example
from iris_serve.service.bodies import csv_text, is_header
from iris_serve.service.predict import predict_reply

NDJSON = "application/x-ndjson"


def spellings(contract, many, order):
    """A reply to `many` rows for each way of writing them, made when it is called."""
    names = contract.names
    named = [dict(zip(names, row, strict=True)) for row in many]
    columns = {name: [row[name] for row in named] for name in names}
    shuffled = [names[i] for i in order]
    split = {"columns": shuffled, "data": [[row[name] for name in shuffled] for row in named]}
    table = csv_text([shuffled, *split["data"]]).encode()
    bare = csv_text(many).encode()

    def text(value):
        return json.dumps(value).encode()

    def lines(values):
        return "\n".join(map(json.dumps, values)).encode()

    yield "list", lambda p: predict_reply(text({"features": many}), p)
    yield "objects", lambda p: predict_reply(text({"features": named}), p)
    yield "lines of lists", lambda p: predict_reply(lines(many), p, NDJSON)
    yield "lines of objects", lambda p: predict_reply(lines(named), p, NDJSON)
    yield "instances", lambda p: row_format_reply(text({"instances": many}), p, V1)
    yield "named instances", lambda p: row_format_reply(text({"instances": named}), p, VERTEX)
    yield "columns", lambda p: row_format_reply(text({"inputs": columns}), p, V1)
    yield "split", lambda p: invocation_reply(text({"dataframe_split": split}), p)
    yield "records", lambda p: invocation_reply(text({"dataframe_records": named}), p)
    empty = any(find_code("", f) is not None for f in contract.features if f.missing)
    if not empty:  # where the empty text is a category, an empty cell is no gap
        yield "CSV with names", lambda p: predict_reply(table, p, "text/csv")
        first = csv_text(many[:1])
        if "\n" not in first[:-1] and '"' not in first and not headed(first, contract):
            yield "CSV without names", lambda p: invocation_reply(bare, p, "text/csv")


def headed(first, contract):
    return is_header(first.removesuffix("\n").split(","), contract)


def repeated(asked):
    """Rows that can be compared: NaN as a word."""
    return [[[repr(value) for value in row] for row in each] for each in asked]


@settings(max_examples=150, print_blob=True, deadline=None)
@given(st.data())
def test_rows_of_all_kinds_are_the_same_in_every_format(data):
    contract = data.draw(contracts())
    many = data.draw(st.lists(rows(contract), min_size=1, max_size=4))
    # A line of CSV with nothing but one blank value is an empty line.
    assume(all("".join(map(str, row)).strip() for row in many))
    order = data.draw(st.permutations(range(len(contract.features))))
    expected = None
    for way, ask in spellings(contract, many, order):
        predictor = Recorder(contract, [])
        reply = ask(predictor)
        assert reply.status == 200, (way, reply.body)
        assert json.loads(reply.body) == {"predictions": list(reply.answers)}, way
        (asked,) = repeated(predictor.asked)
        expected = expected or asked
        assert asked == expected, way
    decoded = [
        [decode_value(float(code), feature) for code, feature in pairs]
        for pairs in (zip(row, contract.features, strict=True) for row in expected)
    ]
    assert decoded == many


@settings(max_examples=100, print_blob=True, deadline=None)
@given(st.data())
def test_one_row_is_the_same_as_a_list_and_as_an_object(data):
    contract = data.draw(contracts())
    row = data.draw(rows(contract))
    named = dict(zip(contract.names, row, strict=True))
    first, second = Recorder(contract, []), Recorder(contract, [])
    for written, predictor in ((row, first), (named, second)):
        reply = predict_reply(json.dumps({"features": written}).encode(), predictor)
        assert reply.status == 200, reply.body
    assert repeated(first.asked) == repeated(second.asked)


@settings(max_examples=200, print_blob=True, deadline=None)
@given(st.data())
def test_the_example_of_a_refusal_is_accepted(data):
    contract = data.draw(contracts())
    junk = st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.lists(st.none())
    row = data.draw(rows(contract))
    row[data.draw(st.integers(0, len(row) - 1))] = data.draw(junk)
    shape = data.draw(st.sampled_from(["list", "object", "many"]))
    named = dict(zip(contract.names, row, strict=True))
    features = {"list": row, "object": named, "many": [row]}[shape]
    reply = predict_reply(json.dumps({"features": features}).encode(), Recorder(contract, []))
    if reply.status != 200:
        problem = json.loads(reply.body)
        again = json.dumps(problem["example"]).encode()
        assert predict_reply(again, Recorder(contract, [])).status == 200, problem
    for row_format in (V1, VERTEX, INVOCATIONS):
        _, example = row_format_example(row_format, contract)
        body = json.dumps(example).encode()
        assert row_format_reply(body, Recorder(contract, []), row_format).status == 200


PEOPLE = Contract(
    features=(
        Feature("sex", "", 0, 1, "category", ("female", "male")),
        Feature("age", "years", 0, 80, missing=True),
        Feature("adult", "", 0, 1, "boolean", (False, True)),
    ),
    classes=(False, True),
    labels=("died", "survived"),
    example=("male", 29.0, True),
    marks=("NA",),
)
WRONG = {"sex": "mael", "age": "29", "adult": 1}


@pytest.mark.parametrize(
    ("question", "places"),
    [
        ({"instances": [WRONG]}, ["instances[0].sex", "instances[0].age", "instances[0].adult"]),
        (
            {"instances": [list(WRONG.values())]},
            ["instances[0][0] (sex)", "instances[0][1] (age)", "instances[0][2] (adult)"],
        ),
        (
            {"inputs": {name: [value] for name, value in WRONG.items()}},
            ["inputs.sex[0] (sex)", "inputs.age[0] (age)", "inputs.adult[0] (adult)"],
        ),
        (
            {"dataframe_split": {"columns": ["age", "sex", "adult"], "data": [["29", "mael", 1]]}},
            ["data[0][1] (sex)", "data[0][0] (age)", "data[0][2] (adult)"],
        ),
    ],
)
def test_all_that_is_wrong_is_named_where_it_is(question, places):
    with pytest.raises(RowError) as refusal:
        row_format_reply(json.dumps(question).encode(), Recorder(PEOPLE, []), INVOCATIONS)
    told = [str(issue) for issue in refusal.value.issues]
    assert len(told) == 3
    for place, what, one in zip(
        places,
        ("did you mean male?", "a number or null", "true or false, got 1"),
        told,
        strict=True,
    ):
        assert place in one
        assert what in one


def test_boolean_classes_are_answered_as_booleans():
    two = json.dumps({"instances": [["male", None, True]] * 2}).encode()
    assert (
        row_format_reply(two, Recorder(PEOPLE, []), V1).body == b'{"predictions": [false, true]}\n'
    )
    asked_for = invocation_reply(two, Recorder(PEOPLE, []), accept="text/csv")
    assert asked_for.body == b"false\ntrue\n"


def test_a_predicted_number_is_answered_as_a_number():
    house = Contract(PEOPLE.features, (), (), PEOPLE.example, unit="EUR")
    body = json.dumps({"instances": [["male", 1, True]]}).encode()
    assert row_format_reply(body, Recorder(house, []), V1).body == b'{"predictions": [0.5]}\n'
    reply = invocation_reply(body, Recorder(house, []), accept="text/csv")
    assert reply.body == b"0.5\n"
