"""A notebook of one's own is retrained, served, shown and made again like ours."""

import json
import shutil
from pathlib import Path

import pytest
from own_notebooks import (
    AMES,
    BEGIN,
    IRIS,
    LINE,
    PENGUINS,
    SPLIT,
    TABLES,
    command,
    papermill,
    written,
)

from iris_serve.model.atomic import ArtifactError
from iris_serve.model.card import read_card, retraining_notebook
from iris_serve.model.save import FOREST_FILE
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.training.own import own_parameters
from iris_serve.training.reproduce import reproduce


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with two tables, the working directory of a test."""
    monkeypatch.chdir(tmp_path)
    for name in ("penguins.csv", "ames.csv"):
        shutil.copy(TABLES / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("cells", "name", "given", "found"),
    [
        (IRIS, "iris", ("C", "0.5"), {"C": 0.5}),
        pytest.param(
            *(PENGUINS, "penguins", ("C", "0.5"), {"logisticregression__C": 0.5}),
            marks=pytest.mark.slow,  # a mixed table like the last one, and classes like the first
        ),
        (AMES, "ames", ("alpha", "10"), {"ridge__alpha": 10}),
    ],
    ids=["iris", "penguins", "ames"],
)
def test_five_cells_are_retrained_served_shown_and_made_again(here, cells, name, given, found):
    written(cells)
    done = command("retrain", "--notebook", "mine.ipynb", "-p", *given)
    assert done.returncode == 0, done.stderr
    assert "will be served from a pickle" in done.stderr
    done = papermill("-p", *given)
    assert done.returncode == 0, done.stderr
    registry = Registry(Path("models"), name)
    first, second = (read_card(registry.path(version)) for version in (1, 2))
    assert first == second
    assert first.notebook.parameters == {given[0]: json.loads(given[1])}
    assert found.items() <= first.estimator.parameters.items()
    params = first.parameters
    assert (params.n_estimators, params.model, params.seed) == (None, None, None)
    assert read_run(registry.path(1)).made_by == "retrain"
    for version in (1, 2):
        assert read_run(registry.path(version)).notebook
        assert (registry.path(version) / "retrain.html").is_file()
        assert open_predictor(registry, version).contract == first.contract
        assert reproduce(Path("models"), name, version).identical
    shown = command("show", "1", "--name", name).stdout
    assert first.estimator.class_name in shown
    assert first.notebook.sha256 in shown
    assert "n_estimators" not in shown
    assert f"{given[0]} {given[1]}" in shown


def test_a_copy_of_the_retraining_notebook_with_another_estimator_is_kept(here):
    notebook = json.loads(retraining_notebook().read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        code = "".join(cell["source"])
        if cell["metadata"].get("tags") == ["parameters"]:
            cell["source"] = code + "\nC: float = 1.0"
        if "run.fit(train)" in code:
            imports = "from sklearn.linear_model import LogisticRegression\n"
            fit = "run.fit(train, LogisticRegression(C=C, max_iter=1000, random_state=seed))"
            cell["source"] = imports + code.replace("run.fit(train)", fit)
    Path("mine.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    words = ("-p", "C", "0.5", "-p", "seed", "7", "-p", "cv", "3")
    done = command("retrain", "--notebook", "mine.ipynb", *words)
    assert done.returncode == 0, done.stderr
    card = read_card(Registry(Path("models")).path(1))
    assert card.estimator.class_name == "sklearn.linear_model.LogisticRegression"
    assert (card.parameters.seed, card.parameters.n_estimators) == (7, None)
    assert card.notebook.parameters == {"C": 0.5}
    assert len(card.metrics.cross_validation.scores) == 3
    done = command("reproduce", "1")
    assert (done.returncode, done.stdout) == (0, "iris version 1: identical\n")


def test_a_forest_of_a_notebook_of_ones_own_is_frozen(here):
    fit = "from sklearn.ensemble import ExtraTreesClassifier\n"
    fit += "model = ExtraTreesClassifier(trees, random_state=seed).fit(X_train, y_train)"
    written(("trees = 10\nseed = 3", BEGIN, SPLIT, fit, "keep(model)"))
    done = command("retrain", "--notebook", "mine.ipynb", "-p", "trees", "5")
    assert done.returncode == 0, done.stderr
    card = read_card(Registry(Path("models")).path(1))
    assert FOREST_FILE in card.files
    assert card.parameters.seed == 3
    assert card.estimator.parameters["n_estimators"] == 5
    assert reproduce(Path("models"), "iris", 1).identical


def test_the_rows_are_an_array_of_numbers_or_a_frame_with_gaps(here):
    look = """X, y = table()
assert X.dtype == "float64" and X.shape == (150, 4) and y.shape == (150,)
assert X_train.shape[0] == len(y_train) and X_test.shape[1] == 4"""
    written((*IRIS[:3], look, *IRIS[3:]))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    look = """X, y = table()
