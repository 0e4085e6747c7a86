"""Tables with categories, booleans and gaps, for the tests of models."""

from dataclasses import dataclass

import numpy as np

from iris_serve.data.contract import Contract, Feature
from iris_serve.data.table import Table

WORDS = ("", " ", "A", "a", "NaN", "None", "nan", "0", "1.0", "Ä", "日本", "x,y", '"', "b" * 300)


@dataclass(frozen=True)
class Wish:
    """What a random table shall be like."""

    task: str = "classes"
    columns: int = 5
    rows: int = 60
    kinds: tuple[str, ...] = ("number", "boolean", "yes or no", "category", "numbers as names")
    missing: float = 0.3  # the share of columns with gaps
    classes: tuple[object, ...] = ("no", "yes")


def random_feature(rng, name, kind, missing):
    if kind == "number":
        return Feature(name, "", 0.0, 1.0, missing=missing)
    if kind == "boolean":
        return Feature(name, "", 0, 1, "boolean", (False, True), missing)
    if kind == "yes or no":
        return Feature(name, "", 0, 1, "boolean", ("No", "Yes"), missing)
    count = int(rng.integers(1, 6))
    values = sorted(rng.choice(WORDS, count, replace=False).tolist())
    if kind == "numbers as names":
        values = sorted(float(v) for v in rng.choice([0, 1, 2, 3.5, 1e9, -4], count, replace=False))
    return Feature(name, "", 0, count - 1, "category", tuple(values), missing)


def random_column(rng, feature, rows):
    if feature.kind == "number":
        scale = 10.0 ** rng.integers(-3, 6)
        return rng.normal(0, 1, rows).round(int(rng.integers(0, 4))) * scale
    return rng.integers(len(feature.values), size=rows).astype(float)


def random_table(rng, wish=None):
    """A table as `wish` says, whose last half of the columns has something to do with `y`."""
    wish = wish or Wish()
    features, columns = [], []
    for i in range(wish.columns):
        kind, missing = str(rng.choice(wish.kinds)), bool(rng.random() < wish.missing)
        feature = random_feature(rng, f"column {i}", kind, missing)
        column = random_column(rng, feature, wish.rows)
        if feature.kind == "number":
            low, high = float(column.min()), float(column.max())
            feature = Feature(feature.name, "", low, high, missing=missing)
        if missing:
            column[rng.random(wish.rows) < rng.choice([0.05, 0.5, 0.95])] = np.nan
        features.append(feature)
        columns.append(column)
    X = np.column_stack(columns)
    signal = np.nan_to_num(X, nan=-1.0)[:, wish.columns // 2 :].sum(axis=1)
    example = tuple(0.0 if f.kind == "number" else f.values[0] for f in features)
    if wish.task == "number":
        y, classes = signal + rng.normal(0, 0.1, wish.rows), ()
    else:
        order = np.argsort(signal) * len(wish.classes) // wish.rows
        y, classes = np.array(wish.classes)[order], tuple(wish.classes)
    labels = tuple(map(str, classes))
    return Table(X, y, Contract(tuple(features), classes, labels, example, "y"), "random")
