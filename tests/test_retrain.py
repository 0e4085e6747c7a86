"""A retraining run is strict about its parameters, reproducible, and all or nothing."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iris_serve.artifact import CARD_FILE, MODEL_FILE, retraining_notebook, sha256
from iris_serve.predictor import open_predictor
from iris_serve.registry import Registry, current, read_run
from iris_serve.retrain import (
    Parameters,
    RetrainError,
    check_parameters,
    parse_value,
    retrain,
    train,
)

SMALL = Parameters(seed=7, n_estimators=10)


def files(path):
    return [(path / name).read_bytes() for name in (MODEL_FILE, CARD_FILE)]


def test_two_runs_make_the_same_bytes_as_each_other_and_as_the_recipe(tmp_path):
    for run in (retrain, retrain, train):
        run(tmp_path, SMALL)
    one, two, three = (files(Registry(tmp_path).path(v)) for v in (1, 2, 3))
    assert one == two == three


def test_another_seed_makes_another_model(tmp_path):
    train(tmp_path, SMALL)
    train(tmp_path, Parameters(seed=8, n_estimators=10))
    one, two = (files(Registry(tmp_path).path(v)) for v in (1, 2))
    assert one[0] != two[0]


@pytest.mark.parametrize("variables", [{"PYTHONHASHSEED": "1"}, {"OMP_NUM_THREADS": "2"}])
def test_the_bytes_do_not_depend_on_the_process(tmp_path, variables):
    code = "import sys; from pathlib import Path; from iris_serve.retrain import *; "
    code += "train(Path(sys.argv[1]), Parameters(seed=7, n_estimators=10))"
    environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"} | variables
    subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True)
    train(tmp_path, SMALL)
    one, two = (files(Registry(tmp_path).path(v)) for v in (1, 2))
    assert one == two


def test_the_executed_notebook_is_kept_with_its_pictures_and_without_paths(tmp_path):
    run = retrain(tmp_path / "models", SMALL)
    path = Registry(tmp_path / "models").path(run.version)
    data = (path / "retrain.ipynb").read_bytes()
    assert read_run(path).notebook == sha256(data)
    assert data.count(b'"image/png"') == 2
    assert b"10 trees" in data
    roots = (tmp_path, Path(sys.prefix), Path.home(), retraining_notebook().parent.parent)
    assert [str(root) for root in roots if str(root).encode() in data] == []


def test_the_notebook_tells_the_verdict_that_the_registry_acts_upon(models):
    run = retrain(models, Parameters(n_estimators=1, max_depth=1))
    told = (Registry(models).path(run.version) / "retrain.ipynb").read_text()
    assert not run.promoted
    assert f"not promoted: {run.why}" in told


def test_a_failed_run_keeps_its_notebook_and_leaves_the_registry_untouched(models):
    registry = Registry(models)
    with pytest.raises(
        RetrainError, match=r"ValueError: test_size 0.001 holds out none"
    ) as failure:
        retrain(models, Parameters(test_size=0.001))
    assert "\n" not in str(failure.value)
    assert (registry.versions(), current(registry).version) == ([1], 1)
    (kept,) = (registry.folder / "failed").iterdir()
    assert "holds out none" in kept.read_text()
    assert sorted(p.name for p in registry.folder.iterdir()) == ["1", "aliases", "failed"]


def papermill(models, out, *parameters):
    command = [sys.executable, "-m", "papermill", retraining_notebook(), out, "-k", "python3"]
    environment = os.environ | {"IRIS_SERVE_MODELS": str(models)}
    return subprocess.run(
        [*command, *parameters], env=environment, capture_output=True, text=True, check=False
    )


def test_bare_papermill_publishes_a_version_and_says_who_has_the_notebook(tmp_path):
    out = tmp_path / "out.ipynb"
    done = papermill(tmp_path / "models", out, "-p", "seed", "7", "-p", "n_estimators", "10")
    assert done.returncode == 0, done.stderr
    registry = Registry(tmp_path / "models")
    assert open_predictor(registry).predict([[6.1, 2.8, 4.7, 1.2]]) == [1]
    assert read_run(registry.path(1)).notebook is None
    assert "stayed with the caller" in read_run(registry.path(1)).made_by
    assert sorted(p.name for p in registry.folder.iterdir()) == ["1", "aliases"]
    train(tmp_path / "models", SMALL)
    assert files(registry.path(1)) == files(registry.path(2))


@pytest.mark.parametrize("wrong", [("seeed", "7"), ("seed", "seven"), ("n_estimators", "0")])
def test_bare_papermill_is_stopped_by_a_wrong_parameter(tmp_path, wrong):
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb", "-p", *wrong)
    assert done.returncode != 0
    assert wrong[0] in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_notebook_in_another_python_stops_at_its_first_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("IRIS_RETRAIN_PYTHON", "some/other/python")
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb")
    assert "the kernel is another Python" in done.stderr
    assert not (tmp_path / "models").exists()


def test_no_kernel_and_no_connection_file_outlives_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    with pytest.raises(RetrainError):
        retrain(tmp_path / "models", Parameters(test_size=0.001))
    assert list(tmp_path.glob("**/*.json")) == []


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("seed", "7.0"),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("seed", "true"),
        ("seed", ""),
        ("seed", "9" * 5000),
        ("n_estimators", "None"),
        ("max_depth", "0"),
        ("test_size", "0"),
        ("test_size", "1"),
        ("test_size", "nan"),
        ("test_size", "inf"),
        ("name", "7"),
        ("name", "../x"),
        ("promote", "maybe"),
        ("cv", "1"),
        ("cv", "-1"),
        ("cv", "101"),
        ("min_score", "1.1"),
        ("min_score", "-0.1"),
        ("min_score", "nan"),
        ("min_score", "high"),
        ("data", "None"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, word):
    with pytest.raises(ValueError, match=name):
        check_parameters({name: parse_value(word, name)})


@settings(max_examples=300, print_blob=True)
@given(name=st.sampled_from(Parameters.__struct_fields__), word=st.text(max_size=30))
def test_any_word_is_a_parameter_or_a_value_error(name, word):
    with contextlib.suppress(ValueError):
        assert isinstance(check_parameters({name: parse_value(word, name)}), Parameters)


def test_a_worse_model_is_kept_and_not_promoted(models):
    run = train(models, Parameters(n_estimators=1, max_depth=1))
    assert (run.version, run.promoted) == (2, False)
    assert "worse than the current version" in read_run(Registry(models).path(2)).why
    assert current(Registry(models)).version == 1


def test_never_does_not_promote_even_the_first(tmp_path):
    assert not train(tmp_path, Parameters(n_estimators=1, promote="never")).promoted


def test_the_notebook_of_the_wheel_is_the_one_of_the_repository(tmp_path):
    root = Path(__file__).parent.parent
    code = "from setuptools import setup; import runpy, sys; sys.argv = ['setup.py', 'build', "
    code += f"'--build-base', {str(tmp_path)!r}]; runpy.run_path('setup.py', run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    (built,) = tmp_path.glob("lib*/iris_serve/retrain.ipynb")
    assert built.read_bytes() == (root / "nbs" / "retrain.ipynb").read_bytes()
    assert json.loads(built.read_text())["nbformat"] == 4
