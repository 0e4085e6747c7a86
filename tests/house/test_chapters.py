"""The chapters: their form, their links, and that they say what they said when they are run."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import papermill
import pytest
from house import CHAPTERS, NBS, NOTEBOOKS, ROOT, cells, exported, name_of, prose, source
from nbdev.doclinks import nbglob

BIN = Path(sys.executable).parent
BY_NAME = {"ids": name_of}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *NOTEBOOKS])
PARTS = {path.parent for path in NOTEBOOKS}
UNRECORDED = {"retrain"}  # it prints digests, which depend on the versions of the libraries
MACHINE = r"/(home|root|work|tmp|Users)/|site-packages"
MOMENT = r"\d{4}-\d\d-\d\d|\b\d\d:\d\d:\d\d\b"
UNLINKED = r"(?i)\b(chapter|section|page) (before|above|below|after)\b|\b(last|previous) chapter\b"
ROADS = "## Roads not taken"
MAIN_GUARD = ["#| eval: false", 'if __name__ == "__main__":', "    sys.exit(main())"]


def navigation():
    """The script that writes the last line of each notebook."""
    spec = importlib.util.spec_from_file_location("navigation", ROOT / "scripts/navigation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CHAPTERS, **BY_NAME)
def test_a_chapter_reads_as_a_chapter(path):
    texts = [source(cell) for cell in cells(path)]
    assert texts[0].startswith("#| default_exp")
    assert re.fullmatch(r"# [^\n]+: [^\n]+\n\n> .+", texts[1])
    assert not any("#| hide" in text for text in texts)
    if any(text.startswith(ROADS) for text in texts):
        assert texts[-2].startswith(ROADS)
    for text in exported(path):
        lines = [x for x in text.splitlines() if x.strip() and not x.startswith("#|")]
        assert len(lines) <= 30, lines[0]
        assert not re.search(r"^\s*(from|import)\b.*\b(nbdev|fastcore)\b", text, re.M)


@pytest.mark.parametrize("path", CHAPTERS, **BY_NAME)
def test_a_chapter_exports_no_more_than_one_can_read(path):
    lines = "\n".join(exported(path)).splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith("#|")]) <= 380


def test_the_chapters_are_numbered_from_one_in_each_part():
    for folder in {path.parent for path in CHAPTERS}:
        numbers = sorted(int(path.name[:2]) for path in CHAPTERS if path.parent == folder)
        assert numbers == list(range(1, len(numbers) + 1)), folder.name


def test_at_most_five_notebooks_stand_beside_the_parts():
    assert len(set(NOTEBOOKS) - set(CHAPTERS)) <= 5


def test_each_chapter_ends_with_links_to_its_neighbours():
    command = [sys.executable, ROOT / "scripts" / "navigation.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "every notebook ends with its neighbours\n")


def test_the_navigation_script_mends_what_is_missing_and_only_that(tmp_path, monkeypatch):
    script = navigation()
    monkeypatch.setattr(script, "NBS", shutil.copytree(NBS, tmp_path / "nbs"))
    monkeypatch.setattr(script, "INDEX", tmp_path / "nbs" / "index.ipynb")
    order = script.reading_order()
    whole = order[3].read_bytes()
    notebook = json.loads(whole)
    notebook["cells"].pop()
    order[3].write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["navigation.py"])
    with pytest.raises(SystemExit, match="False"):
        script.main()
    assert order[3].read_bytes() == whole


def text_of(document):
    return document.read_text(encoding="utf-8") if document.suffix == ".md" else prose(document)


def anchors(document):
    """What a link may name in a document: its headings, as Jupyter and GitHub both spell them."""
    headings = re.findall(r"^#+ (.+)$", text_of(document), re.M)
    spelt = {re.sub(r"[`*]", "", heading).replace(" ", "-") for heading in headings}
    return spelt | {re.sub(r"[^\w-]", "", heading.lower()) for heading in spelt}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(document):
    text = re.sub(r"```.*?```", "", text_of(document), flags=re.S)
    assert not re.search(UNLINKED, text), "a chapter is named by where it stands"
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"https?:|mailto:|attachment:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (document.parent / file).resolve() if file else document
        assert linked.exists(), target
        assert ROOT in linked.parents, target
        if anchor:
            assert anchor in anchors(linked), target


def test_every_chapter_is_linked_from_the_index():
    index = prose(NBS / "index.ipynb")
    missing = [name_of(path) for path in NOTEBOOKS if f"]({path.relative_to(NBS)})" not in index]
    assert missing == ["index"]


def test_the_retraining_notebook_has_exactly_its_parameters():
    notebook = NBS / "retrain.ipynb"
    tagged = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    found = papermill.inspect_notebook(notebook)
    defaults = {name: parameter["default"].strip("\"'") for name, parameter in found.items()}
    assert defaults == {
        "name": "iris",
        "data": "iris",
        "target": "None",
        "features": "None",
        "drop": "None",
        "task": "auto",
        "missing": "None",
        "categories": "None",
        "rare": "keep",
        "unknown": "refuse",
        "model": "random_forest",
        "seed": "0",
        "n_estimators": "100",
        "max_depth": "None",
        "min_samples_leaf": "1",
        "max_features": "None",
        "class_weight": "None",
        "test_size": "0.2",
        "split": "auto",
        "cv": "0",
        "n_jobs": "1",
        "min_score": "None",
        "promote": "auto",
        "page_rows": "None",
    }


def retraining_nodes():
    """The syntax of all code of the retraining notebook."""
    code = [source(c) for c in cells(NBS / "retrain.ipynb") if c["cell_type"] == "code"]
    return [node for text in code for node in ast.walk(ast.parse(text))]


def test_the_retraining_notebook_defines_nothing():
    assert not any(isinstance(node, DEFINITIONS) for node in retraining_nodes())


def test_the_retraining_notebook_imports_only_the_facade_that_stays():
    nodes = retraining_nodes()
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    assert {name for name in modules if name.startswith("iris_serve")} == {"iris_serve.notebook"}


RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
where = {"metadata": {"path": sys.argv[3]}}
NotebookClient(notebook, resources=where, skip_cells_with_tag="skip-execution").execute()
nbformat.write(notebook, sys.argv[2])
"""


