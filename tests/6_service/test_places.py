"""What a worker holds for its clients: places, and memory for others when they are gone."""

import os
import platform
import subprocess
import sys
import threading

import pytest
from questions import PREDICT, ROW, environ_of, post

from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.service.access import Policy
from iris_serve.service.app import create_app
from iris_serve.service.calm import Calm

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


# Each thread needs 24 MB in pieces of 64 kB, which the C library takes from the thread's region.
NEEDY = """
import sys, threading
from iris_serve.service.calm import few_regions

done = few_regions()
turn = threading.Lock()
everybody = threading.Barrier(12)

def need():
    everybody.wait()
    with turn:
        held = [bytes(64 << 10) for _ in range(384)]
        kept = bytes(64 << 10)
        del held
    everybody.wait()

threads = [threading.Thread(target=need) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
resident = int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
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
    assert few < many
