"""Requests that are meant to harm: each gets a clear 4xx, at no cost, and the worker lives on."""

import gzip
import json
import os
import pickle
import re
import socket
import sys
import zlib
from pathlib import Path

import pytest
from questions import (
    ALL,
    ASKING,
    CSV,
    INFER,
    INVOKE,
    JSON,
    JSON_LENGTH_HEADER,
    NDJSON,
    ONE,
    PREDICT,
    ROW,
    V1,
    Client,
    Question,
    post,
    tensor,
)
from services import Service

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")

ROWS = [
    *(PREDICT, f"{ONE}/predict", INFER, "/v2/models/iris/versions/1/infer", INVOKE, V1),
    "/v1/models/iris/versions/1:predict",
]
LINES = "application/jsonlines"
POSTS = [*ROWS, "/v2/repository/index"]
NO_DIALECT = [
    *("/v2/repository/models/iris/load", "/v2/repository/models/iris/unload"),
    *("/v1/models/iris:explain", "/metrics", "/docs", "/nowhere"),
]
MEMORY = 16 << 20  # bytes that a worker may grow by, even for a moment, in one of these tests


def resident(worker, what="VmRSS"):
    """The resident memory of `worker` in bytes, as Linux tells it; the most of it as VmHWM."""
    status = Path(f"/proc/{worker}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) << 10


@pytest.fixture(scope="module")
def running(trained):
    """A service with one worker that has done everything once."""
    with Service(trained) as service:
        service.ready()
        with Client(service.port) as client:
            for question in ALL * 3:
                client.ask(question)
            for path in POSTS:
                client.ask(post(path, b"[" * 1_000_000))
        yield service


@pytest.fixture
def service(running):
    """The service; at the end it must have the same worker, which must not have grown."""
    (worker,) = running.children()
    linux = sys.platform == "linux"
    if linux:
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the most is counted anew
        before = resident(worker)
    yield running
    assert running.ask() == (200, b'{"prediction": 1}')
    assert running.children() == [worker]
    if linux:
        assert resident(worker, "VmHWM") - before < MEMORY


def check_refusal(service, answer, *statuses):
    """A 4xx of the application: a sentence in JSON, and nothing of the inside or this machine."""
    assert answer.status in statuses, answer
    assert answer.headers.get_content_type() in ("application/json", "application/problem+json")
    plain = answer.headers.get_content_type() == "application/json"
    assert " " in answer.json["error" if plain else "detail"]
    assert len(answer.body) < 20_000
    for word in (b"Traceback", b'File "', b".py", b"site-packages", b"/tmp", b"/root", b"/home"):
        assert word not in answer.body, answer
    assert len(answer.headers["X-Request-Id"]) == 16


def ask(service, question):
    with Client(service.port) as client:
        return client.ask(question)


def refused(service, question, *statuses):
    check_refusal(service, ask(service, question), *statuses)


# Bodies

NESTED = b'{"a":' * 150_000
DEEP = {
    "lists": b"[" * 100_000,
    "lists that end": b"[" * 100_000 + b"]" * 100_000,
    "objects": NESTED,
    "features": b'{"features": ' + b"[" * 100_000,
    "parameters": b'{"inputs": [{"name": "features", "parameters": ' + NESTED,
    "instances": b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("path", POSTS)
def test_deep_nesting_is_a_400(service, path):
    for body in DEEP.values():
        refused(service, post(path, body), 400)
    refused(service, post(path, DEEP["lists"], NDJSON), 400)
    refused(service, post(path, DEEP["lists"], CSV), 400)


NUMBERS = {
    "digits": b"9" * 900_000,
    "minus": b"-" + b"9" * 900_000,
    "fraction": b"0." + b"3" * 900_000 + b"e400",
    "exponent": b"1e" + b"9" * 900_000,
}


@pytest.mark.parametrize("path", ROWS)
@pytest.mark.parametrize("number", NUMBERS)
def test_endless_numbers_are_a_400(service, path, number):
    digits = NUMBERS[number]
    refused(service, post(path, b'{"features": [6.1, 2.8, 4.7, %s]}' % digits), 400)
    refused(service, post(path, b'{"instances": [[6.1, 2.8, 4.7, %s]]}' % digits), 400)
    shape = b'{"inputs": [{"name": "features", "datatype": "FP64", "shape": [%s], "data": [1]}]}'
    refused(service, post(path, shape % digits), 400)
    refused(service, post(path, b"6.1,2.8,4.7,%s" % digits, CSV), 400)


def test_endless_numbers_in_paths_and_headers_are_refused(service):
    for path in ("/models/iris/versions/{}", "/v2/models/iris/versions/{}", "/v1/models/{}"):
        refused(service, Question("GET", path.format("9" * 20_000)), 404)
    for length in ("9" * 20_000, str(1 << 63), "-1", "1e3", "٣", "0x10"):
        asked = post(
            INFER, tensor([ROW]), JSON, (JSON_LENGTH_HEADER, length.encode().decode("latin-1"))
        )
        refused(service, asked, 400)


SHAPES = [
    *([1 << 63, 4], [1 << 63], [(1 << 64) - 1, 4], [1 << 62, 1 << 62], [2**31, 2**31], [-1, 4]),
    *([1] * 100_000, [], [0, 4], [1e300, 4], [1.5, 4], ["4"], [[1, 4]], None, 4, [10_001, 4]),
]


def test_a_shape_of_any_size_takes_no_memory(service):
    for shape in SHAPES:
        head = {"name": "features", "datatype": "FP64", "shape": shape}
        refused(service, post(INFER, {"inputs": [head | {"data": ROW}]}), 400, 413)
        sized = head | {"parameters": {"binary_data_size": 32}}
        front = json.dumps({"inputs": [sized]}).encode()
        frame = (JSON_LENGTH_HEADER, str(len(front)))
        raw = post(INFER, front + bytes(32), "application/octet-stream", frame)
        refused(service, raw, 400, 413)


def test_raw_tensors_with_a_wrong_size_are_a_400(service):
    for size in (1 << 63, 1 << 31, 33, 31, -1, 1.5, "32", None, [32]):
        parameters = {"binary_data_size": size}
        head = {"name": "features", "datatype": "FP64", "shape": [1, 4], "parameters": parameters}
        front = json.dumps({"inputs": [head]}).encode()
        frame = (JSON_LENGTH_HEADER, str(len(front)))
        refused(service, post(INFER, front + bytes(32), "application/octet-stream", frame), 400)


@pytest.fixture(scope="module")
def bombs():
    """200 MB of blanks, packed to some 200 kB, by the name of the encoding."""
    blanks, made = b" " * (1 << 20), {}
    for name, window in (("gzip", 31), ("deflate", 15)):
        packer = zlib.compressobj(9, zlib.DEFLATED, window)
        made[name] = b"".join(packer.compress(blanks) for _ in range(200)) + packer.flush()
    return made


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_a_413_and_is_never_expanded(service, bombs, path, encoding):
    for kind in (JSON, CSV, NDJSON, "application/octet-stream"):
        question = post(path, bombs[encoding], kind, ("Content-Encoding", encoding))
        refused(service, question, 413)


KINDS = [
    *(JSON, CSV, NDJSON, "application/octet-stream", "application/x-pickle", "text/plain", ""),
    *("application/python-pickle", "application/x-joblib", "application/vnd.python.pickle"),
    *("application/x-www-form-urlencoded", "application/x-npy", "multipart/form-data; boundary=x"),
    "application/pickle; charset=utf-8",
]


@pytest.mark.parametrize("path", [*POSTS, *NO_DIALECT])
def test_a_pickle_is_never_opened_whatever_its_media_type(service, path, trap):
    for protocol in (0, 2, 5):
        body = pickle.dumps(trap, protocol)
        for kind in KINDS:
            question = post(path, body, kind)
            refused(service, question, 400, 403, 404, 405, 415)
        packing = ("Content-Encoding", "gzip")
        refused(service, post(path, body, JSON, packing), 400, 403, 404, 405)
        raw = post(path, body, KINDS[3], (JSON_LENGTH_HEADER, "0"))
        refused(service, raw, 400, 403, 404, 405)
    assert not Path(trap.marker).exists()


# Not quite HTTP

HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
GOOD = json.dumps({"features": ROW}).encode()


class Replies(bytes):
    """All that came back over one connection."""

    @property
    def statuses(self):
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self)]


