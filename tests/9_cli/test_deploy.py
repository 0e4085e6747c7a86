"""Deployments: each target's directory is whole, and what it starts answers rightly."""

import ast
import base64
import contextlib
import csv
import http.client
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import check_jsonschema
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from deployments import HOST, Deployed, shut_in, start_command, unpacked, why_no_namespace
from hypothesis import given
from hypothesis import strategies as st
from services import free_port, until

from iris_serve.__main__ import main
from iris_serve.cli.bundle import Deployment, package_files, package_version
from iris_serve.cli.deploy import TARGETS, check_image, default_image, write_deployment
from iris_serve.cli.quoting import exec_form, to_yaml, yaml_text
from iris_serve.cli.server import HEAD_SECONDS
from iris_serve.cli.settings import Settings, read_settings
from iris_serve.cli.targets import readme
from iris_serve.model.card import read_card
from iris_serve.registry.registry import NAME_PATTERN, Registry
from iris_serve.registry.verify import verify
from iris_serve.training.retrain import Parameters, train
from iris_serve.wsgi import make_app

pytestmark = pytest.mark.skipif(os.name != "posix", reason="shells and signals are POSIX")

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv-clients"
PROXY = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SERVED = sorted(set(TARGETS) - {"lambda"})
IRIS = '{"features": [6.1, 2.8, 4.7, 1.2]}'
HOSTILE = ['a"b', "no: 1", "`rm`", "${HOME} $(id)", "back\\slash", "```", "é 🌸\u2028", "{{.Name}}"]

PIPELINE = """
import sys
import joblib, pandas
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
table = pandas.read_csv(sys.argv[1])
X, y = table[["island", "year"]], table["species"]
encoder = OneHotEncoder(handle_unknown="ignore")
coded = make_column_transformer((encoder, ["island"]), remainder="passthrough")
joblib.dump(make_pipeline(coded, LogisticRegression(max_iter=5000)).fit(X, y), sys.argv[2])
"""


KINDS = ["it's", "a, b", 'say "hi"', "no", "é 🌸", "#1: x", "${HOME}", "back\\slash"]
CLASSES = ['"big"', "small, or so", "mid: dle"]


def mixed_table():
    """A table with gaps, and with names and categories that have to be quoted, as CSV."""
    opened = io.StringIO(newline="")
    writer = csv.writer(opened)
    writer.writerow(["the kind, really", "size (cm)", "no: 1", "class"])
    for i in range(120):
        kind, size = KINDS[i * 7 % 8], (i * 37 % 100) / 10
        answer = CLASSES[int(size > 3) + int(size + i * 7 % 8 > 9)]
        row = [kind, size, "'maybe'" if i % 3 else "yes", answer]
        writer.writerow(["" if i * place % 11 == 5 else cell for place, cell in enumerate(row)])
    return opened.getvalue()


def rows_of_all_kinds(registry):
    """The example, then it with each category, and with a gap in each column that may have one."""
    contract = read_card(registry.path(1)).contract
    first = dict(zip(contract.names, contract.example, strict=True))
    rows = [first]
    for feature in contract.features:
        rows += [first | {feature.name: value} for value in feature.values or ()]
        rows += [first | {feature.name: None}] if feature.missing else []
    return rows


def own_answers(registry, rows):
    """What the version answers here, from the registry that it was deployed from."""
    settings = Settings(models=str(registry.folder.parent), name=registry.name, access_log="off")
    app = make_app(settings)
    done = app.test_client().post("/predict?detail=true", json={"features": rows})
    assert done.status_code == 200, done.text
    return done.json["predictions"]


@pytest.fixture(scope="module")
def registries(trained, tmp_path_factory):
    """A forest of numbers, one of a mixed table, and a pipeline that stays a pickle."""
    folder = tmp_path_factory.mktemp("registries")
    penguins = ROOT / "tests" / "tables" / "penguins.csv"
    model = folder / "own.pkl"
    subprocess.run([sys.executable, "-c", PIPELINE, penguins, model], check=True)
    words = ["add", model, "--data", penguins, "--target", "species", "--name", "my_own"]
    done = CliRunner().invoke(main, [*map(str, words), "--models", str(folder / "models")])
    assert done.exit_code == 0, done.output
    (folder / "mixed.csv").write_text(mixed_table(), encoding="utf-8")
    mixed = {"data": str(folder / "mixed.csv"), "target": "class", "n_estimators": 10}
    train(folder / "models", Parameters(name="mixed_up", **mixed))
    kinds = {name: Registry(folder / "models", name) for name in ("mixed_up", "my_own")}
    return kinds | {"iris": Registry(trained)}


