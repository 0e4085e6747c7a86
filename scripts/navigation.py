"""Write the last line of each notebook: the one before, the index, and the one after.

python3 scripts/navigation.py          write it wherever it is missing or old
python3 scripts/navigation.py --check  only say where; exit code 1 if there is any

The order is the one of the folders and their numbers, with the tour before them.
"""

import json
import os
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / "nbs"
INDEX = NBS / "index.ipynb"
CELL = "navigation"


def reading_order() -> list[Path]:
    """The tour and the chapters, in the order in which they are read."""
    return [NBS / "tour.ipynb", *sorted(NBS.glob("[0-9]_*/[0-9]*.ipynb"))]


def title(path: Path) -> str:
    """The title of a notebook up to the colon."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading = next(text for cell in cells if (text := "".join(cell["source"])).startswith("# "))
    return heading.splitlines()[0].removeprefix("# ").partition(":")[0]


def link(text: str, path: Path, start: Path) -> str:
    """A Markdown link to the notebook `path` from the notebook `start`."""
    return f"[{text}]({Path(os.path.relpath(path, start.parent)).as_posix()})"


def navigation(path: Path, before: Path | None, after: Path | None) -> str:
    """The line under the notebook `path`."""
    parts = [link(f"← {title(before)}", before, path)] if before else []
    parts.append(link("all chapters", INDEX, path))
    parts += [link(f"{title(after)} →", after, path)] if after else []
    return "---\n" + " · ".join(parts)


def update(path: Path, line: str) -> bytes:
    """The notebook `path` as it is with `line` as its last cell."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    kept = [cell for cell in notebook["cells"] if cell["id"] != CELL]
    last = {"cell_type": "markdown", "id": CELL, "metadata": {}}
    notebook["cells"] = [*kept, last | {"source": line.splitlines(keepends=True)}]
    text = json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False)
    return f"{text}\n".encode()


def main() -> None:
    """Write or check the last line of each notebook."""
    order, old = reading_order(), []
    for before, path, after in zip([None, *order], order, [*order[1:], None], strict=False):
        new = update(path, navigation(path, before, after))
        if new != path.read_bytes():
            old.append(path.relative_to(NBS).as_posix())
            if "--check" not in sys.argv[1:]:
                path.write_bytes(new)
    print("\n".join(old) or "every notebook ends with its neighbours")
    sys.exit(bool(old) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    main()
