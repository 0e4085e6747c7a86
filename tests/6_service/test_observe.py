"""Ids, access lines and numbers: harmless, whole, and exact over threads, workers and deaths."""

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from iris_serve.service import access_log, service_log
from iris_serve.service.access_log import (
    MAX_LINE,
    Observer,
    RequestInfo,
    make_observer,
    record_queue,
    request_id,
    valid_traceparent,
)
from iris_serve.service.counts import (
    FAMILIES,
    LAYOUT,
    SECONDS,
    DamagedError,
    Store,
    decode_series,
    directory_lock,
    encode_series,
)
from iris_serve.service.errors import NotReadyError, Question
from iris_serve.service.metrics import Metrics, metrics_text, sync_live
from iris_serve.service.service_log import (
    NonBlockingHandler,
    configure_logging,
    log_line,
    nonblocking_writer,
    text_line,
)
from iris_serve.testing import Ruler

SOME = settings(print_blob=True, max_examples=50, deadline=None)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ASKED = RequestInfo("an-id", "POST", "/predict", 34)


def samples(metrics, accept=None, live=None):
    """All samples of the page, as {(name, labels): value}."""
    body, content_type = metrics_text(metrics, accept, live)
    plain = content_type.startswith("text/plain")
    parse = text_string_to_metric_families if plain else openmetrics_families
    found = [sample for family in parse(body.decode()) for sample in family.samples]
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}


def total(metrics, name):
    """The sum of all series called `name`."""
    return sum(value for (each, _), value in samples(metrics).items() if each == name)


class Lines:
    """Keeps lines, and counts what it is told."""

    def __init__(self):
        self.lines, self.seen, self.lost = [], 0, 0

    def count(self, notes):
        self.seen += len(notes)

    def condense(self, answers, question):
        return answers, question

    def dropped(self, lines=1):
        self.lost += lines

    def flush(self):
        pass

    def forget(self):
        self.seen = 0


NO_COUNTS = """
class NoCounts:
    def count(self, notes): pass
    def condense(self, *both): return both
    def dropped(self, lines=1): raise AssertionError
    def flush(self): pass
    def forget(self): pass
"""


def note(route="/predict", status=200, seconds=0.001, answers=(), error=None, version=3):
    """What a request leaves behind, for the thread that counts it."""
    return 0.5, route, status, seconds, len(answers), answers, error, version, ASKED, None


def run(program, *arguments, **options):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=120, **options)


def refused(*_):
    raise PermissionError("not for you")


# Ids


@SOME
@given(st.text() | st.from_regex(r"[ -~\n]{0,140}", fullmatch=True))
def test_an_id_is_harmless_whatever_was_given(text):
    made = request_id(text)
    assert re.fullmatch(r"[A-Za-z0-9._~:/+=@-]{1,128}", made)
    assert len(made) == 16 or made == text


def test_a_harmless_id_is_kept_and_any_other_is_replaced():
    kept = "0af7651916cd43dd8448eb211c80319c/b7:1+a=b@c~d.e_f"
    assert request_id(kept) == kept
    assert request_id("a" * 128) == "a" * 128
    for hostile in ("a\n", "a\r\nSet-Cookie: x=1", "\x1b[2J", "a" * 129, "é", "\u2028", "a\x00"):
        assert request_id(hostile) != hostile
    assert len({request_id(None) for _ in range(1000)}) == 1000


# Lines

FIELDS = st.text(st.characters(codec=None), max_size=400)


@SOME
@given(method=FIELDS, path=FIELDS, body=st.binary(max_size=3000), values=st.booleans())
def test_an_access_line_is_json_on_one_line_that_a_pipe_keeps_in_one_piece(
    method, path, body, values
):
    kept = Lines()
    asked = RequestInfo(request_id(None), method, path, len(body), "a key", body)
    observer = Observer(kept, kept.lines.append, values)
    observer.observe("<none>", 404, 0.001, (), "UnknownPathError", 3, asked)
    observer.stop()
    (line,) = kept.lines
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    assert len(line) <= MAX_LINE
    assert all(character.isprintable() for character in line[:-1].decode())
    logged = json.loads(line)
    assert ("body" in logged) == (values and body != b"")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", logged["time"])
    assert (logged["status"], logged["rows"], logged["bytes_in"]) == (404, 0, len(body))
    assert (logged["key"], logged["error"], logged["version"]) == ("a key", "UnknownPathError", "3")
    assert (logged["level"], logged["event"]) == ("info", "request")


