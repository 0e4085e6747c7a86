"""Forests of real tables: missing values, categories, numbers to predict, and very many classes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas
import pytest
from forests import WAYS, dataset, differing, forced, run_program
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble, tree
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from iris_serve.data.contract import FLOAT32_LIMIT
from iris_serve.data.rows import RowError
from iris_serve.forest import Forest, freeze
from iris_serve.forest.checks import check_arrays, leaf_spans, make_plan, node_samples
from iris_serve.forest.format import decode, encode
from iris_serve.forest.leaves import Masks, Walk
from iris_serve.forest.trees import (
    ForestError,
    FreezeError,
    SparseValues,
    fitted_trees,
    gather_arrays,
    preorder,
    tree_order,
)

pytestmark = pytest.mark.filterwarnings("ignore:The number of unique classes is greater")
DATA = Path(__file__).parent / "data"
FORESTS = ("RandomForest", "ExtraTrees")
SINGLE = ("DecisionTree", "ExtraTree")
TEXTS = ["", " ", "a", "a\0", "no", "yes", "NA", "nan", "None", "é", "\U0001f33c", "1", "1.0", '"']
NAN = float("nan")


def counts(fraction, full):
    """Run with a `fraction` of the `full` count; with all of it only for slow tests."""
    return pytest.mark.parametrize("count", [fraction, pytest.param(full, marks=pytest.mark.slow)])


def kind_of(name):
    return getattr(ensemble, name, None) or getattr(tree, name)


def estimator_of(rng, task):
    """Any estimator that can be frozen, with random parameters."""
    name = str(rng.choice([*FORESTS, *SINGLE]))
    criteria = ["gini", "entropy"] if task == "Classifier" else ["squared_error", "friedman_mse"]
    chosen = {
        "max_depth": rng.choice([None, 1, 2, 5, 20]),
        "criterion": str(rng.choice(criteria[: 2 if task == "Classifier" else 1])),
        "max_leaf_nodes": rng.choice([None, None, 2, 9]),
        "min_samples_leaf": int(rng.choice([1, 1, 3])),
        "max_features": rng.choice([None, "sqrt", 1]),
        "random_state": int(rng.integers(1 << 31)),
    }
    if name in FORESTS:
        chosen |= {"n_estimators": int(rng.choice([1, 2, 5, 15]))}
        chosen |= {"bootstrap": bool(rng.integers(2))}
    return kind_of(name + task)(**chosen)


class Drawn:
    """A random mixed table: `codes` (rows, columns), and what they stand for in a data frame."""

    def __init__(self, rng, rows, columns, kinds, gaps):
        self.rng, self.kinds = rng, [str(kind) for kind in rng.choice(kinds, columns)]
        self.values = [self.values_of(kind) for kind in self.kinds]
        self.gaps = rng.choice([0.0, 0.0, 0.2, 1.0] if gaps else [0.0], columns, p=None)
        self.codes = self.draw(rows)

    def values_of(self, kind):
        if kind == "boolean":
            return [False, True]
        if kind == "category":
            chosen = self.rng.permutation(len(TEXTS))[: self.rng.integers(1, 8)]
            return sorted(TEXTS[place] for place in chosen)
        if kind == "numbers that are names":
            return sorted({float(n) for n in self.rng.integers(-3, 3000, 5)})
        return []

    def draw(self, rows, gaps=None):
        codes = np.empty((rows, len(self.kinds)))
        for column, (kind, values) in enumerate(zip(self.kinds, self.values, strict=True)):
            if values:
                codes[:, column] = self.rng.integers(len(values), size=rows)
            elif kind == "constant":
                codes[:, column] = 7.5
            else:
                scale = 10.0 ** self.rng.integers(-3, 5)
                codes[:, column] = (self.rng.normal(size=rows) * scale).round(1)
        where = self.rng.random(codes.shape) < (self.gaps if gaps is None else gaps)
        codes[where] = np.nan
        return codes

    def frame(self, codes):
        """The data frame that a Pipeline gets."""
        columns = {}
        for number, (kind, values) in enumerate(zip(self.kinds, self.values, strict=True)):
            column = codes[:, number]
            if values:
                cells = [NAN if code != code else values[int(code)] for code in column]
                floats = kind == "numbers that are names"
                whole = kind == "boolean" and not self.missing
                column = pandas.Series(cells, dtype=float if floats else bool if whole else object)
            columns[f"column {number}"] = column
        return pandas.DataFrame(columns)

    def encoder(self, columns):
        values = []
        for number in columns:
            kind = float if self.kinds[number] == "numbers that are names" else object
            found = [*self.values[number], NAN] if self.missing else self.values[number]
            values.append(np.array(found, dtype=kind))
        unknown = {"handle_unknown": "use_encoded_value", "unknown_value": NAN}
        return OrdinalEncoder(categories=values, **unknown if self.missing else {})

    @property
    def missing(self):
        return bool(self.gaps.any())

    def pipeline(self, estimator):
        """`estimator` behind an encoder, its columns in the table's order or in another one."""
        numbers, parts = list(range(len(self.kinds))), []
        if self.rng.integers(2):
            self.rng.shuffle(numbers)
        while numbers:
            coded = bool(self.values[numbers[0]])
            run = [numbers.pop(0)]
            while numbers and bool(self.values[numbers[0]]) == coded and self.rng.integers(4):
                run.append(numbers.pop(0))
            names = [f"column {number}" for number in run]
            part = self.encoder(run) if coded else "passthrough"
            parts.append((f"part {len(parts)}", part, names))
        codes = ColumnTransformer(parts, verbose_feature_names_out=False)
        return Pipeline([("codes", codes), ("forest", estimator)])


