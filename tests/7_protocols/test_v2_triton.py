"""tritonclient asks models with features of all kinds, in bytes and in JSON."""

from types import SimpleNamespace

import numpy as np
import pytest
from coded import CONTRACTS, NAMES, encoded, mixed_app, predictor
from services import serving
from test_clients import pytestmark as needs_clients
from test_clients import run_client

pytestmark = needs_clients
# Rows in which only numbers are missing: tritonclient writes None as the string "None".
ROWS = [
    [28.0, 32.5, True, "No", "Cork", 3, 0.1, "A"],
    [None, 7.25, False, "Yes", "Łódź, by rail", 1, None, "B"],
    [61.5, 80.0, False, "Yes", 'the "old" port', 2, 0.25, "A"],
]
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
OTHERS = {
    "age": ("FP32", COLUMNS["age"]),
    "smokes": ("BOOL", [False, True, True]),
    "class": ("INT16", COLUMNS["class"]),
    "dose": ("FP32", COLUMNS["dose"]),
    "alone": ("BYTES", ["true", "false", "false"]),
}


@pytest.fixture(scope="module", params=["texts", "booleans", "floats", "number"])
def triton(request, trained):
    """What tritonclient found, and what the model answers to the codes of the same rows."""
    name = request.param
    question = {"model": "iris", "columns": COLUMNS, "others": OTHERS}
    with serving(mixed_app(name, trained)) as url:
        found = run_client("ask_triton_kinds.py", question, url)
    codes = encoded(ROWS, CONTRACTS[name])
    expected = {"prediction" if name == "number" else "label": predictor(name).predict(codes)}
    if name != "number":
        probabilities = predictor(name).predict_proba(codes)
        expected["probabilities"] = np.ravel(probabilities).tolist()
    return SimpleNamespace(name=name, expected=expected, found=found)


def check(answer, triton):
    assert {name: output["data"] for name, output in answer.items()} == triton.expected


def test_it_gets_the_models_answers_in_every_encoding(triton):
    assert len(triton.found["answers"]) == 4
    for way, answer in triton.found["answers"].items():
        check(answer, triton)
        assert {output["binary"] for output in answer.values()} == {"binary out" in way}
    check(triton.found["shape [n, 1]"], triton)
    check(triton.found["after the errors"], triton)


def test_other_datatypes_of_the_same_values_get_the_same_answers(triton):
    check(triton.found["other datatypes"], triton)
    check(triton.found["other datatypes, JSON"], triton)


def test_the_answers_have_the_announced_datatypes(triton):
    announced = {out["name"]: out["datatype"] for out in triton.found["metadata"]["outputs"]}
    for answer in triton.found["answers"].values():
        assert {name: output["datatype"] for name, output in answer.items()} == announced


def test_it_gets_our_messages_for_its_mistakes(triton):
    refused = triton.found["a table"]
    assert "400" in refused["status"]
    assert "this model takes a tensor for each of its features, not a table" in refused["message"]
    refused = triton.found["None in BYTES"]
    assert "400" in refused["status"]
    assert "BYTES as bytes cannot say that a value is missing" in refused["message"]
