"""Many rows at once, 64 in a word: the same bits, in bounded memory, without scikit-learn."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from forests import dataset, differing, forced, neighbours, run_program, uniform_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from iris_serve.data.rows import RowError
from iris_serve.forest import SLICED_ROWS, Forest, freeze
from iris_serve.forest.checks import check_arrays
from iris_serve.forest.leaves import Walk
from iris_serve.forest.slices import DEEPEST, PORTION, Slices, crown_width
from iris_serve.forest.trees import Arrays, SparseValues


def answers(estimator, rows):
    """The estimator's own answers, shape (rows, classes or 1)."""
    name = "predict_proba" if hasattr(estimator, "classes_") else "predict"
    return getattr(estimator, name)(rows).reshape(len(rows), -1)


@pytest.fixture(scope="module")
def wide():
    """An estimator that is too wide for a grid."""
    return ensemble.RandomForestClassifier(30, random_state=0).fit(*dataset("digits"))


def beside_cuts(forest, rows, rng):
    """`rows`, each with one value at or beside a cut of its feature."""
    arrays, rows = forest.arrays, rows.copy()
    chosen = rng.integers(len(arrays.cuts), size=len(rows))
    values = np.array([rng.choice(neighbours(arrays.cuts[[cut]])) for cut in chosen])
    rows[np.arange(len(rows)), arrays.features[chosen]] = values
    return rows


@settings(deadline=None, max_examples=25, print_blob=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    features=st.integers(1, 40),
    trees=st.integers(1, 40),
    classes=st.booleans(),
    missing=st.booleans(),
    extra=st.booleans(),
    depth=st.sampled_from([None, 1, 4]),
)
def test_any_forest_answers_large_batches_bit_for_bit(
    seed, features, trees, classes, missing, extra, depth
):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, features)).round(int(rng.integers(4)))
    if missing:
        X[rng.random(X.shape) < 0.2] = np.nan
    y = rng.integers(4, size=300) if classes else rng.normal(size=300)
    family = "ExtraTrees" if extra else "RandomForest"
    kind = getattr(ensemble, family + ("Classifier" if classes else "Regressor"))
    estimator = kind(trees, max_depth=depth, random_state=0).fit(X, y)
    forest = freeze(estimator, missing=missing)
    rows = X[rng.integers(len(X), size=700)]
    if len(forest.arrays.cuts):
        rows = np.concatenate([rows, beside_cuts(forest, rows, rng)])
    with forced("slices"):
        assert differing(forest.answers(rows), answers(estimator, rows)) == 0
    assert "slices" in vars(forest.batch)
    if not classes:
        each = np.stack([tree.predict(rows) for tree in estimator.estimators_], axis=1)
        assert differing(forest.spread(rows), each.std(axis=1)) == 0


PORTION_ROWS = 64 * PORTION


@pytest.mark.parametrize(
    "rows",
    [
        SLICED_ROWS - 1,
        SLICED_ROWS,
        SLICED_ROWS + 1,
        PORTION_ROWS - 1,
        PORTION_ROWS,
        PORTION_ROWS + 1,
        2 * PORTION_ROWS + 65,
    ],
)
def test_the_borders_of_portions_are_answered_bit_for_bit(wide, rows):
    X = uniform_rows(np.random.default_rng(rows), dataset("digits")[0], rows)
    forest = freeze(wide)
    assert differing(forest.predict_proba(X), wide.predict_proba(X)) == 0
    assert ("slices" in vars(forest.batch)) == (rows >= SLICED_ROWS)


def test_rows_behind_a_scaler_whose_cuts_no_32_bit_number_can_say_are_answered_bit_for_bit():
    X, y = dataset("cancer")
    pipeline = make_pipeline(
        StandardScaler(), ensemble.ExtraTreesClassifier(20, random_state=0)
    ).fit(X, y)
    forest, rng = freeze(pipeline), np.random.default_rng(0)
    cuts = forest.arrays.cuts
    assert (cuts.astype(np.float32) != cuts).any()
    rows = beside_cuts(forest, X[rng.integers(len(X), size=3000)], rng)
    assert differing(forest.predict_proba(rows), pipeline.predict_proba(rows)) == 0
    assert "slices" in vars(forest.batch)


