"""A frozen forest answers with the estimator's bits, refuses what is damaged, and needs little."""

import io
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import pytest
from forests import (
    FORESTS,
    KINDS,
    WAYS,
    answers_of,
    assert_same,
    dataset,
    differing,
    fitted,
    forced,
    hard_rows,
    neighbours,
    one_by_one,
    random_estimator,
    rows_beside_cuts,
    rows_of_extremes,
    run_program,
    uniform_rows,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from iris_serve.data.contract import FLOAT32_LIMIT
from iris_serve.data.rows import RowError
from iris_serve.forest import CACHED, Forest, freeze
from iris_serve.forest.checks import check_arrays
from iris_serve.forest.format import decode, encode
from iris_serve.forest.leaves import AnswerGrid, Masks, Walk, tree_grid
from iris_serve.forest.trees import HIGHEST, ForestError, FreezeError, exact_cuts, gather_arrays

FLOWER = [6.1, 2.8, 4.7, 1.2]
DATA = ("iris", "wine", "cancer", "digits")
HERE = Path(__file__).parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


def counts(fraction, full):
    """Run with a `fraction` of the `full` count; with all of it only for slow tests."""
    return pytest.mark.parametrize("count", [fraction, pytest.param(full, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def estimator():
    return RandomForestClassifier(40, random_state=0, n_jobs=1).fit(*dataset("iris"))


@pytest.fixture
def forest(estimator):
    return freeze(estimator)


# The same bits


def test_the_comparison_sees_a_single_bit():
    one = np.array([[0.25, 0.75]])
    assert differing(one, one.copy()) == 0
    assert differing(one, np.nextafter(one, 1)) >= 2
    assert differing(np.array([[0.0]]), np.array([[-0.0]])) == 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", DATA)
@counts(2, 40)
def test_random_forests_answer_hard_rows_bit_for_bit(name, kind, count):
    X, y = dataset(name)
    rng = np.random.default_rng([count, DATA.index(name), list(KINDS).index(kind.__name__)])
    for _ in range(count):
        estimator = random_estimator(kind, rng, trees=500 if count > 2 else 60).fit(X, y)
        assert_same(estimator, hard_rows(estimator, rng, X, 300), alone=100)


@pytest.mark.parametrize("trees", [1, 2, 3, 10, 100, 500])
@pytest.mark.parametrize("kind", FORESTS)
def test_any_number_of_trees_answers_bit_for_bit(kind, trees):
    X, y = dataset("iris")
    estimator = kind(trees, random_state=trees).fit(X, y)
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(trees), X, 100), alone=50)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", DATA)
@counts(5_000, 1_000_000)
def test_uniform_rows_are_answered_bit_for_bit(name, count):
    X, y = dataset(name)
    estimator = RandomForestClassifier(100, random_state=1, n_jobs=1).fit(X, y)
    rng = np.random.default_rng(count)
    for start in range(0, count, 50_000):
        rows = uniform_rows(rng, X, min(50_000, count - start))
        some = name != "iris" and start % 500_000  # walking down trees takes its time
        ways = ("masks", "grid") if some else tuple(WAYS)
        assert_same(estimator, rows, alone=len(rows) // (10 if some else 1), ways=ways)


@pytest.mark.timeout(1800)
@counts(97, 1)
def test_flowers_with_one_decimal_are_answered_bit_for_bit(count):
    X, y = dataset("iris")
    tenths = (X.min(axis=0) * 10).round(), (X.max(axis=0) * 10).round()
    axes = [np.arange(low - 1, high + 2) / 10 for low, high in zip(*tenths, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 4)[::count]
    for kind in FORESTS:
        estimator = kind(100, random_state=0).fit(X, y)
        assert_same(estimator, grid, alone=2000)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", DATA)
@counts(500, 50_000)
def test_rows_on_and_beside_the_cuts_are_answered_bit_for_bit(name, kind, count):
    X, y = dataset(name)
    estimator = kind(random_state=2).fit(X, y)
    rng = np.random.default_rng(count)
    assert_same(estimator, rows_beside_cuts(estimator, rng, X, count), alone=count // 5)


def test_the_rows_beside_a_cut_lie_on_both_sides_of_it():
    (cut,) = exact_cuts(np.array([5.7]))
    found = neighbours([5.7, cut])
    narrow = np.float32(5.7)
    for value in (5.7, cut, float(narrow), float(np.nextafter(narrow, np.float32(np.inf)))):
        assert {value, np.nextafter(value, np.inf), np.nextafter(value, -np.inf)} <= {*found}
    sides = found.astype(np.float32) <= 5.7
    assert (sides.any(), sides.all()) == (True, False)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@counts(1_000, 100_000)
def test_huge_and_tiny_magnitudes_are_answered_bit_for_bit(kind, count):
    rng = np.random.default_rng(count)
    X, y = dataset("iris")
    for scale in (1.0, 1e-41, 1e-38, 4e37, -4e37):
        estimator = fitted(kind(max_depth=12, random_state=3), X * scale, y)
        rows = [rows_of_extremes(rng, X * scale, count), rows_beside_cuts(estimator, rng, X, 500)]
        assert_same(estimator, np.concatenate(rows), alone=200)


def test_a_tree_that_cuts_at_zero_and_at_the_ends_answers_bit_for_bit():
    largest = float(np.finfo(np.float32).max)
    X = np.array([[-largest], [-1.4e-45], [-0.0], [0.0], [1.4e-45], [1e-40], [largest]])
    for y in ([0, 1, 2, 2, 3, 4, 5], [0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]):
        estimator = fitted(DecisionTreeClassifier(random_state=0), X, y)
        rng = np.random.default_rng(0)
        rows = [rows_beside_cuts(estimator, rng, X, 500), rows_of_extremes(rng, X, 500), X]
        assert_same(estimator, np.concatenate(rows))


def test_string_classes_are_answered_as_they_were_given():
    X, y = dataset("wine")
    for names in (["red", "white", "rosé"], ["b", "c", "a"], ["", "a much longer name", "\n"]):
        estimator = RandomForestClassifier(15, random_state=0).fit(X, np.array(names)[y])
        assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 200))


@pytest.mark.parametrize("classes", [[-7, 0, 2**40], [0.0, 2.0, 3.0], [7, 8, 9], [1, 2, 2**62]])
def test_numeric_classes_are_answered_and_kept_in_files_as_they_were_given(classes):
    X, y = dataset("iris")
    estimator = ExtraTreesClassifier(5, random_state=0).fit(X, np.array(classes)[y])
    assert_same(estimator, X)
    answers = Forest(decode(encode(gather_arrays(estimator)))).predict(X)
    assert answers.tolist() == estimator.predict(X).tolist()
    assert answers.dtype == estimator.predict(X).dtype


def test_truth_values_as_classes_are_answered_and_kept_in_files(tmp_path):
    X, y = dataset("iris")
    estimator = RandomForestClassifier(5, random_state=0).fit(X, y == 1)
    assert_same(estimator, X)
    freeze(estimator).save(tmp_path / "forest")
    assert Forest.load(tmp_path / "forest").predict(X).tolist() == estimator.predict(X).tolist()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_single_class_is_answered_bit_for_bit(kind):
    X, _ = dataset("iris")
    estimator = kind(random_state=0).fit(X, np.full(len(X), 3))
    assert len(gather_arrays(estimator).cuts) == 0
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 200))


@pytest.mark.parametrize("name", DATA)
def test_a_single_node_is_answered_bit_for_bit(name):
    X, y = dataset(name)
    estimator = DecisionTreeClassifier(ccp_alpha=1.0).fit(X, y)
    assert estimator.tree_.node_count == 1
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 200))


