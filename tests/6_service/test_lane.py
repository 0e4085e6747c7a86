"""The fast lane: what it answers is, to the byte, what Flask answers alone.

`FUZZ_SEED` repeats a run.
"""

import io
import os
import secrets

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import Recorder, contracts, rows
from mutants import mutant
from questions import ALL, INFER, PREDICT, ROW, environ_of, post, watch_lane
from werkzeug.test import run_wsgi_app

from iris_serve.protocols.v2 import make_v2
from iris_serve.registry.registry import Registry
from iris_serve.service.access import Policy
from iris_serve.service.app import create_app
from iris_serve.service.bodies import Limits
from iris_serve.service.keys import make_key, read_keys
from iris_serve.service.live import LivePredictor
from iris_serve.service.rate_limit import RateLimit
from iris_serve.service.versions import Versions

SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(1 << 32))
HOT = (PREDICT, INFER)
SECRET, DIGEST = make_key()
KEYS = read_keys(f"web:{DIGEST}")
POLICIES = {
    "open": Policy(),
    "loopback": Policy(address="127.0.0.1"),
    "keys": Policy(keys=KEYS),
    "origins": Policy(origins=("https://shop.example",)),
    "all origins": Policy(origins=("*",)),
    "small": Policy(limits=Limits(body=60, rows=2, headers=300)),
}
LENGTHS = st.sampled_from(["", "0", "1", "34", "99", "+5", " 5", "٣", "-1", "9" * 20])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "HTTP_HOST": st.sampled_from(["localhost", "127.0.0.1:5000", "evil.example", "", "\xe9"]),
        "HTTP_X_REQUEST_ID": st.sampled_from(["order-66", "", "a b", "x" * 200]),
        "HTTP_X_API_KEY": st.sampled_from([SECRET, "wrong", ""]),
        "HTTP_AUTHORIZATION": st.sampled_from([f"Bearer {SECRET}", "Bearer no", "Basic x"]),
        "HTTP_ORIGIN": st.sampled_from(["https://shop.example", "null", "https://else.example"]),
        "HTTP_CONTENT_ENCODING": st.sampled_from(["gzip", "identity", ""]),
        "HTTP_EXPECT": st.just("100-continue"),
        "HTTP_UPGRADE": st.just("websocket"),
        "HTTP_TRANSFER_ENCODING": st.just("chunked"),
        "HTTP_TRACEPARENT": st.sampled_from(["", f"00-{'a' * 32}-{'b' * 16}-01", "00-0-0-00"]),
        "HTTP_COOKIE": st.sampled_from(["a=b", "a" * 300, "a" * 40_000]),
        "CONTENT_TYPE": st.sampled_from(["", "text/csv", "Application/JSON;x", "multipart/mixed"]),
        "CONTENT_LENGTH": st.sampled_from(
            ["", "0", "1", "34", "99", "+5", " 5", "٣", "-1", "9" * 20]
        ),
        "QUERY_STRING": st.sampled_from(["detail=true", "detail=no", "x=1", "%ff", "\xe9"]),
        "REQUEST_METHOD": st.sampled_from(["GET", "PUT", "OPTIONS", "HEAD", "post"]),
        "SERVER_PROTOCOL": st.sampled_from(["HTTP/1.0", "HTTP/1.1", ""]),
        "SCRIPT_NAME": st.just("/prefix"),
    },
)


class Noted:
    """An observer that keeps all it is told, but for the time it took."""

    counts = None

    def __init__(self):
        self.seen = []

    def observe(self, route, status, seconds, *rest):
        assert seconds >= 0
        self.seen.append((route, status, *rest))


def two_ways(predictor, policy, blueprints=()):
    """Two applications, with the fast lane and without, and what their observers have noted."""
    made = []
    for fast_lane in (True, False):
        observer = Noted()
        made.append((create_app(predictor, blueprints, policy, observer, fast_lane), observer.seen))
    return made


def outcome(app, seen, environ):
    """All that the client and the observer learn of one request."""
    seen.clear()
    length, body = environ["CONTENT_LENGTH"], environ["wsgi.input"].getvalue()
    if length.isascii() and length.isdecimal():
        body = body[: int(length)]  # no server reads on into the next request
    environ = environ | {"wsgi.input": io.BytesIO(body)}
    chunks, status, headers = run_wsgi_app(app, environ, buffered=True)
    return status, list(headers), b"".join(chunks), list(seen)


def check_equal(apps, environ):
    """Raise unless both applications give the same outcome; the status of it."""
    (fast, fast_seen), (alone, alone_seen) = apps
    found = outcome(fast, fast_seen, environ)
    assert found == outcome(alone, alone_seen, environ)
    return int(found[0].split()[0])


QUESTIONS = [question for question in ALL if question.path.partition("?")[0] in HOT]


