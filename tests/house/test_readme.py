"""What the README shows is what happens: each curl command is asked of a live service."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from services import Service

from iris_serve.training.retrain import Parameters, train

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PAIRS = re.findall(r"```sh\n([^`]*?\bcurl\b[^`]*)```\s+```json\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n([^`]*?\bcurl\b[^`]*)```", README)


OWN = README.partition("## A table of your own")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A models directory with flowers, and with penguins as the README makes them."""
    folder = tmp_path_factory.mktemp("readme")
    train(folder / "models", Parameters())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IRIS_SERVE_")}
    for command in re.findall(
        r"^\.venv/bin/(python -m iris_serve (?:sample|retrain)\b.*)$", OWN, re.M
    ):
        words = shlex.split(command, comments=True)
        run = [sys.executable, *words[1:]]
        done = subprocess.run(
            run, cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
    (folder / "told.txt").write_text(done.stdout)
    return folder / "models"


@pytest.fixture(scope="module")
def services(models):
    """The services of the README, by the port that it names."""
    with Service(models) as iris, Service(models, "--name", "penguins") as penguins:
        for service in (iris, penguins):
            service.ready()
        yield {"5000": iris.port, "5001": penguins.port}


def test_what_retrain_says_of_an_own_table_is_what_the_readme_shows(models):
    (shown,) = re.findall(r"```text\n(.*?)```", OWN, re.DOTALL)
    assert (models.parent / "told.txt").read_text() == shown


def test_every_command_stands_beside_its_answer():
    assert [command for command, _ in PAIRS] == COMMANDS
    assert len(PAIRS) >= 6


@pytest.mark.skipif(not shutil.which("curl") and "CI" not in os.environ, reason="there is no curl")
@pytest.mark.parametrize(("command", "answer"), PAIRS)
def test_a_command_is_answered_as_the_readme_says(services, command, answer):
    here = re.sub(r"127\.0\.0\.1:(500\d)", lambda at: f"127.0.0.1:{services[at[1]]}", command)
    shell = ["sh", "-c", here]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout) == json.loads(answer)
