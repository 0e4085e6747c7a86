"""The project: what is generated is current, and what is written down is so."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from house import NOTEBOOKS, ROOT

import iris_serve
from iris_serve.__main__ import main
from iris_serve.cli.settings import setting_rows
from iris_serve.openapi.routes import OPERATIONS

BIN = Path(sys.executable).parent


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
        if path.read_bytes() != (regenerated / path.relative_to(ROOT)).read_bytes()
    ]
    assert dirty == []


def test_the_readme_is_what_its_notebook_says(tmp_path):
    made = tmp_path / "README.md"
    subprocess.run([sys.executable, ROOT / "scripts/readme.py", made], check=True)
    assert made.read_text("utf-8") == (ROOT / "README.md").read_text("utf-8")


def test_the_test_command_is_the_same_everywhere():
    command = "python3 scripts/check.py"
    for name in ("README.md", ".ci/run", ".github/workflows/ci.yml"):
        assert command in (ROOT / name).read_text(encoding="utf-8"), name


WORKFLOWS = {path.name: path.read_text("utf-8") for path in ROOT.glob(".github/workflows/*.yml")}


def test_the_workflows_run_every_job_of_the_checks_and_no_other():
    text = (ROOT / "scripts" / "check.py").read_text(encoding="utf-8")
    jobs = set(re.findall(r'"(\w+)"', re.search(r"^JOBS = (.+)$", text, re.M)[1]))
    run = set(re.findall(r"scripts/check\.py --job (\w+)", "".join(WORKFLOWS.values())))
    assert run == jobs
    assert all(f"check.py --job {job}" in text.partition('"""\n\n')[0] for job in jobs)


def test_the_workflows_use_actions_by_their_commits_and_name_their_versions():
    used = re.findall(r"uses: (.+)$", "\n".join(WORKFLOWS.values()), re.M)
    assert used
    pinned = r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert [action for action in used if not re.fullmatch(pinned, action)] == []


def test_the_workflows_may_write_only_where_they_publish():
    for name, text in WORKFLOWS.items():
        assert re.search(r"^permissions:\n  contents: read$", text, re.M), name
        jobs = re.split(r"^  (?=[\w-]+:$)", text.partition("\njobs:\n")[2], flags=re.M)
        writing = {job.partition(":")[0] for job in jobs if ": write" in job}
        assert writing == {"publish-docs"} if name == "ci.yml" else {"publish", "github-release"}


def test_a_newer_push_never_cuts_a_publication_off():
    ci = yaml.safe_load(WORKFLOWS["ci.yml"])
    own = ci["jobs"]["publish-docs"]["concurrency"]
    assert own["cancel-in-progress"] is False
    assert own["group"] != ci["concurrency"]["group"]
    cut_off = (
        "${{ github.event_name == 'pull_request' }}"  # a run that is cut off takes its jobs along
    )
    assert ci["concurrency"]["cancel-in-progress"] == cut_off
    assert ci["jobs"]["publish-docs"]["if"] == "github.event_name == 'push'"
    assert "concurrency" not in yaml.safe_load(WORKFLOWS["release.yml"])


@pytest.mark.skipif(os.name != "posix", reason="the script is for a POSIX shell")
def test_a_release_before_the_release_is_marked_as_one(tmp_path):
    (step,) = [
        step
        for step in yaml.safe_load(WORKFLOWS["release.yml"])["jobs"]["github-release"]["steps"]
        if "gh release create" in step.get("run", "")
    ]
    (tmp_path / "gh").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "gh").chmod(0o755)
    final = {"v1.0.0", "v10.20.30", "v1.0.0.post1"}
    for tag in {"v1.0.0rc1", "v1.0.0a1", "v1.0.0b2", "v1.0.0.dev3", *final}:
        known = {"PATH": f"{tmp_path}:/bin", "GITHUB_REF_NAME": tag, "GITHUB_REPOSITORY": "a/b"}
        words = ["sh", "-e", "-c", step["run"]]
        done = subprocess.run(words, env=known, capture_output=True, text=True, check=True)
        said = done.stdout.splitlines()
        assert said[:3] == ["release", "create", tag]
        assert ("--prerelease" in said) == (tag not in final)


def test_the_checks_run_on_every_python_that_is_supported():
    matrix = re.search(r"python: \[(.+)\]", WORKFLOWS["ci.yml"])[1]
    assert re.findall(r"[\d.]+", matrix) == ["3.11", "3.12", "3.13", "3.14"]
    assert "\nmin_python = 3.11\n" in (ROOT / "settings.ini").read_text(encoding="utf-8")


TOOLS = {
    "README.md": {"pip", "python", "papermill", "jupyter"},
    "CONTRIBUTING.md": {"python", "jupyter", "nbdev_export"},
}


@pytest.mark.parametrize("name", TOOLS)
def test_the_commands_in_a_document_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
    tools = set(re.findall(r"\.venv(?:-dev)?/bin/([\w-]+)", blocks))
    assert TOOLS[name] <= tools
    assert [tool for tool in tools if not (BIN / tool).exists()] == []
    files = re.findall(r"\b(?:nbs|scripts|tests)/[\w./]+\w", blocks)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_readme_shows_the_commands_of_the_program():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    asked = set(re.findall(r"python -m iris_serve ([a-z][\w-]*)", text))
    assert asked <= set(main.commands)
    assert set(main.commands) - asked == {"serve", "train"}


def test_the_readme_names_only_options_and_routes_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"`(--[a-z-]+)`", text))
    assert used <= {row[0] for row in setting_rows()}
    table = re.findall(r"^\| ((?:`/[^`]*`(?:, )?)+) \|", text, re.M)
    routes = {route for cell in table for route in re.findall(r"`(/[^`]*)`", cell)}
    known = {operation.partition(" ")[2] for operation in OPERATIONS}
    patterns = [re.sub(r"\{\w+\}", "[^/]+", route) for route in known]
    whole = {route for route in routes if not route.endswith("…")}
    assert whole
    assert {r for r in whole if not any(re.fullmatch(p, r) for p in patterns)} == set()
    begun = {route.removesuffix("…") for route in routes - whole}
    assert {b for b in begun if not any(route.startswith(b) for route in known)} == set()


@pytest.mark.parametrize("name", ["dev", "clients", "docs", "release"])
def test_a_lock_names_no_index_and_hashes_everything(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
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
