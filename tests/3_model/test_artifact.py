"""An artifact opens as what was saved, and nothing in it is opened before it is verified."""

import ast
import json
import pickle
import re
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import resolve_name
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pandas
import pytest
from forests import dataset, differing, run_program
from random_tables import Wish, random_table
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

import iris_serve
from iris_serve.data.choices import Choices
from iris_serve.data.contract import Contract, Feature
from iris_serve.data.split import split
from iris_serve.data.table import Table, data_frame, iris
from iris_serve.data.tables import read_table
from iris_serve.forest import Forest
from iris_serve.forest.format import decode, encode
from iris_serve.forest.trees import gather_arrays
from iris_serve.model.atomic import ArtifactError, publish_dir, sha256, staging_dir, to_json
from iris_serve.model.card import (
    CARD_FILE,
    SOURCES,
    contract_error,
    library_versions,
    make_card,
    read_card,
)
from iris_serve.model.golden import freeze_or_reason
from iris_serve.model.load import (
    EstimatorPredictor,
    ForestPredictor,
    NumberForestPredictor,
    UnanswerableError,
    check_versions,
    make_predictor,
    open_model,
    read_model_files,
)
from iris_serve.model.save import FOREST_FILE, MODEL_FILE, write_artifact
from iris_serve.model.scores import score
from iris_serve.model.train import Params, fit, make_estimator
from iris_serve.registry.records import read_records
from iris_serve.registry.registry import Registry, open_predictor

PACKAGE = Path(iris_serve.__file__).parent
FLOWER = [6.1, 2.8, 4.7, 1.2]
NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.fixture
def artifact(registry):
    return registry.path(1)


def drop_forest(artifact):
    """Leave nothing but the pickle to open in `artifact`."""
    rewrite_card(artifact, files={MODEL_FILE: read_card(artifact).files[MODEL_FILE]})
    (artifact / FOREST_FILE).unlink()
    return artifact


@pytest.fixture
def pickled(artifact):
    return drop_forest(artifact)


DUMP_AFTER = """
import hashlib, sys, warnings
import joblib
warnings.simplefilter("ignore")
for path in sys.argv[1:]:
    joblib.load(path)
from iris_serve.data.split import split
from iris_serve.data.table import iris
from iris_serve.model.save import dumped
from iris_serve.model.train import Params, fit, make_estimator
train, _ = split(iris())
estimator = fit(make_estimator(Params(n_estimators=3), train.contract), train)
print(hashlib.sha256(dumped(estimator)).hexdigest())
"""


def test_a_model_file_has_the_same_bytes_whatever_its_process_has_opened_before():
    old = Path(__file__).parent / "data" / "format-2"
    files = [str(old / name / "1" / MODEL_FILE) for name in ("iris", "pets")]
    assert run_program(DUMP_AFTER, *files) == run_program(DUMP_AFTER)


@pytest.fixture(params=["frozen", "pickled"])
def either(artifact, request):
    """An artifact that is opened by its forest, and one that is opened by its pickle."""
    return drop_forest(artifact) if request.param == "pickled" else artifact


def rewrite_card(artifact, **changes):
    card = json.loads((artifact / CARD_FILE).read_bytes()) | changes
    (artifact / CARD_FILE).write_text(json.dumps(card))


def save(estimator, card, path):
    """Save an artifact as the registry does; returns its card."""
    with staging_dir(path.parent) as staged:
        card = write_artifact(staged, estimator, card)
        publish_dir(staged, path)
    return card


def card_of(estimator, table):
    return make_card("iris", Params(), table, score(estimator, table, table), estimator)


def named_iris():
    """The iris flowers with names as their classes."""
    table = iris()
    contract = msgspec.structs.replace(table.contract, classes=tuple(NAMES.tolist()))
    return replace(table, y=NAMES[table.y], contract=contract)


# Saving


