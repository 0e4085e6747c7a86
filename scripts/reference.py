"""The reference pages of the site: the API, the settings, the routes and the commands.

All of it is made from the program: signatures and docstrings from the syntax of the exported
cells, the rest from what the modules say of themselves. Imported by `website.py`.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Link = Callable[[Any, str], str]
STABLE = {
    "iris_serve.notebook": ("begin", "table", "split", "keep", "TrainingRun"),
    "iris_serve.wsgi": ("make_app",),
    "iris_serve.service.app": ("create_app",),
    "iris_serve.forest": ("freeze", "Forest"),
}
TITLES = {"openapi": "OpenAPI", "cli": "Command line", "named": "Named modules"}


def escaped(text: str) -> str:
    """A docstring as Markdown: no HTML outside of code, and no marks of click."""
    pieces = re.split(r"(`[^`]*`)", text.replace("\b", ""))
    return "".join(p if p.startswith("`") else re.sub(r"([<>*_$])", r"\\\1", p) for p in pieces)


def paragraphs(node: ast.AST) -> str:
    """The docstring of a function or class; what click shows as it stands stays as it stands."""
    found = ast.get_docstring(node) if isinstance(node, WITH_DOCSTRING) else ""
    parts = []
    for paragraph in (found or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            parts.append(f"```text\n{paragraph[2:]}\n```")
        else:
            parts.append(escaped(paragraph))
    return "\n\n".join(parts)


WITH_DOCSTRING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool = False) -> str:
    """The parameters and the result of a function, as mypy checks them."""
    static = any(kind_of(d) == "staticmethod" for d in node.decorator_list)
    written = ast.unparse(node.args)
    if method and not static:
        written = re.sub(r"^\w+(, /)?(, |$)", "", written)  # self or cls
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({written}){result}"


def kind_of(decorator: ast.expr) -> str:
    """The last word of a decorator."""
    return ast.unparse(decorator).rpartition(".")[2]


def directive(kind: str, head: str, body: str, *options: str) -> str:
    """A description in the domain of Python."""
    fence = "`" * (4 if "```" in body else 3)
    while fence in body:
        fence += "`"
    return "\n".join([f"{fence}{{py:{kind}}} {head}", *options, "", body, fence, ""])


def typed(annotation: ast.expr | None, value: ast.expr | None = None) -> list[str]:
    """The type and the value of a name, as options of its description."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation = getattr(annotation.slice, "elts", [annotation])[0]  # what is in front
    options = [f":type: {json.dumps(ast.unparse(annotation))}"] if annotation else []
    return options + ([f":value: {json.dumps(short(ast.unparse(value)))}"] if value else [])


