"""The OpenAPI document of models with booleans, categories, missing values and numbers."""

import json
import re
from types import SimpleNamespace

import jsonschema
import pytest
from coded import CONTRACTS, EXAMPLE, FEATURES, ROWS, TARGETS, mixed_app
from msgspec.structs import replace
from openapi_spec_validator import validate
from services import serving
from test_openapi import FULL, check, place_of, schemathesis

from iris_serve.data.contract import Contract, Feature
from iris_serve.openapi.document import document
from iris_serve.openapi.patterns import csv_content, ndjson_content
from iris_serve.openapi.routes import OPERATIONS
from iris_serve.openapi.schemas import MAX_ENUM, body_examples
from iris_serve.testing import Ruler

CITIES = tuple(f"city {i}" for i in range(MAX_ENUM + 1))
CITY = Feature("city", "", 0.0, float(MAX_ENUM), "category", CITIES)
LONE = Feature("port", "", 0.0, 1.0, "category", ("Cork", "Dover"), missing=True)
MORE = {
    "a lone category": Contract((LONE,), (0, 1), ("no", "yes"), ("Cork",)),
    "many categories": Contract((CITY, *FEATURES), (0, 1), ("no", "yes"), ("city 7", *EXAMPLE)),
    "many classes": Contract(FEATURES, CITIES, CITIES, EXAMPLE),
}
ALL = CONTRACTS | MORE


@pytest.fixture(scope="module")
def apps(trained):
    """For each name of a contract the application in front of its model, and its document."""
    found = {}
    for name in CONTRACTS:
        app = mixed_app(name, trained)
        found[name] = app, app.test_client().get("/openapi.json").json
    return found


def schemas(contract):
    return document(Ruler(contract=contract), OPERATIONS)["components"]["schemas"]


def value_schemas(contract):
    return schemas(contract)["NamedRow"]["properties"]


