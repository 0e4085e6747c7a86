"""What a version records is what has made it: the values, the code, and the modules beside it."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel
from own_notebooks import BEGIN, IRIS, LINE, SPLIT, command, papermill, written

from iris_serve.model.card import read_card
from iris_serve.registry.registry import Registry
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
        "C = 9",
        "C *= 2",
        "for C in (1, 2):\n    pass",
        "for C in (1, 0.5):\n    pass",
        "%matplotlib inline\nC = 9",
        "globals().update(C=9)",
        "if (C := 3): pass",
        "C = 9\nC = 0.5",
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


def test_a_parameter_is_refused_however_late_it_is_set_again():
    for at in (3, 4):
        written((*IRIS[:at], "C = 9", *IRIS[at:]))
        done = papermill("-p", "C", "0.5")
        assert done.returncode == 1
        assert SET_AGAIN in done.stderr
    assert Registry(Path("models")).versions() == []


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
