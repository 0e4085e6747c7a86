"""The structure of the project: what is generated is current, and the house keeps its rules."""

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import papermill
import pytest

import iris_serve
from iris_serve.__main__ import main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"\d\d[a-z]?_", path.name)]
BY_NAME = {"ids": lambda path: path.stem}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
UNRECORDED = {"retrain"}  # it prints digests, which depend on the versions of the libraries
MACHINE = r"/(home|root|work|tmp|Users)/|site-packages"
MOMENT = r"\d{4}-\d\d-\d\d|\b\d\d:\d\d:\d\d\b"


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def exported(path):
    return [source(c) for c in cells(path) if re.match(r"#\|\s*export(s|i)?\b", source(c))]


def module_of(path):
    name = next(re.search(r"default_exp (\w+)", source(c)) for c in cells(path))
    return name[1]


def own_imports(tree):
    """The modules of this package that a module imports, in whatever way it says so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (n.partition(".")[2] for n in names if n.startswith("iris_serve."))
        elif isinstance(node, ast.ImportFrom):
            whole = "." * node.level + (node.module or "")
            inside = re.fullmatch(r"(?:\.|iris_serve\b\.?)(\w*)", whole)
            if inside:
                yield from [inside[1]] if inside[1] else [alias.name for alias in node.names]


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    """A copy of the notebooks that has been cleaned and exported afresh."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "settings.ini", copy)
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns("models", ".ipynb*"))
    (copy / "iris_serve").mkdir()
    (copy / "iris_serve" / "__main__.py").touch()
    environment = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    for tool in ("nbdev_export", "nbdev_clean"):
        subprocess.run([BIN / tool], cwd=copy, env=environment, check=True, capture_output=True)
    return copy


def test_the_modules_are_exactly_what_the_notebooks_export(regenerated):
    def modules(root):
        return {
            p.relative_to(root).as_posix(): p.read_text(encoding="utf-8")
            for p in (root / "iris_serve").glob("**/*.py")
        }

    here, fresh = modules(ROOT), modules(regenerated)
    assert sorted(here) == sorted(fresh)
    assert [name for name in here if here[name] != fresh[name]] == []


def test_the_notebooks_are_clean(regenerated):
    dirty = [
        path.name
        for path in NOTEBOOKS
        if path.read_bytes() != (regenerated / "nbs" / path.name).read_bytes()
    ]
    assert dirty == []


def test_the_readme_is_what_its_notebook_says(tmp_path):
    command = [BIN / "jupyter", "nbconvert", "--execute", "--to", "markdown"]
    command += ["--output-dir", tmp_path, "--output", "README", ROOT / "nbs" / "index.ipynb"]
    subprocess.run(command, check=True, capture_output=True)
    made = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert made == (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CHAPTERS, **BY_NAME)
def test_a_chapter_imports_only_from_lower_numbers(path):
    ranks = {module_of(p): p.name.split("_")[0] for p in CHAPTERS}
    module = ROOT / "iris_serve" / f"{module_of(path)}.py"
    used = set(own_imports(ast.parse(module.read_text(encoding="utf-8")))) - {"__version__"}
    assert [name for name in used if ranks[name] >= path.name.split("_")[0]] == []


@pytest.mark.parametrize("path", CHAPTERS, **BY_NAME)
def test_a_chapter_reads_as_a_chapter(path):
    texts = [source(c) for c in cells(path)]
    assert texts[0].startswith("#| default_exp")
    assert re.fullmatch(r"# .+\n\n> .+", texts[1])
    assert sum("#| hide" in text for text in texts) <= 1
    assert texts[-1].startswith("## Roads not taken")
    for text in exported(path):
        lines = [x for x in text.splitlines() if x.strip() and not x.startswith("#|")]
        assert len(lines) <= 30, lines[0]
        assert not re.search(r"^\s*(from|import)\b.*\b(nbdev|fastcore)\b", text, re.M)


