"""Measure the frozen forest beside scikit-learn, and the service beside a Flask hello world.

python scripts/measure.py forest     one row and many rows, side by side, as a Markdown table
python scripts/measure.py start      start to first answer, and resident memory of a worker

Each figure is the median of several rounds in which all contestants take turns. The machine is
shared with others, so the ratios mean something, and the single figures little.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 7


def timed(work: Callable[[], Any], least: float = 0.02) -> float:
    """Seconds that one call of `work` takes, called again until `least` seconds are over."""
    calls, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < least or not calls:
        work()
        calls += 1
    return taken / calls


def side_by_side(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median seconds of each of `works`, which take turns."""
    rounds = [{name: timed(work) for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(turn[name] for turn in rounds) for name in works}


def line(*words: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(str(word) for word in words) + " |", flush=True)


def one_row(estimator: Any, forest: Any, row: list[float]) -> list[str]:
    """scikit-learn, a cache miss and a hit for `row`; in microseconds, with ratios."""
    forget = forest.single.remembered.cache_clear

    def miss() -> None:
        forget()
        forest.predict_proba([row])

    works = {
        "sklearn": lambda: estimator.predict_proba([row]),
        "miss": miss,
        "forget": forget,
        "hit": lambda: forest.predict_proba([row]),
    }
    found = side_by_side(works)
    theirs, hit = found["sklearn"], found["hit"]
    missed = found["miss"] - found["forget"]
    figures = [f"{theirs * 1e6:,.0f}"]
    return figures + [f"{s * 1e6:.2f} ({theirs / s:,.0f}×)" for s in (missed, hit)]


def many_rows(estimator: Any, forest: Any, X: Any) -> str:
    """scikit-learn and the forest for `X` after one call to warm up; microseconds a row."""
    forest.predict_proba(X)
    works = {
        "sklearn": lambda: estimator.predict_proba(X),
        "forest": lambda: forest.predict_proba(X),
    }
    found = side_by_side(works)
    theirs, ours = (found[name] / len(X) * 1e6 for name in ("sklearn", "forest"))
    return f"{theirs:.2f} → {ours:.3f} ({theirs / ours:.1f}×)"


def forest_table() -> None:
    """Print what scikit-learn and the frozen forest need for the same rows."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
    from sklearn.ensemble import RandomForestClassifier

    from iris_serve.forest import freeze

    line("data, trees", "leaves", "freeze, ms", "one row, scikit-learn, µs", "miss", "hit", *SIZES)
    line(*["---"] * (6 + len(SIZES)))
    loads = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}
    for name, load in (loads | {"digits": load_digits}).items():
        X, y = load(return_X_y=True)
        rows = np.random.default_rng(0).uniform(X.min(0), X.max(0), (1_000_000, X.shape[1]))
        for trees in (20, 100, 500):
            estimator = RandomForestClassifier(trees, random_state=0, n_jobs=1).fit(X, y)
            freezing = timed(lambda e=estimator: freeze(e))
            forest = freeze(estimator)
            row = rows[0].tolist()
            some = [many_rows(estimator, forest, rows[:n]) for n in SIZES.values() if n < 10**5]
            # A million rows take scikit-learn minutes on wide data; iris is what was promised.
            large = many_rows(estimator, freeze(estimator), rows) if name == "iris" else "–"
            leaves = len(forest.arrays.values)
            found = one_row(estimator, forest, row)
            line(f"{name}, {trees}", leaves, f"{freezing * 1e3:.0f}", *found, *some, large)


SIZES = {"100 rows": 100, "10,000 rows": 10_000, "1,000,000 rows": 1_000_000}

if __name__ == "__main__":
    forest_table()