@pytest.fixture(autouse=True)
def the_same_ids(monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda size: b"\1" * size)
    monkeypatch.setattr("iris_serve.service.access_log.IDS.getrandbits", lambda bits: 1)


@pytest.fixture(scope="module")
def live(trained):
    live = LivePredictor(Registry(trained))
    live.stop()
    return live


@pytest.fixture(params=POLICIES)
def apps(request, live):
    return two_ways(live, POLICIES[request.param], [make_v2(Versions(live))])


def test_the_hot_paths_are_those_of_the_most_frequent_questions(apps):
    (fast, _), _ = apps
    assert set(fast.extensions["hot"]) == {PREDICT, INFER}


@pytest.mark.parametrize("times", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_requests_have_the_same_outcome_both_ways(apps, times):
    statuses, seen = set(), watch_lane(apps[0][0])
    for number in range(times):
        question = mutant(SEED, f"{number}/lane", QUESTIONS if number % 2 else ALL)
        environ = environ_of(question)
        if number % 4:
            environ.setdefault("HTTP_X_API_KEY", SECRET)
        try:
            statuses.add(check_equal(apps, environ))
            assert max(statuses) < 500
        except Exception as error:
            error.add_note(f"FUZZ_SEED={SEED}, request {number}: {question!r}")
            raise
    assert 400 in statuses or 401 in statuses or 413 in statuses or 431 in statuses
    assert min(seen["answered"], seen["left"]) > times / 50, seen


@pytest.mark.parametrize("times", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_any_headers_have_the_same_outcome_both_ways(apps, times):
    @settings(max_examples=times, deadline=None, print_blob=True)
    @given(st.sampled_from(QUESTIONS), HEADERS)
    def any_headers(question, headers):
        check_equal(apps, environ_of(question) | headers)

    any_headers()


@pytest.mark.parametrize("times", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_rows_of_any_contract_have_the_same_outcome_both_ways(times):
    @settings(max_examples=times, deadline=None, print_blob=True)
    @given(st.data())
    def any_rows(data):
        contract = data.draw(contracts())
        asked = data.draw(st.lists(rows(contract), min_size=1, max_size=3))
        names = [feature.name for feature in contract.features]
        way = data.draw(st.sampled_from(["one", "named", "many", "wrong"]))
        if way == "named":
            features = dict(zip(names, asked[0], strict=True))
        else:
            features = {"one": asked[0], "many": asked, "wrong": [*asked[0], 1]}[way]
        body = msgspec.json.encode({"features": features, "detail": data.draw(st.booleans())})
        environ = environ_of(post(PREDICT, body))
        assert check_equal(two_ways(Recorder(contract, []), Policy()), environ) in (200, 400)

    any_rows()


class Faulty(Recorder):
    """A predictor that fails."""

    def predict(self, rows):
        raise self.asked.pop()


@pytest.mark.parametrize("fault", [RuntimeError("secret"), MemoryError(), KeyError("x")])
def test_a_fault_has_the_same_outcome_both_ways_and_is_logged_once(live, fault, caplog):
    predictor = Faulty(live.pin().contract, [fault] * 3)  # the lane asks, then Flask again
    with caplog.at_level("ERROR"):
        apps = two_ways(predictor, Policy())
        assert check_equal(apps, environ_of(post(PREDICT, {"features": ROW}))) == 500
    assert predictor.asked == []
    assert len(caplog.records) == 2


def test_a_request_that_flask_has_to_finish_is_taken_from_the_bucket_once(live, tmp_path):
    predictor = Faulty(live.pin().contract, [RuntimeError()] * 6)
    rate = RateLimit(tmp_path / "rate", ["web"], 1, burst=3)
    app = create_app(predictor, (), Policy(keys=KEYS, rate=rate), Noted())
    environ = environ_of(post(PREDICT, {"features": ROW})) | {"HTTP_X_API_KEY": SECRET}
    assert [int(outcome(app, [], environ)[0][:3]) for _ in range(5)] == [500] * 3 + [429] * 2


class Broken:
    """The body of a connection that was reset."""

    def read(self, size=-1):
        raise ConnectionResetError


def test_a_connection_that_is_reset_has_the_same_outcome_both_ways(live):
    environ = environ_of(post(PREDICT, {"features": ROW})) | {"wsgi.input": Broken()}
    (fast, seen), (alone, noted) = two_ways(live, Policy())
    answers = [run_wsgi_app(app, environ, buffered=True)[1] for app in (fast, alone)]
    assert answers[0] == answers[1]
    assert seen == noted


def test_a_body_that_breaks_off_is_read_as_far_as_it_came(live):
    environ = environ_of(post(PREDICT, {"features": ROW})) | {"CONTENT_LENGTH": "999"}
    assert check_equal(two_ways(live, Policy()), environ) == 400
