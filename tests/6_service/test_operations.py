"""What a running service counts, logs and protects: what its clients saw, over all workers."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families
from questions import (
    ASKING,
    INFER,
    INVOKE,
    MANY,
    ONE,
    PREDICT,
    ROW,
    V1,
    Client,
    Question,
    answers_in,
    post,
    telling_rows,
    tensor,
    until,
)
from services import Service

from iris_serve.model.save import FOREST_FILE
from iris_serve.registry.registry import Registry, current, open_predictor, promote
from iris_serve.service.counts import decode_series
from iris_serve.service.metrics import Metrics, metrics_text

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
FILES = sorted(  # of two workers
    ["lock", "1.lock", "2.lock"]
    + [f"{kind}_{n}.db" for kind in ("counter", "gauge_liveall", "histogram") for n in (1, 2)]
)


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
    return read_samples(page.body.decode())


def read_samples(page):
    """All samples of a page, as {(name without prefix, labels): value}."""
    families = text_string_to_metric_families(page)
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
    until(
        lambda: (
            (value(service.port, "workers"), value(service.port, "worker_starts_total")) == wanted
        )
    )


@pytest.mark.parametrize("times", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_metrics_are_what_the_clients_saw_even_if_workers_die(models, tmp_path, times):
    seen, shared = Seen(), tmp_path / "shared"
    with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
        service.ready()
        until_workers(service, 2, 2)
        for deaths, number in enumerate((signal.SIGKILL, signal.SIGTERM, None), 1):
            load(service.port, seen, times // 3)
            until(lambda: totals(service.port) == seen.totals(), 2)
            for _ in range(8):  # whichever worker is asked
                assert totals(service.port) == seen.totals()
            if number:
                os.kill(service.children()[0], number)
                until_workers(service, 2, 2 + deaths)
        assert len(seen.batches) > times // 3
        assert set(seen.refusals) == {error for *_, error in REFUSED.values()}
        for counts in shared.glob("*/counter_*.db"):  # each worker had its share
            found = decode_series(counts.read_bytes())
            assert sum(v[0] for k, v in found.items() if k[0] == "requests") > times // 10
        names = sorted(path.name for path in shared.glob("*/*"))
        assert names == FILES


@pytest.mark.parametrize("times", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_numbers_and_lines_are_exact_through_orderly_restarts_of_main_and_worker(
    models, tmp_path, times
):
    seen, shared, lines = Seen(), tmp_path / "shared", []
    set_to = {"IRIS_SERVE_SHARED": str(shared), "IRIS_SERVE_ACCESS_LOG": "on"}
    for start in range(2):
        with (
            ThreadPoolExecutor(1) as pool,
            Service(models, "--workers", "2", IRIS_SERVE_LOG_PROBES="true", **set_to) as service,
        ):
            service.ready()
            said = pool.submit(service.process.stderr.read)  # all the time, or lines are lost
            load(service.port, seen, times // 4)
            os.kill(service.children()[0], signal.SIGTERM)  # a worker, just after its last answer
            started = 3 * start + 3
            until(lambda n=started: value(service.port, "worker_starts_total") == n)
            load(service.port, seen, times // 4)
            assert service.stop(signal.SIGTERM) == 0  # the service, just after its last answer
            lines += map(json.loads, said.result().splitlines())
    found = Metrics(shared)
    page = metrics_text(found)[0].decode()
    samples = read_samples(page)
    assert labelled(samples, "requests_total") == seen.requests
    assert labelled(samples, "predictions_total") == seen.classes
    assert labelled(samples, "refusals_total") == seen.refusals
    asked = (line for line in lines if line["event"] == "request")
    counted = Counter((line["route"], str(line["status"])) for line in asked)
    del counted["/metrics", "200"]
    assert counted == seen.requests


def ask_and_kill(service, kills, started, made, answered):
    """Kill workers while two clients ask; how many questions began in the second before a kill."""
    stop, lost = threading.Event(), 0

    def client():
        while not stop.is_set():
            broken = contextlib.suppress(OSError, http.client.HTTPException)
            with broken, Client(service.port) as connection:
                for _ in range(25):
                    made.append(time.monotonic())
                    answered[connection.ask(ASKING["one row"]).status] += 1

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(client) for _ in range(2)]
        try:
            for kill in range(1, kills + 1):
                time.sleep(1.2)  # so that each second is another one
                killed = time.monotonic()
                os.kill(service.children()[0], signal.SIGKILL)
                lost += sum(killed - 1 < moment <= killed for moment in list(made))
                until_workers(service, 2, started + kill)
        finally:
            stop.set()
    assert [each.result() for each in asking] == [None, None]
    return lost


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_costs_at_most_a_second_of_numbers_and_never_are_there_more_than_were_made(
    models, tmp_path, kills
):
    made, answered, lost, shared = [], Counter(), 0, tmp_path / "shared"
    # A worker that dies often is started again after a long pause, so the service starts anew.
    for start, killed in enumerate(range(0, kills, 4)):
        with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
            service.ready()
            started = 2 * start + 2 + killed
            until_workers(service, 2, started)
            lost += ask_and_kill(service, min(4, kills), started, made, answered)
            assert service.stop(signal.SIGTERM) == 0
    samples = read_samples(metrics_text(Metrics(shared))[0].decode())
    counted = labelled(samples, "requests_total")[PREDICT, "200"]
    assert set(answered) == {200}
    assert answered[200] - lost <= counted <= len(made)
    assert lost < answered[200]


def test_both_formats_and_every_scrape_agree(models):
    with Service(models, "--workers", "2") as service:
        service.ready()
        until_workers(service, 2, 2)
        seen = Seen()
        load(service.port, seen, 200)
        until(lambda: totals(service.port) == seen.totals(), 2)
        with Client(service.port) as client:
            page = client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert page.headers["Content-Type"].startswith("application/openmetrics-text")
        assert page.body.endswith(b"# EOF\n")
        (good,) = re.findall(
            rb'\n(iris_serve_requests_total{.*"/invocations".*"200".*})', page.body
        )
        assert totals(service.port)["requests"][INVOKE, "200"] == seen.requests[INVOKE, "200"]
        assert good


def with_all_of(port, routes):
    """The numbers, as soon as the workers have told theirs of all `routes`; else None."""
    page = scrape(port)
    counted = {route for route, _ in labelled(page, "requests_total")}
    timed = labelled(page, "request_duration_seconds_count").keys()
    return page if counted & timed >= set(routes) else None


def test_series_and_files_are_bounded_whatever_is_asked(models, tmp_path):
    shared, dice = tmp_path / "shared", random.Random(0)  # noqa: S311
    with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
        service.ready()
        until_workers(service, 2, 2)
        with Client(service.port) as client:
            known = [client.get(path) for path in READ]
            before = len(until(partial(with_all_of, service.port, READ.values())))
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


def test_numbers_go_on_and_files_stay_few_over_several_starts(models, tmp_path):
    shared, seen = tmp_path / "shared", Seen()
    for start in range(1, 4):
        with Service(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
            service.ready()
            until_workers(service, 2, 2 * start)
            assert totals(service.port) == seen.totals()  # exact after an orderly stop
            load(service.port, seen, 50)
            assert service.stop(signal.SIGTERM) == 0
        assert sorted(path.name for path in shared.rglob("*") if path.is_file()) == FILES


def test_the_temporary_shared_directory_is_gone_when_the_service_ends(models, tmp_path):
    with Service(models, "--workers", "2", TMPDIR=str(tmp_path)) as service:
        service.ready()
        until_workers(service, 2, 2)
        assert len(list(tmp_path.glob("iris_serve-*"))) == 1
        assert service.stop(signal.SIGTERM) == 0
    assert list(tmp_path.glob("iris_serve-*")) == []


# Swaps


def test_what_workers_share_may_be_cut_short_or_removed_under_a_running_service(models, tmp_path):
    shared = tmp_path / "shared"
    set_to = {"IRIS_SERVE_SHARED": str(shared), "IRIS_SERVE_RATE": "100000"}
    with Service(models, "--workers", "2", **set_to) as service:
        service.ready()
        until_workers(service, 2, 2)
        workers = service.children()
        assert (shared / "rates.sqlite").is_file()

        def counted():
            return labelled(scrape(service.port), "requests_total")[PREDICT, "200"]

        for turn in range(1, 4):
            for _ in range(10):
                assert service.ask() == (200, b'{"prediction": 1}')
            until(lambda turn=turn: counted() == 10 * turn)  # also what was counted before
            if turn == 1:
                for path in shared.rglob("*"):
                    if path.is_file():
                        os.truncate(path, path.stat().st_size // 3)
            else:
                shutil.rmtree(shared)
        assert service.children() == workers
        assert service.ask(None, "GET", "/metrics")[0] == 200


class FullDisk(Service):
    """A service that can make files, and write nothing into them."""

    program = (
        "-c",
        "import resource\n"
        "from iris_serve import __main__\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "__main__.main()",
    )


def test_a_full_disk_at_the_start_costs_the_numbers_and_says_so_in_a_line(models, tmp_path):
    with FullDisk(models, IRIS_SERVE_SHARED=str(tmp_path / "shared")) as service:
        service.ready()
        (worker,) = service.children()
        assert service.ask() == (200, b'{"prediction": 1}')
        assert service.ask(None, "GET", "/metrics")[0] == 200
        assert service.children() == [worker]
        assert service.stop(signal.SIGTERM) == 0
        (line,) = service.complaints()
    assert "the numbers can't be written" in line


def test_a_full_disk_at_the_start_is_one_line_where_rates_have_to_be_kept(models, tmp_path):
    shared = {"IRIS_SERVE_SHARED": str(tmp_path / "shared")}
    with FullDisk(models, IRIS_SERVE_RATE="60", **shared) as service:
        out, err = service.process.communicate(timeout=30)
    assert (service.process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "no place for the rates" in err


def test_swaps_and_failed_swaps_are_counted_and_the_log_says_why(three):
    registry = Registry(three)
    genuine = (registry.path(1) / FOREST_FILE).read_bytes()
    with Service(three, "--workers", "2") as service:
        service.ready()
        until(lambda: scrape(service.port).get(("model_workers", (("version", "1"),))) == 2)
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
        promote_by_hand(registry, 1)
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
    events = Counter(json.loads(line)["event"] for line in log.splitlines())
    assert events["start"] == events["stop"] == 1
    assert (events["swap"] + events["rollback"], events["refusal"]) == (8, 2)
    assert all(
        "forest.safetensors is not the file that its card describes" in line for line in said
    )


def promote_by_hand(registry, version):
    """Add an event that no check has seen, as a person with write access can."""
    folder = registry.folder / "aliases" / "current"
    first, latest = folder / "1.json", current(registry)
    assert latest.version != version
    last = max(int(path.stem) for path in folder.glob("*.json"))
    (folder / ".by-hand").write_bytes(first.read_bytes())
    (folder / ".by-hand").rename(folder / f"{last + 1}.json")


# Ids and the access log


def log_of(service):
    """The access lines of a service, which stops for that; everything in its log is such JSON."""
    assert service.stop(signal.SIGTERM) == 0
    text = service.process.stderr.read()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all([*line][:3] == ["time", "level", "event"] for line in lines)
    assert [line["event"] for line in lines if line["event"] != "request"] == ["start", "stop"]
    return text, [line for line in lines if line["event"] == "request"]


HOSTILE = ["", "a b", "x" * 129, 'a"b', "{}", "\xe9", "a\tb", "<script>", "a;b", "%0d%0a"]


def test_a_given_id_comes_back_and_is_logged_and_a_hostile_one_is_replaced(models):
    with Service(models, "--workers", "2", IRIS_SERVE_ACCESS_LOG="on") as service:
        service.ready()
        given = [f"0af7651916cd43dd/{turn}:a+b=c@d~e.f_g" for turn in range(20)] + ["y" * 128]
        made = []
        for ident in given + HOSTILE:
            good, wrong, lost = ASKING["one row"], REFUSED["no tensor"][0], Question("GET", "/x")
            for question in (good, wrong, lost):
                named = question._replace(headers=(*question.headers, ("X-Request-Id", ident)))
                with Client(service.port) as client:
                    returned = client.ask(named).headers["X-Request-Id"]
                if ident in given:
                    assert returned == ident
                else:
                    assert re.fullmatch("[0-9a-f]{16}", returned)
                    made.append(returned)
        assert len(set(made)) == 3 * len(HOSTILE)
        _, lines = log_of(service)
    assert sorted(line["request_id"] for line in lines) == sorted(made + 3 * given)


SECRET_ROW = [6.1347, 2.8347, 4.7347, 1.2347]
SECRETS = {
    "query": Question("GET", "/nowhere?token=hunter2&hunter3"),
    "query of a prediction": post(f"{PREDICT}?hunter2=1", {"features": SECRET_ROW}),
    "key": Question("GET", "/models", b"", (("X-API-Key", "hunter2"),)),
    "bearer": Question("GET", "/models", b"", (("Authorization", "Bearer hunter2"),)),
    "row": post(PREDICT, {"features": SECRET_ROW}),
    "tensor": post(INFER, tensor([SECRET_ROW])),
    "instances": post(V1, {"instances": [SECRET_ROW]}),
    "wrong": post(PREDICT, {"features": SECRET_ROW[:3]}),
    "lines": post(INVOKE, json.dumps(SECRET_ROW).encode(), "application/jsonlines"),
}


@pytest.mark.parametrize("access_log", ["on", "values", "off"])
def test_the_access_log_has_values_only_if_asked_and_never_keys_or_queries(models, access_log):
    with Service(models, IRIS_SERVE_ACCESS_LOG=access_log) as service:
        service.ready()
        with Client(service.port) as client:
            statuses = [client.ask(question).status for question in SECRETS.values()]
        text, lines = log_of(service)
    assert [line["status"] for line in lines] == ([] if access_log == "off" else statuses)
    assert "hunter" not in text
    assert "?" not in text
    elsewhere = r'"(time|request_id|milliseconds|pid|message)": ?("[^"]*"|[\d.]+)'
    assert ("347" in re.sub(elsewhere, "", text)) == (access_log == "values")
    for line, question in zip(lines, SECRETS.values(), strict=False):
        assert (line["method"], line["path"]) == (question.method, question.path.partition("?")[0])
        assert line["bytes_in"] == len(question.body)
        assert line["milliseconds"] > 0
        asked = access_log == "values" and question.method == "POST"
        assert ("body" in line) == asked
        assert not asked or "6.1347" in line["body"]
    if lines:
        assert [line["rows"] for line in lines] == [0, 0, 0, 0, 1, 1, 1, 0, 1]
        assert lines[4]["version"] == "1"
        assert (lines[0]["route"], lines[0]["error"]) == ("<none>", "UnknownPathError")


def test_a_refused_body_is_logged_with_the_length_that_was_announced(models):
    small, lost = post(PREDICT, b" " * 100), post("/nowhere", b" " * 200)
    large = post(PREDICT, b" " * 1_100_000)
    set_to = {"IRIS_SERVE_KEYS": f"alice:{key(ALICE)}", "IRIS_SERVE_ACCESS_LOG": "on"}
    with Service(models, **set_to) as service:
        service.ready()
        statuses = []
        for secret, questions in ((EVE, (small, lost)), (ALICE, (small, lost, large))):
            for question in questions:
                with Client(service.port) as client:
                    statuses.append(client.ask(with_headers(question, X_API_Key=secret)).status)
        _, lines = log_of(service)
    assert statuses == [401, 401, 400, 404, 413]
    assert [line["status"] for line in lines] == statuses
    assert [line["bytes_in"] for line in lines] == [100, 200, 100, 200, 1_100_000]


def test_lines_of_two_workers_under_load_are_whole(models):
    asked_for = {"IRIS_SERVE_ACCESS_LOG": "on", "IRIS_SERVE_LOG_PROBES": "true"}
    with Service(models, "--workers", "2", **asked_for) as service:
        service.ready()
        until_workers(service, 2, 2)
        seen = Seen()
        load(service.port, seen, 1000, clients=8)
        dropped = value(service.port, "log_lines_dropped_total")
        _, lines = log_of(service)
    counted = Counter((line["route"], str(line["status"])) for line in lines)
    del counted["/metrics", "200"]
    assert (dropped, counted) == (0, seen.requests)


# Keys, limits, other origins


def key(secret):
    return hashlib.sha256(secret.encode()).hexdigest()


ALICE, BOB, EVE = (f"{name}-{'x' * 37}" for name in ("alice", "bob", "eve"))
OPEN = [
    *("/", "/healthz", "/readyz", "/ping", "/openapi.json", "/docs", "/docs/page.js"),
    *("/docs/swagger-ui.css", "/v2/health/live", "/v2/health/ready", "/v1/models/iris"),
    *("/v2/models/iris/ready", "/well"),
]
CLOSED = [
    *ASKING.values(),
    *(Question("GET", path) for path in ("/metrics", "/models", "/models/iris", ONE)),
    *(Question("GET", path) for path in (f"{ONE}/notebook", "/v2", "/v2/models/iris")),
    *(
        Question("GET", path)
        for path in ("/v1/models", "/v2/models/iris/versions/1/ready", "/nowhere")
    ),
    *(Question("GET", path) for path in ("/v1/models/iris%3Apredict", "/well/", "/v2/models")),
    *(Question("GET", path) for path in ("/v2/models/iris%2Finfer/ready/", "/v1/models/..%2F")),
    post("/v2/repository/index", {}),
    post("/v2/repository/models/iris/load", {}),
]


def with_headers(question, **headers):
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return question._replace(headers=question.headers + given)


def test_keys_protect_everything_but_health_and_the_contract(models):
    set_to = {"IRIS_SERVE_KEYS": f"alice:{key(ALICE)}, bob:{key(BOB)}", "AIP_HEALTH_ROUTE": "/well"}
    with Service(models, IRIS_SERVE_ACCESS_LOG="on", **set_to) as service:
        service.ready()
        with Client(service.port) as client:
            for path in OPEN:
                assert client.get(path).status == 200, path
            for question in CLOSED:
                for wrong in ({}, {"X_API_Key": EVE}, {"Authorization": f"Basic {ALICE}"}):
                    refused = client.ask(with_headers(question, **wrong))
                    assert refused.status == 401, question
                    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="iris_serve"'
                    assert refused.headers.get_content_subtype().endswith("json")
                    assert "key" in refused.json.get("detail", refused.json.get("error"))
                    assert EVE.encode() not in refused.body
            for question in CLOSED:
                for right in ({"X_API_Key": ALICE}, {"Authorization": f"Bearer {BOB}"}):
                    answer = client.ask(with_headers(question, **right))
                    assert answer.status in (200, 403, 404, 405), question
        text, lines = log_of(service)
    assert {line.get("key") for line in lines} == {None, "alice", "bob"}
    assert not any(secret in text for secret in (ALICE, BOB, EVE, key(ALICE), key(BOB)))


def test_keys_are_replaced_without_a_moment_in_which_no_key_works(models):
    for keys, allowed in (
        (f"old:{key(ALICE)}", {ALICE}),
        (f"old:{key(ALICE)} new:{key(BOB)}", {ALICE, BOB}),
        (f"new:{key(BOB)}", {BOB}),
    ):
        with Service(models, IRIS_SERVE_KEYS=keys) as service:
            service.ready()
            with Client(service.port) as client:
                for secret in (ALICE, BOB):
                    asked = with_headers(ASKING["one row"], X_API_Key=secret)
                    assert client.ask(asked).status == (200 if secret in allowed else 401)


def ask_often(port, times, **headers):
    """The answers to one question, each over a connection of its own, some at the same time."""

    def ask(_):
        with Client(port) as client:
            return client.ask(with_headers(ASKING["one row"], **headers))

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, range(times)))


def test_a_rate_is_exact_over_two_workers_and_each_key_has_its_own(models):
    secrets, began = {"alice": ALICE, "bob": BOB}, time.monotonic()
    keys = " ".join(f"{name}:{key(secret)}" for name, secret in secrets.items())
    limits = {"IRIS_SERVE_KEYS": keys, "IRIS_SERVE_RATE": "6"}
    with Service(models, "--workers", "2", **limits) as service:
        service.ready()
        until(lambda: len(service.children()) == 2)
        for secret in secrets.values():
            began = time.monotonic()
            answers = ask_often(service.port, 24, X_API_Key=secret)
            took = time.monotonic() - began
            assert took < 10  # in which time one more would be allowed
            assert Counter(answer.status for answer in answers) == {200: 6, 429: 18}
            for refused in answers:
                if refused.status == 429:
                    again = int(refused.headers["Retry-After"])
                    assert 10 - took <= again <= 10
                    assert f"ask again in {again} s" in refused.json["detail"]
        with Client(service.port) as client:
            assert client.get("/readyz").status == 200
            assert client.get("/metrics").status == 401
            assert client.get("/metrics", **{"X-API-Key": ALICE}).status == 200
            assert client.get("/models", **{"X-API-Key": ALICE}).status == 429


def test_a_request_after_the_announced_wait_passes(models):
    with Service(models, "--workers", "2", IRIS_SERVE_RATE="120") as service:
        service.ready()
        answers = ask_often(service.port, 160)
        assert {answer.status for answer in answers} == {200, 429}
        refused = next(answer for answer in answers[::-1] if answer.status == 429)
        assert refused.headers["Retry-After"] == "1"
        time.sleep(1)  # the promise itself
        assert ask_often(service.port, 1)[0].status == 200


PAGE = "https://shop.example"


def crossing(answer):
    return {name for name in answer.headers if name.lower().startswith("access-control-")}


def test_pages_of_other_origins_can_read_nothing_unless_they_are_configured(models):
    wish = {"Access_Control_Request_Method": "POST"}
    preflight = Question("OPTIONS", PREDICT)
    with Service(models) as service:
        service.ready()
        with Client(service.port) as client:
            assert crossing(client.ask(with_headers(ASKING["one row"], Origin=PAGE))) == set()
            assert crossing(client.ask(with_headers(preflight, Origin=PAGE, **wish))) == set()
    keys = f"alice:{key(ALICE)}"
    with Service(models, IRIS_SERVE_ORIGINS=PAGE, IRIS_SERVE_KEYS=keys) as service:
        service.ready()
        with Client(service.port) as client:
            allowed = client.ask(with_headers(preflight, Origin=PAGE, **wish))
            assert (allowed.status, allowed.headers["Content-Type"]) == (204, None)
            assert "POST" in allowed.headers["Allow"]
            assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
            assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
            assert "x-api-key" in allowed.headers["Access-Control-Allow-Headers"].lower()
            assert "Access-Control-Allow-Credentials" not in allowed.headers
            asked = with_headers(ASKING["one row"], Origin=PAGE)
            for answer in (client.ask(asked), client.ask(with_headers(asked, X_API_Key=ALICE))):
                assert answer.headers["Access-Control-Allow-Origin"] == PAGE
                assert "Origin" in answer.headers["Vary"]
            assert answer.status == 200
            for origin in ("https://evil.example", f"{PAGE}.evil.example", "null", "*"):
                assert crossing(client.ask(with_headers(asked, Origin=origin))) == set()
                assert crossing(client.ask(with_headers(preflight, Origin=origin, **wish))) == set()


@pytest.mark.parametrize("keys", ["", f"alice:{key(ALICE)}"], ids=["no keys", "keys"])
def test_listening_beyond_this_machine_without_keys_prints_a_warning(models, keys):
    with Service(models, "--host", "0.0.0.0", IRIS_SERVE_KEYS=keys) as service:  # noqa: S104
        service.ready()
        assert service.ask()[0] == (401 if keys else 200)
        assert service.stop(signal.SIGTERM) == 0
        said = service.complaints()
    assert len(said) == (0 if keys else 1)
    assert any("warning: listening on 0.0.0.0 without keys" in line for line in said) == (not keys)


# Many at once


def test_every_valid_request_among_invalid_ones_gets_the_right_answer(models):
    predictor = open_predictor(Registry(models), 1)
    right = predictor.predict(MANY)
    columns = {"v1, columns": predictor.predict([[1.5] * 4, [2] * 4])}
    expected = {question: columns.get(name, right) for name, question in ASKING.items()}

    def client(number):
        kinds, wrong = [*ASKING.values(), *(question for question, *_ in REFUSED.values())], []
        random.Random(number).shuffle(kinds)  # noqa: S311
        for start in range(0, 125, 25):
            with Client(service.port) as connection:
                for turn in range(start, start + 25):
                    question = kinds[turn % len(kinds)]
                    answer = connection.ask(question)
                    if question not in expected and 400 <= answer.status < 500:
                        continue
                    answers = answers_in(question, answer) if answer.status == 200 else answer
                    if answers != expected[question][: len(answers)] or not answers:
                        wrong.append((question, answer))
        return wrong

    with Service(models, "--workers", "2") as service:
        service.ready()
        until_workers(service, 2, 2)
        workers = service.children()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(client, range(8))) == [[]] * 8
        assert service.children() == workers


def test_two_versions_asked_in_turn_with_the_same_body_never_answer_for_each_other(three):
    rows = telling_rows(Registry(three))

    def client(number):
        wrong = []
        with Client(service.port) as connection:
            for turn in range(60):
                row, expected = rows[(number + turn) % len(rows)]
                for path, value in (
                    ("/models/iris/versions/{}/predict", {"features": row}),
                    ("/v2/models/iris/versions/{}/infer", tensor([row])),
                    ("/v1/models/iris/versions/{}:predict", {"instances": [row]}),
                ):
                    for version in (1, 2):
                        question = post(path.format(version), value)
                        answer = connection.ask(question)
                        said = answer.headers["X-Model-Version"], answers_in(question, answer)
                        if said != (str(version), [expected[str(version)]]):
                            wrong.append((question, answer))
        return wrong

    with Service(three, "--workers", "2") as service:
        service.ready()
        until_workers(service, 2, 2)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(client, range(4))) == [[]] * 4
