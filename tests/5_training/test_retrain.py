"""A retraining run is strict about its parameters, reproducible, and all or nothing."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iris_serve.training.report
import iris_serve.training.reproduce
import iris_serve.training.retrain
import iris_serve.training.runner
from iris_serve.data.files import TableError
from iris_serve.model.atomic import ArtifactError, sha256, to_json
from iris_serve.model.card import CARD_FILE, read_card, retraining_notebook
from iris_serve.model.load import load
from iris_serve.model.save import MODEL_FILE
from iris_serve.registry.records import PAGE_FILE, one_line, read_run
from iris_serve.registry.registry import Registry, current, history, open_predictor, promote
from iris_serve.registry.verify import verify
from iris_serve.training.parameters import Parameters, check_parameters, parse_value
from iris_serve.training.report import notebook_page
from iris_serve.training.reproduce import reproduce
from iris_serve.training.retrain import Session, build, retrain, train
from iris_serve.training.runner import MAX_FAILED, RetrainError, keep_failed

SMALL = Parameters(seed=7, n_estimators=10)


def files(path):
    return [(path / name).read_bytes() for name in (MODEL_FILE, CARD_FILE)]


def ending(models, notebook_source, monkeypatch):
    """Run a copy of the retraining notebook whose last cell does what `notebook_source` says."""
    notebook = json.loads(retraining_notebook().read_text())
    notebook["cells"][-1]["source"] = notebook_source
    (models.parent / "changed.ipynb").write_text(json.dumps(notebook))
    monkeypatch.setattr(
        iris_serve.training.retrain, "retraining_notebook", lambda: models.parent / "changed.ipynb"
    )
    return retrain(models, SMALL)


def test_two_runs_make_the_same_bytes_as_each_other_and_as_the_recipe(tmp_path):
    for run in (retrain, retrain, train):
        run(tmp_path, SMALL)
    one, two, three = (files(Registry(tmp_path).path(v)) for v in (1, 2, 3))
    assert one == two == three


def test_another_seed_makes_another_model(tmp_path):
    train(tmp_path, SMALL)
    train(tmp_path, Parameters(seed=8, n_estimators=10))
    one, two = (files(Registry(tmp_path).path(v)) for v in (1, 2))
    assert one[0] != two[0]


@pytest.mark.parametrize("variables", [{"PYTHONHASHSEED": "1"}, {"OMP_NUM_THREADS": "2"}])
def test_the_bytes_do_not_depend_on_the_process(tmp_path, variables):
    code = "import sys; from pathlib import Path; from iris_serve.training.parameters import Parameters; "
    code += "from iris_serve.training.retrain import train; "
    code += "train(Path(sys.argv[1]), Parameters(seed=7, n_estimators=10))"
    environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"} | variables
    subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True)
    train(tmp_path, SMALL)
    one, two = (files(Registry(tmp_path).path(v)) for v in (1, 2))
    assert one == two


def test_the_executed_notebook_is_kept_with_its_pictures_and_without_paths(tmp_path):
    run = retrain(tmp_path / "models", SMALL)
    path = Registry(tmp_path / "models").path(run.version)
    data = (path / "retrain.ipynb").read_bytes()
    assert read_run(path).notebook == sha256(data)
    assert data.count(b'"image/png"') == 2
    assert b"10 trees" in data
    roots = (tmp_path, Path(sys.prefix), Path.home(), retraining_notebook().parent.parent)
    assert [str(root) for root in roots if str(root).encode() in data] == []


def test_the_notebook_tells_the_verdict_that_the_registry_acts_upon(models):
    run = retrain(models, Parameters(n_estimators=1, max_depth=1))
    told = (Registry(models).path(run.version) / "retrain.ipynb").read_text()
    assert not run.promoted
    assert f"not promoted: {run.why}" in told


def test_a_failed_run_keeps_its_notebook_and_leaves_the_registry_untouched(models, monkeypatch):
    registry = Registry(models)
    with pytest.raises(RetrainError, match=r"ZeroDivisionError: division by zero") as failure:
        ending(models, "1 / 0", monkeypatch)
    assert "\n" not in str(failure.value)
    assert (registry.versions(), current(registry).version) == ([1], 1)
    (kept,) = (registry.folder / "failed").iterdir()
    assert "division by zero" in kept.read_text()
    assert sorted(p.name for p in registry.folder.iterdir()) == ["1", "aliases", "failed"]


def test_the_newest_failed_notebooks_are_kept_and_other_files_are_left_alone(registry, tmp_path):
    (tmp_path / "executed.ipynb").write_text('{"metadata": {}}')
    folder = registry.folder / "failed"
    folder.mkdir()
    for name in ("notes.txt", "20260101.ipynb", "00000000T000000000000Z.ipynb.bak"):
        (folder / name).write_text("mine")
    kept = [keep_failed(registry, tmp_path / "executed.ipynb") for _ in range(MAX_FAILED + 5)]
    assert [path.exists() for path in kept] == [False] * 5 + [True] * MAX_FAILED
    assert len(list(folder.iterdir())) == MAX_FAILED + 3


def test_failed_notebooks_are_not_kept_through_a_link(registry, tmp_path):
    (tmp_path / "executed.ipynb").write_text('{"metadata": {}}')
    (tmp_path / "elsewhere").mkdir()
    (registry.folder / "failed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is a symbolic link"):
        keep_failed(registry, tmp_path / "executed.ipynb")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_full_disk_hides_no_reason_and_leaves_no_half_notebook(models, monkeypatch):
    def full(path, data):
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(iris_serve.training.runner, "write_file", full)
    with pytest.raises(RetrainError, match=r"division by zero .*not be kept: No space left"):
        ending(models, "1 / 0", monkeypatch)
    assert list((Registry(models).folder / "failed").iterdir()) == []


def papermill(models, out, *parameters):
    command = [sys.executable, "-m", "papermill", retraining_notebook(), out, "-k", "python3"]
    environment = os.environ | {"IRIS_SERVE_MODELS": str(models)}
    return subprocess.run(
        [*command, *parameters], env=environment, capture_output=True, text=True, check=False
    )


def test_bare_papermill_publishes_a_version_and_says_who_has_the_notebook(tmp_path):
    out = tmp_path / "out.ipynb"
    done = papermill(tmp_path / "models", out, "-p", "seed", "7", "-p", "n_estimators", "10")
    assert done.returncode == 0, done.stderr
    registry = Registry(tmp_path / "models")
    assert open_predictor(registry).predict([[6.1, 2.8, 4.7, 1.2]]) == [1]
    assert read_run(registry.path(1)).notebook is None
    assert "stayed with the caller" in read_run(registry.path(1)).made_by
    assert sorted(p.name for p in registry.folder.iterdir()) == ["1", "aliases"]
    train(tmp_path / "models", SMALL)
    assert files(registry.path(1)) == files(registry.path(2))


@pytest.mark.parametrize("wrong", [("seeed", "7"), ("seed", "seven"), ("n_estimators", "0")])
def test_bare_papermill_is_stopped_by_a_wrong_parameter(tmp_path, wrong):
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb", "-p", *wrong)
    assert done.returncode != 0
    assert wrong[0] in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_cell_that_is_executed_again_after_the_end_is_told_so_and_adds_nothing(tmp_path):
    session = Session(SMALL, tmp_path)
    table = session.table()
    build(session.parameters, table, session.folder)
    session.finish(table)
    for again in (session.table, lambda: session.finish(table)):
        with pytest.raises(RuntimeError, match="this run is finished"):
            again()
    assert Registry(tmp_path).versions() == [1]


def test_a_notebook_in_another_python_stops_at_its_first_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("IRIS_RETRAIN_PYTHON", "some/other/python")
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb")
    assert "the kernel is another Python" in done.stderr
    assert not (tmp_path / "models").exists()


def test_no_kernel_and_no_connection_file_outlives_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    with pytest.raises(RetrainError):
        ending(tmp_path / "models", "1 / 0", monkeypatch)
    assert list(tmp_path.glob("**/*.json")) == []


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("seed", "7.0"),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("seed", "true"),
        ("seed", ""),
        ("seed", "9" * 5000),
        ("n_estimators", "None"),
        ("max_depth", "0"),
        ("test_size", "0"),
        ("test_size", "1"),
        ("test_size", "nan"),
        ("test_size", "inf"),
        ("name", "7"),
        ("name", "../x"),
        ("promote", "maybe"),
        ("cv", "1"),
        ("cv", "-1"),
        ("cv", "101"),
        ("min_score", "1.1"),
        ("min_score", "-0.1"),
        ("min_score", "nan"),
        ("min_score", "high"),
        ("data", "None"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, word):
    with pytest.raises(ValueError, match=name):
        check_parameters({name: parse_value(word, name)})


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("seed", (-1, 0, 4294967295, 4294967296)),
        ("n_estimators", (0, 1, 10000, 10001)),
        ("max_depth", (0, 1, 1000, 1001)),
        ("cv", (1, 2, 100, 101)),
        ("min_score", (-1, 0, 1, 2)),
    ],
)
def test_a_value_out_of_bounds_is_answered_with_the_bounds_that_hold(name, bounds):
    below, low, high, above = bounds
    for value in (low, high):
        assert getattr(check_parameters({name: value}), name) == value
    for value in (above, "text"):
        words = rf"^{name} must be .*\b{low} to {high}\b.*, got {value!r}$"
        with pytest.raises(ValueError, match=words):
            check_parameters({name: value})
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        check_parameters({name: below})


def test_a_word_that_is_no_choice_is_answered_with_the_choices():
    with pytest.raises(ValueError, match="promote must be auto, never or always, got 'yes'"):
        check_parameters({"promote": "yes"})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("trees", "n_estimators"),
        ("depth", "max_depth"),
        ("folds", "cv"),
        ("random_state", "seed"),
        ("columns", "features"),
        ("label", "target"),
        ("seeed", "seed"),
        ("n_estimator", "n_estimators"),
    ],
)
def test_a_parameter_by_another_word_is_answered_with_the_right_one(word, meant):
    with pytest.raises(ValueError, match=f"unknown parameter '{word}'; did you mean '{meant}'"):
        check_parameters({word: 1})


@settings(max_examples=300, print_blob=True)
@given(name=st.sampled_from(Parameters.__struct_fields__), word=st.text(max_size=30))
def test_any_word_is_a_parameter_or_a_value_error(name, word):
    with contextlib.suppress(ValueError):
        assert isinstance(check_parameters({name: parse_value(word, name)}), Parameters)


def test_a_worse_model_is_kept_and_not_promoted(models):
    run = train(models, Parameters(n_estimators=1, max_depth=1))
    assert (run.version, run.promoted) == (2, False)
    assert "worse than the current version" in read_run(Registry(models).path(2)).why
    assert current(Registry(models)).version == 1


def test_a_run_that_was_overtaken_is_judged_again_and_its_record_says_so(models, monkeypatch):
    registry, genuine = Registry(models), promote

    def overtaken(registry, version, why, **wishes):
        if current(registry).version == 1:
            monkeypatch.undo()
            train(models, Parameters(n_estimators=20, promote="always"))
        return genuine(registry, version, why, **wishes)

    monkeypatch.setattr(iris_serve.training.retrain, "promote", overtaken)
    run = retrain(models, Parameters(n_estimators=10))
    assert read_run(registry.path(2)).why == run.why
    assert run.verdict["current"] == 3
    assert "judged again" in run.why
    assert "the executed notebook has the verdict before that" in run.why
    last = json.loads((registry.path(2) / "retrain.ipynb").read_text())["cells"][-1]["source"]
    assert "the run record has a later verdict" in last
    assert run.why not in last
    assert history(registry)[-1].why == one_line(run.why)
    assert [event.version for event in history(registry)] == [1, 3, 2]
    assert verify(registry) == []


def test_the_last_sentence_of_the_notebook_and_the_page_is_the_verdict_of_the_record(models):
    run = retrain(models, Parameters(n_estimators=10))
    path = Registry(models).path(run.version)
    cells = json.loads((path / "retrain.ipynb").read_text())["cells"]
    assert f"the verdict was **promoted**: {run.why}." in cells[-1]["source"]
    assert run.why in (path / PAGE_FILE).read_text()


def test_never_does_not_promote_even_the_first(tmp_path):
    assert not train(tmp_path, Parameters(n_estimators=1, promote="never")).promoted


def test_the_notebook_of_the_wheel_is_the_one_of_the_repository(tmp_path):
    root = Path(__file__).parents[2]
    code = "from setuptools import setup; import runpy, sys; sys.argv = ['setup.py', 'build', "
    code += f"'--build-base', {str(tmp_path)!r}]; runpy.run_path('setup.py', run_name='__main__')"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    (built,) = tmp_path.glob("lib*/iris_serve/retrain.ipynb")
    assert built.read_bytes() == (root / "nbs" / "retrain.ipynb").read_bytes()
    assert json.loads(built.read_text())["nbformat"] == 4


def table_file(folder, loader, name):
    """A CSV of one of scikit-learn's tables, its classes as words in the column `kind`."""
    bunch = loader(as_frame=True)
    frame = bunch.frame.rename(columns={"target": "kind"})
    names = {i: str(word) for i, word in enumerate(bunch.target_names)}
    frame["kind"] = frame["kind"].map(names)
    frame.to_csv(folder / name, index=False)
    return folder / name


