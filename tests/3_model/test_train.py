"""Cross-validation: its folds, and its numbers."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from small_tables import small

from iris_serve.data.table import iris, split
from iris_serve.data.tables import read_table
from iris_serve.model.train import Params, Scores, cross_validate, cv_folds


def test_cross_validation_is_reproducible_and_its_numbers_are_consistent():
    table, params = split(iris())[0], Params(n_estimators=5)
    one = cross_validate(params, table, 4)
    assert cross_validate(params, table, 4) == one
    assert len(one.scores) == len(one.balanced_scores) == 4
    assert one.mean == pytest.approx(np.mean(one.scores))
    assert one.std == pytest.approx(np.std(one.scores))
    assert one.balanced_mean == pytest.approx(np.mean(one.balanced_scores))
    assert 0.8 < one.balanced_mean <= 1


def test_the_folds_do_not_depend_on_the_order_of_the_rows():
    table = split(iris())[0]
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


def test_metrics_written_before_cross_validation_are_still_read():
    old = b'{"rows": 1, "accuracy": 1, "balanced_accuracy": 1, "confusion": [[1]]}'
    assert msgspec.json.decode(old, type=Scores).cross_validation is None
