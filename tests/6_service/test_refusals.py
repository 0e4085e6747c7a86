"""Every endpoint that takes a body refuses the same bodies, with the same status and words."""

import gzip
import json
import pickle
import tracemalloc
import zlib
from functools import cache
from typing import NamedTuple

import pytest
from questions import (
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
    tensor,
)

from iris_serve.protocols.platforms import Platform, make_platforms
from iris_serve.protocols.v2 import make_v2
from iris_serve.registry.registry import Registry
from iris_serve.service.app import create_app
from iris_serve.service.bodies import Limits
from iris_serve.service.lineage import make_lineage
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions

LIMITS = Limits()
VERTEX = "/vertex/predict"


def native(rows):
    return {"features": rows}


def instances(rows):
    return {"instances": rows}


# What makes the body of a request for rows, by endpoint.
ENDPOINTS = {
    PREDICT: native,
    f"{ONE}/predict": native,
    INFER: tensor,
    "/v2/models/iris/versions/1/infer": tensor,
    V1: instances,
    "/v1/models/iris/versions/1:predict": instances,
    INVOKE: instances,
    VERTEX: instances,
}
LINED = [(path, kind) for path in (PREDICT, f"{ONE}/predict", INVOKE) for kind in (CSV, NDJSON)]
LINES = {CSV: b"6.1,2.8,4.7,1.2\n", NDJSON: b"[6.1, 2.8, 4.7, 1.2]\n"}
PROBLEMS = (PREDICT, f"{ONE}/predict")  # the others have errors in the plain form
# Words of the sentence that says what a right body holds.
EXPECTED = {native: '"features"', tensor: "[n, 4]", instances: '"instances"'}


@pytest.fixture(scope="module")
def client(trained):
    live = LivePredictor(Registry(trained))
    live.stop()
    versions = Versions(live)
    platforms = make_platforms(versions, Platform(predict=VERTEX))
    blueprints = [make_v2(versions), platforms, make_lineage(versions)]
    return create_app(live, blueprints).test_client()


def test_the_table_has_every_route_that_takes_rows(client):
    adapter = client.application.url_map.bind("localhost")
    asked = {adapter.match(path, "POST", return_rule=True)[0].rule for path in ENDPOINTS}
    posts = {
        rule.rule for rule in client.application.url_map.iter_rules() if "POST" in rule.methods
    }
    others = {rule for rule in posts if rule.startswith("/v2/repository/") or "explain" in rule}
    assert asked == posts - others


class Refusal(NamedTuple):
    """A request by its body and what announces it; the status and some words of the refusal."""

    status: int
    words: str
    body: bytes
    kind: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()
    environ: tuple[tuple[str, object], ...] = ()


def encoded(encoding):
    return (("Content-Encoding", encoding),)


@cache
def bomb(window):
    """200 MB of blanks, compressed to some 200 kB."""
    blanks, packer = b" " * (1 << 20), zlib.compressobj(9, zlib.DEFLATED, window)
    return b"".join(packer.compress(blanks) for _ in range(200)) + packer.flush()


SOME = json.dumps(native([ROW])).encode()
PACKED = gzip.compress(SOME)
TOO_LONG = f"the body is longer than {LIMITS.body} bytes"
EXPANDED = f"{TOO_LONG} when it is decompressed"
CUT = "the compressed body is cut short, or followed by other bytes"
NOT_COMPRESSED = "the body is not compressed as its Content-Encoding says"
ENCODING = "Content-Encoding must be gzip or deflate"
MULTIPART = "multipart bodies are not read here"
SHORT = "the body is shorter than its Content-Length says"
NO_LENGTH = "send Content-Length"
NO_KEY = "the body must be an object with the key"
CHUNKED = (("Transfer-Encoding", "chunked"),)
NO_END = (("CONTENT_LENGTH", ""), ("wsgi.input_terminated", True))