@SOME
@given(FIELDS, FIELDS, FIELDS)
def test_a_line_for_people_is_one_printable_line(method, path, message):
    kept, asked = Lines(), RequestInfo(request_id(None), method, path)
    observer = Observer(kept, kept.lines.append, plain=True)
    observer.observe("<none>", 404, 0.001, asked=asked)
    observer.stop()
    record = logging.LogRecord("iris_serve", logging.INFO, "", 0, "%s", (message,), None)
    for line in (*kept.lines, text_line(record)):
        assert line.endswith(b"\n")
        assert len(line) <= MAX_LINE
        assert all(character.isprintable() for character in line[:-1].decode())


@SOME
@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\n?"))
def test_a_traceparent_is_passed_on_as_it_is_or_not_at_all(text):
    assert valid_traceparent(text) in (None, text)
    assert not valid_traceparent(text) or re.fullmatch("[0-9a-f-]{55}", text)


def test_lines_are_written_within_fifty_milliseconds_in_order_and_nobody_has_to_ask():
    end, start = os.pipe()
    observer = make_observer(Lines(), "on", start)
    for turn in range(100):
        asked = RequestInfo(f"id-{turn}", "POST", "/predict")
        observer.observe("/predict", 200, 0.001, [1], asked=asked)
    lines = b""
    while lines.count(b"\n") < 100:
        lines += os.read(end, 1 << 16)
    found = [json.loads(line)["request_id"] for line in lines.splitlines()]
    assert found == [f"id-{turn}" for turn in range(100)]
    assert access_log.TICK < 0.05
    observer.stop()
    os.close(end)
    os.close(start)


def test_probes_and_scrapes_get_no_line_unless_they_fail_or_are_asked_for():
    for quiet, expected in ((access_log.PROBES, [503]), (frozenset(), [200, 503])):
        kept = Lines()
        observer = Observer(kept, kept.lines.append, quiet=quiet)
        for status in (200, 503):
            observer.observe("/readyz", status, 0.001, asked=ASKED)
        observer.stop()
        assert [json.loads(x)["status"] for x in b"".join(kept.lines).splitlines()] == expected
        assert kept.seen == 2


def test_what_is_logged_stands_among_the_requests_in_the_order_in_which_it_happened():
    kept, logger = Lines(), logging.getLogger("iris_serve_test.order")
    logger.propagate = False
    observer = Observer(kept, kept.lines.append)
    configure_logging(record_queue(observer), logger.name)
    for turn in range(3):
        observer.observe("/predict", 200, 0.001, [1], asked=ASKED)
        logger.info("turn %d", turn, extra={"event": "swap"})
    observer.stop()
    lines = [json.loads(line) for line in b"".join(kept.lines).splitlines()]
    assert [line["event"] for line in lines] == ["request", "swap"] * 3
    assert [line["message"] for line in lines[1::2]] == ["turn 0", "turn 1", "turn 2"]
    assert all([*line][:3] == ["time", "level", "event"] for line in lines)


