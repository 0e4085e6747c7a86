"""Ids, access lines and numbers: harmless, whole, and exact over threads, workers and deaths."""

import json
import logging
import os
import re
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

import iris_serve.service.access_log
import iris_serve.service.metrics
from iris_serve.service.access_log import (
    MAX_LINE,
    Observer,
    RequestInfo,
    configure_logging,
    log_line,
    make_observer,
    nonblocking_writer,
    request_id,
)
from iris_serve.service.errors import NotReadyError
from iris_serve.service.metrics import (
    FAMILIES,
    LAYOUT,
    SECONDS,
    Metrics,
    WorkerCells,
    allocate,
    directory_lock,
    metrics_text,
    snapshot,
    sync_live,
)

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

    def observe(self, route, status, seconds, answers=(), error=None):
        self.seen += 1

    def dropped(self):
        self.lost += 1


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
    Observer(kept, kept.lines.append, values).observe(
        "<none>", 404, 0.001, (), "UnknownPathError", 3, asked
    )
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


def test_a_body_is_logged_only_if_that_is_asked_for():
    asked = RequestInfo("an-id", "POST", "/predict", 26, body=b'{"features": [6.1, 2.8, 4.7, 1.2]}')
    for access_log, expected in (("on", None), ("values", asked.body.decode())):
        end, start = os.pipe()
        make_observer(Lines(), access_log, start).observe("/predict", 200, 0.001, [1], asked=asked)
        assert json.loads(os.read(end, MAX_LINE)).get("body") == expected
        os.close(end)
        os.close(start)


@pytest.mark.parametrize("way", ["a second opening", "testing for room"])
def test_a_full_pipe_loses_lines_and_the_writer_never_waits(way, monkeypatch):
    if way == "testing for room":
        monkeypatch.setattr(iris_serve.service.access_log, "reopen_nonblocking", refused)
    end, start = os.pipe()
    kept = Lines()
    observer = make_observer(kept, "on", start)
    for _ in range(2000):
        observer.observe("/predict", 200, 0.001, [1], None, 3, ASKED)
    assert kept.seen == 2000
    assert 0 < kept.lost < 2000
    assert os.get_blocking(start)
    read = b""
    while read.count(b"\n") < 2000 - kept.lost:
        read += os.read(end, 1 << 16)
    assert all(json.loads(line)["rows"] == 1 for line in read.splitlines())
    os.close(end)
    observer.observe("/predict", 200, 0.001, [1], None, 3, ASKED)
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
assert b"log_lines_dropped_total 1.0" in metrics_text(late.counts)[0]
assert os.fstat(2).st_size == 0
"""
    done = run(program, "innocent", stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert json.loads(done.stderr)["route"] == "/"


def test_lines_in_a_file_and_what_others_write_there_do_not_overwrite_each_other():
    program = """
import os
from iris_serve.service.access_log import make_observer
class NoCounts:
    def observe(self, *_): pass
    def dropped(self): raise AssertionError
observers = [make_observer(NoCounts()), make_observer(NoCounts())]
for _ in range(50):
    for observer in observers:
        observer.observe("/", 200, 0.001)
    os.write(2, b"a traceback\\n")
"""
    with open("log", "wb") as log:
        assert run(program, stderr=log).returncode == 0
    with open("log", encoding="ascii") as log:
        lines = log.readlines()
    assert lines.count("a traceback\n") == 50
    assert sum(json.loads(line)["status"] == 200 for line in lines if line[0] == "{") == 100


def test_lines_of_several_workers_never_mix():
    program = """
import sys
from iris_serve.service.access_log import RequestInfo, make_observer
class NoCounts:
    def observe(self, *_): pass
    def dropped(self): pass
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
    assert lines
    assert all(json.loads(line)["body"] == "x" * 900 for line in lines)


