"""Versions are numbered, whole and never lost, whoever adds them and whenever somebody dies."""

import json
import subprocess
import sys

import pytest

from iris_serve.artifact import ArtifactError, write_file
from iris_serve.registry import NoModelError, Registry, current, history, promote, read_run
from iris_serve.retrain import Parameters, train

ADD = """
import sys
from pathlib import Path
from iris_serve.retrain import Parameters, train
for _ in range(3):
    train(Path(sys.argv[1]), Parameters(n_estimators=1, promote="always"))
"""


def test_processes_that_publish_at_once_lose_nothing(tmp_path):
    command = [sys.executable, "-c", ADD, tmp_path]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    registry = Registry(tmp_path)
    assert registry.versions() == list(range(1, 10))
    assert sorted(event.version for event in history(registry)) == list(range(1, 10))
    assert all(read_run(registry.path(v)).version == v for v in registry.versions())


DIE = """
import os, sys
from pathlib import Path
from iris_serve import {module}
calls = 0
real = {module}.{function}
def die(*arguments):
    global calls
    calls += 1
    if calls == {call}:
        if {after}: real(*arguments)
        os.kill(os.getpid(), 9)
    return real(*arguments)
{module}.{function} = die
from iris_serve.retrain import Parameters, train
train(Path(sys.argv[1]), Parameters(n_estimators=1, promote="always"))
"""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        ("artifact", "write_file", 1),
        ("artifact", "write_file", 2),
        ("registry", "write_file", 1),
        ("registry", "write_file", 2),
        ("registry", "settle", 1),
        ("registry.os", "link", 1),
    ],
)
def test_whoever_dies_at_any_write_leaves_old_or_new(models, module, function, call, after):
    code = DIE.format(module=module, function=function, call=call, after=after)
    code = code.replace("import registry.os", "import registry")
    done = subprocess.run([sys.executable, "-c", code, models], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    registry = Registry(models)
    published = (module, function) == ("registry.os", "link") or (
        module == "registry" and ((function == "settle" and after) or call == 2)
    )
    assert registry.versions() == ([1, 2] if published else [1])
    linked = (module, after) == ("registry.os", True)
    assert current(registry).version == (2 if linked else 1)
    for version in registry.versions():
        assert read_run(registry.path(version)).version == version
    assert train(models, Parameters(n_estimators=1)).version == (3 if published else 2)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "A", "1", "a" * 65, "a\n", "ä", "-x"]
)
def test_a_name_that_could_leave_the_directory_is_refused(tmp_path, registry, name):
    with pytest.raises(ValueError, match="must be 1 to 64"):
        Registry(tmp_path, name)
    with pytest.raises(ValueError, match="must be 1 to 64"):
        promote(registry, 1, "why", alias=name)


def test_leftovers_are_never_listed(registry):
    for name in (".staged-1", "2.bak", "02", "-3", "x"):
        (registry.folder / name).mkdir()
    assert registry.versions() == [1]


def test_a_damaged_promotion_is_an_error_and_not_ignored(registry):
    (registry.folder / "aliases" / "current" / "2.json").write_text('{"version": 1')
    with pytest.raises(ArtifactError, match="is no promotion"):
        current(registry)


def test_a_record_that_is_nested_too_deeply_is_an_error_of_the_artifact(registry):
    deep = b'{"version":' + b"[" * 100_000
    (registry.path(1) / "run.json").write_bytes(deep)
    with pytest.raises(ArtifactError, match="is not a run record"):
        read_run(registry.path(1))
    (registry.folder / "aliases" / "current" / "1.json").write_bytes(deep)
    with pytest.raises(ArtifactError, match="is no promotion"):
        history(registry)


def test_a_promotion_that_was_deleted_does_not_stop_the_next(registry):
    promote(registry, 1, "again")
    (registry.folder / "aliases" / "current" / "1.json").unlink()
    promote(registry, 1, "and again")
    assert [event.why for event in history(registry)] == ["again", "and again"]


def test_a_damaged_run_record_is_named(registry):
    (registry.path(1) / "run.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(ArtifactError, match="is not a run record"):
        read_run(registry.path(1))


def test_what_is_not_there_says_what_to_do(tmp_path, registry):
    with pytest.raises(NoModelError, match="python -m iris_serve train"):
        current(Registry(tmp_path / "empty"))
    with pytest.raises(NoModelError, match=r"promote VERSION"):
        current(Registry(registry.folder.parent, "iris"), alias="canary")


def test_a_promotion_with_a_byte_that_is_no_text_is_an_artifact_error(registry):
    (registry.folder / "aliases" / "current" / "2.json").write_bytes(b'{"why": "\xff"}')
    with pytest.raises(ArtifactError, match="is no promotion"):
        current(registry)


def test_a_run_record_with_a_byte_that_is_no_text_is_an_artifact_error(registry):
    (registry.path(1) / "run.json").write_bytes(b'{"why": "\xff"}')
    with pytest.raises(ArtifactError, match="is not a run record"):
        read_run(registry.path(1))


def test_a_promotion_deleted_in_the_middle_does_not_stop_the_next(registry):
    promote(registry, 1, "second")
    promote(registry, 1, "third")
    (registry.folder / "aliases" / "current" / "2.json").unlink()
    promote(registry, 1, "fourth")
    assert [event.why for event in history(registry)][1:] == ["third", "fourth"]


def test_leftovers_among_the_promotions_are_never_events(registry):
    folder = registry.folder / "aliases" / "current"
    for name in (".0123456789abcdef", "2.json.bak", "02.json", "x.json", "-3.json", "0.json"):
        (folder / name).write_text("junk")
    assert [event.version for event in history(registry)] == [1]


def test_a_promotion_that_comes_second_names_the_one_before_it(registry, monkeypatch):
    train(registry.folder.parent, Parameters(n_estimators=1, promote="never"))
    train(registry.folder.parent, Parameters(n_estimators=1, promote="never"))
    real = write_file

    def overtaken(path, data):
        monkeypatch.setattr("iris_serve.registry.write_file", real)
        promote(registry, 2, "the faster one")
        real(path, data)

    monkeypatch.setattr("iris_serve.registry.write_file", overtaken)
    promote(registry, 3, "the slower one")
    assert [(e.version, e.previous) for e in history(registry)] == [(1, None), (2, 1), (3, 2)]