def targets(rng, task, rows):
    """What is to be predicted: numbers of any magnitude, or up to many classes."""
    if task == "Regressor":
        scale = 10.0 ** rng.integers(-300, 100) if rng.random() < 0.2 else 100.0
        return rng.normal(size=rows).round(2) * scale
    y = rng.integers(rng.choice([1, 2, 5, 40]), size=rows)
    return [y, y == 0, y * 2.0, np.array([f"class {label}" for label in y])][rng.integers(4)]


def assert_answers(forest, ask, rows, task):
    """`forest` answers `rows` as `ask` does: all at once, few, and one by one."""
    sure = ask.predict(rows)
    assert forest.predict(rows.codes).tolist() == sure.tolist()
    if task == "Regressor":
        sure = sure[:, None]
        found = forest.predict(rows.codes)[:, None]
        few = np.concatenate([forest.predict(rows.codes[:5])[:, None]])
        alone = [[forest.ask(row).number] for row in rows.codes.tolist()]
    else:
        sure = ask.predict_proba(rows)
        found, few = forest.predict_proba(rows.codes), forest.predict_proba(rows.codes[:5])
        alone = [forest.ask(row).probabilities[0] for row in rows.codes.tolist()]
    assert differing(found, sure) == 0
    assert differing(few, np.ascontiguousarray(sure[:5])) == 0
    assert differing(np.array(alone), sure) == 0


class Asked:
    """An estimator that is asked codes, in the form that it wants."""

    def __init__(self, estimator, drawn, as_frame):
        self.estimator, self.drawn, self.as_frame = estimator, drawn, as_frame

    def form(self, rows):
        return self.drawn.frame(rows.codes) if self.as_frame else rows.codes

    def predict(self, rows):
        return self.estimator.predict(self.form(rows))

    def predict_proba(self, rows):
        return self.estimator.predict_proba(self.form(rows))


class Rows:
    def __init__(self, codes):
        self.codes = codes


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = draw(st.one_of(st.integers(1, 8), st.integers(1, 200)))
    rows = draw(st.integers(1, 60))
    kinds = ["number", "number", "constant"]
    if draw(st.booleans()):
        kinds += ["boolean", "category", "category", "numbers that are names"]
    drawn = Drawn(rng, rows, columns, kinds, gaps=draw(st.booleans()))
    return drawn, draw(st.sampled_from(["Classifier", "Regressor"])), draw(st.booleans())