REFUSALS = {
    "too long": Refusal(413, TOO_LONG, b" " * (LIMITS.body + 1)),
    "announced too long": Refusal(
        413, TOO_LONG, b"", environ=(("CONTENT_LENGTH", str(LIMITS.body + 2)),)
    ),
    "chunked, too long": Refusal(
        413, TOO_LONG, b" " * (LIMITS.body + 1), headers=CHUNKED, environ=NO_END
    ),
    "a bomb of gzip": Refusal(413, EXPANDED, bomb(31), headers=encoded("gzip")),
    "a bomb of deflate": Refusal(413, EXPANDED, bomb(15), headers=encoded("deflate")),
    "a bomb cut short": Refusal(413, EXPANDED, bomb(31)[:100_000], headers=encoded("gzip")),
    "a bomb that does not go off": Refusal(400, CUT, bomb(31)[:500], headers=encoded("gzip")),
    "a bomb, binary": Refusal(
        413,
        EXPANDED,
        bomb(31),
        "application/octet-stream",
        (*encoded("gzip"), (JSON_LENGTH_HEADER, "10")),
    ),
    "gzip that is none": Refusal(400, NOT_COMPRESSED, SOME, headers=encoded("gzip")),
    "gzip without its head": Refusal(400, NOT_COMPRESSED, PACKED[10:], headers=encoded("gzip")),
    "deflate that is none": Refusal(400, NOT_COMPRESSED, b"\xff" * 9, headers=encoded("deflate")),
    "gzip cut short": Refusal(400, CUT, PACKED[:-9], headers=encoded("gzip")),
    "gzip and more": Refusal(400, CUT, PACKED + b"x", headers=encoded("gzip")),
    "gzip, zeros and more": Refusal(400, CUT, PACKED + bytes(9) + b"x", headers=encoded("gzip")),
    "gzip, several members and more": Refusal(400, CUT, PACKED * 2 + b"x", headers=encoded("gzip")),
    "gzip, the second member cut short": Refusal(
        400, CUT, (PACKED * 2)[:-9], headers=encoded("gzip")
    ),
    "gzip, the second member damaged": Refusal(
        400, NOT_COMPRESSED, PACKED * 2 + PACKED[:-8] + bytes(8), headers=encoded("gzip")
    ),
    "gzip, too many members": Refusal(
        400, "more than 1000 compressed parts", gzip.compress(b"") * 50_000, headers=encoded("gzip")
    ),
    "gzip, members too long together": Refusal(
        413, EXPANDED, gzip.compress(b" " * (LIMITS.body // 2 + 1)) * 2, headers=encoded("gzip")
    ),
    "deflate twice": Refusal(400, CUT, zlib.compress(SOME) * 2, headers=encoded("deflate")),
    "gzip, empty": Refusal(400, CUT, b"", headers=encoded("gzip")),
    "brotli": Refusal(415, ENCODING, SOME, headers=encoded("br")),
    "gzip twice": Refusal(415, ENCODING, gzip.compress(PACKED), headers=encoded("gzip, gzip")),
    "a form with files": Refusal(415, MULTIPART, SOME, "multipart/form-data; boundary=x"),
    "multipart, empty": Refusal(415, MULTIPART, b"", "Multipart/Mixed"),
    "multipart, of no kind": Refusal(415, MULTIPART, b"--x--\r\n" * 10_000, "multipart/"),
    "shorter than announced": Refusal(400, SHORT, SOME, environ=(("CONTENT_LENGTH", "99"),)),
    "CSV in chunks": Refusal(411, NO_LENGTH, LINES[CSV], CSV, CHUNKED, NO_END),
    "lines in chunks": Refusal(411, NO_LENGTH, LINES[NDJSON], NDJSON, CHUNKED, NO_END),
    "empty, in chunks": Refusal(411, NO_LENGTH, b"", JSON, CHUNKED, NO_END),
    "empty": Refusal(400, "the body is empty", b""),
    "blank": Refusal(400, "the body is empty", b" \n "),
    "a web form": Refusal(400, "write json={…} instead of data={…}", b"features=6.1&features=2"),
    "JSON cut short": Refusal(400, "the body is not JSON", SOME[:-5]),
    "JSON and more": Refusal(400, "the body is not JSON", SOME * 2),
    "not UTF-8": Refusal(400, "the body is not text in UTF-8", b'{"x": "\xff"}'),
    "a pickle": Refusal(400, "the body is not text in UTF-8", pickle.dumps([ROW])),
    "nested lists": Refusal(400, "nested too deeply", b"[" * 100_000),
    "nested objects": Refusal(400, "nested too deeply", b'{"a":' * 100_000),
    "a list": Refusal(400, NO_KEY, b"[]"),
    "a number": Refusal(400, NO_KEY, b"6.1"),
    "nothing in it": Refusal(400, "", b"{}"),
}


def send(client, path, refusal):
    _, _, body, kind, headers, environ = refusal
    return client.post(
        path,
        data=body,
        content_type=kind,
        headers=dict(headers),
        environ_overrides=dict(environ),
    )


def check_refusal(client, path, answer, status, words, kind=JSON):
    """The status, a sentence with the `words`, and an example that is right when it is sent."""
    assert answer.status_code == status, answer.data
    problem = path in PROBLEMS
    assert answer.content_type == ("application/problem+json" if problem else "application/json")
    said = answer.json
    assert words in said["detail" if problem else "error"]
    assert ("on each line 4 numbers" if kind in LINES else EXPECTED[ENDPOINTS[path]]) in said[
        "expected"
    ]
    assert answer.headers["X-Model-Version"] == "1"
    assert len(answer.data) < 20_000
    for leak in (b"Traceback", b"site-packages", b"/tmp", b"/home", b".py"):
        assert leak not in answer.data
    example = said["example"]
    example = example if isinstance(example, str) else json.dumps(example)
    assert client.post(path, data=example, content_type=kind).status_code == 200


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_body_that_cannot_be_read_is_refused_everywhere_alike(client, path, name):
    refusal = REFUSALS[name]
    tracemalloc.start()
    answer = send(client, path, refusal)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    lined = refusal.kind if (path, refusal.kind) in LINED else JSON
    check_refusal(client, path, answer, refusal.status, refusal.words, lined)
    if refusal.words == ENCODING:
        assert answer.headers["Accept-Encoding"] == "gzip, deflate"
    if refusal.words == NO_KEY:
        (key,) = ENDPOINTS[path]([ROW])
        assert key in answer.json["detail" if path in PROBLEMS else "error"]


UNREAD = [  # refused before the body is parsed, whatever is in it
    name
    for name, refusal in REFUSALS.items()
    if refusal.words in (TOO_LONG, EXPANDED, CUT, NOT_COMPRESSED, ENCODING, SHORT)
    and refusal.headers != CHUNKED
]


@pytest.mark.parametrize(("path", "kind"), LINED)
@pytest.mark.parametrize("name", UNREAD)
def test_lines_that_cannot_be_read_are_refused_with_an_example_of_lines(client, path, kind, name):
    refusal = REFUSALS[name]._replace(kind=kind)
    answer = send(client, path, refusal)
    check_refusal(client, path, answer, refusal.status, refusal.words, kind)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_more_rows_than_the_limit_are_refused_and_never_answered_in_part(client, path):
    make, many = ENDPOINTS[path], [[1, 1, 1, 1]] * (LIMITS.rows + 1)
    answer = client.post(path, json=make(many))
    words = f"{LIMITS.rows + 1} rows in one request; at most {LIMITS.rows} are allowed"
    check_refusal(client, path, answer, 413, words)
    said = client.post(path, json=make(many[1:])).json
    assert len(said.get("predictions") or said["outputs"][0]["data"]) == LIMITS.rows


@pytest.mark.parametrize(("path", "kind"), LINED)
def test_more_lines_than_the_limit_are_refused_and_never_answered_in_part(client, path, kind):
    answer = client.post(path, data=LINES[kind] * (LIMITS.rows + 1), content_type=kind)
    check_refusal(client, path, answer, 413, f"more than {LIMITS.rows} rows", kind)
    answer = client.post(path, data=LINES[kind] * LIMITS.rows, content_type=kind)
    assert len(answer.json["predictions"]) == LIMITS.rows


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_body_of_exactly_the_limit_is_read(client, path):
    body = json.dumps(ENDPOINTS[path]([ROW])).encode()
    answer = client.post(path, data=body + b" " * (LIMITS.body - len(body)))
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate", "raw", "identity"])
def test_a_compressed_body_is_decompressed(client, path, encoding):
    body = json.dumps(ENDPOINTS[path]([ROW])).encode()
    raw = zlib.compress(body)[2:-4]
    packed = {"deflate": zlib.compress(body), "raw": raw, "identity": body}
    headers = {"Content-Encoding": encoding.replace("raw", "deflate")}
    answer = client.post(path, data=packed.get(encoding, gzip.compress(body)), headers=headers)
    whole = client.post(path, data=body)
    assert answer.status_code == 200
    answers = [{k: v for k, v in each.json.items() if k != "id"} for each in (answer, whole)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_compressed_body_may_have_several_members_wherever_they_meet(client, path):
    body = json.dumps(ENDPOINTS[path]([ROW])).encode()
    for place in (0, 1, len(body) // 2, len(body)):
        packed = gzip.compress(body[:place]) + gzip.compress(body[place:], 0)
        for headers, environ in ((), ()), (CHUNKED, NO_END):
            sent = Refusal(200, "", packed, JSON, (*encoded("gzip"), *headers), environ)
            assert send(client, path, sent).status_code == 200


@pytest.mark.parametrize("path", ENDPOINTS)
def test_zeros_behind_the_members_of_gzip_are_no_part_of_it(client, path):
    body = json.dumps(ENDPOINTS[path]([ROW])).encode()
    halves = gzip.compress(body[:9]), gzip.compress(body[9:])
    for packed in (gzip.compress(body), bytes(512).join(halves)):
        sent = Refusal(200, "", packed + bytes(10_240), JSON, encoded("gzip"))
        assert gzip.decompress(sent.body) == body
        assert send(client, path, sent).status_code == 200


@pytest.mark.parametrize(("path", "kind"), LINED)
def test_lines_in_several_members_need_a_length_since_a_cut_between_them_does_not_show(
    client, path, kind
):
    line, gzipped = LINES[kind], encoded("gzip")
    several = gzip.compress(line) + gzip.compress(line * 2)
    answer = send(client, path, Refusal(200, "", several, kind, gzipped))
    assert len(answer.json["predictions"]) == 3
    answer = send(client, path, Refusal(411, "", several, kind, (*gzipped, *CHUNKED), NO_END))
    check_refusal(client, path, answer, 411, "send Content-Length, or compress the body as", kind)
    whole = gzip.compress(line * 3)
    answer = send(client, path, Refusal(200, "", whole, kind, (*gzipped, *CHUNKED), NO_END))
    assert len(answer.json["predictions"]) == 3


@pytest.mark.parametrize("path", ENDPOINTS)
def test_lines_without_their_content_type_are_told_how_to_announce_them_where_they_are_read(
    client, path
):
    table = b"sepal_length,sepal_width,petal_length,petal_width\n6.1,2.8,4.7,1.2\n"
    blanks = b"6.1 2.8 4.7 1.2"
    lines = (table, CSV), (LINES[CSV], CSV), (blanks, CSV), (LINES[NDJSON] * 2, NDJSON)
    for body, kind in lines:
        answer = client.post(path, data=body)
        told = f"-H 'Content-Type: {kind}'"
        reads_lines = (path, kind) in LINED
        check_refusal(client, path, answer, 400, told if reads_lines else "the body is not JSON")
        assert reads_lines or "Content-Type" not in (answer.json.get("error") or "")


@pytest.mark.parametrize(("path", "kind"), [each for each in LINED if each[1] == CSV])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("NAMES\n6.1;2.8;4.7;1.2\n".replace("NAMES", "a;b;c;d"), "separated by semicolons"),
        ("6.1;2.8;4.7;1.2\n", "line 1: the cells are separated by semicolons"),
        ("6,1;2,8;4,7;1,2\n", "separate them by commas, and write decimals with a point"),
        ("\n6.1\t2.8\t4.7\t1.2\n", "line 2: the cells are separated by tabs"),
        ("6.1|2.8|4.7|1.2\n", "the cells are separated by bars"),
        ("6.1 2.8 4.7 1.2\n", "the cells are separated by blanks; separate them by commas"),
        ("sepal_length sepal_width petal_length petal_width\n", "are separated by blanks"),
        ("6,1  2,8  4,7  1,2\n", "separated by blanks; separate them by commas, and write dec"),
        ("sepal_length;sepal_width\n6.1;2.8\n", "the cells are separated by semicolons"),
        ('"6,1","2,8","4,7","1,2"\n', 'got the string "6,1"; write a decimal point'),
        ("6,1,2,8,4,7,1,2\n", "if these are decimal commas, write a decimal point"),
        ('"1,000",2.8,4.7,1.2\n', "write numbers without a comma"),
    ],
)
def test_csv_of_another_kind_is_refused_with_what_to_do(client, path, kind, body, words):
    answer = client.post(path, data=body, content_type=kind)
    check_refusal(client, path, answer, 400, words, kind)


@pytest.mark.parametrize("path", [path for path, kind in LINED if kind == CSV])
def test_blanks_behind_commas_change_no_answer(client, path):
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    plain = client.post(path, data=",".join(names) + "\n6.1,2.8,4.7,1.2\n", content_type=CSV)
    quoted = ", ".join(f'"{name}"' for name in names) + '\n6.1, 2.8, "4.7",   "1.2"\n'
    assert plain.status_code == 200
    assert client.post(path, data=quoted, content_type=CSV).data == plain.data


@pytest.mark.parametrize("path", ENDPOINTS)
def test_json_in_chunks_is_read(client, path):
    body = json.dumps(ENDPOINTS[path]([ROW])).encode()
    answer = send(client, path, Refusal(200, "", body, JSON, CHUNKED, NO_END))
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_wrong_method_is_refused_with_the_right_one(client, path, method):
    answer = client.open(path, method=method)
    assert answer.status_code == 405
    assert answer.json["detail" if path in PROBLEMS else "error"].endswith("use POST")
    assert "POST" in answer.headers["Allow"].split(", ")
