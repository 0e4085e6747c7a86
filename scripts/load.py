"""Processes that answer, and load on them: what `benchmark.py` is made of. Linux only.

A contestant gets one core, and `wrk` another, where there are two. All of it stays on the loopback
address, and whatever was started ends with the `with` statement that started it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HOST = "127.0.0.1"
LONGEST = 90  # seconds until a contestant has to answer for the first time


class LoadError(RuntimeError):
    """Something that was started did not do what it should; the message says what."""


def free_port() -> int:
    """A port on the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def need_tools() -> None:
    """Raise `LoadError` if something is missing that has to be there."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise LoadError("this needs Linux: it reads memory and time of processes from /proc")
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if not shutil.which(tool):
            raise LoadError(f"{tool} is missing; on Debian and Ubuntu: apt-get install {package}")


def cores() -> tuple[str, str, str]:
    """For taskset: the core of the contestants, that of the load, and both."""
    usable = sorted(os.sched_getaffinity(0))
    first, last = str(usable[0]), str(usable[-1])
    return first, last, f"{first},{last}"


# --- processes


def stat(process: int) -> list[str]:
    """What the system says of a process, from its state on; empty if it has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def family(leader: int) -> list[int]:
    """The process `leader`, all in its session, and all that descend from one of them."""
    table = {int(p.name): stat(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
    alive = {process: words for process, words in table.items() if words and words[0] != "Z"}
    found = {process for process, words in alive.items() if leader in (process, int(words[3]))}
    while more := {p for p, words in alive.items() if int(words[1]) in found} - found:
        found |= more
    return sorted(found)


def cpu_seconds(processes: list[int]) -> float:
    """Seconds on a processor that `processes` have used."""
    ticks = sum(sum(map(int, words[11:13])) for words in map(stat, processes) if words)
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(processes: list[int]) -> float:
    """Megabytes that `processes` hold; what several share is counted in parts (PSS)."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(re.findall(r"^Pss:\s+(\d+)", text, re.M)[0])
    return total / 1024


class Question(NamedTuple):
    """How a contestant is asked: where, and with which body for some rows."""

    path: str
    body: Callable[[list[list[float]]], Any]
    answers: Callable[[Any], list[Any]]

    def bodies(self, rows: list[list[float]], each: int) -> list[str]:
        """Bodies with `each` rows, so many that every row occurs."""
        around = rows + rows[:each]
        return [json.dumps(self.body(around[i : i + each])) for i in range(0, len(rows), each)]


class Running:
    """A process that answers on a port; `started` is how long it took to the first answer."""

    def __init__(self, command: list[str], folder: Path, port: int, on: str, **variables: str):
        self.port, self.log = port, folder / "log"
        self.began = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", on, *command],
                cwd=folder,
                env=surroundings(folder) | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started = 0.0

    def wait(self, path: str, body: str) -> None:
        """Return as soon as `body` is answered with 200. Raises `LoadError`."""
        said: object = "nothing"
        while time.perf_counter() - self.began < LONGEST:
            if self.process.poll() is not None:
                raise LoadError(f"it ended: {self.last_line()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = self.ask(http.client.HTTPConnection(HOST, self.port, 30), path, body)
                if status == 200:
                    self.started = time.perf_counter() - self.began
                    return
                said = f"status {status}"
            time.sleep(0.005)
        raise LoadError(f"no answer within {LONGEST} s: {said}; {self.last_line()}")

    def ask(self, over: http.client.HTTPConnection, path: str, body: str) -> tuple[int, bytes]:
        """Status and body of the answer to one question."""
        over.request("POST", path, body, {"Content-Type": "application/json"})
        reply = over.getresponse()
        return reply.status, reply.read()

    def last_line(self) -> str:
        """The last thing that it printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"

    def family(self) -> list[int]:
        """All processes that belong to it."""
        return family(self.process.pid)

    def forget_log(self) -> None:
        """Empty the log: some contestants write a line for each request."""
        os.truncate(self.log, 0)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        everyone = self.family()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        deadline = time.monotonic() + 5
        try:
            while time.monotonic() < deadline and alive(everyone, self.process):
                time.sleep(0.02)
        finally:
            for process in {*everyone, *self.family()}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.process.wait()


def alive(processes: list[int], leader: subprocess.Popen[bytes]) -> bool:
    """True if one of `processes` has not ended."""
    leader.poll()
    return any(words and words[0] != "Z" for words in map(stat, processes))


def surroundings(home: Path) -> dict[str, str]:
    """The environment of a contestant: nothing from outside but the path and the language."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {"HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "PYTHONWARNINGS": "ignore"}


# --- load

SCRIPT = """
local requests, at = {}, 0
function init(args)
  local headers = {["Content-Type"] = "application/json", ["Host"] = args[3]}
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", args[2], headers, line)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("result %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """What one run of wrk found: requests a second, milliseconds, and processors in use."""

    rate: float
    p50: float
    p99: float
    server: float = 0.0  # processors that the contestant kept busy
    client: float = 0.0  # and wrk


class TooSlowError(LoadError):
    """No reply came while the load lasted."""


def read_wrk(text: str) -> Load:
    """The figures in what wrk printed. Raises `LoadError` if replies were wrong or missing."""
    found = re.search(r"^result (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", text, re.M)
    if not found:
        raise LoadError(f"wrk gave no result: {text.strip()[-300:] or 'it printed nothing'}")
    requests, micros, wrong, broken, p50, p99 = map(int, found.groups())
    if wrong:
        raise LoadError(f"{wrong} of {requests} replies were not 200")
    if broken > requests or not requests:
        kind = LoadError if broken else TooSlowError
        raise kind(f"{broken} connections broke or waited too long, {requests} replies")
    return Load(requests / micros * 1e6, p50 / 1000, p99 / 1000)


def load(
    running: Running, path: str, bodies: Path, connections: int, seconds: int, on: str
) -> Load:
    """Ask the questions in the file `bodies`, one a line, for some seconds. Raises `LoadError`.

    A contestant that answers nothing in that time is given five times as long.
    """
    script = bodies.with_name("wrk.lua")
    script.write_text(SCRIPT)
    command = ["taskset", "-c", on, "wrk", "-t1", f"-c{connections}", "--timeout", "10s"]
    command += ["-s", str(script), f"http://{HOST}:{running.port}"]
    command += ["--", str(bodies), path, f"{HOST}:{running.port}"]
    try:
        return load_once(running, command, seconds)
    except TooSlowError:
        return load_once(running, command, 5 * seconds)
    finally:
        running.forget_log()


def load_once(running: Running, command: list[str], seconds: int) -> Load:
    """Run wrk for some seconds, and count the time of processors that it and `running` use."""
    everyone = running.family()
    before, ours = cpu_seconds(everyone), os.times()
    begun = time.perf_counter()
    timed = [*command[:4], f"-d{seconds}s", *command[4:]]
    done = subprocess.run(timed, capture_output=True, text=True, timeout=seconds + 60)
    took = time.perf_counter() - begun
    server, now = cpu_seconds(everyone) - before, os.times()
    client = now.children_user + now.children_system - ours.children_user - ours.children_system
    return read_wrk(done.stdout + done.stderr)._replace(server=server / took, client=client / took)


@contextlib.contextmanager
def stops_on_signals() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, so that nothing is left running."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
