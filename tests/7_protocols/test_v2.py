"""The Open Inference Protocol as its clients meet it: right tensors, and errors they can read."""

import gzip
import http.client
import json
import os
import pickle
import shutil
import signal
import time
import tracemalloc
import zlib

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from questions import BINARY_OUTPUT, framed
from services import Service
from sklearn.svm import LinearSVC

from iris_serve.data.table import iris
from iris_serve.model.load import EstimatorPredictor
from iris_serve.model.save import MODEL_FILE
from iris_serve.protocols.framing import JSON_LENGTH_HEADER
from iris_serve.protocols.infer import infer_reply
from iris_serve.protocols.tensors import DATATYPES, Output, read_tensor, write_output
from iris_serve.protocols.v2 import make_v2
from iris_serve.registry.registry import Registry
from iris_serve.service.access import Policy
from iris_serve.service.app import create_app
from iris_serve.service.errors import Reply
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.1, 2.8, 4.7, 1.2], [6.3, 3.3, 6.0, 2.5]]
FLAT = [value for row in ROWS for value in row]
TABLE = {"name": "features", "shape": [3, 4], "datatype": "FP64", "data": FLAT}
ONE = TABLE | {"shape": [1, 4], "data": FLAT[:4]}
INFER = "/v2/models/iris/infer"


def client_of(folder, policy=None):
    live = LivePredictor(Registry(folder))
    live.stop()
    return create_app(live, [make_v2(Versions(live))], policy or Policy()).test_client()


@pytest.fixture(scope="module")
def client(canary):
    return client_of(canary)


@pytest.fixture(scope="module")
def estimators(canary):
    return {version: joblib.load(canary / "iris" / version / MODEL_FILE) for version in "12"}


def ask(client, *inputs, path=INFER, **more):
    return client.post(path, data=json.dumps({"inputs": inputs, **more}))


def tensors(answer):
    assert answer.status_code == 200, answer.data
    return {output["name"]: output for output in answer.json["outputs"]}


def data_of(answer):
    return {name: output["data"] for name, output in tensors(answer).items()}


def assert_refused(answer, status=400, words=""):
    """An error as the clients of this protocol read it: a text under `error`, in JSON."""
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/json"
    assert isinstance(answer.json["error"], str)
    assert words in answer.json["error"]
    assert len(answer.data) < 30_000
    for leak in (b"Traceback", b"site-packages", b"/tmp", b"/home", b".py"):
        assert leak not in answer.data


def in_bytes(*inputs, extra=b"", **more):
    """A request that has the data of its inputs behind the JSON."""
    tensors = []
    for tensor in inputs:
        head = {key: value for key, value in tensor.items() if key != "data"}
        tensors.append((head, np.array(tensor["data"], DATATYPES[tensor["datatype"]])))
    body, headers = framed(tensors, extra, **more)
    return {"data": body, "headers": headers}


def out_of_bytes(answer):
    """The outputs of a reply that has them behind its JSON."""
    assert answer.status_code == 200, answer.data
    assert answer.content_type == "application/octet-stream"
    size = int(answer.headers[JSON_LENGTH_HEADER])
    front, tail = json.loads(answer.data[:size]), answer.data[size:]
    found = {}
    for output in front["outputs"]:
        length = output["parameters"]["binary_data_size"]
        found[output["name"]], tail = tail[:length], tail[length:]
    assert tail == b""
    return front, found


# What is accepted


def test_flat_and_nested_data_are_the_same_question(client, estimators):
    flat, nested = ask(client, TABLE), ask(client, TABLE | {"data": ROWS})
    assert data_of(flat) == data_of(nested)
    assert data_of(flat)["label"] == estimators["1"].predict(ROWS).tolist()
    sure = estimators["1"].predict_proba(ROWS).ravel().tolist()
    assert data_of(flat)["probabilities"] == sure


def test_outputs_have_the_shapes_and_datatypes_that_the_metadata_announce(client):
    announced = client.get("/v2/models/iris").json["outputs"]
    for output in announced:
        found = tensors(ask(client, TABLE))[output["name"]]
        assert found["datatype"] == output["datatype"]
        assert found["shape"] == [3 if size == -1 else size for size in output["shape"]]


def without_id(answer):
    assert answer.status_code == 200, answer.data
    return {key: value for key, value in answer.json.items() if key != "id"}


NULLS = {"binary_data": None, "classification": None}


@pytest.mark.parametrize(
    "more",
    [
        {"id": None},
        {"parameters": None},
        {"outputs": None},
        {"parameters": {"binary_data_output": None, "headers": None}},
        {"outputs": [{"name": name, "parameters": None} for name in ("label", "probabilities")]},
        {"outputs": [{"name": name, "parameters": NULLS} for name in ("label", "probabilities")]},
        {"inputs": [TABLE | {"parameters": None}]},
        {"inputs": [TABLE | {"parameters": {"binary_data_size": None, "content_type": None}}]},
    ],
)
def test_a_key_that_is_null_is_a_key_that_is_left_out(client, more):
    asked = client.post(INFER, data=json.dumps({"inputs": [TABLE], **more}))
    assert without_id(asked) == without_id(ask(client, TABLE))


