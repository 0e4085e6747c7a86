"""Who may ask, how much, how often: keys, rates over real processes, and all checks together."""

import contextlib
import hashlib
import hmac
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import flask
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from questions import READING

from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings
from iris_serve.model.atomic import sha256
from iris_serve.protocols.framing import JSON_LENGTH_HEADER
from iris_serve.service import keys as keys_module
from iris_serve.service import rate_limit as rate_module
from iris_serve.service.access import (
    PUBLIC_ROUTES,
    HostsError,
    OriginsError,
    Policy,
    admit,
    check_headers,
    check_rate,
    cross_origin,
    exposure_warning,
    host_allowed,
    is_loopback,
    is_public,
    normalized_origin,
    preflight,
    read_hosts,
    read_origins,
)
from iris_serve.service.errors import (
    STATUS,
    HeadersError,
    HostError,
    RateError,
    UnauthorizedError,
)
from iris_serve.service.keys import (
    MAX_SECRET,
    Key,
    KeysError,
    authenticate,
    check_key_name,
    read_keys,
)
from iris_serve.service.rate_limit import (
    MAX_REQUESTS,
    TABLE,
    RateLimit,
    next_due,
    rate_file,
    take_from,
)

SECRET, OTHER_SECRET = "S" * 43, "O" * 43  # fixed, so that tests with them have fixed names
DIGEST, OTHER = (sha256(secret.encode()) for secret in (SECRET, OTHER_SECRET))
KEYS = read_keys(f"shop:{DIGEST},lab:{OTHER}")
PRINT = settings(print_blob=True, deadline=None)
HOURLY = 3600 * 10**9  # a step in which nothing flows in during a test


def bearer(secret, **more):
    return {"authorization": f"Bearer {secret}", **more}


# Keys


def test_a_key_made_here_is_recognized_by_its_digest_alone():
    assert hashlib.sha256(SECRET.encode()).hexdigest() == DIGEST
    assert SECRET not in repr(KEYS)
    assert authenticate(bearer(SECRET).get, KEYS) == "shop"
    assert authenticate({"x-api-key": OTHER_SECRET}.get, KEYS) == "lab"


def test_old_and_new_key_are_both_valid_while_a_secret_is_changed():
    old, new = read_keys(f"shop-1:{DIGEST}"), read_keys(f"shop-1:{DIGEST} shop-2:{OTHER}")
    assert (
        authenticate(bearer(SECRET).get, old) == authenticate(bearer(SECRET).get, new) == "shop-1"
    )
    assert authenticate(bearer(OTHER_SECRET).get, new) == "shop-2"
    with pytest.raises(UnauthorizedError):
        authenticate(bearer(OTHER_SECRET).get, old)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_name_of_the_scheme_is_read_as_http_reads_it(scheme):
    assert authenticate({"authorization": f"{scheme}{SECRET}"}.get, KEYS) == "shop"


def test_an_authorization_of_another_scheme_does_not_hide_the_key():
    assert authenticate({"authorization": "Basic eDp5", "x-api-key": SECRET}.get, KEYS) == "shop"


def test_the_same_secret_in_both_headers_is_fine_and_two_are_refused():
    assert authenticate(bearer(SECRET, **{"x-api-key": SECRET}).get, KEYS) == "shop"
    with pytest.raises(UnauthorizedError, match="hold different keys"):
        authenticate(bearer(SECRET, **{"x-api-key": OTHER_SECRET}).get, KEYS)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": SECRET},
        {"authorization": f"Basic {SECRET}"},
        {"x-api-key": " "},
        {"x-api-key": DIGEST},
        {"x-api-key": f"shop:{SECRET}"},
        {"x-api-key": SECRET[:-1]},
        {"x-api-key": f"{SECRET},{SECRET}"},
        {"x-api-key": SECRET.swapcase()},
        {"x-api-key": "\x00"},
    ],
)
def test_a_client_without_a_right_key_is_told_how_to_send_one_and_reads_nothing_back(headers):
    with pytest.raises(UnauthorizedError) as refused:
        authenticate(headers.get, KEYS)
    assert "`Authorization: Bearer SECRET` or `X-API-Key: SECRET`" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert DIGEST not in str(refused.value)


