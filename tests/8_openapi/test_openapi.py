"""The OpenAPI document says what the service does: for every route, every model and every tool."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from openapi_spec_validator import validate
from services import Service

from iris_serve.cli.settings import Settings
from iris_serve.data.contract import Contract, Feature
from iris_serve.data.table import iris
from iris_serve.openapi.docs import make_docs
from iris_serve.openapi.document import document
from iris_serve.openapi.routes import OPERATIONS, error_statuses
from iris_serve.service.access import PUBLIC_ROUTES, Policy
from iris_serve.service.app import create_app, routes
from iris_serve.service.errors import STATUS
from iris_serve.service.keys import Key, make_key
from iris_serve.service.live import Fixed
from iris_serve.wsgi import make_app

HERE = Path(__file__).parent
NASTY = (
    'say "when"',
    "two words",
    "größe/µ",
    "$ref",
    "__proto__",
    "<b onclick=x>",
    "a,b\nc",
    "{v}",
)


def contract_of(names, classes=(0, 1), labels=("no", "yes")):
    features = tuple(
        Feature(name, "cm" if i % 2 else "", i, i + 1.5) for i, name in enumerate(names)
    )
    return Contract(features, classes, labels, tuple(i + 0.5 for i in range(len(names))))


CONTRACTS = {
    "iris": iris().contract,
    "wine": contract_of([f"measure {i}" for i in range(13)], (0, 1, 2), ("a", "b", "c")),
    "nasty": contract_of(NASTY, ('the "one"', "<other>", ""), ('the "one"', "<other>", "")),
    "narrow": contract_of(["only"]),
    "wide": contract_of([f"pixel_{i}" for i in range(300)]),
}


@dataclass(frozen=True)
class First:
    """A predictor that always answers the first class."""

    contract: Contract
    has_proba: bool = True
    name: str = "iris"
    version: int = 3

    def predict(self, rows):
        return [self.contract.classes[0] for _ in rows]

    def predict_proba(self, rows):
        return [[1.0] + [0.0] * (len(self.contract.classes) - 1) for _ in rows]


@pytest.fixture(params=CONTRACTS)
def contract(request):
    return CONTRACTS[request.param]


@pytest.fixture(scope="module")
def app(trained):
    return make_app(Settings(models=str(trained), access_log="off"))


@pytest.fixture(scope="module")
def spec(app):
    return app.test_client().get("/openapi.json").json


def test_the_document_is_valid_for_any_contract(contract):
    for has_proba in (True, False):
        found = document(First(contract, has_proba), OPERATIONS)
        validate(found)
        assert json.loads(json.dumps(found)) == found
        for schema in found["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_is_in_the_document_and_nothing_else_is(app, spec):
    there = {f"{m.upper()} {path}" for path, item in spec["paths"].items() for m in item}
    assert there == set(routes(app))


def test_every_status_that_the_service_sends_is_documented(spec):
    documented = {
        s for item in spec["paths"].values() for o in item.values() for s in o["responses"]
    }
    # A method that a path does not have is not an operation.
    assert {str(status) for status in STATUS.values()} - documented == {"405"}
    assert all(500 in error_statuses(route) for route in OPERATIONS)


def test_every_reference_resolves_and_every_component_is_used(spec):
    used = set(re.findall(r'"#/components/(\w+/[\w-]+)"', json.dumps(spec)))
    there = {f"{kind}/{name}" for kind, named in spec["components"].items() for name in named}
    assert used <= there
    # Unused here: Vertex AI has chosen no path, and a wrong method is not an operation.
    unused = {"schemas/VertexRequest", "responses/Problem405", "responses/Failure405"}
    assert there - used == unused


def test_every_operation_has_a_unique_id_for_generated_clients(spec):
    names = [o["operationId"] for item in spec["paths"].values() for o in item.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]\w*", name) for name in names)


def test_the_document_describes_the_version_that_is_served(app, spec):
    model = app.test_client().get("/").json
    assert (spec["info"]["title"], spec["info"]["version"]) == (model["model"], model["version"])
    found = spec["components"]["schemas"]
    assert found["Class"]["enum"] == [0, 1, 2]
    assert found["NamedRow"]["required"] == model["features"]
    assert "values from 4.3 to 7.9 were seen" in found["Row"]["prefixItems"][0]["description"]


def test_the_document_is_made_once_for_each_version(monkeypatch):
    made = []
    make = "iris_serve.openapi.document.document"
    monkeypatch.setattr(make, lambda *words: made.append(words) or {})
    live = Fixed(First(CONTRACTS["iris"]))
    client = create_app(live, [make_docs(live)]).test_client()
    for version, times in ((3, 1), (3, 1), (4, 2), (4, 2)):
        live.predictor = First(CONTRACTS["iris"], version=version)
        assert client.get("/openapi.json").headers["X-Model-Version"] == str(version)
        assert len(made) == times


def test_keys_are_optional_unless_set_and_public_routes_never_need_one():
    predictor = First(CONTRACTS["iris"])
    for keys in ((), (Key("alice", "0" * 64),)):
        found = document(predictor, OPERATIONS, Policy(keys=keys))
        assert bool(found["security"]) is bool(keys)
        assert ("securitySchemes" in found["components"]) is bool(keys)
        assert "security" not in found["paths"]["/predict"]["post"]
        for route in PUBLIC_ROUTES:
            path = route.replace("<", "{").replace(">", "}")
            assert found["paths"][path]["get"]["security"] == []


def test_the_document_of_a_service_with_keys_requires_one(trained):
    keys = "alice:" + "0" * 64
    guarded = make_app(Settings(models=str(trained), access_log="off", keys=keys))
    found = guarded.test_client().get("/openapi.json").json
    assert found["security"] == [{"bearer": []}, {"header": []}]
    answer = guarded.test_client().post("/predict", data=b"{}")
    assert answer.status_code == 401
    check(found, answer, "POST /predict")


def test_paths_that_vertex_ai_has_chosen_are_in_the_document(trained, monkeypatch):
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
    vertex = make_app(Settings(models=str(trained), access_log="off"))
    client = vertex.test_client()
    found = client.get("/openapi.json").json
    validate(found)
    check(found, client.get("/vertex/health"), "GET /vertex/health")
    asked = ({"instances": [[6.1, 2.8, 4.7, 1.2]]}, 200), ({}, 400), (" " * (1 << 20), 413)
    for value, status in asked:
        answer = client.post("/vertex/predict", json=value)
        assert answer.status_code == status
        check(found, answer, "POST /vertex/predict")


def strictly(schema):
    """`schema`, but refusing keys that it does not name."""
    if isinstance(schema, list):
        return [strictly(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strictly(part) for key, part in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def check(spec, answer, route):
    """Raise unless the document `spec` describes this `answer` to `route`."""
    method, path = route.split(" ")
    described = spec["paths"][path][method.lower()]["responses"][str(answer.status_code)]
    if "$ref" in described:
        described = spec["components"]["responses"][described["$ref"].rpartition("/")[2]]
    schema = described["content"][answer.mimetype]["schema"]
    whole = {**strictly(schema), "components": strictly(spec["components"])}
    value = answer.json if answer.is_json else answer.get_data(as_text=True)
    jsonschema.Draft202012Validator(whole).validate(value)
    sometimes = {"X-Request-Id", "Inference-Header-Content-Length", "Accept-Encoding"}
    for name in set(described["headers"]) - sometimes:
        assert name in answer.headers
    for name in ("Accept-Encoding", "Retry-After", "WWW-Authenticate"):
        assert name not in answer.headers or name in described["headers"]


def test_every_example_is_answered_as_documented(contract):
    predictor = First(contract)
    app = create_app(predictor)
    spec = document(predictor, routes(app))
    content = spec["paths"]["/predict"]["post"]["requestBody"]["content"]
    client = app.test_client()
    for kind, body in content.items():
        examples = [e["value"] for e in body.get("examples", {}).values()] or [body["example"]]
        for example in examples:
            data = example if isinstance(example, str) else json.dumps(example)
            for query in ("", "?detail=true", "?detail=false"):
                answer = client.post(f"/predict{query}", data=data, content_type=kind)
                assert answer.status_code == 200, answer.json
                check(spec, answer, "POST /predict")


def test_a_reply_with_too_many_notes_is_as_documented():
    predictor = First(CONTRACTS["wide"])
    app = create_app(predictor)
    spec = document(predictor, routes(app))
    strange = {"features": [[-1] * 300] * 4, "detail": True}
    answer = app.test_client().post("/predict", json=strange)
    assert answer.json["predictions"][3]["more_notes"] == 200
    check(spec, answer, "POST /predict")


def place_of(path):
    """A place that a path stands for in these tests."""
    filled = path.replace("{name}", "iris").replace("{file}", "page.css")
    return re.sub(r"\{(v|alias)\}", "current", filled)


def test_every_reply_is_as_documented(app, spec):
    client = app.test_client()
    for route in routes(app):
        method, path = route.split(" ")
        place = place_of(path)
        operation = spec["paths"][path][method.lower()]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        asked = [example["value"] for example in body.get("examples", {}).values()] or [{}]
        for value in asked if method == "POST" else [None]:
            answer = client.open(place, method=method, json=value)
            refused = route.endswith(("notebook", "load", "unload", "explain"))
            assert refused or answer.status_code == 200
            if answer.mimetype != "image/png":
                check(spec, answer, route)


def test_a_service_without_a_model_sends_only_documented_statuses(tmp_path, spec):
    empty = make_app(Settings(models=str(tmp_path / "models"), access_log="off"))
    client, refused = empty.test_client(), set()
    for route in routes(empty):
        method, path = route.split(" ")
        place = place_of(path)
        answer = client.open(place, method=method, json={} if method == "POST" else None)
        operation = spec["paths"][path][method.lower()]
        assert str(answer.status_code) in operation["responses"], (route, answer.status_code)
        if answer.status_code == 503:
            refused.add(route)
            assert "X-Model-Version" not in answer.headers
    assert {"GET /", "POST /predict", "POST /invocations", "GET /openapi.json"} <= refused
    assert not refused & {"GET /healthz", "GET /docs", "GET /v2", "GET /v2/health/live"}


@pytest.mark.parametrize(
    ("route", "words", "status"),
    [
        ("POST /predict", {"data": b"{"}, 400),
        ("POST /predict", {"data": b"[6.1, 2.8, 4.7, 1.2]"}, 400),
        ("POST /predict", {"data": b'{"features": [9e99, null]}', "query_string": "x=1"}, 400),
        ("POST /predict", {"data": b" " * (1 << 20) + b"1"}, 413),
        ("POST /predict", {"data": b"a", "content_type": "multipart/form-data"}, 415),
        ("POST /predict", {"data": b"a", "headers": {"Content-Encoding": "br"}}, 415),
        ("GET /healthz", {"headers": {"Host": "evil.example"}}, 421),
        ("GET /models/{name}", {}, 404),
        ("GET /models/{name}/versions/{v}", {}, 404),
        ("POST /v2/models/{name}/infer", {"data": b"{}"}, 404),
        ("POST /v2/repository/index", {"data": b"[]"}, 400),
        ("POST /v1/models/{name}:predict", {"data": b"{}"}, 404),
        ("POST /invocations", {"data": b"{}"}, 400),
        ("POST /invocations", {"data": b"1,2\n", "content_type": "text/csv"}, 400),
    ],
)
def test_every_error_is_as_documented(app, spec, route, words, status):
    method, path = route.split(" ")
    place = re.sub(r"\{\w+\}", "unknown", path)
    answer = app.test_client().open(place, method=method, **words)
    assert answer.status_code == status
    check(spec, answer, route)


def schemathesis(service, count, *options):
    """The output of all checks of schemathesis on `service`, with `count` requests of each kind."""
    command = [Path(sys.executable).parent / "schemathesis"]
    command += ["--config-file", HERE / "schemathesis.toml", "run", "--checks", "all"]
    command += ["--max-examples", str(count), "--seed", "5", "--no-color", *options]
    command += [f"http://127.0.0.1:{service.port}/openapi.json"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": HERE}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)  # with the seed
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


FULL = pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("count", [10, FULL])
def test_schemathesis_finds_nothing(trained, spec, count):
    """Only schemathesis.toml permits a 400 to what a schema admits, and no route is left out."""
    operations = sum(map(len, spec["paths"].values()))
    with Service(trained) as service:
        service.ready()
        before = service.children()
        output = schemathesis(service, count)
        assert service.children() == before
    assert re.search(rf"Selected: {operations}/{operations}\n", output)
    assert re.search(rf"Tested: {operations}\n", output)


def test_schemathesis_finds_nothing_with_keys(trained):
    secret, digest = make_key()
    with Service(trained, IRIS_SERVE_KEYS=f"alice:{digest}") as service:
        service.ready()
        schemathesis(service, 3, "--header", f"X-API-Key: {secret}")
