"""Models that were fitted elsewhere."""

import dataclasses

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from iris_serve.data.table import iris
from iris_serve.data.tables import read_table
from iris_serve.model.estimator import input_for
from iris_serve.model.load import open_model
from iris_serve.model.save import FOREST_FILE
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import (
    Registry,
    current,
    promote,
)
from iris_serve.registry.verify import verify
from iris_serve.training.import_model import add
from iris_serve.training.model_file import EstimatorError

FLOWERS = iris()
NAMES = np.array(FLOWERS.contract.labels)[FLOWERS.y]
OWN = {
    "forest": RandomForestClassifier(n_estimators=5, random_state=0),
    "line": LogisticRegression(max_iter=1000),
    "vectors": SVC(),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "calibrated": CalibratedClassifierCV(LogisticRegression(max_iter=1000), cv=2),
}


@pytest.fixture
def flowers(tmp_path):
    """Iris as a CSV file with names for classes."""
    path = tmp_path / "flowers.csv"
    FLOWERS.frame().to_csv(path, index=False)
    return read_table(path, "label")


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_your_own_estimator_is_served_as_it_answers(tmp_path, flowers, name, framed):
    rows = FLOWERS.frame().drop(columns="label") if framed else FLOWERS.X
    joblib.dump(OWN[name].fit(rows, NAMES), tmp_path / "own.pkl")
    registry = Registry(tmp_path / "models")
    run = add(registry, tmp_path / "own.pkl", flowers)
    assert (run.version, run.promoted, run.made_by) == (1, True, "add")
    assert "may have seen the held-out rows" in run.why
    model, card = open_model(registry.path(1), current(registry).card)
    asked = FLOWERS.X if name == "forest" else input_for(model, FLOWERS.X, card.contract)
    assert model.predict(asked).tolist() == OWN[name].predict(rows).tolist()
    assert (card.parameters, FOREST_FILE in card.files) == (None, name == "forest")
    assert verify(registry) == []


def test_an_added_version_is_promoted_by_auto_only_if_it_is_the_first(registry, tmp_path):
    joblib.dump(OWN["line"].fit(FLOWERS.X, FLOWERS.y), tmp_path / "own.pkl")
    rules = ("auto", "never", "always")
    made = [add(registry, tmp_path / "own.pkl", FLOWERS, rule) for rule in rules]
    assert [run.promoted for run in made] == [False, False, True]
    assert current(registry).version == 4
    fresh = Registry(tmp_path / "models", "fresh")
    assert not add(fresh, tmp_path / "own.pkl", FLOWERS, "never").promoted


def test_of_two_models_added_at_once_auto_promotes_one_and_the_records_say_which(
    tmp_path, monkeypatch
):
    joblib.dump(OWN["line"].fit(FLOWERS.X, FLOWERS.y), tmp_path / "own.pkl")
    fresh = Registry(tmp_path / "models", "fresh")
    add(fresh, tmp_path / "own.pkl", FLOWERS, "never")

    def overtaken(*names, **wishes):
        promote(fresh, 1, "quicker")
        return promote(*names, **wishes)

    monkeypatch.setattr("iris_serve.training.import_model.promote", overtaken)
    late = add(fresh, tmp_path / "own.pkl", FLOWERS)
    assert (late.version, late.promoted, current(fresh).version) == (2, False, 1)
    assert read_run(fresh.path(2)) == late
    assert "promote it by hand (judged again" in late.why
    assert verify(fresh) == []


class Sum:
    def predict(self, rows):
        return [0 for _ in rows]


X, Y = FLOWERS.X, FLOWERS.y
NOT_SERVED = {
    "a dictionary": ({"a": 1}, "holds a dict, which is no scikit-learn"),
    "another class": (Sum(), "holds a Sum, which is no scikit-learn"),
    "unfitted": (LogisticRegression(), "is not fitted"),
    "unfitted pipeline": (make_pipeline(StandardScaler(), SVC()), "is not fitted"),
    "no classifier": (KMeans(n_clusters=3, n_init=1).fit(X), "is neither a classifier"),
    "fewer features": (LogisticRegression(max_iter=1000).fit(X[:, :3], Y), "fitted on 3 features"),
    "fewer classes": (LogisticRegression(max_iter=1000).fit(X[:100], Y[:100]), "knows the classes"),
    "other classes": (LogisticRegression(max_iter=1000).fit(X, Y + 1), "knows the classes"),
    "other columns": (
        SVC().fit(FLOWERS.frame().iloc[:, :4].add_suffix("_cm"), Y),
        "fitted on sepal_length_cm, .* and the table has no such column; did you mean",
    ),
}


@pytest.mark.parametrize(("estimator", "words"), NOT_SERVED.values(), ids=NOT_SERVED)
def test_what_cannot_be_served_is_not_added(registry, tmp_path, estimator, words):
    joblib.dump(estimator, tmp_path / "own.pkl")
    with pytest.raises(EstimatorError, match=words):
        add(registry, tmp_path / "own.pkl", FLOWERS)
    assert sorted(p.name for p in registry.folder.iterdir()) == ["1", "aliases"]


def test_a_table_that_is_too_small_is_not_blamed_on_the_estimator(registry, tmp_path):
    joblib.dump(LogisticRegression(max_iter=1000).fit(X, Y), tmp_path / "own.pkl")
    few = dataclasses.replace(FLOWERS, X=X[::50], y=Y[::50])
    with pytest.raises(ValueError, match="of the 3 rows: use more rows") as raised:
        add(registry, tmp_path / "own.pkl", few)
    assert not isinstance(raised.value, EstimatorError)
    assert registry.versions() == [1]


def test_a_refusal_names_only_some_of_very_many_columns(registry, tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 500))).add_prefix("column_")
    label = np.arange(60) % 2
    frame.assign(label=label).to_csv(tmp_path / "wide.csv", index=False)
    joblib.dump(LogisticRegression().fit(frame.add_suffix("a"), label), tmp_path / "o.pkl")
    with pytest.raises(EstimatorError, match=r"column_0a, .* and 492 more") as raised:
        add(registry, tmp_path / "o.pkl", read_table(tmp_path / "wide.csv", "label"))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04", b"\x80\x05", b"a,b\n1,2\n"])
def test_a_file_that_is_not_a_pickle_is_not_added(registry, tmp_path, data):
    (tmp_path / "own.pkl").write_bytes(data)
    with pytest.raises(EstimatorError, match=r"own\.pkl cannot be opened by joblib"):
        add(registry, tmp_path / "own.pkl", FLOWERS)


def test_a_missing_file_is_an_os_error(registry, tmp_path):
    with pytest.raises(FileNotFoundError):
        add(registry, tmp_path / "own.pkl", FLOWERS)
