"""Real processes: the service starts, answers, drains, and stops when it is told to."""

import contextlib
import fcntl
import http.client
import json
import os
import pickle
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urljoin

import pytest
from bad_bodies import BAD, GOOD
from services import Service, free_port, until

from iris_serve.cli.listen import AddressError, listen_alone
from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings, SettingsError
from iris_serve.registry.registry import Registry, current, promote
from iris_serve.service.metrics import Metrics, metrics_text
from iris_serve.training.retrain import Parameters, train
from iris_serve.wsgi import finish_first_promotion

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")


def listeners(port):
    """How many sockets listen on `port`, as Linux tells it (0A is LISTEN)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines[1:])


def state(process):
    command = ["ps", "-o", "stat=", "-p", str(process)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Held(Service):
    """A service that, with its address checked, says so and waits for a line before it goes on."""

    program = (
        "-c",
        "from iris_serve import __main__\n"
        "from iris_serve.cli import server\n"
        "check = server.check_loadable\n"
        "def held(*words):\n"
        "    print('checked', flush=True)\n"
        "    input()\n"
        "    return check(*words)\n"
        "server.check_loadable = held\n"
        "__main__.main()",
    )


class Breaking(Service):
    """A service that breaks down over each question, and lets few lines wait for their reader."""

    program = (
        "-c",
        "from iris_serve import __main__\n"
        "from iris_serve.service import service_log\n"
        "service_log.PENDING = 1 << 14\n"
        "from iris_serve.model.load import ForestPredictor\n"
        "def breaks(*_):\n"
        "    raise OSError('the model is on fire')\n"
        "ForestPredictor.predict = breaks\n"
        "__main__.main()",
    )


def lives(process):
    """True if there is such a process, and it is not merely waiting to be buried."""
    command = ["ps", "-o", "stat=", "-p", str(process)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.strip()[:1] not in ("", "Z")


class ReadOnly(Service):
    """A service on a machine that has no directory for temporary files."""

    program = (
        "-c",
        "import tempfile\n"
        "tempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"
        "from iris_serve import __main__\n"
        "__main__.main()",
    )


def half_sent(service):
    """A request whose body has only begun, accepted by a worker."""
    client = socket.create_connection(("127.0.0.1", service.port), timeout=20)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(GOOD)}\r\n"
    client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
    # The worker asks for the body when the application has begun to read it.
    assert client.recv(100).startswith(b"HTTP/1.1 100")
    client.sendall(GOOD[:10])
    return client


def test_the_first_start_trains_says_where_and_answers(tmp_path):
    with Service(tmp_path / "models") as service:
        lines = service.ready()
        assert lines[0].endswith("models/iris/1/iris_model.pkl\n")
        assert service.ask() == (200, b'{"prediction": 1}')
        status, answer = service.ask(None, "GET", "/")
        assert status == 200
        said = json.loads(answer)
        assert (said["status"], said["model"], said["version"]) == ("ok", "iris", "1")
        assert service.stop(signal.SIGINT) == 0
        assert (tmp_path / "models" / "iris" / "1" / "retrain.ipynb").is_file()


def test_a_second_start_does_not_train(models):
    with Service(models) as service:
        assert len(service.ready()) == 1
        assert service.ask() == (200, b'{"prediction": 1}')
        assert service.stop(signal.SIGTERM) == 0
        assert service.complaints() == []
    assert sorted(p.name for p in (models / "iris").iterdir()) == ["1", "aliases"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_nobody_asked_stops_at_once(models, number):
    with Service(models, "--grace", "60") as service:
        service.ready()
        assert service.stop(number) == 0
        assert service.complaints() == []


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_two_signals_in_one_instant_are_not_missed(models, times):
    for _ in range(times):
        with Service(models, "--grace", "60") as service:
            service.ready()
            service.process.send_signal(signal.SIGINT)
            service.stop(signal.SIGTERM)
            assert service.complaints() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_service_stops_at_once_even_with_open_connections(models, number):
    with Service(models, "--grace", "60") as service:
        service.ready()
        idle = http.client.HTTPConnection("127.0.0.1", service.port)
        idle.request("POST", "/predict", GOOD)
        assert idle.getresponse().read() == b'{"prediction": 1}'
        assert service.stop(number) == 0
        idle.close()


def test_a_request_in_flight_gets_its_answer_before_the_service_stops(models):
    with Service(models, "--grace", "60") as service:
        service.ready()
        with half_sent(service) as client:
            service.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                service.process.wait(0.5)
            client.sendall(GOOD[10:])
            answer = b""
            while chunk := client.recv(1000):
                answer += chunk
        assert answer.endswith(b'{"prediction": 1}')
        assert service.process.wait(20) == 0


def test_a_request_that_never_ends_is_cut_when_the_grace_is_over(models):
    with Service(models, "--grace", "0.5") as service:
        service.ready()
        with half_sent(service):
            assert service.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_during_the_drain_stops_it_now(models, first):
    with Service(models, "--grace", "600") as service:
        service.ready()
        with half_sent(service):
            service.process.send_signal(first)
            with pytest.raises(subprocess.TimeoutExpired):
                service.process.wait(0.5)
            assert service.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_loading_is_heard(models, number):
    with Service(models, "--grace", "600") as service:
        while not service.children():
            assert service.process.poll() is None
        assert service.stop(number) in (0, 128 + number)
        assert service.complaints() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_ends_the_training_of_the_first_model(tmp_path, number, code):
    with Service(tmp_path / "models") as service:
        assert "training the first one" in service.process.stderr.readline()
        while not service.children():
            assert service.process.poll() is None
        assert service.stop(number) == code
        assert not (tmp_path / "models" / "iris" / "1").exists()


def test_a_busy_port_is_one_clear_line(models):
    with Service(models) as first:
        first.ready()
        with Service(models, port=first.port) as second:
            out, err = second.process.communicate(timeout=30)
            assert second.process.returncode == 1
            assert (out, err.count("\n")) == ("", 1)
            assert err.startswith(f"Error: cannot listen on 127.0.0.1 port {first.port}: ")
        assert first.ask() == (200, b'{"prediction": 1}')


@pytest.mark.parametrize("host", ["a" * 64, ".example", "a..example", "no\ud800name"])
def test_a_host_that_can_be_no_name_is_refused_by_name(host):
    with pytest.raises(AddressError, match="cannot listen on"):
        listen_alone(host, 5000)


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("[::1]", "::1"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://[::1]:5000/predict", "::1"),
        ("https://localhost:5000", "localhost"),
        ("localhost:5000", "localhost"),
        ("192.0.2.1", "127.0.0.1"),
        ("no.such.host.invalid", "127.0.0.1"),
    ],
)
def test_a_wrong_host_gets_advice_about_the_host_and_not_the_port(host, right):
    with pytest.raises(AddressError, match=rf"--host {re.escape(right)}$") as refused:
        listen_alone(host, 5000)
    assert "--port" not in str(refused.value)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the claim ends before the start")
def test_two_services_started_at_the_same_moment_never_share_a_port(models):
    with Held(models) as one, Held(models, port=one.port) as other:
        both = (one, other)
        ready = [service for service in both if service.process.stdout.readline() == "checked\n"]
        for service in ready:
            service.process.stdin.write("\n")
            service.process.stdin.flush()
        said = [service.process.stdout.readline() for service in both]
        assert sorted(line.startswith("serving ") for line in said) == [False, True]
        winner, loser = both if said[0] else both[::-1]
        assert loser.process.wait(20) == 1
        assert loser.process.stderr.read().startswith("Error: cannot listen on ")
        assert winner.ask() == (200, b'{"prediction": 1}')


def test_a_changed_model_is_refused_in_one_line_and_nothing_in_it_runs(models, trap, tmp_path):
    (models / "iris" / "1" / "iris_model.pkl").write_bytes(pickle.dumps(trap))
    with Service(models) as service:
        out, err = service.process.communicate(timeout=30)
        assert (service.process.returncode, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("Error: ")
        assert "is not the file that its card describes" in err
    assert not (tmp_path / "the-trap-has-run").exists()


def test_a_model_file_that_lies_about_is_not_opened(models, trap, tmp_path):
    (tmp_path / "iris_model.pkl").write_bytes(pickle.dumps(trap))
    with Service(models) as service:
        service.ready()
        assert service.ask() == (200, b'{"prediction": 1}')
    assert not (tmp_path / "the-trap-has-run").exists()


def test_without_a_promoted_version_it_says_what_to_do(tmp_path):
    train(tmp_path / "models", Parameters(n_estimators=5, promote="never"))
    with Service(tmp_path / "models") as service:
        out, err = service.process.communicate(timeout=30)
        assert (service.process.returncode, out, err.count("\n")) == (1, "", 1)
        assert "try 'python -m iris_serve promote VERSION'" in err


def test_a_first_promotion_that_a_crash_cut_off_is_finished_by_the_next_start(models):
    shutil.rmtree(models / "iris" / "aliases")
    with Service(models) as service:
        assert service.ready()[-1].startswith("serving iris version 1 ")


def test_a_misspelt_name_beside_other_models_trains_nothing_and_names_them(models):
    with Service(models, "--name", "irsi") as service:
        out, err = service.process.communicate(timeout=60)
    assert (service.process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "irsi has no version yet; did you mean iris? (models: iris)" in err
    assert os.listdir(models) == ["iris"]


def test_a_promotion_to_another_alias_does_not_hide_a_first_one_that_was_cut_off(models):
    registry = Registry(models)
    shutil.rmtree(registry.folder / "aliases")
    promote(registry, 1, "a trial", alias="canary")
    finish_first_promotion(registry)
    assert current(registry).version == 1


def test_variables_are_settings_and_a_misspelt_one_stops_the_start(models):
    with Service(models, IRIS_SERVE_PROT="1") as service:
        _, err = service.process.communicate(timeout=30)
        assert service.process.returncode == 2
        assert "did you mean IRIS_SERVE_PORT?" in err
    with Service(models, IRIS_SERVE_PORT="tcp://10.0.0.1:80") as service:
        service.ready()
        assert service.ask() == (200, b'{"prediction": 1}')


def test_a_live_service_survives_every_wrong_body(models):
    with Service(models) as service:
        service.ready()
        workers = service.children()
        for name, (body, words) in BAD.items():
            status, answer = service.ask(body)
            assert status == 400, name
            assert words in json.loads(answer)["detail"], name
        assert service.ask() == (200, b'{"prediction": 1}')
        assert service.children() == workers
        assert service.stop(signal.SIGTERM) == 0
        assert service.complaints() == []


def test_a_chunked_body_over_the_limit_is_refused_and_not_cut(models):
    with Service(models) as service:
        service.ready()
        body = (GOOD if i == 0 else b" " * 100_000 for i in range(20))
        assert service.ask(body)[0] == 413
        body = (GOOD[i : i + 5] for i in range(0, len(GOOD), 5))
        assert service.ask(body) == (200, b'{"prediction": 1}')


def test_what_is_not_http_is_a_4xx_and_harms_nobody(models):
    with Service(models) as service:
        service.ready()
        for raw in (b"\x00\xff" * 50, b"GET\r\n\r\n", b"POST /predict HTTP/9.9\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
                client.sendall(raw)
                answer = client.recv(1000)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert service.ask() == (200, b'{"prediction": 1}')


def test_slow_clients_do_not_keep_others_waiting(models):
    with Service(models) as service:
        service.ready()
        slow = [half_sent(service) for _ in range(16)]
        assert service.ask() == (200, b'{"prediction": 1}')
        for client in slow:
            client.close()


def test_two_workers_answer_many_clients_and_a_dead_one_is_replaced(models):
    with Service(models, "--workers", "2") as service:
        service.ready()
        answers = []

        def client():
            answers.extend(service.ask() for _ in range(25))

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [(200, b'{"prediction": 1}')] * 100
        first, *_ = workers = service.children()
        assert len(workers) == 2
        os.kill(first, signal.SIGKILL)
        while len(set(service.children()) - {first}) < 2:
            assert service.process.poll() is None
        assert service.stop(signal.SIGTERM) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="who listens is read from /proc")
def test_each_of_two_workers_answers(models):
    with Service(models, "--workers", "2") as service:
        service.ready()
        while listeners(service.port) < 2:
            assert service.process.poll() is None
        # Which worker gets a connection is for the kernel to say: one of them is held still, so
        # that whoever answers is the other one. The chance that nobody is asked is 1 in 2^24.
        lines = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        for still in service.children():
            os.kill(still, signal.SIGSTOP)
            while "T" not in state(still):
                assert service.process.poll() is None
            with contextlib.ExitStack() as open_clients:
                where = ("127.0.0.1", service.port)
                clients = [
                    open_clients.enter_context(socket.create_connection(where, timeout=20))
                    for _ in range(24)
                ]
                for client in clients:
                    client.sendall(lines.encode() + GOOD)
                answered, _, _ = select.select(clients, [], [], 20)
                answer = open_clients.enter_context(http.client.HTTPResponse(answered[0]))
                answer.begin()
                assert answer.read() == b'{"prediction": 1}'
                os.kill(still, signal.SIGCONT)


def test_a_service_whose_only_worker_was_killed_answers_again(models):
    with Service(models) as service:
        service.ready()
        (worker,) = service.children()
        os.kill(worker, signal.SIGKILL)
        while service.children() in ([], [worker]):
            assert service.process.poll() is None
        answer = None
        while answer is None:
            assert service.process.poll() is None
            with contextlib.suppress(OSError):
                answer = service.ask()
            service.children()
        assert answer == (200, b'{"prediction": 1}')
        assert service.stop(signal.SIGTERM) == 0


def lines_lost(page):
    """How many lines of the log were lost, as the page of metrics says."""
    (lost,) = re.findall(rb"\niris_serve_log_lines_dropped_total (\S+)", page)
    return float(lost)


@pytest.mark.skipif(sys.platform != "linux", reason="pipes are made small only there")
def test_a_log_that_nobody_reads_makes_nobody_wait_and_what_is_lost_is_counted(models, tmp_path):
    shared = tmp_path / "shared"
    with Breaking(models, "--workers", "2", IRIS_SERVE_SHARED=str(shared)) as service:
        fcntl.fcntl(service.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        service.ready()
        for _ in range(200):
            assert service.ask()[0] == 500
        assert service.ask(None, "GET", "/healthz")[0] == 200
        until(lambda: lines_lost(service.ask(None, "GET", "/metrics")[1]) > 100)
        assert service.stop(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in service.complaints()]
    lost = lines_lost(metrics_text(Metrics(shared))[0])
    assert 100 < lost <= 200  # where lines come in heaps, not even the first heap may fit
    assert len(lines) == 200 - lost
    for line in lines:
        assert (line["level"], line["message"]) == ("error", "no answer to POST /predict")
        assert line["traceback"].endswith("OSError: the model is on fire")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_killed_service_leaves_no_workers_and_the_next_one_finds_the_port(models, workers):
    with Service(models, "--workers", workers) as service:
        service.ready()
        until(lambda: len(service.children()) == int(workers))
        orphans = service.children()
        service.process.kill()
        service.process.wait()
        until(lambda: not any(map(lives, orphans)))
    with Service(models, port=service.port) as heir:
        heir.ready()
        assert heir.ask() == (200, b'{"prediction": 1}')


def test_what_an_orphan_is_asked_already_gets_its_answer(models):
    with Service(models, "--grace", "60") as service:
        service.ready()
        (orphan,) = service.children()
        with half_sent(service) as client:
            service.process.kill()
            service.process.wait()
            until(lambda: listeners(service.port) == 0)
            assert lives(orphan)
            client.sendall(GOOD[10:])
            answer = b""
            while chunk := client.recv(1000):
                answer += chunk
        assert answer.endswith(b'{"prediction": 1}')
        until(lambda: not lives(orphan))


def test_an_orphan_that_never_finishes_ends_with_the_grace(models):
    with Service(models, "--grace", "0.5") as service:
        service.ready()
        (orphan,) = service.children()
        with half_sent(service):
            service.process.kill()
            service.process.wait()
            until(lambda: not lives(orphan))


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", b"421"),
        (b"GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET http://evil.example/ HTTP/1.1\r\nConnection: close\r\n\r\n", b"421"),
    ],
)
def test_a_health_check_of_http_1_0_need_not_name_a_host_and_others_must(
    models, request_head, status
):
    with Service(models) as service:
        service.ready()
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
            client.sendall(request_head)
            assert client.recv(1000).split()[1] == status


def test_an_application_for_other_servers_makes_the_directory_that_is_named(models, monkeypatch):
    for name, value in {"MODELS": models, "RATE": 2, "SHARED": models / "not" / "there"}.items():
        monkeypatch.setenv(f"IRIS_SERVE_{name}", str(value))
    apps = [make_app(), make_app()]
    statuses = [app.test_client().post("/predict", data=GOOD).status_code for app in apps * 2]
    assert statuses == [200, 200, 429, 429]
    for app in apps:
        app.extensions["live"].stop()


@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_numbers_and_lines_are_exact_under_another_server_too(models, tmp_path, options):
    program = "from gunicorn.app.wsgiapp import run; run()"
    port, shared = free_port(), tmp_path / "shared"
    words = ["--no-control-socket", "-w", "2", "-b", f"127.0.0.1:{port}", *options]
    names = {"MODELS": str(models), "SHARED": str(shared), "RATE": "100000"}
    environment = os.environ | {f"IRIS_SERVE_{name}": value for name, value in names.items()}
    command = [sys.executable, "-c", program, *words, "iris_serve.wsgi:make_app()"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        until(lambda: answers(port, "GET", "/healthz") == 200)
        statuses = [answers(port, "POST", "/predict", GOOD) for _ in range(50)]
        server.terminate()
        said = server.stderr.read().splitlines()
    assert (server.returncode, statuses) == (0, [200] * 50)
    assert sum('"event":"request"' in line for line in said) == 50
    page = metrics_text(Metrics(shared))[0].decode()
    assert '\niris_serve_requests_total{route="/predict",status="200"} 50.0\n' in page
    # Those that have answered anything, and the one that reads; never the one that copies itself.
    assert re.search(r"\niris_serve_worker_starts_total [23]\.0\n", page)


def answers(port, method, path, body=None):
    """The status of an answer; None if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request(method, path, body)
        return connection.getresponse().status
    return None


