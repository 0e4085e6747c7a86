"""Write what the README shows of the recorded benchmark: one picture, and a few sentences.

python scripts/figures.py          write both from nbs/essays/benchmark.json
python scripts/figures.py --check  only say what is old; exit code 1 if anything is

The picture is nbs/essays/benchmark.svg, and the sentences are a cell of nbs/index.ipynb.
"""

import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

ESSAYS = Path(__file__).resolve().parent.parent / "nbs" / "essays"
RECORD = ESSAYS / "benchmark.json"
PICTURE = ESSAYS / "benchmark.svg"
INDEX = ESSAYS.parent / "index.ipynb"
CELL = "benchmark"
ONE, MANY = "1 row, 16 connections", "100 rows, 16 connections"
ALONE = "1 row, 1 connection"
OWN_ENGINE = ("fastapi", "flask", "mlserver", "bentoml", "litserve", "vetiver", "mlflow")


def missing(record: dict[str, Any]) -> list[str]:
    """What a record has to hold, and this one does not."""
    needed = ("service", "constant", "flask_hello", "fastapi_forest", "fastapi")
    gone = [name for name in needed if name not in record["contestants"]]
    return gone + ["growth"] * ("growth" in record["left out"] or not record["growth"])


def busy(record: dict[str, Any]) -> bool:
    """True if other programs wanted the machine when the record was made."""
    waiting: float = record["waiting before"]
    return waiting > record["cores"] / 2


def rates(record: dict[str, Any], name: str, title: str) -> list[float]:
    """Requests a second in each round; on a busy machine, a second of processor time."""
    load = record["contestants"][name]["loads"][title]
    if not busy(record):
        return list(load["rate"])
    return [rate / max(used, 0.01) for rate, used in zip(load["rate"], load["server"], strict=True)]


def ratio(record: dict[str, Any], name: str, title: str) -> float:
    """How many times the requests of `name` the service answers: the median over all rounds."""
    both = (rates(record, "service", title), rates(record, name, title))
    return median(service / other for service, other in zip(*both, strict=True))


def middle(record: dict[str, Any], name: str, title: str) -> float:
    """The median of the requests a second over all rounds."""
    return median(rates(record, name, title))


def two(number: float) -> str:
    """A number with two significant digits."""
    if not number:
        return "0"
    digits = 1 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(digits, 0)}f}"


def sentences(record: dict[str, Any]) -> str:
    """The cell of the index: what the service does, beside others, in three sentences."""
    contestants = record["contestants"]
    peers = [name for name in OWN_ENGINE if name in contestants]
    fastest = max(peers, key=lambda name: middle(record, name, ONE))
    beside = {name: ratio(record, name, ONE) for name in contestants}
    service = contestants["service"]
    rows, wait = middle(record, "service", MANY) * 100, median(service["loads"][ALONE]["p50"])
    said = [
        f"One worker on one core answered {two(middle(record, 'service', ONE))} requests "
        f"{second(record)} with one row each over 16 connections, with its log and its counters"
        f"{' (the machine was busy with other things)' * busy(record)}: "
        f"{two(100 * beside['constant'])} % of what the same server does with a constant reply, "
        f"{two(beside['flask_hello'])} times Flask's hello world on it, "
        f"{two(beside['fastapi_forest'])} times FastAPI with the same frozen forest, and "
        f"{two(beside[fastest])} times the fastest of {len(peers)} programs that ask scikit-learn "
        f"({contestants[fastest]['title']}).",
        f"With a hundred rows in each request it answered {two(rows)} rows {second(record)}, and a "
        f"single client waited {two(wait)} ms for one row (median).",
        f"Its first answer came {two(median(service['start']))} s after its start; its worker held "
        f"{two(median(service['largest']))} MB, and all its processes together "
        f"{two(median(service['memory']))} MB.",
    ]
    return "\n\n".join(
        (
            "## How fast it is",
            f"![Requests a second: {ONE}](essays/{PICTURE.name})",
            " ".join(said),
            "[The essay](essays/benchmark.ipynb) says how this was measured, and "
            "shows latency, memory, starts and growth. `python scripts/benchmark.py` makes figures "
            "for your machine.",
        )
    )


def second(record: dict[str, Any]) -> str:
    """What the requests are counted by."""
    return "a second of processor time" if busy(record) else "a second"


def bar(title: str, rate: float, top: int, colour: str) -> str:
    """One bar of the picture, on a logarithmic scale that begins at ten."""
    width = max(1.0, 100 * math.log10(max(rate, 10) / 10))
    return (
        f'<text x="170" y="{top + 15}" text-anchor="end">{title}</text>'
        f'<rect x="180" y="{top}" width="{width:.1f}" height="20" fill="{colour}"/>'
        f'<text x="{186 + width:.1f}" y="{top + 15}">{two(rate)}</text>'
    )


def picture(record: dict[str, Any]) -> str:
    """The picture of the README as SVG: requests a second, the most first."""
    found = {name: middle(record, name, ONE) for name in record["contestants"]}
    order = sorted(found, key=lambda name: -found[name])
    height = 60 + 26 * len(order)
    colours = {"service": "#1f6feb", "fastapi_forest": "#66c2a5"}
    colours |= dict.fromkeys(("constant", "flask_hello"), "#b8b8b8")
    bars = [
        bar(record["contestants"][name]["title"], found[name], 44 + 26 * i, colour)
        for i, name in enumerate(order)
        for colour in [colours.get(name, "#fc8d62")]
    ]
    of_what = " of processor time" * busy(record)
    heading = f"Requests a second{of_what}: {ONE} (logarithmic scale)"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {height}" width="680" '
        'font-family="sans-serif" font-size="14" fill="#222">'
    )
    ground = f'<rect width="680" height="{height}" fill="#fff"/>'
    title = f'<text x="20" y="26" font-weight="bold">{heading}</text>'
    return "\n".join((head, ground, title, *bars, "</svg>", ""))


def with_sentences(text: str) -> bytes:
    """The index as it is with `text` in its cell."""
    notebook = json.loads(INDEX.read_text(encoding="utf-8"))
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == CELL)
    cell["source"] = text.splitlines(keepends=True)
    return f"{json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False)}\n".encode()


def made(record: dict[str, Any]) -> dict[Path, bytes]:
    """What the files have to hold."""
    return {PICTURE: picture(record).encode(), INDEX: with_sentences(sentences(record))}


def old(record: dict[str, Any]) -> list[Path]:
    """The files that hold something else."""
    return [p for p, new in made(record).items() if not p.exists() or p.read_bytes() != new]


def write(record: dict[str, Any]) -> None:
    """Write the files that are old, and say what else is to be made from them."""
    for path in old(record):
        path.write_bytes(made(record)[path])
        print(f"written: {path}")
    print("now run nbs/essays/benchmark.ipynb, and then python scripts/readme.py")


if __name__ == "__main__":
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--check"]:
        stale = old(recorded)
        print("\n".join(path.name for path in stale) or "picture and sentences are current")
        sys.exit(bool(stale))
    write(recorded)