def test_trees_of_one_node_beside_larger_ones_are_answered_bit_for_bit():
    X, y = dataset("iris")
    estimator = RandomForestClassifier(60, max_samples=2, random_state=0).fit(X, y)
    sizes = {tree.tree_.node_count for tree in estimator.estimators_}
    assert min(sizes) == 1 < max(sizes)
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 300))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_constant_features_are_answered_bit_for_bit(kind):
    X, y = dataset("iris")
    X = np.column_stack(
        [np.zeros(len(X)), X[:, 2], np.full(len(X), -0.0), X[:, 3], X[:, 3] * 0 + 9]
    )
    estimator = kind(random_state=0).fit(X, y)
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 300))


@pytest.mark.parametrize("features", [1, 31, 32, 33, 62, 63, 64, 65, 300])
def test_any_number_of_features_is_answered_bit_for_bit(features):
    rng = np.random.default_rng(features)
    X = rng.normal(size=(200, features))
    y = (X[:, 0] > 0) + 2 * (X[:, -1] > 0.5)
    for kind in KINDS.values():
        estimator = kind(max_depth=2, random_state=0).fit(X, y)
        assert_same(estimator, rows_beside_cuts(estimator, rng, X, 300), alone=50)


def test_a_small_tree_over_many_features_answers_batches_of_any_size():
    X, y = dataset("digits")
    estimator = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y)
    forest = freeze(estimator)
    for _ in range(3):
        assert differing(forest.predict_proba(X), estimator.predict_proba(X)) == 0


