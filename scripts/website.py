"""Make the documentation site from the notebooks as they are committed; nothing is executed.

python scripts/website.py            the site in _docs
python scripts/website.py DIRECTORY  the site in another directory
python scripts/website.py --pages    only the pages that Sphinx would get, in _docs/pages

It needs the extra [docs], and is run by `python3 scripts/check.py --job docs`. A warning of
Sphinx is an error, and so is a link that leads nowhere.
"""

import ast
import html
import json
import os
import posixpath
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is that of this directory, also for docs/conf.py
NBS, DOCS = ROOT / "nbs", ROOT / "docs"
CODE_HOST = "https://github.com/iris-serve/iris_serve/blob/main"
MADE = {f"docs/reference/{name}.md" for name in ("commands", "settings", "routes", "python")}
PART_TITLES = {"openapi": "OpenAPI", "cli": "Command line"}


class Name(NamedTuple):
    """A public name: the module that has it, the notebook and the syntax that define it."""

    name: str
    module: str
    notebook: str  # its path from the root of the repository
    node: ast.stmt

    @property
    def anchor(self) -> str:
        return f"{self.module}.{self.name}"


Modules = dict[str, dict[str, Name]]


def source(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def is_exported(cell: dict[str, Any]) -> bool:
    """True for a cell that is part of the program."""
    return cell["cell_type"] == "code" and source(cell).startswith("#| export")


def module_of(cells: list[dict[str, Any]]) -> str:
    """The module that a notebook exports, or nothing."""
    found = re.match(r"#\| *default_exp ([\w.]+)", source(cells[0]))
    return f"iris_serve.{found[1]}".removesuffix(".__init__") if found else ""


def defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Assign):
        targets = [name for target in node.targets for name in getattr(target, "elts", [target])]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def public_names() -> Modules:
    """All public names by module, in the order of reading."""
    found: Modules = {}
    for path in sorted(NBS.glob("[0-9]_*/*.ipynb")):
        cells = read_cells(path)
        module = found.setdefault(module_of(cells), {})
        for node in (n for c in cells if is_exported(c) for n in ast.parse(source(c)).body):
            for name in defined(node):
                if not name.startswith("_"):
                    where = path.relative_to(ROOT).as_posix()
                    module.setdefault(name, Name(name, module_of(cells), where, node))
    return found


def names_in(cells: list[dict[str, Any]], modules: Modules) -> dict[str, Name]:
    """The public names that a notebook defines or imports."""
    scope = dict(modules.get(module_of(cells), {}))
    for cell in cells:
        if cell["cell_type"] != "code" or source(cell).startswith("%"):
            continue
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                known = modules[node.module]
                scope |= {a.name: known[a.name] for a in node.names if a.name in known}
    return scope


def place(path: str) -> str:
    """Where a file of the repository stands among the pages of the site."""
    if path == "README.md":
        return "nbs/index.ipynb"
    return path.removeprefix("docs/")


def slug(heading: str) -> str:
    """The anchor of a heading, from its anchor in Jupyter."""
    return re.sub(r"[^\w-]", "", heading.lower())


def relinked(target: str, page: str) -> str:
    """The `target` of a link on the `page` of the repository, as the site's page links to it."""
    path, _, anchor = target.partition("#")
    if re.match(r"[a-z]+:", target) or not path:
        return target if path else f"#{slug(anchor)}"
    file = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    if not (ROOT / file).exists() and file not in MADE:
        raise FileNotFoundError(f"{page}: a link leads to {target}, which is not there")
    if not file.endswith((".ipynb", ".md", ".svg", ".png")):
        return f"{CODE_HOST}/{file}"
    there = posixpath.relpath(place(file), posixpath.dirname(place(page)) or ".")
    return f"{there}#{slug(anchor)}" if anchor else there


PIECE = re.compile(
    r"(?P<fence>^```.*?^```\s*$)|(?P<heading>^#+ .*?$)"
    r"|(?P<link>\]\((?P<target>[^)\s]+)\))|(?P<code>(?<!`)`(?P<name>[A-Za-z]\w*)(?:\(\))?`(?!`))",
    re.M | re.S,
)


def converted(text: str, page: str, scope: dict[str, Name]) -> str:
    """The Markdown `text` of `page` with links of the site, and names linked to their cells."""

    def piece(found: re.Match[str]) -> str:
        if found["link"]:
            return f"]({relinked(found['target'], page)})"
        if not found["code"] or found["name"] not in scope or inside_link(found):
            return found[0]
        code = f'<code class="docutils literal">{found[0].strip("`")}</code>'
        return f'<a class="name" href="{cell_link(scope[found["name"]], page)}">{code}</a>'

    return PIECE.sub(piece, text)


def inside_link(found: re.Match[str]) -> bool:
    """True if what was found stands between the brackets of a link."""
    before = found.string[found.string.rfind("\n", 0, found.start()) + 1 : found.start()]
    return before.count("[") > before.count("]")


def cell_link(name: Name, page: str) -> str:
    """The address of the cell that defines `name`, from the `page` of the repository."""
    there = place(name.notebook).removesuffix(".ipynb") + ".html"
    return f"{posixpath.relpath(there, posixpath.dirname(place(page)) or '.')}#{name.anchor}"