@PRINT
@given(st.text(st.characters(codec=None)), st.sampled_from(["authorization", "x-api-key"]))
def test_no_header_crashes_the_check_of_keys_or_passes_it(text, header):
    for value in (text, f"Bearer {text}", f"Bearer {text}{SECRET}x"):
        with pytest.raises(UnauthorizedError) as refused:
            authenticate({header: value}.get, KEYS)
        assert len(text) < 10 or text not in str(refused.value)


def test_a_secret_that_is_too_long_is_not_even_hashed(monkeypatch):
    def never(data):
        raise AssertionError(f"{len(data)} bytes were hashed")

    monkeypatch.setattr(keys_module.hashlib, "sha256", never)
    for secret in ("x" * (MAX_SECRET + 1), "x" * 10**6, "\xff"):
        with pytest.raises(UnauthorizedError):
            authenticate(bearer(secret).get, KEYS)


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET, "wrong"])
def test_every_key_is_compared_whichever_it_is(monkeypatch, secret):
    compared = []

    def compare(a, b):
        compared.append(a)
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    with contextlib.suppress(UnauthorizedError):
        authenticate(bearer(secret).get, KEYS)
    assert compared == [DIGEST, OTHER]


def test_without_keys_every_client_has_the_empty_name():
    assert authenticate(bearer("whatever").get, ()) == ""
    assert read_keys("") == read_keys(" ,\n") == ()


def test_a_header_without_a_secret_never_matches_the_digest_of_an_empty_text():
    empty = (Key("empty", hashlib.sha256(b"").hexdigest()),)
    for headers in ({}, {"x-api-key": ""}, {"authorization": "Bearer "}):
        with pytest.raises(UnauthorizedError):
            authenticate(headers.get, empty)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SECRET, "key 1 is not NAME:DIGEST"),
        (f"shop:{DIGEST},{SECRET}", "key 2 is not NAME:DIGEST"),
        (DIGEST, "key 1 is not NAME:DIGEST"),
        (f"{SECRET}:{DIGEST}", "key 1 is not NAME:DIGEST"),
        (f"Shop:{DIGEST}", "key 1 is not NAME:DIGEST"),
        (f"{'x' * 33}:{DIGEST}", "key 1 is not NAME:DIGEST"),
        (f":{DIGEST}", "key 1 is not NAME:DIGEST"),
        (f"shop:{SECRET}", "key shop: .* looks like the secret"),
        (f"shop:{DIGEST}{SECRET}", "key shop: .* 64 hexadecimal digits; `python"),
        (f"shop:sha256:{DIGEST}", "key shop: .* 64 hexadecimal digits"),
        ("shop:", "key shop: .* 64 hexadecimal digits"),
        (f"shop: {DIGEST}", "key shop: .* 64 hexadecimal digits"),
        (f"shop:{DIGEST} shop:{OTHER}", "two keys called shop"),
        (f"shop:{DIGEST} lab:{DIGEST.upper()}", "shop and lab have the same secret"),
    ],
)
def test_keys_that_cannot_be_read_are_named_and_never_quoted(text, words):
    with pytest.raises(KeysError, match=words) as refused:
        read_keys(text)
    assert SECRET not in str(refused.value)
    assert DIGEST not in str(refused.value)


@PRINT
@given(st.text(), st.text())
def test_a_secret_is_never_repeated_wherever_it_was_pasted(before, after):
    said = ""
    try:
        read_keys(f"{before}{SECRET}{after}")
    except KeysError as error:
        said = str(error)
    assert SECRET not in said


