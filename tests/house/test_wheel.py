"""The wheel works where there is no repository, and brings no tool of development along."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from services import free_port

from iris_serve.model.save import MODEL_FILE

ROOT = Path(__file__).parents[2]
ROW = ["6.1", "2.8", "4.7", "1.2"]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy of the project."""
    copy = tmp_path_factory.mktemp("build") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv*", "models", "build", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "."]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = copy.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty directory with a new virtual environment beside it, locked to our versions."""
    folder = tmp_path_factory.mktemp("place")
    venv.create(folder / "venv", with_pip=True)
    lock = (ROOT / "requirements/dev.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+==[^\\\n]+?)\s*\\$", lock, re.M)
    (folder / "constraints.txt").write_text("\n".join(pins))
    (folder / "empty").mkdir()
    return folder


def version_of(wheel):
    return wheel.name.split("-")[1]


def install(place, *what):
    python = place / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "-c", place / "constraints.txt", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # pip says that it tries again only of an index that does not answer at all.
    if done.returncode and "Retrying (" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached, and CI is not set")
    assert done.returncode == 0, done.stdout + done.stderr


def installed(place, name):
    code = "import sys, importlib.util as u; print(u.find_spec(sys.argv[1]) is not None)"
    return call(place, "-c", code, name).stdout == "True\n"


def call(place, *words):
    python = place / "venv" / "bin" / "python"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [python, *map(str, words)],
        cwd=place / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def out_wheel(place):
    """The wheel in the directory that the installed package has written for a deployment."""
    (found,) = (place / "empty" / "out" / "wheels").iterdir()
    return found


def module_bytes(archive):
    """What a wheel has beside its metadata."""
    return {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}


def serves(place):
    """Start a service there, ask it, and stop it."""
    program = [place / "venv" / "bin" / "python", "-m", "iris_serve", "--port", str(free_port())]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    started = subprocess.Popen(
        program, cwd=place / "empty", env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout.readline().startswith("serving iris version 1")
        client = http.client.HTTPConnection("127.0.0.1", int(program[-1]), timeout=20)
        client.request("POST", "/predict", '{"features": [6.1, 2.8, 4.7, 1.2]}')
        assert client.getresponse().read() == b'{"prediction": 1}'
        client.close()
    finally:
        started.terminate()
        started.communicate(timeout=20)
    assert started.returncode == 0


def test_the_wheel_carries_every_module_the_notebook_and_nothing_else(wheel):
    notebook = (ROOT / "nbs" / "retrain.ipynb").read_bytes()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "iris_serve").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("iris_serve/retrain.ipynb") == notebook
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "iris_serve/assets").iterdir()}
    data = {"iris_serve/py.typed", "iris_serve/training/penguins.csv", *assets}
    assert names == modules | {"iris_serve/retrain.ipynb"} | data


EXTRAS = ("joblib", "matplotlib", "pandas", "scipy", "sklearn")
DEVELOPMENT = ("nbdev", "fastcore", "execnb", "pytest")
PROGRAM = ("-m", "iris_serve")


@pytest.mark.skipif(os.name != "posix", reason="the places of programs in a venv are POSIX here")
def test_a_wheel_serves_alone_and_retrains_with_its_extra(wheel, place, trained):
    # One environment grows in stages, because installing SciPy several times takes minutes.
    install(place, wheel)
    for name in (*EXTRAS, *DEVELOPMENT):
        assert not installed(place, name), name
    for command in ((), ("train",), ("retrain",)):
        refused = call(place, *PROGRAM, *command)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert "pip install 'iris_serve[retrain]'" in refused.stderr
    shutil.copytree(trained, place / "empty" / "models", dirs_exist_ok=True)
    assert call(place, *PROGRAM, "predict", *ROW).stdout == '{"prediction": 1}\n'
    assert call(place, *PROGRAM, "verify").returncode == 0
    assert call(place, *PROGRAM, "deploy", "docker", "out").returncode == 0
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(out_wheel(place)) as brought:
        assert module_bytes(brought) == module_bytes(ours)
    serves(place)

    install(place, f"{wheel}[retrain]")
    for name in DEVELOPMENT:
        assert not installed(place, name), name
    shutil.rmtree(place / "empty" / "models")
    seven = ("retrain", "-p", "seed", "7", "-p", "n_estimators", "10")
    for version, promote in (("1", "auto"), ("2", "always")):
        made = call(place, *PROGRAM, *seven, "-p", "promote", promote)
        assert made.returncode == 0, made.stderr
        assert (place / "empty" / "models" / "iris" / version / "retrain.ipynb").is_file()
        assert call(place, *PROGRAM, "predict", *ROW).stdout == '{"prediction": 1}\n'
    script = place / "venv" / "bin" / "iris-serve"
    said = subprocess.run(
        [script, "--version"], cwd=place / "empty", capture_output=True, text=True, check=True
    )
    assert said.stdout.strip().endswith(version_of(wheel))
    listed = subprocess.run(
        [script, "versions"], cwd=place / "empty", capture_output=True, text=True, check=True
    )
    assert [line[0] for line in listed.stdout.splitlines()[1:]] == ["*", " "]

    # The model file needs scikit-learn, and nothing of ours.
    assert call(place, "-m", "pip", "uninstall", "-q", "-y", "iris_serve").returncode == 0
    code = "import sys, joblib; print(joblib.load(sys.argv[1]).predict([[6.1,2.8,4.7,1.2]]))"
    alone = call(place, "-W", "error", "-c", code, trained / "iris" / "1" / MODEL_FILE)
    assert (alone.stdout, alone.stderr) == ("[1]\n", "")
    assert not installed(place, "iris_serve")
