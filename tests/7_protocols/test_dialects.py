"""The same rows in every dialect: everywhere the answers of scikit-learn, bit for bit."""

import csv
import json
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from click.testing import CliRunner
from questions import BINARY_OUTPUT, framed, wine_as_a_file
from sklearn.datasets import load_iris, load_wine

from iris_serve.__main__ import main
from iris_serve.model.save import MODEL_FILE
from iris_serve.protocols.framing import JSON_LENGTH_HEADER
from iris_serve.protocols.platforms import make_platforms
from iris_serve.protocols.v2 import make_v2
from iris_serve.registry.registry import Registry
from iris_serve.service.app import create_app
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions
from iris_serve.training.retrain import Parameters, train


def on_the_cuts(estimator, data):
    """Rows whose values are the thresholds of the trees, and the floats next to them."""
    rows = []
    for tree in estimator.estimators_:
        tree = tree.tree_
        for feature, cut in zip(tree.feature, tree.threshold, strict=True):
            if feature >= 0:
                near = [cut, np.nextafter(cut, -np.inf), np.nextafter(cut, np.inf)]
                near += [
                    np.float64(np.nextafter(np.float32(cut), np.float32(s))) for s in (-9, 9e9)
                ]
                for value in near:
                    row = data[len(rows) % len(data)].copy()
                    row[feature] = value
                    rows.append(row)
    return rows[:400]


@pytest.fixture(scope="module", params=["iris", "wine"])
def asked(request, tmp_path_factory):
    """A client, rows, and what the estimator says of them; classes are numbers, or names."""
    name, folder = request.param, tmp_path_factory.mktemp("dialects")
    own = (
        {"data": wine_as_a_file(folder, 'château "{}", rouge'), "target": "kind"}
        if name == "wine"
        else {}
    )
    train(folder / "models", Parameters(name=name, n_estimators=10, **own))
    registry = Registry(folder / "models", name)
    live = LivePredictor(registry)
    live.stop()
    versions = Versions(live)
    estimator = joblib.load(registry.path(1) / MODEL_FILE)
    data = (load_wine if name == "wine" else load_iris)().data
    random = np.random.default_rng(7).uniform(
        data.min(axis=0), data.max(axis=0), (100, data.shape[1])
    )
    odd = [np.zeros(data.shape[1]), -data[0], np.full(data.shape[1], 3e38), data[0] * 1e-310]
    rows = np.vstack([data, random, odd, on_the_cuts(estimator, data)])
    return SimpleNamespace(
        name=name,
        models=folder / "models",
        client=create_app(live, [make_v2(versions), make_platforms(versions)]).test_client(),
        rows=rows.tolist(),
        names=live.now.contract.names,
        labels=live.now.contract.labels,
        predictions=estimator.predict(rows).tolist(),
        probabilities=estimator.predict_proba(rows).tolist(),
        width=data.shape[1],
    )


def post(asked, path, body, **more):
    answer = asked.client.post(path, data=body, **more)
    assert answer.status_code == 200, answer.data
    assert answer.headers["X-Model-Version"] == "1"
    return answer


def named(asked):
    return [dict(zip(asked.names[::-1], row[::-1], strict=True)) for row in asked.rows]


def as_csv(asked, names=False):
    lines = [",".join(map(repr, row)) for row in asked.rows]
    header = ",".join(f'"{name}"' for name in asked.names)
    return "\n".join([header, *lines] if names else lines).encode()


def as_lines(rows):
    return "\n".join(json.dumps(row) for row in rows)


def one_by_one(asked):
    for row in asked.rows:
        yield json.loads(post(asked, "/predict", json.dumps({"features": row})).data)["prediction"]


NATIVE = {
    "single": lambda asked: (list(one_by_one(asked)), None),
    "many": lambda asked: ({"features": asked.rows}, None),
    "named": lambda asked: ({"features": named(asked)}, None),
    "CSV": lambda asked: (as_csv(asked), "text/csv"),
    "CSV with names": lambda asked: (as_csv(asked, True), "text/csv"),
    "NDJSON": lambda asked: (as_lines(asked.rows), "application/x-ndjson"),
    "NDJSON, named": lambda asked: (as_lines(named(asked)), "application/x-ndjson"),
}


@pytest.mark.parametrize("how", NATIVE)
def test_the_services_own_dialect_answers_as_scikit_learn(asked, how):
    body, kind = NATIVE[how](asked)
    if isinstance(body, list):
        assert body == asked.predictions
        return
    body = json.dumps(body) if isinstance(body, dict) else body
    assert post(asked, "/predict", body, content_type=kind).json["predictions"] == asked.predictions


def test_the_details_are_those_of_scikit_learn(asked):
    body = json.dumps({"features": asked.rows, "detail": True})
    told = post(asked, "/predict", body).json["predictions"]
    assert [one["prediction"] for one in told] == asked.predictions
    found = [[one["probabilities"][label] for label in asked.labels] for one in told]
    assert found == asked.probabilities


def table_of(asked, **more):
    shape = [len(asked.rows), asked.width]
    return {"name": "features", "shape": shape, "datatype": "FP64", **more}


