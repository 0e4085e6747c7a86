"""Scores and their baselines; cross-validation: its folds, and its numbers."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace as changed
from random_tables import Wish, random_table
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import log_loss
from sklearn.svm import SVC
from small_tables import small

from iris_serve.data.split import split
from iris_serve.data.table import Table, derive_contract, iris
from iris_serve.data.tables import read_table
from iris_serve.model.scores import (
    ClassScores,
    NumberScores,
    Scores,
    below_baseline,
    cross_validate,
    cv_folds,
    headline,
    mean_errors,
    metric,
    reaches,
    score,
)
from iris_serve.model.train import Params, fit, make_estimator


def numbers(rows=60, seed=0):
    """A table of random rows, with a number to predict."""
    X = np.random.default_rng(seed).uniform(0, 9, (rows, 2))
    columns = [("a", ""), ("b", "")]
    return Table(X, X[:, 0] * 2, derive_contract(X, columns, [], [], X[0].tolist()), "numbers")


# Scores


def test_a_model_that_knows_nothing_has_the_score_of_its_baseline():
    table = small({"a": 30, "b": 10})
    dummy = DummyClassifier().fit(table.X, table.y)
    found = score(dummy, table, table)
    assert found.accuracy == found.baseline == 0.75
    assert found.balanced_accuracy == 0.5
    table = numbers()
    found = score(DummyRegressor().fit(table.X, table.y), table, table)
    assert (found.mae, found.rmse) == pytest.approx((found.baseline_mae, found.baseline_rmse))
    assert found.r2 == pytest.approx(0)


def test_the_baseline_is_that_of_the_rows_learned_from():
    table = small({"a": 30, "b": 10})
    learned = table.take(table.y == "b")
    found = score(DummyClassifier().fit(table.X, table.y), table, learned)
    assert found.baseline == 0.25
    low = numbers().take(np.arange(5))
    found = score(DummyRegressor().fit(low.X, low.y), numbers(), low)
    assert found.baseline_mae == pytest.approx(np.abs(numbers().y - low.y.mean()).mean())


def test_the_log_loss_is_that_of_scikit_learn_and_left_out_without_probabilities():
    train, test = split(iris())
    estimator = fit(make_estimator(Params(n_estimators=5), train.contract), train)
    found = score(estimator, test, train).log_loss
    assert found == pytest.approx(log_loss(test.y, estimator.predict_proba(test.X)))
    assert score(fit(SVC(), train), test, train).log_loss is None


def test_a_single_class_is_scored():
    table = small({"a": 8})
    contract = changed(table.contract, classes=("a",), labels=("a",))
    table = replace(table, contract=contract)
    estimator = fit(make_estimator(Params(n_estimators=2), contract), table)
    found = score(estimator, table, table)
    assert (found.accuracy, found.baseline, found.log_loss, found.confusion) == (1, 1, 0, ((8,),))


@pytest.mark.parametrize("classes", [(False, True), (0, 1, 7), ("n", "y")])
@pytest.mark.filterwarnings("ignore:The least populated")
def test_classes_of_each_kind_are_scored(classes):
    table = random_table(np.random.default_rng(4), Wish(classes=classes, rows=90))
    train, test = split(table, 0.3, "fair")
    estimator = fit(make_estimator(Params(n_estimators=5), table.contract), train)
    found = score(estimator, test, train)
    assert sum(map(sum, found.confusion)) == found.rows == len(test)
    diagonal = sum(found.confusion[i][i] for i in range(len(classes)))
    assert found.accuracy == pytest.approx(diagonal / len(test))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Scores) == found


def test_r2_is_left_out_where_it_means_nothing():
    table = numbers()
    estimator = fit(make_estimator(Params(n_estimators=2), table.contract), table)
    assert score(estimator, table.take(np.array([3])), table).r2 is None
    level = replace(table, y=np.full(len(table), 2.5))
    assert score(estimator, level, table).r2 is None
    assert score(estimator, table, table).r2 > 0.8


def test_errors_that_no_float_holds_are_refused_and_never_written_as_null():
    with pytest.raises(ValueError, match="too large"):
        mean_errors(np.array([1e300, -1e300]))
    assert mean_errors(np.array([1e150, 1e150])) == pytest.approx((1e150, 1e150))


@pytest.mark.parametrize(
    ("mae", "text"),
    [
        (1.5, "mean absolute error 1.5 on"),
        (0.0, "mean absolute error 0 on"),
        (123456.7, "mean absolute error 123457 on"),
        (0.000012345, "mean absolute error 0.00001234 on"),
        (2 / 3, "mean absolute error 0.6667 on"),
    ],
)
def test_an_error_is_told_without_an_exponent(mae, text):
    assert headline(NumberScores(3, mae, 1.0, None, 1.0, 1.0)).startswith(text)


@pytest.mark.parametrize(
    ("mae", "r2", "text"),
    [
        (8.482e-22, 1.0, "mean absolute error 8.482e-22 on 3 held-out rows (baseline 1: "),
        (218140421374224973692928.0, -3e30, "mean absolute error 2.181e+23 on 3 held-out rows"),
        (1e9, 0.5, "mean absolute error 1e+09 on"),
        (999_999_999.0, 0.5, "mean absolute error 999999999 on"),
    ],
)
def test_an_error_that_would_be_a_long_row_of_digits_has_an_exponent(mae, r2, text):
    told = headline(NumberScores(3, mae, 1.0, r2, 1.0, 1.0))
    assert told.startswith(text)
    assert len(told) < 120


def test_below_the_baseline_is_worse_than_always_the_same_answer_and_not_equal_to_it():
    fair = ClassScores(10, 0.7, 0.6, (), baseline=0.7)
    assert not below_baseline(fair)
    assert below_baseline(changed(fair, accuracy=0.6))
    assert not below_baseline(changed(fair, baseline=None))
    fair = NumberScores(10, 2.0, 3.0, 0.0, 2.0, 3.0)
    assert not below_baseline(fair)
    assert below_baseline(changed(fair, mae=2.1))


def test_a_bound_is_a_least_for_scores_and_a_most_for_errors():
    classes = ClassScores(10, 0.7, 0.6, (), log_loss=0.5, baseline=0.7)
    assert reaches(classes, "accuracy", 0.7)
    assert not reaches(classes, "accuracy", 0.71)
    assert reaches(classes, "log_loss", 0.5)
    assert not reaches(classes, "log_loss", 0.4)
    with pytest.raises(ValueError, match=r"accuracy, balanced_accuracy$"):
        metric(changed(classes, log_loss=None), "log_loss")
    with pytest.raises(ValueError, match="no 'rows' among the scores"):
        metric(classes, "rows")


# Cross-validation


def test_cross_validation_is_reproducible_and_its_numbers_are_consistent():
    table, params = split(iris())[0], Params(n_estimators=5)
    one = cross_validate(params, table, 4)
    assert cross_validate(params, table, 4, n_jobs=2) == one
    assert len(one.scores) == len(one.balanced_scores) == 4
    assert one.mean == pytest.approx(np.mean(one.scores))
    assert one.std == pytest.approx(np.std(one.scores))
    assert one.balanced_mean == pytest.approx(np.mean(one.balanced_scores))
    assert 0.8 < one.balanced_mean <= 1


def test_cross_validation_of_numbers_is_about_errors():
    one = cross_validate(Params(n_estimators=5), numbers(), 4)
    assert len(one.scores) == len(one.rmse_scores) == 4
    assert one.mean == pytest.approx(np.mean(one.scores))
    assert one.rmse_mean == pytest.approx(np.mean(one.rmse_scores))
    assert one.rmse_mean >= one.mean > 0


@pytest.mark.parametrize("table", [split(iris())[0], numbers()], ids=["classes", "numbers"])
def test_the_folds_do_not_depend_on_the_order_of_the_rows(table):
    last = len(table) - 1
    turned = replace(table, X=table.X[::-1], y=table.y[::-1])
    here = [set(examine.tolist()) for _, examine in cv_folds(table, 5)]
    there = [{last - i for i in examine.tolist()} for _, examine in cv_folds(turned, 5)]
    duplicates = {i for i in range(len(table)) if (table.X[i] == table.X).all(axis=1).sum() > 1}
    assert [fold - duplicates for fold in here] == [fold - duplicates for fold in there]


def test_every_fold_has_its_share_of_every_class(tmp_path):
    load_breast_cancer(as_frame=True).frame.to_csv(tmp_path / "table.csv", index=False)
    table = read_table(tmp_path / "table.csv", "target")
    for learn, examine in cv_folds(table, 5):
        assert not set(learn.tolist()) & set(examine.tolist())
        assert len(learn) + len(examine) == len(table)
        counts = np.unique(table.y[examine], return_counts=True)[1]
        assert abs(counts - np.array([212, 357]) / 5).max() < 1
    assert cross_validate(Params(n_estimators=5), table, 5).mean > 0.9


def test_cross_validation_refuses_a_class_with_fewer_rows_than_folds():
    table = small({"a": 30, "b": 4})
    with pytest.raises(ValueError, match="class 'b' has 4 rows to learn from, too few for 5 folds"):
        cross_validate(Params(n_estimators=2), table, 5)
    assert len(cross_validate(Params(n_estimators=2), table, 4).scores) == 4


def test_cross_validation_refuses_more_folds_than_rows():
    table = numbers(rows=4)
    with pytest.raises(ValueError, match="the table has 4 rows to learn from, too few for 5 folds"):
        cross_validate(Params(n_estimators=2), table, 5)
    assert len(cross_validate(Params(n_estimators=2), table, 4).scores) == 4
