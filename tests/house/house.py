"""What the tests of the house share: the notebooks, their cells, and the modules they export."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NBS = ROOT / "nbs"
PACKAGE = ROOT / "iris_serve"
NOTEBOOKS = sorted(
    p for p in NBS.glob("**/*.ipynb") if not {"models", ".ipynb_checkpoints"} & set(p.parts)
)
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"\d_", path.parent.name)]
MODULES = sorted(path for path in PACKAGE.glob("**/*.py") if path.name != "_modidx.py")


def name_of(path):
    """How a test names a notebook or a module."""
    return path.relative_to(NBS if NBS in path.parents else PACKAGE).with_suffix("").as_posix()


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def prose(path):
    """The text of all Markdown cells."""
    return "\n\n".join(source(cell) for cell in cells(path) if cell["cell_type"] == "markdown")


def exported(path):
    return [source(c) for c in cells(path) if re.match(r"#\|\s*export(s|i)?\b", source(c))]


def dotted(module):
    """The name of a module under which it is imported."""
    parts = module.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(module):
    return ast.parse(module.read_text(encoding="utf-8"))


def imported(module):
    """All that a module imports, wherever it says so, as absolute dotted names."""
    here = dotted(module).split(".")
    package = here if module.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*above, *([node.module] if node.module else [])])
            yield whole
            yield from (f"{whole}.{alias.name}" for alias in node.names)