def send(service, *parts, end=False):
    """Send `parts`, and close our side after them if this is the `end`; all that comes back."""
    got = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        try:
            for part in parts:
                client.sendall(part)
            if end:
                client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 16):
                got += piece
        except OSError as error:  # a server may cut the connection of a client that speaks no HTTP
            if isinstance(error, TimeoutError):
                raise
    return Replies(got)


def head(*lines, path=PREDICT):
    return "".join([HEAD.format(path), *(f"{line}\r\n" for line in lines), "\r\n"]).encode()


def chunked(pieces):
    for piece in pieces:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def answer_in(replies):
    """The only reply among `replies`, as http.client would read it."""
    front, _, body = replies.partition(b"\r\n\r\n")
    return front.decode("latin-1").lower(), body


def check_sentence(service, replies, status):
    front, body = answer_in(replies)
    assert replies.statuses == [status]
    assert "json" in front
    assert " " in json.loads(body)["error" if '"error"' in body.decode() else "detail"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (PREDICT, NDJSON),
        (PREDICT, CSV),
        (INVOKE, "application/jsonlines"),
        (INVOKE, CSV),
        (V1, JSON),
        (PREDICT, JSON),
    ],
)
def test_300_000_rows_in_chunks_are_refused(service, path, kind):
    """A 413; a 411 where the end of a chunked body could not be seen, but packed a 413 again."""
    line = ",".join(map(str, ROW)) if kind == CSV else json.dumps(ROW)
    piece = f"{line}\n".encode() * 1000
    lines = [f"Content-Type: {kind}", "Transfer-Encoding: chunked"]
    start = head(*lines, path=path)
    status = 413 if kind == JSON else 411
    check_sentence(service, send(service, start, *chunked([piece] * 300)), status)
    start = head(*lines, "Content-Encoding: gzip", path=path)
    check_sentence(service, send(service, start, *chunked([gzip.compress(piece * 300)])), 413)