def test_what_is_opened_answers_bit_for_bit_like_what_was_saved(artifact, tmp_path):
    estimator, card = joblib.load(artifact / MODEL_FILE), read_card(artifact)
    save(estimator, card, tmp_path / "again")
    forest, _ = open_model(tmp_path / "again")
    unpickled, _ = open_model(drop_forest(tmp_path / "again"))
    assert (type(forest), type(unpickled)) == (Forest, RandomForestClassifier)
    X = np.random.default_rng(0).uniform(0, 8, (500, 4))
    for model in (forest, unpickled):
        assert model.predict_proba(X).tobytes() == estimator.predict_proba(X).tobytes()


def test_an_artifact_is_never_overwritten(artifact):
    estimator, card = joblib.load(artifact / MODEL_FILE), read_card(artifact)
    before = {path.name: path.stat() for path in artifact.iterdir()}
    with pytest.raises(OSError, match="not empty"):
        save(estimator, card, artifact)
    with pytest.raises(FileExistsError):
        write_artifact(artifact, estimator, card)
    assert {path.name: path.stat() for path in artifact.iterdir()} == before


@pytest.mark.parametrize("failing", ["first file", "second file", "card", "rename"])
def test_a_failed_save_leaves_nothing_behind(artifact, tmp_path, monkeypatch, failing):
    calls = ["first file", "second file", "card"]

    def fail(*_):
        if failing == "rename" or calls.pop(0) == failing:
            raise OSError("the disk is full")

    estimator, card = joblib.load(artifact / MODEL_FILE), read_card(artifact)
    monkeypatch.setattr("pathlib.Path.rename" if failing == "rename" else "os.fsync", fail)
    folder = tmp_path / "folder"
    with pytest.raises(OSError, match="disk is full"):
        save(estimator, card, folder / "one")
    assert list(folder.iterdir()) == []


def test_a_card_holds_no_time_and_no_path(artifact):
    text = to_json(read_card(artifact)).decode()
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text)
    assert "/" not in text


def test_the_model_file_holds_no_class_of_this_package(artifact):
    assert b"iris_serve" not in (artifact / MODEL_FILE).read_bytes()
    assert b"__main__" not in (artifact / MODEL_FILE).read_bytes()


TRAINING = """
import sys
from pathlib import Path
from iris_serve.training.retrain import Parameters, train

train(Path(sys.argv[1]), Parameters(seed=3, n_estimators=15, max_depth=6))
"""


def test_two_trainings_make_the_same_forest_and_the_same_card(tmp_path):
    made = []
    for seed, threads in (("0", "1"), ("4242", "2")):
        run_program(TRAINING, tmp_path / seed, PYTHONHASHSEED=seed, OMP_NUM_THREADS=threads)
        path = Registry(tmp_path / seed).path(1)
        made.append([(path / name).read_bytes() for name in (FOREST_FILE, CARD_FILE)])
    assert made[0] == made[1]


# Verifying before opening


def test_the_trap_is_a_good_one(trap, tmp_path):
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "the-trap-has-run").exists()


def test_a_changed_model_file_is_refused_and_nothing_in_it_runs(either, trap, tmp_path):
    joblib.dump(trap, either / MODEL_FILE)
    with pytest.raises(ArtifactError, match="is not the file that its card describes"):
        open_model(either)
    assert not (tmp_path / "the-trap-has-run").exists()
    joblib.load(either / MODEL_FILE)
    assert (tmp_path / "the-trap-has-run").exists()


@pytest.mark.parametrize("place", [0, 1, 1000, -1])
def test_one_changed_byte_is_refused_before_joblib_sees_it(either, monkeypatch, place):
    data = bytearray((either / MODEL_FILE).read_bytes())
    data[place] ^= 1
    (either / MODEL_FILE).write_bytes(data)
    monkeypatch.setattr(joblib, "load", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ArtifactError, match="is not the file"):
        open_model(either)


def test_a_card_cut_anywhere_is_refused(either):
    whole = (either / CARD_FILE).read_bytes()
    for length in range(0, len(whole.rstrip()), 7):
        (either / CARD_FILE).write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"card\.json is"):
            open_model(either)