def words(cell):
    """What a cell said: all that it printed, and its results that are not pictures."""
    printed, results = "", []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream" and output["name"] == "stdout":
            printed += "".join(output["text"])
        elif "data" in output and "image/png" not in output["data"]:
            results.append("".join(output["data"].get("text/plain", "")))
    return [printed, *results] if printed else results


def said_again(path, done):
    """Assert that the cells of the notebook `path` say in the notebook `done` what they said."""
    for old, new in zip(cells(path), cells(done), strict=True):
        if words(old) or path.stem not in UNRECORDED:
            assert words(new) == words(old), source(old)


@contextmanager
def left_alone(folder):
    """Assert that nothing new stands in `folder` afterwards."""
    before = {entry.name for entry in folder.iterdir()}
    yield
    left = {entry.name for entry in folder.iterdir()} - before
    assert left <= {".ipynb_checkpoints"}, "a notebook leaves nothing beside it"


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A process that runs notebooks in copies of itself, and the file with its complaints."""
    complaints = tmp_path_factory.mktemp("runner") / "complaints"
    command = [sys.executable, Path(__file__).with_name("run_notebooks.py")]
    with complaints.open("w") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
        )
        with process:
            yield process, complaints
            process.stdin.close()


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_notebook_says_what_it_said(path, runner, tmp_path):
    process, complaints = runner
    done = tmp_path / "done.ipynb"
    with left_alone(path.parent):
        process.stdin.write(f"{path}\t{done}\t{tmp_path / 'models'}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "0\n", complaints.read_text()[-3000:]
    said_again(path, done)


FIRST = {folder: min(p for p in NOTEBOOKS if p.parent == folder) for folder in PARTS}
OTHERS = pytest.mark.slow  # what is special about Jupyter shows in one notebook of each part
IN_JUPYTER = [pytest.param(p, marks=[OTHERS] * (FIRST[p.parent] != p)) for p in NOTEBOOKS]


@pytest.mark.parametrize("path", IN_JUPYTER, **BY_NAME)
def test_a_notebook_runs_in_plain_jupyter_and_says_what_it_said(path, tmp_path):
    copy, done = tmp_path / path.name, tmp_path / "done.ipynb"
    shutil.copy(path, copy)
    environment = os.environ | {"IRIS_SERVE_MODELS": str(tmp_path / "models")}
    command = [sys.executable, "-c", RUN, copy, done, path.parent]
    with left_alone(path.parent):
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
    said_again(path, done)


def test_nbdev_test_finds_every_notebook_and_skips_no_cell():
    assert sorted(nbglob(NBS, as_path=True)) == NOTEBOOKS
    assert list(NBS.glob("**/.notest")) == []
    skipped = r"^#\|\s*(eval|skip|slow|cuda)"
    found = [source(c) for p in NOTEBOOKS for c in cells(p) if re.search(skipped, source(c), re.M)]
    assert [text.splitlines()[1:] for text in found] == [MAIN_GUARD]


def nbdev_test(path, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}
    command = [BIN / "nbdev_test", "--path", path, "--n_workers", "2"]
    environment["IRIS_SERVE_MODELS"] = str(tmp_path / "models")
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_nbdev_test_runs_a_part(tmp_path):
    done = nbdev_test(NBS / "1_data", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_nbdev_test_runs_every_notebook(tmp_path):
    done = nbdev_test(NBS, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_committed_notebook_holds_no_path_of_a_machine_no_moment_and_no_error(path):
    for cell in cells(path):
        outputs = json.dumps(cell.get("outputs", []))
        for text in (source(cell), outputs):
            assert not re.search(f"{MACHINE}|{MOMENT}", text.replace("/home/me", ""))
        assert '"output_type": "error"' not in outputs
