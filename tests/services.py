"""The service in a process of its own, as a user starts it."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from bad_bodies import GOOD
from werkzeug.serving import make_server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true, seconds=20):
    """Wait until `true()` is, and return what it said."""
    deadline = time.monotonic() + seconds
    while not (said := true()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
    return said


class Service:
    """`python -m iris_serve` in a process of its own; a with statement stops it for sure."""

    program = ("-m", "iris_serve")
    patience = 20  # seconds until an answer has to be there

    def __init__(self, models, *options, port=None, **environment):
        self.port = port or free_port()
        command = [sys.executable, *self.program, "--port", str(self.port)]
        command += ["--models", str(models), *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pipesize=1 << 20,  # room for what it says of some thousand requests
            env=os.environ | {"IRIS_SERVE_ACCESS_LOG": "off"} | environment,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # The watcher first: it would replace the workers, and their heirs keep the pipes open.
        workers = self.children()
        self.process.kill()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        _, err = self.process.communicate()
        assert kind or "Traceback" not in err

    def children(self):
        command = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return [int(pid) for pid in found.split()]

    def ready(self):
        """Wait for the line that says where the service is; returns all lines up to it."""
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("serving "):
                return lines
        pytest.fail(f"it never served: {lines} {self.process.stderr.read()}")

    def ask(self, body=GOOD, method="POST", path="/predict"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def complaints(self):
        """What it has said on standard error, but for the lines about its start and its stop."""
        lines = self.process.stderr.read().splitlines()
        usual = ('"event": "start"', '"event": "stop"')
        return [line for line in lines if not any(event in line for event in usual)]

    def stop(self, number, timeout=20):
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextlib.contextmanager
def serving(app):
    """Serve `app` from a thread; yields its origin."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
