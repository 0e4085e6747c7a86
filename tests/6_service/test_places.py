"""What a worker holds for its clients: places, and memory for others when they are gone."""

import os
import platform
import subprocess
import sys
import threading
import time

import pytest
from questions import PREDICT, ROW, environ_of, post

from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.service import calm as calm_module
from iris_serve.service.access import Policy
from iris_serve.service.app import create_app
from iris_serve.service.calm import AT_WORK, PATIENCE, Calm, Work
from iris_serve.testing import Ruler

SMALL_QUESTION = post(PREDICT, {"features": ROW})
LARGE_QUESTION = post(PREDICT, {"features": [ROW] * 2000, "detail": True})


@pytest.fixture
def app(trained):
    return create_app(open_predictor(Registry(trained)), policy=Policy(calm=Calm(large=2)))


def status_and_reply(app, question):
    """The status of an answer, and its reply that the server hasn't sent yet."""
    told = []
    reply = app(environ_of(question), lambda status, headers: told.append(int(status[:3])))
    return told[0], reply


def test_a_large_reply_keeps_its_place_until_its_client_has_read_it_or_is_gone(app):
    (_, unread), (_, left) = (status_and_reply(app, LARGE_QUESTION) for _ in range(2))
    for _ in range(3):
        assert status_and_reply(app, LARGE_QUESTION)[0] == 503
        assert status_and_reply(app, SMALL_QUESTION)[0] == 200
    pieces = iter(unread)
    next(pieces)
    assert status_and_reply(app, LARGE_QUESTION)[0] == 503  # read in part
    list(pieces), unread.close()
    status, read = status_and_reply(app, LARGE_QUESTION)
    assert (status, status_and_reply(app, LARGE_QUESTION)[0]) == (200, 503)
    left.close(), read.close()
    assert status_and_reply(app, LARGE_QUESTION)[0] == 200


def test_large_requests_that_wait_for_their_turn_wait_for_no_reader(app):
    _, unread = status_and_reply(app, LARGE_QUESTION)
    other = threading.Thread(target=lambda: status_and_reply(app, LARGE_QUESTION)[1].close())
    other.start()
    other.join(20)
    assert not other.is_alive()
    unread.close()


def asked_at_once(app, count):
    """The statuses that so many threads get for a small question, all at the same time."""
    start, statuses = threading.Barrier(count), []

    def ask():
        start.wait()
        statuses.append(status_and_reply(app, SMALL_QUESTION)[0])

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return statuses


class Crowded(Ruler):
    """A predictor that knows how many ask it at the same time, at the most."""

    def __init__(self):
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def predict(self, rows):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.002)  # in which others come
        with self.lock:
            self.now -= 1
        return super().predict(rows)


def test_of_hundreds_of_requests_in_one_instant_few_are_worked_on_at_a_time():
    crowded = Crowded()
    app = create_app(crowded, policy=Policy(calm=Calm()), fast_lane=False)
    assert asked_at_once(app, 200) == [200] * 200
    assert 1 < crowded.most <= AT_WORK


class HalfSent:
    """A body of which nothing comes until it is let go."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def read(self, size=-1):
        self.begun.set()
        self.go.wait(60)
        return b""


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [PREDICT, "/nowhere"])
def test_a_request_that_waits_for_its_body_lets_others_be_worked_on(trained, path, chunked):
    calm = Calm()
    calm.work = Work(1)
    predictor = open_predictor(Registry(trained))
    app = create_app(predictor, policy=Policy(calm=calm), fast_lane=False)
    half, began = HalfSent(), time.monotonic()
    environ = environ_of(post(path, b"x" * 40)) | {"wsgi.input": half}
    if chunked:
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    waiting = threading.Thread(target=app, args=(environ, lambda *_: None))
    waiting.start()
    assert half.begun.wait(20)
    assert asked_at_once(app, 3) == [200] * 3
    assert time.monotonic() - began < PATIENCE
    half.go.set()
    waiting.join(20)
    assert calm.work.free.acquire(timeout=0)
    assert not calm.work.free.acquire(timeout=0)


def test_nobody_waits_for_ever_for_what_is_stuck(trained, monkeypatch):
    monkeypatch.setattr(calm_module, "PATIENCE", 0.01)
    calm = Calm()
    calm.work = Work(1)
    app = create_app(open_predictor(Registry(trained)), policy=Policy(calm=calm), fast_lane=False)
    calm.work.free.acquire()
    assert asked_at_once(app, 3) == [200] * 3
    calm.work.free.release()
    assert asked_at_once(app, 3) == [200] * 3
    assert calm.work.free.acquire(timeout=0)
    assert not calm.work.free.acquire(timeout=0)


# Each thread needs 24 MB in pieces of 64 kB, which the C library takes from the thread's region;
# the piece that is kept lies above them, so that the region can't be given back.
NEEDY = """
import sys, threading
from iris_serve.service.calm import few_regions

done = few_regions()
turn = threading.Lock()
everybody = threading.Barrier(13)

def need():
    everybody.wait()
    with turn:
        held = [b"1" * (64 << 10) for _ in range(384)]
        kept = b"1" * (64 << 10)
        del held
    everybody.wait()
    everybody.wait()

threads = [threading.Thread(target=need) for _ in range(12)]
for thread in threads:
    thread.start()
everybody.wait()
everybody.wait()
resident = int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
everybody.wait()
print(done, resident)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="regions are glibc's")
def test_what_many_threads_needed_in_turn_was_needed_once_or_twice():
    def run(**more):
        environment = {name: v for name, v in os.environ.items() if name != "MALLOC_ARENA_MAX"}
        words = [sys.executable, "-c", NEEDY]
        done = subprocess.run(
            words, env=environment | more, capture_output=True, text=True, check=True
        )
        answer, megabytes = done.stdout.split()
        return answer, int(megabytes)

    done, few = run()
    said, many = run(MALLOC_ARENA_MAX="64")
    assert (done, said) == ("True", "False")
    assert few < 120
    assert 2 * few < many
