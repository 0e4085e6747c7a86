"""The command `docs`: it opens the pages of a clone, or the published ones."""

import webbrowser

import pytest
from click.testing import CliRunner

from iris_serve.__main__ import main
from iris_serve.cli import documentation
from iris_serve.cli.documentation import BUILDER, BUILT, PUBLISHED_SITE

FAILS = "import sys; sys.exit(3)"


@pytest.fixture
def opened(monkeypatch):
    """The addresses that a browser was asked to open."""
    found = []
    monkeypatch.setattr(webbrowser, "open", found.append)
    return found


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone without a site, in which the package stands; its site can be built."""
    (tmp_path / BUILDER).parent.mkdir()
    (tmp_path / BUILDER).write_text(FAILS)
    (tmp_path / BUILT).parent.mkdir()
    monkeypatch.setattr(documentation, "clone_of", lambda package: tmp_path)
    monkeypatch.setattr(documentation, "find_spec", lambda name: None)
    return tmp_path


def test_a_wheel_opens_the_published_pages(monkeypatch, opened):
    monkeypatch.setattr(documentation, "clone_of", lambda package: None)
    done = CliRunner().invoke(main, ["docs"])
    assert (done.exit_code, done.output, opened) == (0, f"{PUBLISHED_SITE}\n", [PUBLISHED_SITE])


def test_a_clone_opens_the_pages_that_it_has(clone, opened):
    (clone / BUILT).touch()
    done = CliRunner().invoke(main, ["docs"])
    assert (done.exit_code, opened) == (0, [(clone / BUILT).as_uri()])
    assert done.output == f"{opened[0]}\n"


def test_print_opens_nothing(clone, opened):
    (clone / BUILT).touch()
    assert CliRunner().invoke(main, ["docs", "--print"]).exit_code == 0
    assert opened == []


def test_without_what_builds_it_the_command_says_how_to_get_it(clone, opened):
    done = CliRunner().invoke(main, ["docs"])
    assert (done.exit_code, opened) == (1, [])
    assert "pip install -e '.[docs]'" in done.output
    assert PUBLISHED_SITE in done.output


def test_a_build_that_fails_is_told_by_the_exit_code(clone, opened, monkeypatch):
    (clone / BUILT).touch()

    class Found:
        origin = None

    monkeypatch.setattr(documentation, "find_spec", lambda name: Found)
    done = CliRunner().invoke(main, ["docs", "--build"])
    assert (done.exit_code, opened) == (1, [])
