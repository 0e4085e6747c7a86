"""Random requests to every route: never a 5xx, nothing of the inside, and the worker lives on.

Some are sent to a running service over sockets, with damaged heads as well. Most are handed to the
application as a WSGI server does. `FUZZ_SEED` repeats a run.
"""

import http.client
import json
import os
import random
import secrets
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import KINDS, mutant
from questions import (
    ALL,
    CSV,
    INFER,
    INVOKE,
    JSON_LENGTH_HEADER,
    ONE,
    PREDICT,
    V1,
    Answer,
    environ_of,
    post,
    watch_lane,
)
from services import Service
from werkzeug.test import run_wsgi_app

from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings

SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(1 << 32))
SLOW = pytest.mark.slow
ROOT = Path(__file__).parents[2]
INSIDE = [
    *(b"Traceback", b'File "', b"site-packages", b".py:", b"0x7f", b"<class"),
    *(str(path).encode() for path in (ROOT, sys.prefix, tempfile.gettempdir(), Path.home())),
]
PAGES = (
    "/metrics",
    "/docs",
    f"{ONE}/notebook",
    f"{ONE}/export",
    "/assets/page.css",
)  # what answers with something else than JSON


def documented(question, answer):
    """True if a reply of success may be something else than JSON."""
    path = unquote_to_bytes(question.path.partition("?")[0]).decode("latin-1")
    path = "/" + path.lstrip("/")  # as the server reads it
    if answer.headers.get_content_type() == CSV:
        return path in (INVOKE,)
    return path.startswith(PAGES) or JSON_LENGTH_HEADER in answer.headers


def check(question, answer):
    """What is true of every answer of the application, whatever was asked."""
    assert answer.status < 500
    if not (answer.status == 200 and "/docs/swagger-ui" in question.path):
        assert not [word for word in INSIDE if word in answer.body and word not in question.body]
    assert "X-Request-Id" in answer.headers
    if question.method == "HEAD" or answer.status == 304:
        assert answer.body == b""
    elif question.method == "OPTIONS" and answer.status == 204:
        assert answer.body == b""
        assert "Allow" in answer.headers
    elif answer.status >= 400:
        kind, said = answer.headers.get_content_type(), json.loads(answer.body)
        assert kind in ("application/problem+json", "application/json")
        assert " " in said["detail" if kind.endswith("problem+json") else "error"]
    elif not documented(question, answer):
        assert answer.headers.get_content_type() == "application/json"
        json.loads(answer.body, parse_constant=pytest.fail)


def hand_over(app, question):
    """The answer of the application."""
    body, status, headers = run_wsgi_app(app, environ_of(question), buffered=True)
    message = Message()
    for name, value in headers:
        message[name] = value
    return Answer(int(status.split()[0]), message, b"".join(body))


@pytest.fixture(scope="module")
def app(trained):
    app = make_app(Settings(models=str(trained), access_log="off"))
    app.extensions["live"].stop()
    app.extensions["seen"] = watch_lane(app)
    return app


def test_the_valid_requests_ask_every_route(app):
    asked = {hand_over(app, question).status for question in ALL}
    assert asked == {200, 403, 404}
    adapter = app.url_map.bind("localhost")
    matched = {
        adapter.match(path.partition("?")[0], method, return_rule=True)[0].rule
        for method, path, *_ in ALL
    }
    assert matched == {rule.rule for rule in app.url_map.iter_rules()}


