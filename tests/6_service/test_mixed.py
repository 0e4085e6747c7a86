"""What /predict says of rows with categories, booleans and gaps, and of numbers it predicts."""

import json
from dataclasses import dataclass

import msgspec
import pytest
from mixed import Recorder

from iris_serve.data.contract import Contract, Feature
from iris_serve.service.bodies import Limits, csv_text, is_header, read_csv
from iris_serve.service.errors import BodyError
from iris_serve.service.predict import predict_reply

PORT = Feature("port", "", 0, 2, "category", ("C", "Q", "S"), missing=True, unknown="missing")
PEOPLE = Contract(
    features=(
        Feature("sex", "", 0, 1, "category", ("female", "male")),
        Feature("age", "years", 0, 80, missing=True),
        Feature("adult", "", 0, 1, "boolean", (False, True)),
        PORT,
    ),
    classes=(False, True),
    labels=("died", "survived"),
    example=("male", 29.0, True, "S"),
    marks=("NA", "?"),
)
HOUSE = msgspec.structs.replace(PEOPLE, classes=(), labels=(), unit="EUR")
ROW = ["male", None, True, "S"]


@dataclass(frozen=True)
class WithSpread(Recorder):
    """A predictor that knows how far its trees disagree."""

    def spread(self, rows):
        return [0.25 for _ in rows]


def ask(features, contract=PEOPLE, query="", kind=Recorder, **more):
    """The status and the content of the reply to `features`."""
    body = json.dumps({"features": features, **more}).encode()
    reply = predict_reply(body, kind(contract, []), query=query)
    return reply.status, json.loads(reply.body)


def test_a_number_has_a_unit_a_spread_and_notes_and_no_label():
    detailed = {"prediction": 0.5, "unit": "EUR", "spread": 0.25, "notes": []}
    named = {"model": "mixed", "version": "1"}
    assert ask(ROW, HOUSE, "detail=true", WithSpread) == (200, detailed | named)
    assert ask(ROW, HOUSE, kind=WithSpread) == (200, {"prediction": 0.5})
    status, many = ask([ROW, ROW], HOUSE, kind=WithSpread, detail=True)
    assert (status, many["predictions"][0]) == (200, detailed)


def test_a_predictor_without_a_spread_says_none():
    status, detailed = ask(ROW, HOUSE, "detail=true")
    assert (status, "spread" in detailed) == (200, False)
    assert list(detailed) == ["prediction", "unit", "notes", "model", "version"]


def test_boolean_classes_are_answered_as_booleans_with_their_labels():
    assert ask(ROW) == (200, {"prediction": False})
    _, detailed = ask([ROW, ROW], query="detail=true")
    assert [(d["prediction"], d["label"]) for d in detailed["predictions"]] == [
        (False, "died"),
        (True, "survived"),
    ]


@pytest.mark.parametrize(
    "row", [["male", 99, True, "X"], {"sex": "male", "age": 99, "adult": True, "port": "X"}]
)
def test_an_unknown_category_that_counts_as_missing_is_noted(row):
    status, detailed = ask(row, query="detail=true")
    assert status == 200
    assert [(note["field"], note["detail"]) for note in detailed["notes"]] == [
        ("age", "99 is above 80, the highest value seen in training"),
        ("port", "X was not seen in training and counts as missing"),
    ]


def test_an_unknown_category_in_csv_is_noted_on_its_row():
    body = b"male,29,true,S\nmale,29,true,X\n"
    reply = predict_reply(body, Recorder(PEOPLE, []), "text/csv", "detail=true")
    (none, one) = (detail["notes"] for detail in json.loads(reply.body)["predictions"])
    assert none == []
    assert [note["pointer"] for note in one] == ["#/1/3"]


def test_a_gap_or_a_known_category_is_not_noted():
    status, detailed = ask(["male", None, True, None], query="detail=true")
    assert (status, detailed["notes"]) == (200, [])


