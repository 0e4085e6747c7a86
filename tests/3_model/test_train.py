"""Parameters, and the estimators that they make: what is fitted on, and what a pickle needs."""

import hashlib
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from random_tables import Wish, random_table

from iris_serve.data.contract import Contract, Feature
from iris_serve.data.split import split
from iris_serve.data.table import Table, data_frame, estimator_input, iris
from iris_serve.model.save import dumped
from iris_serve.model.train import (
    Params,
    code_list,
    fit,
    make_encoder,
    make_estimator,
    names_text,
    split_names,
    split_rule,
)

# Parameters


@given(st.lists(st.text("ab ,\"'\n;é").map(str.strip).filter(bool), min_size=1))
def test_names_survive_being_written_as_one_text(names):
    assert split_names(names_text(names)) == tuple(names)


def test_names_need_no_quotes_unless_they_have_a_comma():
    assert Params(features="a, b c ,d").columns() == ["a", "b c", "d"]
    assert Params(drop='"a, b",c').choices().drop == ("a, b", "c")
    assert Params().choices() == Params(drop=None).choices()


def test_marks_are_added_and_taken_away():
    choices = Params(missing="?, not NA, nothing, not None").choices()
    assert (choices.missing, choices.present) == (("?", "nothing"), ("NA", "None"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_samples_leaf": 0},
        {"max_features": 0},
        {"max_features": 0.0},
        {"max_features": 1.5},
        {"max_features": "all"},
        {"class_weight": "heavy"},
        {"model": "boosting"},
        {"task": "regression"},
        {"rare": "merge"},
        {"unknown": "guess"},
        {"split": "random"},
    ],
)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Params)


@pytest.mark.parametrize("value", [1, 1.0, 0.3, 7, "sqrt", "log2", None])
def test_max_features_stays_a_count_or_a_share_in_json(value):
    params = Params(max_features=value)
    again = msgspec.json.decode(msgspec.json.encode(params), type=Params)
    assert (again.max_features, type(again.max_features)) == (value, type(value))


def test_the_rule_of_the_split_is_the_one_that_was_asked_for():
    assert split_rule(None, iris()) == split_rule(Params(), iris()) == "content"
    assert split_rule(Params(split="fair"), iris()) == "fair"
    same = replace(iris(), X=np.repeat(iris().X[[0, 60, 120]], 50, axis=0))
    assert split_rule(Params(), same) == "fair"
    assert split_rule(Params(split="content"), same) == "content"


# Estimators


def test_the_model_file_of_iris_has_the_bytes_that_it_always_had():
    """Under the libraries of the lock; an older scikit-learn writes other bytes."""
    import sklearn

    train, _ = split(iris())
    estimator = fit(make_estimator(Params(), train.contract), train)
    assert dumped(fit(make_estimator(Params(), train.contract, n_jobs=2), train)) == dumped(
        estimator
    )
    if sklearn.__version__ == "1.9.1" and joblib.__version__ == "1.6.0":
        digest = hashlib.sha256(dumped(estimator)).hexdigest()
        assert digest.startswith("3fb2f4cc2e20fa66")


@pytest.mark.parametrize("task", ["classes", "number"])
@pytest.mark.parametrize("model", ["random_forest", "extra_trees"])
def test_each_parameter_reaches_the_forest(task, model):
    weight = {"class_weight": "balanced"} if task == "classes" else {}
    params = Params(
        model=model,
        n_estimators=7,
        max_depth=4,
        min_samples_leaf=3,
        max_features=0.5,
        seed=9,
        **weight,
    )
    numbers = iris().contract if task == "classes" else changed(iris().contract, classes=())
    forest = make_estimator(params, numbers)
    wanted = {"random_forest": "RandomForest", "extra_trees": "ExtraTrees"}[model]
    assert type(forest).__name__ == wanted + {"classes": "Classifier", "number": "Regressor"}[task]
    found = forest.get_params()
    expected = {"n_estimators": 7, "max_depth": 4, "min_samples_leaf": 3, "max_features": 0.5}
    assert {name: found[name] for name in expected} == expected
    assert (found["random_state"], found["n_jobs"]) == (9, 1)
    assert found.get("class_weight") == weight.get("class_weight")


def test_the_default_of_max_features_is_that_of_scikit_learn_for_the_kind():
    numbers = changed(iris().contract, classes=())
    assert make_estimator(Params(), iris().contract).max_features == "sqrt"
    assert make_estimator(Params(), numbers).max_features == 1.0


def test_class_weights_for_a_number_are_refused():
    numbers = changed(iris().contract, classes=())
    with pytest.raises(ValueError, match="class_weight is for classes"):
        make_estimator(Params(class_weight="balanced_subsample"), numbers)