def markdown(text: str, name: str) -> dict[str, Any]:
    """A Markdown cell, with an id made from `name`."""
    return {"cell_type": "markdown", "id": f"to-{name}", "metadata": {}, "source": text}


def where_line(path: str, module: str) -> str:
    """The line under the title: which module this is, and where the notebook is."""
    links = [f'<a href="{CODE_HOST}/{path}">this notebook</a>']
    if module:
        part = part_of(module)
        here = f"../../reference/api/{part}.html#module-{module}"
        exports = f'the cells with a colored edge are <a href="{here}"><code>{module}</code></a>'
        links.insert(0, exports)
    return f'\n\n<p class="where">{" · ".join(links)}</p>'


def part_of(module: str) -> str:
    """The page of the API reference on which a module stands."""
    words = module.split(".")
    return words[1] if len(words) > 2 or words[-1] == "forest" else "named"


def staged(path: Path, modules: Modules) -> dict[str, Any]:
    """The notebook as a page: anchors at its names, links of the site, and no directives."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    cells, page = notebook["cells"], path.relative_to(ROOT).as_posix()
    module, scope = module_of(cells), names_in(cells, modules)
    made: list[dict[str, Any]] = []
    for cell in cells:
        text = source(cell)
        if cell.get("id") == "navigation" or re.match(r"#\| *default_exp", text):
            continue
        if cell["cell_type"] == "markdown":
            text = converted(text, page, scope)
            text += (
                where_line(page, module) if text.startswith("# ") and path.stem != "index" else ""
            )
            made.append(cell | {"source": text})
        elif is_exported(cell):
            made.append(markdown(anchors(text, module, modules[module]), cell["id"]))
            tags = [*cell["metadata"].get("tags", []), "exported"]
            lines = [line for line in text.split("\n") if not line.startswith("#|")]
            made.append(cell | {"source": "\n".join(lines), "metadata": {"tags": tags}})
        else:
            made.append(cell)
    return notebook | {"cells": [cell for cell in made if source(cell)]}


def anchors(text: str, module: str, known: dict[str, Name]) -> str:
    """What a link to a name leads to: one invisible element for each name of a cell."""
    names = [name for node in ast.parse(text).body for name in defined(node) if name in known]
    return "\n".join(f'<span class="anchor" id="{module}.{name}"></span>' for name in names)


def title_of(path: Path) -> tuple[str, str, str]:
    """The short title of a notebook, the rest of its title, and its promise."""
    text = next(t for cell in read_cells(path) if (t := source(cell)).startswith("# "))
    title, _, rest = text.splitlines()[0].removeprefix("# ").partition(": ")
    promise = re.search(r"^> (.+)$", text, re.M)
    return title, rest, promise[1] if promise else ""


def part_title(folder: Path) -> str:
    """The title of a part."""
    word = folder.name.partition("_")[2]
    return PART_TITLES.get(word, word.capitalize())


def promises() -> dict[str, str]:
    """What each part promises, as the index says it."""
    index = "\n".join(source(cell) for cell in read_cells(NBS / "index.ipynb"))
    return dict(re.findall(r"^\| `(\d_\w+)` \| (.+?) \| \[", index, re.M))


def toctree(entries: list[str], *options: str) -> str:
    """A table of contents for the sidebar."""
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def part_page(folder: Path, promise: str) -> str:
    """The page of a part: its promise, and a line for each chapter."""
    lines = [f"# {folder.name[0]}. {part_title(folder)}\n", f"{promise}\n"]
    entries = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        title, rest, said = title_of(path)
        lines.append(f"1. **[{title}]({path.name})**: {rest}. {said}")
        entries.append(f"{title} <{path.stem}>")
    return "\n".join([*lines, "", toctree(entries, ":hidden:")])


def parts_table() -> str:
    """The nine parts as cards."""
    cards = ["::::{grid} 1 2 2 3", ":gutter: 3", ""]
    for name, promise in promises().items():
        link = f"nbs/{name}/index"
        title = f"{name[0]}. {part_title(NBS / name)}"
        cards += [f":::{{grid-item-card}} {title}", f":link: {link}", ":link-type: doc", ""]
        cards += [promise, ":::"]
    return "\n".join([*cards, "::::", ""])


def write(pages: Path, name: str, text: str) -> None:
    """Write a page."""
    (pages / name).parent.mkdir(parents=True, exist_ok=True)
    (pages / name).write_text(text, encoding="utf-8")


def stage(pages: Path) -> Modules:
    """Write all pages as Sphinx gets them into the directory `pages`."""
    import reference  # needs the package, which the rest does not

    modules = public_names()
    shutil.copytree(DOCS, pages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))
    for path in sorted([*DOCS.rglob("*.md"), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]):
        page = path.relative_to(ROOT).as_posix()
        text = converted(path.read_text(encoding="utf-8"), page, {})
        write(pages, place(page), text.replace("<!-- parts -->", parts_table()))
    for path in sorted(NBS.rglob("*.ipynb")):
        if not {"models", ".ipynb_checkpoints"} & set(path.parts):
            text = json.dumps(staged(path, modules), ensure_ascii=False)
            write(pages, path.relative_to(ROOT).as_posix(), text)
    for path in (*NBS.rglob("*.svg"), *NBS.rglob("*.png")):
        to = pages / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    for name, promise in promises().items():
        write(pages, f"nbs/{name}/index.md", part_page(NBS / name, promise))
    for name, text in reference.pages(modules, cell_link).items():
        write(pages, name, text)
    return modules


SPAN = re.compile(r'<span class="(n[a-z]?)">(\w+)</span>')
HIGHLIGHT = re.compile(r'<div class="highlight">.*?</pre></div>', re.S)


def with_links(text: str, page: str, scope: dict[str, Name]) -> str:
    """The HTML `text` of `page` with the names in its code linked to their cells."""

    def linked(found: re.Match[str]) -> str:
        name = scope.get(found[2])
        if not name or found[1] == "na":  # an attribute of something else
            return found[0]
        return f'<a class="name" href="{cell_link(name, page)}">{found[0]}</a>'

    return HIGHLIGHT.sub(lambda block: SPAN.sub(linked, block[0]), text)


def link_code(site: Path, modules: Modules) -> None:
    """Link the names in the code of each notebook to their cells."""
    for path in sorted(NBS.rglob("*.ipynb")):
        page = path.relative_to(ROOT).as_posix()
        file = (site / page).with_suffix(".html")
        if file.exists():
            scope = names_in(read_cells(path), modules)
            file.write_text(with_links(file.read_text(encoding="utf-8"), page, scope), "utf-8")


class Page(NamedTuple):
    """The anchors and the links of a page; an anchor that is there twice, too."""

    anchors: list[str]
    links: set[str]

    @classmethod
    def of(cls, text: str) -> "Page":
        tags = re.findall(r"<[a-zA-Z][^<>]*>", text)
        pairs = [pair for tag in tags for pair in re.findall(r'\s(id|href|src)="([^"]*)"', tag)]
        return cls(
            [html.unescape(value) for key, value in pairs if key == "id"],
            {html.unescape(value) for key, value in pairs if key != "id" and value},
        )


def html_pages(site: Path) -> list[Path]:
    """The pages of the site, without the templates that the theme brings along."""
    return [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]


def broken_links(site: Path) -> list[str]:
    """The links of the site that lead nowhere, and what it would load from elsewhere."""
    pages = {path: Page.of(path.read_text(encoding="utf-8")) for path in html_pages(site)}
    wrong = []
    for path, page in pages.items():
        twice = {anchor for anchor in page.anchors if page.anchors.count(anchor) > 1}
        wrong += [
            f"{path.relative_to(site)}: the anchor {anchor} is there twice" for anchor in twice
        ]
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(parts.fragment)
            known = pages[there].anchors if there in pages else []
            if not there.exists() or (anchor and there in pages and anchor not in known):
                wrong.append(f"{path.relative_to(site)}: {link}")
    return wrong


def foreign(site: Path) -> list[str]:
    """What the pages would load from other hosts; a site that works offline loads nothing."""
    loads = re.compile(r'<(?:script|img|link)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"')
    kept = re.compile(r'rel="(canonical|search)"')
    found = set()
    for path in html_pages(site):
        for tag in loads.finditer(path.read_text(encoding="utf-8")):
            if not kept.search(tag[0]):
                found.add(html.unescape(tag[1]))
    return sorted(found)


def timed(what: str, step: Callable[[], Any]) -> Any:
    """The result of a step, whose time is told."""
    started = time.monotonic()
    result = step()
    print(f"site: {what}, {time.monotonic() - started:.0f} s", flush=True)
    return result


def build(site: Path) -> list[str]:
    """Make the site; returns what is wrong with it."""
    from sphinx.cmd.build import main as sphinx

    with tempfile.TemporaryDirectory() as folder:
        pages, made = Path(folder, "pages"), Path(folder, "site")
        modules = timed("pages", lambda: stage(pages))
        options = ["-W", "--keep-going", "-q", "-j", str(os.cpu_count() or 1)]
        words = [*options, "-b", "html", "-d", f"{folder}/doctrees", str(pages), str(made)]
        if timed("Sphinx", lambda: sphinx(words)):
            return ["Sphinx has warned"]
        timed("names", lambda: link_code(made, modules))
        wrong = timed("links", lambda: broken_links(made))
        wrong += [f"is loaded from elsewhere: {address}" for address in foreign(made)]
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(made, site)
    return wrong


def main() -> None:
    """Make the site, or only its pages."""
    asked = sys.argv[1:]
    if asked == ["--pages"]:
        stage(ROOT / "_docs" / "pages")
        return
    site = Path(asked[0]) if asked else ROOT / "_docs"
    if wrong := build(site):
        sys.exit("\n".join(["site: this is wrong:", *wrong]))
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    count = len(list(site.rglob("*.html")))
    print(f"site: {count} pages, {size / 1e6:.0f} MB: {site / 'index.html'}")


if __name__ == "__main__":
    main()