def test_a_model_file_cut_anywhere_is_refused(either):
    whole = (either / MODEL_FILE).read_bytes()
    for length in range(0, len(whole), 1009):
        (either / MODEL_FILE).write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="is not the file"):
            open_model(either)


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
def test_a_strange_card_is_refused_with_its_own_message(pickled, changes, words):
    rewrite_card(pickled, **changes)
    with pytest.raises(ArtifactError, match=re.escape(words)):
        open_model(pickled)


@pytest.mark.parametrize("name", [CARD_FILE, MODEL_FILE])
def test_a_missing_file_is_named(either, name):
    (either / name).unlink()
    card = read_card(either) if name == MODEL_FILE else None
    with pytest.raises(ArtifactError, match=f"no readable {name}"):
        read_model_files(either, card) if card else open_model(either)


def test_a_missing_file_that_has_to_answer_is_named(either):
    name = FOREST_FILE if (either / FOREST_FILE).exists() else MODEL_FILE
    (either / name).unlink()
    with pytest.raises(ArtifactError, match=f"no readable {name}"):
        open_model(either)


def test_a_frozen_forest_answers_without_its_pickle(artifact):
    forest, card = open_model(artifact)
    (artifact / MODEL_FILE).unlink()
    alone, same = open_model(artifact)
    assert same == card
    assert alone.predict_proba([[6.1, 2.8, 4.7, 1.2]]).tolist() == (
        forest.predict_proba([[6.1, 2.8, 4.7, 1.2]]).tolist()
    )


@pytest.mark.parametrize("place", range(0, 120, 13))
def test_a_card_with_a_byte_that_is_not_text_is_refused(either, place):
    data = bytearray((either / CARD_FILE).read_bytes())
    data[place] = 0xFF
    (either / CARD_FILE).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"card\.json is"):
        open_model(either)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"contract":' + b"[" * 100_000])
def test_a_card_that_is_nested_too_deeply_is_refused(either, deep):
    (either / CARD_FILE).write_bytes(deep)
    with pytest.raises(ArtifactError, match=r"card\.json is"):
        open_model(either)


@pytest.mark.parametrize("name", [CARD_FILE, MODEL_FILE, FOREST_FILE])
def test_a_file_that_is_far_too_large_is_refused_unread(artifact, name):
    with open(artifact / name, "r+b") as file:
        file.truncate(100 << 30)  # a hole, which takes no room
    with pytest.raises(ArtifactError, match=f"no readable {re.escape(name)}: it is larger"):
        open_model(artifact)


def test_a_card_other_than_the_promoted_one_is_refused(either):
    with pytest.raises(ArtifactError, match="is not the card that was promoted"):
        open_model(either, sha256(b"another"))


def test_a_card_exchanged_after_its_promotion_is_not_served(artifact, registry):
    rewrite_card(artifact, name="other")
    with pytest.raises(ArtifactError, match="is not the card that was promoted"):
        open_predictor(registry)


def test_a_copy_whose_name_is_not_a_number_is_not_the_version_of_its_record(artifact, tmp_path):
    read_records(artifact)
    with pytest.raises(ArtifactError, match="is the run record of version 1"):
        read_records(shutil.copytree(artifact, tmp_path / "backup"))


# Versions of libraries


@pytest.mark.parametrize("name", ["scikit-learn", "python"])
def test_another_minor_version_is_refused_with_what_was_what_is_and_what_to_do(pickled, name):
    here = library_versions()
    rewrite_card(pickled, versions=here | {name: "2.7.18"})
    with pytest.raises(ArtifactError) as refusal:
        open_model(pickled)
    for words in ("2.7.18", here[name], f"install {name} 2.7.18", "retrain"):
        assert words in str(refusal.value)


def test_a_forest_opens_under_any_version(artifact):
    rewrite_card(
        artifact, versions=library_versions() | {"scikit-learn": "0.24.2", "python": "2.7.18"}
    )
    assert open_model(artifact)[0].predict([FLOWER]).tolist() == [1]


