"""What is admitted, over real sockets: whole bodies, the right host, keys that were sent."""

import contextlib
import gzip
import http.client
import json
import os
import re
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from questions import (
    CSV,
    INFER,
    INVOKE,
    JSON,
    MANY,
    NAMES,
    NDJSON,
    PREDICT,
    ROW,
    V1,
    binary,
    lines,
    post,
    table,
    tensor,
)
from services import Service

from iris_serve.cli.settings import Settings
from iris_serve.service.keys import make_key
from iris_serve.wsgi import drop_request_variables, make_app

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

SECRET, DIGEST = make_key()
KEYS = {"IRIS_SERVE_KEYS": f"shop:{DIGEST}"}


@pytest.fixture(scope="module")
def service(trained):
    with Service(trained) as served:
        served.ready()
        yield served


@pytest.fixture(scope="module")
def guarded(trained):
    with Service(trained, **KEYS) as served:
        served.ready()
        yield served


def exchange(port, *parts, end=True, timeout=20):
    """The status and the body of the reply to the `parts`, or None if there is none.

    With `end` the client closes its half of the connection behind them.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        for part in parts:
            client.sendall(part)
        if end:
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = http.client.HTTPResponse(client)
            answer.begin()
            return answer.status, answer.read()
    return None


def head(path, *headers, method="POST", host="localhost"):
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def in_chunks(body, size=64):
    """`body` as it travels in chunks, with its last one."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# Bodies that end too early


def packed(body, how):
    if how == "raw deflate":
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(body) + packer.flush()
    return gzip.compress(body, mtime=0) if how == "gzip" else zlib.compress(body)


def with_names(rows):
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


# The path, the headers and the body of a right question, one of each kind that may come in chunks.
CHUNKED = {
    "one row": post(PREDICT, {"features": ROW}),
    "many rows": post(PREDICT, {"features": MANY}),
    "blanks at the end": post(PREDICT, json.dumps({"features": ROW}).encode() + b" \r\n "),
    "details": post(PREDICT, {"features": MANY[:2], "detail": True}),
    "a version": post("/models/iris/versions/1/predict", {"features": MANY[:2]}),
    "tensors": post(INFER, tensor(MANY, id="7")),
    "binary tensors": binary(INFER, MANY, id="7"),
    "instances": post(V1, {"instances": MANY}),
    "records": post(INVOKE, {"dataframe_records": with_names(MANY[:2])}),
    "ready versions": post("/v2/repository/index", {"ready": True}),
} | {
    f"{name}, {how}": post(path, packed(body, how), kind, ("Content-Encoding", how.split()[-1]))
    for path in (PREDICT, INVOKE)
    for name, kind, body in (
        (f"CSV to {path}", CSV, table(MANY)),
        (f"lines to {path}", NDJSON, lines(MANY)),
    )
    for how in ("gzip", "deflate", "raw deflate")
}


def sent(question):
    headers = [f"{name}: {value}" for name, value in question.headers]
    return head(question.path, *headers, "Transfer-Encoding: chunked")


