"""What a client meets: right answers, and errors that teach."""

import json
import pickle
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import joblib
import numpy as np
import pytest
from bad_bodies import BAD, EXAMPLE, GOOD
from cost import least_cost
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings
from iris_serve.data.contract import Contract, Feature
from iris_serve.data.rows import check_row, row_issues
from iris_serve.data.table import iris
from iris_serve.model.load import EstimatorPredictor
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.service.app import create_app
from iris_serve.service.bodies import read_json
from iris_serve.service.envelope import read_envelope
from iris_serve.service.errors import BodyError
from iris_serve.service.predict import tutorial_row
from iris_serve.testing import Ruler


@pytest.fixture(scope="module")
def client(trained):
    return create_app(open_predictor(Registry(trained))).test_client()


PROBLEM = {"type", "title", "status", "detail", "expected", "example"}


def first_row(example):
    features = example["features"]
    many = isinstance(features, list) and isinstance(features[0], (list, dict))
    return features[0] if many else features


def assert_teaches(answer, status, words=""):
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/problem+json"
    told = json.loads(answer.data)
    assert told["status"] == status
    assert set(told) - {"errors", "more"} == PROBLEM
    assert words in told["detail"]
    if isinstance(told["example"], dict):
        check_row(first_row(told["example"]), iris().contract)
    assert len(answer.data) < 20_000
    for leak in (b"Traceback", b"site-packages", b"/tmp", b"/home", b".py"):
        assert leak not in answer.data


def test_the_example_is_answered_exactly(client):
    assert client.post("/predict", data=GOOD).data == b'{"prediction": 1}'


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "application/octet-stream", "text/plain", "a/b", None],
)
def test_a_body_is_json_whatever_its_content_type_says(client, kind):
    assert client.post("/predict", data=GOOD, content_type=kind).data == b'{"prediction": 1}'


def test_integers_are_numbers(client):
    assert client.post("/predict", data=b'{"features": [6, 3, 5, 1]}').status_code == 200


def test_every_flower_is_answered_as_scikit_learn_answers_it(client, trained):
    estimator = joblib.load(trained / "iris" / "1" / "iris_model.pkl")
    rows = iris().X
    asked = [client.post("/predict", json={"features": row}).json for row in rows.tolist()]
    assert [answer["prediction"] for answer in asked] == estimator.predict(rows).tolist()


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_body_is_a_400_that_names_what_is_wrong(client, name):
    body, words = BAD[name]
    assert_teaches(client.post("/predict", data=body), 400, words)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/predict"), ("PUT", "/predict"), ("DELETE", "/"), ("POST", "/")]
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(client, method, path):
    answer = client.open(path, method=method)
    assert_teaches(answer, 405)
    assert answer.headers["Allow"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=9), inner),
)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(value=JSON, wrapped=st.booleans())
def test_any_json_is_answered_or_refused_with_a_reason(client, value, wrapped):
    answer = client.post("/predict", data=json.dumps({"features": value} if wrapped else value))
    assert answer.status_code in (200, 400)
    assert set(answer.json) in ({"prediction"}, {"predictions"}, PROBLEM, PROBLEM | {"errors"})


class Broken(Ruler):
    def predict(self, rows):
        raise AttributeError("the forest in /home/me is on fire")


def test_an_unforeseen_failure_gives_nothing_away(caplog):
    answer = create_app(Broken()).test_client().post("/predict", data=GOOD)
    assert answer.status_code == 500
    assert answer.json["detail"] == "the service failed to answer; its log says why"
    assert set(answer.json) == {"type", "title", "status", "detail"}
    assert "AttributeError" in caplog.text


def test_a_stray_tutorial_model_is_never_opened(models, tmp_path, trap):
    (tmp_path / "iris_model.pkl").write_bytes(pickle.dumps(trap))
    app = make_app(Settings(models=str(models)))
    assert app.test_client().post("/predict", data=GOOD).json == {"prediction": 1}
    assert not (tmp_path / "the-trap-has-run").exists()


def test_the_status_says_which_model_answers(client):
    status = client.get("/").json
    assert (status["status"], status["model"], status["version"]) == ("ok", "iris", "1")
    assert status["example"] == EXAMPLE