@pytest.fixture(scope="session")
def wine(tmp_path_factory):
    from sklearn.datasets import load_wine

    return table_file(tmp_path_factory.mktemp("wine"), load_wine, "wine.csv")


def of_wine(data, **more):
    return Parameters(name="wine", data=str(data), target="kind", n_estimators=5, **more)


@pytest.fixture(scope="session")
def cellar(wine, tmp_path_factory):
    """A models directory with one version of wine, made by the notebook; nobody writes to it."""
    folder = tmp_path_factory.mktemp("cellar") / "models"
    here = Path.cwd()
    os.chdir(wine.parent)
    try:
        retrain(folder, of_wine("wine.csv", cv=3))
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def wines(cellar, tmp_path):
    return shutil.copytree(cellar, tmp_path / "wines")


def test_wine_from_a_file_becomes_a_model_of_its_own(cellar, wine):
    registry = Registry(cellar, "wine")
    predictor, (estimator, card) = open_predictor(registry), load(registry.path(1))
    assert predictor.contract.classes == ("class_0", "class_1", "class_2")
    assert predictor.contract.names[:2] == ["alcohol", "malic_acid"]
    rows = np.loadtxt(wine, delimiter=",", skiprows=1, usecols=range(13))
    assert predictor.predict(rows.tolist()) == estimator.predict(rows).tolist()
    assert len(card.metrics.cross_validation.scores) == 3