def test_without_a_temporary_directory_the_way_out_is_named_and_leads_out(models, tmp_path):
    with ReadOnly(models) as service:
        out, err = service.process.communicate(timeout=30)
        assert (service.process.returncode, out, err.count("\n")) == (2, "", 1)
        assert "IRIS_SERVE_SHARED" in err
    with ReadOnly(models, IRIS_SERVE_SHARED=str(tmp_path / "shared")) as service:
        service.ready()
        assert service.ask() == (200, b'{"prediction": 1}')


def test_the_first_request_of_an_application_for_other_servers_is_answered_by_what_is_current(
    models, tmp_path
):
    folder = shutil.copytree(models, tmp_path / "copied")
    app = make_app(Settings(models=str(folder), access_log="off"))
    train(folder, Parameters(n_estimators=5, promote="always"))
    answer = app.test_client().post("/predict", data=GOOD)
    app.extensions["live"].stop()
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "2")


def test_the_page_of_the_documentation_is_found_with_a_slash_at_its_end(models):
    app = make_app(Settings(models=str(models), access_log="off", keys=f"shop:{'0' * 64}"))
    client = app.test_client()
    moved = client.get("/docs/")
    assert (moved.status_code, moved.headers["Location"], moved.data) == (308, "../docs", b"")
    assert urljoin("https://example/flowers/docs/", "../docs") == "https://example/flowers/docs"
    assert client.get("/docs").status_code == 200
    assert client.get("/docs//").status_code == 401  # a path that does not exist is not public
    app.extensions["live"].stop()


