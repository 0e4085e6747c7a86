"""A notebook is executed by this very Python; a run that fails says why and leaves nothing."""

import configparser
import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from training_helpers import SMALL, retrain_ending_with

import iris_serve.training.runner
from iris_serve.model.atomic import ArtifactError
from iris_serve.registry.registry import Registry, current, history
from iris_serve.training.retrain import retrain
from iris_serve.training.runner import (
    EXTRA,
    MAX_FAILED,
    MODULES,
    RetrainError,
    check_extra,
    keep_failed,
    missing_extra,
)

ROOT = Path(__file__).parents[2]


def test_the_extra_that_is_checked_is_the_one_that_is_declared():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    declared = settings["DEFAULT"]["retrain_requirements"].split()
    assert sorted(EXTRA) == sorted(re.split("[<>=]", each)[0] for each in declared)
    assert missing_extra() == []


@pytest.mark.parametrize("name", EXTRA)
def test_each_missing_package_is_named_with_what_to_install(monkeypatch, name):
    module = MODULES.get(name, name)
    monkeypatch.setattr(
        iris_serve.training.runner, "find_spec", lambda asked: asked != module and find_spec(asked)
    )
    with pytest.raises(RetrainError, match=rf"needs {name}: pip install 'iris_serve\[retrain\]'$"):
        check_extra()


def test_a_failed_run_keeps_its_notebook_and_leaves_the_registry_untouched(models, monkeypatch):
    registry = Registry(models)
    with pytest.raises(RetrainError, match=r"ZeroDivisionError: division by zero") as failure:
        retrain_ending_with(models, "1 / 0", monkeypatch)
    assert "\n" not in str(failure.value)
    assert (registry.versions(), current(registry).version) == ([1], 1)
    (kept,) = (registry.folder / "failed").iterdir()
    assert "division by zero" in kept.read_text()
    assert sorted(p.name for p in registry.folder.iterdir()) == ["1", "aliases", "failed"]


def test_the_newest_failed_notebooks_are_kept_and_other_files_are_left_alone(registry, tmp_path):
    (tmp_path / "executed.ipynb").write_text('{"metadata": {}}')
    folder = registry.folder / "failed"
    folder.mkdir()
    for name in ("notes.txt", "20260101.ipynb", "00000000T000000000000Z.ipynb.bak"):
        (folder / name).write_text("mine")
    kept = [keep_failed(registry, tmp_path / "executed.ipynb") for _ in range(MAX_FAILED + 5)]
    assert [path.exists() for path in kept] == [False] * 5 + [True] * MAX_FAILED
    assert len(list(folder.iterdir())) == MAX_FAILED + 3


def test_no_failed_notebook_is_written_through_a_link(registry, tmp_path):
    (tmp_path / "executed.ipynb").write_text('{"metadata": {}}')
    (tmp_path / "elsewhere").mkdir()
    (registry.folder / "failed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a symbolic link"):
        keep_failed(registry, tmp_path / "executed.ipynb")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_full_disk_hides_no_reason_and_leaves_no_half_notebook(models, monkeypatch):
    def full(path, data):
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(iris_serve.training.runner, "write_new_file", full)
    with pytest.raises(RetrainError, match=r"division by zero .*not be kept: No space left"):
        retrain_ending_with(models, "1 / 0", monkeypatch)
    assert list((Registry(models).folder / "failed").iterdir()) == []


def test_no_kernel_and_no_connection_file_outlives_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    with pytest.raises(RetrainError):
        retrain_ending_with(tmp_path / "models", "1 / 0", monkeypatch)
    assert list(tmp_path.glob("**/*.json")) == []


def test_a_kernel_that_cannot_start_is_reported_with_the_last_line_of_its_log(models, monkeypatch):
    genuine = iris_serve.training.runner.write_kernel_spec

    def speechless(folder, environment):
        genuine(folder, environment)
        spec = folder / "here" / "kernel.json"
        argv = [sys.executable, "-c", "raise SystemExit('no kernel here')"]
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"argv": argv}))

    monkeypatch.setattr(iris_serve.training.runner, "write_kernel_spec", speechless)
    with pytest.raises(RetrainError, match="the last line of its log: no kernel here"):
        retrain(models, SMALL)
    assert Registry(models).versions() == [1]