def test_data_may_be_null_where_they_are_bytes_and_nowhere_else(client):
    raw = np.array(FLAT, "<f8").tobytes()
    tensor = TABLE | {"data": None, "parameters": {"binary_data_size": len(raw)}}
    front = json.dumps({"inputs": [tensor]}).encode()
    headers = {JSON_LENGTH_HEADER: str(len(front))}
    answer = client.post(INFER, data=front + raw, headers=headers)
    assert without_id(answer) == without_id(ask(client, TABLE))
    assert_refused(ask(client, TABLE | {"data": None}), 400, "data: must be a list, got null")


def test_the_index_of_the_repository_takes_null_for_all_versions(client):
    path = "/v2/repository/index"
    assert client.post(path, json={"ready": None}).json == client.post(path, json={}).json
    assert_refused(client.post(path, json={"ready": 0}), 400, "ready: must be true or false")


def test_the_outputs_of_mlservers_runtime_are_answered_under_their_names(client):
    own = tensors(ask(client, TABLE))
    names = {"predict": "label", "predict_proba": "probabilities"}
    for asked in (["predict"], ["predict_proba"], ["predict_proba", "predict"]):
        found = tensors(ask(client, TABLE, outputs=[{"name": name} for name in asked]))
        assert list(found) == asked
        for name, output in found.items():
            assert output | {"name": names[name]} == own[names[name]]
    options = {"classification": 2, "binary_data": False}
    sure = [{"name": name, "parameters": options} for name in ("predict_proba", "probabilities")]
    found = [ask(client, TABLE, outputs=[one]).json["outputs"][0]["data"] for one in sure]
    assert found[0] == found[1]
    both = ask(client, TABLE, outputs=[{"name": "predict"}, {"name": "label"}])
    assert_refused(both, 400, "outputs[1].name: is requested twice")
    top = ask(client, TABLE, outputs=[{"name": "predict", "parameters": {"classification": 1}}])
    assert_refused(top, 400, "of probabilities only")


@pytest.mark.parametrize("datatype", list(DATATYPES))
def test_every_number_type_is_accepted(client, estimators, datatype):
    whole = [5, 3, 1, 0]
    for values in (whole, [float(value) for value in whole]):
        found = data_of(ask(client, ONE | {"datatype": datatype, "data": values}))
        assert found["label"] == estimators["1"].predict([whole]).tolist()


def test_a_32_bit_float_means_the_same_in_json_and_in_bytes(client):
    one = TABLE | {"datatype": "FP32"}
    assert data_of(ask(client, one)) == data_of(client.post(INFER, **in_bytes(one)))


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_one_tensor_for_each_feature_is_accepted_in_any_order(client, shape):
    names = iris().contract.names
    columns = [
        {"name": name, "shape": shape, "datatype": "FP64", "data": [row[i] for row in ROWS]}
        for i, name in enumerate(names)
    ]
    expected = data_of(ask(client, TABLE))
    assert data_of(ask(client, *columns)) == expected
    assert data_of(ask(client, *reversed(columns))) == expected
    assert data_of(client.post(INFER, **in_bytes(*columns[::-1]))) == expected


def test_no_rows_get_empty_outputs(client):
    found = tensors(ask(client, TABLE | {"shape": [0, 4], "data": []}))
    assert (found["label"]["shape"], found["label"]["data"]) == ([0], [])
    assert (found["probabilities"]["shape"], found["probabilities"]["data"]) == ([0, 3], [])


@pytest.mark.parametrize("ident", ["42", "", "Blüte 7 🌷", "\ud83c", "a" * 10_000])
def test_an_id_comes_back_as_it_was_sent(client, ident):
    assert ask(client, ONE, id=ident).json["id"] == ident


@pytest.mark.parametrize("more", [{}, {"id": None}])
def test_a_question_without_an_id_gets_a_new_one(client, more):
    one, other = (ask(client, ONE, **more).json["id"] for _ in range(2))
    assert one != other
    assert len(one) == 36


def test_unknown_parameters_and_keys_are_ignored(client):
    odd = {"parameters": {"priority": 7, "content_type": "np"}}
    answer = ask(
        client, ONE | odd | {"note": 1}, outputs=[{"name": "label"} | odd], **odd, model="x"
    )
    assert list(tensors(answer)) == ["label"]


@pytest.mark.parametrize("name", ["input-0", "predict", "features", "x", "INPUT__0", "args_0"])
def test_a_table_may_have_nearly_any_name(client, name):
    assert ask(client, ONE | {"name": name}).status_code == 200


def test_keys_that_clients_add_are_not_taken_for_misspelt_ones(client):
    top = {
        "model_name": "iris",
        "model_version": "1",
        "priority": 1,
        "metadata": {},
        "timeout": 9,
        "uid": 7,
    }
    ours = {"sequence_id": 7, "headers": {}, "content_type": "np", "shared_memory_offset": 0}
    one = ONE | {"metadata": {}, "contents": None, "parameters": ours}
    assert ask(client, one, parameters=ours, **top).status_code == 200