def test_a_rate_that_would_be_one_for_each_process_is_refused(models, monkeypatch, tmp_path):
    monkeypatch.setenv("IRIS_SERVE_MODELS", str(models))
    monkeypatch.setenv("IRIS_SERVE_RATE", "5")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(SettingsError, match="IRIS_SERVE_SHARED"):
        make_app()
    assert list(tmp_path.glob("iris_serve-*")) == []


def test_health_needs_no_key_in_other_servers_either(models, monkeypatch):
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/well")
    keys = f"shop:{'0' * 64}"
    app = make_app(Settings(models=str(models), keys=keys, access_log="off"))
    client = app.test_client()
    for path in ("/well", "/v1/models/iris", "/v2/models/iris/ready"):
        assert client.get(path).status_code == 200, path
    for path in ("/well/", "/v1/models/iris/versions/1", "/v2/models/iris"):
        assert client.get(path).status_code == 401, path
    assert client.post("/v1/models/iris:predict", data=GOOD).status_code == 401
    app.extensions["live"].stop()


def test_without_being_told_otherwise_it_listens_on_loopback_only(models):
    with Service(models) as service:
        service.ready()
        with socket.socket() as elsewhere:
            elsewhere.settimeout(2)
            assert elsewhere.connect_ex(("127.0.0.2", service.port)) != 0


@pytest.mark.parametrize("framing", ["Content-Length: %d", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    ("path", "size", "lives"),
    [
        ("/docs/swagger-ui-bundle.js", 4000, False),
        ("/healthz", 80_000, False),
        ("/nowhere", 80_000, True),
    ],
)
def test_a_get_with_a_body_is_answered_whole_and_waited_for_only_if_it_is_admitted(
    trained, framing, path, size, lives
):
    counted = "Length" in framing
    body = b"x" * size if counted else b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    line = framing % size if counted else framing
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode()
    with Service(trained) as service, contextlib.ExitStack() as clients:
        service.ready()
        for turn in range(3):
            if not lives or not turn:
                where = ("127.0.0.1", service.port)
                client = clients.enter_context(socket.create_connection(where, timeout=20))
            client.sendall(head + body)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert len(answer.read()) == int(answer.headers["Content-Length"])
            assert (answer.headers["Connection"] == "close") is not lives