def test_keys_may_stand_on_lines_as_well():
    assert read_keys(f"\n  shop:{DIGEST.upper()}\n  lab:{OTHER},\n") == KEYS


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a" * 33, "käse", "a\n", "a:b"])
def test_a_name_is_short_and_plain(name):
    with pytest.raises(KeysError, match="1 to 32 characters"):
        check_key_name(name)


# Rates


@PRINT
@given(
    st.integers(1, 10),
    st.integers(1, 100),
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
)
def test_no_span_of_time_sees_more_than_the_burst_and_what_flows_in(burst, step, pauses):
    due, now, accepted = 0, 10**6, []
    for pause in pauses:
        now += pause
        before = due
        due, wait = next_due(due, now, step, burst)
        if not wait:
            accepted.append(now)
            continue
        assert due == before
        assert next_due(due, now + wait, step, burst)[1] == 0
        assert next_due(due, now + wait - 1, step, burst)[1] == 1
    for i, first in enumerate(accepted):
        for j, last in enumerate(accepted[i:]):
            assert j + 1 <= burst + (last - first) // step


@PRINT
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**18))
def test_a_moment_left_behind_before_a_restart_delays_no_client_longer_than_a_burst(due, now):
    after, wait = next_due(due, now, HOURLY, 3)
    assert 0 <= wait <= HOURLY
    assert now <= after <= now + 3 * HOURLY


@PRINT
@given(
    st.integers(1, 10**9),
    st.integers(1, 5),
    st.lists(st.integers(-(10**10), 10**10), max_size=20),
)
def test_the_database_computes_what_the_formula_says(step, burst, pauses):
    rates, due, now = sqlite3.connect(":memory:", isolation_level=None), 0, 10**12
    rates.execute(TABLE)
    for pause in pauses:
        now = max(1, now + pause)  # backwards, too, as after a restart of the machine
        due, wait = next_due(due, now, step, burst)
        assert take_from(rates, "shop", now, step, burst) == wait
        assert rates.execute("SELECT due FROM buckets").fetchone() == (due,)
    rates.close()


def test_each_key_has_a_bucket_of_its_own(tmp_path):
    rate = RateLimit(tmp_path / "rate", ["shop", "lab"], per_minute=1, burst=2)
    for name in ("shop", "lab", "") * 2:
        rate.take(name)
    for name in ("shop", "lab", ""):
        with pytest.raises(RateError):
            rate.take(name)
    assert (tmp_path / "rate").stat().st_mode & 0o777 == 0o600


def test_a_refusal_says_which_key_how_often_and_when_to_ask_again(tmp_path):
    rate = RateLimit(tmp_path / "rate", ["shop"], per_minute=2)
    for name in ("shop", "") * 2:
        rate.take(name)
    said = "may ask 2 times a minute, 2 of them at once; ask again in"
    with pytest.raises(RateError, match=f"^the key shop {said} (30|2.) s$") as refused:
        rate.take("shop")
    assert 20 < refused.value.retry_after <= 30
    with pytest.raises(RateError, match=f"all clients together {said}"):
        rate.take("")


def test_after_the_time_that_was_named_there_is_another_request(tmp_path):
    rate = RateLimit(tmp_path / "rate", [], per_minute=600, burst=1)
    started = time.monotonic()
    for _ in range(4):
        while True:
            try:
                rate.take("")
                break
            except RateError as error:
                time.sleep(error.retry_after)
    assert 0.3 <= time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("per_minute", "burst"), [(0, 1), (-1, 1), (1, 0), (MAX_REQUESTS + 1, 1), (1, MAX_REQUESTS + 1)]
)
def test_a_rate_or_burst_out_of_bounds_is_refused(tmp_path, per_minute, burst):
    with pytest.raises(ValueError, match="1 to 1000000 requests"):
        RateLimit(tmp_path / "rate", [], per_minute, burst)


