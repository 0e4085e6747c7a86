"""Promotions under load: no request is lost, and each answer is that of the version it names."""

import gc
import http.client
import itertools
import json
import os
import re
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from bad_bodies import GOOD
from cachetools import TTLCache
from msgspec.structs import replace
from questions import telling_rows
from services import Service, until
from sklearn.linear_model import LogisticRegression

from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings
from iris_serve.data.split import split
from iris_serve.data.table import iris
from iris_serve.model.atomic import ArtifactError, numbered, sha256, to_json, write_new_file
from iris_serve.model.card import CARD_FILE, make_card, read_card
from iris_serve.model.save import FOREST_FILE, MODEL_FILE, write_artifact
from iris_serve.model.scores import score
from iris_serve.model.train import fit
from iris_serve.protocols.v2 import repository_index_reply
from iris_serve.registry.records import PickleError, Run, read_run
from iris_serve.registry.registry import NoModelError, Registry, current, promote, publish, stage
from iris_serve.registry.verify import rollback
from iris_serve.service import live as live_module
from iris_serve.service import versions as versions_module
from iris_serve.service.errors import RETRY_SECONDS, UntrustedError
from iris_serve.service.lineage import trusted_card
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions
from iris_serve.training.retrain import Parameters, train

FULL = 200


@pytest.fixture
def registry(three):
    return Registry(three)


@pytest.fixture
def live(registry):
    """A live predictor that polls when it is told to."""
    live = LivePredictor(registry)
    live.stop()
    return live


def promote_by_hand(registry, version, card=None):
    """What a user with write access can do: an event that no check has seen."""
    folder = registry.folder / "aliases" / "current"
    digest = card or sha256((registry.path(version) / CARD_FILE).read_bytes())
    event = replace(current(registry), version=version, card=digest)
    write_new_file(folder / ".by-hand", to_json(event))
    os.link(folder / ".by-hand", folder / f"{numbered(folder, '.json')[-1] + 1}.json")
    (folder / ".by-hand").unlink()


def mend(path):
    """Let card and run record describe what is in `path` now, as a careful forger would."""
    card = read_card(path)
    files = {name: sha256((path / name).read_bytes()) for name in card.files}
    (path / CARD_FILE).write_bytes(to_json(replace(card, files=files)))
    run = replace(read_run(path), card=sha256((path / CARD_FILE).read_bytes()))
    (path / "run.json").write_bytes(to_json(run))


class Load:
    """Clients that ask over their own connections until they are told to stop."""

    def __init__(self, port, rows, clients=6):
        self.port, self.rows, self.stopping = port, rows, threading.Event()
        self.wrong, self.seen = [], Counter()
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(clients)]

    def client(self, start):
        turn = itertools.count(start)
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            for _ in range(50):
                try:
                    self.ask(connection, *self.rows[next(turn) % len(self.rows)])
                except Exception as error:
                    self.wrong.append(repr(error))
            connection.close()

    def ask(self, connection, row, expected):
        connection.request("POST", "/predict", json.dumps({"features": row}))
        answer = connection.getresponse()
        version, said = answer.headers["X-Model-Version"], json.loads(answer.read())
        self.seen[version] += 1
        if answer.status != 200 or said != {"prediction": expected[version]}:
            self.wrong.append((answer.status, version, said, expected))

    def see(self, version):
        """Wait until `version` has answered another twenty times."""
        enough = self.seen[str(version)] + 20
        until(lambda: self.seen[str(version)] >= enough)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("times", [20, pytest.param(FULL, marks=pytest.mark.slow)])