@pytest.mark.parametrize("path", CHAPTERS, **BY_NAME)
def test_the_readme_lists_every_chapter_with_its_promise(path):
    promise = source(cells(path)[1]).split("> ")[1]
    line = f"| [{path.stem}](nbs/{path.name}) | {promise} |"
    assert line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_retraining_notebook_has_exactly_its_parameters():
    notebook = ROOT / "nbs" / "retrain.ipynb"
    tagged = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    found = papermill.inspect_notebook(notebook)
    defaults = {name: parameter["default"].strip("\"'") for name, parameter in found.items()}
    assert defaults == {
        "name": "iris",
        "data": "iris",
        "target": "None",
        "features": "None",
        "seed": "0",
        "n_estimators": "100",
        "max_depth": "None",
        "test_size": "0.2",
        "cv": "0",
        "min_score": "None",
        "promote": "auto",
    }


def test_the_retraining_notebook_defines_nothing():
    code = [source(c) for c in cells(ROOT / "nbs" / "retrain.ipynb") if c["cell_type"] == "code"]
    nodes = [node for text in code for node in ast.walk(ast.parse(text))]
    assert not any(isinstance(n, DEFINITIONS) for n in nodes)


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


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_notebook_runs_in_plain_jupyter_and_says_what_it_said(path, tmp_path):
    copy, done = tmp_path / path.name, tmp_path / "done.ipynb"
    shutil.copy(path, copy)
    environment = os.environ | {"IRIS_SERVE_MODELS": str(tmp_path / "models")}
    command = [sys.executable, "-c", RUN, copy, done, path.parent]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    for before, after in zip(cells(path), cells(done), strict=True):
        if words(before) or path.stem not in UNRECORDED:
            assert words(after) == words(before), source(before)


@pytest.mark.parametrize("path", NOTEBOOKS, **BY_NAME)
def test_a_committed_notebook_holds_no_path_of_a_machine_no_moment_and_no_error(path):
    for cell in cells(path):
        outputs = json.dumps(cell.get("outputs", []))
        for text in (source(cell), outputs):
            assert not re.search(f"{MACHINE}|{MOMENT}", text.replace("/home/me", ""))
        assert '"output_type": "error"' not in outputs


def test_the_test_command_is_the_same_everywhere():
    command = "python3 scripts/check.py"
    for name in ("README.md", ".ci/run", ".github/workflows/ci.yml"):
        assert command in (ROOT / name).read_text(encoding="utf-8"), name


def test_the_commands_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
    tools = set(re.findall(r"\.venv(?:-dev)?/bin/([\w-]+)", blocks))
    assert {"pip", "python", "papermill", "jupyter", "nbdev_export"} <= tools
    assert [tool for tool in tools if not (BIN / tool).exists()] == []
    asked = set(re.findall(r"python -m iris_serve ([a-z]\w*)", blocks))
    assert asked
    assert asked <= set(main.commands)
    scripts = re.findall(r"\b(?:nbs|scripts)/[\w.]+\w", blocks)
    assert [name for name in scripts if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["requirements/dev.txt", "requirements/clients.txt"])
def test_a_lock_names_no_index_and_hashes_everything(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in "\n".join(x for x in text.splitlines() if not x.startswith("#"))
    pinned = re.findall(r"^[a-z0-9].*==.*", text, re.M)
    assert pinned
    assert all(line.endswith("\\") for line in pinned)


def test_the_clients_are_locked_as_they_were_asked_for():
    asked = tomllib.loads((ROOT / "tests" / "clients" / "pyproject.toml").read_text("utf-8"))
    lock = (ROOT / "requirements/clients.txt").read_text(encoding="utf-8")
    pins = [re.sub(r"\[.*\]", "", pin) for pin in asked["dependency-groups"]["clients"]]
    assert [pin for pin in pins if f"\n{pin} \\\n" not in lock] == []


def test_the_version_has_one_home():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    assert settings["DEFAULT"]["version"] == iris_serve.__version__