def test_a_socket_is_written_to_without_waiting():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        kept = Lines()
        observer = make_observer(kept, "on", theirs.fileno())
        observer.observe("/", 200, 0.001)
        assert json.loads(ours.recv(MAX_LINE))["route"] == "/"
        for _ in range(10_000):
            observer.observe("/", 200, 0.001)
        assert kept.lost > 0
        assert os.get_blocking(theirs.fileno())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_loses_the_line():
    kept = Lines()
    with open("/dev/full", "wb", buffering=0) as full:
        make_observer(kept, "on", full.fileno()).observe("/", 200, 0.001)
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
    assert json.loads(line)["level"] == "ERROR"


def test_a_message_to_a_full_pipe_is_lost_and_counted_and_the_writer_never_waits():
    end, start = os.pipe()
    lost, logger = [], logging.getLogger("iris_serve_test.full")
    logger.propagate = False
    configure_logging(nonblocking_writer(start), lambda: lost.append(1), logger.name)
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
    barrier = threading.Barrier(32)

    def work(number):
        barrier.wait()
        for _ in range(200):
            metrics.observe(f"/{number % 4}", 200, 0.001, [number % 3, 0])
            metrics.observe("/predict", 400, 0.5, error=f"Error{number % 5}")

    together(32, work)
    assert total(metrics, "iris_serve_requests_total") == 12_800
    assert total(metrics, "iris_serve_refusals_total") == 6400
    assert total(metrics, "iris_serve_predictions_total") == 12_800
    assert total(metrics, "iris_serve_batch_rows_count") == 6400
    assert total(metrics, "iris_serve_batch_rows_sum") == 12_800
    assert total(metrics, "iris_serve_request_duration_seconds_count") == 12_800
    seconds = total(metrics, "iris_serve_request_duration_seconds_sum")
    assert seconds == pytest.approx(6400 * 0.501)


class Yielding:
    """Cells that let other threads run between reading and writing, as a Python might."""

    def __init__(self, cells):
        self.cells = cells

    def __getitem__(self, index):
        value = self.cells[index]
        time.sleep(0)
        return value

    def __setitem__(self, index, value):
        self.cells[index] = value


def test_counts_are_exact_even_if_threads_change_within_an_addition():
    metrics = Metrics()
    metrics.cells = Yielding(metrics.cells)
    live = made_live(swaps=1)

    def work(_):
        for _ in range(100):
            metrics.observe("/predict", 400, 0.001, [1], "RowError")
            metrics.dropped()
            sync_live(metrics, live)

    together(8, work)
    assert total(metrics, "iris_serve_requests_total") == 800
    assert total(metrics, "iris_serve_predictions_total") == 800
    assert total(metrics, "iris_serve_log_lines_dropped_total") == 800
    assert total(metrics, "iris_serve_model_swaps_total") == 1


def test_a_worker_takes_its_slot_only_while_no_other_looks_at_the_slots(tmp_path):
    first = WorkerCells(tmp_path)
    made = []
    thread = threading.Thread(target=lambda: made.append(WorkerCells(tmp_path)))
    with directory_lock(tmp_path):
        thread.start()
        thread.join(0.2)
        assert made == []
    thread.join()
    assert (first.number, made[0].number) == (1, 2)


