"""What is saved is what is loaded, and nothing is opened before it has been looked at."""

import importlib
import json
import pickle
import re
import shutil
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

import iris_serve
from iris_serve.data.table import iris
from iris_serve.forest.trees import HIGHEST
from iris_serve.model.atomic import ArtifactError, sha256, to_json
from iris_serve.model.card import CARD_FILE, SOURCES, make_golden, neighbour, read_card, versions
from iris_serve.model.load import check_versions, load, open_model
from iris_serve.model.save import FOREST_FILE, MODEL_FILE, save
from iris_serve.registry.records import read_records
from iris_serve.registry.registry import open_predictor


@pytest.fixture
def artifact(registry):
    return registry.path(1)


def rewrite_card(artifact, **changes):
    card = json.loads((artifact / CARD_FILE).read_bytes()) | changes
    (artifact / CARD_FILE).write_text(json.dumps(card))


def test_a_changed_model_file_is_refused_and_nothing_in_it_runs(artifact, trap, tmp_path):
    joblib.dump(trap, artifact / MODEL_FILE)
    with pytest.raises(ArtifactError, match="is not the file that its card describes"):
        load(artifact)
    assert not (tmp_path / "the-trap-has-run").exists()
    joblib.load(artifact / MODEL_FILE)
    assert (tmp_path / "the-trap-has-run").exists()


@pytest.mark.parametrize("place", [0, 1, 1000, -1])
def test_one_changed_byte_is_refused_before_joblib_sees_it(artifact, monkeypatch, place):
    data = bytearray((artifact / MODEL_FILE).read_bytes())
    data[place] ^= 1
    (artifact / MODEL_FILE).write_bytes(data)
    monkeypatch.setattr(joblib, "load", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ArtifactError, match="is not the file"):
        load(artifact)


def test_a_card_cut_anywhere_is_refused(artifact):
    whole = (artifact / CARD_FILE).read_bytes()
    for length in range(0, len(whole.rstrip()), 7):
        (artifact / CARD_FILE).write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"card\.json is"):
            load(artifact)


def test_a_model_cut_anywhere_is_refused(artifact):
    whole = (artifact / MODEL_FILE).read_bytes()
    for length in range(0, len(whole), 1009):
        (artifact / MODEL_FILE).write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="is not the file"):
            load(artifact)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mood": "good"}, "unknown field `mood`"),
        ({"format": 1}, "not a card of this version"),
        ({"name": 7}, "Expected `str`, got `int`"),
        ({"files": {}}, "is not the file that its card describes"),
        ({"contract": None}, "not a card of this version"),
        ({"versions": {}}, "does not say which scikit-learn wrote iris_model.pkl"),
    ],
)
def test_a_strange_card_is_refused_with_its_own_message(artifact, changes, words):
    rewrite_card(artifact, **changes)
    with pytest.raises(ArtifactError, match=re.escape(words)):
        load(artifact)


@pytest.mark.parametrize("name", [CARD_FILE, MODEL_FILE])
def test_a_missing_file_is_named(artifact, name):
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"no readable {name}"):
        load(artifact)


@pytest.mark.parametrize("name", ["scikit-learn", "python"])
def test_another_minor_version_is_refused_with_what_was_what_is_and_what_to_do(artifact, name):
    here = versions()
    rewrite_card(artifact, versions=here | {name: "2.7.18"})
    with pytest.raises(ArtifactError) as refusal:
        load(artifact)
    for words in ("2.7.18", here[name], f"install {name} 2.7.18", "retrain"):
        assert words in str(refusal.value)


def test_a_correction_of_the_same_minor_version_is_accepted(artifact):
    here = versions()
    minor = ".".join(here["scikit-learn"].split(".")[:2])
    card = msgspec.structs.replace(
        read_card(artifact), versions=here | {"scikit-learn": f"{minor}.99"}
    )
    assert check_versions(card) is None


def test_a_card_other_than_the_promoted_one_is_refused(artifact):
    with pytest.raises(ArtifactError, match="is not the card that was promoted"):
        load(artifact, sha256(b"another"))


def test_what_is_loaded_answers_bit_for_bit_like_what_was_saved(artifact, tmp_path):
    estimator, card = load(artifact)
    save(estimator, card, tmp_path / "again")
    again, _ = load(tmp_path / "again")
    X = np.random.default_rng(0).uniform(0, 8, (500, 4))
    assert again.predict_proba(X).tobytes() == estimator.predict_proba(X).tobytes()


def test_an_artifact_is_never_overwritten(artifact, registry):
    estimator, card = load(artifact)
    before = (artifact / MODEL_FILE).stat()
    with pytest.raises(FileExistsError):
        save(estimator, card, artifact)
    assert (artifact / MODEL_FILE).stat() == before


@pytest.mark.parametrize("failing", ["fill", "settle"])
def test_a_failed_save_leaves_nothing_behind(artifact, tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError("the disk is full")

    estimator, card = load(artifact)
    monkeypatch.setattr(f"iris_serve.model.artifact.{failing}", fail)
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with pytest.raises(OSError, match="disk is full"):
        save(estimator, card, shelf / "one")
    assert list(shelf.iterdir()) == []


def test_a_card_holds_no_time_and_no_path(artifact):
    text = to_json(read_card(artifact)).decode()
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text)
    assert "/" not in text


