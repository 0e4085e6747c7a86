"""Each curl command of the README, asked of a live service, is answered as the README says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from services import Service

from iris_serve.training.retrain import Parameters, train

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PAIRS = re.findall(r"```sh\n([^`]*?\bcurl\b[^`]*)```\s+```json\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```sh\n([^`]*?\bcurl\b[^`]*)```", README)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    models = tmp_path_factory.mktemp("readme") / "models"
    train(models, Parameters())
    with Service(models) as served:
        served.ready()
        yield served


def test_every_command_stands_beside_its_answer():
    assert [command for command, _ in PAIRS] == COMMANDS
    assert len(PAIRS) >= 6


@pytest.mark.skipif(not shutil.which("curl") and "CI" not in os.environ, reason="there is no curl")
@pytest.mark.parametrize(("command", "answer"), PAIRS)
def test_a_command_is_answered_as_the_readme_says(service, command, answer):
    here = command.replace("127.0.0.1:5000", f"127.0.0.1:{service.port}")
    shell = ["sh", "-c", here]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout) == json.loads(answer)