def test_a_table_with_thirty_columns_and_two_classes_has_its_report(tmp_path):
    from sklearn.datasets import load_breast_cancer

    file = table_file(tmp_path, load_breast_cancer, "cancer.csv")
    run = retrain(tmp_path / "models", Parameters(data=str(file), target="kind", n_estimators=5))
    folder = Registry(tmp_path / "models").path(run.version)
    assert (folder / "retrain.ipynb").read_bytes().count(b'"image/png"') == 2
    assert b"mean radius" in (folder / PAGE_FILE).read_bytes()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_the_copy_in_the_version_is_the_file(tmp_path, wine, ending):
    import pandas as pd

    frame, file = pd.read_csv(wine), tmp_path / f"other.{ending}"
    frame.to_parquet(file) if ending == "parquet" else frame.to_csv(file, index=False)
    train(tmp_path / "models", of_wine(file))
    folder = Registry(tmp_path / "models", "wine").path(1)
    assert (folder / f"data.{ending}").read_bytes() == file.read_bytes()
    assert read_card(folder).data.source == f"other.{ending}"
    assert reproduce(tmp_path / "models", "wine", 1).identical


def test_a_version_says_the_name_of_its_file_and_never_its_place(cellar, wine):
    folder = Registry(cellar, "wine").path(1)
    assert read_card(folder).parameters.data == "wine.csv"
    places = (wine.parent, cellar, Path(sys.prefix), Path.home(), Path.cwd())
    for file in folder.iterdir():
        assert [str(p) for p in places if str(p).encode() in file.read_bytes()] == [], file.name


