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


def test_both_formats_and_every_scrape_agree(models):
    with Service(models, "--workers", "2") as service:
        service.ready()
        until_workers(service, 2, 2)
        seen = Seen()
        load(service.port, seen, 200)
        with Client(service.port) as client:
            page = client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert page.headers["Content-Type"].startswith("application/openmetrics-text")
        assert page.body.endswith(b"# EOF\n")
        (good,) = re.findall(rb'\n(iris_serve_requests_total{.*"/invocations".*"200".*})', page.body)
        assert totals(service.port)["requests"][INVOKE, "200"] == seen.requests[INVOKE, "200"]
        assert good


def test_series_and_files_are_bounded_whatever_is_asked(models, tmp_path):
    shared, dice = tmp_path / "shared", random.Random(0)
    with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
        service.ready()
        until_workers(service, 2, 2)
        with Client(service.port) as client:
            known = [client.get(path) for path in READ]
            before = len(scrape(service.port))
            for turn in range(300):
                name = f"{dice.getrandbits(64):x}"
                path = [f"/{name}", f"/models/{name}", f"/v2/models/iris/versions/{name}/ready"]
                method = ["GET", "POST", name.upper()][turn % 3 if turn % 9 == 2 else turn % 2]
                assert client.ask(Question(method, path[turn % 3])).status in (404, 405)
        assert {answer.status for answer in known} == {200}
        page = scrape(service.port)
        # Three routes and their histograms, and the classes of error: not one for each path.
        assert len(page) - before < 80
        assert not any(re.search(r"[0-9a-f]{10}", str(labels)) for _, labels in page)
        size = sum(path.stat().st_size for path in shared.rglob("*"))
    assert size < 100_000


def test_numbers_go_on_and_files_stay_few_over_many_starts(models, tmp_path):
    shared, seen = tmp_path / "shared", Seen()
    for start in range(1, 4):
        with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
            service.ready()
            until_workers(service, 2, 2 * start)
            load(service.port, seen, 50)
            assert totals(service.port) == seen.totals()
            assert service.stop(signal.SIGTERM) == 0
        assert len([path for path in shared.rglob("*") if path.is_file()]) == 6


def test_a_shared_directory_of_its_own_is_gone_when_the_service_ends(models, tmp_path):
    with Service(models, "--workers", "2", TMPDIR=str(tmp_path)) as service:
        service.ready()
        until_workers(service, 2, 2)
        assert len(list(tmp_path.glob("iris_serve-*"))) == 1
        assert service.stop(signal.SIGTERM) == 0
    assert list(tmp_path.glob("iris_serve-*")) == []


# Swaps


@pytest.fixture(scope="module")
def two_trained(tmp_path_factory):
    """A models directory with two versions that disagree on some rows; nobody writes to it."""
    folder = tmp_path_factory.mktemp("two") / "models"
    for trees, seed in ((1, 0), (2, 1)):
        train(folder, Parameters(n_estimators=trees, seed=seed, max_depth=2, promote="never"))
    promote(Registry(folder), 1, "the first")
    return folder


@pytest.fixture
def two(two_trained, tmp_path):
    return shutil.copytree(two_trained, tmp_path / "two")


def test_swaps_and_failed_swaps_are_counted_and_the_log_says_why(two):
    registry = Registry(two)
    genuine = (registry.path(1) / FOREST_FILE).read_bytes()
    with Service(two, "--workers", "2") as service:
        service.ready()
        until_workers(service, 2, 2)
        workers = (("version", "1"),)
        assert scrape(service.port)["model_workers", workers] == 2
        promote(registry, 2, "onwards")
        until(lambda: scrape(service.port).get(("model_workers", (("version", "2"),))) == 2)
        samples = scrape(service.port)
        assert samples["model_swaps_total", ()] == 2  # one in each worker
        assert samples["model_swap_failures_total", ()] == 0
        assert samples["model_trouble", ()] == 0
        assert samples["model_info", (("model", "iris"), ("version", "2"))] == 1
        assert 0 <= samples["model_age_seconds", (("version", "2"),)] < 60
        promote(registry, 1, "back")
        until(lambda: value(service.port, "model_swaps_total") == 4)
        promote(registry, 2, "onwards again")
        until(lambda: value(service.port, "model_swaps_total") == 6)
        (registry.path(1) / FOREST_FILE).write_bytes(genuine[:-9])
        put_in_place_by_hand(registry, 1)
        until(lambda: value(service.port, "model_swap_failures_total") >= 2)
        assert value(service.port, "model_trouble") == 1
        assert scrape(service.port)["model_workers", (("version", "2"),)] == 2
        (registry.path(1) / FOREST_FILE).write_bytes(genuine)
        until(lambda: value(service.port, "model_trouble") == 0)
        assert value(service.port, "model_swaps_total") == 8
        assert service.stop(signal.SIGTERM) == 0
        log = service.process.stderr.read()
    said = [line for line in log.splitlines() if "stays at version 2" in line]
    assert len(said) == 2  # once in each worker
    assert all("forest.safetensors is not the file that its card describes" in line for line in said)


def put_in_place_by_hand(registry, version):
    """What somebody with write access can do: an event that no check has seen."""
    folder = registry.folder / "aliases" / "current"
    first, latest = folder / "1.json", current(registry)
    assert latest.version != version
    last = max(int(path.stem) for path in folder.glob("*.json"))
    (folder / ".by-hand").write_bytes(first.read_bytes())
    (folder / ".by-hand").rename(folder / f"{last + 1}.json")
