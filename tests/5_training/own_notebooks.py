"""What the tests of a person's own notebook share: its cells, and the two ways to run them."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

TABLES = Path(__file__).parents[1] / "tables"
BEGIN = "from iris_serve.notebook import begin, keep, split, table\nbegin(globals())"
SPLIT = "X_train, X_test, y_train, y_test = split()"
LINE = """from sklearn.linear_model import LogisticRegression
model = LogisticRegression(C=C, max_iter=1000).fit(X_train, y_train)"""
MIXED = """from sklearn.compose import make_column_selector as chosen, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
columns = make_column_transformer(
    (make_pipeline(SimpleImputer(), StandardScaler()), chosen(dtype_include="number")),
    (OneHotEncoder(handle_unknown="ignore"), chosen(dtype_exclude="number")),
)
model = make_pipeline(columns, ESTIMATOR).fit(X_train, y_train)"""
IRIS = ("C = 1.0", BEGIN, SPLIT, LINE, "keep(model)")
PENGUINS = (
    'name = "penguins"\ndata = "penguins.csv"\ntarget = "species"\nC = 1.0',
    *(BEGIN, SPLIT),
    MIXED.replace("ESTIMATOR", "LogisticRegression(C=C, max_iter=1000)"),
    "keep(model)",
)
AMES = (
    'name = "ames"\ndata = "ames.csv"\ntarget = "Sale_Price"\nalpha: float = 1',
    *(BEGIN, SPLIT),
    MIXED.replace("ESTIMATOR", "Ridge(alpha)"),
    "keep(model)",
)
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


def written(cells, tagged=0, path="mine.ipynb"):
    """A notebook of `cells`, the one numbered `tagged` with the tag."""
    made = [new_code_cell(code) for code in cells]
    if tagged is not None:
        made[tagged].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=made, metadata={"kernelspec": KERNEL}), path)
    return Path(path)


def run(*words):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def command(*words):
    return run("iris_serve", *words)


def papermill(*words, notebook="mine.ipynb"):
    return run("papermill", notebook, "out.ipynb", "--no-progress-bar", *words)
