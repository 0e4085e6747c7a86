"""What is exported about a version: the published schemas accept it, and the digests are right."""

import csv
import hashlib
import json

import jsonschema
import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from iris_serve.__main__ import main
from iris_serve.cli.manifest import write_manifest
from iris_serve.registry.registry import Registry
from iris_serve.training.retrain import Parameters, train

# The statement of in-toto, and the predicate as model-signing 1.1 reads it; neither project
# publishes a schema.
DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
RESOURCE = {
    "type": "object",
    "required": ["name", "algorithm", "digest"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "algorithm": {"const": "sha256"}, "digest": DIGEST},
}
SUBJECT = {
    "type": "object",
    "required": ["name", "digest"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "digest": {"type": "object", "required": ["sha256"], "properties": {"sha256": DIGEST}},
    },
}
STATEMENT = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "additionalProperties": False,
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "items": SUBJECT, "minItems": 1, "maxItems": 1},
        "predicateType": {"const": "https://model_signing/signature/v1.0"},
        "predicate": {
            "type": "object",
            "required": ["serialization", "resources"],
            "properties": {
                "serialization": {
                    "const": {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
                },
                "resources": {"type": "array", "items": RESOURCE, "minItems": 1},
            },
        },
    },
}


@pytest.fixture(scope="module", params=["classes", "numbers", "hostile"])
def registry(request, trained, tmp_path_factory):
    """A version for classes, one for numbers, and one with hostile names."""
    if request.param == "classes":
        return Registry(trained)
    folder = tmp_path_factory.mktemp("exported")
    rows = [
        [i % 7, i % 5, (i % 3) if request.param == "numbers" else "ab"[i % 2]] for i in range(60)
    ]
    head = ["a", "b", "y"] if request.param == "numbers" else ['"q"\u2028', "<b>: 🌸", "\\"]
    table = folder / "table.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    task = {"task": "number"} if request.param == "numbers" else {}
    own = {"data": str(table), "target": head[-1], "n_estimators": 2, **task}
    train(folder / "models", Parameters(name="own", **own))
    return Registry(folder / "models", "own")


@pytest.fixture(scope="module")
def exported(registry, tmp_path_factory):
    """The statement and the BOM, as texts."""
    paths = write_manifest(registry, 1, tmp_path_factory.mktemp("papers"))
    return [path.read_text("utf-8") for path in paths]


def test_the_statement_has_the_form_of_model_signing(exported):
    jsonschema.validate(json.loads(exported[0]), STATEMENT)


def test_the_digests_are_those_of_all_files_in_order(exported, registry):
    statement = json.loads(exported[0])
    whole = hashlib.sha256()
    names = []
    for resource in statement["predicate"]["resources"]:
        digest = hashlib.sha256((registry.path(1) / resource["name"]).read_bytes())
        assert digest.hexdigest() == resource["digest"]
        whole.update(digest.digest())
        names.append(resource["name"])
    assert names == sorted(path.name for path in registry.path(1).iterdir())
    assert statement["subject"][0]["digest"]["sha256"] == whole.hexdigest()


def test_cyclonedx_accepts_the_bill_of_materials(exported):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(exported[1]) is None
    broken = exported[1].replace("machine-learning-model", "machine-learning-wonder")
    assert validator.validate_str(broken) is not None


def test_the_bill_of_materials_says_what_the_card_says(exported, registry):
    bom = json.loads(exported[1])
    card = json.loads((registry.path(1) / "card.json").read_text("utf-8"))
    model = bom["metadata"]["component"]
    given = [line["format"] for line in model["modelCard"]["modelParameters"]["inputs"]]
    features = card["contract"]["features"]
    assert [text.rpartition(": ")[0] for text in given] == [f["name"] for f in features]
    scores = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {s["type"]: float(s["value"]) for s in scores}.items() <= card["metrics"].items()
    assert {c["name"]: c["version"] for c in bom["components"]} == card["versions"]


def test_the_command_writes_both_and_never_over_a_file(trained, tmp_path):
    words = ["export-manifest", str(tmp_path / "out"), "--models", str(trained)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0
    names = ["iris-1.statement.json", "iris-1.cdx.json"]
    assert done.output.splitlines() == [str(tmp_path / "out" / name) for name in names]
    again = CliRunner().invoke(main, words)
    assert (again.exit_code, again.output.count("File exists")) == (1, 1)


def test_a_damaged_version_is_not_described(models, tmp_path):
    (models / "iris" / "1" / "iris_model.pkl").write_bytes(b"other")
    words = ["export-manifest", str(tmp_path / "out"), "--models", str(models)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "is not the file that its card describes" in done.output
    assert not (tmp_path / "out").exists()