def test_sparse_leaves_of_very_many_classes_are_answered_bit_for_bit():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3000, 12)), rng.integers(300, size=3000)
    estimator = ensemble.RandomForestClassifier(5, max_leaf_nodes=400, random_state=0).fit(X, y)
    with mock.patch("iris_serve.forest.trees.DENSE_BYTES", 0):
        forest = freeze(estimator)
    assert isinstance(forest.arrays.values, SparseValues)
    rows = rng.normal(size=(1500, 12))
    assert differing(forest.predict_proba(rows), estimator.predict_proba(rows)) == 0
    assert "slices" in vars(forest.batch)


def chain(depth):
    """A tree that asks about the same number again and again, higher and higher."""
    nodes = np.full(2 * depth + 1, -1, dtype=np.int32)
    nodes[: 2 * depth : 2] = np.arange(depth)
    values = np.arange(depth + 1, dtype=np.float64)[:, None]
    cuts, features = np.arange(depth, dtype=np.float64), np.zeros(depth, dtype=np.int32)
    return Arrays(nodes, cuts, features, values, 1, ())


def test_a_tree_much_deeper_than_a_crown_is_walked_to_its_end():
    arrays = chain(10 * DEEPEST)
    forest = Forest(arrays)
    rows = np.random.default_rng(0).uniform(-2, 10 * DEEPEST + 2, (1000, 1))
    with forced("slices"):
        found = forest.answers(rows)[:, 0]
    assert forest.batch.slices.ended[0].walker
    assert found.tolist() == np.searchsorted(arrays.cuts, rows[:, 0]).tolist()


def test_trees_of_one_leaf_are_answered_beside_others():
    values = np.array([[1.0], [2.0], [4.0], [8.0]])
    nodes = np.array([-1, 0, -1, -1, -1], dtype=np.int32)
    few = Arrays(nodes, np.array([0.5]), np.zeros(1, np.int32), values, 1, ())
    rows = np.linspace(0, 1, 501)[:, None]
    with forced("slices"):
        found = Forest(few).answers(rows)
        alone = replace(few, nodes=nodes[:1], cuts=few.cuts[:0], features=few.features[:0])
        one = Forest(replace(alone, values=values[:1])).answers(rows)
    assert found[:, 0].tolist() == [(9 + (2 if x <= 0.5 else 4)) / 3 for x in rows[:, 0].tolist()]
    assert one.tolist() == [[1.0]] * 501


def test_slices_and_walk_find_the_same_leaves_in_large_trees():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 6))
    estimator = ensemble.RandomForestRegressor(3, random_state=0).fit(X, rng.normal(size=4000))
    forest = freeze(estimator)
    plan = check_arrays(forest.arrays)
    slices, walk = Slices(forest.arrays, plan), Walk(forest.arrays, plan)
    assert slices.ended[0].walker
    assert crown_width(forest.arrays) < 100
    axes = np.split(forest.arrays.cuts, np.cumsum(forest.arrays.counts())[:-1])
    pairs = zip(axes, X.T, strict=True)
    positions = np.array([1 + np.searchsorted(axis, column) for axis, column in pairs])
    found = [np.stack(list(by_tree), axis=1) for _, by_tree in slices.portions(X)]
    assert (np.concatenate(found) == walk.many(positions)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.5e38])
@pytest.mark.parametrize("place", [(0, 0), (4999, 63)])
def test_a_wrong_value_in_a_large_batch_is_named_with_its_row(wide, bad, place):
    rows = np.tile(dataset("digits")[0], (3, 1))[:5000]
    rows[place] = bad
    with pytest.raises(RowError, match=f"row {place[0]}, feature {place[1]}: must be a number"):
        freeze(wide).predict_proba(rows)