@counts(50, 4_000)
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore:.*overflow")
def test_any_table_is_answered_bit_for_bit_in_every_way(count):
    @settings(max_examples=count, deadline=None, print_blob=True)
    @given(tables())
    def holds(case):
        drawn, task, sparse = case
        rng, mixed = drawn.rng, any(drawn.values)
        estimator = estimator_of(rng, task)
        y = targets(rng, task, len(drawn.codes))
        if mixed:
            estimator = drawn.pipeline(estimator).fit(drawn.frame(drawn.codes), y)
        else:
            estimator.fit(drawn.codes, y)
        more = drawn.draw(12, gaps=rng.random() if drawn.missing else 0.0)
        rows = Rows(np.concatenate([drawn.codes, more]))
        with mock.patch("iris_serve.forest.trees.DENSE_BYTES", 0 if sparse else 1 << 24):
            arrays = freeze(estimator, missing=drawn.missing).arrays
        assert arrays.n_features == len(drawn.kinds)
        wanted = tuple(map(tuple, drawn.values)) if mixed else ()
        assert arrays.categories == wanted
        data = encode(arrays)
        again = decode(data)
        assert encode(again) == data
        for way in WAYS:
            with forced(way):
                forest = Forest(again)
                assert forest.task == ("classes" if task == "Classifier" else "number")
                assert_answers(forest, Asked(estimator, drawn, mixed), rows, task)
        if task == "Regressor":
            check_spread(forest, estimator, drawn, mixed, rows)

    holds()


def check_spread(forest, estimator, drawn, mixed, rows):
    last = estimator[-1] if mixed else estimator
    inside = estimator[:-1].transform(drawn.frame(rows.codes)) if mixed else rows.codes
    inside = np.asarray(inside, dtype=np.float32)
    members = getattr(last, "estimators_", [last])
    each = np.array([member.tree_.predict(inside)[:, 0] for member in members]).T
    spread = np.ascontiguousarray(each + 0.0).std(axis=1)
    assert differing(forest.spread(rows.codes), spread) == 0
    alone = [forest.spread([row])[0] for row in rows.codes.tolist()]
    assert differing(np.array(alone), spread) == 0


@pytest.mark.parametrize("task", ["Classifier", "Regressor"])
@pytest.mark.parametrize("name", [*FORESTS, *SINGLE])
def test_missing_values_that_training_never_saw_are_answered_as_the_estimator_does(name, task):
    X, y = dataset("wine")
    estimator = kind_of(name + task)(max_depth=6, random_state=0).fit(X, y)
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    holes[0] = np.nan
    for way in WAYS:
        with forced(way):
            forest = freeze(estimator, missing=True)
            asked = Asked(estimator, None, as_frame=False)
            assert_answers(forest, asked, Rows(holes), task)
            assert_answers(forest, asked, Rows(np.asarray(X)), task)


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_value_is_not_taken_for_one_that_is_too_low_or_too_high(way):
    X, y = dataset("iris")
    with forced(way):
        forest = freeze(tree.DecisionTreeClassifier(random_state=0).fit(X, y), missing=True)
        row = X[60].tolist()
        for feature in range(4):
            gap = [*row[:feature], NAN, *row[feature + 1 :]]
            sure = forest.ask(gap).probabilities.tolist()
            for wrong in (-np.inf, np.inf, FLOAT32_LIMIT, -FLOAT32_LIMIT, -1e39, 1e300):
                broken = [*row[:feature], wrong, *row[feature + 1 :]]
                words = f"feature {feature}: must be a number that a 32-bit float can hold"
                for rows in ([broken], [gap, broken], [gap] * 40 + [broken]):
                    with pytest.raises(RowError, match=f"row {len(rows) - 1}, {words}"):
                        forest.predict(rows)
                    with pytest.raises(RowError, match=f"row {len(rows) - 1}, {words}"):
                        forest.predict(np.array(rows))
            assert forest.ask(gap).probabilities.tolist() == sure
            lowest = [*row[:feature], -3.4e38, *row[feature + 1 :]]
            assert forest.single.recall(lowest) is not forest.single.recall(gap)


def test_a_forest_that_was_not_told_of_missing_values_refuses_them():
    X, y = dataset("iris")
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.3, np.nan, X)
    forest = freeze(ensemble.RandomForestClassifier(5, random_state=0).fit(holes, y))
    assert forest.arrays.missing is None
    for rows in (holes[~np.isfinite(holes).all(axis=1)][:1], holes):
        with pytest.raises(RowError, match="must be a number that a 32-bit float can hold"):
            forest.predict(rows)


def test_no_grid_is_made_where_values_may_be_missing_or_there_are_very_many_classes():
    X, y = dataset("iris")
    estimator = ensemble.RandomForestClassifier(5, random_state=0).fit(X, y)
    with forced("grid"):
        taking = freeze(estimator, missing=True)
        with mock.patch("iris_serve.forest.trees.DENSE_BYTES", 0):
            many = tree.DecisionTreeClassifier().fit(X, np.arange(150))
            sparse = freeze(many)
        for forest in (taking, sparse):
            forest.predict(np.tile(X, (100, 1)))
            assert forest.batch.grid is None
    assert isinstance(sparse.arrays.values, SparseValues)