def test_all_mistakes_are_reported_at_once(client):
    first = TABLE | {"name": "", "datatype": "float64", "data": [[1], ROWS[1], [None] * 4]}
    second = ONE | {"datatype": "FP128", "dtaa": 1, "data": [None, 1, "x", 1]}
    wishes = [{"name": "lable"}, {"name": "label", "parameters": {"binary_data": 1}}]
    answer = ask(client, first, second, TABLE | {"shape": "4"}, outputs=wishes, id=7)
    assert_refused(answer)
    assert [error["pointer"] for error in answer.json["errors"]] == [
        "#/id",
        "#/outputs/0/name",
        "#/outputs/1/parameters/binary_data",
        "#/inputs/1/dtaa",
        "#/inputs/0/name",
        "#/inputs/0/datatype",
        "#/inputs/0/data/0",
        "#/inputs/1/datatype",
        "#/inputs/1/data/0",
        "#/inputs/1/data/2",
        "#/inputs/2/shape",
    ]


def test_the_extreme_numbers_of_a_datatype_are_accepted(client):
    for datatype, value in (("INT64", -(2**63)), ("UINT64", 2**64 - 2**11), ("INT8", 127)):
        one = ONE | {"datatype": datatype, "data": [value, 1, 1, 1]}
        assert ask(client, one).status_code == 200, datatype


def test_outputs_come_in_the_order_in_which_they_were_requested(client):
    names = ["probabilities", "label"]
    assert list(tensors(ask(client, ONE, outputs=[{"name": name} for name in names]))) == names
    assert list(tensors(ask(client, ONE, outputs=[]))) == names[::-1]


@pytest.mark.parametrize(
    "kind", [None, "application/x-www-form-urlencoded", "application/octet-stream", "text/csv", "x"]
)
def test_a_body_needs_no_content_type(client, kind):
    body = json.dumps({"inputs": [ONE]})
    assert client.post(INFER, data=body, content_type=kind).status_code == 200


def test_a_compressed_body_is_read(client):
    body = json.dumps({"inputs": [TABLE]}).encode()
    raw = zlib.compress(body)[2:-4]
    for encoding, packed in (
        ("gzip", gzip.compress(body)),
        ("deflate", zlib.compress(body)),
        ("deflate", raw),
    ):
        answer = client.post(INFER, data=packed, headers={"Content-Encoding": encoding})
        assert data_of(answer) == data_of(ask(client, TABLE))


def test_a_compressed_body_may_hold_binary_tensors(client):
    asked = in_bytes(TABLE)
    headers = asked["headers"] | {"Content-Encoding": "gzip"}
    answer = client.post(INFER, data=gzip.compress(asked["data"]), headers=headers)
    assert data_of(answer) == data_of(ask(client, TABLE))


# Binary tensors and classifications


def test_binary_tensors_get_the_same_answers_as_json(client):
    assert data_of(client.post(INFER, **in_bytes(TABLE))) == data_of(ask(client, TABLE))


@pytest.mark.parametrize("packed", [True, False], ids=["bytes in", "JSON in"])
def test_binary_outputs_hold_the_same_answers_as_json(client, packed):
    answer = (
        client.post(INFER, **in_bytes(TABLE, **BINARY_OUTPUT))
        if packed
        else ask(client, TABLE, **BINARY_OUTPUT)
    )
    front, found = out_of_bytes(answer)
    expected = data_of(ask(client, TABLE))
    assert np.frombuffer(found["label"], "<i8").tolist() == expected["label"]
    assert np.frombuffer(found["probabilities"], "<f8").tolist() == expected["probabilities"]
    assert all("data" not in output for output in front["outputs"])


def test_a_single_output_may_be_binary(client):
    wanted = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    answer = ask(client, ONE, outputs=wanted, **BINARY_OUTPUT)
    size = int(answer.headers[JSON_LENGTH_HEADER])
    label, probabilities = json.loads(answer.data[:size])["outputs"]
    assert label["data"] == [0]
    assert probabilities["parameters"] == {"binary_data_size": 24}
    assert len(answer.data) == size + 24


def test_in_binary_outputs_each_string_follows_its_length():
    label = Output("label", "BYTES", (2,), ["a", "bcd"])
    assert write_output(label, binary=True)[1] == bytes.fromhex("01000000 61 03000000 626364")


def test_a_classification_names_the_most_probable_classes_first(client, estimators):
    wanted = {"name": "probabilities", "parameters": {"classification": 2}}
    found = tensors(ask(client, TABLE, outputs=[wanted]))["probabilities"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [3, 2])
    for row, best in zip(estimators["1"].predict_proba(ROWS), found["data"][::2], strict=True):
        index = int(row.argmax())
        assert best == f"{float(row[index])}:{index}:{iris().contract.labels[index]}"


