"""From a table in a file to an answer over HTTP, by the commands that a user types."""

import csv
import json
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from iris_serve.cli.settings import Settings
from iris_serve.model.card import read_card
from iris_serve.model.save import MODEL_FILE
from iris_serve.registry.registry import Registry, current, history
from iris_serve.registry.verify import verify
from iris_serve.wsgi import make_app

LOADERS = {"wine": load_wine, "cancer": load_breast_cancer}


def command(models, *words):
    return [sys.executable, "-m", "iris_serve", *map(str, words), "--models", str(models)]


def run(models, *words):
    program = command(models, *words)
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.fixture(params=["cancer", pytest.param("wine", marks=pytest.mark.slow)])
def table(request, tmp_path):
    """A CSV file with the names of the classes in the column `kind`, its bunch, and the names."""
    bunch = LOADERS[request.param]()
    path = tmp_path / f"{request.param}.csv"
    names = np.array([f"{request.param} {name}" for name in bunch.target_names])[bunch.target]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*bunch.feature_names, "kind"])
        writer.writerows([*row, name] for row, name in zip(bunch.data.tolist(), names, strict=True))
    return path, bunch, names


def test_a_table_in_a_file_becomes_a_served_model_that_answers_as_scikit_learn_does(
    table, tmp_path
):
    path, bunch, names = table
    models = tmp_path / "models"
    for seed in (1, 2):
        words = ["-p", "data", path, "-p", "target", "kind", "-p", "seed", seed, "-p", "cv", 3]
        done = run(models, "retrain", "--name", path.stem, *words)
        assert done.returncode == 0, done.stderr
    registry = Registry(models, path.stem)
    assert (registry.versions(), verify(registry)) == ([1, 2], [])
    version = current(registry).version
    kept = registry.path(version)
    estimator, card = joblib.load(kept / MODEL_FILE), read_card(kept)
    assert card.metrics.cross_validation is not None
    client = make_app(Settings(models=str(models), name=path.stem)).test_client()
    status = client.get("/").json
    assert status["features"] == list(bunch.feature_names)
    assert set(status["labels"]) == set(names)
    answers = []
    for row in bunch.data.tolist():
        reply = client.post("/predict", data=json.dumps({"features": row}))
        assert reply.headers["X-Model-Version"] == str(version)
        answers.append(reply.json["prediction"])
    assert answers == estimator.predict(bunch.data).tolist()
    version_page = client.get(f"/models/{path.stem}/versions/{version}").json
    assert str(tmp_path) not in json.dumps(version_page)
    page = client.get(f"/models/{path.stem}/versions/{version}/notebook")
    assert page.status_code == 200
    assert str(tmp_path) not in page.text
    wrong = client.post("/predict", data=json.dumps({"features": bunch.data[0].tolist()[:-1]}))
    assert wrong.status_code == 400
    assert f"must hold {len(bunch.feature_names)} numbers" in wrong.json["detail"]


def test_a_text_among_numbers_is_refused_with_row_column_and_value_and_a_gap_is_not(tmp_path):
    path = tmp_path / "holes.csv"
    lines = ["width,height,kind", *(f"{n}.5,{n * 2},{'ab'[n % 2]}" for n in range(40))]
    lines[7], lines[9] = "6.5,,a", "8.5,tall,b"
    path.write_text("\n".join(lines))
    done = run(tmp_path / "models", "retrain", "-p", "data", path, "-p", "target", "kind")
    assert done.returncode in (1, 2)
    for words in ("height", '"tall"', "\n9 "):
        assert words in done.stderr
    assert "\n7 " not in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert Registry(tmp_path / "models").versions() == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_retrain_and_promote_at_once_make_one_consistent_history(count, tmp_path):
    models = tmp_path / "models"
    words = ["retrain", "-p", "n_estimators", 5, "-p", "promote", "always", "-p", "seed"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command(models, *words, seed), **pipes) for seed in range(count)]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * count, errors
    registry = Registry(models)
    assert registry.versions() == list(range(1, count + 1))
    past = history(registry)
    assert sorted(event.version for event in past) == registry.versions()
    assert [event.previous for event in past] == [None, *(event.version for event in past[:-1])]
    assert verify(registry) == []
    assert sorted(p.name for p in registry.folder.iterdir() if p.name.startswith(".")) == []