def test_notebook_and_recipe_make_the_same_of_a_file(wines, wine):
    train(wines, of_wine(wine, cv=3))
    one, two = (files(Registry(wines, "wine").path(v)) for v in (1, 2))
    assert one == two


def test_only_the_named_features_are_learned_from(tmp_path, wine):
    train(tmp_path, of_wine(wine, features="hue, alcohol"))
    card = read_card(Registry(tmp_path, "wine").path(1))
    assert card.contract.names == ["hue", "alcohol"]
    assert reproduce(tmp_path, "wine", 1).identical


def test_a_bad_table_is_refused_before_papermill_starts(tmp_path, wine, monkeypatch):
    lines = wine.read_text().splitlines()
    lines[3] = "cheap" + lines[3][lines[3].index(",") :]
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(iris_serve.training.retrain, "run_notebook", None)
    for run in (retrain, train):
        with pytest.raises(TableError, match=r"3 +\| alcohol +\| \"cheap\""):
            run(tmp_path / "models", of_wine("bad.csv"))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cv": 60}, r"^cv 60 is too much for this table: class 'class_2' has 3\d rows"),
        ({"test_size": 0.00001}, r"^test_size 1e-05 holds out none of the 178 rows"),
        ({"test_size": 0.9999}, r"^test_size 0.9999 leaves no row of class 'class_0'"),
    ],
)
def test_what_the_table_cannot_bear_is_refused_by_name_before_a_kernel(
    tmp_path, wine, monkeypatch, asked, words
):
    monkeypatch.setattr(iris_serve.training.retrain, "run_notebook", None)
    for run in (retrain, train):
        with pytest.raises(ValueError, match=words):
            run(tmp_path / "models", of_wine(wine, **asked))
    assert not (tmp_path / "models").exists()