def test_promotions_and_rollbacks_under_load_lose_no_request_and_mix_no_versions(three, times):
    registry = Registry(three)
    rows = telling_rows(registry)
    with Service(three, "--workers", "2") as service:
        service.ready()
        with Load(service.port, rows) as load:
            for turn in range(times // 2):
                promote(registry, 2 + turn % 2, f"turn {turn}")
                load.see(current(registry).version)
                rollback(registry)
                load.see(current(registry).version)
        assert load.wrong == []
        assert set(load.seen) == {"1", "2", "3"}


def test_every_worker_follows_within_a_second(three):
    registry = Registry(three)
    with Service(three, "--workers", "2") as service:
        service.ready()
        until(lambda: service.ask() and len(service.children()) == 2)
        for version in (2, 3, 1):
            promote(registry, version, "onwards")
            time.sleep(1)  # the promise itself: from then on the old version answers no request
            assert {version_that_answers(service) for _ in range(40)} == {str(version)}


def version_that_answers(service):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("POST", "/predict", GOOD)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.headers["X-Model-Version"]


def truncate(path):
    (path / FOREST_FILE).write_bytes((path / FOREST_FILE).read_bytes()[:-9])


def flip(path):
    data = bytearray((path / FOREST_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (path / FOREST_FILE).write_bytes(data)


def forge(path):
    for name in (FOREST_FILE, MODEL_FILE):
        shutil.copy(path.parent / "3" / name, path / name)
    mend(path)


def lose(path):
    (path / FOREST_FILE).unlink()


def lose_the_card(path):
    (path / CARD_FILE).unlink()


def lose_all(path):
    shutil.rmtree(path)


DAMAGE = {
    truncate: "2/forest.safetensors is not the file that its card describes",
    flip: "2/forest.safetensors is not the file that its card describes",
    forge: "golden rows wrongly",
    lose: "2 has no readable forest.safetensors",
    lose_the_card: "2 has no readable card.json",
    lose_all: "iris has no version 2",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_version_under_a_live_service_changes_nothing_but_readiness(live, damage):
    registry = live.registry
    path, before = registry.path(2), live.pin()
    digest = sha256((path / CARD_FILE).read_bytes())
    damage(path)
    promote_by_hand(registry, 2, None if damage is forge else digest)
    live.poll()
    assert live.pin() is before
    assert (live.swaps, live.failed_swaps) == (0, 1)
    assert DAMAGE[damage] in live.trouble
    assert str(registry.folder) not in live.trouble


def test_a_running_server_tells_its_trouble_and_recovers(three):
    registry = Registry(three)
    genuine = (registry.path(2) / FOREST_FILE).read_bytes()
    with Service(three) as service:
        service.ready()
        truncate(registry.path(2))
        promote_by_hand(registry, 2)

        def ready():
            return json.loads(service.ask(None, "GET", "/readyz")[1])

        until(lambda: "trouble" in ready())
        assert (ready()["status"], ready()["version"]) == ("ready", "1")
        assert str(three) not in json.dumps(ready())
        assert version_that_answers(service) == "1"
        promote(registry, 3, "another one")
        until(lambda: ready() == {"status": "ready", "model": "iris", "version": "3"})
        promote_by_hand(registry, 2)
        until(lambda: "trouble" in ready())
        (registry.path(2) / FOREST_FILE).write_bytes(genuine)
        until(lambda: ready() == {"status": "ready", "model": "iris", "version": "2"})


def test_a_damaged_event_is_trouble_and_the_next_event_ends_it(live):
    folder = live.watch.folder
    (folder / "2.json").write_bytes(b'{"version": 2')
    live.poll()
    assert "2.json is no promotion" in live.trouble
    assert str(folder.parent) not in live.trouble
    (folder / "2.json").unlink()
    promote(live.registry, 3, "whole")
    live.poll()
    assert (live.pin().version, live.trouble) == (3, None)


def test_a_worker_starts_where_the_others_are_though_the_newest_event_is_damaged(live):
    (live.watch.folder / "2.json").write_bytes(b'{"version": 2')
    for patient in (True, False):
        sibling = LivePredictor(live.registry, allow_empty=patient)
        sibling.stop()
        assert sibling.pin().version == 1
        assert "2.json is no promotion" in sibling.trouble


def test_a_worker_starts_with_the_newest_version_that_opens_whatever_is_wrong_with_the_others(
    live, monkeypatch
):
    genuine = live_module.open_version

    def open_first_only(registry, version, card):
        if version > 1:
            raise MemoryError
        return genuine(registry, version, card)

    for version in (2, 3):
        promote_by_hand(live.registry, version)
    monkeypatch.setattr(live_module, "open_version", open_first_only)
    sibling = LivePredictor(live.registry)
    sibling.stop()
    assert sibling.pin().version == 1
    assert sibling.trouble == "iris stays at version 1: opening it failed with MemoryError"


def test_a_poll_that_finds_nothing_new_makes_one_system_call(live, monkeypatch):
    os.utime(live.watch.folder, (1, 1))
    live.poll()
    asked, genuine = [], os.stat

    def stat(path, **options):
        asked.append(path)
        return genuine(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "listdir", asked.append)
    live.poll()
    assert asked == [live.watch.folder]


def test_an_alias_that_vanished_is_trouble_and_the_old_model_stays(live):
    shutil.rmtree(live.watch.folder)
    live.poll()
    assert live.pin().version == 1
    assert "none is promoted" in live.trouble


def test_a_failed_swap_is_tried_again_when_it_is_due_and_not_before(live):
    truncate(live.registry.path(2))
    promote_by_hand(live.registry, 2)
    for _ in range(5):
        live.poll()
    assert live.failed_swaps == 1
    live.watch.due = 0
    live.poll()
    assert live.failed_swaps == 2


def test_a_request_keeps_the_model_it_pinned(live):
    pinned = live.pin()
    promote(live.registry, 2, "onwards")
    live.poll()
    assert (pinned.version, live.pin().version) == (1, 2)
    assert pinned.predict([[6.1, 2.8, 4.7, 1.2]])


def test_two_promotions_in_the_same_tick_of_the_clock_are_both_noticed(live):
    os.utime(live.watch.folder)
    tick = live.watch.folder.stat()
    for version in (2, 3):
        promote(live.registry, version, "quick")
        os.utime(live.watch.folder, ns=(tick.st_atime_ns, tick.st_mtime_ns))
        live.poll()
        assert live.pin().version == version


def test_the_first_request_in_a_process_is_answered_by_what_is_current_then(three):
    live = LivePredictor(Registry(three))
    live.on_change = live.pin  # as the metrics do
    assert live.now.version == 1
    promote(live.registry, 2, "while no request came")
    with ThreadPoolExecutor(16) as pool:
        pinned = list(pool.map(lambda _: live.pin().version, range(64)))
    live.stop()
    assert set(pinned) == {2}


@pytest.mark.skipif(os.name != "posix", reason="only POSIX copies processes")
def test_the_first_request_in_a_copied_process_is_too_even_if_the_lock_was_held(three):
    live = LivePredictor(Registry(three))
    out, into = os.pipe()
    with live.beginning:
        child = os.fork()
        if child == 0:
            promote(live.registry, 2, "onwards")
            os.write(into, str(live.pin().version).encode())
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(out, 10) == b"2"
    os.close(out)
    os.close(into)


def followed_by_many(models):
    live = LivePredictor(Registry(models))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: live.pin(), range(100)))
    (thread,) = live.threads.values()
    assert thread.is_alive()
    return thread


def test_one_thread_polls_in_each_process_and_ends_with_its_live_predictor(three):
    thread = followed_by_many(three)
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX copies processes")
def test_a_copied_process_follows_with_a_thread_of_its_own(three):
    live = LivePredictor(Registry(three))
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        live.pin()
        deadline = time.monotonic() + 20
        while live.pin().version == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.write(into, str(live.pin().version).encode())
        os._exit(0)
    promote(live.registry, 2, "onwards")
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(out, 10) == b"2"
    assert live.threads == {}
    os.close(out)
    os.close(into)


def test_a_version_is_opened_once_however_many_requests_ask_for_it(live, monkeypatch):
    opened = []
    count_openings(monkeypatch, opened)
    versions = Versions(live)
    gate = threading.Barrier(16)

    def ask(turn):
        gate.wait()
        return versions.get(2 + turn % 2)

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(16)))
    assert sorted(opened) == [2, 3]
    assert len({id(predictor) for predictor in got}) == 2


