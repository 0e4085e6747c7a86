"""Small tables of random rows."""

import numpy as np

from iris_serve.data.contract import Contract
from iris_serve.data.table import Table, iris


def small(counts):
    """A table of random rows, so many of each class."""
    X = np.random.default_rng(1).uniform(0, 9, (sum(counts.values()), 2))
    y = np.array([c for c, n in counts.items() for _ in range(n)])
    contract = Contract(iris().contract.features[:2], tuple(counts), tuple(counts), (1, 2))
    return Table(X, y, contract, "small")
