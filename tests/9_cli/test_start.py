"""A start imports what every service needs, once, and nothing else; no test here takes a time."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest
from services import Service
from werkzeug.routing import Rule

from iris_serve.service.app import create_app
from iris_serve.testing import Ruler

TRAINING = {"sklearn", "scipy", "pandas", "joblib", "pyarrow", "matplotlib", "papermill"}
RARE = {"sqlite3", "gzip", "webbrowser", "getpass", "prometheus_client", "flask_swagger_ui"}
PARTS = (
    *("data.columns", "data.files", "data.delimited", "data.tables", "data.target"),
    *("openapi.document", "openapi.types", "openapi.schemas", "openapi.routes", "openapi.patterns"),
    *("service.rate_limit", "cli.bundle", "cli.targets", "cli.manifest", "training.retrain"),
)
UNWANTED = TRAINING | RARE | {f"iris_serve.{part}" for part in PARTS}


class Telling(Service):
    """A service that says what its only worker has imported when it is ready to answer."""

    program = (
        "-c",
        "import gc, sys\n"
        "from iris_serve import __main__\n"
        "before = set(sys.modules)\n"
        "from iris_serve.cli import server\n"
        "make = server.worker_app\n"
        "def told(*words):\n"
        "    app = make(*words)\n"
        "    print('imported', *sys.modules, flush=True)\n"
        "    print('collects', gc.isenabled(), gc.get_freeze_count() > 10_000, flush=True)\n"
        "    print('main', *before, flush=True)\n"
        "    return app\n"
        "server.worker_app = told\n"
        "__main__.main()",
    )


def told(models, *options, **environment):
    """What a service told while it started, by the first word of the line."""
    with Telling(models, *options, **environment) as service:
        lines = [line.split() for line in service.ready()]
        assert service.ask() == (200, b'{"prediction": 1}')
    return {first: rest for first, *rest in lines}


@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies on Linux")
def test_a_start_imports_nothing_that_only_training_or_few_requests_need(models):
    assert set(told(models)["imported"]) & UNWANTED == set()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies on Linux")
def test_a_limit_brings_what_it_needs_and_nothing_else(models):
    found = set(told(models, "--rate", "1000")["imported"]) & UNWANTED
    assert found == {"sqlite3", "iris_serve.service.rate_limit"}


@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies on Linux")
def test_the_collector_passes_over_what_was_imported_and_works_in_a_worker(models):
    assert told(models)["collects"] == ["True", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies on Linux")
def test_the_command_line_alone_imports_neither_numpy_nor_the_server(models):
    assert {"numpy", "granian", "iris_serve.wsgi"} & set(told(models)["main"]) == set()


FIRST_QUESTIONS = """
import sys, threading
from iris_serve.wsgi import make_app

app, together, answers = make_app(), threading.Barrier(8), []

def ask(path):
    together.wait()
    reply = app.test_client().get(path, headers={"Accept-Encoding": "gzip"})
    answers.append((path, reply.status_code, reply.data))

paths = ["/openapi.json", "/metrics", "/assets/page.css", "/docs"] * 2
askers = [threading.Thread(target=ask, args=[path]) for path in paths]
for asker in askers:
    asker.start()
for asker in askers:
    asker.join()
assert {status for _, status, _ in answers} == {200}, answers
bodies = {(path, body) for path, _, body in answers if path != "/metrics"}
assert len(bodies) == 3
print("all answered")
"""


def test_first_requests_that_import_at_the_same_moment_are_all_answered(models):
    alone = {k: v for k, v in os.environ.items() if not k.startswith("IRIS_SERVE_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIRST_QUESTIONS],
        env=alone | {"IRIS_SERVE_MODELS": str(models)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["all answered"], done.stderr


def test_no_route_compiles_what_makes_urls_before_the_first_is_made():
    compiling = Rule._compile_builder
    with patch.object(Rule, "_compile_builder", autospec=True, side_effect=compiling) as compiled:
        app = create_app(Ruler())
        assert app.test_client().get("/healthz").status_code == 200
        assert compiled.call_count == 0
        with app.test_request_context():
            assert app.url_for("healthz") == "/healthz"
            assert app.url_for("healthz", more="1") == "/healthz?more=1"
        assert compiled.call_count == 1