def test_all_mistakes_come_at_once_and_the_example_keeps_what_was_right():
    row = {"sex": "mael", "age": 44.0, "adult": 1, "port": None}
    status, problem = ask(row)
    assert status == 400
    details = {error["field"]: error["detail"] for error in problem["errors"]}
    assert list(details) == ["sex", "adult"]
    assert '(female, male), got the string "mael"; did you mean male?' in details["sex"]
    assert details["adult"] == "must be true or false, got 1"
    right = {"sex": "male", "age": 44.0, "adult": True, "port": None}
    assert problem["example"] == {"features": right}
    assert "a list of 4 values (sex, age, adult, port)" in problem["expected"]


def test_a_refused_table_is_shown_right_with_the_spellings_of_csv():
    body = b"sex,age,adult,port\nmael,?,TRUE,Q\n"
    reply = predict_reply(body, Recorder(PEOPLE, []), "text/csv")
    problem = json.loads(reply.body)
    assert problem["errors"][0]["line"] == 2
    assert problem["example"] == "sex,age,adult,port\nmale,,true,Q\n"
    assert problem["expected"].startswith("on each line 4 values (sex, age, adult, port)")
    again = predict_reply(problem["example"].encode(), Recorder(PEOPLE, []), "text/csv")
    assert again.status == 200


def test_a_row_of_the_wrong_length_is_told_how_many_values_it_needs():
    assert "must hold 4 values (sex, age, adult, port), got 1" in ask(["male"])[1]["detail"]
    body = b"male,29\n"
    refused = json.loads(predict_reply(body, Recorder(PEOPLE, []), "text/csv").body)
    assert "line 1: must hold 4 values" in refused["detail"]


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("port,adult,age,sex", True),
        (" sex , age,adult,port ", True),
        ("sex,age,adult,prot", True),
        ("male,NA,true,S", False),
        ("male,,,", False),
        (",29,,", False),
        ("m,thirty,true,S", False),
        ("m,thirty,perhaps,X", True),
        ("NA,NA,NA,NA", True),
    ],
)
def test_the_first_line_is_taken_for_names_unless_it_holds_a_value(first, header):
    assert is_header(first.split(","), PEOPLE) == header


def test_a_row_that_is_spelled_like_the_names_is_the_line_of_names():
    odd = Contract(
        features=(Feature("male", "", 0, 1, "category", ("female", "male")),),
        classes=(0, 1),
        labels=("", ""),
        example=("male",),
    )
    assert read_csv(b"male\nmale\n", odd, Limits()) == ([["male"]], [2])


def test_names_with_blanks_are_read_as_they_are_spelled():
    spaced = Contract(
        (Feature(" a", "", 0, 1), Feature("a", "", 0, 1)), (0, 1), ("", ""), (1.0, 2.0)
    )
    assert read_csv(b"a, a\n1,2\n", spaced, Limits()) == ([[2.0, 1.0]], [2])
    with pytest.raises(BodyError, match="appears more than once"):
        read_csv(b"a,a\n1,2\n", spaced, Limits())


def test_texts_survive_csv_with_commas_quotes_breaks_and_blanks():
    names = tuple(sorted(["a,b", 'say "x"', "two\nlines", " <=50K", "", "NA", "é", "a\rb"]))
    text = Feature("text", "", 0, 7, "category", names, missing=True)
    contract = Contract((text,), (0, 1), ("", ""), ("a,b",), marks=("NA",))
    body = csv_text([["text"], *([name] for name in names)]).encode()
    found, lines = read_csv(body, contract, Limits())
    assert [row[0] for row in found] == list(names)
    assert lines[0] == 2


def test_quotes_do_not_matter_in_csv():
    body = b'"sex","age","adult","port"\n"male","29","TRUE","S"\n'
    assert read_csv(body, PEOPLE, Limits())[0] == [["male", 29.0, True, "S"]]


def test_ten_thousand_misspelled_rows_are_answered_with_a_hundred_issues():
    status, problem = ask([["mael", 29, True, "S"]] * 10_000)
    assert (status, len(problem["errors"])) == (400, 100)