def columns_of(asked, **more):
    for name, column in reversed(
        list(zip(asked.names, zip(*asked.rows, strict=True), strict=True))
    ):
        tensor = {"name": name, "shape": [len(column)], "datatype": "FP64", **more}
        yield tensor, column


def in_json(*inputs):
    return json.dumps({"inputs": inputs}).encode(), {}


V2 = {
    "nested": lambda asked: in_json(table_of(asked, data=asked.rows)),
    "flat": lambda asked: in_json(table_of(asked, data=[v for row in asked.rows for v in row])),
    "FP32": lambda asked: in_json(table_of(asked, data=asked.rows, datatype="FP32")),
    "columns": lambda asked: in_json(*(t | {"data": list(c)} for t, c in columns_of(asked))),
    "bytes": lambda asked: framed([(table_of(asked), np.array(asked.rows, "<f8"))]),
    "bytes, FP32": lambda asked: framed(
        [(table_of(asked, datatype="FP32"), np.array(asked.rows, "<f4"))]
    ),
    "bytes, columns": lambda asked: framed([(t, np.array(c, "<f8")) for t, c in columns_of(asked)]),
    "bytes in and out": lambda asked: framed(
        [(table_of(asked), np.array(asked.rows, "<f8"))], **BINARY_OUTPUT
    ),
}


def strings_in(raw):
    found = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found


def outputs_of(answer, asked):
    """The labels and the probabilities in an answer of V2, in JSON or in bytes."""
    if answer.content_type == "application/json":
        label, probabilities = answer.json["outputs"]
        return label["data"], probabilities["data"]
    size = int(answer.headers[JSON_LENGTH_HEADER])
    head = json.loads(answer.data[:size])["outputs"][0]
    cut = size + head["parameters"]["binary_data_size"]
    raw, rest = answer.data[size:cut], answer.data[cut:]
    numbers = head["datatype"] == "INT64"
    label = np.frombuffer(raw, "<i8").tolist() if numbers else strings_in(raw)
    return label, np.frombuffer(rest, "<f8").tolist()


@pytest.mark.parametrize("how", V2)
def test_the_open_inference_protocol_answers_as_scikit_learn(asked, how):
    body, headers = V2[how](asked)
    answer = post(asked, f"/v2/models/{asked.name}/infer", body, headers=headers)
    label, probabilities = outputs_of(answer, asked)
    assert label == asked.predictions
    assert probabilities == [value for row in asked.probabilities for value in row]


def test_a_classification_begins_with_what_scikit_learn_predicts(asked):
    wanted = [{"name": "probabilities", "parameters": {"classification": 1}}]
    body = json.dumps({"inputs": [table_of(asked, data=asked.rows)], "outputs": wanted})
    told = post(asked, f"/v2/models/{asked.name}/infer", body).json["outputs"][0]["data"]
    values, indices, labels = zip(*(text.split(":", 2) for text in told), strict=True)
    best = [row.index(max(row)) for row in asked.probabilities]
    assert list(map(int, indices)) == best
    assert list(map(float, values)) == [max(row) for row in asked.probabilities]
    assert list(labels) == [asked.labels[i] for i in best]


def reversed_split(asked):
    return {"columns": asked.names[::-1], "data": [row[::-1] for row in asked.rows]}


FORMS = {
    "instances": lambda asked: {"instances": asked.rows},
    "instances, named": lambda asked: {"instances": named(asked)},
    "inputs": lambda asked: {"inputs": asked.rows},
    "inputs, columns": lambda asked: {
        "inputs": dict(zip(asked.names, map(list, zip(*asked.rows, strict=True)), strict=True))
    },
    "split": lambda asked: {"dataframe_split": reversed_split(asked)},
    "records": lambda asked: {"dataframe_records": named(asked)},
}


V1 = ("instances", "instances, named", "inputs", "inputs, columns")


@pytest.mark.parametrize(
    ("path", "how"),
    [*(("/invocations", how) for how in FORMS), *(("/v1/models/{}:predict", how) for how in V1)],
)
def test_the_platforms_answer_as_scikit_learn_in_every_row_format(asked, path, how):
    answer = post(asked, path.format(asked.name), json.dumps(FORMS[how](asked)))
    assert answer.json == {"predictions": asked.predictions}


@pytest.mark.parametrize("names", [False, True])
def test_csv_in_and_out_is_answered_as_scikit_learn(asked, names):
    headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
    answer = post(asked, "/invocations", as_csv(asked, names), headers=headers)
    found = [line[0] for line in csv.reader(answer.text.splitlines())]
    assert found == [str(one) for one in asked.predictions]


def test_the_command_line_answers_as_scikit_learn(asked, monkeypatch):
    monkeypatch.setenv("IRIS_SERVE_MODELS", str(asked.models))
    monkeypatch.setenv("IRIS_SERVE_NAME", asked.name)
    for i in range(0, len(asked.rows), 40):
        result = CliRunner().invoke(main, ["predict", "--detail", *map(repr, asked.rows[i])])
        assert result.exit_code == 0, result.output
        said = json.loads(result.output)
        assert said["prediction"] == asked.predictions[i]
        assert list(said["probabilities"].values()) == asked.probabilities[i]