def with_gaps(rows, rng):
    """`rows` without some of their values."""
    return np.where(rng.random(rows.shape) < 0.15, np.nan, rows)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", DATA)
@counts(1, 20)
def test_forests_fitted_on_missing_values_answer_finite_rows_bit_for_bit(name, kind, count):
    X, y = dataset(name)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        estimator = kind(random_state=seed).fit(with_gaps(X, rng), y)
        assert_same(estimator, hard_rows(estimator, rng, X, 200), alone=50)


@pytest.mark.parametrize("kind", [RandomForestClassifier, DecisionTreeClassifier])
def test_thresholds_of_infinity_are_answered_bit_for_bit(kind):
    X, y = dataset("iris")
    gaps = X.copy()
    gaps[y == 2, 2], gaps[y == 1, 3] = np.nan, np.nan
    estimator = kind(random_state=0).fit(gaps, y)
    members = estimator.estimators_ if kind in FORESTS else [estimator]
    assert any(np.isinf(member.tree_.threshold).any() for member in members)
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 500))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_monotonic_forests_answer_bit_for_bit(kind):
    X, y = dataset("cancer")
    X = X[:, :5]
    estimator = kind(monotonic_cst=[-1, 0, 1, 0, -1], random_state=0).fit(X, y)
    assert_same(estimator, hard_rows(estimator, np.random.default_rng(0), X, 500))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_weighted_samples_and_classes_are_answered_bit_for_bit(kind):
    X, y = dataset("wine")
    rng = np.random.default_rng(0)
    estimator = kind(class_weight={0: 1e-3, 1: 1.0, 2: 700.0}, random_state=0)
    estimator.fit(X, y, sample_weight=rng.exponential(size=len(X)))
    assert_same(estimator, hard_rows(estimator, rng, X, 300))


def test_each_way_of_asking_has_its_own_finder_and_grid(estimator):
    X, _ = dataset("iris")
    asked = assert_same(estimator, X)
    finders = {way: type(forest.single.finder) for way, forest in asked.items()}
    assert finders == dict.fromkeys(WAYS, Masks) | {"walk": Walk}
    grids = {way: type(forest.batch.grid) for way, forest in asked.items()}
    assert grids == dict.fromkeys(WAYS, type(None)) | {"grid": AnswerGrid}
    sliced = {way for way, forest in asked.items() if "slices" in vars(forest.batch)}
    assert sliced == {"slices", "crowns"}
    deep = {way: any(each.walker for each in asked[way].batch.slices.ended) for way in sliced}
    assert deep == {"slices": False, "crowns": True}


@pytest.mark.parametrize("name", DATA)
def test_a_forest_that_outgrows_its_limits_still_answers_bit_for_bit(name):
    X, y = dataset(name)
    estimator = RandomForestClassifier(30, random_state=0).fit(X, y)
    with (
        mock.patch("iris_serve.forest.leaves.MASK_BYTES", 1000),
        mock.patch("iris_serve.forest.leaves.GRID_BYTES", 1000),
    ):
        forest = freeze(estimator)
        assert isinstance(forest.single.finder, Walk)
        for rows in (X, X[:1], X[:16], X[:17]):
            assert differing(forest.predict_proba(rows), estimator.predict_proba(rows)) == 0
        assert forest.batch.grid is None


def test_batches_before_and_after_the_grid_is_built_are_answered_bit_for_bit(estimator, forest):
    X, _ = dataset("iris")
    rng, had = np.random.default_rng(0), []
    while len(had) < 3 or not had[-3]:
        rows = uniform_rows(rng, X, 100)
        assert differing(forest.predict_proba(rows), estimator.predict_proba(rows)) == 0
        had.append(forest.batch.grid is not None)
    assert (had[0], had[-1], had == sorted(had)) == (False, True, True)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 1023, 1024, 1025, 65_535, 65_536, 65_537])
def test_the_borders_of_chunks_are_answered_bit_for_bit(estimator, rows):
    X = uniform_rows(np.random.default_rng(rows), dataset("iris")[0], rows)
    assert_same(estimator, X, alone=10)


def test_rows_in_any_form_are_the_same_rows(estimator, forest):
    X = dataset("iris")[0][:40]
    sure = estimator.predict_proba(X)
    strided = np.repeat(X, 2, axis=0)[::2]
    for rows in (X, X.tolist(), tuple(map(tuple, X)), np.asfortranarray(X), strided):
        assert differing(forest.predict_proba(rows), sure) == 0
    for narrow in (X.astype(np.float32), X.astype(int)):
        assert differing(forest.predict_proba(narrow), estimator.predict_proba(narrow)) == 0
    for one in ([X[3].tolist()], [X[3]], X[3:4], [tuple(X[3])]):
        assert differing(forest.predict_proba(one), sure[3:4]) == 0


