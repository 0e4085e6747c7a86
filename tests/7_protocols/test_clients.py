"""Clients that others wrote, in an environment of their own, get the estimator's answers."""

import http.client
import json
import os
import select
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from questions import wine_as_a_file
from services import Service
from sklearn.datasets import load_iris, load_wine

from iris_serve.training.retrain import Parameters, train

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-clients"
PYTHON = PLACE / ("bin/python" if os.name == "posix" else "Scripts/python.exe")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX"),
    pytest.mark.skipif(
        not (PLACE / "made-from").exists() and not os.environ.get("CI"),
        reason="there is no .venv-clients, which python3 scripts/check.py makes, and CI is not set",
    ),
]


def run_client(script, given, *words):
    """What a script in tests/clients prints, run by the Python that has the clients."""
    command = [PYTHON, "-I", ROOT / "tests" / "clients" / script, *words]
    text = json.dumps(given)
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["iris", "wine"])
def served(request, tmp_path_factory):
    """A service, rows to ask it for, and what the estimator in its artifact says of them."""
    name, folder = request.param, tmp_path_factory.mktemp("served")
    own = {"data": wine_as_a_file(folder, "château {}"), "target": "kind"} if name == "wine" else {}
    train(folder / "models", Parameters(name=name, n_estimators=10, **own))
    artifact = folder / "models" / name / "1"
    estimator = joblib.load(artifact / "iris_model.pkl")
    data = (load_wine if name == "wine" else load_iris)().data
    random = np.random.default_rng(5).uniform(
        data.min(axis=0), data.max(axis=0), (20, *data.shape[1:])
    )
    rows = np.vstack([data[::10], random])
    features = json.loads((artifact / "card.json").read_text())["contract"]["features"]
    with Service(folder / "models", "--name", name) as service:
        service.ready()
        yield SimpleNamespace(
            name=name,
            url=f"http://127.0.0.1:{service.port}",
            port=service.port,
            rows=rows,
            features=[feature["name"] for feature in features],
            estimator=estimator,
            datatype="BYTES" if name == "wine" else "INT64",
        )


def question(served):
    return {
        "model": served.name,
        "version": "1",
        "rows": served.rows.tolist(),
        "features": served.features,
    }


@pytest.fixture(scope="module")
def triton(served):
    return run_client("ask_triton.py", question(served), served.url)


@pytest.fixture(scope="module")
def kserve(served):
    return run_client("ask_kserve.py", question(served), served.url, "v2")


@pytest.fixture(scope="module")
def generated(served):
    return run_client("ask_open_inference.py", question(served), served.url)


def check(answer, served, rows=None):
    """An answer is that of the estimator, bit for bit, in tensors of the right shapes."""
    rows = served.rows if rows is None else rows
    labels, probabilities = served.estimator.predict(rows), served.estimator.predict_proba(rows)
    assert answer["label"]["shape"] == list(labels.shape)
    assert answer["label"]["data"] == labels.tolist()
    assert answer["probabilities"]["shape"] == list(probabilities.shape)
    assert answer["probabilities"]["data"] == probabilities.ravel().tolist()
    assert answer["model"] == served.name
    assert answer.get("version", "1") == "1"


def check_metadata(said, served):
    classes = len(served.estimator.classes_)
    assert (said["name"], said["versions"]) == (served.name, ["1"])
    assert said["platform"]
    inputs = [{"name": "features", "datatype": "FP64", "shape": [-1, len(served.features)]}]
    assert said["inputs"] == inputs
    assert said["outputs"] == [
        {"name": "label", "datatype": served.datatype, "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, classes]},
    ]


def test_tritonclient_gets_the_estimators_answers_in_every_encoding(triton, served):
    assert len(triton["answers"]) == 11
    for answer in triton["answers"].values():
        check(answer, served)
    check(triton["single"], served, served.rows.astype(np.float32).astype(np.float64))


def test_tritonclient_gets_binary_tensors_where_it_asks_for_them_and_only_there(triton):
    answers = triton["answers"]
    asked = {name for name in answers if "JSON out" not in name}
    given = {name for name in answers if answers[name]["probabilities"]["binary"]}
    assert given == {name for name in answers if answers[name]["label"]["binary"]} == asked


def test_tritonclient_learns_what_is_served(triton, served):
    ready = ("live", "ready", "model ready", "version ready")
    assert [triton[name] for name in ready] == [True] * 4
    assert [triton[f"other {name} ready"] for name in ("model", "version")] == [False] * 2
    assert {"binary_tensor_data", "classification"} <= set(triton["server"]["extensions"])
    check_metadata(triton["metadata"], served)
    check_metadata(triton["metadata of version"], served)
    (entry,) = triton["index"]
    assert (entry["name"], entry["version"], entry["state"]) == (served.name, "1", "READY")


def test_tritonclient_gets_its_request_id_back(triton):
    assert triton["id"] == "4711 ü"


@pytest.mark.parametrize("asked", ["classes", "classes in JSON"])
def test_tritonclient_gets_the_best_two_classes_as_value_index_and_label(triton, served, asked):
    probabilities = served.estimator.predict_proba(served.rows)
    told = triton[asked]["probabilities"]
    assert told["shape"] == [len(served.rows), 2]
    names = ["setosa", "versicolor", "virginica"]
    names = names if served.name == "iris" else served.estimator.classes_.tolist()
    expected = []
    for row in probabilities:
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:2]
        expected += [(float(row[i]), str(i), names[i]) for i in best]
    found = [text.split(":", 2) for text in told["data"]]
    assert [(float(value), index, label) for value, index, label in found] == expected