def cuts(length, most):
    """Where to cut: everywhere, or in `most` places of which the first and the last are some."""
    step = max(1, length // most)
    return sorted({*range(0, length, step), *range(max(0, length - 8), length)})


@pytest.mark.parametrize("most", [40, pytest.param(10**6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CHUNKED)
def test_a_chunked_body_cut_anywhere_gets_the_whole_bodys_answer_or_none(service, name, most):
    question = CHUNKED[name]
    front, body = sent(question), in_chunks(question.body)
    status, whole = exchange(service.port, front, body, end=False)
    assert status == 200

    def cut_at(place):
        return exchange(service.port, front, body[:place])

    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(cut_at, cuts(len(body), most)):
            assert answer is None or answer[0] >= 400 or answer == (200, whole), answer


@pytest.mark.parametrize("name", CHUNKED)
def test_malformed_chunks_get_the_whole_bodys_answer_or_none(service, name):
    question = CHUNKED[name]
    front, body = sent(question), question.body
    _, whole = exchange(service.port, front, in_chunks(body), end=False)
    half = len(body) // 2
    first = b"%x\r\n%s" % (half, body[:half])
    for broken in (
        first + b"\r\nxyz\r\n",  # no size
        first + b"\r\n-1\r\n",
        first + b"\r\n\r\n",
        first + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - half, body[half:]),  # no line end
        first + b"\r\n%x\r\n%s" % (len(body) + 100, body[half:]),  # a size that is too large
        first + b"\r\n%s\r\n" % (b"f" * 40),
    ):
        answer = exchange(service.port, front, broken)
        assert answer is None or answer[0] >= 400 or answer == (200, whole), broken


@pytest.mark.parametrize("path", [PREDICT, INVOKE, "/models/iris/versions/1/predict"])
@pytest.mark.parametrize(("kind", "body"), [(CSV, table(MANY)), (NDJSON, lines(MANY))])
@pytest.mark.parametrize("encoding", [None, "identity"])
def test_lines_without_a_length_are_refused_with_what_to_do_whole_or_cut(
    service, path, kind, body, encoding
):
    more = [("Content-Encoding", encoding)] if encoding else []
    front = sent(post(path, body, kind, *more))
    for wire, end in ((in_chunks(body), False), (in_chunks(body)[:40], True), (b"", True)):
        status, refused = exchange(service.port, front, wire, end=end)
        assert status == 411
        said = json.loads(refused)
        told = said.get("detail") or said["error"]
        assert "send Content-Length" in told
        assert "gzip" in told
    headers = [f"{name}: {value}" for name, value in [("Content-Type", kind), *more]]
    whole = head(path, *headers, f"Content-Length: {len(body)}")
    assert exchange(service.port, whole, body, end=False)[0] == 200


@pytest.mark.parametrize("most", [12, pytest.param(10**6, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "body"), [(CSV, table(MANY)), (NDJSON, lines(MANY))])
def test_lines_with_a_length_cut_anywhere_get_no_answer(service, kind, body, most):
    front = head(PREDICT, f"Content-Type: {kind}", f"Content-Length: {len(body)}")
    for place in cuts(len(body), most):
        answer = exchange(service.port, front, body[:place])
        assert answer is None or answer[0] == 400, body[:place]


def test_an_empty_body_in_chunks_is_not_taken_for_a_request_without_a_body(service):
    path = "/v2/repository/index"
    chunked = head(path, "Transfer-Encoding: chunked")
    for wire in (b"0\r\n\r\n", b""):
        answer = exchange(service.port, chunked, wire)
        assert answer is None or answer[0] == 411
    assert exchange(service.port, head(path, "Content-Length: 0"), end=False)[0] == 200


# The service waits only for clients that were admitted


HALF = ("Content-Length: 100", "Content-Type: application/json")
IN_CHUNKS = ("Transfer-Encoding: chunked", "Content-Type: application/json")


@pytest.mark.parametrize("announced", [HALF, IN_CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 200) for path in ("/", "/healthz", "/readyz", "/docs", "/v2/health/ready")),
        *(("GET", path, 200) for path in ("/openapi.json", "/ping", "/v1/models/iris")),
        *(
            ("POST", path, 401)
            for path in (PREDICT, INFER, INVOKE, "/healthz", "/nowhere", "/docs")
        ),
        *(("GET", path, 401) for path in ("/metrics", "/models", "/docs/nothing")),
        ("OPTIONS", PREDICT, 204),
        ("DELETE", "/docs", 401),
    ],
)
def test_no_reply_to_a_public_or_keyless_request_waits_for_its_body(
    guarded, method, path, status, announced
):
    answer = exchange(guarded.port, head(path, *announced, method=method), b"{", end=False)
    assert answer[0] == status


def test_half_bodies_of_clients_without_a_key_block_no_thread(guarded):
    """There are twice as many as threads, on routes of every kind."""
    held = contextlib.ExitStack()
    questions = [("GET", "/healthz"), ("GET", "/docs"), ("POST", PREDICT), ("POST", "/nowhere")]
    with held:
        for turn in range(64):
            method, path = questions[turn % len(questions)]
            client = socket.create_connection(("127.0.0.1", guarded.port), timeout=20)
            held.enter_context(client)
            client.sendall(head(path, *HALF, method=method) + b"{")
        for _ in range(4):
            assert exchange(guarded.port, head("/healthz", method="GET"), end=False)[0] == 200
            asked = head(PREDICT, f"X-API-Key: {SECRET}", "Content-Length: 36")
            body = json.dumps({"features": ROW}).encode()
            assert (
                exchange(guarded.port, asked.replace(b"36", b"%d" % len(body)), body, end=False)[0]
                == 200
            )


def test_a_client_that_sends_much_before_it_reads_still_gets_the_refusal(service):
    body = b" " * (4 << 20)
    for path, status in ((PREDICT, 413), ("/nowhere", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        connection.request("POST", path, body, {"Content-Type": JSON})
        assert connection.getresponse().status == status
        connection.close()


def test_an_admitted_client_keeps_its_connection_after_a_refusal(guarded):
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=20)
    for body, status in ((b"{", 400), (json.dumps({"features": ROW}).encode(), 200)):
        connection.request("POST", PREDICT, body, {"X-API-Key": SECRET})
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read()), answer.will_close) == (status, True, False)
    connection.close()