def test_the_exact_cuts_say_what_scikit_learn_says():
    rng = np.random.default_rng(0)
    bits = rng.integers(1 << 64, size=200_000, dtype=np.uint64).view(np.float64)
    near = rng.normal(size=50_000) * 10.0 ** rng.integers(-46, 39, 50_000)
    exact = near.astype(np.float32).astype(np.float64)
    edges = [0.0, -0.0, 5e-324, -5e-324, 7e-46, -7e-46, HIGHEST, -HIGHEST, np.inf, -np.inf, 1e300]
    found = np.concatenate([bits, near, exact, np.nextafter(exact, 1), edges])
    found = found[~np.isnan(found)]
    cuts = exact_cuts(found)
    for x in (cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf), found, -found):
        fine = np.abs(x) < FLOAT32_LIMIT
        goes_left = x[fine].astype(np.float32) <= found[fine]
        assert (goes_left == (x <= cuts)[fine]).all()


# Random small forests

NUMBERS = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-10, 10, width=32),
    st.floats(-HIGHEST, HIGHEST, allow_nan=False),
)


@st.composite
def small_forests(draw):
    """A fitted estimator of some kind, on any small table, and rows to ask it."""
    features, seed = draw(st.integers(1, 5)), draw(st.integers(0, 2**32 - 1))
    row = st.lists(NUMBERS, min_size=features, max_size=features)
    X = draw(st.lists(row, min_size=1, max_size=25))
    y = draw(st.lists(st.integers(0, 3), min_size=len(X), max_size=len(X)))
    if draw(st.booleans()):
        y = [f"class {label}" for label in y]
    kind = draw(st.sampled_from(list(KINDS.values())))
    estimator = random_estimator(kind, np.random.default_rng(seed), trees=12)
    if kind in FORESTS:
        estimator.set_params(max_samples=None)
    rows = draw(st.lists(row, min_size=1, max_size=20))
    return fitted(estimator, X, y), np.array(rows + X), seed


@counts(60, 3_000)
@pytest.mark.timeout(1200)
def test_any_small_forest_answers_any_rows_bit_for_bit(count):
    @settings(max_examples=count, deadline=None, print_blob=True)
    @given(small_forests())
    def holds(case):
        estimator, rows, seed = case
        try:
            gather_arrays(estimator)
        except ForestError:
            assume(False)
        beside = rows_beside_cuts(estimator, np.random.default_rng(seed), rows, 60)
        assert_same(estimator, np.concatenate([rows, beside]), alone=20)

    holds()


@counts(60, 3_000)
@pytest.mark.timeout(1200)
def test_any_small_forest_comes_back_from_its_file(count):
    @settings(max_examples=count, deadline=None, print_blob=True)
    @given(small_forests())
    def holds(case):
        estimator, rows, _ = case
        data = encode(gather_arrays(estimator))
        forest = Forest(decode(data))
        assert encode(forest.arrays) == data
        sure, labels = answers_of(estimator, rows)
        assert differing(forest.predict_proba(rows), sure) == 0
        assert forest.predict(rows).tolist() == labels.tolist()

    holds()


# Refusals

WRONG = [np.nan, np.inf, -np.inf, FLOAT32_LIMIT, -FLOAT32_LIMIT, 1e39, -1e300]


PLACES = [(1, 0, 2), (5, 3, 0), (16, 15, 3), (17, 16, 1), (3000, 2999, 2), (70_000, 69_999, 3)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("rows", "row", "feature"), PLACES)
def test_a_value_beyond_float32_is_refused_with_row_and_feature(estimator, way, rows, row, feature):
    X = np.tile(FLOWER, (rows, 1))
    words = rf"^row {row}, feature {feature}: must be a number that a 32-bit float can hold$"
    with forced(way):
        forest = freeze(estimator)
        for wrong in WRONG if rows < 10_000 else WRONG[:2]:
            X[row, feature] = wrong
            for asked in (X, X.tolist())[: 2 if rows < 100 else 1]:
                with pytest.raises(RowError, match=words):
                    forest.predict_proba(asked)
            with pytest.raises(RowError, match=words):
                forest.predict(X)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_number_in_a_row_is_refused_with_its_feature_and_not_cached(forest, wrong):
    for feature in range(4):
        row = [*FLOWER[:feature], wrong, *FLOWER[feature + 1 :]]
        for _ in range(2):
            with pytest.raises(RowError, match=f"row 0, feature {feature}: must be a number"):
                forest.ask(row)
    assert forest.single.remembered.cache_info().currsize == 0


