"""What the tests of the frozen forest share: data, estimators, hard rows, and comparing bits."""

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import cache
from unittest import mock

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from iris_serve.data.contract import FLOAT32_LIMIT
from iris_serve.forest import Forest
from iris_serve.forest.trees import HIGHEST, fitted_trees, gather_arrays

LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "cancer": load_breast_cancer,
    "digits": load_digits,
}
FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
KINDS = {kind.__name__: kind for kind in (*FORESTS, DecisionTreeClassifier, ExtraTreeClassifier)}
# What makes a forest answer in one way only; each name is one of the chapters on forests.
NO_GRID, NO_SLICES, ALL_SLICES = (
    {"leaves.GRID_BYTES": 0},
    {"SLICED_ROWS": 1 << 60},
    {"SLICED_ROWS": 1},
)
WAYS = {
    "masks": NO_GRID | NO_SLICES,
    "walk": NO_GRID | NO_SLICES | {"leaves.MASK_BYTES": 0},
    "grid": NO_SLICES | {"leaves.ROWS_PER_CELL": 1e-9},
    "slices": NO_GRID | ALL_SLICES,
    # Small crowns, few trees together and small portions: what large forests and batches need.
    "crowns": NO_GRID
    | ALL_SLICES
    | {"slices.WIDEST": 3, "slices.NARROW": 3, "slices.WALKED": 200}
    | {"slices.TOGETHER": 64, "slices.PORTION": 1, "slices.DEEPEST": 5},
}
EXTREMES = np.array(
    [0.0, 5e-324, 2.2e-308, 7e-46, 1.4e-45, 1e-40, 1.2e-38, 1.0, 1e30, 1e38, 3.4028234e38, HIGHEST]
)
EXTREMES = np.concatenate([EXTREMES, -EXTREMES])


@cache
def dataset(name):
    """The rows and the classes of one of scikit-learn's tables; read-only."""
    X, y = LOADERS[name](return_X_y=True)
    X.setflags(write=False)
    y.setflags(write=False)
    return X, y


def random_estimator(kind, rng, trees=500):
    """An estimator of `kind`, not yet fitted, with random parameters and at most `trees` trees."""
    weights = [None, "balanced"]
    chosen = {
        "max_depth": rng.choice([None, 1, 2, 3, 5, 8, 20]),
        "criterion": str(rng.choice(["gini", "entropy", "log_loss"])),
        "class_weight": rng.choice(weights),
        "max_leaf_nodes": rng.choice([None, None, 2, 5, 17, 100]),
        "ccp_alpha": float(rng.choice([0.0, 0.0, 0.001, 0.02])),
        "min_samples_leaf": int(rng.choice([1, 1, 2, 7])),
        "max_features": rng.choice([None, "sqrt", 1]),
        "random_state": int(rng.integers(1 << 31)),
    }
    if kind in FORESTS:
        chosen["n_estimators"] = int(np.exp(rng.uniform(0, np.log(trees))).round())
        chosen["bootstrap"] = bool(rng.integers(2))
        if chosen["bootstrap"]:
            chosen["class_weight"] = rng.choice([*weights, "balanced_subsample"])
            chosen["max_samples"] = rng.choice([None, 0.3, 0.9])
    return kind(**chosen)


def thresholds(estimator):
    """For each feature, scikit-learn's own thresholds of all trees, and the exact cuts."""
    trees, arrays = fitted_trees(estimator), gather_arrays(estimator)
    own = [(tree.feature, tree.threshold) for tree in trees]
    own.append((arrays.features, arrays.cuts))
    feature, value = (np.concatenate(column) for column in zip(*own, strict=True))
    return [np.unique(value[feature == number]) for number in range(arrays.n_features)]


def neighbours(values):
    """`values`, their float32, and one step of 64 and of 32 bits to both sides of each."""
    values = np.clip(np.asarray(values, np.float64), -HIGHEST, HIGHEST)
    with np.errstate(over="ignore"):
        narrow, up = values.astype(np.float32), np.float32(np.inf)
        steps = [np.nextafter(narrow, -up), narrow, np.nextafter(narrow, up)]
    wide = np.concatenate([values, *(step.astype(np.float64) for step in steps)])
    found = np.concatenate([np.nextafter(wide, -np.inf), wide, np.nextafter(wide, np.inf)])
    return np.unique(found[np.abs(found) < FLOAT32_LIMIT])