def test_the_limit_of_a_number_is_where_float32_overflows(client):
    largest = float(np.nextafter(3.4028235677973366e38, 0))
    answers = [
        client.post("/predict", json={"features": [x, 1, 1, 1]}) for x in (largest, -largest)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    "path",
    [
        *("/nowhere", "/predict/", "/predict//", "/predict\0", "/predict%00", "/PREDICT", "/a//b"),
        *("/static/", "/static/x", "/../etc/passwd", "/..%2fetc/passwd", "/\udcff"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_404_with_the_routes_and_never_a_redirect(client, method, path):
    raw = path.encode("utf-8", "surrogateescape").decode("latin-1")
    answer = client.open("/", method=method, environ_overrides={"PATH_INFO": raw})
    assert_teaches(answer, 404, "POST /predict")


def test_a_websocket_is_refused_with_a_400(client):
    answer = client.get("/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert_teaches(answer, 400, "WebSockets are not supported")


@pytest.mark.parametrize("body", [b'{"a', b'{"a\n": 1}', b'{"features": ["x\ty"]}'])
def test_the_place_of_a_syntax_error_reads_as_a_sentence(client, body):
    answer = client.post("/predict", data=body)
    assert_teaches(answer, 400, " at line 1, column ")
    assert "at at" not in answer.json["detail"]


def test_no_refusal_names_a_path_of_this_machine(client, tmp_path):
    places = [str(tmp_path), str(Path.cwd()), sys.prefix, str(Path.home()), "site-packages"]
    for body, _ in BAD.values():
        text = client.post("/predict", data=body).get_data(as_text=True)
        assert [place for place in places if place in text] == []


@settings(max_examples=200, deadline=None, print_blob=True)
@given(
    values=st.lists(st.floats(-1e38, 1e38) | st.integers(-(10**9), 10**9), min_size=4, max_size=4)
)
def test_any_four_numbers_are_answered_with_one_of_the_classes(client, values):
    answer = client.post("/predict", json={"features": values})
    assert answer.status_code == 200
    assert answer.json["prediction"] in iris().contract.classes


ROWS = [[6.1, 2.8, 4.7, 1.2], [5.0, 3.4, 1.5, 0.2], [7.2, 3.0, 5.8, 1.6]]
NAMES = iris().contract.names
NAMED = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
LINES = "".join(f"{','.join(map(str, row))}\n" for row in ROWS)
MANY = {
    "lists": (json.dumps({"features": ROWS}), None),
    "objects": (json.dumps({"features": NAMED}), None),
    "a list and objects": (json.dumps({"features": [ROWS[0], *NAMED[1:]]}), None),
    "NDJSON lists": ("\n".join(map(json.dumps, ROWS)), "application/x-ndjson"),
    "NDJSON objects": ("\r\n".join(map(json.dumps, NAMED)) + "\n\n", "application/jsonl"),
    "CSV": (LINES, "text/csv"),
    "CSV with names": (",".join(NAMES) + "\n" + LINES, "text/csv; charset=utf-8"),
    "CSV with a mark": ("\ufeff" + ",".join(NAMES) + "\r\n" + LINES, "TEXT/CSV"),
    "CSV in another order": (
        ",".join(NAMES[::-1]) + "\n" + "\n".join(",".join(map(str, r[::-1])) for r in ROWS),
        "text/csv",
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_many_rows_get_the_same_answer_however_they_are_written(client, name):
    body, kind = MANY[name]
    answer = client.post("/predict", data=body.encode(), content_type=kind)
    assert answer.json == {"predictions": [1, 0, 2]}, answer.data


def test_details_are_given_on_request(client, trained):
    estimator = joblib.load(trained / "iris" / "1" / "iris_model.pkl")
    for question in (
        {"path": "/predict?detail=true", "json": {"features": ROWS[0]}},
        {"path": "/predict", "json": {"features": ROWS[0], "detail": True}},
    ):
        answer = client.post(**question).json
        sure = estimator.predict_proba([ROWS[0]])[0].tolist()
        assert answer == {
            "prediction": 1,
            "label": "versicolor",
            "probabilities": dict(zip(["setosa", "versicolor", "virginica"], sure, strict=True)),
            "notes": [],
            "model": "iris",
            "version": "1",
        }


def test_a_value_outside_the_observed_range_gets_a_note_with_its_place(client):
    rows = [ROWS[0], [6.1, 2.8, 4.7, -9999]]
    told = client.post("/predict?detail=true", json={"features": rows}).json["predictions"]
    assert told[0]["notes"] == []
    assert [(n["pointer"], n["field"]) for n in told[1]["notes"]] == [
        ("#/features/1/3", "petal_width")
    ]
    assert "-9999 is below 0.1" in told[1]["notes"][0]["detail"]


@pytest.mark.parametrize(
    "query", ["detail=1", "detail=", "details=true", "detail=true&detail=true"]
)
def test_an_unknown_query_parameter_or_value_is_a_400(client, query):
    assert_teaches(client.post(f"/predict?{query}", data=GOOD), 400, "detail")


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("application/json", '{"features": [6.1, 2.8, 47, 1.2]}', "#/features/2"),
        ("application/json", '{"features": [[6.1, 2.8, 47, 1.2]]}', "#/features/0/2"),
        ("text/csv", "6.1,2.8,47,1.2\n", "#/0/2"),
        ("application/x-ndjson", "[6.1, 2.8, 47, 1.2]\n", "#/0/2"),
    ],
)
def test_a_note_points_to_where_an_error_about_the_value_would(client, kind, body, place):
    told = client.post("/predict?detail=true", data=body, content_type=kind).json
    notes = told["predictions"][0]["notes"] if "predictions" in told else told["notes"]
    assert [note["pointer"] for note in notes] == [place]
    wrong = client.post("/predict", data=body.replace("47", "4e40"), content_type=kind).json
    assert [error["pointer"] for error in wrong["errors"]] == [place]


def test_all_issues_come_at_once_each_with_its_pointer(client):
    body = b'{"features": [[6.1, "x", 4.7, NaN], {"petal_lenght": true}], "detial": true}'
    answer = client.post("/predict", data=body)
    assert_teaches(answer, 400)
    assert [error["pointer"] for error in answer.json["errors"]] == [
        "#/detial",
        "#/features/0/1",
        "#/features/0/3",
        "#/features/1/petal_lenght",
        "#/features/1/sepal_length",
        "#/features/1/sepal_width",
        "#/features/1/petal_length",
        "#/features/1/petal_width",
    ]


def test_a_pointer_is_a_uri_fragment_that_leads_to_the_value_whatever_its_name_is():
    names = ["Länge (cm)", '"a", b', "c/d~e", "50%25", "#?"]
    features = tuple(Feature(name, "", 0, 9) for name in names)
    contract = replace(iris().contract, features=features, example=(1.0,) * 5)
    client = create_app(Echo(contract)).test_client()
    body = {"features": [{name: f"wrong {name}" for name in names}]}
    for error in client.post("/predict", json=body).json["errors"]:
        allowed = r"#(/([\w.~!$&'()*+,;=:@?-]|%[0-9A-F]{2})+)+"
        assert re.fullmatch(allowed, error["pointer"], re.ASCII)
        found = body
        for step in unquote(error["pointer"][1:]).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        assert found == f"wrong {error['field']}"


def test_an_issue_with_a_row_of_a_table_names_its_line(client):
    table = ",".join(NAMES) + "\n6.1,2.8,4.7,1.2\n\n6.1,2.8,many,1.2\n6.1,2.8\n"
    answer = client.post("/predict", data=table, content_type="text/csv")
    assert_teaches(answer, 400, "line 4: [2] (petal_length): must be a number")
    assert [error["line"] for error in answer.json["errors"]] == [4, 5]
    assert [error["pointer"] for error in answer.json["errors"]] == ["#/1/2", "#/2"]


def test_wrong_column_names_are_refused_with_the_line_they_are_on(client):
    table = "\n\n" + ",".join(NAMES).replace("sepal_width", "sepal_widht") + "\n6.1,2.8,4.7,1.2\n"
    answer = client.post("/predict", data=table, content_type="text/csv")
    assert_teaches(answer, 400, "line 3: sepal_widht: unknown name; did you mean sepal_width?")
    assert {error["line"] for error in answer.json["errors"]} == {3}


EMPTY = [("text/csv", ""), ("text/csv", ",".join(NAMES) + "\n"), ("application/x-ndjson", "\n \n")]


@pytest.mark.parametrize(("kind", "body"), EMPTY)
def test_a_table_without_a_row_is_refused_without_talk_of_an_envelope(client, kind, body):
    answer = client.post("/predict", data=body, content_type=kind)
    assert_teaches(answer, 400, "the body holds no row; at least one is needed")
    assert "errors" not in answer.json


def test_a_column_of_row_numbers_is_found_by_its_empty_name(client):
    table = "," + ",".join(NAMES) + "\n0,6.1,2.8,4.7,1.2\n"
    assert_teaches(client.post("/predict", data=table, content_type="text/csv"), 400, "empty name")


@pytest.mark.parametrize("body", [b"6", b'{"features": 6.1}', b'{"features": [1], "detail": 1}'])
def test_a_number_in_the_wrong_place_is_called_a_number(client, body):
    assert_teaches(client.post("/predict", data=body), 400, "got a number")


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson"])
def test_the_example_for_a_table_is_a_valid_table(client, kind):
    wrong = {"text/csv": "6.1,2.8,many,1.2\n", "application/x-ndjson": "[6.1, 2.8, null, 1.2]"}
    example = client.post("/predict", data=wrong[kind], content_type=kind).json["example"]
    answer = client.post("/predict", data=example, content_type=kind)
    assert answer.json == {"predictions": [1]}


def test_the_example_is_the_first_invalid_row_corrected(client):
    answer = client.post("/predict", json={"features": [ROWS[0], ROWS[1], [7.2, None, 5.8, 1.6]]})
    assert answer.json["example"] == {"features": [[7.2, 2.8, 5.8, 1.6]]}


@pytest.mark.parametrize(
    "body",
    [
        b"1" * 100_000 + b"x",
        b"1" * 131_000 + b",1,1,1\n",
        (b"1" * 999 + b"x,") * 1000,
        b'"' * 100_000,
        b"a," * 400_000,
        b"," * 1_000_000,
        b"\n" * 1_000_000,
    ],
)
def test_no_table_keeps_a_worker_busy(client, body):
    cost, answer = least_cost(
        lambda: client.post("/predict", data=body, content_type="text/csv"), tries=1
    )
    assert cost < 5  # a quadratic reading takes minutes
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/predict", "/models/iris/versions/1/predict", "/invocations"])
def test_a_first_line_of_a_million_cells_is_refused_without_a_look_at_each(trained, path):
    app = make_app(Settings(models=str(trained), access_log="off"))
    app.extensions["live"].stop()
    client = app.test_client()
    body = b"," * 1_000_000
    cost, answer = least_cost(lambda: client.post(path, data=body, content_type="text/csv"))
    assert cost < 0.4
    assert answer.status_code == 400
    assert "must hold 4 numbers" in answer.text
    assert "got 1000001" in answer.text


def test_a_table_whose_columns_are_numbers_needs_its_names():
    contract = replace(iris().contract, features=tuple(Feature(n, "", 0, 9) for n in "0123"))
    client = create_app(Echo(contract)).test_client()
    rows = "4,3,2,1\n"
    assert client.post("/predict", data=rows, content_type="text/csv").status_code == 400
    answer = client.post("/predict", data="3,2,1,0\n" + rows, content_type="text/csv")
    assert answer.json == {"predictions": ["1.0 2.0 3.0 4.0"]}


def test_an_empty_cell_in_quotes_is_a_row_and_never_skipped():
    contract = replace(iris().contract, features=(Feature("length", "", 0, 9),), example=(1.0,))
    client = create_app(Echo(contract)).test_client()
    answer = client.post("/predict", data='length\n1\n""\n2\n', content_type="text/csv")
    assert answer.status_code == 400
    assert 'line 3: [0] (length): must be a number, got the string ""' in answer.json["detail"]


def test_a_first_line_with_a_number_in_it_is_a_row_with_mistakes(client):
    for first in ("nan,1,1,1", ",1,1,1", "0x10,1,1,1"):
        answer = client.post("/predict", data=first + "\n", content_type="text/csv")
        assert_teaches(answer, 400, "line 1: [0] (sepal_length): must be a number")


def test_a_row_to_which_the_estimator_has_no_answer_is_a_400(models):
    rows, kinds = np.abs(iris().X) + 1, iris().y
    estimator = make_pipeline(PowerTransformer("box-cox"), LogisticRegression()).fit(rows, kinds)
    predictor = EstimatorPredictor(estimator, "boxed", 1, iris().contract, "")
    client = create_app(predictor).test_client()
    assert client.post("/predict", data=GOOD).status_code == 200
    answer = client.post("/predict", json={"features": [-5, 1, 1, 1]})
    assert_teaches(answer, 400, "the model has no answer to this row (ValueError)")


class Fussy:
    """An estimator of your own, which asserts that each flower is longer than nothing."""

    def predict(self, rows):
        if (rows[:, 0] <= 0).any():
            raise AssertionError(f"a flower of\n{rows[:, 0].min()} cm")
        return np.ones(len(rows), int)


def test_a_row_that_an_estimator_fails_on_is_a_400_that_is_logged(caplog):
    predictor = EstimatorPredictor(Fussy(), "iris", 1, iris().contract, "")
    client = create_app(predictor).test_client()
    rows = [[5, 1, 1, 1], [-5, 1, 1, 1]]
    answer = client.post("/predict", json={"features": rows})
    words = "no answer to these rows (AssertionError); the first is row 1, counted from 0"
    assert_teaches(answer, 400, words)
    assert b"a flower" not in answer.data
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("no answer to POST /predict: the model has")
    assert record.getMessage().endswith("AssertionError: a flower of -5.0 cm")


@dataclass(frozen=True)
class Echo:
    """A predictor that answers with the row itself."""

    contract: Contract
    name: str = "iris"
    version: int = 1
    has_proba: bool = False

    def predict(self, rows):
        return [" ".join(map(str, row)) for row in rows]


def test_of_a_thousand_issues_a_hundred_are_listed_and_the_others_counted(client):
    answer = client.post("/predict", json={"features": [[None] * 4] * 500})
    assert answer.status_code == 400
    assert len(answer.json["errors"]) == 100
    assert len(answer.data) < 20_000


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson", "application/json", None])
@settings(max_examples=300, deadline=None, print_blob=True)
@given(body=st.binary(max_size=200))
def test_no_bytes_of_any_kind_are_a_5xx(client, kind, body):
    possible = (400,) if kind in ("application/json", None) else (200, 400)
    assert client.post("/predict", data=body, content_type=kind).status_code in possible


NUMBERS = (
    st.floats()
    | st.integers()
    | st.sampled_from(
        ["1E5", "-0", "1e400", "0x1", "01", "NaN", "null", "true", '"1"', '"\\ud800"']
    )
)


@settings(max_examples=500, deadline=None, print_blob=True)
@given(
    values=st.lists(NUMBERS, min_size=3, max_size=5),
    name=st.sampled_from(["features", "featur\\u0065s", "feature"]),
    space=st.sampled_from(["", " ", "\n\t", "\ufeff"]),
)
def test_the_quick_reading_of_a_row_says_what_the_careful_one_says(values, name, space):
    contract = iris().contract
    body = f'{space}{{"{name}":{space}[{",".join(map(str, values))}]{space}}}'.encode()
    try:
        features = read_envelope(read_json(body)).features
        issues = row_issues(features, contract)
    except BodyError:
        features, issues = None, ["it cannot be read"]
    quick = tutorial_row(body, contract)
    assert quick is None or quick.features == features
    assert quick is None or quick.valid == (not issues)
    assert quick is not None or issues or space == "\ufeff"


@settings(max_examples=500, deadline=None, print_blob=True)
@given(value=st.floats(-3.4e38, 3.4e38), digits=st.integers(1, 25), form=st.sampled_from("efg"))
def test_a_number_is_the_same_float_however_it_is_written(value, digits, form):
    text = f"{value:.{digits}{form}}"
    body = f'{{"features": [{text}, 1, 1, 1]}}'.encode()
    (quick, *_) = tutorial_row(body, iris().contract).features
    assert (quick + 0.0).hex() == (float(text) + 0.0).hex()  # no sign of zero


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data", [[6.1, 2.8, 4.7, 1.2]], "data: unknown name; did you mean features?"),
        ("X", [6.1, 2.8, 4.7, 1.2], "X: unknown name; did you mean features?"),
        ("instances", [[6.1, 2.8]], "is read by POST /v1/models/{name}:predict and POST /invoc"),
        ("inputs", [[6.1, 2.8]], "is read by POST /v1/models/{name}:predict and POST /invoc"),
        ("inputs", {"sepal_length": [6.1]}, "is read by POST /v1/models/{name}:predict and"),
        ("inputs", [{"name": "a", "shape": [1], "data": [1]}], "POST /v2/models/{name}/infer"),
        ("inputs", [], "is read by POST /v1/models/{name}:predict and POST /invocations"),
        ("dataframe_split", {}, "dataframe_split is read by POST /invocations"),
    ],
)
def test_rows_under_the_key_of_another_server_are_told_the_key_or_the_route(
    client, key, value, words
):
    answer = client.post("/predict", json={key: value})
    assert_teaches(answer, 400, words)
    assert "features" in answer.json["detail"]
    assert "did you mean detail" not in answer.json["detail"]


def test_a_misspelt_key_gets_the_suggestion_that_it_always_got(client):
    assert_teaches(client.post("/predict", json={"feature": []}), 400, "did you mean features?")
    answer = client.post("/predict", json={"features": [6.1, 2.8, 4.7, 1.2], "details": True})
    assert_teaches(answer, 400, "details: unknown name; did you mean detail?")


NAMED = {"sepal_length": 6.1, "sepal_width": 2.8, "petal_length": 4.7, "petal_width": 1.2}
NO_ENVELOPE = 'the body must be an object with the key "features", got '


@pytest.mark.parametrize(
    ("body", "got", "shown"),
    [
        (NAMED, "a row; put it under that key", NAMED),
        (NAMED | {"detail": True}, "a row; put it under that key", NAMED),
        (NAMED | {"sepal_width": "2,8"}, "a row; put it under that key", NAMED),
        ([NAMED], "a list of 1; put it under that key", [NAMED]),
        ([[6.1, 2.8, 4.7, 1.2]] * 2, "a list of 2; put it", [[6.1, 2.8, 4.7, 1.2]]),
        ([6.1, 2.8, 4.7, None], "a list of 4; put it", [6.1, 2.8, 4.7, 1.2]),
    ],
)
def test_rows_without_an_envelope_are_shown_in_theirs(client, body, got, shown):
    answer = client.post("/predict", json=body)
    assert_teaches(answer, 400, NO_ENVELOPE + got)
    assert answer.json["example"] == {"features": shown}


SPLIT = {"columns": list(NAMED), "index": [0], "data": [[6.1, 2.8, 4.7, 1.2]]}


@pytest.mark.parametrize(
    "table",
    [
        SPLIT,
        {"schema": {"fields": []}, "data": [NAMED]},
        {name: [value] for name, value in NAMED.items()},
        {name: {"0": value} for name, value in NAMED.items()},
    ],
)
@pytest.mark.parametrize("key", [None, "features"])
def test_a_table_of_pandas_is_told_how_a_data_frame_is_sent(client, table, key):
    answer = client.post("/predict", json={key: table} if key else table)
    assert_teaches(answer, 400, 'a data frame df is sent as {"features": df.to_dict("records")}')
    assert [each["pointer"] for each in answer.json["errors"]] == [f"#/{key}" if key else "#"]


def test_json_that_was_made_json_twice_is_told_so(client):
    answer = client.post("/predict", json=GOOD.decode())
    assert_teaches(answer, 400, "it is JSON in a string: with requests, write json=…")


@pytest.mark.parametrize(("value", "detailed"), [("True", True), ("TRUE", True), ("False", False)])
def test_details_are_asked_for_as_clients_of_python_write_it(client, value, detailed):
    answer = client.post(f"/predict?detail={value}", data=GOOD)
    assert answer.status_code == 200
    assert ("notes" in answer.json) == detailed