def test_the_classes_may_be_in_a_column_called_none(tmp_path, wine):
    other = tmp_path / "other.csv"
    other.write_text(wine.read_text().replace("kind", "None", 1))
    assert [parse_value(word, "target") for word in ("None", "null", '"None"', '"null"')] == [
        None,
        None,
        "None",
        "null",
    ]
    target = parse_value('"None"', "target")
    retrain(tmp_path / "models", Parameters(data=str(other), target=target, n_estimators=2))
    assert read_card(Registry(tmp_path / "models").path(1)).parameters.target == "None"
    assert reproduce(tmp_path / "models", "iris", 1).identical


def test_bare_papermill_takes_a_file_too(tmp_path, wine):
    words = {"data": wine, "target": "kind", "name": "wine", "n_estimators": 5, "cv": 3}
    pairs = [word for name, value in words.items() for word in ("-p", name, str(value))]
    done = papermill(tmp_path / "models", tmp_path / "out.ipynb", *pairs)
    assert done.returncode == 0, done.stderr
    assert reproduce(tmp_path / "models", "wine", 1).identical
    assert str(wine).encode() not in (tmp_path / "models/wine/1/card.json").read_bytes()


def test_a_large_file_is_not_copied_and_has_to_be_named(tmp_path, wine, monkeypatch):
    monkeypatch.setattr(iris_serve.training.retrain, "MOST_KEPT", 10)
    train(tmp_path, of_wine(wine))
    (lost,) = reproduce(tmp_path, "wine", 1).differences
    assert lost == "data: no copy of wine.csv was kept; name the file"
    assert reproduce(tmp_path, "wine", 1, wine).identical
    other = tmp_path / "wine.csv"
    other.write_text(wine.read_text().replace("class_0", "class_1", 1))
    (changed,) = reproduce(tmp_path, "wine", 1, other).differences
    assert changed.startswith("data: the file wine.csv is another table")


def test_a_version_is_reproduced_elsewhere_in_another_process(wines, tmp_path):
    code = "import sys; from pathlib import Path; from iris_serve.training.reproduce import reproduce; "
    code += "print(reproduce(Path(sys.argv[1]), 'wine', 1))"
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, os.path.relpath(wines, tmp_path / "elsewhere")],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "wine version 1: identical\n"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert Registry(wines, "wine").versions() == [1]


def test_a_reproduction_shows_how_far_the_notebook_is(wines, capfd):
    assert reproduce(wines, "wine", 1, progress=True).identical
    assert "Executing: 100%" in capfd.readouterr().err
    assert reproduce(wines, "wine", 1).identical
    assert capfd.readouterr().err == ""


def test_a_changed_copy_of_the_data_is_named(wines):
    copy = Registry(wines, "wine").path(1) / "data.csv"
    copy.write_text(copy.read_text().replace("class_0", "class_1", 1))
    again = reproduce(wines, "wine", 1)
    assert not again.identical
    assert again.differences[0].startswith("data: the kept copy is another table")


def test_a_changed_copy_of_the_data_is_found_by_verify_and_a_removed_one_is_none(wines):
    registry = Registry(wines, "wine")
    copy = registry.path(1) / "data.csv"
    data = copy.read_bytes()
    copy.write_bytes(data + b"\n")
    assert verify(registry) == [f"version 1: {copy} is not the data file that card.json describes"]
    with pytest.raises(ArtifactError, match="is not the data file"):
        promote(registry, 1, "it looked fine")
    copy.unlink()
    assert verify(registry) == []


