"""The wheel works where there is no repository, and brings no tool of development along."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from iris_serve.artifact import MODEL_FILE

ROOT = Path(__file__).parent.parent
ROW = ["6.1", "2.8", "4.7", "1.2"]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy of the project."""
    copy = tmp_path_factory.mktemp("build") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv*", "models", "build", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (made,) = copy.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty directory with a new virtual environment beside it, locked to our versions."""
    folder = tmp_path_factory.mktemp("place")
    venv.create(folder / "venv", with_pip=True)
    lock = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+==[^\\\n]+?)\s*\\$", lock, re.M)
    (folder / "constraints.txt").write_text("\n".join(pins))
    (folder / "empty").mkdir()
    return folder


def install(place, *what):
    python = place / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "-c", place / "constraints.txt", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached, and CI is not set")
    assert done.returncode == 0, done.stderr


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


def test_the_wheel_carries_the_notebook_and_only_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("iris_serve/retrain.ipynb") == (
            (ROOT / "nbs" / "retrain.ipynb").read_bytes()
        )
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"iris_serve"}


@pytest.mark.skipif(os.name != "posix", reason="the places of programs in a venv are POSIX here")
def test_a_wheel_serves_and_retrains_in_an_empty_directory(wheel, place, trained):
    # One environment grows in three stages, because installing SciPy three times takes minutes.
    install(place, "joblib", "scikit-learn")
    code = "import sys, joblib; print(joblib.load(sys.argv[1]).predict([[6.1,2.8,4.7,1.2]]))"
    alone = call(place, "-W", "error", "-c", code, trained / "iris" / "1" / MODEL_FILE)
    assert (alone.stdout, alone.stderr) == ("[1]\n", "")
    assert call(place, "-c", "import iris_serve").returncode != 0

    install(place, wheel)
    program = ("-m", "iris_serve")
    assert call(place, *program, "train").returncode == 0
    assert call(place, *program, "predict", *ROW).stdout == '{"prediction": 1}\n'
    refused = call(place, *program, "retrain")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "pip install 'iris_serve[retrain]'" in refused.stderr

    install(place, f"{wheel}[retrain]")
    made = call(place, *program, "retrain", "-p", "seed", "7", "-p", "promote", "always")
    assert made.returncode == 0, made.stderr
    assert (place / "empty" / "models" / "iris" / "2" / "retrain.ipynb").is_file()
    assert call(place, *program, "predict", *ROW, "--version", "2").stdout == '{"prediction": 1}\n'
    for tool in ("nbdev", "fastcore", "execnb"):
        assert call(place, "-c", f"import {tool}").returncode != 0
    script = [place / "venv" / "bin" / "iris-serve", "versions"]
    listed = subprocess.run(script, cwd=place / "empty", capture_output=True, text=True, check=True)
    assert [line[0] for line in listed.stdout.splitlines()] == [" ", "*"]