def test_a_classification_never_has_more_classes_than_there_are(client):
    wanted = {"name": "probabilities", "parameters": {"classification": 2**31 - 1}}
    assert tensors(ask(client, ONE, outputs=[wanted]))["probabilities"]["shape"] == [1, 3]


def test_a_model_without_probabilities_has_one_output():
    table = iris()
    machine = LinearSVC(random_state=0).fit(table.X, table.y)
    predictor = EstimatorPredictor(machine, "iris", 1, table.contract, "")
    reply = infer_reply(json.dumps({"inputs": [TABLE]}).encode(), predictor)
    assert [output["name"] for output in json.loads(reply.body)["outputs"]] == ["label"]
    assert list(reply.answers) == machine.predict(ROWS).tolist()


# Versions


def test_the_version_in_the_path_answers(client, estimators):
    for named, version in (("1", "1"), ("2", "2"), ("current", "1"), ("canary", "2")):
        answer = ask(client, TABLE, path=f"/v2/models/iris/versions/{named}/infer")
        assert answer.json["model_version"] == answer.headers["X-Model-Version"] == version
        sure = estimators[version].predict_proba(ROWS).ravel().tolist()
        assert data_of(answer)["probabilities"] == sure
    assert ask(client, TABLE).json["model_version"] == "1"


@pytest.mark.parametrize("what", ["", "/ready", "/infer"])
@pytest.mark.parametrize("where", ["iris/versions/9", "iris/versions/0", "iris/versions/x", "rose"])
def test_an_unknown_version_or_model_is_a_404(client, where, what):
    path = f"/v2/models/{where}{what}"
    answer = client.post(path, data="{}") if what == "/infer" else client.get(path)
    assert_refused(answer, 404)


def test_a_version_that_cannot_be_trusted_is_a_503(canary, tmp_path):
    folder = shutil.copytree(canary, tmp_path / "models")
    card = folder / "iris" / "2" / "card.json"
    card.write_bytes(card.read_bytes().replace(b"petal", b"metal"))
    client = client_of(folder)
    assert_refused(client.get("/v2/models/iris/versions/2/ready"), 503)
    assert_refused(ask(client, ONE, path="/v2/models/iris/versions/2/infer"), 503)
    assert ask(client, ONE).status_code == 200


