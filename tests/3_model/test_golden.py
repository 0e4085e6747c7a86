"""Golden rows: questions that the contract accepts, and answers to the last bit."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from forests import differing
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from random_tables import Wish, random_table
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from iris_serve.data.contract import Contract, Feature
from iris_serve.data.split import split
from iris_serve.data.table import Table, estimator_input, iris
from iris_serve.forest import Forest, freeze
from iris_serve.forest.trees import HIGHEST
from iris_serve.model.atomic import ArtifactError
from iris_serve.model.golden import (
    Golden,
    check_golden,
    freeze_or_reason,
    golden_rows,
    is_well_formed,
    make_golden,
    near_cut,
    near_value,
)
from iris_serve.model.train import Params, fit, make_estimator


def fitted(table, **params):
    params = Params(**{"n_estimators": 5} | params)
    return fit(make_estimator(params, table.contract), table)


def frozen(table, estimator):
    forest = freeze_or_reason(estimator, table.contract)
    assert isinstance(forest, Forest), forest
    return forest


wishes = st.builds(
    Wish,
    task=st.sampled_from(["classes", "number"]),
    columns=st.integers(1, 20),
    rows=st.integers(5, 60),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    classes=st.sampled_from([("one",), ("n", "y"), (False, True), (0, 3, 4), tuple("abcdefgh")]),
)


@settings(max_examples=40)
@given(wishes, st.integers(0, 2**32), st.sampled_from(["random_forest", "extra_trees"]))
def test_golden_rows_of_any_table_are_valid_and_both_forms_answer_them(wish, seed, model):
    if len(wish.classes) > wish.rows:
        return
    table = random_table(np.random.default_rng(seed), wish)
    contract, estimator = table.contract, fitted(table, model=model)
    forest = frozen(table, estimator)
    golden = make_golden(estimator, contract, forest)
    assert 8 <= len(golden.rows) <= 64
    assert is_well_formed(golden, contract)
    for row in golden.rows:
        for value, feature in zip(row, contract.features, strict=True):
            if value is None:
                assert feature.missing
            else:
                assert feature.low <= value <= feature.high
                assert feature.kind == "number" or value.is_integer()
    for i, feature in enumerate(contract.features):
        assert feature.missing == any(row[i] is None for row in golden.rows)
    again = msgspec.json.decode(msgspec.json.encode(golden), type=Golden)
    assert again == golden
    assert list(map(type, again.answers)) == list(map(type, golden.answers))
    check_golden(forest, again, contract)
    check_golden(estimator, again, contract)
    assert (golden.probabilities is None) == (wish.task == "number")


@settings(max_examples=25)
@given(wishes, st.integers(0, 2**32))
def test_the_frozen_form_of_a_mixed_table_answers_bit_for_bit(wish, seed):
    if len(wish.classes) > wish.rows:
        return
    rng = np.random.default_rng(seed)
    table = random_table(rng, wish)
    estimator = fitted(table)
    forest = frozen(table, estimator)
    X = table.X[rng.integers(len(table), size=(100, 1)), np.arange(table.X.shape[1])]
    for i, feature in enumerate(table.contract.features):
        rng.shuffle(X[:, i])
        if feature.missing:
            X[rng.random(len(X)) < 0.3, i] = np.nan
    frame = estimator_input(X, table.contract)
    assert forest.predict(X).tolist() == estimator.predict(frame).tolist()
    if wish.task == "classes":
        assert differing(forest.predict_proba(X), estimator.predict_proba(frame)) == 0


def test_the_golden_rows_of_iris_are_those_of_the_cards_of_format_2():
    """Which these lines made, when there were only numbers and none of them missing."""
    contract = iris().contract
    lows, highs = np.array([(f.low, f.high) for f in contract.features]).T
    arrays = freeze(fitted(iris())).arrays
    rows = np.random.default_rng(0).uniform(lows, highs, (64, 4))
    chosen = np.linspace(0, len(arrays.cuts) - 1, 32).astype(int).tolist()
    for turn, cut in enumerate(chosen):
        rows[2 * turn, arrays.features[cut]] = near_cut(float(arrays.cuts[cut]), turn)
    assert golden_rows(contract, arrays).tobytes() == rows.tobytes()


@pytest.mark.parametrize("cut", [HIGHEST, -HIGHEST])
def test_golden_rows_beside_the_last_numbers_can_be_asked_and_warn_of_nothing(cut):
    assert [abs(near_cut(cut, turn)) <= HIGHEST for turn in range(4)] == [True] * 4
    feature = Feature("a", "", -1.0, 3.0)
    assert {near_value(cut, turn, feature) for turn in range(4)} <= {-1.0, 3.0}


@pytest.mark.parametrize("cut", [-0.5, 0.0, 0.5, 1.5, 2.0, HIGHEST])
def test_beside_a_cut_between_codes_are_codes(cut):
    deck = Feature("deck", "", 0, 2, "category", ("A", "B", "C"))
    assert {near_value(cut, turn, deck) for turn in range(4)} <= {0.0, 1.0, 2.0}


# What is kept


def test_classes_that_json_would_change_are_refused_when_saving():
    table = iris()
    estimator = RandomForestClassifier(2).fit(table.X, table.y.astype(float))
    assert set(make_golden(estimator, table.contract).answers) <= {0, 1, 2}
    estimator.classes_ = np.array([0.0, 0.5, 1.0])
    with pytest.raises(TypeError, match="text or a boolean, and here it is a float"):
        make_golden(estimator, table.contract)


@pytest.mark.parametrize("answers", [[np.nan], [np.inf], ["a"], [None], [True]])
def test_answers_that_are_no_finite_numbers_are_refused_when_saving(answers):
    contract = changed(iris().contract, classes=(), labels=())
    model = type("Odd", (), {"predict": lambda self, rows: np.array(answers * len(rows))})()
    with pytest.raises(TypeError, match="each answer must be a finite number"):
        make_golden(model, contract)


def test_two_answers_to_a_row_are_refused_when_saving():
    contract = changed(iris().contract, classes=(), labels=())
    model = type("Odd", (), {"predict": lambda self, rows: np.ones((len(rows), 2))})()
    with pytest.raises(TypeError, match="one answer to each row is needed"):
        make_golden(model, contract)


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.float64])
def test_a_regressor_may_answer_in_any_kind_of_number(kind):
    contract = changed(iris().contract, classes=(), labels=())
    model = type("Sums", (), {"predict": lambda self, rows: rows.sum(axis=1).astype(kind)})()
    golden = make_golden(model, contract)
    assert {type(answer) for answer in golden.answers} == {float}
    check_golden(model, golden, contract)


def test_probabilities_of_something_that_answers_with_numbers_are_not_asked_for():
    contract = changed(iris().contract, classes=(), labels=())
    model = type("Both", (LinearRegression,), {"predict_proba": None})()
    model.fit(iris().X, iris().y)
    assert make_golden(model, contract).probabilities is None


# Frozen, or why not


def test_the_reason_for_not_freezing_is_a_sentence_about_this_estimator():
    table = random_table(np.random.default_rng(0), Wish(task="number"))
    boosted = GradientBoostingRegressor(n_estimators=2).fit(iris().X, iris().y)
    numbers = changed(iris().contract, classes=(), labels=())
    assert freeze_or_reason(boosted, numbers).startswith("GradientBoostingRegressor cannot be")
    scaled = make_pipeline(*[step for _, step in fitted(table).steps], LinearRegression())
    assert "cannot be frozen" in freeze_or_reason(scaled, table.contract)


def test_a_forest_that_is_too_large_says_what_would_make_it_fit(monkeypatch):
    monkeypatch.setattr("iris_serve.forest.trees.MAX_NODES", 10)
    reason = freeze_or_reason(fitted(iris()), iris().contract)
    assert "min_samples_leaf" in reason
    assert "10 can be frozen" in reason


def test_a_forest_that_its_file_cannot_hold_says_so(monkeypatch):
    monkeypatch.setattr("iris_serve.forest.checks.MAX_TREES", 2)
    reason = freeze_or_reason(fitted(iris()), iris().contract)
    assert reason.startswith("its forest is beyond what a file can hold: ")


# Asking again


def test_missing_values_where_the_contract_has_none_are_not_asked():
    table = random_table(np.random.default_rng(2), Wish(missing=0.0))
    estimator = fitted(table)
    golden = make_golden(estimator, table.contract)
    rows = ((None, *golden.rows[0][1:]), *golden.rows[1:])
    for model in (estimator, frozen(table, estimator)):
        with pytest.raises(ArtifactError, match="golden rows are not a table"):
            check_golden(model, changed(golden, rows=rows), table.contract)


@pytest.mark.parametrize("code", [-1.0, 2.0, 0.5, 1e300])
def test_codes_that_the_contract_has_not_are_not_asked(code):
    deck = Feature("deck", "", 0, 1, "category", ("A", "B"))
    contract = Contract((deck,), (), (), ("A",))
    table = Table(np.array([[0.0], [1.0]] * 4), np.arange(8.0), contract, "t")
    estimator = fitted(table)
    golden = make_golden(estimator, contract)
    rows = ((code,), *golden.rows[1:])
    with pytest.raises(ArtifactError, match="golden rows are not a table"):
        check_golden(estimator, changed(golden, rows=rows), contract)


@pytest.mark.parametrize("task", ["classes", "number"])
def test_one_bit_is_an_error_in_a_forest_and_not_in_an_estimator(task):
    table = random_table(np.random.default_rng(3), Wish(task=task, missing=0.6))
    estimator = fitted(table)
    forest, golden = frozen(table, estimator), make_golden(estimator, table.contract)
    if task == "number":
        moved = (*golden.answers[:-1], float(np.nextafter(golden.answers[-1], np.inf)))
        moved = changed(golden, answers=moved)
    else:
        *rows, (one, *others) = golden.probabilities
        moved = (*rows, (float(np.nextafter(one, 2.0)), *others))
        moved = changed(golden, probabilities=moved)
    check_golden(estimator, moved, table.contract)
    with pytest.raises(ArtifactError, match="answers 1 golden rows wrongly"):
        check_golden(forest, moved, table.contract)


def test_true_is_not_one():
    table = random_table(np.random.default_rng(6), Wish(classes=(False, True)))
    estimator = fitted(table)
    golden = make_golden(estimator, table.contract)
    numbers = changed(golden, answers=tuple(map(int, golden.answers)))
    with pytest.raises(ArtifactError, match="golden rows wrongly"):
        check_golden(estimator, numbers, table.contract)


def test_an_error_of_a_tiny_target_is_found():
    table = random_table(np.random.default_rng(7), Wish(task="number"))
    tiny = replace(table, y=table.y * 1e-30)
    estimator = fitted(tiny)
    golden = make_golden(estimator, tiny.contract)
    wrong = changed(golden, answers=tuple(2 * answer for answer in golden.answers))
    check_golden(estimator, golden, tiny.contract)
    with pytest.raises(ArtifactError, match="golden rows wrongly"):
        check_golden(estimator, wrong, tiny.contract)


def test_another_forest_of_the_same_table_is_found_out():
    for task in ("classes", "number"):
        table = random_table(np.random.default_rng(8), Wish(task=task))
        train, _ = split(table, 0.2, "fair")
        golden = make_golden(fitted(train), table.contract)
        with pytest.raises(ArtifactError, match="golden rows wrongly"):
            check_golden(frozen(table, fitted(train, seed=1)), golden, table.contract)