assert list(X.columns)[:2] == ["island", "bill_length_mm"] and len(X) == 344
assert str(X["bill_length_mm"].dtype) == "float64" and X["bill_length_mm"].isna().sum() == 2
assert X["sex"].map(type).isin([str, float]).all() and X["sex"].isna().sum() == 11"""
    written((*PENGUINS[:3], look, *PENGUINS[3:]))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("cells", "tagged", "step"),
    [
        (IRIS, None, "mine.ipynb has no cell tagged 'parameters'"),
        (("C = 1.0", SPLIT, LINE, "keep(model)"), 0, "mine.ipynb has no begin(globals())"),
        (IRIS[:4], 0, "mine.ipynb has no keep(estimator)"),
        ((BEGIN, "C = 1.0", *IRIS[2:]), 1, "begin(globals()) before its parameters are set"),
        (("C = (1", *IRIS[1:]), 0, "the parameters cell of mine.ipynb is not plain Python"),
        (("seeed = 7", *IRIS[1:]), 0, "unknown parameter 'seeed'; did you mean 'seed'?"),
    ],
)
def test_a_step_that_is_seen_to_be_missing_is_named_before_there_is_a_kernel(
    here, cells, tagged, step
):
    written(cells, tagged)
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 2
    assert step in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not Path("models").exists()


FITTED = "from sklearn.linear_model import LogisticRegression\n"


@pytest.mark.parametrize(
    ("cells", "step"),
    [
        ((*IRIS[:3], FITTED + "keep(LogisticRegression())"), "LogisticRegression is not fitted"),
        ((*IRIS, "keep(model)"), "keep was called twice"),
        (
            (*IRIS[:2], FITTED + "keep(LogisticRegression(max_iter=1000).fit(*table()))"),
            "no rows were held out: call split()",
        ),
        ((IRIS[0], BEGIN, "if C > 9: keep(1)"), "has kept no model: call keep(estimator)"),
        (
            (IRIS[0], "from iris_serve.notebook import *\nsplit()", *IRIS[1:]),
            "split() was called before a run was begun",
        ),
        (
            (*IRIS[:3], "class Mine: pass\n" + LINE + "\nmodel.mine = Mine()", "keep(model)"),
            "uses a function or class that this notebook defines",
        ),
        ((IRIS[0], "C = 3", *IRIS[1:]), "C is set again below the value that papermill gave"),
        ((IRIS[0], BEGIN + "\nsize = 3", *IRIS[2:]), None),
    ],
    ids=str,
)
def test_a_step_that_is_missing_in_a_run_is_named(here, cells, step):
    written(cells)
    done = command("retrain", "--notebook", "mine.ipynb", "-p", "C", "2")
    if step is None:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert step in last
    assert Registry(Path("models")).versions() == []


def test_bare_papermill_on_a_notebook_without_the_tag_is_refused(here):
    written(IRIS, tagged=None)
    done = papermill("-p", "C", "0.5")
    assert done.returncode == 1
    assert "C is set again below the value that papermill gave: tag the cell" in done.stderr
    assert not Path("models").exists()


@pytest.mark.parametrize(
    "given", [("c", "2"), ("targt", "x"), ("C", "high"), ("n_estimators", "9")]
)
def test_a_parameter_that_the_notebook_does_not_declare_is_refused_both_ways(here, given):
    written(IRIS)
    done = command("retrain", "--notebook", "mine.ipynb", "-p", *given)
    assert done.returncode == 2
    assert given[0] in done.stderr
    done = papermill("-p", *given)
    assert done.returncode == 1
    assert f"ValueError: {'the notebook' if given[0] == 'n_estimators' else ''}" in done.stderr
    assert not Path("models").exists()


def test_own_parameters_of_every_plain_type_are_kept(here):
    first = "hidden = [10, 5]\nfast = False\nword = 'a'\nlimit = None\nC = 1"
    written((first, *IRIS[1:]))
    words = ("hidden", "[20]", "fast", "true", "word", "7", "limit", "3")
    pairs = [w for name, v in zip(words[::2], words[1::2], strict=True) for w in ("-p", name, v)]
    done = command("retrain", "--notebook", "mine.ipynb", *pairs)
    assert done.returncode == 0, done.stderr
    wanted = {"hidden": [20], "fast": True, "word": "7", "limit": 3, "C": 1}
    assert read_card(Registry(Path("models")).path(1)).notebook.parameters == wanted
    done = papermill("-y", "{hidden: [20], fast: true, word: '7', limit: 3}")
    assert done.returncode == 0, done.stderr
    assert read_card(Registry(Path("models")).path(2)).notebook.parameters == wanted
    with pytest.raises(ValueError, match="hidden must be a list"):
        own_parameters(Path("mine.ipynb"), {"hidden": 3})


def test_a_notebook_may_import_above_its_parameters(here):
    imports, first = "from iris_serve.notebook import begin, keep, split", "C = 1.0\nsplit = 'fair'"
    written((imports, first, "begin(globals())", SPLIT, LINE, "keep(model)"), tagged=1)
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    card = read_card(Registry(Path("models")).path(1))
    assert (card.parameters.split, card.data.split) == ("fair", "fair")


def test_a_notebook_that_no_record_vouches_for_is_not_executed(here):
    written(IRIS)
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    path = Registry(Path("models")).path(1)
    kept = path / "retrain.ipynb"
    notebook = json.loads(kept.read_text(encoding="utf-8"))
    planted = {"cell_type": "code", "id": "planted", "metadata": {}, "outputs": []}
    planted |= {"execution_count": None, "source": "open('executed', 'w').close()"}
    notebook["cells"].insert(0, planted)
    kept.write_text(json.dumps(notebook), encoding="utf-8")
    done = command("reproduce", "1")
    assert done.returncode == 1
    assert "read it, and if you trust it, add --trust" in done.stderr
    assert not Path("executed").exists()
    done = command("reproduce", "1", "--trust")
    assert Path("executed").exists()
    assert "the notebook differs" in done.stdout


def test_the_promoted_card_vouches_for_the_notebook_and_another_card_does_not(here):
    written(IRIS)
    assert command("retrain", "--notebook", "mine.ipynb").returncode == 0
    path = Registry(Path("models")).path(1)
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(record | {"notebook": None, "page": None}))
    assert reproduce(Path("models"), "iris", 1).identical
    (path / "run.json").write_text(json.dumps(record | {"card": "0" * 64}))
    with pytest.raises(ArtifactError, match=r"is not the card that run\.json describes"):
        reproduce(Path("models"), "iris", 1)
