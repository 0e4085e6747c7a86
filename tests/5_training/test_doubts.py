"""A model of a notebook of one's own is doubted where there is a reason, and nowhere else."""

import json
from pathlib import Path

import pytest
from own_notebooks import AMES, BEGIN, IRIS, LINE, PENGUINS, SPLIT, command, written
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from iris_serve.model.card import describe_estimator, read_card, retraining_notebook
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry
from iris_serve.training.doubts import SEEN, always_random, may_have_seen, unseeded

FOREST = """from sklearn.ensemble import RandomForestClassifier
model = RandomForestClassifier(20).fit(X_train, y_train)"""
LOOK = "X, y = table()\nX.mean(axis=0), len(X), y[:5]"
KEEP = "keep(model)"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("estimator", "found"),
    [
        (RandomForestClassifier(), ["RandomForestClassifier"]),
        (RandomForestClassifier(random_state=0), []),
        (GridSearchCV(ExtraTreesRegressor(), {}), ["ExtraTreesRegressor"]),
        (
            VotingClassifier([("a", MLPClassifier()), ("b", SGDClassifier())]),
            ["MLPClassifier", "SGDClassifier"],
        ),
        (BaggingClassifier(MLPClassifier(), random_state=0), []),
        (BaggingClassifier(MLPClassifier()), ["BaggingClassifier", "MLPClassifier"]),
        (LogisticRegression(), []),
        (DecisionTreeClassifier(), []),
        (GradientBoostingClassifier(), []),
        (HistGradientBoostingClassifier(), []),
        (KNeighborsClassifier(), []),
    ],
    ids=str,
)
def test_only_an_estimator_that_always_draws_lots_is_noted_at_training(estimator, found):
    assert sorted(always_random(describe_estimator(estimator))) == found


def test_the_random_state_of_a_part_is_found_by_its_parameter():
    search = GridSearchCV(VotingClassifier([("a", DecisionTreeClassifier())]), {})
    assert unseeded(describe_estimator(search).parameters) == ["estimator__a__random_state"]


def test_a_forest_without_a_random_state_is_named_when_it_is_made_and_made_again(here):
    written(("trees = 20", BEGIN, SPLIT, FOREST, KEEP))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    cure = "RandomForestClassifier has no random_state: set one in the notebook, such as "
    assert f"iris can't be made again exactly, as {cure}random_state=seed\n" in done.stderr
    done = command("reproduce", "1")
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    assert lines
    assert all(line.startswith("result: ") for line in lines)
    assert last == f"{cure}random_state=seed"