def rows_beside_cuts(estimator, rng, usual, count):
    """At most about 2 * `count` rows on and beside the cuts: in one feature, and then in all.

    The rest of a row of the first kind is a row of `usual`.
    """
    beside = [neighbours(values) for values in thresholds(estimator)]
    one = [(feature, value) for feature, found in enumerate(beside) for value in found]
    if len(one) > count:
        one = [one[place] for place in rng.choice(len(one), count, replace=False)]
    rows = usual[rng.integers(len(usual), size=len(one))].astype(np.float64)
    for row, (feature, value) in zip(rows, one, strict=True):
        row[feature] = value
    found = [values if len(values) else np.array([0.0]) for values in beside]
    return np.concatenate([rows, np.column_stack([rng.choice(v, count) for v in found])])


def rows_of_extremes(rng, usual, count):
    """`count` rows of huge, tiny and negative zeros' magnitude, half of them in some features."""
    rows = rng.choice(EXTREMES, (count, usual.shape[1]))
    keep = rng.random(rows.shape) < rng.choice([0.0, 0.7], (count, 1))
    return np.where(keep, usual[rng.integers(len(usual), size=count)], rows)


def uniform_rows(rng, like, count):
    """`count` rows, uniform on a range somewhat wider than that of the rows `like`."""
    low, high = like.min(axis=0), like.max(axis=0)
    edge = (high - low) * 0.1 + 0.1
    return rng.uniform(low - edge, high + edge, (count, like.shape[1]))


def hard_rows(estimator, rng, like, count):
    """Rows of every difficult kind, about 4 * `count` of them at most."""
    usual = np.concatenate([like, uniform_rows(rng, like, count)])
    parts = [usual[-count:], rows_beside_cuts(estimator, rng, usual, count)]
    return np.concatenate([*parts, rows_of_extremes(rng, usual, count)])


@contextmanager
def forced(way):
    """Within, forests are made and asked in one `way` only, wherever that is possible."""
    with ExitStack() as patches:
        for name, value in WAYS[way].items():
            patches.enter_context(mock.patch(f"iris_serve.forest.{name}", value))
        yield


def differing(one, other):
    """How many bits differ between two arrays of float64."""
    assert (one.shape, one.dtype, other.dtype) == (other.shape, np.float64, np.float64)
    one, other = (np.ascontiguousarray(array).view(np.uint64) for array in (one, other))
    return int(np.bitwise_count(one ^ other).sum())


def one_by_one(forest, rows):
    """The probabilities and the places of the best classes of `rows`, asked row by row."""
    answers = [forest.ask(row) for row in rows.tolist()]
    return np.concatenate([a.probabilities for a in answers]), [a.best for a in answers]


def answers_of(estimator, rows):
    """The probabilities and the labels that `estimator` itself gives to `rows`."""
    with np.errstate(all="ignore"):  # scikit-learn adds up all values of all rows
        return estimator.predict_proba(rows), estimator.predict(rows)


def fitted(estimator, rows, classes):
    """`estimator`, fitted on `rows` of any magnitude."""
    with np.errstate(all="ignore"):
        return estimator.fit(rows, classes)


def assert_same(estimator, rows, alone=300, ways=tuple(WAYS)):
    """Each of `ways` of asking answers `rows` as `estimator` does, and so do `alone` single rows.

    Returns the forests that were asked, by the way.
    """
    assert estimator.get_params().get("n_jobs") in (None, 1)
    arrays, asked = gather_arrays(estimator), {}
    sure, labels = answers_of(estimator, rows)
    single = np.linspace(0, len(rows) - 1, min(alone, len(rows))).astype(int)
    for way in ways:
        with forced(way):
            forest = asked[way] = Forest(arrays)
            assert differing(forest.predict_proba(rows), sure) == 0, (way, estimator)
            assert forest.predict(rows).tolist() == labels.tolist(), (way, estimator)
            assert differing(forest.predict_proba(rows[:7]), sure[:7]) == 0, (way, estimator)
            if way != "grid":
                found, best = one_by_one(forest, rows[single])
                assert differing(found, sure[single]) == 0, (way, estimator)
                assert forest.classes[best].tolist() == labels[single].tolist()
    return asked


def run_program(code, *words, **variables):
    """What `code` prints in a process of its own, with more environment `variables`."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, words)]
    done = subprocess.run(
        command,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