@pytest.fixture(scope="module")
def deployed(registries, tmp_path_factory):
    """A function that makes the directory for a target once, and returns it."""
    place, made = tmp_path_factory.mktemp("deployed"), {}

    def directory(target, name="iris"):
        if (target, name) not in made:
            folder = made[target, name] = place / f"{target}-{name}"
            write_deployment(registries[name], 1, target, folder)
        return made[target, name]

    return directory


@pytest.fixture(scope="module")
def site(deployed, tmp_path_factory):
    """The package as an installation has it, from the wheel that a deployment brings."""
    return unpacked(deployed("docker"), tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("target", TARGETS)
def test_a_directory_has_the_version_its_requirements_and_three_commands(deployed, target):
    folder = deployed(target)
    assert verify(Registry(folder / "models")) == []
    kept = {path.name for path in (folder / "models" / "iris" / "1").iterdir()}
    assert kept == {"card.json", "forest.safetensors", "page.json", "run.json"}
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert (folder / lines[0]).is_file()
    assert [line for line in lines[1:] if not re.fullmatch(r"[a-z0-9-]+==[\w.+]+", line)] == []
    names = {line.partition("==")[0] for line in lines[1:]}
    assert not names & {"scikit-learn", "scipy", "pandas", "joblib"}
    assert ("granian" in names) == (target != "lambda")
    block = re.search(r"```sh\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S)[1]
    assert len(block.splitlines()) == 3
    for line in block.splitlines():
        subprocess.run(["sh", "-n", "-c", line], check=True)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*")} == {0o755, 0o644}


def test_a_pickle_comes_with_what_it_needs(deployed, registries):
    folder = deployed("docker", "my_own")
    names = (folder / "requirements.txt").read_text()
    for name, version in read_card(registries["my_own"].path(1)).versions.items():
        assert name == "python" or f"\n{name}=={version}\n" in names
    for name in ("scipy", "threadpoolctl", "pandas"):
        assert f"\n{name}==" in names
    assert (folder / "models" / "my_own" / "1" / "iris_model.pkl").is_file()


def test_lambda_gets_a_zip_of_a_forest_and_an_image_of_a_pickle(deployed):
    zipped, image = ((deployed("lambda", n) / "README.md").read_text() for n in ("iris", "my_own"))
    assert "--zip-file fileb://function.zip" in zipped
    assert "--package-type Image --code ImageUri=my_own:1" in image
    for name in ("iris", "my_own"):
        lines = (deployed("lambda", name) / "Dockerfile").read_text("utf-8").splitlines()
        assert json.loads(lines[-2].removeprefix("ENTRYPOINT ")) == ["python", "-m", "awslambdaric"]
        assert json.loads(lines[-1].removeprefix("CMD ")) == ["lambda_function.lambda_handler"]
    assert (deployed("lambda") / "build.py").is_file()
    assert not (deployed("lambda", "my_own") / "build.py").exists()  # it would not fit into a zip
    assert "SnapStart" in zipped
    assert "SnapStart" not in image  # AWS has it for zips alone


def test_lambdas_image_is_built_in_the_form_that_lambda_takes(deployed):
    for name in ("iris", "my_own"):
        text = (deployed("lambda", name) / "README.md").read_text("utf-8")
        assert "docker build --platform linux/amd64 --provenance=false -t" in text


def test_the_last_command_waits_until_the_service_is_up(deployed):
    for target in TARGETS:
        text = (deployed(target) / "README.md").read_text("utf-8")
        waits = (
            "aws lambda wait function-active-v2"
            if target == "lambda"
            else "curl --retry 60 --retry-delay 1 "
        )
        assert waits in text
    ready = "kubectl wait --for condition=Ready --timeout 300s inferenceservice/iris"
    assert ready in (deployed("kserve") / "README.md").read_text("utf-8")


HOW_KEYS_ARE_SET = {
    "docker": "`docker run … -e IRIS_SERVE_KEYS=NAME:DIGEST …`",
    "compose": "put `IRIS_SERVE_KEYS=NAME:DIGEST` into a file `.env`",
    "cloudrun": "gcloud run services update iris --update-env-vars IRIS_SERVE_KEYS=NAME:DIGEST",
    "kserve": "env: [{name: IRIS_SERVE_KEYS, value: NAME:DIGEST}]",
    "heroku": "heroku config:set IRIS_SERVE_KEYS=NAME:DIGEST",
    "render": "in Render's dashboard, under *Environment*",
    "lambda": "--function-name iris --environment Variables={IRIS_SERVE_KEYS=NAME:DIGEST}",
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_readme_says_how_its_platform_is_given_keys(deployed, target):
    last = (deployed(target) / "README.md").read_text("utf-8").splitlines()[-1]
    assert "`python -m iris_serve key NAME`" in last
    assert HOW_KEYS_ARE_SET[target] in last


def test_compose_passes_the_keys_of_its_surroundings_to_the_service(deployed):
    compose = yaml.safe_load((deployed("compose") / "compose.yaml").read_text("utf-8"))
    passed = compose["services"]["iris"]["environment"]
    assert passed == {"IRIS_SERVE_KEYS": "${IRIS_SERVE_KEYS:-}"}
    script = "".join(f'printf "%s" "{value}"' for value in passed.values())  # the same in a shell
    for keys in ("", "alice:" + "0f" * 32 + " bob-2:" + "1e" * 32):
        surroundings = {"IRIS_SERVE_KEYS": keys} if keys else {}
        done = subprocess.run(
            ["sh", "-c", script], env=surroundings, capture_output=True, check=True
        )
        assert read_settings({"IRIS_SERVE_KEYS": done.stdout.decode()}).keys == keys


def test_a_service_with_empty_keys_is_open_and_one_with_keys_is_not(deployed, site):
    for keys, status in (("", 200), ("alice:" + "0f" * 32, 401)):
        with Deployed(deployed("compose"), site, IRIS_SERVE_KEYS=keys) as service:
            assert service.ask("/predict", IRIS)[0] == status


def test_cloud_run_is_checked_by_a_path_that_google_does_not_keep(deployed):
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text("utf-8")
    section = page.partition("## Google Cloud Run")[2].partition("\n## ")[0]
    for text in ((deployed("cloudrun") / "README.md").read_text("utf-8"), section):
        assert re.search(r"keeps `/healthz` for itself.* ask `/readyz`", text)


def test_another_port_of_docker_is_another_mapping(deployed):
    text = (deployed("docker") / "README.md").read_text("utf-8")
    for port in re.findall(r"-e PORT=(\d+)", text):
        assert f"-e PORT={port} -p 127.0.0.1:{port}:{port}" in text
    assert "`-p 127.0.0.1:9000:8080` chooses another port" in text


def test_the_readme_of_compose_recreates_what_reads_a_changed_file(deployed):
    text = (deployed("compose") / "README.md").read_text("utf-8")
    assert "`docker compose up -d --build --force-recreate` takes what you have changed" in text
    for needed in ("`443:8443`", "`./certificates:/certificates:ro`", "`listen 8443 ssl;`"):
        assert needed in text
    assert "`docker buildx imagetools inspect IMAGE`" in text


def test_every_container_of_compose_is_locked_and_comes_back(deployed):
    services = yaml.safe_load((deployed("compose") / "compose.yaml").read_text("utf-8"))["services"]
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
    assert [name for name in services if not services[name].get("read_only")] == ["grafana"]
    assert services["nginx"]["depends_on"]["iris"]["restart"] is True
    assert services["grafana"]["environment"]["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


@pytest.mark.parametrize("target", TARGETS)
def test_the_how_to_has_a_section_with_the_commands_of_each_readme(target):
    image = "registry.example/iris:1" if target == "kserve" else "iris:1"
    made = TARGETS[target](Deployment(name="iris", version=1, image=image, python="3.12"))
    block = re.search(r"```sh\n(.*?)```", made["README.md"], re.S)[1]
    page = (ROOT / "docs" / "how-to" / "deploy.md").read_text("utf-8")
    shown = " ".join(page.replace("\\\n", " ").split())
    assert f"iris-serve deploy {target} iris-{target}" in shown
    for command in block.splitlines():
        assert " ".join(command.split()) in shown, command


def test_the_wheel_of_a_clone_has_another_version_when_a_file_changes(deployed):
    (wheel,) = (deployed("docker") / "wheels").iterdir()
    files = package_files()
    version = package_version(files)
    assert wheel.name == f"iris_serve-{version}-py3-none-any.whl"
    assert re.fullmatch(r"[0-9.]+\+clone[0-9a-f]{8}", version)
    assert package_version(files | {"iris_serve/py.typed": b" "}) != version
    with zipfile.ZipFile(wheel) as archive:
        told = archive.read(f"iris_serve-{version}.dist-info/METADATA").decode()
    assert f"\nVersion: {version}\n" in told


def test_a_deployment_cannot_become_a_model(three):
    for place in ("out", "iris/out", "../" + three.name + "/out"):
        words = ["deploy", "docker", str(three / place), "--models", str(three)]
        done = CliRunner().invoke(main, words)
        assert (done.exit_code, "name a directory elsewhere" in done.output) == (2, True)
        assert not (three / place).exists()


def test_nginx_lets_go_of_idle_connections_before_the_service_does(deployed):
    found = re.search(r"keepalive_timeout (\d+)s", (deployed("compose") / "nginx.conf").read_text())
    assert 5 <= int(found[1]) <= HEAD_SECONDS - 5


@pytest.mark.parametrize("there", ["directory", "file", "link"])
def test_what_is_there_is_never_touched(registries, tmp_path, there):
    target = tmp_path / "out"
    if there == "directory":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="is there already"):
        write_deployment(registries["iris"], 1, "docker", target)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["deploy docker", "export-manifest", "export-page"])
def test_what_is_written_below_the_home_is_not_written_below_a_tilde(
    trained, tmp_path, monkeypatch, command
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [*command.split(), "~/out", "--models", str(trained)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, str(tmp_path / "out") in done.output) == (0, True), done.output
    assert (tmp_path / "out").exists()
    assert [*(tmp_path / "here").iterdir()] == []


def test_a_failure_leaves_nothing_behind(models, tmp_path):
    (models / "iris" / "1" / "forest.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="is not the file that its card describes"):
        write_deployment(Registry(models), 1, "docker", tmp_path / "outs" / "out")
    assert list((tmp_path / "outs").iterdir()) == []


def test_the_chosen_version_is_what_is_deployed(three, tmp_path):
    words = ["deploy", "heroku", str(tmp_path / "out"), "--version", "3", "--models", str(three)]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.output.count("\n")) == (0, 2)
    copy = Registry(tmp_path / "out" / "models")
    assert copy.versions() == [3]
    assert read_card(copy.path(3)) == read_card(Registry(three).path(3))


@pytest.mark.parametrize(
    "name", ["iris", "mixed_up", pytest.param("my_own", marks=pytest.mark.slow)]
)
def test_the_procfile_serves_every_kind_of_model(deployed, registries, site, name):
    folder, rows = deployed("heroku", name), rows_of_all_kinds(registries[name])
    question = (folder / "question.json").read_text("utf-8")
    with Deployed(folder, site, WEB_CONCURRENCY="2" if name == "iris" else "1") as service:
        assert service.ask("/healthz")[0] == 200
        status, reply = service.ask("/predict?detail=true", question)
        assert (status, reply["model"], reply["version"]) == (200, name, "1")
        status, reply = service.ask("/predict?detail=true", json.dumps({"features": rows}))
        assert (status, reply["predictions"]) == (200, own_answers(registries[name], rows))
        if name == "iris":
            assert service.ask("/predict", IRIS) == (200, {"prediction": 1})
        assert service.stop() == 0


@pytest.mark.parametrize("target", sorted(set(SERVED) - {"heroku", "cloudrun", "compose"}))
def test_a_target_starts_and_stops_as_its_platform_does_it(deployed, site, target):
    with Deployed(deployed(target), site) as service:
        assert service.ask("/healthz")[0] == 200
        assert service.ask("/predict", IRIS) == (200, {"prediction": 1})
        assert service.stop() == 0


def test_the_same_container_serves_docker_cloud_run_and_compose(deployed):
    files = {(deployed(t) / "Dockerfile").read_text() for t in ("docker", "cloudrun", "compose")}
    assert len(files) == 1


@pytest.mark.skipif(bool(why_no_namespace()), reason=why_no_namespace())
@pytest.mark.parametrize("target", ["docker", "kserve"])
def test_a_container_needs_no_home_no_root_and_no_writable_disk(deployed, site, target):
    folder = deployed(target)
    with Deployed(folder, site, shut_in(folder, site)) as service:
        assert service.ask("/healthz")[0] == 200
        assert service.ask("/predict", IRIS) == (200, {"prediction": 1})
        state = Path(f"/proc/{service.process.pid}/status").read_text()
        assert re.search(r"^Uid:\t10001\t10001\t10001", state, re.M)
        assert re.search(r"^CapEff:\t0+$", state, re.M)
        assert service.stop() == 0


def test_the_health_check_of_the_image_tells_a_living_service_from_a_dead_one(deployed, site):
    folder = deployed("docker")
    text = (folder / "Dockerfile").read_text("utf-8")
    words = json.loads(re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.M)[1])
    with Deployed(folder, site) as service:
        environment = {"PATH": f"{Path(sys.executable).parent}:/bin", "PORT": str(service.port)}
        assert subprocess.run(words, env=environment, check=False).returncode == 0
        assert service.stop() == 0
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert done.returncode == 1


def test_the_image_is_built_without_root_at_run_time_and_pinned(deployed):
    lines = (deployed("docker") / "Dockerfile").read_text("utf-8").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("USER")] == ["10001:10001"]
    assert len([line for line in lines if line.startswith("FROM")]) == 2
    assert any(re.search(r"uv==\d+\.\d+\.\d+", line) for line in lines)
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert (deployed("docker") / line.split()[1]).exists(), line


def test_heroku_finds_exactly_one_package_manager(deployed):
    folder = deployed("heroku")
    files = {"requirements.txt", "Pipfile", "poetry.lock", "uv.lock", "runtime.txt", "setup.py"}
    assert {path.name for path in folder.iterdir()} & files == {"requirements.txt"}
    assert re.fullmatch(r"3\.\d+\n", (folder / ".python-version").read_text())


def test_the_blueprint_has_what_render_asks_for(deployed):
    """Render's published schema is on no package index, so its required fields are checked here."""
    found = yaml.safe_load((deployed("render") / "render.yaml").read_text("utf-8"))
    assert list(found) == ["services"]
    (service,) = found["services"]
    assert (service["type"], service["runtime"]) == ("web", "python")
    assert service["healthCheckPath"].startswith("/")
    assert 1 <= service["maxShutdownDelaySeconds"] <= 300
    known = {"type", "name", "runtime", "plan", "buildCommand", "startCommand", "healthCheckPath"}
    assert set(service) == known | {"maxShutdownDelaySeconds"}
    assert service["plan"] in {"free", "starter", "standard", "pro"}


def test_the_compose_file_follows_the_published_schema(deployed):
    found = yaml.safe_load((deployed("compose") / "compose.yaml").read_text("utf-8"))
    schemas = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text("utf-8"))
    jsonschema.validate(found, schema)
    for service in found["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (deployed("compose") / volume.split(":")[0]).exists(), volume
        assert "build" in service or re.search(r":v?\d", service["image"])
    assert found["services"]["prometheus"].get("ports") is None


def test_prometheus_and_grafana_ask_for_numbers_that_there_are(deployed, site):
    folder = deployed("compose")
    shown = json.loads((folder / "grafana/dashboards/iris_serve.json").read_text("utf-8"))
    queries = " ".join(t["expr"] for panel in shown["panels"] for t in panel["targets"])
    with Deployed(folder, site) as service:
        service.ask("/predict", IRIS)
        numbers = service.ask("/metrics")[1]
    asked = set(re.findall(r"\b(?:iris_serve|process)_\w+", queries))
    assert {name for name in asked if not re.search(rf"^{name}[{{ ]", numbers, re.M)} == set()
    for used in set(re.findall(r"by \((\w+)\)", queries)):
        assert f'{used}="' in numbers
    config = yaml.safe_load((folder / "prometheus.yaml").read_text("utf-8"))
    compose = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    assert job["static_configs"][0]["targets"][0].split(":")[0] in compose["services"]
    sources = yaml.safe_load(
        (folder / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8")
    )
    assert shown["panels"][0]["datasource"]["uid"] == sources["datasources"][0]["uid"]


@contextlib.contextmanager
def nginx(folder, place, port):
    """nginx with the configuration in `folder`, in front of `port`; yields its own port."""
    own, text = free_port(), (folder / "nginx.conf").read_text("utf-8")
    text = text.replace("iris:8080", f"127.0.0.1:{port}").replace("/dev/shm/", f"{place}/")  # noqa: S108
    text = text.replace("listen 8080", f"listen 127.0.0.1:{own}").replace("10s", "1s")
    text = text.replace("/dev/stdout", f"{place}/access.log")
    if os.geteuid() == 0:
        text = "user root;\n" + text
    (place / "nginx.conf").write_text("daemon off;\n" + text)
    words = [PROXY, "-e", f"{place}/error.log", "-c", place / "nginx.conf", "-p", place]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: process.poll() is not None or ask(own, "GET", "/healthz"))
        assert process.poll() is None, process.stderr.read()
        yield own
    finally:
        process.terminate()
        process.communicate(timeout=20)


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {"Host": HOST})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.skipif(
    PROXY is None and not os.environ.get("CI"),
    reason="there is no nginx (apt-get install nginx-light), and CI is not set",
)
def test_nginx_stands_in_front_and_waits_for_slow_clients(deployed, site, tmp_path):
    folder = deployed("compose")
    with Deployed(folder, site) as service, nginx(folder, tmp_path, service.port) as port:
        assert ask(port, "POST", "/predict", IRIS) == (200, b'{"prediction": 1}')
        assert ask(port, "GET", "/metrics")[0] == 404
        assert ask(port, "GET", "/readyz?" + "q" * 9000)[0] == 200
        assert ask(port, "POST", "/predict", b" " * ((1 << 20) + 1))[0] == 413
        half = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n{"
        with contextlib.ExitStack() as opened:
            slow = [opened.enter_context(connected(port)) for _ in range(40)]
            for client in slow:
                client.sendall(half)
            assert ask(port, "POST", "/predict", IRIS) == (200, b'{"prediction": 1}')
            for client in slow:
                answer = client.recv(1000)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def run_client(script, given, *words):
    """What a script in tests/clients prints, run by the Python that has the clients."""
    command = [CLIENTS / "bin" / "python", "-I", ROOT / "tests" / "clients" / script, *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_clients = pytest.mark.skipif(
    not (CLIENTS / "made-from").exists() and not os.environ.get("CI"),
    reason="there is no .venv-clients, which python3 scripts/check.py makes, and CI is not set",
)


@needs_clients
def test_kserves_own_types_know_every_field(deployed):
    texts = [(deployed("kserve", n) / "kserve.yaml").read_text("utf-8") for n in ("iris", "my_own")]
    documents = [document for text in texts for document in yaml.safe_load_all(text)]
    wrong = json.loads(json.dumps(documents[:2]))
    wrong[0]["spec"]["containers"][0]["prots"] = []
    del wrong[1]["spec"]["predictor"]["model"]["modelFormat"]
    found = run_client("check_kserve.py", json.dumps([documents, wrong]))
    assert found[0] == []
    assert [line.rpartition(": ")[2] for line in found[1]] == ["unknown", "required"]


@needs_clients
def test_kserves_client_is_answered_by_the_runtime_as_it_is_given(deployed, site):
    rows = [[6.1, 2.8, 4.7, 1.2], [5.1, 3.5, 1.4, 0.2]]
    question = json.dumps({"model": "iris", "version": "1", "rows": rows, "features": []})
    with Deployed(deployed("kserve"), site) as service:
        url = f"http://127.0.0.1:{service.port}"
        v2 = run_client("ask_kserve.py", question, url, "v2")
        status, reply = service.ask("/v1/models/iris:predict", json.dumps({"instances": rows}))
    assert v2["ready"]
    assert v2["model ready"]
    assert v2["answers"]["binary in and out"]["label"]["data"] == [1, 0]
    assert (status, reply) == (200, {"predictions": [1, 0]})


def test_two_models_in_a_cluster_share_the_runtime_and_keep_their_images(deployed):
    texts = [(deployed("kserve", n) / "kserve.yaml").read_text("utf-8") for n in ("iris", "my_own")]
    (one, first), (other, second) = (list(yaml.safe_load_all(text)) for text in texts)
    images = [service["spec"]["predictor"]["model"]["image"] for service in (first, second)]
    assert images == ["iris:1", "my_own:1"]
    for runtime in (one, other):  # the last one that is applied counts for both
        runtime["spec"]["containers"][0].pop("image")
    assert one == other


def test_a_name_that_kubernetes_does_not_take_is_given_as_an_argument(deployed):
    words, _ = start_command(deployed("kserve", "my_own"))
    assert words[:3] == ["python", "-m", "iris_serve"]
    assert main.commands["serve"].make_context("serve", words[3:]).params["name"] == "my_own"


def test_a_long_name_leaves_room_for_what_kserve_adds():
    files = TARGETS["kserve"](Deployment(name="a" * 64, version=1, image="a:1"))
    _, service = yaml.safe_load_all(files["kserve.yaml"])
    assert len(service["metadata"]["name"] + "-predictor-00001") <= 63
    assert service["spec"]["predictor"]["model"]["args"] == ["--name=" + "a" * 64]
    assert f"inferenceservice/{service['metadata']['name']}\n" in files["README.md"]


class Runtime(ThreadingHTTPServer):
    """Lambda's runtime API on the loopback: hands out events, and takes replies."""

    def __init__(self, events):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.events, self.replies, self.times = list(events), [], []
        self.asked, self.answered, self.ended = 0, threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server = self.server
            if server.asked == len(server.events):
                server.answered.set()
                server.ended.wait(60)  # as Lambda does until there is another event
                self.close_connection = True
                return
            body = json.dumps(server.events[server.asked]).encode()
            server.asked += 1
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", str(server.asked))
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 15000))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:x:1:function:y")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.replies.append((self.path.rsplit("/")[-1], json.loads(data)))
            self.server.times.append(time.perf_counter())
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass


