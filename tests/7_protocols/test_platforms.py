"""The routes of other platforms: their row formats, their paths, and what we refuse."""

import csv
import http.client
import json
import os
import pickle
import signal

import joblib
import pytest
from cost import least_cost
from hypothesis import given, settings
from hypothesis import strategies as st
from services import Service, free_port

from iris_serve.data.table import iris
from iris_serve.model.save import MODEL_FILE
from iris_serve.openapi.routes import OPERATIONS
from iris_serve.protocols.platforms import (
    Platform,
    PlatformError,
    csv_reply,
    make_platforms,
    read_platform,
)
from iris_serve.protocols.v2 import make_v2
from iris_serve.registry.registry import Registry
from iris_serve.service.access import Policy
from iris_serve.service.app import create_app
from iris_serve.service.errors import json_reply
from iris_serve.service.keys import make_key, read_keys
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions
from iris_serve.testing import Ruler

NAMES = iris().contract.names
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.1, 2.8, 4.7, 1.2], [6.3, 3.3, 6.0, 2.5]]
NAMED = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
REVERSED = {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}
CSV = "\n".join(",".join(map(str, row)) for row in ROWS)
V1 = "/v1/models/iris:predict"
VERTEX = {
    "AIP_HTTP_PORT": "8080",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/7/deployedModels/9",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/7/deployedModels/9:predict",
    "AIP_STORAGE_URI": "",
}


@pytest.fixture(scope="module")
def client(canary):
    live = LivePredictor(Registry(canary))
    live.stop()
    return create_app(live, [make_platforms(Versions(live), read_platform(VERTEX))]).test_client()


@pytest.fixture(scope="module")
def expected(canary):
    return {
        version: joblib.load(canary / "iris" / version / MODEL_FILE).predict(ROWS).tolist()
        for version in "12"
    }


def assert_refused(answer, status=400, words=""):
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/json"
    assert isinstance(answer.json["error"], str)
    assert words in answer.json["error"]
    for leak in (b"Traceback", b"site-packages", b"/tmp", b"/home", b".py"):
        assert leak not in answer.data


ROUTES = {
    "V1": (V1, ("instances", "inputs")),
    "Vertex": (VERTEX["AIP_PREDICT_ROUTE"], ("instances",)),
    "invocations": (
        "/invocations",
        ("instances", "inputs", "dataframe_split", "dataframe_records"),
    ),
}
FORMS = {
    "instances, lists": {"instances": ROWS},
    "instances, objects": {"instances": NAMED},
    "inputs, lists": {"inputs": ROWS},
    "inputs, columns": {"inputs": COLUMNS},
    "split": {"dataframe_split": {"columns": NAMES, "data": ROWS}},
    "split with index": {"dataframe_split": {"index": [0, 1, 2], "columns": NAMES, "data": ROWS}},
    "split, reversed": {"dataframe_split": REVERSED},
    "split, nameless": {"dataframe_split": {"data": ROWS}},
    "records": {"dataframe_records": NAMED},
}
PAIRS = [
    (route, form)
    for route, (_, keys) in ROUTES.items()
    for form, question in FORMS.items()
    if set(question) <= set(keys)
]


@pytest.mark.parametrize(("route", "form"), PAIRS)
def test_every_row_format_gets_the_same_predictions(client, expected, route, form):
    answer = client.post(ROUTES[route][0], json=FORMS[form])
    assert (answer.status_code, answer.json) == (200, {"predictions": expected["1"]})
    assert answer.headers["X-Model-Version"] == "1"


def test_v1_asks_the_version_in_the_path(client, expected):
    assert expected["1"] != expected["2"]
    for named, version in (("2", "2"), ("canary", "2"), ("current", "1")):
        path = f"/v1/models/iris/versions/{named}:predict"
        answer = client.post(path, json={"instances": ROWS})
        assert answer.json == {"predictions": expected[version]}
        assert answer.headers["X-Model-Version"] == version