# The environment of the server is not part of a request

POISON = {
    "HTTP_X_API_KEY": SECRET,
    "HTTP_AUTHORIZATION": f"Bearer {SECRET}",
    "HTTP_PROXY": "http://proxy.example:3128",
    "CONTENT_TYPE": CSV,
    "CONTENT_LENGTH": "7",
    "HTTP_CONTENT_ENCODING": "gzip",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_ACCEPT": CSV,
    "HTTP_EXPECT": "100-continue",
    "HTTP_TRANSFER_ENCODING": "chunked",
    "HTTP_INFERENCE_HEADER_CONTENT_LENGTH": "3",
    "HTTP_X_REQUEST_ID": "always-the-same",
    "HTTP_HOST": "evil.example",
    "QUERY_STRING": "detail=true",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/",
    "PATH_INFO": "/healthz",
    "SCRIPT_NAME": "/prefix",
    "REMOTE_USER": "root",
    "REMOTE_ADDR": "192.0.2.7",
    "wsgi.url_scheme": "https",
    "wsgi.input_terminated": "",
    "werkzeug.request": "x",
}


def ask(port, question, *headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        given = dict((*question.headers, *headers))
        connection.request(question.method, question.path, question.body, given)
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Request-Id"), answer.read()
    finally:
        connection.close()


def test_nothing_in_the_servers_environment_becomes_part_of_a_request(trained):
    asked = {
        "one row": post(PREDICT, {"features": ROW}),
        "no kind": post(PREDICT, {"features": ROW})._replace(headers=()),
        "tensors": post(INFER, tensor([ROW], id="7")),
        "binary tensors": binary(INFER, [ROW], id="7"),
        "invocation": post(INVOKE, {"instances": [ROW]}),
        "CSV": post(INVOKE, table([ROW]), CSV),
        "packed": post(PREDICT, packed(table([ROW]), "gzip"), CSV, ("Content-Encoding", "gzip")),
    }
    key = ("X-API-Key", SECRET)
    with Service(trained, **KEYS) as clean, Service(trained, **KEYS, **POISON) as poisoned:
        clean.ready(), poisoned.ready()
        ids = set()
        for question in asked.values():
            assert ask(poisoned.port, question)[0] == 401
            (status, _, body), (other, ident, same) = (
                ask(served.port, question, key) for served in (clean, poisoned)
            )
            assert (status, body) == (other, same)
            assert status == 200
            ids.add(ident)
        assert len(ids) == len(asked)
        assert poisoned.process.poll() is None


def test_under_another_server_the_environment_is_cleaned_and_the_log_says_so(
    trained, monkeypatch, caplog
):
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/me")
    app = make_app(Settings(models=str(trained), access_log="off"))
    app.extensions["live"].stop()
    assert not set(POISON) & set(os.environ)
    assert os.environ["HOME"] == "/home/me"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "HTTP_X_API_KEY" in line
    assert SECRET not in line
    assert drop_request_variables(os.environ) == []


# What is public is a route, never a path from outside


@pytest.mark.parametrize("path", [PREDICT, "/metrics", INFER, "/models/iris/versions/1/notebook"])
def test_a_health_route_that_exists_already_is_refused_before_anything_is_trained(tmp_path, path):
    with Service(tmp_path / "models", AIP_HEALTH_ROUTE=path, **KEYS) as served:
        out, err = served.process.communicate(timeout=30)
        assert (served.process.returncode, out, err.count("\n")) == (2, "", 1)
        assert f"AIP_HEALTH_ROUTE may not be {path}, which is a route of this service" in err
    assert not (tmp_path / "models").exists()


def test_a_health_route_is_public_for_get_alone_and_opens_no_other_path(trained):
    routes = {"AIP_HEALTH_ROUTE": "/vertex", "AIP_PREDICT_ROUTE": "/vertex"}
    body = post("/vertex", {"instances": [ROW]})
    with Service(trained, **KEYS, **routes) as served:
        served.ready()
        assert exchange(served.port, head("/vertex", method="GET"), end=False)[0] == 200
        assert ask(served.port, body)[0] == 401
        assert ask(served.port, body, ("X-API-Key", SECRET))[0] == 200
        for path in ("/vertex/", "/vertex/x", "/vertex/../metrics", "/VERTEX", "/vertex%2f"):
            assert exchange(served.port, head(path, method="GET"), end=False)[0] == 401


# Host


def status_for(port, *headers, version="1.1", host=None):
    lines = [f"GET /healthz HTTP/{version}", *headers]
    front = "\r\n".join(lines).encode("latin-1") + (b"\r\nHost: " + host if host else b"")
    return exchange(port, front + b"\r\n\r\n", end=False)[0]


@pytest.mark.parametrize(
    "host",
    [
        b"localhost", b"LOCALHOST:1", b"localhost.", b"localhost.:5000", b"iris.localhost:5000",
        b"127.0.0.1", b"127.0.0.2:5000", b"0.0.0.0:5000", b"[::]:5000", b"127.255.255.254",
        b"[::1]", b"[::1]:5000",
        b"[::ffff:127.0.0.1]:5000", b"[::ffff:7f00:1]",
    ],
)  # fmt: skip
def test_every_name_of_the_loopback_is_answered(service, host):
    assert status_for(service.port, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example", b"evil.example:5000", b"localhost.evil.example", b"xlocalhost",
        b"127.0.0.1.evil.example", b"128.0.0.1", b"0.0.0.1:5000", b"[::2]", b"[::ffff:192.0.2.7]",
        b"localhost\xff", b"\xe4\xb8\xad", b"evil.example\xff", b"127.0.0.1@evil.example",
        b"2130706433", b"localhost, evil.example", b"[::1", b".localhost.evil",
    ],
)  # fmt: skip
def test_no_other_host_is_answered_not_even_a_malformed_one(service, host):
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        answer = client.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"alive" not in answer


