"""What a running service counts, logs and guards: the same as its clients saw, over all workers."""

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from questions import (
    ASKING,
    INFER,
    INVOKE,
    ONE,
    PREDICT,
    ROW,
    V1,
    Client,
    Question,
    answers_in,
    post,
    tensor,
    until,
)
from services import Service

from iris_serve.artifact import FOREST_FILE
from iris_serve.predictor import open_predictor
from iris_serve.registry import Registry, current, promote
from iris_serve.retrain import Parameters, train

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

ANY = "/models/<name>/versions/<v>"
RULES = {
    PREDICT: PREDICT,
    INVOKE: INVOKE,
    V1: "/v1/models/<name>:predict",
    INFER: "/v2/models/<name>/infer",
    f"{ONE}/predict": f"{ANY}/predict",
    "/v2/models/iris/versions/1/infer": "/v2/models/<name>/versions/<v>/infer",
    "/v1/models/iris/versions/1:predict": "/v1/models/<name>/versions/<v>:predict",
}
BOUNDARY = "multipart/form-data; boundary=x"
# A request that is refused, the route it is counted under, and the class of the error.
REFUSED = {
    "no JSON": (post(PREDICT, b"{"), PREDICT, "BodyError"),
    "three numbers": (post(PREDICT, {"features": ROW[:3]}), PREDICT, "RowError"),
    "a query": (post(f"{PREDICT}?color=1", {"features": ROW}), PREDICT, "QueryError"),
    "too large": (post(PREDICT, b" " * 1_100_000), PREDICT, "TooLargeError"),
    "too many": (post(PREDICT, {"features": [[1] * 4] * 10_001}), PREDICT, "TooManyRowsError"),
    "multipart": (post(PREDICT, b"--x--", BOUNDARY), PREDICT, "MediaError"),
    "packed oddly": (
        post(PREDICT, b"", "text/csv", ("Content-Encoding", "br")),
        PREDICT,
        "EncodingError",
    ),
    "no tensor": (post(INFER, {"inputs": []}), RULES[INFER], "TensorError"),
    "no instances": (post(V1, {}), RULES[V1], "BodyError"),
    "no version": (Question("GET", "/models/iris/versions/99"), ANY, "NoModelError"),
    "no such path": (Question("GET", "/nowhere"), "<none>", "UnknownPathError"),
    "no such method": (Question("DELETE", PREDICT), "<none>", "MethodError"),
    "no control": (
        post("/v2/repository/models/iris/load", {}),
        "/v2/repository/models/<name>/load",
        "ForbiddenError",
    ),
}
READ = {"/": "/", "/healthz": "/healthz", ONE: ANY, "/v2/models/iris": "/v2/models/<name>"}
COUNTED = [
    *((question, RULES[question.path.partition("?")[0]], None) for question in ASKING.values()),
    *REFUSED.values(),
    *((Question("GET", path), route, None) for path, route in READ.items()),
]
PREFIX = "iris_serve_"


class Seen:
    """What the clients of a service saw, by the names that the service counts under."""

    def __init__(self):
        self.requests, self.classes, self.refusals = Counter(), Counter(), Counter()
        self.batches, self.lock = [], threading.Lock()

    def note(self, question, route, error, answer):
        answers = []
        if answer.status == 200 and question.method == "POST":
            answers = answers_in(question, answer)
        with self.lock:
            self.requests[route, str(answer.status)] += 1
            self.classes.update(map(str, answers))
            self.refusals.update([error] if error else [])
            self.batches += [len(answers)] if answers else []

    def totals(self):
        routes = Counter()
        for (route, _), times in self.requests.items():
            routes[route] += times
        return {
            "requests": self.requests,
            "routes": routes,
            "classes": self.classes,
            "refusals": self.refusals,
            "batches": (len(self.batches), sum(self.batches), sum(n <= 1 for n in self.batches)),
        }


def load(port, seen, times, clients=4):
    """Ask `times` questions, 25 of them over each connection, from several threads."""

    def ask(first):
        with Client(port) as client:
            for number in range(first, min(first + 25, times)):
                question, route, error = COUNTED[number % len(COUNTED)]
                seen.note(question, route, error, client.ask(question))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(0, times, 25)))


def scrape(port, path="/metrics", **headers):
    """All samples of the page, as {(name without prefix, labels): value}, over a new connection."""
    with Client(port) as client:
        page = client.get(path, **headers)
    assert page.status == 200
    families = text_string_to_metric_families(page.body.decode())
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def labelled(samples, name):
    """The series of `name`, by the values of their labels, without those of the page itself."""
    found = Counter()
    for (each, labels), value in samples.items():
        values = [text for _, text in labels]
        if each == name and "/metrics" not in values:
            found[tuple(values) if len(values) > 1 else values[0]] = int(value)
    return found


def totals(port):
    """What the service counted, in the form of `Seen.totals`."""
    samples = scrape(port)
    rows = [samples["batch_rows_count", ()], samples["batch_rows_sum", ()]]
    return {
        "requests": labelled(samples, "requests_total"),
        "routes": labelled(samples, "request_duration_seconds_count"),
        "classes": labelled(samples, "predictions_total"),
        "refusals": labelled(samples, "refusals_total"),
        "batches": (*rows, samples["batch_rows_bucket", (("le", "1.0"),)]),
    }


def value(port, name):
    """The one series of `name`."""
    return scrape(port).get((name, ()))


def until_workers(service, living, started):
    """Wait until so many workers live, of so many that were ever started."""
    wanted = (living, started)
    until(lambda: (value(service.port, "workers"), value(service.port, "worker_starts_total")) == wanted)


@pytest.mark.parametrize("times", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_metrics_are_what_the_clients_saw_through_workers_that_die(models, tmp_path, times):
    seen, shared = Seen(), tmp_path / "shared"
    with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
        service.ready()
        until_workers(service, 2, 2)
        for deaths, number in enumerate((signal.SIGKILL, signal.SIGTERM, None), 1):
            load(service.port, seen, times // 3)
            for _ in range(8):  # whichever worker is asked
                assert totals(service.port) == seen.totals()
            if number:
                os.kill(service.children()[0], number)
                until_workers(service, 2, 2 + deaths)
        assert len(seen.batches) > times // 3
        assert set(seen.refusals) == {error for *_, error in REFUSED.values()}
        names = sorted(path.name for path in shared.glob("*/*"))
        assert names == ["1.counts", "1.lock", "2.counts", "2.lock", "lock", "names"]
