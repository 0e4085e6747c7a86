"""Valid requests, mutated at random; the same seed makes the same ones."""

import json
import random
from urllib.parse import quote_from_bytes

from questions import ALL, CSV, JSON, JSON_LENGTH_HEADER, NDJSON

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO", "get", "P!"]
KINDS = [
    *(JSON, CSV, NDJSON, "application/octet-stream", "text/plain", "application/jsonlines", ""),
    *("multipart/form-data; boundary=x", "multipart/mixed", "application/json; charset=utf-16"),
    *(
        "application/x-www-form-urlencoded",
        "application/pickle",
        ";",
        "a/b/c",
        "text/csv;;=",
        "*/*",
    ),
]
ENCODINGS = [
    "gzip",
    "deflate",
    "br",
    "identity",
    "gzip, deflate",
    "x-gzip",
    "",
    "GZIP",
    ";",
    "zstd",
]
LENGTHS = ["0", "1", "100", "99999", "-1", "", "x", "1e2", "9" * 30, "+5", " 5 ", "0x10"]
ACCEPTS = [
    CSV,
    "text/csv, */*",
    "application/openmetrics-text; version=1.0.0",
    "multipart/x",
    ";q=2",
]
HEADERS = [
    *("X-Request-Id", "Authorization", "X-API-Key", "Origin", "Access-Control-Request-Method"),
    *("If-None-Match", "Range", "Cookie", "Content-Language", "X-Forwarded-For", "Expect-CT"),
    *(
        "Content-Type",
        "Content-Encoding",
        "Accept",
        JSON_LENGTH_HEADER,
        "X-HTTP-Method-Override",
        "Date",
    ),
]
QUERIES = [
    *("detail=true", "detail=false", "detail", "detail=1", "detail=true&detail=true", "=", "&&&"),
    *("%ff=%00", "a=1&b=2", "detail=%74rue", "detail[]=true", "x" * 2000, "&" * 500, "detail=\xe9"),
]
SEGMENTS = [
    *("0", "1", "2", "-1", "01", "1.0", "%31", "current", "9" * 400, "..", ".", "%2e%2e", "%00"),
    *("%2f", "iris%2F..", "iris:predict", ":predict", "iris", "IRIS", "\xe9", "%ff%fe", "*", ""),
    *(
        "predict",
        "infer",
        "ready",
        "versions",
        "~",
        "{name}",
        "<v>",
        "latest",
        "1:predict",
        "%0d%0a",
    ),
]
VALUES = [
    *(None, True, False, 0, -1, 1.5, 1e308, -1e-308, 2**31, 2**63, 10**400, "", "1", "\x00", "NaN"),
    *(
        "\ud800",
        "x" * 300,
        [],
        {},
        [[]],
        [{}],
        [None],
        {"": None},
        "FP64",
        "BYTES",
        [1, 4],
        [[1] * 4],
    ),
    *(float("nan"), float("inf"), "features", [0] * 200, {"a": {"b": {}}}, "../../etc/passwd"),
]


def children(value):
    """The keys below `value`."""
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def places(value):
    """A container and a key of it, for each value inside of `value`."""
    for key in children(value):
        yield value, key
        yield from places(value[key])


def in_json(dice, body):
    """`body` with one of its values exchanged, left out, doubled or renamed, if it is JSON."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return in_bytes(dice, body)
    found = list(places(whole))
    if not found or dice.random() < 0.05:
        return json.dumps(dice.choice(VALUES)).encode()
    (value, key), how = dice.choice(found), dice.randrange(4)
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, list):
        value.insert(key, dice.choice([value[key], dice.choice(VALUES)]))
    elif how == 2 and isinstance(value, dict):
        value[dice.choice(["", "x", key.upper(), f"{key}s", "detail"])] = value.pop(key)
    else:
        value[key] = dice.choice(VALUES)
    return json.dumps(whole).encode()


def in_bytes(dice, body):
    """`body` with some bytes flipped, cut off, left out, doubled, or put in."""
    made, how = bytearray(body or b"{}"), dice.randrange(6)
    start, end = sorted(dice.randrange(len(made) + 1) for _ in range(2))
    if how == 0:
        for _ in range(dice.choice([1, 1, 2, 20])):
            made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
    elif how == 1:
        del made[start:]
    elif how == 2:
        del made[start:end]
    elif how == 3:
        made[start:start] = made[start:end]
    elif how == 4:
        made[start:end] = dice.randbytes(dice.randrange(1, 30))
    else:
        other = dice.choice(ALL).body
        made[start:] = other[dice.randrange(len(other) + 1) :]
    return bytes(made)


def body(dice, question):
    change = dice.choice([in_json, in_json, in_bytes])
    return question._replace(body=change(dice, question.body))


def method(dice, question):
    return question._replace(method=dice.choice(METHODS))


def path(dice, question):
    """Another query, or a segment of the path exchanged, left out or put in."""
    path, _, query = question.path.partition("?")
    if dice.random() < 0.3:
        return question._replace(path=f"{path}?{dice.choice(QUERIES)}")
    segments = path.split("/")
    place = dice.randrange(1, len(segments) + 1)
    segments[place : place + dice.randrange(2)] = [dice.choice(SEGMENTS)][: dice.randrange(2)]
    made = "/".join(segments) or "/"
    if dice.random() < 0.1:
        made += "/" + quote_from_bytes(dice.randbytes(5))
    made = made if made.startswith("/") else f"/{made}"
    return question._replace(path=f"{made}?{query}" if query else made)


def header(dice, question):
    """A header put in, in place of one of the same name."""
    known = {
        "Content-Type": KINDS,
        "Content-Encoding": ENCODINGS,
        JSON_LENGTH_HEADER: LENGTHS,
        "Accept": ACCEPTS,
    }
    name = dice.choice([*known, *HEADERS])
    chance = "".join(chr(dice.randrange(32, 127)) for _ in range(dice.randrange(40)))
    value = dice.choice([*known.get(name, ()), chance])
    others = tuple(pair for pair in question.headers if pair[0] != name)
    return question._replace(headers=(*others, (name, value)))


def mutant(seed, number, questions=ALL):
    """Request `number` of those that `seed` makes of the `questions`."""
    dice = random.Random(f"{seed}/{number}")  # noqa: S311
    question = dice.choice(questions)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        question = dice.choice([body, body, body, method, path, header, header])(dice, question)
    if question.body and dice.random() < 0.02:
        question = question._replace(body=question.body * dice.choice([10, 1000, 5000]))
    return question