def members(node: ast.ClassDef) -> Iterator[str]:
    """The fields and the public methods of a class."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            yield directive("attribute", part.target.id, "", *typed(part.annotation, part.value))
        elif isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            if any(kind_of(d) in ("property", "cached_property") for d in part.decorator_list):
                yield directive("property", part.name, paragraphs(part), *typed(part.returns))
            else:
                yield directive("method", signature(part, method=True), paragraphs(part))


def short(text: str) -> str:
    """A value in one short line."""
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:87] + "…"


def described(name: Any, page: str, link: Link) -> str:
    """The description of a public name, with a link to its cell."""
    node, options = name.node, [f":module: {name.module}"]
    cell = f'<p class="where"><a href="{link(name, page)}">the cell</a></p>'
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return directive("function", signature(node), f"{paragraphs(node)}\n\n{cell}", *options)
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        said = f"Bases: {', '.join(f'`{b}`' for b in bases.split(', '))}\n\n" if bases else ""
        body = "\n\n".join([said + paragraphs(node), cell, *members(node)])
        return directive("class", node.name, body, *options)
    options += typed(getattr(node, "annotation", None), getattr(node, "value", None))
    return directive("data", name.name, cell, *options)


def is_value(name: Any) -> bool:
    """True for what is no class and no function; these come last."""
    return not isinstance(name.node, WITH_DOCSTRING)


def api_pages(modules: dict[str, dict[str, Any]], link: Link) -> dict[str, str]:
    """A page for each part of the package, with all its modules."""
    import website

    chapters: dict[str, list[str]] = {}
    for module in modules:
        chapters.setdefault(website.part_of(module), []).append(module)
    pages = {}
    for part, within in sorted(chapters.items(), key=lambda item: list(modules).index(item[1][0])):
        page = f"reference/api/{part}.md"
        lines = [f"# {TITLES.get(part, part.capitalize())}\n"]
        for module in within:
            first = next(iter(modules[module].values()), None)
            short_name = module.removeprefix("iris_serve.")
            lines += [f"## {short_name}\n", f"```{{py:module}} {module}\n```\n"]
            if first:
                title, _, promise = website.title_of(website.ROOT / first.notebook)
                there = link(first, page).partition("#")[0]
                lines.append(f'{escaped(promise)} Chapter: <a href="{there}">{title}</a>\n')
            lines += [
                described(n, page, link) for n in sorted(modules[module].values(), key=is_value)
            ]
        pages[page] = "\n".join(lines)
    return pages


def python_page(modules: dict[str, dict[str, Any]], api: list[str], link: Link) -> str:
    """The names that stay, and the way to all others."""
    import website

    lines = [
        "# Python\n",
        "These names stay from release to release. All others may move with a word in the "
        "[changelog](../CHANGELOG.md).\n",
        "| name | what it does |",
        "| --- | --- |",
    ]
    for module, names in STABLE.items():
        for name in names:
            found = modules[module][name]
            there = f"api/{website.part_of(module)}.html#{found.anchor}"
            said = (ast.get_docstring(found.node) or "").splitlines()[0]
            lines.append(
                f'| <a href="{there}"><code>{module}.{name}</code></a> | {escaped(said)} |'
            )
    lines += ["", "## By part\n", "Every entry has a link to the cell that defines it.\n"]
    entries = [page.removeprefix("reference/").removesuffix(".md") for page in api]
    return "\n".join([*lines, website.toctree(entries, ":maxdepth: 1")])


def settings_page() -> str:
    """Each setting: option, variable, default, and which values it may have."""
    from iris_serve.cli.settings import SCHEMA, expectation, setting_rows

    lines = [
        "# Settings\n",
        "Each is an option of `serve` and an environment variable. An option wins over a "
        "variable, a variable over the default. A variable that begins with `IRIS_SERVE_` and is "
        "no setting is an error. The chapter: [settings](../nbs/9_cli/02_settings.ipynb).\n",
    ]
    for (option, variable, usual, meaning), schema in zip(
        setting_rows(), SCHEMA.values(), strict=True
    ):
        example = json.dumps(schema["examples"][0]).strip('"')
        lines += [
            f"## {option}\n",
            f"{meaning}.\n",
            f"- variable: `{variable}`",
            f"- default: {f'`{usual}`' if usual != 'none' else 'none'}",
            f"- may be: {escaped(expectation(schema))}",
            f"- example: `{variable}={example if len(example) < 40 else example[:24] + '…'}`\n",
        ]
    return "\n".join(lines)


def routes_page() -> str:
    """Each route with what it is for, what it takes and what it refuses."""
    from iris_serve.openapi.routes import ROUTE_TABLES, error_statuses, needs_no_key

    lines = [
        "# Routes\n",
        "A running service describes itself, with its own model, at `/openapi.json`, and lets you "
        'try it at `/docs`. <a href="../openapi.json" download>The document for Iris</a> is here, '
        "too. The chapter: [routes](../nbs/8_openapi/04_routes.ipynb).\n",
        "*Key* says whether a key is needed where `--keys` is set.\n",
    ]
    for tag, table in ROUTE_TABLES.items():
        lines += [f"## {tag[0].upper()}{tag[1:]}\n"]
        lines += ["| route | what it is for | key | errors |", "| --- | --- | --- | --- |"]
        for route, operation in table.items():
            refused = " ".join(map(str, error_statuses(route)))
            key = "no" if needs_no_key(route) else "yes"
            lines.append(f"| `{route}` | {operation.summary} | {key} | {refused} |")
        lines.append("")
    return "\n".join(lines)


def commands_page() -> str:
    """What each command says of itself."""
    import click

    from iris_serve.__main__ import main

    name = "python -m iris_serve"
    lines = [
        "# Commands\n",
        "Where the package is installed, `iris-serve` is short for `python -m iris_serve`. The "
        "chapters: [main](../nbs/9_cli/01_main.ipynb), "
        "[training commands](../nbs/9_cli/06_training_commands.ipynb), "
        "[registry commands](../nbs/9_cli/07_registry_commands.ipynb).\n",
    ]
    context = click.Context(main, info_name=name)
    for command in main.list_commands(context):
        found = main.get_command(context, command)
        if found:
            said = found.get_help(click.Context(found, info_name=command, parent=context))
            lines += [f"## {command}\n", f"```text\n{said}\n```\n"]
    return "\n".join(lines)


def openapi_document() -> str:
    """The OpenAPI document of a service for Iris."""
    from iris_serve.openapi.document import document
    from iris_serve.openapi.routes import OPERATIONS
    from iris_serve.testing import Ruler

    return json.dumps(document(Ruler(), OPERATIONS), indent=1)


def pages(modules: dict[str, dict[str, Any]], link: Link) -> dict[str, str]:
    """All pages of the reference by their names."""
    api = api_pages(modules, link)
    return api | {
        "reference/python.md": python_page(modules, list(api), link),
        "reference/settings.md": settings_page(),
        "reference/routes.md": routes_page(),
        "reference/commands.md": commands_page(),
        "extra/openapi.json": openapi_document(),
    }