def test_tritonclient_gets_our_messages_for_its_mistakes_and_goes_on(triton, served):
    assert "400" in triton["wrong shape"]["status"]
    assert str(len(served.features)) in triton["wrong shape"]["message"]
    assert "client" not in triton["wrong shape"]["message"]  # its words if it cannot read ours
    for what in ("model", "version"):
        assert "404" in triton[f"wrong {what}"]["status"]
        assert what in triton[f"wrong {what}"]["message"]
    check(triton["after the errors"], served)


def test_kserve_gets_the_estimators_answers_in_every_encoding(kserve, served):
    assert len(kserve["answers"]) == 7
    for name, answer in kserve["answers"].items():
        check(answer, served)
        asked, got = answer["id"]
        assert got == (asked or got), name
        binary = name in ("binary in and out", "lists in, binary out")
        assert answer["label"]["binary"] == binary, name
    assert kserve["answers"]["an id"]["id"][1] == "4711 ü"


def test_kserve_learns_that_service_and_model_are_ready(kserve):
    assert [kserve[name] for name in ("live", "ready", "model ready")] == [True] * 3
    assert kserve["other model ready"] is False


def test_kserve_gets_our_messages_for_its_mistakes_and_goes_on(kserve, served):
    for what, status, word in (
        ("wrong shape", 400, str(len(served.features))),
        ("wrong model", 404, "model"),
    ):
        assert kserve[what]["status"] == status
        assert word in kserve[what]["message"].partition(f", '{status} ")[0]
    check(kserve["after the errors"], served)


def test_kserve_gets_the_estimators_answers_in_v1_too(served):
    found = run_client("ask_kserve.py", question(served), served.url, "v1")
    labels = served.estimator.predict(served.rows).tolist()
    assert found["predictions"]["predictions"] == labels
    assert found["model ready"] in (True, "True", "true")
    assert found["wrong shape"]["status"] == 400
    words = found["wrong shape"]["message"].partition(", '400 ")[0]
    assert str(len(served.features)) in words


def test_a_generated_client_gets_the_estimators_answers(generated, served):
    for answer in generated["answers"].values():
        check(answer, served)
    whole = generated["whole"]
    check(whole["answer"], served, np.array(whole["values"], dtype=np.float64))
    few = generated["id and label"]
    assert few["id"] == "4711 ü"
    assert few["label"]["data"] == served.estimator.predict(served.rows).tolist()
    assert "probabilities" not in few


def test_a_generated_client_learns_what_is_served(generated, served):
    assert generated["health"] == [None] * 4
    assert {"name", "version", "extensions"} <= set(generated["server"])
    check_metadata(generated["metadata"], served)
    check_metadata(generated["metadata of version"], served)


def test_a_generated_client_gets_our_messages_for_its_mistakes_and_goes_on(generated, served):
    wrong = generated["wrong shape"]
    assert (wrong["kind"], wrong["status"]) == ("BadRequestError", 400)
    assert str(len(served.features)) in wrong["message"]
    expected = {"wrong model": "ApiError"}  # of an inference it knows only the status 400
    expected |= {"wrong model ready": "NotFoundError", "wrong version ready": "NotFoundError"}
    for what, kind in expected.items():
        assert (generated[what]["kind"], generated[what]["status"]) == (kind, 404), what
        assert what.split()[1] in generated[what]["message"]
    check(generated["after the errors"], served)


