"""Locks belong to living processes, and vanish with them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from iris_serve.model.atomic import acquire, lock_path, remove_stale, try_lock

HOLD = """
import sys
from pathlib import Path
from iris_serve.model.atomic import acquire

staged, file = acquire(Path(sys.argv[1]))
print(staged.name, flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_by_a_living_process_and_vanishes_when_it_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as worker:
        name = worker.stdout.readline().strip()
        with lock_path(tmp_path / name).open("rb") as file:
            assert try_lock(file) is False
            assert remove_stale(tmp_path) == []
            worker.kill()
            worker.wait(timeout=60)
            assert try_lock(file) is True
    assert remove_stale(tmp_path) == [name]
    assert list(tmp_path.iterdir()) == []


def test_a_waiting_attempt_gets_the_lock_when_the_owner_closes_its_file(tmp_path):
    staged, owner = acquire(tmp_path)
    with lock_path(staged).open("rb") as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(try_lock, other, wait=True)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        owner.close()
        assert waiting.result(timeout=60) is True