def test_a_record_that_cannot_be_written_as_a_line_is_counted_and_the_next_one_is_written():
    kept = Lines()
    observer = Observer(kept, kept.lines.append)
    observer.notes.append(logging.LogRecord("x", logging.INFO, "", 0, "%d", ("no number",), None))
    observer.observe("/predict", 200, 0.001, [1], asked=ASKED)
    observer.stop()
    assert (kept.lost, kept.seen, len(kept.lines)) == (1, 1, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_counts_and_logs_for_itself_and_nothing_twice(tmp_path):
    program = """
import os, sys
from pathlib import Path
from iris_serve.service.access_log import make_observer, stop_queues
from iris_serve.service.metrics import Metrics, add_up
metrics = Metrics(Path(sys.argv[1]))
observer = make_observer(metrics)
observer.stop()  # so that nothing is imported by a thread while a process is copied
observer.observe("/", 200, 0.001)
children = []
for _ in range(3):
    if not (child := os.fork()):
        for _ in range(5):
            observer.observe("/", 200, 0.001)
        stop_queues()
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
observer.observe("/", 200, 0.001)
observer.stop()
total, damaged = add_up(metrics.store)
assert total["requests", "/", "200"] == [17.0], total
assert total["starts",] == [4.0], total
"""
    done = run(program, tmp_path, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 17


def test_a_body_is_logged_only_if_that_is_asked_for():
    asked = RequestInfo("an-id", "POST", "/predict", 26, body=b'{"features": [6.1, 2.8, 4.7, 1.2]}')
    for mode, expected in (("on", None), ("values", asked.body.decode())):
        end, start = os.pipe()
        observer = make_observer(Lines(), mode, start)
        observer.observe("/predict", 200, 0.001, [1], asked=asked)
        observer.stop()
        assert json.loads(os.read(end, MAX_LINE)).get("body") == expected
        os.close(end)
        os.close(start)


@pytest.mark.parametrize("way", ["a second opening", "testing for room"])
def test_a_full_pipe_loses_lines_and_the_writer_never_waits(way, monkeypatch):
    if way == "testing for room":
        monkeypatch.setattr(service_log, "reopen_nonblocking", refused)
    monkeypatch.setattr(service_log, "PENDING", 1 << 15)
    end, start = os.pipe()
    kept = Lines()
    observer = make_observer(kept, "on", start)
    for _ in range(2000):
        observer.observe("/predict", 200, 0.001, [1], None, 3, ASKED)
    observer.stop()
    assert kept.seen == 2000
    assert 0 < kept.lost < 2000
    assert os.get_blocking(start)
    read = b""
    while read.count(b"\n") < 2000 - kept.lost:
        read += os.read(end, 1 << 16)
    assert all(json.loads(line)["rows"] == 1 for line in read.splitlines())
    os.close(end)
    observer.observe("/predict", 200, 0.001, [1], None, 3, ASKED)
    observer.stop()
    assert kept.seen == 2001
    os.close(start)


def test_a_closed_stream_does_no_harm_and_its_number_is_not_written_to():
    program = """
import os, sys
from iris_serve.service.access_log import make_observer
from iris_serve.service.metrics import Metrics, metrics_text
early = make_observer(Metrics(), "on")
os.close(2)
late = make_observer(Metrics(), "on")
assert os.open(sys.argv[1], os.O_CREAT | os.O_RDWR) == 2
early.observe("/", 200, 0.001)
late.observe("/", 200, 0.001)
early.stop(), late.stop()
assert b"log_lines_dropped_total 1.0" in metrics_text(late.counts)[0]
assert os.fstat(2).st_size == 0
"""
    done = run(program, "innocent", stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert json.loads(done.stderr)["route"] == "/"


def test_lines_in_a_file_and_what_others_write_there_do_not_overwrite_each_other():
    program = f"""
import os
from iris_serve.service.access_log import make_observer
{NO_COUNTS}
observers = [make_observer(NoCounts()), make_observer(NoCounts())]
for _ in range(50):
    for observer in observers:
        observer.observe("/", 200, 0.001)
        observer.drain()
    os.write(2, b"a traceback\\n")
"""
    with open("log", "wb") as log:
        assert run(program, stderr=log).returncode == 0
    with open("log", encoding="ascii") as log:
        lines = log.readlines()
    assert lines.count("a traceback\n") == 50
    assert sum(json.loads(line)["status"] == 200 for line in lines if line[0] == "{") == 100


def test_lines_of_several_workers_never_mix():
    program = f"""
import sys
from iris_serve.service.access_log import RequestInfo, make_observer
{NO_COUNTS}
observer = make_observer(NoCounts(), "values")
asked = RequestInfo("an-id", "POST", "/predict", body=b"x" * 900)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(300):
    observer.observe("/", 200, 0.001, asked=asked)
"""
    end, start = os.pipe()
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": start}
    workers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    os.close(start)
    assert [worker.stdout.readline() for worker in workers] == [b"ready\n"] * 3
    for worker in workers:
        worker.stdin.write(b"\n")
        worker.stdin.close()
    with os.fdopen(end, "rb") as stream:
        lines = stream.readlines()
    for worker in workers:
        assert worker.wait(60) == 0
        worker.stdout.close()
    assert len(lines) == 900
    assert all(json.loads(line)["body"] == "x" * 900 for line in lines)


def test_a_socket_is_written_to_without_waiting():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        kept = Lines()
        observer = make_observer(kept, "on", theirs.fileno())
        observer.observe("/", 200, 0.001)
        observer.drain()
        assert json.loads(ours.recv(MAX_LINE))["route"] == "/"
        for _ in range(10_000):
            observer.observe("/", 200, 0.001)
        observer.stop()
        assert kept.lost > 0
        assert os.get_blocking(theirs.fileno())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_loses_the_line():
    kept = Lines()
    with open("/dev/full", "wb", buffering=0) as full:
        observer = make_observer(kept, "on", full.fileno())
        observer.observe("/", 200, 0.001)
        observer.stop()
    assert (kept.seen, kept.lost) == (1, 1)


@SOME
@given(FIELDS, FIELDS, FIELDS)
def test_a_logged_message_is_json_on_one_line_that_a_pipe_keeps_in_one_piece(name, message, why):
    try:
        raise OSError(why)
    except OSError:
        wrong = sys.exc_info()
    record = logging.LogRecord(name, logging.ERROR, "", 0, "%s", (message * 30,), wrong)
    line = log_line(record)
    assert len(line) <= MAX_LINE
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line)["level"] == "error"


def test_a_message_to_a_full_pipe_is_lost_and_counted_and_the_writer_never_waits():
    end, start = os.pipe()
    lost, logger = [], logging.getLogger("iris_serve_test.full")
    logger.propagate = False
    configure_logging(NonBlockingHandler(nonblocking_writer(start), lost.append), logger.name)
    for _ in range(1000):
        logger.error("no answer %s", "x" * 300)
    read = os.read(end, 1 << 20)
    os.close(end)
    logger.error("the reader is gone")
    assert len(read.splitlines()) + len(lost) == 1001
    assert len(lost) > 1
    assert all(json.loads(line) for line in read.splitlines())
    os.close(start)


# Numbers


def together(many, work):
    """Let `many` threads do `work(number)`, and wait for them all."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_counts_are_exact_with_many_threads(tmp_path):
    metrics = Metrics(tmp_path)
    observer, barrier = Observer(metrics), threading.Barrier(32)

    def work(number):
        barrier.wait()
        for _ in range(200):
            observer.observe(f"/{number % 4}", 200, 0.001, [number % 3, 0])
            observer.observe("/predict", 400, 0.5, error=f"Error{number % 5}")

    together(32, work)
    observer.stop()
    assert total(metrics, "iris_serve_requests_total") == 12_800
    assert total(metrics, "iris_serve_refusals_total") == 6400
    assert total(metrics, "iris_serve_predictions_total") == 12_800
    assert total(metrics, "iris_serve_batch_rows_count") == 6400
    assert total(metrics, "iris_serve_batch_rows_sum") == 12_800
    assert total(metrics, "iris_serve_request_duration_seconds_count") == 12_800
    seconds = total(metrics, "iris_serve_request_duration_seconds_sum")
    assert seconds == pytest.approx(6400 * 0.501)


class Yielding(list):
    """Cells that let other threads run between reading and writing, as a Python might."""

    def __getitem__(self, index):
        value = super().__getitem__(index)
        time.sleep(0)
        return value


def test_counts_are_exact_even_if_threads_change_within_an_addition(monkeypatch):
    plain = Store.cells

    def yielding(store, key):
        return store.values.get(key) or store.values.setdefault(key, Yielding(plain(Store(), key)))

    monkeypatch.setattr(Store, "cells", yielding)
    metrics = Metrics()
    observer, live = Observer(metrics), made_live(swaps=1)

    def work(_):
        for _ in range(100):
            observer.observe("/predict", 400, 0.001, [1], "RowError")
            observer.drain()
            metrics.dropped()
            sync_live(metrics, live)

    together(8, work)
    observer.stop()
    assert total(metrics, "iris_serve_requests_total") == 800
    assert total(metrics, "iris_serve_predictions_total") == 800
    assert total(metrics, "iris_serve_log_lines_dropped_total") == 800
    assert total(metrics, "iris_serve_model_swaps_total") == 1


def test_a_worker_takes_its_slot_only_while_no_other_looks_at_the_slots(tmp_path):
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    first.flush()
    thread = threading.Thread(target=second.flush)
    with directory_lock(tmp_path / LAYOUT):
        thread.start()
        thread.join(0.2)
        assert second.store.slot.number == 0
    thread.join()
    assert (first.store.slot.number, second.store.slot.number) == (1, 2)


WORKER = """
import sys
from pathlib import Path
from iris_serve.service.access_log import Observer
from iris_serve.service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
observer = Observer(metrics)
observer.stop()
print(metrics.store.slot.number, flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        observer.observe("/predict", 200, 0.001, [1])
    observer.stop()
    print("counted", flush=True)
"""


class Worker:
    """A process that counts as many requests as it is told to."""

    def __init__(self, folder):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, folder], **pipes)
        self.slot = int(self.process.stdout.readline())

    def begin(self, times):
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()

    def count(self, times):
        self.begin(times)
        assert self.process.stdout.readline() == "counted\n"

    def kill(self):
        self.process.kill()
        with self.process:
            pass


def test_numbers_of_several_processes_add_up_through_a_kill_and_its_replacement(tmp_path):
    folder = tmp_path / "counts"
    here = Metrics(folder)
    here.count([note(answers=[1])])
    here.flush()
    first, second = Worker(folder), Worker(folder)
    assert (here.store.slot.number, first.slot, second.slot) == (1, 2, 3)
    first.count(500)
    second.count(700)
    assert total(here, "iris_serve_requests_total") == 1201
    assert total(here, "iris_serve_workers") == 3
    first.kill()
    assert total(here, "iris_serve_requests_total") == 1201
    assert total(here, "iris_serve_workers") == 2
    third = Worker(folder)
    assert third.slot == first.slot
    third.count(99)
    second.count(1)
    for name in ("requests_total", "predictions_total", "batch_rows_count"):
        assert total(here, f"iris_serve_{name}") == 1301
    assert total(here, "iris_serve_worker_starts_total") == 4
    second.kill()
    third.kill()
    assert total(here, "iris_serve_requests_total") == 1301


KILLS = """
import os, signal, sys, time
from pathlib import Path
from iris_serve.service.metrics import Metrics, metrics_text
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
from prometheus_client.parser import text_string_to_metric_families
here, before = Metrics(folder), {}
asked = Path("asked")
for kill in range(kills):
    end, start = os.pipe()
    child = os.fork()
    if not child:
        metrics = Metrics(folder)
        metrics.flush()
        os.write(start, b"x")
        while True:
            with asked.open("ab", buffering=0) as file:
                file.write(b"x")
            one = 0.5, "/predict", 200, 0.001, 2, [kill % 3, 5], "RowError", 3, None, None
            metrics.count([one])
            metrics.flush()
    os.read(end, 1)
    for again in range(3):
        text = metrics_text(here)[0].decode()
        if again == 1:
            time.sleep(0.001 * kill)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        now = {
            (s.name, tuple(s.labels.items())): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
            if s.name.endswith(("_total", "_bucket", "_count", "_sum"))
            and s.name.startswith("iris")
        }
        backwards = {key for key in before if now[key] < before[key]}
        assert not backwards, backwards
        before = now
    os.close(end), os.close(start)
requests = before["iris_serve_requests_total", (("route", "/predict"), ("status", "200"))]
count = before["iris_serve_request_duration_seconds_count", (("route", "/predict"),)]
made = asked.stat().st_size
assert abs(requests - count) <= kills, (requests, count)
assert made - kills <= requests <= made, (made, requests)
assert before["iris_serve_worker_starts_total", ()] == kills + 1
print(sorted(path.name for path in here.folder.iterdir() if not path.name.endswith(".new")))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_no_number_goes_backwards_and_no_file_is_left_by_workers_killed_while_they_count(kills):
    done = run(KILLS, "counts", kills, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = ["counter", "gauge_liveall", "histogram"]
    slots = ["1.lock", "2.lock", *(f"{kind}_{slot}.db" for kind in kinds for slot in (1, 2))]
    assert done.stdout == f"{[*slots, 'lock']}\n"
    assert os.path.getsize(f"counts/{LAYOUT}/histogram_2.db") < 20_000


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte": lambda path: path.write_bytes(b"\x01"),
    "overwritten": lambda path: path.write_bytes(b"\xff" * 5000),
    "zeros": lambda path: path.write_bytes(bytes(70_000)),
    "removed": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_living_worker_is_whole_again_and_nothing_is_lost(tmp_path, damage):
    one, two = Metrics(tmp_path), Metrics(tmp_path)
    for metrics in (one, two):
        metrics.count([note(answers=[1])] * 3)
        metrics.flush()
    for kind in ("counter", "histogram", "gauge_liveall"):
        path = two.store.slot.path(kind)
        DAMAGES[damage](path)
        assert total(one, "iris_serve_requests_total") in (3, 6)
        assert samples(one)["iris_serve_counts_damaged", ()] == (
            kind != "gauge_liveall" and damage != "removed"
        )
        if path.is_dir():
            path.rmdir()
        two.flush()
        assert total(one, "iris_serve_requests_total") == 6
        assert samples(one)["iris_serve_counts_damaged", ()] == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_an_ended_worker_costs_its_numbers_and_no_more(tmp_path, damage):
    one, two = Metrics(tmp_path), Metrics(tmp_path)
    for metrics in (one, two):
        metrics.count([note(answers=[1])] * 3)
        metrics.flush()
    two.store.slot.release()
    DAMAGES[damage](two.store.slot.path("counter"))
    assert total(one, "iris_serve_requests_total") == 3
    three = Metrics(tmp_path)
    three.count([note(answers=[1])])
    three.flush()
    assert total(one, "iris_serve_requests_total") == 4 - (damage == "a directory")
    assert total(three, "iris_serve_requests_total") == 4


def test_a_directory_that_is_removed_under_the_workers_is_made_again(tmp_path):
    one, two = Metrics(tmp_path / "shared"), Metrics(tmp_path / "shared")
    for metrics in (one, two):
        metrics.count([note()] * 3)
        metrics.flush()
    shutil.rmtree(tmp_path / "shared")
    late = Metrics(tmp_path / "shared")
    for metrics in (late, one, two):
        metrics.count([note()])
        metrics.flush()
    for metrics in (late, one, two):
        assert total(metrics, "iris_serve_requests_total") == 9
        assert total(metrics, "iris_serve_workers") == 3
    assert sorted(metrics.store.slot.number for metrics in (late, one, two)) == [1, 2, 3]


@SOME
@given(st.binary(max_size=300), st.integers(0, 2**31))
def test_no_bytes_in_a_file_are_more_than_a_damaged_file(data, place):
    good = encode_series({("requests", "/", "200"): [3.0], ("rows",): [1.0] * 15})
    place %= len(good)
    for made in (data, good[:place] + data + good[place + len(data) :], good[:place]):
        with contextlib.suppress(DamagedError):
            assert isinstance(decode_series(made), dict)


def test_values_out_of_range_and_unknown_texts_are_counted_by_feature_for_one_row_and_for_many():
    contract = Ruler().contract
    usual, wild = list(contract.example), [1e9, *contract.example[1:]]
    for rows in ([usual, wild], [usual, wild] * 100):
        metrics = Metrics()
        observer = Observer(metrics)
        observer.observe("/predict", 200, 0.1, [0] * len(rows), question=Question(contract, rows))
        observer.stop()
        name = "iris_serve_values_out_of_range_total"
        found = {labels: v for (each, labels), v in samples(metrics).items() if each == name}
        assert found == {(("feature", contract.names[0]),): len(rows) / 2}


def test_requests_and_rows_are_counted_by_the_version_that_answered():
    metrics = Metrics()
    metrics.count([note(answers=[1, 2], version=3), note(answers=[1], version=4)] * 2)
    metrics.count([note("/healthz", version=3), note(status=400, error="RowError")])
    found = samples(metrics)
    for version, requests, rows in (("3", 2, 4), ("4", 2, 2)):
        assert found["iris_serve_model_requests_total", (("version", version),)] == requests
        assert found["iris_serve_model_predictions_total", (("version", version),)] == rows


@pytest.mark.skipif(sys.platform != "linux", reason="they are read from /proc")
def test_memory_and_time_of_each_living_worker_are_told(tmp_path):
    here, worker = Metrics(tmp_path), Worker(tmp_path)
    for living in (2, 1):
        found = [v for (name, _), v in samples(here).items() if name == "process_open_fds"]
        assert len(found) == living
        assert all(value > 2 for value in found)
        if living == 2:
            worker.kill()


def test_series_are_bounded_over_all_workers_and_the_rest_is_counted_as_other(tmp_path):
    workers = [Metrics(tmp_path), Metrics(tmp_path)]
    for number in range(100):
        for index, metrics in enumerate(workers):
            name = f"{number}-{index}"
            one = note(f"/{name}", 200 + number, 0.1, [name], version=number * 2 + index)
            metrics.count([one, note("/", 400, 0.1, error=name)])
            metrics.flush()
    found = samples(workers[0])
    for name, family in FAMILIES.items():
        if family.labels:
            end = "_count" if family.bounds else "_total"
            series = [each for each in found if each[0] == f"iris_serve_{family.name}{end}"]
            assert len(series) <= family.most, name
    assert total(workers[1], "iris_serve_predictions_total") == 200
    assert total(workers[1], "iris_serve_requests_total") == 400
    assert total(workers[1], "iris_serve_request_duration_seconds_count") == 400
    other = found["iris_serve_predictions_total", (("class", "other"),)]
    assert other == 150


def test_a_disk_without_room_for_a_name_counts_under_other(tmp_path, monkeypatch):
    metrics = Metrics(tmp_path)
    monkeypatch.setattr(Store, "write", refused)
    metrics.count([note(answers=[1])])
    assert samples(metrics)["iris_serve_predictions_total", (("class", "other"),)] == 1
    assert total(metrics, "iris_serve_requests_total") == 1


@SOME
@given(st.lists(st.text(st.characters(codec=None)) | st.integers(), min_size=1, max_size=20))
def test_classes_of_any_name_come_back_from_both_formats(classes):
    metrics = Metrics()
    metrics.count([note(answers=classes)])
    labels = {str(each)[:100].encode("utf-8", "backslashreplace").decode() for each in classes}
    for accept in (None, OPENMETRICS):
        found = samples(metrics, accept)
        series = [labels for name, labels in found if name == "iris_serve_predictions_total"]
        assert {dict(each)["class"] for each in series} == labels
        assert total(metrics, "iris_serve_predictions_total") == len(classes)


def test_both_formats_say_the_same():
    metrics = Metrics()
    for seconds in (*SECONDS, 100.0, 0.0):
        metrics.count([note(seconds=seconds, answers=[1] * 7)])
    ours, theirs = samples(metrics), samples(metrics, OPENMETRICS)
    ages = "iris_serve_model_age_seconds"
    steady = {k: v for k, v in ours.items() if k[0] != ages and not k[0].startswith("process_")}
    assert steady == {k: v for k, v in theirs.items() if not k[0].startswith("process_")}
    edges = {labels: v for (name, labels), v in ours.items() if name.endswith("seconds_bucket")}
    bounds = [str(bound) for bound in map(float, SECONDS)]
    counts = {dict(labels)["le"]: value for labels, value in edges.items()}
    assert counts == {b: i + 2 for i, b in enumerate(bounds)} | {"+Inf": len(SECONDS) + 2}


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "text/plain; version=9.9.9; escaping=\x7f",
        "text/plain;version=..,;;;,==",
        "\ud83c" * 100,
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
    ],
)
def test_any_accept_header_gets_a_page_and_is_not_repeated(accept):
    content_type = metrics_text(Metrics(), accept)[1]
    assert content_type in (
        "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
    )
    assert samples(Metrics(), accept)


def made_live(version=3, swaps=0, failed=0, trouble=None, loaded=1000.0):
    predictor = SimpleNamespace(name="iris", version=version)
    return SimpleNamespace(
        pin=lambda: predictor,
        trouble=trouble,
        swaps=swaps,
        failed_swaps=failed,
        loaded_at=loaded,
    )


def test_each_worker_reports_its_model_and_swaps_add_up_through_a_restart(tmp_path):
    one, two = Metrics(tmp_path), Metrics(tmp_path)
    sync_live(one, made_live(3, swaps=2, loaded=1000.0))
    sync_live(two, made_live(4, swaps=3, failed=1, trouble="why", loaded=2000.0))
    sync_live(two, made_live(4, swaps=3, failed=1, trouble="why", loaded=2000.0))
    two.flush()
    found = samples(one)
    assert found["iris_serve_model_swaps_total", ()] == 5
    assert found["iris_serve_model_swap_failures_total", ()] == 1
    assert found["iris_serve_model_trouble", ()] == 1
    assert found["iris_serve_model_workers", (("version", "3"),)] == 1
    assert found["iris_serve_model_info", (("model", "iris"), ("version", "4"))] == 1
    assert found["iris_serve_model_loaded_timestamp_seconds", (("version", "4"),)] == 2000
    two.store.slot.release()  # as its death would
    found = samples(one)
    assert found["iris_serve_model_swaps_total", ()] == 5
    assert found["iris_serve_model_trouble", ()] == 0
    assert ("iris_serve_model_workers", (("version", "4"),)) not in found
    three = Metrics(tmp_path)
    three.flush()
    assert three.store.slot.number == two.store.slot.number
    assert ("iris_serve_model_workers", (("version", "4"),)) not in samples(one)
    sync_live(three, made_live(4, swaps=1))
    three.flush()
    assert samples(one)["iris_serve_model_swaps_total", ()] == 6


def test_a_worker_without_a_model_reports_trouble_and_no_version(tmp_path):
    def pin():
        raise NotReadyError("no version yet")

    metrics = Metrics(tmp_path)
    live = SimpleNamespace(pin=pin, trouble="no version yet", failed_swaps=2)
    page = samples(metrics, OPENMETRICS, live)
    assert page["iris_serve_model_trouble", ()] == 1
    assert page["iris_serve_model_swap_failures_total", ()] == 2
    assert page["iris_serve_workers", ()] == 1
    assert not [labels for name, labels in page if name == "iris_serve_model_workers"]
    assert samples(metrics, None, made_live())["iris_serve_model_trouble", ()] == 0


def test_counting_imports_neither_the_prometheus_library_nor_training():
    program = """
import sys
from pathlib import Path
from iris_serve.service.access_log import make_observer
from iris_serve.service.metrics import Metrics
observer = make_observer(Metrics(Path("counts")))
observer.observe("/", 200, 0.1, [1])
observer.stop()
heavy = {"prometheus_client", "pythonjsonlogger", "sklearn", "scipy", "pandas", "joblib", "flask"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""
    done = run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