# Numbers


def test_negative_zeros_are_answered_as_the_estimator_does():
    X = np.array([[0.0], [1.0], [2.0], [3.0]])
    y = np.array([-5e-324, 0.0, 1.0, 2.0])
    chosen = {"min_samples_leaf": 2, "random_state": 0}
    for estimator in (
        tree.DecisionTreeRegressor(**chosen),
        ensemble.RandomForestRegressor(1, bootstrap=False, **chosen),
        ensemble.RandomForestRegressor(3, bootstrap=False, **chosen),
    ):
        estimator.fit(X, y)
        for way in WAYS:
            with forced(way):
                forest = freeze(estimator)
                sure = estimator.predict(X)
                assert differing(forest.predict(np.tile(X, (20, 1)))[:4], sure) == 0
                assert differing(np.array([forest.ask(x).number for x in X.tolist()]), sure) == 0
    assert np.signbit(tree.DecisionTreeRegressor(**chosen).fit(X, y).predict(X[:1]))[0]


@pytest.mark.parametrize("criterion", ["squared_error", "absolute_error", "poisson"])
def test_regressors_of_every_criterion_are_answered_bit_for_bit(criterion):
    X, _ = dataset("cancer")
    for name in (*FORESTS, *SINGLE):
        if name.startswith("Extra") and criterion == "poisson":
            continue
        estimator = kind_of(f"{name}Regressor")(criterion=criterion, max_depth=5, random_state=1)
        estimator.fit(X[:200, 1:], X[:200, 0])
        for way in WAYS:
            with forced(way):
                found = freeze(estimator).predict(X[:, 1:])
                assert differing(found, estimator.predict(X[:, 1:])) == 0


def test_a_number_beyond_all_measure_is_refused():
    estimator = tree.DecisionTreeRegressor().fit([[0.0], [1.0]], [1e200, 0.0])
    with pytest.raises(FreezeError, match="the number of a leaf is out of range"):
        freeze(estimator)


def test_a_forest_of_numbers_has_no_probabilities_and_one_of_classes_no_spread():
    numbers = freeze(tree.DecisionTreeRegressor().fit([[0.0], [1.0]], [1.0, 0.0]))
    classes = freeze(tree.DecisionTreeClassifier().fit([[0.0], [1.0]], [1, 0]))
    with pytest.raises(TypeError, match="no probabilities"):
        numbers.predict_proba([[0.0]])
    with pytest.raises(TypeError, match="only numbers have a spread"):
        classes.spread([[0.0]])
    answer = numbers.predict([[0.0]])
    answer[0] = 7.0
    assert numbers.predict([[0.0]]).tolist() == [1.0]
    assert numbers.predict(np.empty((0, 1))).shape == numbers.spread(np.empty((0, 1))).shape == (0,)


# Shapes of trees


def random_nodes(rng, most):
    """Some whole trees in pre-order, and for each node its depth, right side and leaves' end."""
    nodes = []
    for _ in range(rng.integers(1, 5)):
        open_ends, lean = 1, rng.choice([0.3, 0.48, 0.6])
        while open_ends:
            inner = rng.random() < lean and len(nodes) < most
            nodes.append(0 if inner else -1)
            open_ends += 1 if inner else -1
    return np.array(nodes, np.int32)


def plan_by_hand(nodes):
    """What `make_plan` and `leaf_spans` say, found by going down one node after the other."""
    right, spans, roots, deepest = [0] * len(nodes), [None] * len(nodes), [], 0
    leaf, waiting, number = 0, [], 0

    def down(number, leaf, depth):
        nonlocal deepest
        deepest = max(deepest, depth)
        if nodes[number] < 0:
            right[number], spans[number] = leaf, (leaf, leaf + 1, leaf + 1)
            return number + 1, leaf + 1
        end, middle = down(number + 1, leaf, depth + 1)
        right[number] = end
        last, after = down(end, middle, depth + 1)
        spans[number] = (leaf, middle, after)
        return last, after

    while number < len(nodes):
        roots.append(number)
        number, leaf = down(number, leaf, 0)
    assert not waiting
    return right, roots, deepest, spans