def count_openings(monkeypatch, opened):
    genuine = versions_module.open_version

    def counted(registry, version, card, pickles):
        opened.append(version)
        return genuine(registry, version, card, pickles)

    monkeypatch.setattr(versions_module, "open_version", counted)


def test_a_slow_opening_delays_no_request_for_another_version(live, monkeypatch):
    started, go_on, genuine = threading.Event(), threading.Event(), versions_module.open_version

    def slow(registry, version, card, pickles):
        if version == 3:
            started.set()
            assert go_on.wait(60)
        return genuine(registry, version, card, pickles)

    monkeypatch.setattr(versions_module, "open_version", slow)
    versions = Versions(live)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(versions.get, 3)
        assert started.wait(60)
        assert versions.get(2).version == 2
        assert not waiting.done()
        go_on.set()
        assert waiting.result(60).version == 3


def test_no_more_versions_are_being_opened_at_a_time_than_may_stay_loaded(live, monkeypatch):
    for _ in range(3):
        train(live.registry.folder.parent, Parameters(n_estimators=1, promote="never"))
    versions, now, most, lock = Versions(live, most=2), [], [], threading.Lock()
    genuine = versions_module.open_version
    first_two = threading.Barrier(2)

    def counted(registry, version, card, pickles):
        with lock:
            now.append(version)
            most.append(len(now))
        if len(most) <= 2:
            first_two.wait(60)
        found = genuine(registry, version, card, pickles)
        with lock:
            now.remove(version)
        return found

    monkeypatch.setattr(versions_module, "open_version", counted)
    with ThreadPoolExecutor(5) as pool:
        got = [predictor.version for predictor in pool.map(versions.get, range(2, 7))]
    assert got == [2, 3, 4, 5, 6]
    assert max(most) == 2
    assert len(versions.loaded.kept) == 2