def test_a_request_without_a_host_is_answered_only_by_http_1_0(service):
    assert status_for(service.port) == 421
    assert status_for(service.port, host=b"") in (400, 421)
    assert status_for(service.port, version="1.0") == 200
    assert status_for(service.port, version="1.0", host=b"evil.example") == 421


def test_more_host_names_are_a_setting_that_the_refusal_names(trained):
    tunnel = head("/", method="GET", host="abcd.tunnel.example:443")
    with Service(trained, "--hosts", "abcd.tunnel.example other.example") as served:
        served.ready()
        assert exchange(served.port, tunnel, end=False)[0] == 200
        wrong = head("/", method="GET", host="efgh.tunnel.example")
        status, refused = exchange(served.port, wrong, end=False)
        assert status == 421
        told = json.loads(refused)["detail"]
        assert "IRIS_SERVE_HOSTS" in told
    option, name = re.search(r"(--hosts) (NAME)", told).groups()
    with Service(trained, option, name.replace("NAME", "efgh.tunnel.example")) as served:
        served.ready()
        assert exchange(served.port, wrong, end=False)[0] == 200
    with Service(trained, IRIS_SERVE_HOSTS="*") as served:
        served.ready()
        assert exchange(served.port, tunnel, end=False)[0] == 200
    with Service(trained, IRIS_SERVE_HOSTS="https://abcd.tunnel.example/") as served:
        _, err = served.process.communicate(timeout=30)
        assert served.process.returncode == 2
        assert "write a name like iris.example" in err


# Headers with underscores


@pytest.mark.xfail(
    strict=True,
    reason="granian's WSGI hands X_API_KEY and X-API-Key over under one name, HTTP_X_API_KEY",
)
def test_a_header_with_underscores_is_not_the_one_with_hyphens(guarded):
    body = json.dumps({"features": ROW}).encode()
    for name in ("X_API_KEY", "X_API-Key", "X-API_Key"):
        front = head(PREDICT, f"{name}: {SECRET}", f"Content-Length: {len(body)}")
        assert exchange(guarded.port, front, body, end=False)[0] == 401
