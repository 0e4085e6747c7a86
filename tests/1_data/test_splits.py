"""Which rows are held out."""

import numpy as np
import pytest
from small_tables import small

from iris_serve.data.table import held_out, iris, split


def test_rows_with_equal_values_are_on_one_side_of_the_split():
    X = np.repeat(iris().X, 2, axis=0)
    sides = held_out(X, 0.3).reshape(-1, 2)
    assert (sides[:, 0] == sides[:, 1]).all()


def test_a_split_with_an_empty_side_is_refused_with_the_size_of_the_table():
    table = small({"a": 5, "b": 5})
    with pytest.raises(ValueError, match="holds out none of the 10 rows: use more rows or another"):
        split(table, 0.0001)
    with pytest.raises(ValueError, match="leaves no row of class 'a' to learn from, of 10 rows"):
        split(table, 0.9999)
