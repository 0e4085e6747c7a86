"""Write README.md from nbs/index.ipynb, which is executed for it.

python scripts/readme.py [FILE]    FILE is README.md beside the notebooks unless named

Links in the index start from `nbs/`, so that they work in Jupyter; in the README they start from
the root of the repository, so that they work there.
"""

import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def from_root(link: re.Match[str]) -> str:
    """A Markdown link of the index as a link of the README."""
    target = link[1]
    inside = re.match(r"[a-z]+:|#", target)
    return link[0] if inside else f"]({posixpath.normpath(f'nbs/{target}')})"


def readme() -> str:
    """The text of the README."""
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT / "nbs")}}).execute()
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return re.sub(r"\]\(([^)\s]+)\)", from_root, text)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "README.md"
    target.write_text(readme(), encoding="utf-8")
