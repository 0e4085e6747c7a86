"""Artifacts of the second format of the card: read as what they were, and still trusted.

Those in `data/format-2` were made by the last version that wrote them, by `train` with three trees.
"""

import json
import shutil
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pytest
from forests import differing

from iris_serve.data.choices import missing_marks
from iris_serve.data.table import fingerprint
from iris_serve.data.tables import read_table
from iris_serve.forest import Forest
from iris_serve.model.atomic import ArtifactError, sha256
from iris_serve.model.card import CARD_FILE, decode_card, read_card
from iris_serve.model.load import make_predictor, open_model
from iris_serve.model.save import FOREST_FILE, MODEL_FILE
from iris_serve.model.scores import below_baseline, headline
from iris_serve.registry.records import read_records
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.registry.verify import verify

OLD = Path(__file__).parent / "data" / "format-2"
NAMES = ["iris", "pets"]


@pytest.fixture
def old(tmp_path):
    """A copy of the models directory."""
    return shutil.copytree(OLD, tmp_path / "models")


def old_card(name):
    return json.loads((OLD / name / "1" / CARD_FILE).read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_an_old_version_is_verified_opened_and_answers_its_golden_rows(old, name):
    registry = Registry(old, name)
    run, card = read_records(registry.path(1))[:2]
    assert run.card == sha256((registry.path(1) / CARD_FILE).read_bytes())
    assert (card.format, card.metrics.baseline, card.not_frozen) == (3, None, "")
    model, card = open_model(registry.path(1), run.card)
    assert isinstance(model, Forest)
    rows = card.golden.matrix()
    assert differing(model.predict_proba(rows), np.array(card.golden.probabilities)) == 0
    predictor = open_predictor(registry)
    assert predictor.predict(rows.tolist()) == list(card.golden.answers)
    assert make_predictor(model, card, 1, run.card).predict(rows.tolist()) == list(
        card.golden.answers
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_an_old_version_whose_pickle_opens_here(old, name):
    import sklearn

    if sklearn.__version__.split(".")[:2] != ["1", "9"]:
        pytest.skip("the pickles were written under scikit-learn 1.9")
    registry = Registry(old, name)
    assert verify(registry) == []
    card = read_card(registry.path(1))
    estimator = joblib.load(registry.path(1) / MODEL_FILE)
    forest, _ = open_model(registry.path(1))
    rows = card.golden.matrix()
    assert differing(forest.predict_proba(rows), estimator.predict_proba(rows)) == 0


def test_an_old_card_says_what_was_true_then():
    card = read_card(OLD / "iris" / "1")
    assert (card.parameters.task, card.parameters.split) == ("classes", "content")
    assert card.parameters.columns() is None  # the built-in table has its own
    assert (card.data.split, card.columns, card.metrics.log_loss) == ("content", (), None)
    assert card.contract.task == "classes"
    before = old_card("iris")
    for part in ("name", "source", "versions", "files", "contract"):
        assert json.loads(msgspec.json.encode(getattr(card, part))) == before[part]
    assert len(card.metrics.cross_validation.scores) == 3
    assert headline(card.metrics) == "accuracy 0.968 on 31 held-out rows"
    assert not below_baseline(card.metrics)


def test_the_features_of_an_old_table_are_named_so_that_none_is_left_out_now():
    card = read_card(OLD / "pets" / "1")
    assert card.parameters.columns() == ["weight", "height", "legs"]
    params = card.parameters
    table = read_table(
        OLD / "pets" / "1" / "data.csv", params.target, params.columns(), params.choices()
    )
    assert table.contract.names == card.contract.names
    assert (fingerprint(table), len(table)) == (card.data.sha256, card.data.rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mood": "good"}, "unknown field `mood`"),
        ({"format": 1}, "not a card of this version"),
        ({"format": "2"}, "not a card of this version"),
        ({"format": 3}, "not a card of this version"),
        ({"parameters": []}, "not a card of this version"),
        ({"parameters": {"trees": 3}}, "unknown field `trees`"),
        ({"metrics": {}}, "missing required field `rows`"),
        ({"metrics": None}, "not a card of this version"),
        ({"data": {"rows": 3}}, "missing required field `source`"),
        ({"contract": {"features": 3}}, "not a card of this version"),
        ({"golden": None}, "not a card of this version"),
    ],
)
def test_a_strange_old_card_is_refused_with_its_own_message(changes, words):
    with pytest.raises(ArtifactError, match=words):
        decode_card(json.dumps(old_card("pets") | changes).encode(), OLD)


def test_an_old_card_cut_anywhere_is_refused():
    whole = (OLD / "pets" / "1" / CARD_FILE).read_bytes().rstrip()
    for length in range(0, len(whole), 101):
        with pytest.raises(ArtifactError, match=r"card\.json is"):
            decode_card(whole[:length], OLD)


def test_an_old_artifact_with_a_changed_byte_is_refused(old):
    path = old / "pets" / "1"
    data = bytearray((path / FOREST_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (path / FOREST_FILE).write_bytes(data)
    with pytest.raises(ArtifactError, match="is not the file that its card describes"):
        open_model(path)


def test_a_class_that_is_a_mark_of_missing_values_now_remains_a_class():
    card = old_card("pets")
    card["contract"] |= {"classes": ["NA", "dog", "?"], "labels": ["NA", "dog", "?"]}
    params = decode_card(json.dumps(card).encode(), OLD).parameters
    assert params.choices().present == ("NA", "?")
    assert not {"NA", "?"} & set(missing_marks(params.choices()))