def test_a_correction_of_the_same_minor_version_is_accepted(artifact):
    here = library_versions()
    minor = ".".join(here["scikit-learn"].split(".")[:2])
    card = msgspec.structs.replace(
        read_card(artifact), versions=here | {"scikit-learn": f"{minor}.99"}
    )
    assert check_versions(card) is None


@pytest.mark.parametrize("name", ["python", "scikit-learn"])
def test_another_patch_version_is_accepted_and_another_minor_is_not(pickled, name):
    major, minor = library_versions()[name].split(".")[:2]
    for then, accepted in ((f"{major}.{minor}.99", True), (f"{major}.{int(minor) + 1}.0", False)):
        rewrite_card(pickled, versions=library_versions() | {name: then})
        if accepted:
            assert open_model(pickled)[1].versions[name] == then
            continue
        with pytest.raises(ArtifactError, match=f"install {name} {re.escape(then)}"):
            open_model(pickled)


# Golden rows and contract


def rewrite_golden(artifact, **changes):
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
def test_malformed_golden_rows_are_refused(either, changes):
    rewrite_golden(either, **changes)
    with pytest.raises(ArtifactError, match="golden rows"):
        open_model(either)


def test_a_contract_that_does_not_fit_the_model_is_refused(either):
    contract = json.loads((either / CARD_FILE).read_bytes())["contract"]
    fifth = [*contract["features"], contract["features"][0] | {"name": "fifth"}]
    for change in ({"features": fifth}, {"classes": ["x", "y", "z"]}, {"classes": [0, 1]}):
        rewrite_card(either, contract=contract | change)
        with pytest.raises(ArtifactError, match="other features or other classes than its contr"):
            open_model(either)


# The frozen forest in an artifact


def test_a_forest_file_with_a_changed_byte_is_refused(artifact):
    whole = (artifact / FOREST_FILE).read_bytes()
    for place in [*range(16), *range(16, len(whole), 499), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1
        (artifact / FOREST_FILE).write_bytes(changed)
        with pytest.raises(ArtifactError, match="is not the file that its card describes"):
            open_model(artifact)


def test_a_forest_file_cut_anywhere_or_missing_is_refused(artifact):
    whole = (artifact / FOREST_FILE).read_bytes()
    for length in [*range(16), *range(16, len(whole), 499), len(whole) - 1]:
        (artifact / FOREST_FILE).write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="is not the file that its card describes"):
            open_model(artifact)
    (artifact / FOREST_FILE).unlink()
    with pytest.raises(ArtifactError, match=f"no readable {FOREST_FILE}"):
        open_model(artifact)


def exchange_forest(artifact, data):
    """Put another forest file into `artifact`, and its digest into the card."""
    (artifact / FOREST_FILE).write_bytes(data)
    card = json.loads((artifact / CARD_FILE).read_bytes())
    card["files"][FOREST_FILE] = sha256(data)
    (artifact / CARD_FILE).write_text(json.dumps(card))
    assert read_card(artifact).files[FOREST_FILE] == sha256(data)


def test_a_forest_exchanged_for_itself_is_accepted(artifact):
    exchange_forest(artifact, (artifact / FOREST_FILE).read_bytes())
    assert isinstance(open_model(artifact)[0], Forest)


def test_another_forest_with_a_right_digest_is_refused_by_the_golden_rows(artifact):
    arrays = decode((artifact / FOREST_FILE).read_bytes())
    turned = np.roll(arrays.values, 1, axis=1)
    smaller = np.clip(arrays.values - 1e-12, 0, 1)
    lower = np.nextafter(arrays.cuts, -np.inf)
    others = [
        replace(arrays, values=turned),
        replace(arrays, values=smaller),
        replace(arrays, cuts=lower),
        gather_arrays(RandomForestClassifier(10, random_state=9).fit(*dataset("iris"))),
    ]
    for other in others:
        exchange_forest(artifact, encode(other))
        with pytest.raises(ArtifactError, match=r"the model answers \d+ golden rows wrongly"):
            open_model(artifact)