def test_a_body_that_never_ends_is_a_413_and_the_connection_is_closed(service):
    start = head("Content-Type: text/csv", "Transfer-Encoding: chunked")
    replies = send(service, start, *list(chunked([b"1,2,3,4\n" * 10_000] * 1000))[:-1])
    assert replies.statuses in ([413], [])  # a client that goes on sending may miss the reply


@pytest.mark.parametrize("size", [(1 << 20) + 1, 1_100_000, 5_000_000, 16_000_000])
def test_a_client_that_sent_too_much_gets_the_413_and_keeps_its_connection(service, size):
    with Client(service.port) as client:
        for _ in range(3):
            check_refusal(service, client.ask(post(PREDICT, b" " * size)), 413)
            assert client.ask(ASKING["one row"]).status == 200


def test_nothing_is_read_of_a_body_far_above_the_limit(service):
    for line in (
        f"Content-Length: {17 << 20}",
        f"Expect: 100-continue\r\nContent-Length: {2 << 20}",
    ):
        start = head(line).replace(b"Connection: close\r\n", b"")
        replies = send(service, start)  # and not a byte of the body
        check_sentence(service, replies, 413)
        assert "connection: close" in answer_in(replies)[0]


def test_headers_above_the_limit_are_a_431(service):
    length = f"Content-Length: {len(GOOD)}"
    many = [f"X-{number}: 1" for number in range(10_000)]
    long = ["X: " + "x" * (1 << 20)], ["Cookie: " + "x" * 500_000], [f"{'X' * 500_000}: 1"]
    for lines in (many, *long):
        replies = send(service, head(*lines, length) + GOOD)
        assert replies.statuses in ([431], [])  # a client that is still sending may miss the reply
    for lines in (["X: " + "x" * 40_000], [f"X-{number}: {'x' * 1000}" for number in range(50)]):
        check_sentence(service, send(service, head(*lines, length), GOOD), 431)
    path = send(service, f"GET /{'x' * 500_000} HTTP/1.1\r\n\r\n".encode())
    assert path.statuses in ([414], [431], [])