QUIET = {
    "five cells": IRIS,
    "a pipeline": PENGUINS,
    "numbers": AMES,
    "a look before": (*IRIS[:2], LOOK, *IRIS[2:]),
    "a look beside": (*IRIS[:3], LOOK, *IRIS[3:]),
    "a picture": (*IRIS[:3], "X, y = table()\nP = PCA().fit_transform(X)", *IRIS[3:]),
    "tried on all rows before": (
        *(*IRIS[:2], "X, y = table()\nmodel = LR().fit(X, y)"),
        *(SPLIT, "model.fit(X_train, y_train)", KEEP),
    ),
    "scored by hand": (*IRIS[:4], "score = model.score(X_test, y_test)", KEEP),
    "names of columns": (
        *(*IRIS[:2], "X, y = table()\nnames = list(X.columns)\nkinds = np.unique(y)", SPLIT),
        "model = LR().fit(X_train[names], y_train)",
        *("model.partial_fit(X_train, y_train, kinds)", KEEP),
    ),
    "folds of the rows to learn from": (
        *(SPLIT, "for a, b in KFold().split(X_train):\n    LR().fit(X_train[a], y_train[a])"),
        *("A, B, c, d = train_test_split(X_train, y_train)", "model = LR().fit(A, c)", KEEP),
    ),
    "the same names": (
        *("X, y = table()", "X, X_test, y, y_test = split()", "model = LR().fit(X, y)", KEEP),
    ),
    "the verbs of a run": (
        *("run = begin(globals())", "rows = run.table()", "train, test = run.split()"),
        *("run.fit(rows, Dummy())", "model = run.fit(train, LR())", "run.keep(model)"),
    ),
    "tried after it was kept": (*IRIS, "model.fit(*table())"),
}
SEES = {
    "once more on all rows": (*IRIS[:4], "model.fit(*table())", KEEP),
    "on all rows": (*IRIS[:3], LOOK, "model = LR()", "model.fit(X, y)", KEEP),
    "in keep": (SPLIT, LOOK, "keep(LR().fit(X, y))"),
    "on the held-out rows": (*IRIS[:4], "model.partial_fit(X_test, y_test)", KEEP),
    "on both parts": (*IRIS[:3], "model = LR().fit(np.vstack([X_train, X_test]), yy)", KEEP),
    "a split of its own": (
        *("X, y = table()", "A, B, c, d = train_test_split(X, y)", SPLIT),
        *("model = LR().fit(A, c)", KEEP),
    ),
    "a search": (
        *(SPLIT, "search = GridSearchCV(LR(), {})\nsearch.fit(*table())"),
        "keep(search.best_estimator_)",
    ),
    "rows to stop by": (
        SPLIT,
        "model = XGB().fit(X_train, y_train, eval_set=[(X_test, y_test)])",
        KEEP,
    ),
    "in a loop": (
        SPLIT,
        LOOK,
        "for C in (1, 2):\n    if C > 1:\n        model = LR(C).fit(X, y)",
        KEEP,
    ),
    "by a function": (SPLIT, LOOK, "model = fit_line(X, y)", KEEP),
    "the verbs of a run": (
        *("run = begin(globals())", "train, test = run.split()"),
        *("model = run.fit(run.table(), LR())", "run.keep(model)"),
    ),
}


@pytest.mark.parametrize("name", QUIET)
def test_a_notebook_that_fits_on_the_rows_to_learn_from_is_not_doubted(name):
    assert not may_have_seen(QUIET[name])


@pytest.mark.parametrize("name", SEES)
def test_a_notebook_that_fits_on_held_out_rows_is_doubted(name):
    assert may_have_seen(SEES[name])


@pytest.mark.parametrize("name", ["retrain.ipynb", "tour.ipynb"])
def test_the_notebooks_of_the_project_are_not_doubted(name):
    cells = json.loads((retraining_notebook().parent / name).read_text(encoding="utf-8"))["cells"]
    assert not may_have_seen(["".join(c["source"]) for c in cells if c["cell_type"] == "code"])


def test_a_model_that_may_have_seen_the_held_out_rows_is_told_and_treated_as_one_from_outside(here):
    registry, seeing = Registry(Path("models")), (*IRIS[:4], "model.fit(*table())", KEEP)
    written(seeing)
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.stdout.endswith(f"promoted: the first version; {SEEN}\n")
    assert read_card(registry.path(1)).notebook.seen
    assert SEEN in (registry.path(1) / "retrain.html").read_text(encoding="utf-8")
    assert command("reproduce", "1").stdout == "iris version 1: identical\n"
    written((*IRIS[:3], LINE, KEEP))
    done = command("retrain", "--notebook", "mine.ipynb")
    why = "the estimator of the current version may have seen the held-out rows; promote by hand"
    assert done.stdout.endswith(f"not promoted: {why}\n")
    assert not read_card(registry.path(2)).notebook.seen
    written(seeing)
    done = command("retrain", "--notebook", "mine.ipynb")
    assert read_run(registry.path(3)).why == f"{SEEN}, so it cannot be compared; promote it by hand"
    done = command("retrain", "--notebook", "mine.ipynb", "-p", "promote", "always")
    assert done.stdout.endswith(f"promoted: promote is 'always'; {SEEN}\n")