def test_a_damaged_forest_with_a_right_digest_in_the_card_is_refused(artifact):
    whole = (artifact / FOREST_FILE).read_bytes()
    for data in (b"", whole[:-1], whole[:5000] + b"\xff" + whole[5001:], pickle.dumps([1])):
        exchange_forest(artifact, data)
        with pytest.raises(ArtifactError, match=f"{FOREST_FILE} cannot be used"):
            open_model(artifact)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "make", [SVC, lambda: SVC(kernel="linear"), lambda: LogisticRegression(max_iter=1000)]
)
def test_a_model_of_another_kind_is_opened_as_itself(tmp_path, make, named):
    table = named_iris() if named else iris()
    estimator = make().fit(table.X, table.y)
    card = save(estimator, card_of(estimator, table), tmp_path / "one")
    model, again = open_model(tmp_path / "one")
    assert again == card
    assert (type(model), FOREST_FILE in card.files) == (type(estimator), False)
    assert not (tmp_path / "one" / FOREST_FILE).exists()
    assert model.predict(table.X).tolist() == estimator.predict(table.X).tolist()


def test_a_forest_with_named_classes_is_opened_frozen(tmp_path):
    table = named_iris()
    estimator = ExtraTreesClassifier(9, random_state=0).fit(table.X, table.y)
    save(estimator, card_of(estimator, table), tmp_path / "one")
    model, _ = open_model(tmp_path / "one")
    assert isinstance(model, Forest)
    assert differing(model.predict_proba(table.X), estimator.predict_proba(table.X)) == 0
    assert model.predict(table.X).tolist() == estimator.predict(table.X).tolist()


# Mixed tables, and numbers to predict


def mixed_artifact(tmp_path, task, seed=0):
    """A mixed table, its pipeline, and the directory of its artifact."""
    table = random_table(np.random.default_rng(seed), Wish(task=task, columns=8, missing=0.5))
    estimator = fit(make_estimator(Params(n_estimators=9), table.contract), table)
    save(estimator, card_of(estimator, table), tmp_path / "one")
    return table, estimator, tmp_path / "one"


@pytest.mark.parametrize("task", ["classes", "number"])
def test_a_mixed_table_is_answered_the_same_frozen_unpickled_and_by_joblib_alone(tmp_path, task):
    table, _, path = mixed_artifact(tmp_path, task)
    frozen, card = open_model(path)
    assert (card.format, card.not_frozen, card.contract) == (3, "", table.contract)
    asked = [make_predictor(frozen, card, 1, "")]
    unpickled, card = open_model(drop_forest(path))
    asked.append(make_predictor(unpickled, card, 1, ""))
    kinds = [NumberForestPredictor if task == "number" else ForestPredictor, EstimatorPredictor]
    assert list(map(type, asked)) == kinds
    model, frame = joblib.load(path / MODEL_FILE), data_frame(table.X, table.contract)
    expected, rows = model.predict(frame).tolist(), table.X.tolist()
    for predictor in asked:
        assert predictor.predict(rows) == expected
        assert [predictor.predict([row])[0] for row in rows[:20]] == expected[:20]
        assert {type(answer) for answer in predictor.predict(rows)} <= {float, str}
        assert predictor.has_proba == (task == "classes")
        if predictor.has_proba:
            assert predictor.predict_proba(rows) == model.predict_proba(frame).tolist()


ROWS = """\
age,deck,alone,paid,zone,name_of_town,fare
22,A,True,No,1,NA,7.25
38.5,B,False,Yes,2,"Cork, West",71.3
-,A,,No,5,n/a,8
26,?,True,Yes,1,Ä,53.1
35,C,False,,2,NA,8.05
,B,True,No,5,0,30
54,C,False,Yes,1,Ä,51.8
2,A,True,No,,"Cork, West",21.1
"""