def test_missing_values_only_are_answered_and_infinite_ones_are_not():
    X, y = dataset("cancer")
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    estimator = ensemble.RandomForestClassifier(10, random_state=0).fit(holes, y)
    forest, nothing = freeze(estimator, missing=True), np.full((500, X.shape[1]), np.nan)
    assert differing(forest.predict_proba(nothing), estimator.predict_proba(nothing)) == 0
    assert "slices" in vars(forest.batch)
    nothing[499, 3] = np.inf
    with pytest.raises(RowError, match="row 499, feature 3"):
        forest.predict_proba(nothing)


def test_no_slices_are_kept_for_forests_that_are_asked_few_rows(wide):
    forest, X = freeze(wide), np.array(dataset("digits")[0])
    for rows in (X[:1], X[:16], X[:17], X[: SLICED_ROWS - 1]):
        forest.predict_proba(rows)
    assert "slices" not in vars(forest.batch)


def test_threads_that_ask_large_batches_at_once_get_the_same_bits(wide):
    X = uniform_rows(np.random.default_rng(0), dataset("digits")[0], 8 * 1500)
    sure, threads = wide.predict_proba(X), 8
    forest, start = freeze(wide), threading.Barrier(threads)

    def ask(number):
        mine = slice(number * 1500, number * 1500 + 1500)
        start.wait()
        return [differing(forest.predict_proba(X[mine]), sure[mine]) for _ in range(5)]

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(ask, range(threads))) == [[0] * 5] * threads
    assert len(forest.batch.slices.spaces) == 1


def test_memory_does_not_grow_with_the_number_of_rows(wide):
    forest = freeze(wide)
    peaks = []
    for count in (5_000, 50_000):
        rows = uniform_rows(np.random.default_rng(0), dataset("digits")[0], count)
        forest.predict_proba(rows[:300])
        tracemalloc.start()
        forest.predict_proba(rows)
        peaks.append(tracemalloc.get_traced_memory()[1] - count * 10 * 8)
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 32 << 20


WITHOUT = """
import sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("sklearn", "scipy", "pandas", "joblib"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import numpy as np
from iris_serve.forest import Forest

rows, sure = np.load(sys.argv[2]), np.load(sys.argv[3])
forest = Forest.load(Path(sys.argv[1]))
assert forest.predict_proba(rows).tobytes() == sure.tobytes()
print("slices" in vars(forest.batch), forest.batch.grid)
"""


def test_a_process_without_scikit_learn_answers_large_batches_bit_for_bit(wide, tmp_path):
    rows = uniform_rows(np.random.default_rng(0), dataset("digits")[0], 10_000)
    freeze(wide).save(tmp_path / "forest")
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "sure.npy", wide.predict_proba(rows))
    files = (tmp_path / name for name in ("forest", "rows.npy", "sure.npy"))
    assert run_program(WITHOUT, *files).split() == ["True", "None"]


@pytest.mark.parametrize("scaled", [False, True])
def test_large_trees_walk_beside_their_cuts_bit_for_bit_also_where_values_are_missing(scaled):
    rng = np.random.default_rng(int(scaled))
    X = rng.normal(size=(3000, 5)) * [2, 2, 1e5, 3, 4]
    X[rng.random(X.shape) < 0.1] = np.nan
    numbers = ensemble.RandomForestRegressor(4, random_state=0)
    estimator = make_pipeline(StandardScaler(), numbers) if scaled else numbers
    forest = freeze(estimator.fit(X, rng.normal(size=3000)), missing=True)
    rows = beside_cuts(forest, X, rng)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    with forced("slices"):
        assert differing(forest.answers(rows), answers(estimator, rows)) == 0
    slices = forest.batch.slices
    assert slices.ended[0].walker
    assert slices.kind is (np.float64 if scaled else np.float32)