def test_the_first_wrong_row_is_the_one_that_is_named(forest):
    X = np.tile(FLOWER, (50, 1))
    X[[20, 30], [3, 0]] = np.nan
    with pytest.raises(RowError, match="row 20, feature 3"):
        forest.predict_proba(X)


@pytest.mark.parametrize("length", [0, 1, 3, 5, 100])
@pytest.mark.parametrize("rows", [1, 2, 16, 17, 500])
def test_rows_of_another_length_are_refused(forest, length, rows):
    X = np.ones((rows, length))
    for asked in (X, X.tolist()):
        with pytest.raises(RowError, match=rf"shape \(rows, 4\), and not \({rows}, {length}\)"):
            forest.predict_proba(asked)


@pytest.mark.parametrize("rows", [[], FLOWER, [[FLOWER]], 6.1, [[[6.1, 2.8], [4.7, 1.2]]]])
def test_anything_but_a_list_of_rows_is_refused(forest, rows):
    with pytest.raises(RowError, match=r"rows must have the shape \(rows, 4\)"):
        forest.predict_proba(rows)


@pytest.mark.parametrize("rows", [[FLOWER, FLOWER[:3]], [FLOWER[:3], FLOWER], [FLOWER] * 20 + [[]]])
def test_rows_of_several_lengths_are_refused_as_rows(forest, rows):
    with pytest.raises(RowError):
        forest.predict_proba(rows)


@pytest.mark.parametrize("wrong", ["a", "2.8", None, [2.8], 1j])
@pytest.mark.parametrize("ask", ["ask", "predict", "predict_proba"])
def test_a_value_that_is_not_a_number_is_refused_in_a_single_row(forest, ask, wrong):
    row = [6.1, wrong, 4.7, 1.2]
    with pytest.raises(RowError, match="rows must be lists of 4 numbers each"):
        getattr(forest, ask)(row if ask == "ask" else [row])


def test_an_empty_table_has_no_answers(forest):
    assert forest.predict_proba(np.empty((0, 4))).shape == (0, 3)
    assert forest.predict(np.empty((0, 4))).tolist() == []


class Squared(RandomForestClassifier):
    """A subclass that answers in its own way."""

    def predict_proba(self, rows):
        return super().predict_proba(rows) ** 2


X2, Y2 = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Squared(2).fit(X2, Y2), "Squared cannot be frozen, as scikit-learn's forests"),
        (lambda: RandomForestClassifier(2), "RandomForestClassifier is not fitted yet; call fit"),
        (DecisionTreeClassifier, "DecisionTreeClassifier is not fitted yet"),
        (lambda: RandomForestRegressor(2), "RandomForestRegressor is not fitted yet"),
        (lambda: DecisionTreeRegressor().fit(X2, np.c_[Y2, Y2]), "2 answers to each row"),
        (lambda: GradientBoostingClassifier(), "GradientBoostingClassifier cannot be frozen"),
        (lambda: RandomForestClassifier(2).fit(X2, np.c_[Y2, Y2]), "2 answers to each row"),
        (lambda: ExtraTreeClassifier().fit(X2, np.c_[Y2, Y2, Y2]), "3 answers to each row"),
        (lambda: None, "NoneType cannot be frozen"),
        (lambda: RandomForestClassifier, "cannot be frozen"),
    ],
)
def test_an_estimator_that_cannot_be_frozen_is_refused_with_the_reason(make, words):
    with pytest.raises(FreezeError, match=words):
        freeze(make())