def test_the_server_and_the_model_describe_themselves(client):
    server = client.get("/v2").json
    assert {"name", "version", "extensions"} == set(server)
    assert {"binary_tensor_data", "classification"} <= set(server["extensions"])
    for path in ("/v2/health/live", "/v2/health/ready"):  # see below for a service without a model
        assert client.get(path).json == {"live": True, "ready": True}
    assert client.get("/v2/models").json == {"models": ["iris"]}
    for path in ("/v2/models/iris", "/v2/models/iris/versions/2"):
        said = client.get(path).json
        assert (said["name"], said["versions"]) == ("iris", ["1", "2"])
        assert said["platform"] == "iris-serve_frozenforest"
        assert said["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}]
        assert client.get(f"{path}/ready").json == {"name": "iris", "ready": True}


def test_the_index_says_which_versions_are_loaded(canary):
    client = client_of(canary)

    def states(body):
        said = client.post("/v2/repository/index", data=body).json
        return {entry["version"]: entry["state"] for entry in said}

    assert states(b"") == states(b"{}") == {"1": "READY", "2": "UNKNOWN"}
    assert states(b'{"ready": true}') == {"1": "READY"}
    ask(client, ONE, path="/v2/models/iris/versions/2/infer")
    assert states(b'{"ready": true}') == {"1": "READY", "2": "READY"}
    for body in (b"[1]", b"x", b'{"ready": 1}'):
        assert_refused(client.post("/v2/repository/index", data=body))


def test_a_service_without_a_model_is_alive_and_not_ready(tmp_path):
    live = LivePredictor(Registry(tmp_path / "models"), allow_empty=True)
    live.stop()
    client = create_app(live, [make_v2(Versions(live))]).test_client()
    answer = client.get("/v2/health/live")
    assert (answer.status_code, answer.json) == (200, {"live": True, "ready": False})
    assert_refused(client.get("/v2/health/ready"), 503)


@pytest.mark.parametrize("what", ["load", "unload"])
def test_no_request_loads_or_unloads_a_model(client, what):
    answer = client.post(f"/v2/repository/models/iris/{what}", data=b"{}")
    assert_refused(answer, 403, "promote")
    assert_refused(client.post(f"/v2/repository/models/rose/{what}"), 404)


# What is refused


WRONG = {
    "an element too few": (
        [ONE | {"data": FLAT[:3]}],
        "holds 3 values, but the shape [1, 4] needs 4",
    ),
    "an element too many": (
        [ONE | {"data": FLAT[:5]}],
        "holds 5 values, but the shape [1, 4] needs 4",
    ),
    "a feature too few": ([ONE | {"shape": [1, 3], "data": FLAT[:3]}], "must be [n, 4]"),
    "a feature too many": ([ONE | {"shape": [1, 5], "data": FLAT[:5]}], "must be [n, 4]"),
    "rank 1": ([ONE | {"shape": [4]}], "must be [n, 4]"),
    "rank 3": ([ONE | {"shape": [1, 1, 4]}], "must be [n, 4]"),
    "rank 0": ([ONE | {"shape": [], "data": [1]}], "must be [n, 4]"),
    "rank 9": ([ONE | {"shape": [1] * 8 + [4]}], "at most 8 sizes"),
    "ragged": ([TABLE | {"data": [*ROWS[:2], ROWS[2][:3]]}], "data[2]: must be a list of 4"),
    "nested otherwise": ([TABLE | {"data": [FLAT]}], "must be a list of 3"),
    "half nested": ([TABLE | {"data": [ROWS[0], *FLAT[:2]]}], "data[1]: must be a list of 4"),
    "data missing": ([{k: v for k, v in ONE.items() if k != "data"}], "data: must be a list"),
    "data a number": ([ONE | {"data": 5}], "data: must be a list"),
    "unknown datatype": ([ONE | {"datatype": "FP128"}], "must be one of FP16"),
    "STRING": ([ONE | {"datatype": "STRING"}], "must be one of FP16"),
    "float64": ([ONE | {"datatype": "float64"}], "did you mean FP64?"),
    "datatype missing": ([ONE | {"datatype": None}], "datatype: must be one of"),
    "BYTES": ([ONE | {"datatype": "BYTES", "data": ["5"] * 4}], "BYTES holds strings"),
    "BOOL": ([ONE | {"datatype": "BOOL", "data": [True] * 4}], "BOOL holds true and false"),
    "a boolean": (
        [ONE | {"data": [5.1, True, 1.4, 0.2]}],
        "data[1] (sepal_width): must be a number, got true",
    ),
    "a string": (
        [ONE | {"data": [5.1, "abc", 1.4, 0.2]}],
        "data[1] (sepal_width): must be a number",
    ),
    "a null": (
        [ONE | {"data": [5.1, None, 1.4, 0.2]}],
        "data[1] (sepal_width): must be a number, got null",
    ),
    "beyond float32": (
        [ONE | {"data": [5.1, 3.5, 1.4, 4e38]}],
        "data[3] (petal_width): must be a number between",
    ),
    "300 as UINT8": ([ONE | {"datatype": "UINT8", "data": [300, 1, 1, 1]}], "from 0 to 255"),
    "-1 as UINT64": ([ONE | {"datatype": "UINT64", "data": [-1, 1, 1, 1]}], "from 0 to"),
    "2**64 as UINT64": (
        [ONE | {"datatype": "UINT64", "data": [1, 2**64, 1, 1]}],
        "data[1] (sepal_width): must be a whole number from 0 to 18446744073709551615",
    ),
    "2**63 as INT64": (
        [ONE | {"datatype": "INT64", "data": [1, 2**63, 1, 1]}],
        "data[1] (sepal_width): must be a whole number from -9223372036854775808",
    ),
    "128 as INT8": ([ONE | {"datatype": "INT8", "data": [128, 1, 1, 1]}], "from -128 to 127"),
    "a half as INT64": (
        [ONE | {"datatype": "INT64", "data": [0.5, 1, 1, 1]}],
        "must be a whole number, as INT64 holds integers; decimals are sent as FP64",
    ),
    "70000 as FP16": ([ONE | {"datatype": "FP16", "data": [70000, 1, 1, 1]}], "range of FP16"),
    "no inputs": ([], "must be a list of at least one tensor"),
    "an input a list": ([[1]], "inputs[0]: must be an object"),
    "a name missing": ([ONE | {"name": None}], "name: must be a non-empty string"),
    "a name empty": ([ONE | {"name": ""}], "name: must be a non-empty string"),
    "two names alike": ([ONE, ONE], "inputs[1].name: another tensor has the same name"),
    "a negative size": ([ONE | {"shape": [-1, 4]}], "shape[0]: must be a whole number"),
    "a size true": ([ONE | {"shape": [True, 4]}], "shape[0]: must be a whole number"),
    "half a size": ([ONE | {"shape": [1.5, 4]}], "shape[0]: must be a whole number"),
    "a shape a string": ([ONE | {"shape": "1,4"}], "shape: must be a list"),
    "a column missing": (
        [{"name": "sepal_length", "shape": [1], "datatype": "FP64", "data": [5.1]}],
        "inputs (sepal_width): sepal_width is missing",
    ),
    "parameters 0": ([ONE | {"parameters": 0}], "inputs[0].parameters: must be an object"),
    "parameters []": ([ONE | {"parameters": []}], "inputs[0].parameters: must be an object"),
    "data misspelt": ([ONE | {"dtaa": 1}], "inputs[0].dtaa: unknown key; did you mean data?"),
    "dtype": ([ONE | {"dtype": "FP64"}], "inputs[0].dtype: unknown key; did you mean datatype?"),
    "a parameter misspelt": (
        [ONE | {"parameters": {"binary_data_sise": 8}}],
        "parameters.binary_data_sise: unknown key; did you mean binary_data_size?",
    ),
    "a table misspelt": (
        [ONE | {"name": "featrues"}],
        "inputs[0].name: unknown name; did you mean features?",
    ),
    "a table called as a feature": (
        [ONE | {"name": "sepal_width"}],
        "inputs[0].name: is the name of one feature, and this tensor holds all 4; use features",
    ),
    "parameters a list": ([ONE | {"parameters": [1]}], "parameters: must be an object"),
    "bytes that are not there": (
        [
            {
                "name": "x",
                "shape": [1, 4],
                "datatype": "FP64",
                "parameters": {"binary_data_size": 32},
            }
        ],
        "0 are left for this tensor",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tensor_is_a_400_that_says_what_and_where(client, name):
    inputs, words = WRONG[name]
    assert_refused(ask(client, *inputs), 400, words)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000])
def test_a_number_that_is_not_finite_is_a_400(client, literal):
    body = json.dumps({"inputs": [ONE]}).replace("5.1", literal)
    assert_refused(
        client.post(INFER, data=body), 400, "inputs[0].data[0] (sepal_length): must be a number"
    )


@pytest.mark.parametrize(
    "shape", [[2**63], [2**63, 4], [2**31 - 1] * 8, [2**21] * 3, [1e308, 4], [10**400]]
)
def test_a_huge_shape_is_refused_before_memory_is_allocated(client, shape):
    body = json.dumps({"inputs": [ONE | {"shape": shape}]})
    small = json.dumps({"inputs": [ONE | {"shape": [2]}]})
    client.post(INFER, data=small)
    tracemalloc.start()
    try:
        assert_refused(client.post(INFER, data=body), 400, "shape")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_every_wrong_value_is_reported_with_its_pointer_and_its_feature(client):
    answer = ask(client, TABLE | {"data": [[None, "x", 1, 1], ROWS[1], [1, 1, 1, False]]})
    errors = [(error["pointer"], error["field"]) for error in answer.json["errors"]]
    assert errors == [
        ("#/inputs/0/data/0/0", "sepal_length"),
        ("#/inputs/0/data/0/1", "sepal_width"),
        ("#/inputs/0/data/2/3", "petal_width"),
    ]


def test_wrong_values_in_a_tensor_without_a_name_are_reported_too(client):
    column = {"shape": [1], "datatype": "FP64", "data": [None]}
    for unnamed in (column, column | {"name": None}, column | {"name": ["petal_width"]}):
        answer = ask(client, unnamed, column | {"name": "petal_width"})
        assert_refused(answer)
        errors = [(error["pointer"], error.get("field")) for error in answer.json["errors"]]
        assert errors == [
            ("#/inputs/0/name", None),
            ("#/inputs/0/data/0", None),
            ("#/inputs/1/data/0", "petal_width"),
        ]


def test_a_wrong_value_in_a_single_column_is_reported_with_its_feature(client):
    column = {"name": "petal_width", "datatype": "FP64"}
    for shape, data in (([3], [1, 1, None]), ([3, 1], [[1], [1], [None]])):
        answer = ask(client, column | {"shape": shape, "data": data})
        assert_refused(answer)
        assert [error["field"] for error in answer.json["errors"]] == ["petal_width"]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"inputs": [TABLE | {"shape": [43_000, 4], "data": [None] * 172_000}]}),
        json.dumps({"inputs": [TABLE | {"shape": [40_000, 4], "data": [[None] * 4] * 40_000}]}),
        json.dumps({"inputs": [TABLE | {"shape": [9_999, 17], "data": [None] * 169_983}]}),
        json.dumps({"inputs": [TABLE | {"shape": [99_900, 4], "data": [1] * 399_600}]}),
        json.dumps(
            {
                "inputs": [
                    TABLE | {"shape": [300_000], "datatype": "UINT8", "data": [7] * 299_999 + [256]}
                ]
            }
        ),
        json.dumps(
            {"inputs": [TABLE | {"shape": [50_000] + [1] * 7, "data": [[[[[[[[1]]]]]]]] * 50_000}]}
        ),
        b'{"inputs": [' + b"{}," * 300_000 + b"{}]}",
        b'{"inputs": [], "outputs": [' + b"{}," * 300_000 + b"{}]}",
        json.dumps(
            {"inputs": [ONE | {"parameters": {f"binary_dat{i}": i for i in range(40_000)}}]}
        ),
        json.dumps({"inputs": []} | {f"inputz{i}": i for i in range(50_000)}),
    ],
    ids=[
        "nulls",
        "nested nulls",
        "nulls in few rows",
        "too many rows",
        "one too large",
        "deep",
        "empty inputs",
        "empty outputs",
        "many parameters",
        "many keys",
    ],
)
def test_a_body_full_of_mistakes_costs_little(client, body):
    started = time.thread_time()
    json.loads(body)
    parsed = time.thread_time()
    answer = client.post(INFER, data=body)
    assert time.thread_time() - parsed < 100 * (parsed - started)
    assert answer.status_code in (400, 413)  # too many rows are found before wrong values
    assert_refused(answer, answer.status_code)


