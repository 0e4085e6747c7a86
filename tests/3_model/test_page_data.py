"""Page data suit their contract for any table, count no fewer than five rows, and are bounded."""

import json

import numpy as np
import pytest
from random_tables import Wish, random_table

from iris_serve.data.rows import check_row
from iris_serve.data.split import split
from iris_serve.data.table import iris
from iris_serve.model.atomic import ArtifactError
from iris_serve.model.estimator import input_for
from iris_serve.model.page_data import (
    MAX_BINS,
    MAX_PAGE_BYTES,
    PageData,
    decode_page_data,
    describe_feature,
    encode_page_data,
    make_page_data,
    make_residuals,
)
from iris_serve.model.scores import score
from iris_serve.model.train import Params, fit, make_estimator


def page_of(table, page_rows):
    train, test = split(table)
    estimator = fit(make_estimator(Params(n_estimators=2), table.contract), train)
    scores = score(estimator, test, train)
    return train, make_page_data(estimator, train, test, scores, page_rows)


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("task", ["classes", "number"])
def test_page_data_suit_their_contract_and_hide_small_counts(seed, task):
    rng = np.random.default_rng(seed)
    classes = tuple(range(int(rng.integers(2, 5))))
    missing, rows = float(rng.choice([0, 0.5, 1])), int(rng.integers(30, 300))
    wish = Wish(task, int(rng.integers(1, 9)), rows, missing=missing, classes=classes)
    table = random_table(rng, wish)
    for asked in (0, 40):
        train, page = page_of(table, asked)
        assert decode_page_data(encode_page_data(page), table.contract) == page
        assert len(page.rows) == len(page.targets) == min(asked, len(train))
        for preset in page.presets:
            check_row(list(preset.row), table.contract)
        assert abs(sum(feature.importance for feature in page.features) - 1) < 1e-9 or all(
            feature.importance == 0 for feature in page.features
        )
        for feature, codes in zip(page.features, train.X.T, strict=True):
            check_feature(feature, codes[~np.isnan(codes)], page.train_rows)


def check_feature(found, present, total):
    counts = [count for count in found.counts or () if count is not None]
    assert min(counts, default=5) >= 5
    if found.counts and any(counts):
        kept_back = total - sum(counts) - (found.gaps or 0)
        assert kept_back == 0 or kept_back > 5, "a small count can be worked out"
    if found.edges:
        assert found.edges == tuple(sorted(found.edges))
        assert len(found.counts) == len(found.edges) - 1 <= MAX_BINS
        assert sum(counts) == len(present) or None in found.counts


def test_page_data_of_a_wide_table_are_bounded_and_lose_their_rows_first():
    table = iris()
    _, page = page_of(table, 5000)
    assert (len(page.rows), page.train_rows) == (119, 119)
    wide = random_table(np.random.default_rng(0), Wish(columns=300, rows=300, missing=0))
    _, page = page_of(wide, 5000)
    assert len(encode_page_data(page)) <= MAX_PAGE_BYTES
    assert 0 < len(page.rows) < page.train_rows
    assert len(page.features) == 300


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": [[1, 2]], "targets": [0]},
        {"presets": [{"title": "a", "row": []}]},
        {"presets": [{"title": "a", "row": [1, 2, 3, 4]}] * 13},
        {"features": [{"name": "sepal_length"}]},
        {"rows": [[1, 2, 3, 4]]},
        {"train_rows": "many"},
        {"surprise": 1},
    ],
)
def test_page_data_of_another_form_are_refused(wrong):
    given = {"train_rows": 1, "test_rows": 1}
    assert decode_page_data(json.dumps(given).encode(), iris().contract) == PageData(**given)
    with pytest.raises(ArtifactError, match=r"page\.json"):
        decode_page_data(json.dumps(given | wrong).encode(), iris().contract)


def test_no_more_rows_are_shown_than_asked_for():
    for asked in (0, 1, 2, 40):
        _, page = page_of(iris(), asked)
        rows = set(page.rows)
        assert len(rows) <= asked
        real = {tuple(row) for row in iris().X.tolist()}
        for preset in page.presets:
            assert preset.row in rows or preset.row not in real or asked == 0


@pytest.mark.parametrize("gaps", [1, 4])
def test_a_few_gaps_cannot_be_counted_from_the_rest(gaps):
    table = random_table(np.random.default_rng(1), Wish("classes", 3, 200, missing=0))
    for codes, feature in zip(table.X.T, table.contract.features, strict=True):
        holey = codes.copy()
        holey[:gaps] = np.nan
        found = describe_feature(holey, feature, None)
        assert found.gaps is None
        assert None in found.counts


def test_the_largest_error_of_a_held_out_row_is_not_told():
    table = random_table(np.random.default_rng(2), Wish("number", 3, 200, missing=0))
    train, test = split(table)
    estimator = fit(make_estimator(Params(n_estimators=2), table.contract), train)
    found = make_residuals(estimator, test)
    errors = estimator.predict(input_for(estimator, test.X, test.contract)) - test.y
    assert found.edges[0] <= errors.min() <= errors.max() <= found.edges[-1]
    assert not {errors.min(), errors.max()} & set(found.edges)
    assert sum(found.counts) == len(test)