def test_a_changed_source_is_named(wines, monkeypatch):
    monkeypatch.setattr(iris_serve.training.reproduce, "source_digest", lambda: "0" * 64)
    assert reproduce(wines, "wine", 1).differences == ("code: the source that trains is another",)


@pytest.mark.parametrize("library", ["numpy", "python"])
def test_another_library_is_named(wines, library):
    path = Registry(wines, "wine").path(1)
    card = read_card(path)
    older = msgspec.structs.replace(card, versions=card.versions | {library: "1.0"})
    (path / CARD_FILE).write_bytes(to_json(older))
    (found,) = reproduce(wines, "wine", 1).differences
    assert found.startswith(f"library: {library} was 1.0, is ")


def test_another_result_is_named_and_the_recorded_notebook_is_what_runs(wines):
    path = Registry(wines, "wine").path(1)
    card, run = read_card(path), read_run(path)
    data = (path / "retrain.ipynb").read_text()
    other = data.replace("make(parameters)", "make(parameters).set_params(random_state=9)").encode()
    assert other != data.encode()
    (path / "retrain.ipynb").write_bytes(other)
    with pytest.raises(ValueError, match=r"not the notebook that run.json describes"):
        reproduce(wines, "wine", 1)
    changed = msgspec.structs.replace(run, notebook=sha256(other))
    (path / "run.json").write_bytes(to_json(changed))
    again = reproduce(wines, "wine", 1)
    assert "result: the model file differs" in again.differences
    assert card == read_card(path)


HOSTILE = [
    "<script>evil()</script>",
    "<img src=x onerror=evil()>",
    "<img src='https://evil.example/x.png'>",
    "<iframe src='https://evil.example'></iframe>",
    "<form action='https://evil.example'><input name=evil><button>evil</button></form>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<style>body { background: url(https://evil.example) }</style>",
    "<a href='javascript:evil()'>x</a>",
    "<a href='java\tscript:evil()'>x</a>",
    "<a href='data:text/html,<script>evil()</script>'>x</a>",
    "<svg onload=evil()><animate onbegin=evil() attributeName=x /></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=evil()>",
    "<noscript><p title='</noscript><img src=x onerror=evil()>'>",
    "<base href='https://evil.example/'>",
    "<object data='https://evil.example'></object><embed src='https://evil.example'>",
    "<p style='background: url(https://evil.example)' onclick=evil()>x</p>",
    "<!--><img src=x onerror=evil()>-->",
    "</body><script>evil()</script>",
    "<scr<script>x</script>ipt>evil()</script>",
    "<video src='https://evil.example' autoplay onplay=evil()></video>",
]