@settings(max_examples=200, deadline=None, print_blob=True)
@given(st.integers(0, 2**32 - 1))
def test_the_plan_of_any_trees_is_the_one_that_is_found_by_hand(seed):
    rng = np.random.default_rng(seed)
    nodes = random_nodes(rng, most=200)
    right, roots, deepest, spans = plan_by_hand(nodes.tolist())
    plan = make_plan(nodes)
    assert (plan.right.tolist(), plan.roots.tolist(), plan.depth) == (right, roots, deepest)
    arrays = gather_arrays(tree.DecisionTreeClassifier().fit([[0.0]], [0]))
    arrays = replace(arrays, nodes=nodes, values=np.ones((int((nodes < 0).sum()), 1)))
    assert leaf_spans(arrays, plan).tolist() == [list(span) for span in spans]
    for end in rng.integers(1, len(nodes) + 1, 5).tolist():
        if end in [*roots, len(nodes)]:
            continue
        with pytest.raises(ForestError, match="the nodes end within a tree"):
            make_plan(nodes[:end])


@pytest.mark.parametrize("leaves", [None, 30])
def test_the_order_of_the_nodes_and_their_training_rows_are_those_of_the_estimator(leaves):
    X, y = dataset("digits")
    estimator = ensemble.RandomForestClassifier(7, max_leaf_nodes=leaves, random_state=0).fit(X, y)
    trees, arrays = fitted_trees(estimator), gather_arrays(estimator)
    order = []
    for number, member in enumerate(trees):
        offset, waiting = sum(t.node_count for t in trees[:number]), [0]
        while waiting:
            node = waiting.pop()
            order.append(node + offset)
            if member.children_left[node] >= 0:
                waiting += [member.children_right[node], member.children_left[node]]
    assert tree_order(trees).tolist() == order
    samples = np.concatenate([member.n_node_samples for member in trees])[order]
    assert (node_samples(arrays, check_arrays(arrays)) == samples).all()


def test_pre_order_of_a_single_node_is_that_node():
    one = np.array([-1], np.int32)
    assert preorder(np.array([0], np.int32), one, one).tolist() == [0]


# Many classes


def countries(rng, rows=400, classes=142):
    X = rng.normal(size=(rows, 5)).round(2)
    return X, np.arange(rows) % classes


@pytest.mark.parametrize("kind", [ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier])
@pytest.mark.parametrize("depth", [None, 4, 1])
def test_many_classes_are_answered_bit_for_bit_without_their_zeros(kind, depth):
    X, y = countries(np.random.default_rng(0))
    estimator = kind(20, max_depth=depth, random_state=0).fit(X, y)
    dense = freeze(estimator)
    with mock.patch("iris_serve.forest.trees.DENSE_BYTES", 0):
        sparse = freeze(estimator)
    assert isinstance(dense.arrays.values, np.ndarray)
    assert isinstance(sparse.arrays.values, SparseValues) == (depth != 1)
    for rows in (X, np.tile(X, (10, 1)), X[:1], X[:9]):
        assert differing(sparse.predict_proba(rows), estimator.predict_proba(rows)) == 0
        assert sparse.predict(rows).tolist() == estimator.predict(rows).tolist()
    assert [sparse.ask(x).best for x in X.tolist()] == [dense.ask(x).best for x in X.tolist()]


def test_a_file_without_zeros_is_small_and_comes_back():
    X, y = countries(np.random.default_rng(0), rows=1000)
    estimator = ensemble.RandomForestClassifier(30, random_state=0).fit(X, y)
    arrays = gather_arrays(estimator)
    assert isinstance(arrays.values, SparseValues)
    data = encode(arrays)
    assert len(data) < arrays.values.shape[0] * 142 * 8 / 10
    assert encode(decode(data)) == data
    again = Forest(decode(data))
    assert differing(again.predict_proba(X), estimator.predict_proba(X)) == 0