def test_a_cached_answer_cannot_be_written_to(forest):
    for answer in (forest.ask(FLOWER).probabilities, forest.predict_proba([FLOWER])):
        before = answer.tolist()
        while isinstance(answer, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                answer[...] = 0.5
            with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                answer.flags.writeable = True
            with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                answer.setflags(write=True)
            answer = answer.base
        assert forest.predict_proba([FLOWER]).tolist() == before


def test_a_caller_may_reshape_an_answer_and_the_next_one_gets_it_whole(forest, estimator):
    right = estimator.predict_proba([FLOWER])
    for answer in (forest.predict_proba([FLOWER]), forest.ask(FLOWER).probabilities):
        answer.shape = (3,)
        assert differing(forest.predict_proba([FLOWER]), right) == 0
        assert differing(forest.ask(FLOWER).probabilities, right) == 0


def test_an_answer_to_several_rows_belongs_to_the_caller(forest):
    for rows in (np.tile(FLOWER, (2, 1)), np.tile(FLOWER, (40, 1))):
        before = forest.predict_proba(rows).tolist()
        forest.predict_proba(rows)[:] = 7.0
        assert forest.predict_proba(rows).tolist() == before


def test_equal_positions_share_one_answer_and_the_cache_is_bounded(estimator, forest):
    assert forest.single.recall(FLOWER) is forest.single.recall(list(FLOWER))
    X = uniform_rows(np.random.default_rng(0), dataset("iris")[0], 3 * CACHED)
    found, best = one_by_one(forest, X)
    info = forest.single.remembered.cache_info()
    assert info.maxsize == info.currsize == CACHED < info.misses
    assert differing(found, estimator.predict_proba(X)) == 0
    assert forest.classes[best].tolist() == estimator.predict(X).tolist()


# Many at once


@counts(10, 200)
def test_many_threads_get_right_answers_while_the_grid_is_built(estimator, count):
    X = uniform_rows(np.random.default_rng(0), dataset("iris")[0], 4000)
    sure, threads = estimator.predict_proba(X), 8
    for _ in range(count):
        forest, start = freeze(estimator), threading.Barrier(threads)

        def ask(number, forest=forest, start=start):
            start.wait()
            mine, wrong = slice(number * 500, number * 500 + 500), 0
            for first in range(mine.start, mine.stop, 50):
                part = slice(first, first + 50)
                wrong += differing(forest.predict_proba(X[part]), sure[part])
            wrong += differing(one_by_one(forest, X[mine][::5])[0], sure[mine][::5])
            return wrong + differing(forest.predict_proba(X), sure)

        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(ask, range(threads))) == [0] * threads
        assert forest.batch.grid is not None


def test_one_thread_builds_the_grid_and_the_others_do_not_wait(estimator):
    X = uniform_rows(np.random.default_rng(0), dataset("iris")[0], 200)
    sure, made = estimator.predict_proba(X), []
    begun, finish = threading.Event(), threading.Event()

    class Slow(AnswerGrid):
        def __init__(self, *parts):
            made.append(threading.current_thread())
            begun.set()
            assert finish.wait(100)
            super().__init__(*parts)

    with forced("grid"), mock.patch("iris_serve.forest.AnswerGrid", Slow):
        forest = freeze(estimator)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(forest.predict_proba, X)
            assert begun.wait(100)
            try:
                for _ in range(3):
                    assert differing(forest.predict_proba(X), sure) == 0
                    assert forest.batch.grid is None
            finally:
                finish.set()
            assert differing(first.result(), sure) == 0
        assert differing(forest.predict_proba(X), sure) == 0
    assert isinstance(forest.batch.grid, Slow)
    assert len(made) == 1


def test_a_grid_that_could_not_be_built_is_tried_again(estimator):
    X = uniform_rows(np.random.default_rng(0), dataset("iris")[0], 200)
    with forced("grid"):
        forest = freeze(estimator)
        broken = mock.patch("iris_serve.forest.AnswerGrid", side_effect=MemoryError)
        with broken, pytest.raises(MemoryError):
            forest.predict_proba(X)
        assert differing(forest.predict_proba(X), estimator.predict_proba(X)) == 0
        assert isinstance(forest.batch.grid, AnswerGrid)


# Files