LIES = {
    "negative": "Content-Length: -1",
    "a sign": f"Content-Length: +{len(GOOD)}",
    "text": "Content-Length: many",
    "two": f"Content-Length: 5\r\nContent-Length: {len(GOOD)}",
    "a list": f"Content-Length: 5, {len(GOOD)}",
    "2^64": f"Content-Length: {1 << 64}",
    "another coding": "Transfer-Encoding: gzip",
    "chunked and more": "Transfer-Encoding: chunked, gzip",
    "a space": f"Content-Length : {len(GOOD)}",
    "folded": f"Content-Length:\r\n {len(GOOD)}",
}


@pytest.mark.parametrize("lie", LIES)
def test_an_impossible_length_is_a_bare_400_or_a_closed_connection(service, lie):
    replies = send(service, head(LIES[lie]) + GOOD, end=True)
    assert replies.statuses in ([400], [])
    assert replies.partition(b"\r\n\r\n")[2] == b""


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_not_as_long_as_announced_is_a_400_or_413(service, path):
    kind, rows = "Content-Type: text/csv", b"6.1,2.8,4.7,1.2\n" * 3
    for length in (len(rows) + 1, 1 << 20):
        start = head(kind, f"Content-Length: {length}", path=path)
        check_sentence(service, send(service, start, rows, end=True), 400)
    for length in (1 << 30, 1 << 40, (1 << 63) - 1):
        start = head(kind, f"Content-Length: {length}", path=path)
        check_sentence(service, send(service, start, rows), 413)
    start = head(kind, f"Content-Length: {len(GOOD) - 9}", path=path)
    check_sentence(service, send(service, start, GOOD), 400)


def test_bytes_after_a_body_are_not_a_second_request(service):
    hidden = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    short = head(f"Content-Length: {len(GOOD)}")
    assert send(service, short, GOOD + hidden).statuses == [200]


def test_a_length_and_chunks_together_are_never_read_as_two_requests(service):
    hidden = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = [f"Content-Length: {len(GOOD)}", "Transfer-Encoding: chunked"]
    for lines in (both, both[::-1]):
        kept = head(*lines).replace(b"Connection: close\r\n", b"")
        # RFC 9112, 6.3: the chunks count, and the connection ends after the reply.
        assert send(service, kept, *chunked([GOOD]), hidden).statuses in ([200], [400])
        assert send(service, kept, b"0\r\n\r\n", hidden + b" " * 50).statuses == [411]


def test_chunks_that_are_damaged_or_cut_inside_a_body_are_a_400(service):
    start = head("Transfer-Encoding: chunked")
    (whole, end) = chunked([GOOD[:-2]])
    check_sentence(service, send(service, start, whole, end), 400)
    cut = [[whole], [b"%x\r\n" % 99, GOOD[:-2]], [b"5\r\n"], []]
    damaged = [[b"zz\r\n"], [b"-5\r\n", GOOD], [b"f" * 17 + b"\r\n"], [whole, b"zz\r\n"]]
    for parts in cut + damaged:
        assert send(service, start, *parts, end=True).statuses in ([400], [411], [])


@pytest.mark.parametrize("asked", ["predict", "tensor"])
def test_many_half_sent_bodies_cost_nothing_and_delay_no_other_client(service, asked):
    question = ASKING["one row" if asked == "predict" else "binary"]
    (worker,) = service.children()
    start = head(f"Content-Length: {len(question.body)}", path=question.path)
    clients = []
    for _ in range(20):
        clients.append(socket.create_connection(("127.0.0.1", service.port), timeout=20))
        clients[-1].sendall(start + question.body[:10])
    assert service.ask() == (200, b'{"prediction": 1}')
    for client in clients:
        client.close()
    assert service.children() == [worker]


def test_bytes_that_are_not_http_get_a_bare_4xx_or_nothing(service):
    junk = [
        *(b"\x00" * 1000, b"\xff" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"),
        bytes.fromhex("16030100f4010000f0030300") + bytes(200),  # the beginning of TLS
        *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", pickle.dumps(ROW), b"\r\n" * 1000),
        *(b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n"),
        *(b"GET / HTTP/1.1\nHost localhost\n\n", b"GET /a b c HTTP/1.1\r\n\r\n"),
    ]
    for raw in junk:
        replies = send(service, raw, end=True)
        assert replies.statuses in ([], [400], [505]), (raw[:50], replies)
        assert replies.partition(b"\r\n\r\n")[2] == b""
