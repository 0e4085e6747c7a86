"""The documentation site: it has every chapter and every public name, and it is built cleanly."""

import importlib
import os
import re
import subprocess
import sys

import pytest
from house import CHAPTERS, MODULES, NBS, ROOT, dotted, source

from iris_serve.__main__ import main
from iris_serve.cli.documentation import PUBLISHED_SITE
from iris_serve.cli.settings import Settings, setting_rows

PLACE = ROOT / ".venv-docs"
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))


@pytest.fixture(scope="module")
def website():
    """The script that makes the site, as a module."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield importlib.import_module("website")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def pages(website, tmp_path_factory):
    """The pages that Sphinx gets."""
    folder = tmp_path_factory.mktemp("pages")
    website.stage(folder)
    return folder


def public(module):
    """What nbdev says is public in a module, but what another module defines."""
    found = importlib.import_module(dotted(module))
    return getattr(found, "__all__", [])


def test_every_public_name_is_linked_to_its_cell(website):
    known = website.public_names()
    for module in MODULES:
        if dotted(module) != "iris_serve.__main__":
            assert set(public(module)) <= set(known.get(dotted(module), {})), module.name


def test_every_public_name_has_a_place_on_its_page_and_in_the_reference(website, pages):
    reference = "".join(p.read_text("utf-8") for p in sorted(pages.glob("reference/api/*.md")))
    for names in website.public_names().values():
        for name in names.values():
            assert f'id=\\"{name.anchor}\\"' in (pages / name.notebook).read_text("utf-8")
            assert f"#{name.anchor}" in reference


def test_every_chapter_is_on_the_page_of_its_part(pages):
    for path in CHAPTERS:
        part = (pages / "nbs" / path.parent.name / "index.md").read_text("utf-8")
        assert f"]({path.name})" in part


def test_a_page_says_what_its_notebook_says(website):
    path = NBS / "4_registry" / "02_records.ipynb"
    page = website.staged(path, website.public_names())["cells"]
    kept = [c for c in website.read_cells(path) if c["cell_type"] == "code"][1:]
    shown = [c for c in page if c["cell_type"] == "code"]
    assert [c["outputs"] for c in shown] == [c["outputs"] for c in kept]
    assert not any("#|" in source(c) for c in shown)


def test_a_link_that_leads_nowhere_is_found(website, tmp_path):
    with pytest.raises(FileNotFoundError, match="which is not there"):
        website.relinked("nowhere.ipynb", "nbs/tour.ipynb")
    (tmp_path / "one.html").write_text('<a href="two.html#there"></a><a href="three.html"></a>')
    (tmp_path / "two.html").write_text('<p id="here"></p><img src="https://example.org/a.png">')
    assert website.broken_links(tmp_path) == ["one.html: three.html", "one.html: two.html#there"]
    assert website.foreign(tmp_path) == ["https://example.org/a.png"]


def test_each_how_to_is_two_clicks_away():
    front = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert ":link: how-to/index" in front
    doors = (ROOT / "docs" / "how-to" / "index.md").read_text("utf-8")
    names = {path.stem for path in HOW_TO} - {"index"}
    assert names == {
        *("own-table", "own-model", "own-notebook"),
        *("page", "nginx", "keys", "monitoring", "deploy", "upgrade"),
    }
    assert {name for name in names if f":link: {name}\n" not in doors} == set()


def without_other_programs(text):
    """The page `text` without the commands of Docker, AWS and others, whose options aren't ours."""
    others = "aws|curl|docker|gcloud|git|heroku|kubectl"
    text = re.sub(r"(\\|&&)\n", " ", text)  # a command that goes on in the next line
    return re.sub(rf"^.*(?:^|&& )(?:{others}) .*$|`(?:{others}) [^`]*`", "", text, flags=re.M)


@pytest.mark.parametrize("path", HOW_TO, ids=lambda path: path.stem)
def test_a_how_to_has_its_sections_and_names_only_commands_and_options_that_exist(path):
    text = path.read_text("utf-8")
    if path.stem != "index":
        for part in ("**Goal:**", "```sh\n", "## What can go wrong", "## Read on"):
            assert part in text, part
    asked = set(re.findall(r"^ *(?:`?)iris-serve ([a-z][\w-]*)", text, re.M))
    asked |= set(re.findall(r"`iris-serve ([a-z][\w-]*)", text))
    assert asked <= set(main.commands)
    variables = set(re.findall(r"\bIRIS_SERVE_([A-Z_]+)", text))
    assert {name.lower() for name in variables} <= set(Settings.__struct_fields__)
    given = {
        option for command in main.commands.values() for p in command.params for option in p.opts
    }
    given |= {row[0] for row in setting_rows()}
    options = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", without_other_programs(text)))
    assert options <= given | {"--help", "--upgrade"}


def test_the_published_address_has_one_home():
    settings = (ROOT / "settings.ini").read_text("utf-8")
    user, repo = (re.search(rf"^{key} = (.+)$", settings, re.M)[1] for key in ("user", "repo"))
    assert f"https://{user}.github.io/{repo}/" == PUBLISHED_SITE
    assert f'"{PUBLISHED_SITE}"' in (ROOT / "docs" / "conf.py").read_text("utf-8")


@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not (PLACE / "made-from").exists() and not os.environ.get("CI"),
    reason="there is no .venv-docs, which python3 scripts/check.py --job docs makes; CI is not set",
)
def test_the_site_is_built_without_a_warning_and_every_link_leads_somewhere(tmp_path):
    command = [PLACE / "bin" / "python", ROOT / "scripts" / "website.py", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    chapter = (tmp_path / "site" / "nbs" / "3_model" / "01_train.html").read_text("utf-8")
    assert 'id="iris_serve.model.train.fit"' in chapter
    assert '<a class="name" href="' in chapter
    assert (tmp_path / "site" / "searchindex.js").stat().st_size > 100_000
