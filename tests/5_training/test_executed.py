"""What a version records is what has made it: the values, the code, and the modules beside it."""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from own_notebooks import BEGIN, IRIS, LINE, SPLIT, command, papermill, written

from iris_serve.model.atomic import ArtifactError
from iris_serve.model.card import read_card
from iris_serve.registry.registry import Registry, promote
from iris_serve.registry.verify import verify
from iris_serve.training.reproduce import reproduce

ROOT = Path(__file__).parents[2]
HELPERS = "def weight(C):\n    return C * 10\n"
HELPED = (
    "C = 1.0",
    "from mine_helpers import weight\n" + BEGIN,
    SPLIT,
    LINE.replace("C=C", "C=weight(C)"),
    "keep(model)",
)

SLOW = pytest.mark.slow  # another way to do the same


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working directory of a test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def card_of(version, name="iris"):
    return read_card(Registry(Path("models"), name).path(version))


@contextmanager
def jupyter():
    """A function that executes a cell as Jupyter does, and returns the error's text or None."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    manager, client = start_new_kernel(kernel_name="python3", env=env)

    def execute(code):
        reply = client.execute_interactive(code, output_hook=lambda message: None, timeout=60)
        return reply["content"].get("evalue")

    try:
        yield execute
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


SET_AGAIN = "C was set again below begin(globals()), which has recorded 0.5"


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\nC = 9",
        "for C in (1, 0.5):\n    pass",
        "def f():\n    global C\n    C = 9\nf()\nC = 0.5",
        pytest.param("C = 9", marks=SLOW),
        pytest.param("C *= 2", marks=SLOW),
        pytest.param("for C in (1, 2):\n    pass", marks=SLOW),
        pytest.param("globals().update(C=9)", marks=SLOW),
        pytest.param("if (C := 3): pass", marks=SLOW),
        pytest.param("C = 9\nC = 0.5", marks=SLOW),
        pytest.param("[(C := x) for x in (9, 0.5)]", marks=SLOW),
    ],
)
def test_a_parameter_that_is_set_again_in_a_run_is_refused_when_the_model_is_kept(cell):
    written((*IRIS[:2], cell, *IRIS[2:]))
    done = command("retrain", "--notebook", "mine.ipynb", "-p", "C", "0.5")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert SET_AGAIN in last
    assert "set it in the cell tagged 'parameters' alone" in last
    assert Registry(Path("models")).versions() == []


@SLOW
def test_a_function_above_begin_that_sets_a_parameter_counts_if_it_is_called_below():
    begin = "def f():\n    global C\n    C = 9\n" + BEGIN
    written((IRIS[0], begin, SPLIT, "f()\n" + LINE + "\nglobals().update(C=1.0)", "keep(model)"))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 1
    assert "C was set again below begin(globals()), which has recorded 1.0" in done.stderr
    assert Registry(Path("models")).versions() == []


def test_a_parameter_is_refused_however_late_it_is_set_again():
    for at in (3, 4):
        written((*IRIS[:at], "C = 9", *IRIS[at:]))
        done = papermill("-p", "C", "0.5")
        assert done.returncode == 1
        assert SET_AGAIN in done.stderr
    assert Registry(Path("models")).versions() == []


@SLOW
def test_a_list_that_is_changed_in_place_is_set_again():
    fit = LINE.replace("C=C", "C=len(sizes)")
    written(("sizes = [1]", BEGIN, "sizes.append(2)", SPLIT, fit, "keep(model)"))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 1
    assert "sizes was set again below begin(globals()), which has recorded [1]" in done.stderr


def test_a_parameter_of_ours_that_is_set_again_is_refused_and_another_use_of_its_name_is_not():
    written(("seed = 7\nC = 1.0\nmodel = 'extra_trees'", BEGIN, "seed = 9", *IRIS[2:]))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 1
    assert "seed was set again below begin(globals()), which has recorded 7" in done.stderr
    inner = "def fitted(C):\n    C = C + 1\nvalues = [C for C in (1, 2)]\nC = 1.0"
    written(("seed = 7\nC = 1.0\nmodel = 'extra_trees'", BEGIN, inner, *IRIS[2:]))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    assert card_of(1).notebook.parameters == {"C": 1.0}


def test_in_jupyter_a_changed_parameters_cell_needs_another_begin():
    with jupyter() as execute:
        for cell in (*IRIS[:4], "C = 2.0", IRIS[3]):
            assert execute(cell) is None
        assert "which has recorded 1.0" in execute(IRIS[4])
        for cell in ("C = 2.0", *IRIS[1:]):
            assert execute(cell) is None
    assert card_of(1).notebook.parameters == {"C": 2.0}
    assert card_of(1).estimator.parameters["C"] == 2.0
    assert reproduce(Path("models"), "iris", 1).identical


def test_in_jupyter_a_cell_that_failed_is_no_part_of_the_record():
    tries = [
        ("C = (1", "incomplete input"),
        ("C = 1.0", None),
        (BEGIN.replace("table", "tabel"), "cannot import name 'tabel'"),
        (BEGIN, None),
        ("X, y = split()", "too many values"),
        (SPLIT, None),
        (LINE.replace("X_train", "X_trian"), "name 'X_trian' is not defined"),
        (LINE, None),
        ("keep(modle)", "name 'modle' is not defined"),
        ("keep(model)", None),
    ]
    with jupyter() as execute:
        for cell, wrong in tries:
            told = execute(cell)
            assert (told is None) == (wrong is None)
            assert (wrong or "") in (told or "")
    kept = json.loads((Registry(Path("models")).path(1) / "retrain.ipynb").read_text())
    assert [
        "".join(cell["source"]) for cell in kept["cells"] if cell["cell_type"] == "code"
    ] == list(IRIS)
    assert reproduce(Path("models"), "iris", 1).identical
    written(IRIS)
    assert papermill().returncode == 0
    assert card_of(2).notebook == card_of(1).notebook


def test_in_jupyter_a_begin_whose_cell_failed_has_to_be_executed_again():
    with jupyter() as execute:
        assert execute("C = 1.0") is None
        assert "division by zero" in execute(BEGIN + "\n1 / 0")
        assert execute(SPLIT) is None
        assert execute(LINE) is None
        assert "the cell that calls begin(globals()) has failed" in execute("keep(model)")
        for cell in IRIS[1:]:
            assert execute(cell) is None
    assert reproduce(Path("models"), "iris", 1).identical


def helped(folder="."):
    """A notebook in `folder` that imports a module beside it."""
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "mine_helpers.py").write_text(HELPERS)
    return written(HELPED, path=Path(folder, "mine.ipynb"))


def test_a_module_beside_the_notebook_is_found_recorded_and_kept_both_ways():
    helped("work")
    done = command("retrain", "--notebook", "work/mine.ipynb", "-p", "C", "0.5")
    assert done.returncode == 0, done.stderr
    shutil.copytree("work", ".", dirs_exist_ok=True)
    done = papermill("-p", "C", "0.5")
    assert done.returncode == 0, done.stderr
    first, second = card_of(1), card_of(2)
    assert first == second
    assert first.estimator.parameters["C"] == 5
    digest = hashlib.sha256(HELPERS.encode()).hexdigest()
    assert first.notebook.modules == {"mine_helpers.py": digest}
    assert digest in command("show", "1").stdout
    shutil.rmtree("work")
    Path("mine_helpers.py").unlink()
    for version in (1, 2):
        assert reproduce(Path("models"), "iris", version).identical
    Path("mine_helpers.py").write_text("raise SystemExit('not the kept one')")
    assert reproduce(Path("models"), "iris", 1).identical


@SLOW
def test_the_modules_of_a_package_beside_the_notebook_are_kept_and_no_others():
    Path("parts/deep").mkdir(parents=True)
    Path("parts/__init__.py").write_text("")
    Path("parts/deep/weights.py").write_text("import unused\n" + HELPERS)
    Path("unused.py").write_text("")
    Path("never.py").write_text("raise SystemExit('never imported')")
    imports = "from parts.deep.weights import weight\n"
    written((HELPED[0], imports + BEGIN, *HELPED[2:]))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    modules = ["parts/__init__.py", "parts/deep/weights.py", "unused.py"]
    assert sorted(card_of(1).notebook.modules) == modules
    assert reproduce(Path("models"), "iris", 1).identical


def test_a_module_beside_the_notebook_is_no_substitute_for_an_installed_one():
    for name in ("random", "json", "numpy", "sklearn", "ipykernel", "matplotlib", "iris_serve"):
        Path("work").mkdir(exist_ok=True)
        Path("work", f"{name}.py").write_text("raise SystemExit('it was executed')")
    helped("work")
    done = command("retrain", "--notebook", "work/mine.ipynb")
    assert done.returncode == 0, done.stderr
    assert list(card_of(1).notebook.modules) == ["mine_helpers.py"]


@SLOW
def test_a_module_beside_the_notebook_is_not_found_from_elsewhere():
    helped("work")
    shutil.move("work/mine_helpers.py", "mine_helpers.py")
    done = command("retrain", "--notebook", "work/mine.ipynb")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "No module named 'mine_helpers'" in last
    assert "if it is your own, put it beside mine.ipynb" in last


@pytest.mark.parametrize("folder", ["work/lib", pytest.param("lib", marks=SLOW)])
def test_a_module_that_a_cell_finds_elsewhere_is_refused_both_ways(folder):
    Path(folder).mkdir(parents=True)
    Path(folder, "tools.py").write_text("Z = 2\n")
    found = f"import sys\nsys.path.insert(0, {folder!r})\nimport tools\n"
    written((*IRIS[:3], found + LINE.replace("C=C", "C=C * tools.Z"), "keep(model)"))
    for done in (command("retrain", "--notebook", "mine.ipynb"), papermill()):
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "the module tools is neither beside the notebook nor installed" in last
        assert "put it beside the notebook" in last
    assert Registry(Path("models")).versions() == []


def test_a_file_that_a_magic_executes_is_refused_both_ways_with_the_cure():
    Path("hlp.py").write_text("H = 5\n")
    written((*IRIS[:3], "%run hlp.py\n" + LINE.replace("C=C", "C=C * H"), "keep(model)"))
    for done, code in ((command("retrain", "--notebook", "mine.ipynb"), 2), (papermill(), 1)):
        assert done.returncode == code
        last = done.stderr.strip().splitlines()[-1]
        assert "import hlp instead; it is then kept with the version" in last
    assert Registry(Path("models")).versions() == []


def test_a_version_whose_kept_module_differs_or_is_missing_is_not_made_again():
    helped()
    assert command("retrain", "--notebook", "mine.ipynb").returncode == 0
    kept = Registry(Path("models")).path(1) / "modules.json"
    genuine = kept.read_bytes()
    trap = {"mine_helpers.py": "open('executed', 'w').close()\n" + HELPERS}
    kept.write_text(json.dumps(trap))
    with pytest.raises(ArtifactError, match=r"mine_helpers\.py, .* is not the one that its card"):
        reproduce(Path("models"), "iris", 1)
    assert not Path("executed").exists()
    reproduce(Path("models"), "iris", 1, trust=True)
    assert Path("executed").exists()
    for text in ("{}", json.dumps({"mine_helpers.py": HELPERS, "../more.py": ""}), "[1]"):
        kept.write_text(text)
        with pytest.raises(ArtifactError, match=r"modules\.json|mine_helpers\.py"):
            reproduce(Path("models"), "iris", 1)
    kept.unlink()
    with pytest.raises(ArtifactError, match=r"modules\.json"):
        reproduce(Path("models"), "iris", 1)
    kept.write_bytes(genuine)
    assert reproduce(Path("models"), "iris", 1).identical


def test_an_estimator_that_needs_a_module_beside_the_notebook_is_refused():
    Path("mine_helpers.py").write_text("def same(X):\n    return X\n")
    fit = """from mine_helpers import same
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
model = make_pipeline(FunctionTransformer(same), LogisticRegression(C=C, max_iter=1000))
model.fit(X_train, y_train)"""
    fit = "from sklearn.linear_model import LogisticRegression\n" + fit
    written((*IRIS[:3], fit, "keep(model)"))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "Pipeline uses mine_helpers, which lies beside the notebook" in last
    assert Registry(Path("models")).versions() == []


def copied(models, number=2):
    """A copy of version 1 whose notebook has one cell more, its records consistent."""
    registry = Registry(Path(models))
    place = shutil.copytree(registry.path(1), registry.folder / str(number))
    notebook = json.loads((place / "retrain.ipynb").read_text())
    planted = {"cell_type": "code", "id": "planted", "metadata": {}, "outputs": []}
    planted |= {"execution_count": None, "source": "open('executed', 'w').close()"}
    notebook["cells"].append(planted)
    data = json.dumps(notebook).encode()
    (place / "retrain.ipynb").write_bytes(data)
    run = json.loads((place / "run.json").read_text())
    run |= {"version": number, "promoted": False, "notebook": hashlib.sha256(data).hexdigest()}
    (place / "run.json").write_text(json.dumps(run))
    return registry


def test_a_copied_directory_is_not_executed_however_consistent_its_records():
    written(IRIS)
    assert command("retrain", "--notebook", "mine.ipynb").returncode == 0
    registry = copied("models")
    assert verify(registry) == []
    done = command("reproduce", "2")
    assert done.returncode == 1
    assert "no promotion of this registry names version 2" in done.stderr
    assert "read it, and if you trust it, add --trust" in done.stderr
    assert not Path("executed").exists()
    assert command("reproduce", "2", "--trust").returncode == 0
    assert Path("executed").exists()


def test_what_a_promoted_card_does_not_name_is_not_executed():
    written(IRIS)
    assert command("retrain", "--notebook", "mine.ipynb").returncode == 0
    registry = copied("models")
    for name in ("retrain.ipynb", "run.json"):
        shutil.copy(registry.path(2) / name, registry.path(1) / name)
    run = registry.path(1) / "run.json"
    run.write_text(run.read_text().replace('"version": 2', '"version": 1'))
    assert reproduce(Path("models"), "iris", 1).identical  # the cell below keep(model) is left out
    assert not Path("executed").exists()
    text = (registry.path(1) / "retrain.ipynb").read_text()
    changed = text.replace("begin(globals())", "begin(globals()); open('executed', 'w')")
    (registry.path(1) / "retrain.ipynb").write_text(changed)
    digest = hashlib.sha256(changed.encode()).hexdigest()
    run.write_text(json.dumps(json.loads(run.read_text()) | {"notebook": digest}))
    with pytest.raises(ArtifactError, match=r"is not the notebook that its card names"):
        reproduce(Path("models"), "iris", 1)
    assert not Path("executed").exists()


def test_a_version_that_was_not_promoted_is_made_again_once_it_is():
    written((*IRIS[:1], BEGIN, *IRIS[2:]))
    words = ("-p", "promote", "never")
    assert command("retrain", "--notebook", "mine.ipynb", *words).returncode == 0
    with pytest.raises(ArtifactError, match="no promotion of this registry names version 1"):
        reproduce(Path("models"), "iris", 1)
    assert reproduce(Path("models"), "iris", 1, trust=True).identical
    promote(Registry(Path("models")), 1, "I have read it", alias="draft")
    assert reproduce(Path("models"), "iris", 1).identical


def test_the_code_of_the_project_needs_no_promotion():
    done = command("retrain", "-p", "n_estimators", "5", "-p", "promote", "never")
    assert done.returncode == 0, done.stderr
    assert reproduce(Path("models"), "iris", 1).identical


def test_a_notebook_with_magics_is_made_again():
    line, cell = "%matplotlib inline\n", "%%time\n"
    written((IRIS[0], line + BEGIN, cell + SPLIT, LINE, "keep(model);"))
    done = command("retrain", "--notebook", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    assert reproduce(Path("models"), "iris", 1).identical