def clocked(clock):
    """A `TTLCache` that reads the time from `clock`, a list of one number."""
    return partial(TTLCache, timer=lambda: clock[0])


def test_a_refused_version_is_tried_again_after_a_while_and_not_before(live, monkeypatch):
    opened, path, clock = [], live.registry.path(2) / MODEL_FILE, [1000.0]
    count_openings(monkeypatch, opened)
    monkeypatch.setattr(versions_module, "TTLCache", clocked(clock))
    whole, versions = path.read_bytes(), Versions(live)
    path.write_bytes(b"on its way")
    for _ in range(5):
        with pytest.raises(UntrustedError, match="is not the file"):
            versions.get(2)
    path.write_bytes(whole)
    with pytest.raises(UntrustedError, match="is not the file"):
        versions.get(2)
    assert opened == [2]
    clock[0] += RETRY_SECONDS - 0.01
    with pytest.raises(UntrustedError, match="is not the file"):
        versions.get(2)
    assert opened == [2]
    clock[0] += 0.01
    assert versions.get(2).version == 2
    assert opened == [2, 2]


def test_what_is_remembered_of_refusals_and_locks_is_bounded(live, monkeypatch):
    monkeypatch.setattr(versions_module, "MAX_REFUSED", 1)
    versions = Versions(live)
    for version in (2, 3):
        (live.registry.path(version) / MODEL_FILE).write_bytes(b"")
        with pytest.raises(UntrustedError):
            versions.get(version)
    for version in range(100, 200):
        with pytest.raises(NoModelError):
            versions.get(version)
    assert (list(versions.refusals.errors), sorted(versions.opening)) == ([3], [2, 3])


def test_one_trouble_is_logged_once_in_a_few_seconds_however_often_it_is_met(
    live, caplog, monkeypatch
):
    clock, logged = [1000.0], versions_module.LOGGED
    bounded = clocked(clock)(2, logged.ttl)
    monkeypatch.setattr(versions_module, "LOGGED", bounded)
    versions = (2, 3)
    for version in versions:
        (live.registry.path(version) / CARD_FILE).unlink()

    def met(times):
        for version in versions * times:
            with pytest.raises(UntrustedError):
                trusted_card(live.registry, version)
        return len([record for record in caplog.records if "be trusted" in record.message])

    assert met(50) == 2
    clock[0] += RETRY_SECONDS
    assert met(50) == 4
    (live.registry.path(1) / CARD_FILE).unlink()
    with pytest.raises(UntrustedError):
        trusted_card(live.registry, 1)
    assert len(bounded) == 2
    assert logged.maxsize == versions_module.MAX_LOGGED == 100


def test_a_service_without_a_model_says_when_to_ask_again(tmp_path):
    app = make_app(Settings(models=str(tmp_path), access_log="off"))
    client = app.test_client()
    for path in ("/", "/readyz", "/ping", "/v2/health/ready", "/v1/models/iris"):
        answer = client.get(path)
        assert answer.status_code == 503, path
        assert 1 <= int(answer.headers["Retry-After"]) <= 5, path
    app.extensions["live"].stop()


def test_at_most_the_stated_number_of_versions_stays_loaded(live):
    train(live.registry.folder.parent, Parameters(n_estimators=1, promote="never"))
    versions = Versions(live, most=2)
    for version in (2, 3, 2, 4):
        assert versions.get(version).version == version
    assert list(versions.loaded.kept) == [2, 4]
    assert versions.get(1) is live.pin()
    assert list(versions.loaded.kept) == [2, 4]