@pytest.mark.parametrize(
    ("target", "choices"),
    [
        ("fare", {}),
        ("deck", {}),
        ("alone", {}),
        ("paid", {"present": ("NA",)}),
        ("fare", {"categories": ("zone",), "missing": ("Ä",)}),
        ("zone", {"task": "classes", "unknown": "missing"}),
    ],
)
def test_a_frame_as_pandas_reads_the_file_gets_the_answers_of_the_predictor(
    tmp_path, target, choices
):
    header, *rows = ROWS.splitlines(keepends=True)
    numbered = "".join(row.replace("8", str(i), 1) for i in range(10) for row in rows)
    (tmp_path / "ship.csv").write_text(header + numbered)
    table = read_table(tmp_path / "ship.csv", target, choices=Choices(**choices))
    estimator = fit(make_estimator(Params(n_estimators=9), table.contract), table)
    save(estimator, card_of(estimator, table), tmp_path / "one")
    model, card = open_model(tmp_path / "one")
    assert isinstance(model, Forest)
    frame = pandas.read_csv(
        tmp_path / "ship.csv", na_values=list(card.contract.marks), keep_default_na=False
    )
    frame = frame[frame[target].notna()]
    assert len(frame) == len(table)
    answers = joblib.load(tmp_path / "one" / MODEL_FILE).predict(frame[table.contract.names])
    predictor = make_predictor(model, card, 1, "")
    assert predictor.predict(table.X.tolist()) == answers.tolist()


def test_the_spread_is_the_deviation_over_the_trees(tmp_path):
    table, estimator, path = mixed_artifact(tmp_path, "number")
    model, card = open_model(path)
    rows = table.X[:30]
    coded = estimator[0].transform(data_frame(rows, table.contract))
    trees = np.array([tree.predict(coded) for tree in estimator[-1].estimators_])
    found = make_predictor(model, card, 1, "").spread(rows.tolist())
    assert found == pytest.approx(trees.std(axis=0).tolist())
    assert not hasattr(EstimatorPredictor, "spread")
    assert not hasattr(ForestPredictor, "spread")


@pytest.mark.parametrize(
    "error", [ValueError, TypeError, ZeroDivisionError, KeyError, AttributeError]
)
def test_an_estimator_that_fails_has_no_answer(error):
    def fail(*_):
        raise error("secret")

    odd = type("Odd", (), {"predict": fail, "predict_proba": fail})()
    predictor = EstimatorPredictor(odd, "odd", 1, iris().contract, "")
    for ask in (predictor.predict, predictor.predict_proba):
        with pytest.raises(UnanswerableError, match=error.__name__) as refusal:
            ask([FLOWER])
        assert "secret" not in str(refusal.value)


class Odd:
    """An estimator that raises `error` for each row that begins with -1."""

    def __init__(self, error):
        self.error, self.asked = error, 0

    def predict(self, rows):
        self.asked += len(rows)
        if (rows[:, 0] == -1).any():
            raise self.error
        return np.ones(len(rows))


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, OwnError, ValueError])
@pytest.mark.parametrize("place", [0, 1, 500, 998])
def test_the_first_row_that_an_estimator_fails_on_is_named_whatever_it_raises(error, place):
    odd, rows = Odd(error("secret")), [FLOWER] * 999
    rows[place] = rows[998] = [-1.0, *FLOWER[1:]]
    words = f"no answer to these rows ({error.__name__}); the first is row {place}, counted from 0"
    predictor = EstimatorPredictor(odd, "odd", 1, iris().contract, "")
    with pytest.raises(UnanswerableError, match=re.escape(words)) as refusal:
        predictor.predict(rows)
    assert "secret" not in str(refusal.value)
    assert odd.asked <= 3 * len(rows)


def test_a_failure_that_is_not_the_rows_fault_stays_what_it_is():
    contract, bad = iris().contract, [-1.0, *FLOWER[1:]]
    for error in (MemoryError(), FileNotFoundError("gone")):
        with pytest.raises(type(error)):
            EstimatorPredictor(Odd(error), "odd", 1, contract, "").predict([bad])
    broken = msgspec.structs.replace(contract, example=(-1.0, *contract.example[1:]))
    with pytest.raises(RuntimeError, match="no library"):
        EstimatorPredictor(Odd(RuntimeError("no library")), "odd", 1, broken, "").predict([bad])

    first = Odd(RuntimeError("for a moment"))

    def once(rows):
        first.predict, error = lambda rows: np.ones(len(rows)), first.error
        raise error

    first.predict = once
    with pytest.raises(RuntimeError, match="for a moment"):
        EstimatorPredictor(first, "odd", 1, contract, "").predict([FLOWER])


