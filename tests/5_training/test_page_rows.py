"""What a page may show of the training rows is written with a version, and told if it changes."""

import joblib
import pytest
from sklearn.linear_model import LogisticRegression
from training_helpers import SMALL, mixed_file, papermill

from iris_serve.data.table import iris
from iris_serve.model.atomic import ArtifactError
from iris_serve.model.card import read_card
from iris_serve.model.load import open_model
from iris_serve.model.page_data import PAGE_DATA_FILE, read_page_data
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.registry.verify import verify
from iris_serve.training.import_model import add
from iris_serve.training.parameters import Parameters, check_parameters, parse_value
from iris_serve.training.reproduce import reproduce
from iris_serve.training.retrain import train
from iris_serve.training.samples import write_sample


def page_of(models, name="iris", version=1):
    path = Registry(models, name).path(version)
    return read_page_data(path, read_card(path))


def pets(folder, **more):
    file = mixed_file(folder / "pets.csv")
    return Parameters(name="pets", data=str(file), target="kind", n_estimators=3, **more)


def smallest(page):
    """The smallest count in `page` that stands for rows to train."""
    counts = [count for feature in page.features for count in feature.counts or ()]
    gaps = [feature.gaps for feature in page.features]
    return min(count for count in counts + gaps if count)


def test_by_default_no_row_of_your_own_table_is_kept_and_no_count_is_below_five(tmp_path):
    train(tmp_path, pets(tmp_path))
    page = page_of(tmp_path, "pets")
    assert (page.rows, page.targets) == ((), ())
    assert smallest(page) >= 5
    assert [preset.title for preset in page.presets] == ["cat", "dog"]
    assert page.train_rows + page.test_rows == 300
    assert sum(map(sum, page.confusion)) == page.test_rows


def test_rows_are_kept_if_they_were_asked_for_and_are_training_rows_only(tmp_path):
    train(tmp_path, pets(tmp_path, page_rows=5000))
    page = page_of(tmp_path, "pets")
    assert len(page.rows) == len(page.targets) == page.train_rows < 300
    assert {preset.row for preset in page.presets} <= set(page.rows)
    assert {type(value) for row in page.rows for value in row} == {str, float, bool, type(None)}


@pytest.mark.parametrize("name", ["penguins", "wine"])
def test_rows_of_a_public_table_are_shown_unless_that_is_unwanted(tmp_path, name):
    target = write_sample(name, tmp_path / "any.csv")
    chosen = {"data": str(tmp_path / "any.csv"), "target": target, "n_estimators": 2}
    train(tmp_path, Parameters(**chosen))
    train(tmp_path, Parameters(**chosen, page_rows=0))
    assert len(page_of(tmp_path).rows) == page_of(tmp_path).train_rows
    assert page_of(tmp_path, version=2).rows == ()


@pytest.mark.parametrize("task", ["classes", "number"])
def test_the_same_run_gives_the_same_bytes_and_can_be_made_again(tmp_path, task):
    file = mixed_file(tmp_path / "pets.csv", number=task == "number")
    told = Parameters(data=str(file), target="kind", n_estimators=3, page_rows=50)
    for _ in range(2):
        train(tmp_path / "models", told)
    registry = Registry(tmp_path / "models")
    first, second = ((registry.path(v) / PAGE_DATA_FILE).read_bytes() for v in (1, 2))
    assert first == second
    assert reproduce(tmp_path / "models", "iris", 1).identical
    page = page_of(tmp_path / "models")
    assert (page.residuals is None, page.confusion is None) == (task == "classes", task == "number")


def test_a_version_without_page_data_answers_verifies_and_can_be_made_again(old_version):
    registry = old_version
    assert verify(registry) == []
    assert read_page_data(registry.path(1), read_card(registry.path(1))) is None
    assert open_predictor(registry).predict([[6.1, 2.8, 4.7, 1.2]]) == [1]
    assert reproduce(registry.folder.parent, registry.name, 1).identical


@pytest.fixture
def old_version(tmp_path, monkeypatch):
    """A registry with a version that was made before there were page data."""
    import iris_serve.training.retrain as module

    write = module.write_artifact
    monkeypatch.setattr(module, "write_artifact", lambda *given, page: write(*given))
    train(tmp_path, SMALL)
    monkeypatch.undo()
    return Registry(tmp_path)


@pytest.mark.parametrize("damage", ["changed", "missing", "another"])
def test_damaged_page_data_are_told_and_keep_no_model_from_answering(registry, damage):
    file = registry.path(1) / PAGE_DATA_FILE
    if damage == "changed":
        file.write_bytes(file.read_bytes().replace(b'"train_rows":119', b'"train_rows":118'))
    else:
        file.unlink()
    if damage == "another":
        file.symlink_to(registry.path(1) / "card.json")
    (issue,) = verify(registry)
    assert PAGE_DATA_FILE in issue
    with pytest.raises(ArtifactError, match=PAGE_DATA_FILE):
        read_page_data(registry.path(1), read_card(registry.path(1)))
    assert open_model(registry.path(1))[0].predict([[6.1, 2.8, 4.7, 1.2]]).tolist() == [1]


def test_an_added_model_has_page_data_and_rows_if_asked_for(tmp_path):
    table, registry = iris(), Registry(tmp_path / "models", "own")
    joblib.dump(LogisticRegression(max_iter=1000).fit(table.X, table.y), tmp_path / "own.pkl")
    add(registry, tmp_path / "own.pkl", table, page_rows=7)
    page = page_of(tmp_path / "models", "own")
    assert (len(page.rows), page.features[0].importance) == (7, None)
    assert verify(registry) == []


def test_papermill_takes_the_parameter(tmp_path):
    words = ["-p", "page_rows", "3", "-p", "n_estimators", "2"]
    assert papermill(tmp_path / "models", tmp_path / "out.ipynb", *words).returncode == 0
    assert len(page_of(tmp_path / "models").rows) == 3


def test_a_wrong_number_of_rows_is_refused():
    assert parse_value("200", "page_rows") == 200
    for wrong in ("many", -1, 5001, 0.5):
        with pytest.raises(ValueError, match="page_rows"):
            check_parameters({"page_rows": wrong})