def test_the_greatest_rate_fits_into_a_slot(tmp_path):
    RateLimit(tmp_path / "slow", [], per_minute=1, burst=MAX_REQUESTS).take("")
    RateLimit(tmp_path / "fast", [], per_minute=MAX_REQUESTS, burst=MAX_REQUESTS).take("")


def test_each_key_finds_its_own_bucket_whatever_other_keys_there_are(tmp_path):
    names = ["shop", "lab"]
    rate = RateLimit(rate_file(tmp_path), names, per_minute=1)
    rate.take("lab")
    for others in (names[::-1], ["lab"], ["bakery", *names, "office"]):
        again = RateLimit(rate_file(tmp_path), others, per_minute=1)
        with pytest.raises(RateError, match="the key lab"):
            again.take("lab")
    again.take("shop")
    again.take("bakery")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.sqlite"]


CONTENTS = [b"", b"\x00" * 16, b"\xff" * 9000, b"\x7f" * 16, b"SQLite format 3\x00", b"x" * 100]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_leftover_file_that_is_no_database_is_replaced_and_all_buckets_are_full(
    tmp_path, content
):
    (tmp_path / "rate").write_bytes(content)
    rate = RateLimit(tmp_path / "rate", ["shop"], per_minute=1, burst=5)
    for _ in range(5):
        rate.take("shop")
    with pytest.raises(RateError):
        rate.take("shop")


@pytest.mark.parametrize("content", [None, *CONTENTS, *range(0, 8192, 1000)])
def test_a_file_that_is_damaged_or_removed_is_made_anew_for_all_and_no_request_fails(
    tmp_path, content, caplog
):
    path = tmp_path / "rate"
    rates = [RateLimit(path, ["shop"], per_minute=1, burst=2) for _ in range(2)]
    rates[0].take("shop")
    if content is None:
        path.unlink()
    elif isinstance(content, int):
        os.truncate(path, content)
    else:
        path.write_bytes(content)
    passed = []
    for turn in range(6):
        with contextlib.suppress(RateError):
            rates[turn % 2].take("shop")
            passed.append(turn)
    # All buckets are full again, or the database did not notice and counts on; for both alike.
    assert passed in ([0, 1], [0])
    assert caplog.records == []


def test_where_rates_cannot_be_counted_requests_pass_and_the_log_says_so_once(tmp_path, caplog):
    (tmp_path / "shared").mkdir()
    rate = RateLimit(tmp_path / "shared" / "rate", ["shop"], per_minute=1)
    shutil.rmtree(tmp_path / "shared")
    for _ in range(5):
        rate.take("shop")
    assert ["can't be used" in record.message for record in caplog.records] == [True]
    (tmp_path / "shared").mkdir()
    rate.take("shop")
    with pytest.raises(RateError):
        rate.take("shop")


def test_a_database_that_another_process_never_lets_go_of_stops_no_request(tmp_path, monkeypatch):
    monkeypatch.setattr(rate_module, "BUSY_SECONDS", 0.05)
    rate = RateLimit(tmp_path / "rate", ["shop"], per_minute=1)
    rate.take("shop")
    program = """
import sqlite3, sys
rates = sqlite3.connect(sys.argv[1], isolation_level=None)
rates.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", program, tmp_path / "rate"]
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == "locked\n"
        rate.take("shop")
        holder.stdin.write("\n")
    with pytest.raises(RateError):
        rate.take("shop")


def test_a_file_that_cannot_be_made_is_an_error_at_the_start(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for wrong in (tmp_path, tmp_path / "none" / "rate", tmp_path / "link"):
        with pytest.raises(OSError, match=str(wrong)):
            RateLimit(wrong, [], per_minute=1)


def test_a_full_disk_is_an_error_at_the_start(tmp_path, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(rate_module, "open_rates", full)
    with pytest.raises(OSError, match="disk is full"):
        RateLimit(tmp_path / "rate", [], per_minute=1)


def test_threads_count_together(tmp_path):
    rates = [RateLimit(tmp_path / "rate", [], per_minute=1, burst=500) for _ in range(2)]
    accepted, start = [], threading.Barrier(8)

    def ask(rate):
        start.wait()
        for _ in range(100):
            try:
                rate.take("")
                accepted.append(1)
            except RateError:
                pass

    threads = [threading.Thread(target=ask, args=(rates[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 500


ASK = """
import os, sys
from pathlib import Path