def test_a_long_name_is_not_sent_back_a_hundred_times(client):
    long = {"shape": [1000], "datatype": "FP64", "data": [None] * 1000}
    answer = ask(client, long | {"name": "x" * 900_000}, long | {"name": "sepal_length"})
    assert answer.status_code == 400
    assert len(answer.data) < 50_000


def test_a_misspelt_feature_gets_a_suggestion(client):
    names = ["sepal_length", "sepal_widht", "petal_length", "petal_width"]
    columns = [{"name": n, "shape": [1], "datatype": "FP64", "data": [1]} for n in names]
    answer = ask(client, *columns)
    assert_refused(
        answer, 400, "inputs[1].name: is the name of no feature; did you mean sepal_width?"
    )
    assert "sepal_width is missing" in answer.json["error"]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (100, "inputs[0].name: is the name of no feature; did you mean sepal_"),
        (15_000, "inputs: holds 15000 tensors; at most 104 are read"),
    ],
)
def test_many_unknown_tensors_are_refused(client, count, words):
    body = ",".join(
        f'{{"name":"sepal_{i}","shape":[1],"datatype":"FP64","data":[1]}}' for i in range(count)
    )
    answer = client.post(INFER, data=f'{{"inputs":[{body}]}}')
    assert_refused(answer, 400, words)