@pytest.mark.parametrize("times", [800, pytest.param(33_000, marks=SLOW)])
def test_a_mutated_request_gets_no_5xx_from_the_application(app, times):
    seen = app.extensions["seen"]
    seen.clear()
    for number in range(times):
        question = mutant(SEED, number)
        try:
            check(question, hand_over(app, question))
        except Exception as error:
            error.add_note(f"FUZZ_SEED={SEED}, request {number}: {question!r}")
            raise
    assert min(seen["answered"], seen["left"]) > times / 50, seen


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.sampled_from(
    [
        *("features", "detail", "inputs", "outputs", "parameters", "instances", "name", "shape"),
        *("id", "datatype", "data", "dataframe_split", "columns", "binary_data_size"),
    ]
)
OBJECTS = NAMES | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(OBJECTS, inner, max_size=5),
    max_leaves=20,
)
BODIES = VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=200)
ROUTES = st.sampled_from([PREDICT, f"{ONE}/predict", INFER, V1, INVOKE, "/v2/repository/index"])
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@pytest.mark.parametrize("times", [300, pytest.param(5000, marks=SLOW)])
def test_any_json_value_gets_no_5xx_on_any_route(app, times):
    @settings(max_examples=times, deadline=None, print_blob=True)
    @given(ROUTES, BODIES, st.sampled_from(KINDS) | PRINTABLE, PRINTABLE)
    def any_value(path, body, kind, frame):
        headers = ((JSON_LENGTH_HEADER, frame),) if frame.isdigit() else ()
        question = post(path, body, kind, *headers)
        check(question, hand_over(app, question))

    any_value()
    assert app.extensions["seen"]["left"] > times / 50


# Over sockets


def written(question, dice):
    """`question` as bytes on a connection, and whether these are honest; one in ten is not."""
    headers = [("Host", "localhost"), ("Connection", "close"), *question.headers]
    if dice.random() < 0.3 and question.body:
        headers.append(("Transfer-Encoding", "chunked"))
        half = len(question.body) // 2
        pieces = [piece for piece in (question.body[:half], question.body[half:]) if piece]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        headers.append(("Content-Length", str(len(question.body))))
        body = question.body
    lines = [f"{question.method} {question.path} HTTP/1.1", *(": ".join(pair) for pair in headers)]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if dice.random() > 0.1:
        # The rest of a body that nobody waits for may cost the end of the reply.
        waited = len(question.body) < 8000 or question.method == "POST"
        return head + body, question.path.isascii() and waited
    raw = bytearray(head + body)
    for _ in range(dice.choice([1, 3, 30])):
        raw[dice.randrange(len(head))] = dice.choice([*b"\r\n\0: \xff0", dice.randrange(256)])
    return bytes(raw[: dice.choice([len(raw), dice.randrange(len(raw))])]), False


def over_a_socket(port, question, raw, honest):
    """The answer to `raw`; None if the connection ended without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        try:
            client.sendall(raw)
            if not honest:
                client.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(client, method=question.method)
            answer.begin()
            return Answer(answer.status, answer.headers, answer.read())
        except (OSError, http.client.HTTPException) as error:
            if honest or isinstance(error, TimeoutError):
                raise
            return None


def check_live(port, number):
    question = mutant(SEED, f"{number}/socket")
    dice = random.Random(f"{SEED}/{number}/written")  # noqa: S311
    raw, honest = written(question, dice)
    try:
        answer = over_a_socket(port, question, raw, honest)
        if answer is None or (answer.body == b"" and "X-Request-Id" not in answer.headers):
            # What is not HTTP gets the server's bare refusal, or none.
            assert answer is None or 400 <= answer.status < 500
            assert not honest or answer.status in (400, 414, 431)
        elif honest:
            check(question, answer)
        else:
            assert answer.status < 500
            assert not [word for word in INSIDE if word in answer.body and word not in raw]
    except Exception as error:
        error.add_note(f"FUZZ_SEED={SEED}, request {number}, as sent: {raw!r}")
        raise
    return answer is not None and "X-Request-Id" in answer.headers


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
@pytest.mark.parametrize("times", [500, pytest.param(12_000, marks=SLOW)])
def test_a_mutated_request_gets_no_5xx_from_a_running_service(trained, times):
    with Service(trained, "--workers", "2") as service:
        service.ready()
        while len(workers := service.children()) < 2:
            assert service.process.poll() is None
        with ThreadPoolExecutor(4) as pool:
            answered = list(pool.map(lambda n: check_live(service.port, n), range(times)))
        assert sum(answered) > 0.85 * times  # nearly all of them reached the application
        assert service.ask() == (200, b'{"prediction": 1}')
        assert service.children() == workers
