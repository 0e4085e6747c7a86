"""The retraining notebook imports one module, and that module stays as it is."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import papermill as papermill_package
import pytest
from training_helpers import SMALL, files, papermill

from iris_serve import notebook
from iris_serve.model.atomic import sha256
from iris_serve.model.card import retraining_notebook
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.training.parameters import FIELDS, Parameters
from iris_serve.training.reproduce import outdated_imports, reproduce
from iris_serve.training.retrain import train


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


def test_bare_papermill_takes_a_file_too(tmp_path, wine):
    words = {"data": wine, "target": "kind", "name": "wine", "n_estimators": 5, "cv": 3}
    pairs = [word for name, value in words.items() for word in ("-p", name, str(value))]
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb", *pairs)
    assert done.returncode == 0, done.stderr
    assert reproduce(tmp_path / "models", "wine", 1).identical
    assert str(wine).encode() not in (tmp_path / "models/wine/1/card.json").read_bytes()


def test_a_cell_that_is_executed_again_after_the_end_is_told_so_and_adds_nothing(tmp_path):
    run = notebook.TrainingRun(notebook.Workspace(SMALL, tmp_path))
    report = run.keep(run.fit(run.split()[0]))
    with pytest.raises(RuntimeError, match="has kept a model already; execute the notebook from"):
        run.keep(report.estimator)
    run.finish()
    for again in (run.table, run.split, run.finish, lambda: run.keep(report.estimator)):
        with pytest.raises(RuntimeError, match="this run is finished; execute the notebook from"):
            again()
    assert Registry(tmp_path).versions() == [1]


def test_a_run_that_is_given_up_leaves_nothing(tmp_path):
    workspace = notebook.Workspace(SMALL, tmp_path)
    run = notebook.TrainingRun(workspace)
    run.keep(run.fit(run.split()[0]))
    workspace.leftovers.close()
    assert list((tmp_path / "iris").iterdir()) == []


def code_of_the_notebook():
    cells = json.loads(retraining_notebook().read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_retraining_notebook_imports_nothing_but_the_facade():
    trees = [ast.parse("".join(cell["source"])) for cell in code_of_the_notebook()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    (only,) = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert ast.unparse(only) == "from iris_serve.notebook import begin"
    calls = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert calls == {"begin", "globals", "print"}
    assert outdated_imports(retraining_notebook().read_bytes()) == []


def test_the_retraining_notebook_has_exactly_the_parameters_in_its_tagged_cell():
    tagged = [c for c in code_of_the_notebook() if c["metadata"].get("tags") == ["parameters"]]
    assert len(tagged) == 1
    assert [c for c in code_of_the_notebook() if c["metadata"].get("tags")] == tagged
    found = papermill_package.inspect_notebook(retraining_notebook())
    assert list(found) == list(FIELDS)
    variables = {}
    exec("".join(tagged[0]["source"]), variables)  # noqa: S102 (our own notebook)
    assert {name: variables[name] for name in FIELDS} == {
        name: getattr(Parameters(), name) for name in FIELDS
    }


def test_the_facade_has_every_name_that_a_recorded_notebook_may_use():
    assert str(inspect.signature(notebook.begin, eval_str=True)).startswith("(variables: ")
    verbs = {
        name: [*inspect.signature(getattr(notebook.TrainingRun, name)).parameters][1:]
        for name in ("table", "split", "fit", "keep", "finish")
    }
    assert verbs == {
        "table": [],
        "split": [],
        "fit": ["train", "estimator"],
        "keep": ["estimator"],
        "finish": [],
    }
    functions = {
        name: [*inspect.signature(getattr(notebook, name)).parameters]
        for name in ("table", "split", "keep")
    }
    assert functions == {"table": [], "split": [], "keep": ["estimator"]}
    shows = "summary decision data features classes importances scores per_class folds confusion "
    shows += "mistakes files comparisons flips columns targets forest breakdown residuals errors"
    for name in shows.split():
        assert len(inspect.signature(getattr(notebook.Report, name)).parameters) == 1, name


def test_what_a_notebook_shows_is_made_of_the_model_that_is_kept(tmp_path):
    run = notebook.TrainingRun(notebook.Workspace(SMALL, tmp_path))
    table, (train_rows, test_rows) = run.table(), run.split()
    report = run.keep(run.fit(train_rows))
    assert run.table() is table
    assert report.classes().sum().tolist() == [len(train_rows), len(test_rows)]
    assert report.per_class()["held out"].sum() == len(test_rows)
    assert report.features().shape == (4, 3)
    for row in report.mistakes().index:
        asked, truth = table.X[[row - 1]], table.y[row - 1]
        assert report.estimator.predict(asked)[0] != truth
        assert (asked == test_rows.X).all(axis=1).any()
    assert report.importances().data.startswith(b"\x89PNG")
    assert report.confusion().data.startswith(b"\x89PNG")
    assert len(report.comparisons()) == len(report.flips()) == 0
    run.finish()
    digests = [line.split()[-1] for line in report.files().splitlines()]
    kept = [Registry(tmp_path).path(1) / line.split()[0] for line in report.files().splitlines()]
    assert digests == [sha256(path.read_bytes()) for path in kept]


def test_a_recorded_notebook_needs_nothing_but_the_facade(cellar):
    assert outdated_imports((Registry(cellar, "wine").path(1) / "retrain.ipynb").read_bytes()) == []


def test_a_notebook_in_another_python_stops_at_its_first_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("IRIS_RETRAIN_PYTHON", "some/other/python")
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb")
    assert "the kernel is another Python" in done.stderr
    assert not (tmp_path / "models").exists()


def test_the_notebook_of_the_wheel_is_the_one_of_the_repository(tmp_path):
    root = Path(__file__).parents[2]
    code = "from setuptools import setup; import runpy, sys; sys.argv = ['setup.py', 'build', "
    code += f"'--build-base', {str(tmp_path)!r}]; runpy.run_path('setup.py', run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    (built,) = tmp_path.glob("lib*/iris_serve/retrain.ipynb")
    assert built.read_bytes() == (root / "nbs" / "retrain.ipynb").read_bytes()
    assert json.loads(built.read_text())["nbformat"] == 4
