"""Right requests in every dialect, and connections to send them over."""

import contextlib
import csv
import gzip
import http.client
import io
import json
import struct
import sys
import zlib
from collections import Counter
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import numpy as np
import services
from sklearn.datasets import load_wine

from iris_serve.registry.registry import open_predictor

ROW = [6.1, 2.8, 4.7, 1.2]
NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
NAMED = dict(zip(NAMES, ROW, strict=True))
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"


class Question(NamedTuple):
    """One request; `headers` are pairs."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def post(path, value, kind=JSON, *headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Question("POST", path, body, (("Content-Type", kind), *headers))


def environ_of(question):
    """`question` as a WSGI server hands it over."""
    path, _, query = question.path.partition("?")
    environ = {
        "REQUEST_METHOD": question.method,
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "5000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": str(len(question.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(question.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in question.headers:
        name = name.upper().replace("-", "_")
        environ[name if name == "CONTENT_TYPE" else f"HTTP_{name}"] = value
    return environ


def watch_lane(app):
    """A counter of the requests to hot paths that the fast lane of `app` answers, or leaves."""
    lane, seen = app.wsgi_app, Counter()
    answer = lane.answer

    def counted(*request):
        reply = answer(*request)
        seen["left" if reply is None else "answered"] += 1
        return reply

    lane.answer = counted
    return seen


def tensor(rows, **more):
    flat = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    return {
        "inputs": [{"name": "features", "shape": shape, "datatype": "FP64", "data": flat}]
    } | more


def telling_rows(registry):
    """Rows on which the versions disagree, and what each of them answers."""
    rows = np.random.default_rng(0).uniform([4, 2, 1, 0], [8, 4.5, 7, 2.5], (2000, 4)).tolist()
    answers = {v: open_predictor(registry, v).predict(rows) for v in registry.versions()}
    telling = [i for i in range(len(rows)) if len({answers[v][i] for v in answers}) > 1]
    assert len(telling) >= 20
    return [(rows[i], {str(v): answers[v][i] for v in answers}) for i in telling[:200]]


def columns(rows):
    made = []
    for name, values in zip(NAMES, zip(*rows, strict=True), strict=True):
        shape = [len(rows)]
        made.append({"name": name, "shape": shape, "datatype": "FP32", "data": list(values)})
    return {"inputs": made}


def framed(tensors, extra=b"", **more):
    """The body and the headers of `tensors`, pairs of a head and an array, behind their JSON."""
    raws = [array.tobytes() for _, array in tensors]
    sizes = [{"parameters": {"binary_data_size": len(raw)}} for raw in raws]
    heads = [head | size for (head, _), size in zip(tensors, sizes, strict=True)]
    front = json.dumps({"inputs": heads} | more).encode()
    return front + b"".join(raws) + extra, {JSON_LENGTH_HEADER: str(len(front))}


def binary(path, rows, **more):
    """The rows as raw bytes behind the JSON, and the answers asked for in the same way."""
    head = {"name": "features", "shape": [len(rows), 4], "datatype": "FP64"}
    body, headers = framed([(head, np.array(rows, "<f8"))], **more)
    return post(path, body, "application/octet-stream", *headers.items())


def packed(question, how="gzip"):
    body = gzip.compress(question.body) if how == "gzip" else zlib.compress(question.body)
    return question._replace(body=body, headers=(*question.headers, ("Content-Encoding", how)))


def lines(rows):
    return "\n".join(map(json.dumps, rows)).encode()


def table(rows, header=True):
    text = [",".join(NAMES)] if header else []
    return "\n".join(text + [",".join(map(repr, row)) for row in rows]).encode()


INFER, PREDICT, INVOKE = "/v2/models/iris/infer", "/predict", "/invocations"
V1 = "/v1/models/iris:predict"
ONE = "/models/iris/versions/1"
MANY = [ROW, [5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
SPLIT = {"dataframe_split": {"columns": NAMES, "data": MANY}}
BINARY_OUTPUT = {"parameters": {"binary_data_output": True}}
BEST = {"name": "probabilities", "parameters": {"classification": 2}}
TOP = {"outputs": [{"name": "label"}, BEST]}

ASKING = {
    "one row": post(PREDICT, {"features": ROW}),
    "named": post(PREDICT, {"features": NAMED}),
    "many": post(PREDICT, {"features": MANY}),
    "details": post(PREDICT, {"features": MANY, "detail": True}),
    "details by query": post(f"{PREDICT}?detail=true", {"features": ROW}),
    "csv": post(PREDICT, table(MANY), CSV),
    "ndjson": post(PREDICT, lines(MANY), NDJSON),
    "gzip": packed(post(PREDICT, {"features": MANY})),
    "deflate": packed(post(PREDICT, {"features": MANY}), "deflate"),
    "pinned": post(f"{ONE}/predict", {"features": ROW}),
    "tensor": post(INFER, tensor(MANY, id="an id")),
    "columns": post(INFER, columns(MANY)),
    "classification": post(INFER, tensor(MANY, **TOP)),
    "binary": binary(INFER, MANY),
    "binary, both ways": binary(INFER, MANY, **BINARY_OUTPUT),
    "binary, packed": packed(binary(INFER, MANY)),
    "tensor, pinned": post("/v2/models/iris/versions/1/infer", tensor(MANY)),
    "v1": post(V1, {"instances": MANY}),
    "v1, pinned": post("/v1/models/iris/versions/1:predict", {"instances": [NAMED]}),
    "v1, columns": post(V1, {"inputs": {name: [1.5, 2] for name in NAMES}}),
    "invocations": post(INVOKE, {"instances": MANY}),
    "invocations, split": post(INVOKE, SPLIT),
    "invocations, records": post(INVOKE, {"dataframe_records": [NAMED]}),
    "invocations, csv": post(INVOKE, table(MANY, header=False), CSV, ("Accept", CSV)),
    "invocations, ndjson": post(INVOKE, lines(MANY), "application/jsonlines"),
}
READING = [
    *("/", "/healthz", "/readyz", "/ping", "/metrics", "/openapi.json", "/docs", "/docs/page.js"),
    *(
        "/docs/swagger-ui.css",
        "/docs/favicon-32x32.png",
        "/docs/swagger-ui-bundle.js",
        "/models",
        "/models/iris",
        "/models/iris/aliases/current",
        ONE,
    ),
    *(f"{ONE}/page", f"{ONE}/cuts", f"{ONE}/export", "/assets/page.css"),
    *(f"{ONE}/notebook", "/v1/models", "/v1/models/iris", "/v1/models/iris/versions/1"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/iris"),
    *("/v2/models/iris/ready", "/v2/models/iris/versions/1", "/v2/models/iris/versions/1/ready"),
]
CONTROL = [
    post("/v2/repository/index", {"ready": True}),
    post("/v2/repository/models/iris/load", {}),
    post("/v2/repository/models/iris/unload", {}),
    post("/v1/models/iris:explain", {"instances": MANY}),
    post(f"{ONE}/paths?tree=7", {"features": ROW}),
]
ALL = [*ASKING.values(), *CONTROL, *(Question("GET", path) for path in READING)]


def answers_in(question, answer):
    """The classes in a good `answer`, whatever its dialect."""
    if answer.headers.get_content_type() == CSV:
        return [int(line) for line in answer.body.split()]
    if JSON_LENGTH_HEADER in answer.headers:
        front = int(answer.headers[JSON_LENGTH_HEADER])
        (label, *_) = json.loads(answer.body[:front])["outputs"]
        assert (label["name"], label["datatype"]) == ("label", "INT64")
        return list(struct.unpack_from(f"<{label['shape'][0]}q", answer.body, front))
    said = answer.json
    if "outputs" in said:
        return next(o["data"] for o in said["outputs"] if o["name"] == "label")
    found = said["predictions"] if "predictions" in said else [said["prediction"]]
    return [one["prediction"] if isinstance(one, dict) else one for one in found]


class Client:
    """One connection to a service, opened anew when it was closed."""

    def __init__(self, port, timeout=30):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, question):
        method, path, body, headers = question
        self.connection.request(method, path, body or None, dict(headers))
        answer = self.connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    def get(self, path, **headers):
        return self.ask(Question("GET", path, b"", tuple(headers.items())))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def until(true, seconds=30):
    """Wait until `true()` is, and return what it said; it may fail to reach anybody."""

    def reached():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return true()

    return services.until(reached, seconds)


def wine_as_a_file(folder, kind):
    """Wine as a table in a file, its classes told by name: `kind` with a letter in it."""
    bunch, path = load_wine(), folder / "wine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "kind"])
        for row, number in zip(bunch.data.tolist(), bunch.target, strict=True):
            writer.writerow([*row, kind.format("ABC"[number])])
    return str(path)