def called(folder, site, events):
    """What the handler in `folder` replies to `events`, and the seconds until the first reply."""
    runtime = Runtime(events)
    threading.Thread(target=runtime.serve_forever, daemon=True).start()
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{site}{os.pathsep}{folder}",
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "iris",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
        "AWS_REGION": "eu-central-1",
    }
    began = time.perf_counter()
    words = [sys.executable, "-m", "awslambdaric", "lambda_function.lambda_handler"]
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: process.poll() is not None or runtime.answered.is_set(), 60)
        assert process.poll() is None, process.stderr.read()
    finally:
        process.kill()
        process.communicate()
        runtime.ended.set()
        runtime.shutdown()
        runtime.server_close()
    return runtime.replies, runtime.times[0] - began


def version_1(body, path="/predict", method="POST"):
    """An event as API Gateway's REST APIs send it."""
    return {
        "version": "1.0",
        "httpMethod": method,
        "path": path,
        "headers": {"Content-Type": "application/json", "Host": HOST},
        "multiValueHeaders": {"Content-Type": ["application/json"], "Host": [HOST]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {
            "stage": "prod",
            "path": f"/prod{path}",
            "identity": {"sourceIp": "::1"},
        },
        "body": body,
        "isBase64Encoded": False,
    }


def version_2(body, path="/predict", stage="$default", encoded=False):
    """An event as HTTP APIs and function URLs send it."""
    http_part = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": HOST},
        "requestContext": {"stage": stage, "http": http_part},
        "body": base64.b64encode(body.encode()).decode() if encoded else body,
        "isBase64Encoded": encoded,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is for Linux")
@pytest.mark.parametrize("name", ["iris", "mixed_up", "my_own"])
def test_lambdas_own_runtime_client_calls_the_handler(deployed, registries, site, name):
    folder, rows = deployed("lambda", name), rows_of_all_kinds(registries[name])
    event = json.loads((folder / "event.json").read_text("utf-8"))
    events = [event]
    if name != "iris":
        events += [version_2(json.dumps({"features": rows})) | {"rawQueryString": "detail=true"}]
    if name == "iris":
        events += [version_1(IRIS), version_2(IRIS), version_2(IRIS, encoded=True)]
        events += [version_2(IRIS, "/prod/predict", "prod"), version_1(None, "/healthz", "GET")]
        events += [{"nonsense": True}, version_2('{"features": [1]}'), version_2(IRIS)]
    replies, cold = called(folder, site, events)
    kinds = [kind for kind, _ in replies]
    codes = [reply.get("statusCode") for _, reply in replies]
    if name == "iris":
        assert kinds == ["response"] * 6 + ["error"] + ["response"] * 2
        assert codes == [200] * 6 + [None, 400, 200]
        answers = [reply["body"] for _, reply in [*replies[1:5], replies[-1]]]
        assert answers == ['{"prediction": 1}'] * 5
    else:
        answered = json.loads(replies[1][1]["body"])["predictions"]
        assert answered == own_answers(registries[name], rows)
    assert (kinds[0], codes[0]) == ("response", 200)
    assert "prediction" in json.loads(replies[0][1]["body"])
    assert cold < 30  # a machine with other work; the figure for one core is in the changelog


SNAPSHOT = """
from iris_serve.service import access_log
import lambda_function
from snapshot_restore_py import get_after_restore
access_log.IDS.seed(1)
for call, given, named in get_after_restore():
    call(*given, **named)
print(access_log.IDS.getrandbits(64))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is for Linux")
def test_ids_do_not_repeat_after_a_snapshot(deployed, site):
    folder = deployed("lambda")
    environment = {"PATH": "/bin", "PYTHONPATH": f"{site}{os.pathsep}{folder}"}
    command = [sys.executable, "-c", SNAPSHOT]
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, check=True)
    assert run(command).stdout != run(command).stdout


INDEX_IS_AWAY = "the package index cannot be reached, and CI is not set"


@pytest.mark.skipif(sys.platform != "linux", reason="awslambdaric is for Linux")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_zip_is_small_and_answers_soon(deployed, site, tmp_path):
    folder = shutil.copytree(deployed("lambda"), tmp_path / "lambda")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "build.py", os.uname().machine, here]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and "Retrying (" in done.stderr and not os.environ.get("CI"):
        pytest.skip(INDEX_IS_AWAY)
    assert done.returncode == 0, done.stderr
    package = folder / "package"
    unpacked_size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    zipped_size = (folder / "function.zip").stat().st_size
    print(f"zipped {zipped_size / 1e6:.1f} MB, unpacked {unpacked_size / 1e6:.1f} MB", end="")
    assert zipped_size <= 40e6
    assert unpacked_size <= 100e6
    for path in package.rglob("*.pyc"):  # never compared with its source, whose time a zip loses
        assert path.read_bytes()[4:8] == b"\1\0\0\0", path
    assert len([*package.rglob("*.pyc")]) > 400
    task = tmp_path / "task"
    with zipfile.ZipFile(folder / "function.zip") as archive:
        archive.extractall(task)
    replies, cold = called(task, task, [version_2(IRIS)])
    print(f", cold start {cold:.2f} s")
    assert replies[0][1]["body"] == '{"prediction": 1}'
    loaded = {path.name for path in package.iterdir()}
    assert not loaded & {"sklearn", "scipy", "pandas", "granian"}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.text()
        | st.sampled_from(HOSTILE),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_yaml_is_read_back_as_it_was_written(value):
    assert yaml.safe_load(to_yaml(value)) == value


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1))
def test_words_are_read_back_from_dockerfiles_shells_and_yaml(words):
    assert json.loads(exec_form(words)) == words
    assert "\n" not in exec_form(words)
    plain = [word.replace("\0", "") for word in words]
    assert shlex.split(shlex.join(plain)) == plain
    for word in words:
        assert yaml.safe_load(yaml_text(word)) == word
        assert yaml_text(word).isprintable()


IMAGES = [
    *("iris", "iris:1", "my_own:1", "a__b", "a---b", "a.b_c/d:V1._-", "iris:_x", "0/1/2:3"),
    *("registry.example/iris:1", "registry:5000/bad/iris", "localhost:5000/iris", "HOST/iris"),
    *("123.dkr.ecr.eu-central-1.amazonaws.com/iris:1", "iris:" + "x" * 128, "a" * 255 + ":1"),
]
NO_IMAGES = [
    *("", "Iris", "iris:", "iris:1:2", "iris:-1", "iris:1/", "/iris", "iris/", "a//b", "iris:é"),
    *("registry:5000//bad/", "registry:5000/", "registry:x/iris", "-host/iris", "host-.x/iris"),
    *(
        "my-model__x-:1",
        "a___b",
        "a_-b",
        "a..b",
        "a._b",
        "-a",
        "a-",
        "_a",
        "a b",
        "iris\n",
        "a\n:1",
    ),
    *("iris@sha256:" + "0" * 64, "iris:" + "x" * 129, "a" * 256, "0f" * 32, "http://host/iris"),
]


def test_an_image_is_named_as_docker_names_images():
    for image in IMAGES:
        assert check_image(image) == image
    for image in NO_IMAGES:
        with pytest.raises(ValueError, match="is no name of an image"):
            check_image(image)


@given(st.from_regex(NAME_PATTERN, fullmatch=True), st.integers(1, 999_999_999))
def test_every_model_has_a_name_of_an_image(name, version):
    image = default_image(name, version)
    assert check_image(image) == image
    if re.fullmatch("[a-z0-9]+([_-][a-z0-9]+)*", name):
        assert image == f"{name}:{version}"


@given(st.text(max_size=30) | st.text("aZ0._-/:@", max_size=30))
def test_only_what_can_be_an_image_gets_into_a_file(image):
    try:
        check_image(image)
    except ValueError:
        return
    assert shlex.quote(image) == image
    text = readme(Deployment(name="iris", version=1, image=image), "x", [f"docker push {image}"])
    assert f"docker push {image}\n```" in text


def test_hostile_names_are_read_back_from_every_file(tmp_path):
    head = ",".join('"' + name.replace('"', '""') + '"' for name in [*HOSTILE, "kind"])
    rows = [",".join([*(str(i * j % 7) for j in range(1, 9)), str(i % 2)]) for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    own = {"data": str(tmp_path / "table.csv"), "target": "kind", "n_estimators": 2}
    train(tmp_path / "models", Parameters(name="a-name_64", **own))
    registry = Registry(tmp_path / "models", "a-name_64")
    names = [feature.name for feature in read_card(registry.path(1)).contract.features]
    assert set(names) <= set(HOSTILE)
    for target in TARGETS:
        folder = tmp_path / target
        write_deployment(registry, 1, target, folder)
        question = json.loads((folder / "question.json").read_text("utf-8"))
        assert list(question["features"]) == names
        for path in folder.rglob("*"):
            if path.suffix == ".yaml":
                assert list(yaml.safe_load_all(path.read_text("utf-8")))
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".py":
                ast.parse(path.read_text("utf-8"))
        assert (folder / "README.md").read_text("utf-8").count("```") == 2
    event = json.loads((tmp_path / "lambda" / "event.json").read_text("utf-8"))
    assert list(json.loads(event["body"])["features"]) == names
    _, service = yaml.safe_load_all((tmp_path / "kserve" / "kserve.yaml").read_text("utf-8"))
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", service["metadata"]["name"])
    assert service["spec"]["predictor"]["model"]["args"] == ["--name=a-name_64"]
