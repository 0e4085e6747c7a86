"""What a client meets: right answers, and errors that teach."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_bodies import BAD, EXAMPLE, GOOD
from hypothesis import given, settings
from hypothesis import strategies as st

from iris_serve.app import MAX_BODY, create_app
from iris_serve.artifact import load
from iris_serve.data import iris
from iris_serve.predictor import open_predictor
from iris_serve.registry import Registry
from iris_serve.server import make_app
from iris_serve.settings import Settings


@pytest.fixture(scope="module")
def client(trained):
    return create_app(open_predictor(Registry(trained))).test_client()


def assert_teaches(answer, status, words=""):
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/json"
    assert answer.json["example"] == EXAMPLE
    assert words in answer.json["error"]
    assert len(answer.data) < 2000
    for leak in (b"Traceback", b"site-packages", b"/tmp", b"/home", b".py"):
        assert leak not in answer.data


def test_the_example_is_answered_exactly(client):
    assert client.post("/predict", data=GOOD).data == b'{"prediction": 1}'


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "a/b", None]
)
def test_a_body_is_json_whatever_its_content_type_says(client, kind):
    assert client.post("/predict", data=GOOD, content_type=kind).data == b'{"prediction": 1}'


def test_integers_are_numbers(client):
    assert client.post("/predict", data=b'{"features": [6, 3, 5, 1]}').status_code == 200


def test_every_flower_is_answered_as_scikit_learn_answers_it(client, trained):
    estimator, _ = load(trained / "iris" / "1")
    rows = iris().X
    asked = [client.post("/predict", json={"features": row}).json for row in rows.tolist()]
    assert [answer["prediction"] for answer in asked] == estimator.predict(rows).tolist()


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_body_is_a_400_that_names_what_is_wrong(client, name):
    body, words = BAD[name]
    assert_teaches(client.post("/predict", data=body), 400, words)


def test_a_body_over_the_limit_is_a_413(client):
    assert_teaches(client.post("/predict", data=b" " * (MAX_BODY + 1)), 413)
    assert client.post("/predict", data=GOOD + b" " * (MAX_BODY - len(GOOD))).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/predict/", "/static/x", "/../etc/passwd", "/predict%00", "/a//b"],
)
def test_an_unknown_path_is_a_404(client, path):
    assert_teaches(client.get(path), 404, "POST /predict")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/predict"), ("PUT", "/predict"), ("DELETE", "/"), ("POST", "/")]
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(client, method, path):
    answer = client.open(path, method=method)
    assert_teaches(answer, 405)
    assert answer.headers["Allow"]


@settings(max_examples=300, deadline=None, print_blob=True)
@given(body=st.binary(max_size=200))
def test_no_bytes_whatsoever_are_a_5xx(client, body):
    assert client.post("/predict", data=body).status_code == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=9), inner),
)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(value=JSON, wrapped=st.booleans())
def test_any_json_is_answered_or_refused_with_a_reason(client, value, wrapped):
    answer = client.post("/predict", data=json.dumps({"features": value} if wrapped else value))
    assert answer.status_code in (200, 400)
    assert set(answer.json) in ({"prediction"}, {"error", "example"})


def test_an_unforeseen_failure_tells_nothing_about_the_inside(trained, caplog):
    predictor = open_predictor(Registry(trained))
    predictor.forest = None
    answer = create_app(predictor).test_client().post("/predict", data=GOOD)
    assert answer.status_code == 500
    assert answer.json == {"error": "the service failed to answer; its log says why"}
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
    "path", ["/predict//", "/PREDICT", "/static/", "/..%2fetc/passwd", "/\udcff"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_nearly_right_is_a_404_and_no_redirect(client, method, path):
    raw = path.encode("utf-8", "surrogateescape").decode("latin-1")
    answer = client.open("/", method=method, environ_overrides={"PATH_INFO": raw})
    assert_teaches(answer, 404, "POST /predict")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_wrong_method_on_predict_is_a_405_that_allows_post(client, method):
    answer = client.open("/predict", method=method)
    assert_teaches(answer, 405)
    assert "POST" in answer.headers["Allow"].split(", ")


def test_a_length_over_the_limit_is_a_413_before_the_body_comes(client):
    declared = {"CONTENT_LENGTH": str(MAX_BODY + 2)}
    answer = client.post("/predict", data=b"", environ_overrides=declared)
    assert_teaches(answer, 413, f"{MAX_BODY} bytes")


@pytest.mark.parametrize("body", [b'{"a', b'{"a\n": 1}', b'{"features": ["x\ty"]}'])
def test_the_place_of_a_mistake_reads_as_a_sentence(client, body):
    answer = client.post("/predict", data=body)
    assert_teaches(answer, 400, " at line 1, column ")
    assert "at at" not in answer.json["error"]


def test_every_refusal_names_nothing_of_this_machine(client, tmp_path):
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