def test_the_model_file_holds_no_class_of_ours(artifact):
    assert b"iris_serve" not in (artifact / MODEL_FILE).read_bytes()
    assert b"__main__" not in (artifact / MODEL_FILE).read_bytes()


def test_the_trap_is_a_good_one(trap, tmp_path):
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "the-trap-has-run").exists()


@pytest.mark.parametrize("place", range(0, 120, 13))
def test_a_card_with_a_byte_that_is_no_text_is_refused(artifact, place):
    data = bytearray((artifact / CARD_FILE).read_bytes())
    data[place] = 0xFF
    (artifact / CARD_FILE).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"card\.json is"):
        load(artifact)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"contract":' + b"[" * 100_000])
def test_a_card_that_is_nested_too_deeply_is_refused(artifact, deep):
    (artifact / CARD_FILE).write_bytes(deep)
    with pytest.raises(ArtifactError, match=r"card\.json is"):
        load(artifact)


@pytest.mark.parametrize("name", ["python", "scikit-learn"])
def test_another_patch_version_is_accepted_and_another_minor_is_not(artifact, name):
    major, minor = versions()[name].split(".")[:2]
    for then, accepted in ((f"{major}.{minor}.99", True), (f"{major}.{int(minor) + 1}.0", False)):
        rewrite_card(artifact, versions=versions() | {name: then})
        if accepted:
            assert load(artifact)[1].versions[name] == then
            continue
        with pytest.raises(ArtifactError, match=f"install {name} {re.escape(then)}"):
            load(artifact)


def test_a_card_exchanged_after_its_promotion_is_not_served(artifact, registry):
    rewrite_card(artifact, name="other")
    with pytest.raises(ArtifactError, match="is not the card that was promoted"):
        open_predictor(registry)


def rows_of(artifact, **changes):
    golden = json.loads((artifact / CARD_FILE).read_bytes())["golden"] | changes
    rewrite_card(artifact, golden=golden)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": []},
        {"rows": [], "answers": [], "probabilities": []},
        {"answers": [0]},
        {"probabilities": [[1.0, 0.0, 0.0]]},
        {"rows": [[1.0, 2.0, 3.0]] * 64},
        {"rows": [[1.0, 2.0, 3.0, 1e39]] * 64},
        {"rows": [[1.0, 2.0, 3.0, 4.0]] * 63 + [[1.0]]},
        {"probabilities": [[1.0, 0.0]] * 64},
    ],
)
def test_golden_rows_that_are_none_are_refused_by_every_way_of_opening(artifact, changes):
    rows_of(artifact, **changes)
    for way in (load, open_model):
        with pytest.raises(ArtifactError, match="golden rows"):
            way(artifact)


def test_a_contract_that_is_not_the_models_is_refused(artifact):
    contract = json.loads((artifact / CARD_FILE).read_bytes())["contract"]
    fifth = [*contract["features"], contract["features"][0] | {"name": "fifth"}]
    for change in ({"features": fifth}, {"classes": ["x", "y", "z"]}, {"classes": [0, 1]}):
        rewrite_card(artifact, contract=contract | change)
        for way in (load, open_model):
            with pytest.raises(ArtifactError, match="other features or answers with other classes"):
                way(artifact)


@pytest.mark.parametrize("name", [CARD_FILE, MODEL_FILE, FOREST_FILE])
def test_a_file_that_is_far_too_large_is_refused_unread(artifact, name):
    with open(artifact / name, "r+b") as file:
        file.truncate(100 << 30)  # a hole, which takes no room
    for way in (load, open_model):
        with pytest.raises(ArtifactError, match=f"no readable {re.escape(name)}: it is larger"):
            way(artifact)


@pytest.mark.parametrize("kind", [bool, float])
def test_classes_that_json_could_not_tell_are_refused_when_saving(kind):
    table = iris()
    estimator = RandomForestClassifier(2).fit(table.X, table.y.astype(kind))
    with pytest.raises(
        TypeError, match=f"whole number or a text, and here it is a {kind.__name__}"
    ):
        make_golden(estimator, table.contract)


def test_what_older_recorded_notebooks_import_is_where_they_look_for_it():
    artifact = importlib.import_module("iris_serve.model.artifact")
    assert {"CARD_FILE", "fill", "make_card", "read_card", "sha256"} <= set(artifact.__all__)
    assert all(hasattr(artifact, name) for name in artifact.__all__)


@pytest.mark.parametrize("cut", [HIGHEST, -HIGHEST])
def test_golden_rows_beside_the_last_numbers_can_be_asked_and_warn_of_nothing(cut):
    assert [abs(neighbour(cut, turn)) <= HIGHEST for turn in range(4)] == [True] * 4


def test_the_source_digest_covers_all_modules_that_write_an_artifact():
    """`rows` only names an error here; what runs a notebook around the training is not part."""
    package = Path(iris_serve.__file__).parent
    for name in SOURCES[: SOURCES.index("artifact") + 1]:
        text = (package / f"{name}.py").read_text(encoding="utf-8")
        used = set(re.findall(r"^\s*from \.(\w+) import", text, re.M))
        assert used - {*SOURCES, "rows"} == set(), name


def test_a_copy_under_a_name_that_is_no_number_is_not_the_version_of_its_record(artifact, tmp_path):
    read_records(artifact)
    with pytest.raises(ArtifactError, match="is the run record of version 1"):
        read_records(shutil.copytree(artifact, tmp_path / "backup"))
