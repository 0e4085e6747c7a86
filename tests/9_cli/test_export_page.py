"""The command export-page writes what it says, and nothing over what is there."""

import json
import re

import joblib
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from iris_serve.__main__ import main
from iris_serve.data.table import iris
from iris_serve.model.page_data import read_page_data
from iris_serve.registry.records import read_records
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.service.export import export_page
from iris_serve.training.import_model import add
from iris_serve.training.retrain import Parameters, train


def export(models, *words):
    return CliRunner().invoke(main, ["export-page", *map(str, words), "--models", str(models)])


def test_the_file_carries_as_many_training_rows_as_is_said(models, tmp_path):
    train(models, Parameters(n_estimators=5, page_rows=7, promote="never"))
    train(models, Parameters(n_estimators=5, page_rows=0, promote="never"))
    for version, told in (("1", "119"), ("2", "7"), ("3", "no")):
        file = tmp_path / f"{version}.html"
        done = export(models, file, "--version", version)
        assert done.exit_code == 0, done.output
        assert re.search(rf"^it carries {told} training rows", done.output, re.M)
        assert f"iris version {version}, " in done.output
        assert file.read_text("utf-8").startswith("<!doctype html>")


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(models, tmp_path):
    file = tmp_path / "mine.html"
    file.write_text("mine")
    done = export(models, file)
    assert (done.exit_code, file.read_text()) == (1, "mine")
    assert "is there already; --force replaces it" in done.output
    assert export(models, file, "--force").exit_code == 0
    assert file.read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.html", "models"]


def test_a_pickled_version_says_why_it_stays_and_is_not_opened(models, tmp_path, monkeypatch):
    joblib.dump(LogisticRegression(max_iter=1000).fit(iris().X, iris().y), tmp_path / "own.pkl")
    run = add(Registry(models), tmp_path / "own.pkl", iris())
    monkeypatch.setattr("joblib.load", lambda *_: pytest.fail("the pickle was opened"))
    done = export(models, tmp_path / "own.html", "--version", run.version)
    assert done.exit_code == 1
    assert "LogisticRegression cannot be frozen" in done.output
    assert "only a frozen forest can answer in a browser" in done.output
    assert not (tmp_path / "own.html").exists()


@pytest.mark.parametrize("name", ["page.json", "forest.safetensors", "card.json"])
def test_a_damaged_version_is_not_exported(models, tmp_path, name):
    file = Registry(models).path(1) / name
    file.write_bytes(file.read_bytes().replace(b"9", b"8", 1))
    done = export(models, tmp_path / "page.html")
    assert done.exit_code == 1
    assert name in done.output
    assert not (tmp_path / "page.html").exists()


def test_what_is_too_large_for_a_page_is_told(models, tmp_path, monkeypatch):
    monkeypatch.setattr("iris_serve.service.export.MAX_EXPORT_BYTES", 10)
    done = export(models, tmp_path / "page.html")
    assert done.exit_code == 1
    assert "version 1 can't be exported: its forest takes" in done.output


def test_no_version_no_directory_and_no_model_are_told(models, tmp_path):
    assert export(models, tmp_path / "a.html", "--version", "9").exit_code == 1
    assert export(tmp_path / "nowhere", tmp_path / "a.html").exit_code == 1
    lost = export(models, tmp_path / "missing" / "a.html")
    assert (lost.exit_code, "missing is no directory" in lost.output) == (1, True)


@pytest.mark.parametrize("known", [True, False])
def test_a_file_without_training_rows_does_not_begin_with_one(models, tmp_path, known):
    run = train(models, Parameters(n_estimators=5, page_rows=0, promote="never"))
    predictor = open_predictor(Registry(models), run.version)
    path = Registry(models).path(run.version)
    run, card, _ = read_records(path, ())
    data = read_page_data(path, card) if known else None
    html = export_page(card, run, predictor, data).decode()
    page = json.loads(re.search(r'id="page-data">(.*?)</script>', html)[1])
    assert page["example"] != list(card.contract.example)
    assert [float(v) for v in re.findall(r' value="([\d.]+)"', html)] == page["example"]