class Tags(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def tags_of(html):
    parser = Tags()
    parser.feed(html)
    return parser.seen


def assert_harmless(html):
    for tag, attributes in tags_of(html):
        assert tag not in {"script", "iframe", "form", "input", "button", "link", "base", "object"}
        assert tag not in {"embed", "svg", "math", "video", "audio", "noscript", "template"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert re.match(r"https?://|#", attributes.get("href", "#"))
        assert tag != "meta" or attributes == {"charset": "utf-8"}
    assert [tag for tag, _ in tags_of(html)].count("style") == 1


def notebook_with(text):
    outputs = [
        {"output_type": "display_data", "data": {kind: text}, "metadata": {}}
        for kind in ("text/html", "text/markdown", "image/svg+xml", "application/javascript")
    ]
    outputs += [
        {"output_type": "display_data", "data": {kind: text}, "metadata": {"isolated": True}}
        for kind in ("text/html", "text/latex", "text/plain", "image/png", "image/jpeg")
    ]
    outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    wrong = {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]}
    code = {"cell_type": "code", "source": text, "execution_count": 1, "metadata": {"tags": [text]}}
    cells = [code | {"outputs": [*outputs, wrong]}]
    cells += [{"cell_type": kind, "source": text, "metadata": {}} for kind in ("markdown", "raw")]
    whole = {"nbformat": 4, "nbformat_minor": 4, "metadata": {"title": text}, "cells": cells}
    return json.dumps(whole).encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_cell_is_harmless_on_the_page(text):
    assert_harmless(notebook_page(notebook_with(text)).decode())


@settings(max_examples=10, deadline=None, print_blob=True)
@given(pieces=st.lists(st.sampled_from([*HOSTILE, "<", ">", "'", '"', "&lt;", "\n\n", "`"])))
def test_no_mixture_of_hostile_cells_does_any_harm(pieces):
    assert_harmless(notebook_page(notebook_with("".join(pieces))).decode())


def test_the_page_of_a_run_loads_nothing_and_shows_the_report(cellar):
    html = (Registry(cellar, "wine").path(1) / PAGE_FILE).read_text()
    assert_harmless(html)
    assert [tag for tag, _ in tags_of(html)].count("img") == 2
    assert "promoted: the first version" in html
    assert "<h2>" in html


def test_without_the_packages_the_page_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(iris_serve.training.report, "find_spec", lambda name: None)
    with pytest.raises(RetrainError, match=r"nbconvert: pip install 'iris_serve\[retrain\]'"):
        notebook_page(b"{}")


def test_hostile_names_in_a_table_neither_stop_a_run_nor_reach_the_page(tmp_path):
    rng = np.random.default_rng(0)
    names = ["<script>evil()</script>", "$\\frac{a}{", "a|b", "<b>bold</b>"]
    kinds = ["<img src=x onerror=evil()>", "$x$ and $\\y", "plain"]
    lines = [",".join([*names, "kind"])]
    for i in range(120):
        row = rng.normal(i % 3, 1, len(names)).round(3).tolist()
        lines.append(",".join([*map(str, row), kinds[i % 3]]))
    (tmp_path / "hostile.csv").write_text("\n".join(lines) + "\n")
    run = retrain(tmp_path / "m", Parameters(data="hostile.csv", target="kind", n_estimators=5))
    assert_harmless((Registry(tmp_path / "m").path(run.version) / PAGE_FILE).read_text())


def test_names_that_no_font_has_bring_no_warning_into_the_report(tmp_path):
    lines = [
        "花びら,size,kind",
        *(f"{i % 7},{i % 5},{('薔薇', 'tulip')[i % 2]}" for i in range(60)),
    ]
    (tmp_path / "flowers.csv").write_text("\n".join(lines), encoding="utf-8")
    told = Parameters(data=str(tmp_path / "flowers.csv"), target="kind", n_estimators=5)
    path = Registry(tmp_path / "m").path(retrain(tmp_path / "m", told).version)
    cells = json.loads((path / "retrain.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
    assert "薔薇" in (path / PAGE_FILE).read_text(encoding="utf-8")


def test_a_kernel_that_cannot_start_is_told_with_its_last_words(models, monkeypatch):
    genuine = iris_serve.training.runner.write_spec

    def speechless(folder, environment):
        genuine(folder, environment)
        spec = folder / "here" / "kernel.json"
        argv = [sys.executable, "-c", "raise SystemExit('no kernel in this house')"]
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"argv": argv}))

    monkeypatch.setattr(iris_serve.training.runner, "write_spec", speechless)
    with pytest.raises(RetrainError, match="its last words: no kernel in this house"):
        retrain(models, SMALL)
    assert Registry(models).versions() == [1]


@pytest.mark.filterwarnings("ignore")
def test_a_kernel_that_dies_publishes_nothing(models, monkeypatch):
    with pytest.raises(RetrainError, match="the kernel died, and nothing was published"):
        ending(models, "import os; os._exit(9)", monkeypatch)
    registry = Registry(models)
    assert (registry.versions(), len(history(registry))) == ([1], 1)
    assert len(list((registry.folder / "failed").iterdir())) == 1


BUSY = "try: time.sleep(60)\nexcept KeyboardInterrupt: sum(range(10**8))"


@pytest.mark.parametrize("then", ["time.sleep(60)", BUSY], ids=["asleep", "busy"])
def test_ctrl_c_publishes_nothing_and_says_so_and_no_more(models, tmp_path, then):
    code = f"""
import json, sys
from pathlib import Path
import iris_serve.training.retrain as r
notebook = json.loads(r.retraining_notebook().read_text())
waits = "from pathlib import Path; import time; Path({str(tmp_path / "started")!r}).touch()"
notebook["cells"][-1]["source"] = waits + chr(10) + {then!r}
Path("changed.ipynb").write_text(json.dumps(notebook))
r.retraining_notebook = lambda: Path("changed.ipynb")
try:
    r.retrain(Path(sys.argv[1]), r.Parameters(n_estimators=2))
except KeyboardInterrupt as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, models],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.startswith("stopped, and nothing was published"), err
    assert err == ""
    assert Registry(models).versions() == [1]
    assert sorted(p.name for p in (models / "iris").iterdir()) == ["1", "aliases", "failed"]