def test_what_is_saved_is_what_is_loaded(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "forest"
    for name in DATA:
        X, y = dataset(name)
        for kind in KINDS.values():
            estimator = random_estimator(kind, rng, trees=20).fit(X, y)
            freeze(estimator).save(path)
            first = path.read_bytes()
            again = Forest.load(path)
            again.save(path)
            assert path.read_bytes() == first
            rows = hard_rows(estimator, rng, X, 50)
            sure, labels = answers_of(estimator, rows)
            assert differing(again.predict_proba(rows), sure) == 0
            assert again.predict(rows).tolist() == labels.tolist()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file(forest, tmp_path, monkeypatch):
    path = tmp_path / "forest"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", mock.Mock(side_effect=OSError("the disk is full")))
    with pytest.raises(OSError, match="disk is full"):
        forest.save(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"forest": b"old"}


FREEZING = """
import sys
from pathlib import Path
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from iris_serve.forest import freeze

X, y = load_wine(return_X_y=True, as_frame=False)
names = [["red", "white", "rose"][c] for c in y]
estimator = RandomForestClassifier(12, random_state=5, n_jobs=int(sys.argv[1])).fit(X, names)
forest = freeze(estimator)
forest.save(Path(sys.argv[2]))
"""


def test_the_bytes_depend_on_nothing_but_the_forest(tmp_path):
    worlds = [("1", "0", "1"), ("1", "77", "2"), ("2", "random", "4")]
    for number, (jobs, seed, threads) in enumerate(worlds):
        path = tmp_path / str(number)
        run_program(FREEZING, jobs, path, PYTHONHASHSEED=seed, OMP_NUM_THREADS=threads)
    first, *others = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert others == [first] * 2


def test_an_estimator_fitted_by_two_threads_freezes_to_the_same_bytes():
    X, y = dataset("digits")
    for kind in FORESTS:
        one, two = (
            encode(gather_arrays(kind(20, random_state=0, n_jobs=n).fit(X, y))) for n in (1, 2)
        )
        assert one == two


def foreign_files(estimator):
    """Files that are not forests, by name."""
    whole = encode(gather_arrays(estimator))
    dumped, zipped = io.BytesIO(), io.BytesIO()
    joblib.dump(estimator, dumped)
    np.savez(zipped, nodes=gather_arrays(estimator).nodes)
    header, huge = int.from_bytes(whole[:8], "little"), (1 << 40).to_bytes(8, "little")
    return {
        "empty": b"",
        "one byte": b"\0",
        "eight zeros": bytes(8),
        "pickle": pickle.dumps(estimator),
        "joblib": dumped.getvalue(),
        "npz": zipped.getvalue(),
        "text": b"not a forest at all\n" * 100,
        "JSON": json.dumps({"format": 1}).encode(),
        "a header of a terabyte": huge + whole[8:],
        "the largest header": b"\xff" * 8 + whole[8:],
        "a header of spaces": (5 * 10**7).to_bytes(8, "little") + b" " * (5 * 10**7),
        "a deep header": (10**6).to_bytes(8, "little") + b"[" * 10**6,
        "a header alone": whole[: 8 + header],
        "without an end": whole[:-1],
        "with more behind": whole + b"\0",
        "twice": whole + whole,
    }


def test_files_that_are_not_forests_are_refused(estimator, tmp_path):
    path = tmp_path / "forest"
    for name, data in foreign_files(estimator).items():
        path.write_bytes(data)
        with pytest.raises(ForestError, match="this is not a frozen forest"):
            pytest.fail(f"{name} was opened: {Forest.load(path)}")


def test_a_file_that_is_too_long_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "forest"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ForestError, match="longer than 1073741824 bytes"):
        Forest.load(path)


@pytest.mark.parametrize("way", WAYS)
def test_a_negative_zero_in_a_file_is_refused_or_answered_alike_in_every_way(way):
    arrays = gather_arrays(DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1]))
    rows = [[0.0], [1.0]] * 20
    with forced(way):
        try:
            values = np.where(arrays.values == 0, -0.0, arrays.values)
            forest = Forest(decode(encode(replace(arrays, values=values))))
        except ForestError:
            return
        many = forest.predict_proba(rows)
        assert differing(many, np.concatenate([forest.predict_proba([row]) for row in rows])) == 0


SIGNALLING = np.uint64(0x7FF0_0000_0000_0001).view(np.float64)  # a NaN that sums warn of


@pytest.mark.parametrize(
    ("name", "place", "numbers"),
    [
        ("cuts", slice(0, 2), [np.inf, np.inf]),
        ("cuts", slice(0, 2), [-np.inf, np.inf]),
        ("cuts", slice(0, 2), [-1.7e308, 1.7e308]),
        ("cuts", slice(0, 1), [np.nan]),
        ("values", 0, [np.inf, -np.inf, 1.0]),
        ("values", 0, [1.7e308, 1.7e308, 0.0]),
        ("values", 0, [np.nan, 0.0, 1.0]),
        ("values", 0, [SIGNALLING, 0.0, 1.0]),
        ("cuts", slice(0, 2), [SIGNALLING, SIGNALLING]),
        ("features", slice(0, 2), [2**31 - 1, -(2**31)]),
        ("nodes", slice(0, 2), [2**31 - 1, -(2**31)]),
    ],
)
def test_impossible_numbers_are_refused_without_a_warning(estimator, name, place, numbers):
    arrays = gather_arrays(estimator)
    changed = getattr(arrays, name).copy()
    changed[place] = numbers
    with pytest.raises(ForestError, match=r"a cut|the cuts|a fraction|fractions|a node"):
        Forest(decode(encode(replace(arrays, **{name: changed}))))


def test_every_single_bit_of_a_file_counts(tmp_path):
    estimator = DecisionTreeClassifier(max_depth=2, random_state=0).fit(*dataset("iris"))
    whole = encode(gather_arrays(estimator))
    for place in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            try:
                again = decode(bytes(changed))
            except ForestError:
                continue
            assert encode(again) == whole