WORKER = """
import sys
from pathlib import Path
from iris_serve.service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
print(metrics.slot.number, flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        metrics.observe("/predict", 200, 0.001, [1])
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
    here.observe("/predict", 200, 0.001, [1])
    first, second = Worker(folder), Worker(folder)
    assert (here.slot.number, first.slot, second.slot) == (1, 2, 3)
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
for kill in range(kills):
    end, start = os.pipe()
    child = os.fork()
    if not child:
        metrics = Metrics(folder)
        os.write(start, b"x")
        while True:
            metrics.observe("/predict", 200, 0.001, [kill % 3, 5], "RowError")
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
        }
        backwards = {key for key in before if now[key] < before[key]}
        assert not backwards, backwards
        before = now
    os.close(end), os.close(start)
requests = before["iris_serve_requests_total", (("route", "/predict"), ("status", "200"))]
count = before["iris_serve_request_duration_seconds_count", (("route", "/predict"),)]
assert 0 <= requests - count <= kills, (requests, count)
assert before["iris_serve_worker_starts_total", ()] == kills + 1
print(sorted(path.name for path in here.slot.folder.iterdir()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_no_number_goes_backwards_and_no_file_is_left_by_workers_killed_while_they_count(kills):
    done = run(KILLS, "counts", kills, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['1.counts', '1.lock', '2.counts', '2.lock', 'lock', 'names']\n"
    assert os.path.getsize(f"counts/{LAYOUT}/2.counts") == 16_384


def test_a_name_that_was_cut_off_by_a_kill_is_written_over(tmp_path):
    slot = WorkerCells(tmp_path)
    allocate(slot, ("requests", "/", "200"), most=9)
    with (tmp_path / "names").open("ab") as file:
        file.write(b'[1, "requests", "/pre')
    second = allocate(slot, ("requests", "/", "404"), most=9)
    assert snapshot(slot).first == {
        ("requests", "/", "200"): second - 1,
        ("requests", "/", "404"): second,
    }


def test_series_are_bounded_over_all_workers_and_the_rest_is_counted_as_other(tmp_path):
    workers = [Metrics(tmp_path), Metrics(tmp_path)]
    for number in range(100):
        for index, metrics in enumerate(workers):
            metrics.observe(f"/{number}-{index}", 200 + number, 0.1, [f"{number}-{index}"])
            metrics.observe("/", 400, 0.1, error=f"{number}-{index}")
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
    monkeypatch.setattr(iris_serve.service.metrics, "add_name", refused)
    metrics.observe("/predict", 200, 0.001, [1])
    assert samples(metrics)["iris_serve_predictions_total", (("class", "other"),)] == 1
    assert total(metrics, "iris_serve_requests_total") == 1


@SOME
@given(st.lists(st.text(st.characters(codec=None)) | st.integers(), min_size=1, max_size=20))
def test_classes_of_any_name_come_back_from_both_formats(classes):
    metrics = Metrics()
    metrics.observe("/predict", 200, 0.001, classes)
    labels = {str(each)[:100].encode("utf-8", "backslashreplace").decode() for each in classes}
    for accept in (None, OPENMETRICS):
        found = samples(metrics, accept)
        series = [labels for name, labels in found if name == "iris_serve_predictions_total"]
        assert {dict(each)["class"] for each in series} == labels
        assert total(metrics, "iris_serve_predictions_total") == len(classes)


def test_both_formats_say_the_same():
    metrics = Metrics()
    for seconds in (*SECONDS, 100.0, 0.0):
        metrics.observe("/predict", 200, seconds, [1] * 7)
    ours, theirs = samples(metrics), samples(metrics, OPENMETRICS)
    ages = "iris_serve_model_age_seconds"
    assert {k: v for k, v in ours.items() if k[0] != ages} == theirs
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
    found = samples(one)
    assert found["iris_serve_model_swaps_total", ()] == 5
    assert found["iris_serve_model_swap_failures_total", ()] == 1
    assert found["iris_serve_model_trouble", ()] == 1
    assert found["iris_serve_model_workers", (("version", "3"),)] == 1
    assert found["iris_serve_model_info", (("model", "iris"), ("version", "4"))] == 1
    assert found["iris_serve_model_loaded_timestamp_seconds", (("version", "4"),)] == 2000
    two.slot.held.close()  # as its death would
    found = samples(one)
    assert found["iris_serve_model_swaps_total", ()] == 5
    assert found["iris_serve_model_trouble", ()] == 0
    assert ("iris_serve_model_workers", (("version", "4"),)) not in found
    three = Metrics(tmp_path)
    assert three.slot.number == two.slot.number
    assert ("iris_serve_model_workers", (("version", "4"),)) not in samples(one)
    sync_live(three, made_live(4, swaps=1))
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
import iris_serve.service.access_log, iris_serve.service.metrics
iris_serve.service.metrics.Metrics().observe("/", 200, 0.1, [1])
heavy = {"prometheus_client", "sklearn", "scipy", "pandas", "joblib", "flask"} & set(sys.modules)
assert not heavy, heavy
"""
    done = run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