@pytest.mark.parametrize("answer", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_no_answer(answer):
    contract = msgspec.structs.replace(iris().contract, classes=(), labels=())
    odd = type("Odd", (), {"predict": lambda self, rows: np.full(len(rows), answer)})()
    with pytest.raises(UnanswerableError, match="no answer to these rows"):
        EstimatorPredictor(odd, "odd", 1, contract, "").predict([FLOWER, FLOWER])


def test_other_categories_another_task_and_more_gaps_than_the_model_knows_are_refused(tmp_path):
    age, deck = Feature("age", "", 0.0, 9.0), Feature("deck", "", 0, 1, "category", ("A", "B"))
    contract = Contract((age, deck), (), (), (1.0, "A"))
    X = np.array([[i % 10, i % 2] for i in range(40)], dtype=float)
    table = Table(X, X.sum(axis=1), contract, "t")
    estimator = fit(make_estimator(Params(n_estimators=3), contract), table)
    save(estimator, card_of(estimator, table), tmp_path / "one")
    forest, _ = open_model(tmp_path / "one")
    swapped = msgspec.structs.replace(deck, values=("B", "A"))
    number = Feature("deck", "", 0, 1)
    gaps = msgspec.structs.replace(age, missing=True)
    for features, words in [
        ((age, swapped), "has other categories than its contract"),
        ((age, number), "has other categories than its contract"),
        ((gaps, deck), "takes no missing values, and its contract allows them"),
        ((age,), "has other features or other classes than its contract"),
    ]:
        other = msgspec.structs.replace(contract, features=features)
        assert words in contract_error(forest, other)
        rewrite_card(tmp_path / "one", contract=msgspec.to_builtins(other))
        with pytest.raises(ArtifactError, match=words):
            open_model(tmp_path / "one")
    classes = msgspec.structs.replace(contract, classes=(1, 2), labels=("1", "2"))
    assert "other classes" in contract_error(forest, classes)
    assert "other classes" in contract_error(estimator, classes)
    assert contract_error(estimator, contract) is None


@pytest.mark.parametrize("task", ["classes", "number"])
def test_what_was_frozen_already_need_not_be_frozen_again(tmp_path, monkeypatch, task):
    table, estimator, path = mixed_artifact(tmp_path, task)
    forest = freeze_or_reason(estimator, table.contract)
    for place in ("card", "golden", "save"):
        monkeypatch.setattr(
            f"iris_serve.model.{place}.freeze_or_reason", lambda *_: pytest.fail("frozen again")
        )
    scores = score(estimator, table, table)
    card = make_card("iris", Params(), table, scores, estimator, forest)
    (tmp_path / "two").mkdir()
    write_artifact(tmp_path / "two", estimator, card, forest)
    for name in (CARD_FILE, MODEL_FILE, FOREST_FILE):
        assert (tmp_path / "two" / name).read_bytes() == (path / name).read_bytes()


def test_the_card_says_why_a_model_is_not_frozen(tmp_path, monkeypatch):
    table = iris()
    monkeypatch.setattr("iris_serve.forest.trees.MAX_NODES", 10)
    estimator = fit(make_estimator(Params(n_estimators=3), table.contract), table)
    card = save(estimator, card_of(estimator, table), tmp_path / "one")
    assert "10 can be frozen" in card.not_frozen
    assert list(card.files) == [MODEL_FILE]
    assert read_card(tmp_path / "one") == card


@pytest.mark.parametrize("rule", ["content", "fair"])
def test_the_card_names_the_rule_of_the_split(rule):
    table = iris()
    train, test = split(table, 0.3, rule)
    params = Params(n_estimators=2, test_size=0.3, split=rule)
    estimator = fit(make_estimator(params, table.contract), train)
    card = make_card("iris", params, table, score(estimator, test, train), estimator)
    assert card.data.split == rule


# The base installation, which has no scikit-learn

EXTRAS = ("sklearn", "scipy", "pandas", "joblib", "matplotlib")
SERVING = f"""
import sys
from iris_serve.wsgi import make_app

reply = make_app().test_client().post("/predict", json={{"features": {FLOWER}}})
assert reply.status_code == 200, reply.data
assert reply.json == {{"prediction": 1}}
print(sorted({set(EXTRAS)} & {{name.partition(".")[0] for name in sys.modules}}))
"""
WITHOUT = f"""
import importlib, sys
from pathlib import Path

sys.modules |= dict.fromkeys({EXTRAS})
modules = sys.argv[3:]
for name in modules:
    importlib.import_module(name)
from iris_serve.model.atomic import ArtifactError
from iris_serve.model.load import open_model

model, card = open_model(Path(sys.argv[1]))
one, many = model.predict([{FLOWER}]), model.predict([{FLOWER}] * 50)
print(type(model).__name__, one.tolist(), many.sum())
try:
    open_model(Path(sys.argv[2]))
except ArtifactError as error:
    print(error)
"""
HINT = (
    "iris_model.pkl needs scikit-learn, which is not installed: pip install 'iris_serve[retrain]'"
)


def modules_of(*parts):
    """The names of all modules in some parts of the package."""
    paths = [path for part in parts for path in sorted((PACKAGE / part).glob("*.py"))]
    return [
        f"iris_serve.{path.parent.name}.{path.stem}".removesuffix(".__init__") for path in paths
    ]


def test_a_serving_process_imports_nothing_that_only_training_needs(trained):
    assert run_program(SERVING, IRIS_SERVE_MODELS=str(trained)).splitlines()[-1] == "[]"


def test_a_frozen_artifact_opens_and_answers_where_the_extras_cannot_be_imported(
    artifact, tmp_path
):
    pickled = drop_forest(shutil.copytree(artifact, tmp_path / "pickled"))
    modules = [*modules_of("forest", "model"), "iris_serve.testing"]
    assert {"iris_serve.forest", "iris_serve.model.load"} < set(modules)
    told = run_program(WITHOUT, artifact, pickled, *modules)
    assert told == f"Forest [1] 50\n{HINT}\n"


def test_libraries_that_are_not_installed_are_only_missed_by_a_pickle(
    artifact, tmp_path, monkeypatch
):
    def only_numpy(name):
        if name in ("scikit-learn", "joblib"):
            raise PackageNotFoundError(name)
        return version(name)

    pickled = drop_forest(shutil.copytree(artifact, tmp_path / "pickled"))
    monkeypatch.setattr("iris_serve.model.card.version", only_numpy)
    assert sorted(library_versions()) == ["numpy", "python"]
    assert open_model(artifact)[0].predict([FLOWER]).tolist() == [1]
    with pytest.raises(ArtifactError, match=re.escape(HINT)):
        open_model(pickled)


# The source digest


def own_imports(name):
    """The modules of this package that the module `name` imports, all spelled as in SOURCES."""
    path = PACKAGE / f"{name}.py"
    package = f"iris_serve.{path.parent.name}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found = [resolve_name("." * node.level + (node.module or ""), package)]
        else:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in found:
            if module.startswith("iris_serve."):
                inside = module.removeprefix("iris_serve.").replace(".", "/")
                yield inside if (PACKAGE / f"{inside}.py").is_file() else f"{inside}/__init__"


def test_the_source_digest_covers_every_module_that_decides_the_bytes_of_a_model():
    """What runs a notebook around the training decides none, so it is not followed."""
    deciding = [name for name in SOURCES if name.startswith(("data/", "forest/", "model/"))]
    assert "forest/__init__" in own_imports("model/card")
    assert {name: set(own_imports(name)) - set(SOURCES) for name in deciding} == {
        name: set() for name in deciding
    }