from iris_serve.service.errors import RateError
from iris_serve.service.rate_limit import RateLimit

path, turns, forks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rate, accepted = RateLimit(Path(path), ["shop"], per_minute=1, burst=turns), 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(forks):
    if not os.fork():
        break
for _ in range(turns):
    try:
        rate.take("shop")
        accepted += 1
    except RateError:
        pass
os.write(1, b"%d\\n" % accepted)  # one line at once, also where several processes write
"""


def asking(path, turns, forks=0):
    command = [sys.executable, "-c", ASK, str(path), str(turns), str(forks)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def total(processes):
    """Let all processes begin at the same time, and add up what each of them was granted."""
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(int(line) for p in processes for line in p.communicate(timeout=120)[0].split())


@pytest.mark.parametrize("turns", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_processes_count_together_exactly(tmp_path, turns):
    assert total([asking(tmp_path / "rate", turns) for _ in range(4)]) == turns


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_workers_count_together_although_they_share_what_was_open(tmp_path):
    assert total([asking(tmp_path / "rate", 5_000, forks=3)]) == 5_000


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_worker_that_is_killed_keeps_no_lock(tmp_path):
    endless = [asking(tmp_path / "rate", 1_000_000) for _ in range(3)]
    for process in endless:
        process.stdin.write("go\n")
        process.stdin.flush()
    rate = RateLimit(tmp_path / "rate", ["shop"], per_minute=MAX_REQUESTS)
    for process in endless:
        for _ in range(1_000):
            rate.take("")
        process.kill()
        process.communicate()
    rate.take("")


# All checks together


@pytest.fixture
def policy(tmp_path):
    rate = RateLimit(tmp_path / "rate", [key.name for key in KEYS], per_minute=1)
    return Policy(address="127.0.0.1", hosts=("localhost",), keys=KEYS, rate=rate)


def asked(policy, headers, route="/predict", method="POST"):
    name = admit(policy, method, route, headers.get, headers.items())
    if name is not None:
        check_rate(policy, route, name)
    return name


def test_a_request_is_admitted_under_the_name_of_its_key(policy):
    assert asked(policy, bearer(SECRET, host="localhost:5000")) == "shop"
    assert asked(policy, bearer(OTHER_SECRET, host="127.0.0.1:5000")) == "lab"


def test_the_checks_are_made_in_order_and_the_first_failure_is_reported(policy):
    wrong = {"x-filler": "x" * 40_000, "host": "evil.example", "x-api-key": "wrong"}
    for error, header, right in (
        (HeadersError, "x-filler", ""),
        (HostError, "host", "localhost"),
        (UnauthorizedError, "x-api-key", SECRET),
    ):
        with pytest.raises(error):
            asked(policy, wrong)
        wrong[header] = right
    assert asked(policy, wrong) == "shop"
    with pytest.raises(RateError):
        asked(policy, wrong)


def test_only_a_client_with_the_secret_empties_a_bucket(policy):
    for _ in range(3):
        with pytest.raises(UnauthorizedError):
            asked(policy, bearer("wrong", host="localhost"))
        with pytest.raises(HostError):
            asked(policy, bearer(SECRET, host="evil.example"))
    assert asked(policy, bearer(SECRET, host="localhost")) == "shop"


@pytest.mark.parametrize("route", sorted(PUBLIC_ROUTES))
def test_public_routes_need_no_key_and_are_not_counted(policy, route):
    for method in ("GET", "HEAD"):
        assert [asked(policy, {"host": "localhost"}, route, method) for _ in range(3)] == [None] * 3
    with pytest.raises(HostError):
        asked(policy, {"host": "evil.example"}, route, "GET")


@pytest.mark.parametrize("route", sorted(PUBLIC_ROUTES))
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get", "", "GET "])
def test_a_public_route_is_public_for_reading_only(policy, route, method):
    with pytest.raises(UnauthorizedError):
        asked(policy, {"host": "localhost"}, route, method)


@pytest.mark.parametrize(
    "path",
    [
        "/predict", "/models", "/models/iris/versions/1/notebook", "/metrics", "/invocations",
        "/v1/models/iris:predict", "/v2", "/v2/models/iris", "/v2/models/iris/infer",
        "/v2/health/live/", "/v2/health/../models", "//", "", "/readyz/", "/Healthz", "/docs..",
        "/openapi.json/x", "/docs/../metrics", "/predict?/docs/", "predict", "*",
        "/v1/models", "/v1/models/", "/v1/models/iris/", "/v1/models/iris:predict/ready",
        "/v1/models/iris/versions/2", "/v1/models/iris\n", "/v1/models//", "/V1/models/iris",
        "/v2/models/ready", "/v2/models//ready", "/v2/models/iris/ready/", "/v2/models/a/b/ready",
        "/v2/models/iris/infer/../ready", "/v2/models/iris/versions/2/ready", "//v1/models/iris",
        "/v2/models/iris:x/ready", "/v2/models/iris/versions/2/infer", "/v2/models/iris/ready\n",
        "/v2/models/iris/ready", "/v1/models/iris", "/v2/models/<name>/versions/<v>/ready",
    ],
)  # fmt: skip
def test_every_other_route_needs_a_key_whatever_it_looks_like(policy, path):
    for method in ("GET", "POST"):
        assert not is_public(method, path)
        with pytest.raises(UnauthorizedError):
            asked(policy, {"host": "localhost"}, path, method)


def test_more_routes_can_be_made_public():
    more = Policy(keys=KEYS, public=PUBLIC_ROUTES | {"/health-of-the-platform"})
    assert asked(more, {"host": "x"}, "/health-of-the-platform", "GET") is None
    with pytest.raises(UnauthorizedError):
        asked(more, {"host": "x"}, "/health-of-the-platform", "POST")


def test_without_keys_all_clients_share_one_rate(tmp_path):
    policy = Policy(rate=RateLimit(tmp_path / "rate", [], per_minute=2))
    assert [asked(policy, bearer(x)) for x in ("a", "b")] == ["", ""]
    with pytest.raises(RateError, match="all clients together"):
        asked(policy, bearer("c"))


def test_a_reply_to_a_client_with_a_key_is_never_kept_by_a_cache(trained):
    secret, digest = keys_module.make_key()
    app = make_app(Settings(models=str(trained), access_log="off", keys=f"web:{digest}"))
    app.extensions["live"].stop()
    client = app.test_client()
    for path in [*READING, "/nowhere", "/models/iris/versions/99"]:
        answer = client.get(path, headers={"X-API-Key": secret})
        if client.get(path).status_code == 401:
            assert answer.headers["Cache-Control"] in ("no-store", "private, no-cache"), path


def test_metrics_need_a_key_and_are_not_counted(policy):
    headers = bearer(SECRET, host="localhost")
    assert [asked(policy, headers, "/metrics", "GET") for _ in range(3)] == ["shop"] * 3
    with pytest.raises(UnauthorizedError):
        asked(policy, {"host": "localhost"}, "/metrics", "GET")
    assert asked(policy, headers, "/models", "GET") == "shop"
    with pytest.raises(RateError):
        asked(policy, headers, "/models/iris", "GET")


def test_flask_and_a_bare_environ_are_admitted_alike(policy):
    app = flask.Flask("test")
    headers = {"Authorization": f"Bearer {SECRET}", "X-Other": "caf\xe9"}
    with app.test_request_context("/predict", method="POST", headers=headers):
        environ = flask.request.environ
        by_flask = (flask.request.headers.get, list(flask.request.headers))
    bare = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k[:5] == "HTTP_"}
    for get, pairs in (by_flask, (bare.get, bare.items())):
        unlimited = Policy(address="127.0.0.1", keys=KEYS)
        assert admit(unlimited, "POST", "/predict", get, pairs) == "shop"


def test_headers_are_counted_in_bytes_with_their_names():
    check_headers([("a", "b")] * 100, 200)
    check_headers([(b"a", b"b")] * 100, 200)
    for pairs in ([("a", "b")] * 101, [("x" * 201, "")], [("", "x" * 201)]):
        with pytest.raises(HeadersError, match="longer than 200 bytes"):
            check_headers(pairs, 200)
    with pytest.raises(HeadersError):
        check_headers(((f"x-{i}", "y") for i in range(10_000)), 32 << 10)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.255.0.9", "::1"])
def test_the_loopback_is_recognized_in_all_its_forms(host):
    assert is_loopback(host)
    assert exposure_warning(host, ()) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "iris.example", "localhost.evil"])  # noqa: S104
def test_listening_to_the_network_without_keys_gives_a_warning(host):
    said = exposure_warning(host, ())
    assert host in said
    assert "python -m iris_serve key NAME" in said
    assert exposure_warning(host, KEYS) is None


@pytest.mark.parametrize(
    ("header", "listening", "allowed"),
    [
        ("127.0.0.2:80", "127.0.0.2", True),
        ("127.0.0.2:80", "127.0.0.1", True),
        ("[::ffff:127.0.0.1]", "127.0.0.1", True),
        ("[::ffff:192.0.2.7]", "127.0.0.1", False),
        ("localhost.:5000", "127.0.0.1", True),
        ("iris.localhost", "127.0.0.1", True),
        ("0.0.0.0:5000", "127.0.0.1", True),
        ("[::]:5000", "127.0.0.1", True),
        ("localhost.", "::1", True),
        ("0.0.0.0.evil.example", "127.0.0.1", False),
        ("[::1]", "::1", True),
        ("evil.example", "::1", False),
        ("evil.example", "localhost", False),
        ("iris.example", "192.0.2.7", True),
        ("iris.example", "::", True),
        ("", "127.0.0.1", False),
        (" ", "127.0.0.1", False),
        ("localhost:x", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        (None, "127.0.0.1", False),
        (None, "192.0.2.7", True),
    ],
)
def test_which_hosts_are_allowed_depends_on_where_the_service_listens(header, listening, allowed):
    assert host_allowed(header, listening) is allowed


@PRINT
@given(st.text(st.characters(codec=None)))
def test_no_host_header_crashes_the_check_and_only_names_of_this_machine_pass(text):
    if host_allowed(text, "127.0.0.1"):
        name = text.strip().lower().rsplit(":", 1)[0] if text.count(":") == 1 else text.lower()
        assert any(right in name for right in ("localhost", "127.", "::", "0:1", "7f", "0.0.0."))


@PRINT
@given(st.ip_addresses())
def test_an_address_is_allowed_exactly_if_a_browser_reaches_the_loopback_with_it(address):
    mapped = getattr(address, "ipv4_mapped", None) or address
    header = f"[{address}]:5000" if address.version == 6 else f"{address}:5000"
    right = mapped.is_loopback or address.is_unspecified
    assert host_allowed(header, "127.0.0.1") is right


@PRINT
@given(st.text() | st.from_regex(r"[A-Za-z0-9.:/*-]+", fullmatch=True))
@example("..")
@example("iris.example..")
def test_a_name_in_the_settings_is_refused_or_allows_exactly_that_name(text):
    try:
        names = read_hosts(text)
    except HostsError:
        return
    for name in names:
        assert host_allowed(name if name != "*" else "any.example", "127.0.0.1", names)
    assert "*" in names or not host_allowed("evil.example.test", "127.0.0.1", names)


# Pages of other sites


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://shop.example/", "write https://shop.example$"),
        ("https://shop.example/basket?x=1", "write https://shop.example$"),
        ("https://Shop.Example", "write https://shop.example$"),
        ("https://shop.example:443", "write https://shop.example$"),
        ("http://[::1]:80", r"write http://\[::1\]$"),
        ("shop.example", "write it like https://shop.example"),
        ("//shop.example", "write it like https://shop.example"),
        ("https://", "write it like https://shop.example"),
        ("https://käse.example", "write it like https://shop.example"),
        ("https://me@shop.example", "write it like https://shop.example"),
        ("https://*.example", "write it like https://shop.example"),
        ("null", "write it like https://shop.example"),
        ("* https://shop.example", "leave it or the others out"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_with_a_right_one(text, words):
    with pytest.raises(OriginsError, match=words):
        read_origins(text)


def test_origins_as_browsers_write_them_are_accepted():
    text = (
        "https://shop.example, http://localhost:3000 http://[::1]:8080\nhttps://xn--kse-qla.example"
    )
    assert len(read_origins(text)) == 4
    assert read_origins("") == ()
    assert read_origins("*") == ("*",)


@PRINT
@given(st.text() | st.from_regex(r"https?://[A-Za-z0-9.:/-]+", fullmatch=True))
def test_the_origin_suggested_for_a_wrong_one_is_right(text):
    right = normalized_origin(text)
    assert right == "" or read_origins(right) == (right,)


def test_without_origins_no_headers_of_cors_are_sent():
    for origin in (None, "https://shop.example", "null"):
        assert cross_origin(origin, ()) == preflight(origin, "POST", ()) == ()


def test_only_a_listed_origin_is_named_and_caches_are_told_to_vary_by_origin():
    origins = read_origins("https://shop.example https://lab.example")
    for origin in origins:
        headers = dict(cross_origin(origin, origins))
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Vary"] == "Origin"
        readable = headers["Access-Control-Expose-Headers"].split(", ")
        assert {"X-Model-Version", "X-Request-Id", "Retry-After", JSON_LENGTH_HEADER} == set(
            readable
        )
    for origin in (None, "", "null", "*", "https://shop.example.evil", "http://shop.example"):
        assert cross_origin(origin, origins) == (("Vary", "Origin"),)
        assert preflight(origin, "POST", origins) == (("Vary", "Origin"),)


def test_a_preflight_allows_what_clients_send_and_never_credentials():
    for origins in (read_origins("https://shop.example"), read_origins("*")):
        headers = dict(preflight("https://shop.example", "POST", origins))
        assert "POST" in headers["Access-Control-Allow-Methods"]
        allowed = headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "x-api-key", "content-type", "content-encoding"} <= set(allowed)
        assert "Access-Control-Allow-Credentials" not in headers
        assert "Vary" not in headers or origins != ("*",)
        no_preflight = preflight("https://shop.example", None, origins)
        assert no_preflight == cross_origin("https://shop.example", origins)


def test_a_preflight_needs_no_key(policy):
    assert asked(policy, {"host": "localhost"}, "/predict", "OPTIONS") is None
    with pytest.raises(HostError):
        asked(policy, {"host": "evil.example"}, "/predict", "OPTIONS")


# How it fits together


def test_each_refusal_has_its_status():
    expected = {UnauthorizedError: 401, HostError: 421, RateError: 429, HeadersError: 431}
    assert {error: STATUS[error] for error in expected} == expected


def test_the_checks_import_no_flask():
    code = "import sys, iris_serve.service.access; print({'flask', 'werkzeug'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