@pytest.mark.parametrize("name", ALL)
def test_the_document_is_valid(name):
    for has_proba in (True, False):
        found = document(Ruler(contract=ALL[name], has_proba=has_proba), OPERATIONS)
        validate(found)
        assert json.loads(json.dumps(found)) == found
        for schema in found["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_reply_and_every_example_is_as_documented(apps, name):
    app, spec = apps[name]
    client = app.test_client()
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            place = place_of(path)
            bodies = operation.get("requestBody", {}).get("content", {})
            for kind, content in (bodies or {None: {}}).items():
                examples = [example["value"] for example in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                for example in examples or [None if method == "get" else {}]:
                    data = example if isinstance(example, str) else json.dumps(example)
                    if kind == "application/octet-stream" or "load" in path or "explain" in path:
                        continue
                    words = {} if method == "get" else {"data": data, "content_type": kind}
                    answer = client.open(place, method=method.upper(), **words)
                    refused = path.endswith(("notebook", "cuts", "paths", "export"))
                    assert refused or answer.status_code == 200, (path, example, answer.data)
                    if answer.mimetype not in ("image/png",):
                        check(spec, answer, f"{method.upper()} {path}")


@pytest.mark.parametrize("name", CONTRACTS)
def test_details_are_as_documented(apps, name):
    app, spec = apps[name]
    example = list(CONTRACTS[name].example)
    strange = [
        1e9 if isinstance(value, float) and i < 2 else value for i, value in enumerate(example)
    ]
    for features in (example, strange, [example, strange]):
        asked = {"features": features, "detail": True}
        answer = app.test_client().post("/predict", json=asked)
        assert answer.status_code == 200, answer.data
        check(spec, answer, "POST /predict")
        whole = answer.json["predictions"][0] if "predictions" in answer.json else answer.json
        assert ("spread" in whole) is name.endswith("number")


def test_a_number_of_no_forest_has_no_spread():
    alone = Ruler(contract=CONTRACTS["number"])
    schema = document(alone, OPERATIONS)["components"]["schemas"]["DetailedAnswer"]
    assert list(schema["properties"])[:3] == ["prediction", "unit", "notes"]


def test_a_value_has_the_schema_of_its_kind():
    found = value_schemas(CONTRACTS["texts"])
    assert found["age"]["type"] == ["number", "null"]
    assert found["fare"]["type"] == "number"
    assert found["alone"]["type"] == ["boolean", "null"]
    assert found["smokes"]["enum"] == ["No", "Yes", False, True]
    assert found["port"]["enum"] == [" Bristol", "Cork", "Łódź, by rail", 'the "old" port', None]
    assert found["class"]["enum"] == [1, 2, 3, "1", "2", "3"]
    assert found["boat"]["type"] == ["string", "null"]
    assert "enum" not in found["boat"]
    words = found["age"]["description"]
    assert words == "age in years; values from 0 to 80 were seen in training; null if it is missing"
    assert "others count as missing" in found["boat"]["description"]


@pytest.mark.parametrize("name", [name for name in CONTRACTS if "gaps" not in name])
def test_what_a_schema_of_a_row_admits_is_answered_and_what_it_excludes_is_refused(apps, name):
    app, spec = apps[name]
    whole = spec["components"]["schemas"]["Row"] | {"components": spec["components"]}
    is_row = jsonschema.Draft202012Validator(whole).is_valid
    values = [
        None,
        True,
        False,
        0,
        1,
        2,
        3,
        0.1,
        -1e9,
        4e38,
        "",
        "No",
        "Cork",
        "cork?",
        "1",
        "A",
        [],
    ]
    for row in ROWS:
        assert is_row(row)
        for place in range(len(row)):
            for value in values:
                changed = [value if i == place else old for i, old in enumerate(row)]
                status = app.test_client().post("/predict", json={"features": changed}).status_code
                assert (status == 200) is is_row(changed), changed


def test_many_categories_and_classes_are_described_and_not_listed():
    found = value_schemas(MORE["many categories"])["city"]
    assert found["type"] == "string"
    assert "enum" not in found
    assert found["description"].startswith("city; one of city 0, city 1, ")
    assert found["description"].endswith(f"and {MAX_ENUM - 7} more")
    found = schemas(MORE["many classes"])
    assert "enum" not in found["Class"]
    assert found["Class"]["description"].endswith(f"and {MAX_ENUM - 19} more")
    assert found["DetailedAnswer"]["properties"]["label"] == {"type": "string"}
    few = replace(MORE["many classes"], classes=CITIES[:-1], labels=CITIES[:-1])
    assert schemas(few)["Class"]["enum"] == list(CITIES[:-1])


@pytest.mark.parametrize("name", TARGETS)
def test_an_answer_is_a_class_or_a_number(name):
    found, kinds = schemas(CONTRACTS[name]), TARGETS[name]["classes"]
    if not kinds:
        assert found["Number"] == {"type": "number", "description": "price, a number in £"}
        assert "Class" not in found
        assert not {"label", "probabilities"} & set(found["DetailedAnswer"]["properties"])
        return
    assert found["Class"]["enum"] == list(kinds)
    is_answer = jsonschema.Draft202012Validator(found["Class"]).is_valid
    assert all(map(is_answer, kinds))
    assert not any(map(is_answer, (0, 1, "Alive", None)[name == "floats" and 2 :]))


def test_the_head_of_the_document_says_what_is_predicted():
    head = document(Ruler(contract=CONTRACTS["number"]), OPERATIONS)["info"]["description"]
    assert head.startswith("A row is 8 values:")
    assert head.endswith("The answer is price, a number in £.")
    assert "- smokes; No or Yes, or false or true" in head


def test_the_inputs_of_a_mixed_model_are_its_features():
    found = schemas(CONTRACTS["number"])
    given = found["InferInput"]["properties"]
    assert given["name"]["enum"] == CONTRACTS["number"].names
    assert {"FP64", "BOOL", "BYTES"} <= set(given["datatype"]["enum"])
    assert found["InferRequestedOutput"]["properties"]["name"]["enum"] == [
        "prediction",
        "predict",
    ]
    iris = schemas(CONTRACTS["gaps"])
    assert "BYTES" not in iris["InferInput"]["properties"]["datatype"]["enum"]


def test_the_examples_show_a_missing_value_where_one_is_allowed():
    for name, contract in CONTRACTS.items():
        examples = body_examples(contract)
        assert examples["Question"]["one row"] == {"features": list(contract.example)}
        gap = examples["Question"]["a missing value"]["features"]
        assert gap == [None, *contract.example[1:]], name
    assert (
        "a missing value"
        not in body_examples(
            MORE["many classes"].__class__((CITY,), (0, 1), ("no", "yes"), ("city 7",))
        )["Question"]
    )


CELLS = {
    "28,32.5,true,No,Cork,3,0.1,A": True,
    ",0,,Yes,,1,,": True,
    '4,1e2,false,true," Bristol",2,3,B': None,
    '4,1,false,true,"Łódź, by rail",2,0.25,B': True,
    '4,1,false,false,"the ""old"" port",2,0.25,B': True,
    ",,,Yes,,1,,": False,
    "4,1,true,Yes,,1,,no boat at all": True,
    "4,1,maybe,Yes,Cork,1,,": False,
    "4,1,true,Yes,Nowhere,1,,": False,
    "4,1,true,Yes,Cork,4,,": False,
    "4,1,true,Yes,Cork,1": False,
}


@pytest.mark.parametrize("line", CELLS)
def test_the_pattern_of_csv_admits_what_the_service_reads(apps, line):
    app, _ = apps["texts"]
    right = CELLS[line]
    answer = app.test_client().post("/predict", data=line, content_type="text/csv")
    pattern = csv_content(CONTRACTS["texts"])["schema"]["pattern"]
    assert answer.status_code == (400 if right is False else 200), answer.data
    if right is not None:
        assert bool(re.search(pattern, line)) is right


@pytest.mark.parametrize("name", ALL)
def test_the_examples_of_lines_match_their_patterns(name):
    for content in (csv_content(ALL[name]), ndjson_content(ALL[name])):
        assert re.search(content["schema"]["pattern"], content["example"])


def test_the_pattern_of_ndjson_admits_rows_of_all_kinds(apps):
    pattern = ndjson_content(CONTRACTS["texts"])["schema"]["pattern"]
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    assert re.search(pattern, text)
    assert not re.search(pattern, text.replace('"Cork"', '"Kork"'))
    app, _ = apps["texts"]
    answer = app.test_client().post("/predict", data=text, content_type="application/x-ndjson")
    assert answer.status_code == 200, answer.data


@pytest.mark.parametrize("count", [10, FULL])
@pytest.mark.parametrize("name", ["booleans", pytest.param("number", marks=pytest.mark.slow)])
def test_schemathesis_finds_nothing_in_mixed_models(apps, name, count):
    app, spec = apps[name]
    operations = sum(map(len, spec["paths"].values()))
    with serving(app) as origin:
        service = SimpleNamespace(port=int(origin.rpartition(":")[2]))
        output = schemathesis(service, count)
    assert re.search(rf"Tested: {operations}\n", output)