def test_columns_of_unequal_length_are_a_400(client):
    names = iris().contract.names
    columns = [
        {"name": name, "shape": [n], "datatype": "FP64", "data": [1] * n}
        for name, n in zip(names, (2, 2, 3, 2), strict=True)
    ]
    assert_refused(
        ask(client, *columns), 400, "inputs[2].shape (petal_length): must be [2] or [2, 1]"
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"outputs": [{"name": "species"}]}, "must be an output of this model"),
        ({"outputs": [{"name": "labels"}]}, "did you mean label?"),
        ({"outputs": [{"name": "label"}] * 2}, "outputs[1].name: is requested twice"),
        ({"outputs": [{"name": "label"}] * 9}, "names 9 outputs, but this model has 2"),
        ({"outputs": [{}]}, "outputs[0].name"),
        ({"outputs": ["label"]}, "outputs: must be a list of objects"),
        ({"outputs": {"name": "label"}}, "outputs: must be a list of objects"),
        ({"outputs": [{"name": "label", "parameters": 1}]}, "parameters: must be an object"),
        (
            {"outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
            "outputs[0].parameters.binary_data: must be true or false",
        ),
        (
            {"outputs": [{"name": "label", "parameters": {"classification": 1}}]},
            "of probabilities only",
        ),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]},
            "a number of classes",
        ),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output: must be true or false"),
        ({"id": 42}, "id: must be a string"),
        ({"ID": "7"}, "ID: unknown key; did you mean id?"),
        ({"outptus": [{"name": "label"}]}, "outptus: unknown key; did you mean outputs?"),
        ({"parameters": []}, "parameters: must be an object"),
        ({"parameters": 0}, "parameters: must be an object"),
        ({"parameters": {"binary_data_ouput": True}}, "did you mean binary_data_output?"),
        ({"outputs": [{"name": "label", "params": {}}]}, "did you mean parameters?"),
    ],
)
def test_a_wrong_option_is_a_400(client, more, words):
    assert_refused(ask(client, ONE, **more), 400, words)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("999999", "must be a number of bytes"),
        ("-1", "a number of bytes"),
        ("", "a number of bytes"),
    ],
)
def test_an_impossible_length_of_the_json_is_a_400(client, length, words):
    asked = in_bytes(ONE)
    assert_refused(
        client.post(INFER, data=asked["data"], headers={JSON_LENGTH_HEADER: length}), 400, words
    )


@pytest.mark.parametrize("size", [31, 33, 0, -1, 32.5, True, "32", 2**63, None])
def test_a_binary_data_size_that_does_not_fit_the_shape_is_a_400(client, size):
    head = {"name": "x", "shape": [1, 4], "datatype": "FP64"}
    front = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": size}}]}).encode()
    body = front + np.array(FLAT[:4], "<f8").tobytes()
    assert_refused(client.post(INFER, data=body, headers={JSON_LENGTH_HEADER: str(len(front))}))


def test_bytes_that_belong_to_no_tensor_are_a_400(client):
    assert_refused(client.post(INFER, **in_bytes(ONE, extra=b"x")), 400, "belong to no tensor")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_binary_number_that_is_not_finite_is_a_400(client, value):
    answer = client.post(INFER, **in_bytes(ONE | {"data": [5.1, value, 1.4, 0.2]}))
    assert_refused(answer, 400, "inputs[0]: value 1 of its bytes must be a number")