def inference(served, **more):
    shape = list(served.rows.shape)
    given = {"name": "features", "shape": shape, "datatype": "FP64", "data": served.rows.tolist()}
    return {"inputs": [given], **more}


def wrong_inferences(served):
    """Requests that are wrong in many ways; each is answered by an error of the protocol."""
    (good,) = inference(served)["inputs"]
    yield from (b"", b"{", b"[]", b"{}", b'{"inputs": []}', b"\xff", b"[" * 100_000)
    for change in (
        {"shape": [1]},
        {"shape": [2**63, 1]},
        {"shape": [-1, 4]},
        {"datatype": "FP128"},
        {"data": []},
        {"data": [["a"]]},
        {"data": None},
    ):
        yield json.dumps({"inputs": [good | change]})
    yield json.dumps({"inputs": [good, good]})
    yield json.dumps({"inputs": [good, good | {"name": "nobody"}]})
    yield json.dumps(inference(served, outputs=[{"name": "nobody"}]))


def all_replies(served):
    """Replies to all kinds of requests: kind of the reply, and its text.

    One connection serves them all: an error that left a part of the body on it would break it.
    """
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.connect()
    connection.auto_open, last = False, None

    def reply(kind, path, body=None):
        nonlocal last
        try:
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            pytest.fail(f"the connection was closed after {last}: {error!r}")
        last = path, body, text
        assert (answer.status >= 400) == (kind == "error"), last
        assert answer.headers["Content-Type"] == "application/json", last
        return kind, text

    try:
        yield reply("live", "/v2/health/live")
        yield reply("ready", "/v2/health/ready")
        yield reply("server", "/v2")
        yield reply("index", "/v2/repository/index", b"")
        yield reply("index", "/v2/repository/index", b"{}")
        for model in (f"/v2/models/{served.name}", f"/v2/models/{served.name}/versions/1"):
            yield reply("model", model)
            yield reply("model ready", f"{model}/ready")
            for more in ({}, {"id": "ü"}, {"id": ""}, {"outputs": [{"name": "label"}]}):
                for last in ({}, {"parameters": {"odd": 1}}):
                    body = json.dumps(inference(served, **more, **last))
                    yield reply("inference", f"{model}/infer", body)
            for body in wrong_inferences(served):
                yield reply("error", f"{model}/infer", body)
        for model in ("/v2/models/nobody", f"/v2/models/{served.name}/versions/999"):
            yield reply("error", model)
            yield reply("error", f"{model}/ready")
            yield reply("error", f"{model}/infer", json.dumps(inference(served)))
        yield reply("error", "/v2/nowhere")
        yield reply("error", "/v2", b"{}")
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/v2/models/nobody/infer", "/v2", "/nowhere"])
def test_a_refusal_before_the_body_leaves_the_connection_usable(served, path):
    lines = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
    body = json.dumps(inference(served)).encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        for where, expected in ((path, {404, 405}), (f"/v2/models/{served.name}/infer", {200})):
            client.sendall(lines.format(where, len(body)).encode())
            if where == path:  # time for a refusal, and for the closed door that it may leave
                select.select([], [], [], 0.2)
            client.sendall(body)
            with http.client.HTTPResponse(client) as answer:
                answer.begin()
                answer.read()
                assert answer.status in expected


def test_the_types_of_other_servers_read_every_reply(served):
    replies = list(all_replies(served))
    assert len(replies) > 50
    found = run_client("read_replies.py", replies)
    assert [wrong for wrong in zip(replies, found, strict=True) if wrong[1]] == []


def test_the_types_of_other_servers_notice_a_wrong_reply():
    output = {"name": "label", "shape": [1], "datatype": "INT64", "data": [0]}
    good = {"model_name": "iris", "model_version": "1", "id": "a", "outputs": [output]}
    wrong = [good | {"outputs": [output | {"datatype": "INT"}]}, good | {"model_version": 1}]
    wrong += [good | {"surprise": 1}, {k: v for k, v in good.items() if k != "id"}]
    replies = [("inference", json.dumps(one)) for one in (good, *wrong)]
    replies += [("error", '{"error": "no"}'), ("error", '{"error": {}}'), ("error", '{"no": ""}')]
    found = run_client("read_replies.py", replies)
    assert [bool(one) for one in found] == [False, *[True] * 4, False, True, True]