@pytest.mark.filterwarnings("ignore")
def test_a_kernel_that_dies_publishes_nothing(models, monkeypatch):
    with pytest.raises(RetrainError, match="the kernel died, and nothing was published"):
        retrain_ending_with(models, "import os; os._exit(9)", monkeypatch)
    registry = Registry(models)
    assert (registry.versions(), len(history(registry))) == ([1], 1)
    assert len(list((registry.folder / "failed").iterdir())) == 1


BUSY = "try: time.sleep(60)\nexcept KeyboardInterrupt: sum(range(10**8))"


@pytest.mark.parametrize("then", ["time.sleep(60)", BUSY], ids=["asleep", "busy"])
def test_ctrl_c_publishes_nothing_and_prints_one_line(models, tmp_path, then):
    started = tmp_path / "started"
    os.mkfifo(started)
    code = f"""
import json, sys
from pathlib import Path
import iris_serve.training.retrain as r
notebook = json.loads(r.retraining_notebook().read_text())
tells = "from pathlib import Path; import time; Path({str(started)!r}).write_text('now')"
notebook["cells"][-1]["source"] = tells + chr(10) + {then!r}
Path("changed.ipynb").write_text(json.dumps(notebook))
r.retraining_notebook = lambda: Path("changed.ipynb")
try:
    r.retrain(Path(sys.argv[1]), r.Parameters(n_estimators=2))
except KeyboardInterrupt as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, models],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pipe = os.open(started, os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([pipe], [], [], 60)[0], "the last cell was not reached"
    os.close(pipe)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.startswith("stopped, and nothing was published"), err
    assert err == ""
    assert Registry(models).versions() == [1]
    assert sorted(p.name for p in (models / "iris").iterdir()) == ["1", "aliases", "failed"]


def test_ctrl_c_while_the_kernel_starts_leaves_no_kernel_and_no_other_error(models, tmp_path):
    code = """
import sys
from pathlib import Path
import nbclient.client
import iris_serve.training.retrain as r
def press(client):
    print(client.km.provisioner.process.pid)
    raise KeyboardInterrupt
nbclient.client.NotebookClient.start_new_kernel_client = press
try:
    r.retrain(Path(sys.argv[1]), r.Parameters(n_estimators=2))
except KeyboardInterrupt as error:
    print(error)
"""
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, models]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    kernel, told = done.stdout.splitlines()
    assert told.startswith("stopped, and nothing was published"), done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(kernel), 0)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []
    assert Registry(models).versions() == [1]


def test_a_soupsieve_that_this_python_cannot_import_is_named_before_anything_runs(tmp_path):
    broken = "class SelectorSyntaxError(Exception): pass\nraise SelectorSyntaxError('position 0')"
    (tmp_path / "soupsieve.py").write_text(broken)
    own = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "iris_serve", "retrain", "--models", tmp_path / "models"]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.endswith("fails under this Python (SelectorSyntaxError): pip install 'soupsieve<3'")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes only there")
def test_a_temporary_directory_that_is_not_utf_8_is_one_line(tmp_path):
    odd = os.fsencode(tmp_path) + b"/M\xfcller"
    os.mkdir(odd)
    own = {b"PYTHONPATH": os.fsencode(ROOT), b"TMPDIR": odd}
    command = [sys.executable, "-m", "iris_serve", "retrain", "--models", tmp_path / "models"]
    done = subprocess.run(command, env=os.environb | own, capture_output=True)
    assert done.returncode != 0
    line = done.stderr.decode().splitlines()[-1]
    assert line.endswith("has a name that is not UTF-8: name another one in TMPDIR")
    assert b"Traceback" not in done.stderr
    assert b"Executing" not in done.stderr
    assert Registry(tmp_path / "models").versions() == []