def test_a_pickle_behind_the_json_is_never_opened(client, tmp_path, trap):
    raw = pickle.dumps(trap)
    head = {"name": "x", "shape": [len(raw)], "datatype": "UINT8"}
    front = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    assert_refused(
        client.post(INFER, data=front + raw, headers={JSON_LENGTH_HEADER: str(len(front))})
    )
    assert not (tmp_path / "the-trap-has-run").exists()


def test_an_unknown_path_or_method_gets_the_protocols_error_too(client):
    assert_refused(client.get("/v2/"), 404)
    assert_refused(client.get("/v2/models/iris/stats"), 404)
    assert_refused(client.get(INFER), 405)
    assert_refused(client.post("/v2"), 405)


def test_a_path_that_only_begins_like_the_protocols_gets_a_problem(client):
    for path in ("/v2foo", "/v10", "/invocations2"):
        refused = client.get(path)
        assert (refused.status_code, refused.content_type) == (404, "application/problem+json")


# Names that appear more than once


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"inputs": [], "inputs": []}', "inputs: appears more than once"),
        (b'{"inputs": [{"name": "x", "data": [1], "data": [2]}]}', "data: appears more than once"),
    ],
)
def test_a_name_that_appears_more_than_once_is_a_400(client, body, words):
    assert_refused(client.post(INFER, data=body), 400, words)


# Any tensor whatsoever


@pytest.mark.parametrize("datatype", list(DATATYPES))
@settings(max_examples=30, deadline=None, print_blob=True)
@given(st.data())
def test_any_array_is_read_exactly_in_json_and_in_bytes(datatype, data):
    dtype = DATATYPES[datatype]
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    elements = hnp.from_dtype(dtype, **finite).filter(lambda x: abs(float(x)) < 3.4e38)
    array = data.draw(
        hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=4), elements=elements)
    )
    head = {"name": "x", "shape": list(array.shape), "datatype": datatype}
    expected = array.astype(float).ravel().tolist()
    assert read_tensor(head, array.tobytes(), ()).values == expected
    for values in (array.tolist(), array.ravel().tolist()):
        assert read_tensor(head | {"data": values}, None, ()).values == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
KEYS = ("name", "shape", "datatype", "data", "parameters")


@pytest.mark.parametrize("examples", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_tensor_is_answered_or_refused_with_a_reason(client, examples):
    @settings(max_examples=examples, deadline=None, print_blob=True, database=None)
    @given(st.dictionaries(st.sampled_from(KEYS), JSON), st.binary(max_size=40), st.booleans())
    def check(change, tail, framed):
        front = json.dumps({"inputs": [ONE | change]}).encode()
        headers = {JSON_LENGTH_HEADER: str(len(front))} if framed else {}
        answer = client.post(INFER, data=front + (tail if framed else b""), headers=headers)
        if answer.status_code != 200:
            assert_refused(answer, answer.status_code)
            assert answer.status_code in (400, 413)

    check()


@pytest.mark.parametrize("examples", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_change_of_bytes_is_answered_or_refused_with_a_reason(client, examples):
    asked = in_bytes(TABLE, **BINARY_OUTPUT)
    body, headers = asked["data"], asked["headers"]

    @settings(max_examples=examples, deadline=None, print_blob=True, database=None)
    @given(
        st.integers(0, len(body)),
        st.integers(0, 9),
        st.binary(max_size=9),
        st.text("0123456789", max_size=4),
    )
    def check(start, length, new, more):
        changed = body[:start] + new + body[start + length :]
        answer = client.post(
            INFER, data=changed, headers={JSON_LENGTH_HEADER: headers[JSON_LENGTH_HEADER] + more}
        )
        if answer.status_code != 200:
            assert_refused(answer, answer.status_code)
            assert answer.status_code == 400

    check()


# A real server


@pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")
def test_a_connection_goes_on_after_every_error(models):
    good = json.dumps({"inputs": [TABLE]})
    with Service(models) as service:
        service.ready()
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        connection.connect()
        connection.auto_open = False

        def told(body, path=INFER, **headers):
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(answer.read())

        expected = told(good)[1]["outputs"]
        for status, body, path, headers in (
            (400, b"{}", INFER, {}),
            (400, good, INFER, {JSON_LENGTH_HEADER: "9" * 9}),
            (400, b"x" * 100, INFER, {"Content-Encoding": "gzip"}),
            (404, good * 100, "/v2/models/rose/infer", {}),
            (404, good * 100, "/v2/models/iris/versions/9/infer", {}),
            (405, good * 100, "/v2", {}),
            (415, good, INFER, {"Content-Encoding": "br"}),
            (403, good * 100, "/v2/repository/models/iris/load", {}),
        ):
            assert told(body, path, **headers)[0] == status, path
            assert told(good)[1]["outputs"] == expected
        connection.close()
        assert service.stop(signal.SIGTERM) == 0


def test_a_reply_carries_its_answers_for_the_metrics(trained):
    reply = infer_reply(
        json.dumps({"inputs": [TABLE]}).encode(), LivePredictor(Registry(trained)).now
    )
    assert isinstance(reply, Reply)
    assert list(reply.answers) == [0, 1, 2]