@pytest.mark.parametrize("classes", [(0, 1), ("n", "y"), (False, True)])
def test_classes_are_answered_as_the_table_has_them(classes):
    table = random_table(np.random.default_rng(0), Wish(classes=classes))
    estimator = fit(make_estimator(Params(n_estimators=3), table.contract), table)
    answers = estimator.predict(estimator_input(table.X, table.contract)).tolist()
    assert estimator.classes_.tolist() == list(classes)
    assert {type(answer) for answer in answers} == {type(classes[0])}


@pytest.mark.parametrize("task", ["classes", "number"])
def test_after_the_fit_no_part_has_more_than_one_thread(task):
    table = random_table(np.random.default_rng(1), Wish(task=task))
    estimator = fit(make_estimator(Params(n_estimators=3), table.contract, n_jobs=2), table)
    found = estimator.get_params()
    assert {v for name, v in found.items() if name.endswith("n_jobs")} <= {None, 1}
    alone = fit(make_estimator(Params(n_estimators=3), table.contract), table)
    assert dumped(estimator) == dumped(alone)


# Mixed tables


def test_a_list_of_codes_ends_in_nan_only_where_values_may_be_missing():
    words = Feature("w", "", 0, 1, "category", ("a", "b"))
    numbers = Feature("n", "", 0, 1, "category", (1, 2.5), missing=True)
    assert code_list(words).tolist() == ["a", "b"]
    assert code_list(numbers).dtype == np.float64
    assert np.isnan(code_list(numbers)[-1])


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_the_encoder_gives_the_very_codes_of_the_table(seed, columns):
    table = random_table(np.random.default_rng(seed), Wish(columns=columns, missing=0.5))
    if table.contract.numeric:
        return
    frame = data_frame(table.X, table.contract)
    encoder = make_encoder(table.contract).fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (slice(None), slice(0, 1), slice(3, 5)):
            found = encoder.transform(frame.iloc[rows])
            assert found.dtype == np.float64
            assert np.array_equal(found, table.X[rows], equal_nan=True)


def test_an_unknown_category_counts_as_missing_to_the_pipeline():
    deck = Feature("deck", "", 0, 1, "category", ("A", "B"))
    contract = Contract((deck,), ("n", "y"), ("n", "y"), ("A",))
    table = Table(np.array([[0.0], [1.0]] * 5), np.array(["n", "y"] * 5), contract, "t")
    estimator = fit(make_estimator(Params(n_estimators=3), contract), table)
    frame = pd.DataFrame({"deck": ["Z", np.nan]})
    assert np.isnan(estimator[0].transform(frame)).all()
    assert estimator.predict(frame).shape == (2,)


def test_the_order_of_the_columns_and_more_of_them_do_not_matter_to_the_pipeline():
    table = random_table(np.random.default_rng(5), Wish(columns=6))
    estimator = fit(make_estimator(Params(n_estimators=5), table.contract), table)
    frame = data_frame(table.X, table.contract)
    turned = frame[frame.columns[::-1]].assign(more=1)
    assert np.array_equal(estimator.predict_proba(frame), estimator.predict_proba(turned))


ALONE = """
import sys

sys.modules["iris_serve"] = None
import joblib
import pandas

model = joblib.load(sys.argv[1])
frame = pandas.read_csv(sys.argv[2])
print([answer.hex() for answer in model.predict(frame).tolist()])
print(sorted(name for name in sys.modules if name.startswith("iris_serve")))
"""


def test_the_pickle_of_a_mixed_table_needs_joblib_scikit_learn_and_pandas_alone(tmp_path):
    age = Feature("age", "", 1.0, 80.0, missing=True)
    deck = Feature("deck", "", 0, 2, "category", ("A", "B", "C"), missing=True)
    alone = Feature("alone", "", 0, 1, "boolean", (False, True))
    paid = Feature("paid", "", 0, 1, "boolean", ("No", "Yes"), missing=True)
    zone = Feature("zone", "", 0, 2, "category", (1.0, 2.0, 5.0), missing=True)
    contract = Contract((age, deck, alone, paid, zone), (), (), (1.0, "A", True, "No", 1.0))
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.integers(f.low, f.high + 1, 80) for f in contract.features])
    X = X.astype(float)
    for i in (0, 1, 3, 4):
        X[rng.random(80) < 0.2, i] = np.nan
    table = Table(X, np.nan_to_num(X).sum(axis=1), contract, "t")
    estimator = fit(make_estimator(Params(n_estimators=9), contract), table)
    (tmp_path / "iris_model.pkl").write_bytes(dumped(estimator))
    data_frame(X, contract).to_csv(tmp_path / "table.csv", index=False)
    command = [sys.executable, "-W", "error", "-c", ALONE]
    done = subprocess.run(
        [*command, tmp_path / "iris_model.pkl", tmp_path / "table.csv"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = estimator.predict(estimator_input(X, contract)).tolist()
    assert done.stdout == f"{[answer.hex() for answer in answers]}\n['iris_serve']\n"