def test_asking_whether_a_version_is_loaded_neither_opens_it_nor_counts_as_use(live):
    versions = Versions(live, most=2)
    versions.get(2)
    versions.get(3)
    order = list(versions.loaded.kept)
    assert [version in versions.loaded for version in (1, 2, 3, 9)] == [True, True, True, False]
    repository_index_reply(versions)
    assert list(versions.loaded.kept) == order == [2, 3]


def test_a_loaded_version_is_found_without_touching_the_disk(live):
    versions = Versions(live)
    versions.get(2)
    shutil.rmtree(live.registry.folder)
    assert (versions.get(2).version, versions.get(1).version) == (2, 1)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_version_is_never_loaded_and_evicts_no_other(live, damage):
    versions = Versions(live)
    versions.get(3)
    damage(live.registry.path(2))
    with pytest.raises((UntrustedError, NoModelError)) as caught:
        versions.get(2)
    assert str(live.registry.folder) not in str(caught.value)
    assert list(versions.loaded.kept) == [3]


def test_a_card_that_the_run_record_does_not_name_is_refused(live):
    path = live.registry.path(2)
    changed = replace(read_card(path), source="0" * 64)
    (path / CARD_FILE).write_bytes(to_json(changed))
    with pytest.raises(UntrustedError, match="is not the card"):
        Versions(live).get(2)


def test_a_pickle_is_opened_versions_module_only_with_permission(live):
    rows, held = split(iris())
    line = fit(LogisticRegression(max_iter=1000), rows)
    card = make_card("iris", None, iris(), score(line, held, rows), line)
    seen = read_run(live.registry.path(1)).started
    run = Run(made_by="a test", started=seen, finished=seen, promoted=False, why="new")
    with stage(live.registry) as staged:
        write_artifact(staged, line, card)
        version = publish(live.registry, staged, run)
    with pytest.raises(PickleError, match="IRIS_SERVE_PICKLES"):
        Versions(live).get(version)
    assert Versions(live, pickles=True).get(version).predict([[6.1, 2.8, 4.7, 1.2]]) == [1]


@pytest.mark.parametrize(
    "words",
    [
        "cannot import name 'Tree' from 'tree' (/opt/our tools/lib/tree.py)",
        "Can't get attribute 'Tree' on <module 'tree' from '/opt/our tools/lib/tree.py'>",
        "[Errno 2] No such file or directory: '/opt/our tools/lib/tree.so'",
        "no library in C:\\our tools\\lib",
    ],
)
def test_the_error_of_a_pickle_that_cannot_be_opened_tells_no_path(live, monkeypatch, words):
    def refuse(registry, version, card, pickles):
        raise ArtifactError(f"iris_model.pkl cannot be opened here: {words}")

    monkeypatch.setattr(versions_module, "open_version", refuse)
    with pytest.raises(UntrustedError, match="cannot be opened here: ") as refusal:
        Versions(live).get(2)
    assert not re.search(r"opt|tools|tree\.py", str(refusal.value))


def test_an_application_under_another_server_follows_from_its_first_request(three):
    app = make_app(Settings(models=str(three)))
    client = app.test_client()
    assert app.extensions["live"].threads == {}
    assert client.post("/predict", data=GOOD).headers["X-Model-Version"] == "1"
    promote(app.extensions["live"].registry, 3, "onwards")
    until(lambda: client.post("/predict", data=GOOD).headers["X-Model-Version"] == "3")
    app.extensions["live"].stop()


def test_every_reply_of_the_prediction_route_names_its_version(three):
    app = make_app(Settings(models=str(three)))
    app.extensions["live"].stop()
    client = app.test_client()
    replies = [
        client.post("/predict", data=GOOD),
        client.post("/predict", data=b"{"),
        client.post("/predict", data=b" " * (1 << 21)),
        client.get("/predict"),
        client.get("/"),
        client.get("/readyz"),
        client.get("/nowhere"),
    ]
    assert [reply.status_code for reply in replies] == [200, 400, 413, 405, 200, 200, 404]
    assert {reply.headers["X-Model-Version"] for reply in replies} == {"1"}
    assert client.get("/healthz").json == {"status": "alive"}
