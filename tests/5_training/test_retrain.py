"""A retraining run is reproducible, and all or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from training_helpers import SMALL, files, of_wine

import iris_serve.training.parameters
import iris_serve.training.retrain
from iris_serve.data.files import TableError
from iris_serve.model.atomic import sha256
from iris_serve.model.card import read_card, retraining_notebook
from iris_serve.model.save import MODEL_FILE
from iris_serve.registry.records import PAGE_FILE, one_line, read_run
from iris_serve.registry.registry import Registry, current, history, open_predictor, promote
from iris_serve.registry.verify import verify
from iris_serve.training.parameters import Parameters
from iris_serve.training.reproduce import reproduce
from iris_serve.training.retrain import retrain, train
from iris_serve.training.runner import RetrainError


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
    code = "import sys; from pathlib import Path; "
    code += "from iris_serve.training.parameters import Parameters; "
    code += "from iris_serve.training.retrain import train; "
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


def test_the_last_sentence_of_the_notebook_and_the_page_is_the_verdict_of_the_record(models):
    run = retrain(models, Parameters(n_estimators=10))
    path = Registry(models).path(run.version)
    cells = json.loads((path / "retrain.ipynb").read_text())["cells"]
    assert f"the verdict was **promoted**: {run.why}." in cells[-1]["source"]
    assert run.why in (path / PAGE_FILE).read_text()


def test_a_worse_model_is_kept_and_not_promoted(models):
    run = train(models, Parameters(n_estimators=1, max_depth=1))
    assert (run.version, run.promoted) == (2, False)
    assert "worse than the current version" in read_run(Registry(models).path(2)).why
    assert current(Registry(models)).version == 1


def test_never_does_not_promote_even_the_first(tmp_path):
    assert not train(tmp_path, Parameters(n_estimators=1, promote="never")).promoted


def test_a_run_that_was_overtaken_is_judged_again_and_its_record_says_so(models, monkeypatch):
    registry, genuine = Registry(models), promote

    def overtaken(registry, version, why, **wishes):
        if current(registry).version == 1:
            monkeypatch.undo()
            train(models, Parameters(n_estimators=20, promote="always"))
        return genuine(registry, version, why, **wishes)

    monkeypatch.setattr(iris_serve.training.retrain, "promote", overtaken)
    run = retrain(models, Parameters(n_estimators=10))
    assert read_run(registry.path(2)).why == run.why
    assert run.verdict["current"] == 3
    assert "judged again" in run.why
    assert "the executed notebook shows the earlier verdict" in run.why
    last = json.loads((registry.path(2) / "retrain.ipynb").read_text())["cells"][-1]["source"]
    assert "the run record has a later verdict" in last
    assert run.why not in last
    assert history(registry)[-1].why == one_line(run.why)
    assert [event.version for event in history(registry)] == [1, 3, 2]
    assert verify(registry) == []


def test_wine_from_a_file_becomes_a_model_of_its_own(cellar, wine):
    registry = Registry(cellar, "wine")
    predictor, card = open_predictor(registry), read_card(registry.path(1))
    estimator = joblib.load(registry.path(1) / MODEL_FILE)
    assert predictor.contract.classes == ("class_0", "class_1", "class_2")
    assert predictor.contract.names[:2] == ["alcohol", "malic_acid"]
    rows = np.loadtxt(wine, delimiter=",", skiprows=1, usecols=range(13))
    assert predictor.predict(rows.tolist()) == estimator.predict(rows).tolist()
    assert len(card.metrics.cross_validation.scores) == 3


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_the_copy_in_the_version_is_the_file(tmp_path, wine, ending):
    import pandas as pd

    frame, file = pd.read_csv(wine), tmp_path / f"other.{ending}"
    frame.to_parquet(file) if ending == "parquet" else frame.to_csv(file, index=False)
    train(tmp_path / "models", of_wine(file))
    folder = Registry(tmp_path / "models", "wine").path(1)
    assert (folder / f"data.{ending}").read_bytes() == file.read_bytes()
    assert read_card(folder).data.source == f"other.{ending}"
    assert reproduce(tmp_path / "models", "wine", 1).identical


def test_a_version_says_the_name_of_its_file_and_never_its_place(cellar, wine):
    folder = Registry(cellar, "wine").path(1)
    assert read_card(folder).parameters.data == "wine.csv"
    places = (wine.parent, cellar, Path(sys.prefix), Path.home(), Path.cwd())
    for file in folder.iterdir():
        assert [str(p) for p in places if str(p).encode() in file.read_bytes()] == [], file.name


def test_notebook_and_recipe_make_the_same_of_a_file(wines, wine):
    train(wines, of_wine(wine, cv=3))
    one, two = (files(Registry(wines, "wine").path(v)) for v in (1, 2))
    assert one == two


def test_a_bad_table_is_refused_before_papermill_starts(tmp_path, wine, monkeypatch):
    lines = wine.read_text().splitlines()
    lines[3] = "cheap" + lines[3][lines[3].index(",") :]
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(iris_serve.training.retrain, "run_notebook", None)
    for run in (retrain, train):
        with pytest.raises(TableError, match=r"3 +\| alcohol +\| \"cheap\""):
            run(tmp_path / "models", of_wine("bad.csv"))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cv": 60}, r"^cv 60 is too much for this table: class 'class_2' has 3\d rows"),
        (
            {"test_size": 0.00001, "split": "content"},
            r"^test_size 1e-05 holds out none of the 178 rows",
        ),
        (
            {"test_size": 0.9999, "split": "content"},
            r"^test_size 0.9999 leaves no row of class 'class_0'",
        ),
    ],
)
def test_what_the_table_cannot_bear_is_refused_by_name_before_a_kernel(
    tmp_path, wine, monkeypatch, asked, words
):
    monkeypatch.setattr(iris_serve.training.retrain, "run_notebook", None)
    for run in (retrain, train):
        with pytest.raises(ValueError, match=words):
            run(tmp_path / "models", of_wine(wine, **asked))
    assert not (tmp_path / "models").exists()


def test_what_is_learned_is_what_was_checked_even_if_the_file_changes_during_the_run(
    tmp_path, wine, monkeypatch
):
    file = tmp_path / "wine.csv"
    file.write_bytes(wine.read_bytes())
    genuine = iris_serve.training.retrain.run_notebook

    def changed_meanwhile(*given):
        file.write_text("nothing")
        return genuine(*given)

    monkeypatch.setattr(iris_serve.training.retrain, "run_notebook", changed_meanwhile)
    run = retrain(tmp_path / "models", of_wine(file))
    path = Registry(tmp_path / "models", "wine").path(run.version)
    assert (path / "data.csv").read_bytes() == wine.read_bytes()
    train(tmp_path / "other", of_wine(wine))
    assert files(path) == files(Registry(tmp_path / "other", "wine").path(1))


def test_a_large_file_that_changes_during_the_run_ends_it(tmp_path, wine, monkeypatch):
    monkeypatch.setattr(iris_serve.training.retrain, "MAX_KEPT_DATA", 10)
    file = tmp_path / "wine.csv"
    file.write_bytes(wine.read_bytes())
    genuine = iris_serve.training.retrain.run_notebook

    def changed_meanwhile(*given):
        file.write_text(wine.read_text().replace("class_0", "class_1", 1))
        return genuine(*given)

    monkeypatch.setattr(iris_serve.training.retrain, "run_notebook", changed_meanwhile)
    with pytest.raises(RetrainError, match=r"^wine\.csv was changed during the run$"):
        retrain(tmp_path / "models", of_wine(file))
    assert Registry(tmp_path / "models", "wine").versions() == []


@pytest.mark.parametrize("run", [retrain, train])
def test_a_file_that_changes_before_it_is_copied_ends_the_run(tmp_path, wine, monkeypatch, run):
    file = tmp_path / "wine.csv"
    file.write_bytes(wine.read_bytes())
    genuine = iris_serve.training.retrain.validate_run

    def then_changed(parameters):
        table = genuine(parameters)
        file.write_bytes(wine.read_bytes() + b"\n")
        return table

    monkeypatch.setattr(iris_serve.training.retrain, "validate_run", then_changed)
    with pytest.raises(RetrainError, match=r"^wine\.csv was changed while it was read$"):
        run(tmp_path / "models", of_wine(file))
    assert list((tmp_path / "models" / "wine").iterdir()) == []


@pytest.mark.parametrize("run", [retrain, train])
def test_the_rows_of_the_data_file_are_read_once_by_this_process(tmp_path, wine, monkeypatch, run):
    seen, genuine = [], iris_serve.training.parameters.load_table

    def counted(*given):
        seen.append(Path(given[0]))
        return genuine(*given)

    monkeypatch.setattr(iris_serve.training.parameters, "load_table", counted)
    run(tmp_path / "models", of_wine(wine))
    assert seen == [wine]


def test_a_model_that_could_not_be_frozen_says_why_before_it_is_promoted(tmp_path, monkeypatch):
    why = "it has more leaves than can be kept; try max_depth 12"
    monkeypatch.setattr(iris_serve.training.retrain, "freeze_or_reason", lambda *given: why)
    told, comparing = [], "comparing with the current version"
    run = train(tmp_path, SMALL, told.append)
    (said,) = [line for line in told if why in line]
    assert comparing not in told  # there is none yet
    assert run.promoted
    train(tmp_path, SMALL, told.append)
    assert told.index(said) < told.index(comparing)
    assert read_card(Registry(tmp_path).path(1)).not_frozen == why