def test_a_file_cut_anywhere_is_refused(estimator):
    whole = encode(gather_arrays(estimator))
    for length in [*range(1000), *range(1000, len(whole), 997), len(whole) - 1]:
        with pytest.raises(ForestError):
            decode(whole[:length])


def seeds(folder):
    """Several small forests in `folder`, each of another nature."""
    X, y = dataset("iris")
    names = np.array(["setosa", "versicolor", "virginica"])
    small = [
        RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, y),
        RandomForestClassifier(3, max_samples=6, random_state=0).fit(X, names[y]),
        ExtraTreesClassifier(2, max_depth=2, random_state=0).fit(X[:, :2], y * 2.0),
        DecisionTreeClassifier(random_state=0).fit(X, y),
        DecisionTreeClassifier(max_depth=1).fit(X[:, 2:3], y == 0),
        DecisionTreeClassifier().fit(X, y * 0),
    ]
    small[4].classes_ = np.array([0, 1])
    for number, estimator in enumerate(small):
        freeze(estimator, missing=number % 2 == 1).save(folder / f"{number}")
    (folder / "old").write_bytes(encode(gather_arrays(small[0]), old=True))
    numbers = RandomForestRegressor(3, max_depth=3, random_state=0).fit(X, y)
    categories = (("no", "yes"), (), (False, True), (1.0, 2.5))
    coded = replace(gather_arrays(numbers, missing=True), categories=categories)
    (folder / "numbers").write_bytes(encode(coded))
    with mock.patch("iris_serve.forest.trees.DENSE_BYTES", 0):
        many = RandomForestClassifier(3, max_depth=4, random_state=0).fit(X, np.arange(150) % 40)
        freeze(many).save(folder / "many")


@linux
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["raw", "rebuilt"])
@counts(2_500, 100_000)
def test_a_changed_forest_is_refused_or_gives_sane_answers(tmp_path, kind, count):
    seeds(tmp_path)
    program = [sys.executable, "-W", "error", HERE / "fuzz_forest.py", tmp_path, kind, str(count)]
    done = subprocess.run(
        [*program, "0"], capture_output=True, text=True, timeout=2900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["refused"] + told["answered"] == count
    assert min(told["refused"], told["answered"]) > count // 1000


OPENING = """
import resource, sys
from pathlib import Path
from iris_serve.forest import Forest
from iris_serve.forest.trees import ForestError

resource.setrlimit(resource.RLIMIT_AS, (5 << 29, 5 << 29))
try:
    forest = Forest.load(Path(sys.argv[1]))
except ForestError:
    print("refused")
else:
    rows = [[1.0] * forest.arrays.n_features] * 20
    print(forest.predict_proba(rows).sum(axis=1).max())
"""


@linux
@pytest.mark.parametrize(
    "classes",
    [("x" * (1 << 20), *map(str, range(1000))), tuple(map(str, range(50_000)))],
    ids=["long", "many"],
)
def test_long_or_many_labels_do_not_exhaust_the_memory(tmp_path, classes):
    one = gather_arrays(DecisionTreeClassifier().fit([[0.0]], [0]))
    values = np.eye(1, len(classes))
    path = tmp_path / "forest"
    path.write_bytes(encode(replace(one, values=values, classes=classes)))
    assert run_program(OPENING, path) in ("refused\n", "1.0\n")


@linux
def test_a_small_file_with_very_many_features_is_refused_or_answers(tmp_path):
    one = gather_arrays(DecisionTreeClassifier().fit([[0.0]], [0]))
    path = tmp_path / "forest"
    path.write_bytes(encode(replace(one, n_features=100_000)))
    assert run_program(OPENING, path) in ("refused\n", "1.0\n")


class Counted(int):
    """A number that counts how often any of its kind is compared."""

    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return int(self) == int(other)

    def __lt__(self, other):
        Counted.compared += 1
        return int(self) < int(other)

    __hash__ = int.__hash__


def test_a_tree_with_many_cuts_on_one_feature_is_not_searched_cut_by_cut(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4_000, 1)), rng.integers(2, size=4_000)
    arrays = gather_arrays(DecisionTreeClassifier(random_state=0).fit(X, y))

    def counted_grid(arrays, nodes, values, edges):
        return tree_grid(arrays, nodes, values, [list(map(Counted, axis)) for axis in edges])

    monkeypatch.setattr("iris_serve.forest.leaves.tree_grid", counted_grid)
    AnswerGrid(arrays, arrays.values, check_arrays(arrays))
    assert Counted.compared < 100 * len(arrays.nodes)