def test_v1_says_what_is_served_to_kserve_and_to_tensorflow(client):
    assert client.get("/v1/models").json == {"models": ["iris"]}
    for path, version in (("/v1/models/iris", "1"), ("/v1/models/iris/versions/2", "2")):
        said = client.get(path).json
        assert (said["name"], said["ready"]) == ("iris", True)
        (state,) = said["model_version_status"]
        assert (state["version"], state["state"]) == (version, "AVAILABLE")
    assert_refused(client.get("/v1/models/rose"), 404)


def test_v1_ignores_the_default_signature_and_refuses_any_other(client):
    for fine in ("serving_default", "", None):
        question = {"instances": ROWS, "signature_name": fine}
        assert client.post(V1, json=question).status_code == 200
    question = {"instances": ROWS, "signature_name": "regress"}
    assert_refused(client.post(V1, json=question), 400, "signature_name: asks for something")


def test_v1_offers_no_explanations(client):
    assert_refused(
        client.post("/v1/models/iris:explain", json={"instances": ROWS}), 404, ":predict"
    )


@pytest.mark.parametrize("header", ["", ",".join(NAMES) + "\n"], ids=["bare", "with names"])
def test_csv_is_answered_with_or_without_names(client, expected, header):
    answer = client.post("/invocations", data=header + CSV, content_type="text/csv; charset=utf-8")
    assert answer.json == {"predictions": expected["1"]}


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonlines"])
@pytest.mark.parametrize("rows", [ROWS, NAMED], ids=["lists", "objects"])
def test_lines_of_json_are_answered(client, expected, kind, rows):
    body = "\n".join(json.dumps(row) for row in rows)
    assert client.post("/invocations", data=body, content_type=kind).json == {
        "predictions": expected["1"]
    }


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/csv; charset=utf-8, */*", "text/csv; charset=utf-8"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/csv", "application/json"),
        ("application/json;q=0.1, text/csv", "text/csv; charset=utf-8"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("text/csv;q=0", "application/json"),
        ("application/csv", "text/csv; charset=utf-8"),
        ("multipart/mixed", "application/json"),
        ("text/html", "application/json"),
        ("", "application/json"),
        (";;,q=x,/", "application/json"),
    ],
)
def test_answers_are_csv_only_if_the_client_prefers_it(client, expected, accept, kind):
    headers = {"Accept": accept, "Content-Type": "text/csv"}
    answer = client.post("/invocations", data=CSV, headers=headers)
    assert answer.content_type == kind
    assert answer.headers["X-Model-Version"] == "1"
    lines = "".join(f"{one}\n" for one in expected["1"])
    told = answer.text if kind.startswith("text/csv") else None
    assert (told or lines) == lines
    assert_refused(client.post("/invocations", data="1,2\n", headers=headers), 400, "line 1")


def test_a_class_that_a_spreadsheet_takes_for_a_formula_comes_back_as_it_is():
    classes = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", 'a "b", c']
    reply = json_reply(200, {"predictions": classes})._replace(answers=classes)
    written = csv_reply(reply, Ruler())
    assert [cell for (cell,) in csv.reader(written.body.decode().splitlines())] == classes
    assert dict(written.headers)["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("index", [[0], [0, 1, 2, 3], [], {}, 3, "012"])
def test_an_index_that_does_not_fit_the_rows_is_a_400(client, index):
    answer = client.post("/invocations", json={"dataframe_split": REVERSED | {"index": index}})
    assert_refused(answer, 400, "dataframe_split.index: must be a list of 3, one for each row")


@pytest.mark.parametrize("index", [None, [0, 1, 2], ["a", "b", "c"], [[0, 1]] * 3])
def test_an_index_that_fits_is_not_read(client, expected, index):
    answer = client.post("/invocations", json={"dataframe_split": REVERSED | {"index": index}})
    assert answer.json["predictions"] == expected["1"]


@pytest.mark.parametrize("path", ["/invocations", V1])
def test_columns_of_single_numbers_must_be_lists(client, path):
    answer = client.post(path, json={"inputs": dict.fromkeys(NAMES, 1.0)})
    assert_refused(answer)
    assert "must be a list of numbers, one for each row, got a number" in answer.json["error"]


@pytest.mark.parametrize(
    "question",
    [
        {"instances": [{}] * 340_000},
        {"instances": [{}] * 9_999},
        {"instances": [[None] * 4] * 9_999},
        {"instances": [[1, 2, 3, 4]] * 9_999},
        {"inputs": {name: [1] * 80_000 for name in NAMES}},
        {"inputs": {name: [None] * 9_999 for name in NAMES}},
        {"inputs": {f"sepal_{i}": [] for i in range(60_000)}},
        {"dataframe_split": {"data": [[1, None, 2, 3]] * 9_999}},
        {"dataframe_split": {"columns": [f"sepal_{i}" for i in range(60_000)], "data": []}},
        {f"instance{i}": 1 for i in range(45_000)},
    ],
    ids=lambda question: str(question)[:40],
)
def test_no_body_of_a_megabyte_costs_much(client, question):
    body = json.dumps(question, separators=(",", ":"))
    assert len(body) <= 1 << 20
    cost, answer = least_cost(lambda: client.post("/invocations", data=body))
    assert cost < 1
    assert answer.status_code in (200, 400, 413)


def test_pings_are_answered(client):
    for path in ("/ping", VERTEX["AIP_HEALTH_ROUTE"]):
        answer = client.get(path)
        assert (answer.status_code, answer.json["status"]) == (200, "ready")


WRONG = {
    "no key": ({}, "exactly one of the keys"),
    "a misspelt key": ({"instance": ROWS}, "instance: unknown name; did you mean instances?"),
    "a list": (ROWS, "the body must be an object"),
    "a scalar": ({"instances": 5.1}, "instances: must be a list of rows"),
    "one flat row": ({"instances": ROWS[0]}, "one row is written [[…]]"),
    "no rows": ({"instances": []}, "instances: holds no row"),
    "a short row": ({"instances": [ROWS[0][:3]]}, "instances[0]: must hold 4 numbers"),
    "a string": ({"instances": [[5.1, "3.5", 1.4, 0.2]]}, "instances[0][1] (sepal_width)"),
    "a boolean": ({"instances": [[5.1, True, 1.4, 0.2]]}, "got true"),
    "a null": ({"instances": [[5.1, None, 1.4, 0.2]]}, "got null"),
    "one wrong among many": ({"instances": [*ROWS, None]}, "instances[3]: must be a list"),
    "a name missing": (
        {"instances": [{"sepal_length": 1}]},
        "instances[0].sepal_width: is missing",
    ),
    "a name too many": ({"instances": [NAMED[0] | {"color": 1}]}, "color: unknown name"),
    "a wish": ({"instances": ROWS, "parameters": {"a": 1}}, "parameters: asks for something"),
}
INVOCATIONS = {
    "two keys": ({"instances": ROWS, "inputs": ROWS}, "exactly one of the keys"),
    "params": ({"inputs": ROWS, "params": {"a": 1}}, "params: asks for something"),
    "columns too short": ({"inputs": COLUMNS | {NAMES[1]: [1]}}, "must be a list of 3 numbers"),
    "a column missing": ({"inputs": {NAMES[0]: [1]}}, "inputs.sepal_width: is missing"),
    "a column unknown": ({"inputs": COLUMNS | {"color": [1]}}, "inputs.color: unknown name"),
    "a column scalar": ({"inputs": COLUMNS | {NAMES[1]: 1}}, "must be a list of 3 numbers"),
    "no column at all": (
        {"inputs": dict.fromkeys(NAMES, 1)},
        "inputs.sepal_length: must be a list of numbers, one for each row, got a number",
    ),
    "a column odd": ({"inputs": COLUMNS | {NAMES[1]: [1, None, 3]}}, "inputs.sepal_width[1]"),
    "columns empty": ({"inputs": {name: [] for name in NAMES}}, "inputs: holds no row"),
    "split a list": ({"dataframe_split": ROWS}, "dataframe_split: must be an object"),
    "split no data": ({"dataframe_split": {"columns": NAMES}}, "dataframe_split: must be"),
    "split no rows": ({"dataframe_split": {"columns": NAMES, "data": []}}, "data: holds no row"),
    "split unknown": (
        {"dataframe_split": {"columns": [*NAMES[:3], "petal_widht"], "data": ROWS}},
        "did you mean petal_width?",
    ),
    "split twice": (
        {"dataframe_split": {"columns": [*NAMES, NAMES[0]], "data": ROWS}},
        "columns.sepal_length: appears more than once",
    ),
    "split numbers": (
        {"dataframe_split": {"columns": [0, 1, 2, 3], "data": ROWS}},
        "list of names",
    ),
    "split odd": (
        {"dataframe_split": REVERSED | {"data": [[None, 1, 2, 3]]}},
        "dataframe_split.data[0][0] (petal_width): must be a number, got null",
    ),
    "split an object": (
        {"dataframe_split": {"columns": NAMES, "data": NAMED}},
        "data[0]: must be a list of 4 numbers, got an object",
    ),
    "records a scalar": ({"dataframe_records": 5}, "dataframe_records: must be a list of rows"),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_question_is_a_400_that_says_what_and_where(client, route, name):
    question, words = WRONG[name]
    assert_refused(client.post(ROUTES[route][0], json=question), 400, words)


@pytest.mark.parametrize("name", INVOCATIONS)
def test_a_wrong_table_is_a_400_that_says_what_and_where(client, name):
    question, words = INVOCATIONS[name]
    assert_refused(client.post("/invocations", json=question), 400, words)


def test_a_pointer_leads_into_the_body_that_was_sent(client):
    body = {"instances": [ROWS[0], [1, 2, 3, "x"]]}
    assert client.post(V1, json=body).json["errors"][0]["pointer"] == "#/instances/1/3"
    body = {"dataframe_split": REVERSED | {"data": [[1, 2, 3, "x"]]}}
    error = client.post("/invocations", json=body).json["errors"][0]
    assert (error["pointer"], error["field"]) == ("#/dataframe_split/data/0/3", NAMES[0])
    body = {"inputs": COLUMNS | {NAMES[2]: [1, 2, None]}}
    error = client.post("/invocations", json=body).json["errors"][0]
    assert error["pointer"] == f"#/inputs/{NAMES[2]}/2"


def test_more_rows_than_allowed_are_a_413_in_every_format(client):
    many = [1] * 10_001
    for question in (
        {"inputs": dict.fromkeys(NAMES, many)},
        {"dataframe_split": {"data": [[1, 2, 3, 4]] * 10_001}},
        {"dataframe_records": [[1, 2, 3, 4]] * 10_001},
    ):
        assert_refused(client.post("/invocations", json=question), 413, "at most 10000 are allowed")
    answer = client.post("/invocations", data="1,2,3,4\n" * 10_001, content_type="text/csv")
    assert_refused(answer, 413, "10000")


def test_a_list_of_names_as_long_as_a_body_is_refused_at_once(client):
    for names in ([NAMES[0]] * 60_000, [str(i) for i in range(100_000)]):
        question = {"dataframe_split": {"columns": names, "data": ROWS}}
        assert_refused(client.post("/invocations", json=question))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["columns", "data", *NAMES]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("examples", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_table_is_answered_or_refused_with_a_reason(client, examples):
    keys = [*ROUTES["invocations"][1], "params"]

    @settings(max_examples=examples, deadline=None, print_blob=True, database=None)
    @given(st.dictionaries(st.sampled_from(keys), JSON, min_size=1, max_size=2))
    def check(question):
        answer = client.post("/invocations", data=json.dumps(question))
        if answer.status_code != 200:
            assert_refused(answer)

    check()


# Refusals


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson"])
@pytest.mark.parametrize("body", [b"6.1,2.8,many,1.2", b""])
def test_a_refusal_of_lines_shows_lines_that_work(client, kind, body):
    answer = client.post("/invocations", data=body, content_type=kind)
    assert_refused(answer, 400)
    assert "on each line 4 numbers" in answer.json["expected"]
    again = client.post("/invocations", data=answer.json["example"], content_type=kind)
    assert len(again.json["predictions"]) == 1


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-1e400", "9" * 5000])
def test_a_number_that_is_not_finite_is_a_400(client, route, literal):
    body = json.dumps({"instances": ROWS}).replace("1.4", literal)
    assert_refused(client.post(ROUTES[route][0], data=body), 400, "instances[0][2] (petal_length)")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("body", "kind"),
    [(b'{"instances": [], "instances": []}', None), (pickle.dumps(ROWS), "text/csv")],
)
def test_a_body_that_is_not_a_question_is_refused(client, route, body, kind):
    assert_refused(client.post(ROUTES[route][0], data=body, content_type=kind), 400)


# What the platform says


def test_the_platform_says_where_to_listen_and_what_it_will_ask():
    assert read_platform({}) == read_platform({"AIP_HTTP_PORT": "", "AIP_HEALTH_ROUTE": ""})
    assert read_platform({}).port is None
    said = read_platform(VERTEX)
    assert (said.port, said.health, said.predict) == (8080, *list(VERTEX.values())[1:3])
    assert read_platform({"SAGEMAKER_BIND_TO_PORT": "8081"}).port == 8081


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIP_HTTP_PORT", "0"),
        ("AIP_HTTP_PORT", "65536"),
        ("AIP_HTTP_PORT", "\uff18\uff10"),
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("AIP_PREDICT_ROUTE", "/predict"),
        ("AIP_PREDICT_ROUTE", "/models/iris/versions/1/predict"),
        ("AIP_PREDICT_ROUTE", "/v2/models/iris/infer"),
        ("AIP_PREDICT_ROUTE", "/docs"),
        ("AIP_HEALTH_ROUTE", "/predict"),
        ("AIP_HEALTH_ROUTE", "/metrics"),
        ("AIP_HEALTH_ROUTE", "/models"),
        ("AIP_HEALTH_ROUTE", "/models/iris/versions/1/notebook"),
        ("AIP_HEALTH_ROUTE", "/v2/models/iris/infer"),
        ("AIP_HEALTH_ROUTE", "/v1/models/iris:predict"),
        ("AIP_PREDICT_ROUTE", "predict"),
        ("AIP_PREDICT_ROUTE", "/<path:everything>"),
        ("AIP_HEALTH_ROUTE", "/a b"),
        ("AIP_HEALTH_ROUTE", "//a"),
        ("AIP_HEALTH_ROUTE", "/a\n"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_at_the_start(name, value):
    with pytest.raises(PlatformError, match=name):
        read_platform({name: value}, OPERATIONS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("AIP_HEALTH_ROUTE", path) for path in ("/ping", "/healthz", "/v1/models/iris")),
        *(("AIP_PREDICT_ROUTE", path) for path in ("/invocations", "/v1/models/iris:predict")),
    ],
)
def test_a_path_that_is_answered_already_needs_no_second_route(name, value):
    assert read_platform({name: value}, OPERATIONS) == Platform()


@pytest.mark.parametrize("path", ["/invocations", "/v1/models/iris:predict", "/vertex/predict"])
def test_vertex_may_choose_any_path_that_answers_its_question(canary, expected, path):
    live = LivePredictor(Registry(canary))
    live.stop()
    environment = {"AIP_PREDICT_ROUTE": path, "AIP_HEALTH_ROUTE": "/ping"}
    client = create_app(
        live, [make_platforms(Versions(live), read_platform(environment))]
    ).test_client()
    question = {"instances": ROWS, "parameters": {}}
    assert client.post(path, json=question).json == {"predictions": expected["1"]}
    assert client.get("/ping").status_code == 200


def test_a_request_without_a_key_on_the_path_of_vertex_is_refused_in_its_form(canary):
    live = LivePredictor(Registry(canary))
    live.stop()
    platforms = make_platforms(Versions(live), Platform(predict="/vertex/predict"))
    policy = Policy(keys=read_keys(f"shop:{make_key()[1]}"))
    client = create_app(live, [platforms], policy).test_client()
    assert_refused(client.post("/vertex/predict", json={"instances": ROWS}), 401)
    assert client.post("/vertex/predict/x").content_type == "application/problem+json"


def test_each_request_pins_its_version_only_once(canary):
    live = LivePredictor(Registry(canary))
    live.stop()
    versions, turns = Versions(live), []
    client = create_app(
        live, [make_v2(versions), make_platforms(versions, read_platform(VERTEX))]
    ).test_client()
    pin = live.pin
    live.pin = lambda: turns.append("pinned") or pin()
    for path in (V1, "/invocations", VERTEX["AIP_PREDICT_ROUTE"]):
        assert client.post(path, json={"instances": ROWS}).status_code == 200
    for path in ("/v2/models/iris", "/v2/models/iris/ready", "/v2/health/ready", "/v1/models/iris"):
        assert client.get(path).status_code == 200
    assert len(turns) == 7


def test_without_a_platform_its_routes_do_not_exist(canary):
    live = LivePredictor(Registry(canary))
    live.stop()
    client = create_app(live, [make_platforms(Versions(live))]).test_client()
    assert_refused(client.post(VERTEX["AIP_PREDICT_ROUTE"], json={"instances": ROWS}), 404)


# Where there is no model yet


def test_a_service_without_a_model_is_alive_and_says_503_in_every_dialect(tmp_path):
    (tmp_path / "empty").mkdir()
    live = LivePredictor(Registry(tmp_path / "empty"), allow_empty=True)
    versions = Versions(live)
    blueprints = [make_v2(versions), make_platforms(versions, read_platform(VERTEX))]
    client = create_app(live, blueprints).test_client()
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2").status_code == client.get("/v1/models").status_code == 200
    for path in ("/ping", VERTEX["AIP_HEALTH_ROUTE"]):
        assert client.get(path).status_code == 503
    for path in ("/v2/health/ready", "/v2/models/iris", "/v2/models/iris/ready", "/v1/models/iris"):
        assert_refused(client.get(path), 503)
    for path in ("/v2/models/iris/infer", V1, "/invocations"):
        assert_refused(client.post(path, json={"instances": ROWS}), 503)
    assert client.post("/v2/repository/index").json == []
    live.stop()


posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")


@posix
def test_a_service_that_vertex_starts_listens_and_answers_where_vertex_asks(models):
    secret, digest = make_key()
    port = free_port()
    environment = VERTEX | {"AIP_HTTP_PORT": str(port), "IRIS_SERVE_KEYS": f"vertex:{digest}"}
    with Service(models, port=5000, **environment) as service:
        service.ready()
        service.port = port
        assert service.ask(None, "GET", VERTEX["AIP_HEALTH_ROUTE"])[0] == 200
        body = json.dumps({"instances": ROWS})
        assert service.ask(body, path=VERTEX["AIP_PREDICT_ROUTE"])[0] == 401
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {"Authorization": f"Bearer {secret}"}
        connection.request("POST", VERTEX["AIP_PREDICT_ROUTE"], body, headers)
        answer = connection.getresponse()
        assert (answer.status, list(json.loads(answer.read()))) == (200, ["predictions"])
        connection.close()
        assert service.stop(signal.SIGTERM) == 0


@posix
def test_a_variable_that_makes_no_sense_stops_the_start_before_anything_is_trained(tmp_path):
    with Service(tmp_path / "models", AIP_PREDICT_ROUTE="/predict") as service:
        assert service.process.wait(20) == 2
        assert "AIP_PREDICT_ROUTE may not be /predict" in service.process.stderr.read()
    assert not (tmp_path / "models").exists()