MEMORY = """
import re
from pathlib import Path
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from iris_serve.forest import Forest, freeze
from iris_serve.forest.format import decode, encode

def peak():  # getrusage would count what the parent had when it forked
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

rng, country = np.random.default_rng(0), np.arange(1704) // 12
X = rng.normal(size=(142, 5))[country] + 0.3 * rng.normal(size=(1704, 5))
start = peak()
estimator = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(X, country)
fitted = peak()
forest = Forest(decode(encode(freeze(estimator).arrays)))
assert (forest.predict_proba(X[:9]) == estimator.predict_proba(X[:9])).all()
print(start, fitted, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_forest_of_142_classes_takes_little_memory_to_freeze():
    start, fitted, frozen = map(int, run_program(MEMORY).split())
    assert frozen - start < 2 * (fitted - start)


SPARSE = SparseValues(
    np.array([0, 2, 3], np.int32),
    np.array([0, 2, 1], np.int32),
    np.array([0.5, 0.5, 1.0]),
    width=3,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"starts": [1, 2, 3]}, "the entries of the leaves are not in order"),
        ({"starts": [0, 3, 3]}, "the entries of the leaves are not in order"),
        ({"starts": [0, 2, 4]}, "the entries of the leaves are not in order"),
        ({"starts": [0, 2**31 - 1, 3]}, "the entries of the leaves are not in order"),
        ({"starts": [0, -(2**31), 3]}, "the entries of the leaves are not in order"),
        ({"columns": [2, 0, 1]}, "the entries of a leaf are not in order"),
        ({"columns": [1, 1, 1]}, "the entries of a leaf are not in order"),
        ({"columns": [0, 3, 1]}, "an entry belongs to no class"),
        ({"columns": [-1, 2, 1]}, "an entry belongs to no class"),
        ({"fractions": [1.0, 0.0, 1.0]}, "an entry is 0"),
        ({"fractions": [1.5, -0.5, 1.0]}, "a fraction is below 0"),
        ({"fractions": [0.5, 0.5, NAN]}, "fractions do not add up to 1"),
        ({"fractions": [0.5, 0.5, np.inf]}, "fractions do not add up to 1"),
        ({"fractions": [0.5, 0.4, 1.0]}, "fractions do not add up to 1"),
        ({"fractions": [0.5, 0.5]}, "values has a wrong type or size"),
        ({"starts": [[0, 2, 3]]}, "values has a wrong type or size"),
        ({"starts": []}, "values has a wrong type or size"),
        ({"starts": [0, 3]}, "leaves and values differ in number"),
    ],
)
def test_impossible_values_without_zeros_are_refused(changes, words):
    whole = gather_arrays(tree.DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1]))
    whole = replace(whole, classes=(0, 1, 2), samples=None)
    assert Forest(decode(encode(replace(whole, values=SPARSE)))).predict([[0.0]]).tolist() == [0]
    changed = {name: np.array(new, getattr(SPARSE, name).dtype) for name, new in changes.items()}
    if "starts" in changes and len(changes["starts"]) == 2:
        changed["columns"] = np.array([0, 1, 2], np.int32)
    with pytest.raises(ForestError, match=words):
        Forest(decode(encode(replace(whole, values=replace(SPARSE, **changed)))))


# Files


def test_a_file_of_format_1_is_read_and_can_be_written_again():
    data = (DATA / "format-1.safetensors").read_bytes()
    asked = json.loads((DATA / "format-1.json").read_text(encoding="utf-8"))
    arrays = decode(data)
    assert (arrays.missing, arrays.samples, arrays.categories) == (None, None, ())
    assert encode(arrays, old=True) == data
    newer = encode(arrays)
    assert newer != data
    assert encode(decode(newer), old=True) == data
    for forest in (Forest.load(DATA / "format-1.safetensors"), Forest(decode(newer))):
        assert differing(forest.predict_proba(asked["rows"]), np.array(asked["probabilities"])) == 0
        assert forest.predict(asked["rows"]).tolist() == asked["labels"]


def test_what_format_1_cannot_hold_is_not_written_as_such():
    X, y = dataset("iris")
    classifier = tree.DecisionTreeClassifier().fit(X, y)
    encoded = replace(gather_arrays(classifier), categories=(("a",), (), (), ()))
    for arrays in (
        gather_arrays(classifier, missing=True),
        gather_arrays(tree.DecisionTreeRegressor().fit(X, y)),
        encoded,
    ):
        with pytest.raises(ForestError, match="a file of format 1 cannot hold this forest"):
            encode(arrays, old=True)


@pytest.mark.parametrize(
    "categories",
    [
        (("a", "a"), (), (), ()),
        (("a", 1), (), (), ()),
        ((NAN,), (), (), ()),
        ((np.inf,), (), (), ()),
        (("\ud800",), (), (), ()),
        ((2**70,), (), (), ()),
        ((0.0, -0.0), (), (), ()),
        (("a",),),
        ((), (), (), ()),
        ((("a",),), (), (), ()),
        ((tuple("x" * 1000 + str(n) for n in range(100_000))), (), (), ()),
    ],
)
def test_categories_that_no_file_can_hold_are_refused(categories):
    arrays = gather_arrays(tree.DecisionTreeClassifier().fit(*dataset("iris")))
    with pytest.raises(ForestError, match="categories has a wrong type or size"):
        Forest(replace(arrays, categories=categories))


@pytest.mark.parametrize("classes", [["\ud800", "b"], [2**70, 1]])
def test_classes_that_no_file_can_hold_are_refused(classes):
    estimator = tree.DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    estimator.classes_ = np.array(classes, object)
    with pytest.raises(FreezeError, match="classes has a wrong type or size"):
        freeze(estimator)


def test_odd_categories_come_back_from_a_file():
    arrays = gather_arrays(tree.DecisionTreeClassifier().fit(*dataset("iris")))
    categories = (tuple(TEXTS), (False, True), (-1.5, 0.0, 1e300), (-(2**63), 2**64 - 1))
    assert decode(encode(replace(arrays, categories=categories))).categories == categories


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missing": lambda a: ~a.missing}, "a leaf sends missing values on"),
        ({"missing": lambda a: a.missing[:-1]}, "missing has a wrong type or size"),
        ({"samples": lambda a: -a.samples}, "a leaf has less than no training rows"),
        ({"samples": lambda a: a.samples.astype(np.int64)[:-1]}, "samples has a wrong type"),
        ({"classes": lambda a: ()}, "values has a wrong type or size"),
    ],
)
def test_what_is_new_in_format_2_is_checked(changes, words):
    arrays = gather_arrays(tree.DecisionTreeClassifier().fit(*dataset("iris")), missing=True)
    wrong = replace(arrays, **{name: change(arrays) for name, change in changes.items()})
    with pytest.raises(ForestError, match=words):
        Forest(decode(encode(wrong)))


@pytest.mark.parametrize("number", [NAN, np.inf, -np.inf, 1e151, -1.7e308])
def test_impossible_numbers_of_leaves_are_refused(number):
    arrays = gather_arrays(tree.DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 1.0]))
    with pytest.raises(ForestError, match="the number of a leaf is out of range"):
        Forest(decode(encode(replace(arrays, values=np.array([[0.0], [number]])))))


# Pipelines


def test_columns_may_be_given_by_number_slice_or_mask_and_be_left_out():
    drawn = Drawn(np.random.default_rng(3), 80, 4, ["number"], gaps=False)
    y = drawn.codes[:, 2] > 0
    for columns, used in (
        ([3, 1], {1, 3}),
        (slice(1, 3), {1, 2}),
        ([True, False, False, True], {0, 3}),
    ):
        parts = ColumnTransformer([("some", "passthrough", columns)])
        forest = ensemble.RandomForestClassifier(5, random_state=0)
        pipeline = Pipeline([("parts", parts), ("forest", forest)]).fit(drawn.codes, y)
        frozen = freeze(pipeline)
        assert frozen.arrays.n_features == 4
        assert {*frozen.arrays.features.tolist()} <= used
        assert (
            differing(frozen.predict_proba(drawn.codes), pipeline.predict_proba(drawn.codes)) == 0
        )


def test_an_unfitted_pipeline_is_refused():
    with pytest.raises(FreezeError, match="not fitted yet"):
        freeze(Pipeline([("forest", ensemble.RandomForestClassifier())]))
    with pytest.raises(FreezeError, match="a Pipeline without an estimator"):
        freeze(Pipeline([("nothing", "passthrough")]))


def test_missing_values_are_asked_of_an_estimator_that_takes_none():
    careful = tree.ExtraTreeClassifier(splitter="best").fit(*dataset("iris"))
    with pytest.raises(FreezeError, match="takes no missing values"):
        freeze(careful, missing=True)
    assert freeze(careful).arrays.missing is None


def test_both_finders_agree_about_missing_values_on_every_feature():
    X, y = dataset("cancer")
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    arrays = gather_arrays(ensemble.ExtraTreesClassifier(9, random_state=0).fit(holes, y), True)
    plan = check_arrays(arrays)
    ends = [count + 3 for count in arrays.counts()]
    positions = np.array([rng.choice([*range(1, end - 1), end], 3000) for end in ends])
    masks, walk = Masks(arrays, plan), Walk(arrays, plan)
    assert (masks.many(positions) == walk.many(positions)).all()
    assert (masks.one(tuple(positions[:, 0])) == walk.one(tuple(positions[:, 0]))).all()
