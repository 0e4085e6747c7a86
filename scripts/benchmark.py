"""Measure the service beside others, in rounds in which all take turns, and how it grows.

python scripts/benchmark.py                          everything, at most 12 minutes
python scripts/benchmark.py --quick                  one round, at most 3 minutes
python scripts/benchmark.py --only service,constant  these, and no growth
python scripts/benchmark.py --record                 keep it: the essay and the README show it

Each contestant that needs other packages has an environment of its own below --environments, made
by uv or by venv and pip when it is first needed; what cannot be installed is left out, with the
reason. Before a contestant is measured, its answers to 150 rows are compared with scikit-learn's.
It needs Linux, wrk and, for the pictures afterwards, the extra [dev]. Load goes to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import difflib
import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import figures
from load import (
    HOST,
    Load,
    LoadError,
    Question,
    Running,
    cores,
    free_port,
    load,
    memory,
    need_tools,
    stops_on_signals,
)

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "scripts" / "contestants"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "iris_serve_benchmark"
Rows = list[list[float]]

# --- the contestants


def ours(rows: Rows) -> Any:
    """The question of the tutorial: one row, or a list of rows."""
    return {"features": rows[0] if len(rows) == 1 else rows}


def ours_answered(reply: Any) -> list[Any]:
    """The answers in a reply of the tutorial."""
    return reply["predictions"] if "predictions" in reply else [reply["prediction"]]


def v2(rows: Rows) -> Any:
    """The question of the Open Inference Protocol."""
    data = [value for row in rows for value in row]
    tensor = {"name": "predict", "shape": [len(rows), len(rows[0])], "datatype": "FP64"}
    return {"inputs": [tensor | {"data": data}]}


NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
TUTORIAL = Question("/predict", ours, ours_answered)
V2 = Question("/v2/models/iris/infer", v2, lambda reply: reply["outputs"][0]["data"])
MLFLOW = Question("/invocations", lambda rows: {"inputs": rows}, lambda reply: reply["predictions"])
BENTOML = Question("/predict", lambda rows: {"features": rows}, lambda reply: reply)
LITSERVE = Question("/predict", lambda rows: {"input": rows}, lambda reply: reply["output"])
VETIVER = Question(
    "/predict",
    lambda rows: [dict(zip(NAMES, row, strict=True)) for row in rows],
    lambda reply: reply["predict"],
)


class Contestant(NamedTuple):
    """A program that answers, what it needs, and how it is asked.

    One without `packages` runs in the environment of this script. `prepares` is for one that has
    to write something before it is started, `ours` for one that uses this project.
    """

    name: str
    title: str
    program: str = ""
    packages: tuple[str, ...] = ()
    question: Question = TUTORIAL
    prepares: bool = False
    ours: bool = False
    answers: bool = True


SKLEARN = ("scikit-learn", "joblib")
CONTESTANTS = [
    Contestant("service", "iris_serve", ours=True),
    Contestant("constant", "constant reply", "constant.py", answers=False),
    Contestant("flask_hello", "Flask hello", "flask_hello.py", answers=False),
    Contestant(
        "fastapi_forest",
        "FastAPI, our forest",
        "fastapi_forest.py",
        ("fastapi", "uvicorn[standard]"),
        ours=True,
    ),
    Contestant(
        "fastapi", "FastAPI", "fastapi_naive.py", ("fastapi", "uvicorn[standard]", *SKLEARN)
    ),
    Contestant("flask", "Flask tutorial", "tutorial.py", ("flask", *SKLEARN)),
    Contestant(
        "mlserver", "MLServer", "on_mlserver.py", ("mlserver", "mlserver-sklearn"), V2, True
    ),
    Contestant("bentoml", "BentoML", "on_bentoml.py", ("bentoml", *SKLEARN), BENTOML),
    Contestant("litserve", "LitServe", "on_litserve.py", ("litserve", *SKLEARN), LITSERVE),
    Contestant("vetiver", "vetiver", "on_vetiver.py", ("vetiver", *SKLEARN), VETIVER),
    Contestant("mlflow", "MLflow", "on_mlflow.py", ("mlflow", *SKLEARN), MLFLOW, True),
]
GROWTH = "growth"
CHOICES = [*(contestant.name for contestant in CONTESTANTS), GROWTH]


def chosen(text: str) -> list[str]:
    """The names in a list with commas. Raises `argparse.ArgumentTypeError` for a wrong one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in CHOICES:
            close = difflib.get_close_matches(name, CHOICES, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(CHOICES)}"
            raise argparse.ArgumentTypeError(f"there is no contestant {name!r}; {hint}")
    if not names:
        raise argparse.ArgumentTypeError(f"name at least one of {', '.join(CHOICES)}")
    return [name for name in CHOICES if name in names]


# --- environments

INSTALLED = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def base_requirements() -> list[str]:
    """What this package needs to serve, from `settings.ini`."""
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return settings["DEFAULT"]["requirements"].split()


def plain(requirement: str) -> str:
    """The name of the package that a requirement is about."""
    return re.split(r"[\[<>=!~;]", requirement)[0]


def versions(python: Path, packages: list[str]) -> dict[str, str]:
    """The versions of `packages` in an environment; empty if one of them is missing."""
    command = [str(python), "-P", "-c", INSTALLED, *map(plain, packages)]
    done = subprocess.run(command, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def step(command: list[str]) -> None:
    """Run one step of an installation. Raises `LoadError` with its last line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadError(f"cannot be installed: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise LoadError(f"cannot be installed: {lines[-1][:300] if lines else command[0]}")


def environment(contestant: Contestant, folder: Path) -> tuple[Path, dict[str, str]]:
    """The Python of a contestant and the versions in it; it is made if it is not there.

    Raises `LoadError` if it cannot be made.
    """
    if not contestant.packages:
        here = Path(sys.executable)
        return here, versions(here, ["flask", "granian", "numpy"])
    place = folder / contestant.name
    python = place / "bin" / "python"
    needed = [*contestant.packages, *(base_requirements() if contestant.ours else [])]
    if python.exists() and (found := versions(python, needed)):
        return python, found
    print(f"installing {contestant.title} into {place}", flush=True)
    uv = shutil.which("uv")
    made = [uv, "venv", "-q", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    if not python.exists():
        step([*made, str(place)])
    pip = [uv, "pip"] if uv else [str(python), "-m", "pip"]
    into = ["--python", str(python)] if uv else []
    step([*pip, "install", "-q", *into, *needed])
    return python, versions(python, needed)


# --- what is asked

RIGHT = """
import json, sys
import joblib
from sklearn.datasets import load_iris
X = load_iris().data
print(json.dumps([X.tolist(), joblib.load(sys.argv[1]).predict(X).tolist()]))
"""
MODELS = """
import json, sys
from pathlib import Path
from sklearn import datasets
from iris_serve.training.retrain import Parameters, train
folder, rows = Path(sys.argv[1]), {}
for trees in (20, 500):
    train(folder / f"{trees} trees", Parameters(n_estimators=trees))
for name in ("wine", "breast_cancer", "digits"):
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    frame.to_csv(folder / f"{name}.csv", index=False)
    train(folder / name, Parameters(data=str(folder / f"{name}.csv"), target="target"))
    card = json.loads((folder / name / "iris" / "1" / "card.json").read_text())
    names = [feature["name"] for feature in card["contract"]["features"]]
    rows[name] = frame[names].head(150).values.tolist()
print(json.dumps(rows))
"""
SERVER = """
import json
from iris_serve.cli.server import production_server
from iris_serve.cli.settings import Settings
server = production_server(Settings(), "127.0.0.1")
names = "blocking_threads", "blocking_threads_idle_timeout", "backlog", "backpressure"
print(json.dumps({name: getattr(server, name) for name in names}))
"""


def ask_python(program: str, *arguments: str) -> Any:
    """What a program prints in a process of its own, which has this package."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("IRIS_")}
    command = [sys.executable, "-c", program, *arguments]
    known |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    if done.returncode:
        raise LoadError((done.stderr.strip().splitlines() or ["a program failed"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def train_first(models: Path) -> Path:
    """The model that all contestants serve, made as the service makes it."""
    command = [sys.executable, "-m", "iris_serve", "train", "--models", str(models)]
    known = {k: v for k, v in os.environ.items() if not k.startswith("IRIS_")}
    known["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    if done.returncode:
        raise LoadError(f"no model was trained: {done.stderr.strip().splitlines()[-1]}")
    return models / "iris" / "1" / "iris_model.pkl"


def check_answers(running: Running, question: Question, rows: Rows, right: list[Any]) -> None:
    """Raise `LoadError` unless all `rows`, one by one and together, are answered with `right`."""
    over = http.client.HTTPConnection(HOST, running.port, timeout=60)
    with contextlib.closing(over):
        singly = [([row], [answer]) for row, answer in zip(rows, right, strict=True)]
        for asked, wanted in [*singly, (rows, right)]:
            body = json.dumps(question.body(asked))
            status, reply = running.ask(over, question.path, body)
            compare(status, reply, question, asked, wanted)


def compare(status: int, reply: bytes, question: Question, asked: Rows, wanted: list[Any]) -> None:
    """Raise `LoadError` unless a reply says `wanted` of the rows `asked`."""
    if status != 200:
        raise LoadError(f"status {status}: {reply[:200].decode(errors='replace')}")
    try:
        answers = question.answers(json.loads(reply))
    except (ValueError, LookupError, TypeError):
        raise LoadError(f"not understood: {reply[:200].decode(errors='replace')}") from None
    if answers != wanted:
        pairs = zip(asked, answers, wanted, strict=False)
        wrong = [row for row, answer, right in pairs if answer != right]
        where = wrong[0] if wrong else f"{len(asked)} rows"
        raise LoadError(f"wrong answer to {where}: scikit-learn's is another")


# --- the rounds

SCENARIOS = {
    "1 row, 1 connection": (1, 1),
    "1 row, 16 connections": (1, 16),
    "100 rows, 1 connection": (100, 1),
    "100 rows, 16 connections": (100, 16),
}


class Plan(NamedTuple):
    """How much is measured: the rounds, the seconds of each load, and the seconds of it all."""

    rounds: int
    seconds: int
    limit: float


QUICK, FULL = Plan(1, 1, 175), Plan(5, 1, 700)
SHARE = 0.7  # of the time that is for the contestants; the rest is for the growth


class Race:
    """All that is needed to measure: the model, its questions, and a place for everything."""

    def __init__(self, folder: Path, environments: Path, plan: Plan) -> None:
        self.folder, self.environments, self.plan = folder, environments, plan
        self.model = train_first(folder / "models")
        self.rows, self.right = ask_python(RIGHT, str(self.model))
        self.server = ask_python(SERVER)
        self.one, self.other, self.both = cores()
        self.checked: set[str] = set()
        self.begun = time.monotonic()

    def left(self, share: float = 1.0) -> float:
        """Seconds that are left of a share of the time."""
        return self.plan.limit * share - (time.monotonic() - self.begun)

    def place(self, name: str) -> Path:
        """A directory for one contestant."""
        place = self.folder / name.replace(" ", "_")
        place.mkdir(exist_ok=True)
        return place

    def ask_file(self, name: str, bodies: list[str]) -> Path:
        """A file with `bodies`, one a line."""
        path = self.place("questions") / f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}.txt"
        if not path.exists():
            path.write_text("".join(f"{body}\n" for body in bodies))
        return path

    def service(self, models: Path, workers: int = 1, on: str = "") -> Running:
        """`python -m iris_serve` as it is by default: with its log and its counters."""
        port = free_port()
        command = [sys.executable, "-m", "iris_serve", "--models", str(models)]
        command += ["--port", str(port), "--workers", str(workers)]
        place = self.place(f"service {models.name} {workers}")
        return Running(command, place, port, on or self.one, PYTHONPATH=str(ROOT))

    def start(self, contestant: Contestant, python: Path) -> Running:
        """Start a contestant."""
        if contestant.name == "service":
            return self.service(self.model.parents[2])
        place, port = self.place(contestant.name), free_port()
        command = [str(python), "-P", str(PROGRAMS / contestant.program), str(self.model)]
        variables = {"BENCHMARK_SERVER": json.dumps(self.server)}
        if contestant.ours:
            variables["PYTHONPATH"] = str(ROOT)
        return Running([*command, str(port)], place, port, self.one, **variables)

    def prepare(self, contestant: Contestant, python: Path) -> None:
        """Let a contestant write what it needs before it is started. Raises `LoadError`."""
        command = [str(python), "-P", str(PROGRAMS / contestant.program), str(self.model)]
        place = self.place(contestant.name)
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise LoadError((done.stderr.strip().splitlines() or ["it could not prepare"])[-1])

    def turn(self, contestant: Contestant, python: Path) -> dict[str, Any]:
        """Start, check and load one contestant; what was found. Raises `LoadError`."""
        question = contestant.question
        with self.start(contestant, python) as running:
            running.wait(question.path, json.dumps(question.body(self.rows[:1])))
            if contestant.answers and contestant.name not in self.checked:
                check_answers(running, question, self.rows, self.right)
            self.checked.add(contestant.name)
            loads = {}
            for title, (rows, connections) in SCENARIOS.items():
                bodies = self.ask_file(
                    f"{contestant.name} {rows}", question.bodies(self.rows, rows)
                )
                seconds = self.plan.seconds
                loads[title] = load(
                    running, question.path, bodies, connections, seconds, self.other
                )
            everyone = running.family()
            return {
                "start": running.started,
                "memory": memory(everyone),
                "largest": max(memory([process]) for process in everyone),
                "loads": loads,
            }


def say_turn(number: int, contestant: Contestant, found: dict[str, Any]) -> None:
    """Print a line about one turn."""
    parts = [f"{one.rate:>9,.0f}/s {one.p50:7.2f} ms" for one in found["loads"].values()]
    start, held = found["start"], found["memory"]
    words = f"{number:>2}  {contestant.title:<20} {start:6.2f} s {held:5.0f} MB {' '.join(parts)}"
    print(words, flush=True)


def run_contest(race: Race, names: list[str], record: dict[str, Any]) -> None:
    """Measure the contestants in rounds, and write what was found into `record`."""
    pythons: dict[str, Path] = {}
    for contestant in CONTESTANTS:
        if contestant.name not in names:
            continue
        try:
            python, found = environment(contestant, race.environments)
            if contestant.prepares:
                race.prepare(contestant, python)
        except (LoadError, subprocess.TimeoutExpired) as error:
            record["left out"][contestant.name] = str(error)
            print(f"left out: {contestant.title}: {error}", flush=True)
            continue
        pythons[contestant.name] = python
        kept = {"title": contestant.title, "versions": found, "start": [], "memory": []}
        kept["largest"] = []
        record["contestants"][contestant.name] = kept | {"loads": {}}
    race.begun, longest = time.monotonic(), 0.0
    print(
        "\n    " + " ".join([f"{'':<20}    start  memory", *(f"{t:>21}" for t in SHORT)]),
        flush=True,
    )
    for number in range(1, race.plan.rounds + 1):
        began = time.monotonic()
        if race.left(SHARE) < longest:
            break
        one_round(race, number, pythons, record)
        longest = max(longest, time.monotonic() - began)
        record["rounds"] = number


SHORT = ("1 row, 1 conn.", "1 row, 16", "100 rows, 1", "100 rows, 16")


def one_round(race: Race, number: int, pythons: dict[str, Path], record: dict[str, Any]) -> None:
    """Let each contestant have its turn; every second round goes the other way round."""
    order = [c for c in CONTESTANTS if c.name in pythons]
    for contestant in order if number % 2 else order[::-1]:
        try:
            if number == 1 and race.left(SHARE) < 5:
                raise LoadError("there was no time left; ask for more with --minutes")
            found = race.turn(contestant, pythons[contestant.name])
        except LoadError as error:
            pythons.pop(contestant.name)
            record["contestants"].pop(contestant.name)
            record["left out"][contestant.name] = str(error)
            print(f"left out: {contestant.title}: {error}", flush=True)
            continue
        say_turn(number, contestant, found)
        kept = record["contestants"][contestant.name]
        kept["start"].append(round(found["start"], 3))
        kept["memory"].append(round(found["memory"], 1))
        kept["largest"].append(round(found["largest"], 1))
        for title, result in found["loads"].items():
            add(kept["loads"].setdefault(title, {}), result)


def add(kept: dict[str, list[float]], result: Load) -> None:
    """Append a result to those of earlier rounds."""
    for name, figure in result._asdict().items():
        kept.setdefault(name, []).append(round(figure, 1 if name == "rate" else 3))


# --- the growth


class Case(NamedTuple):
    """One point of a curve: how the service runs, and how it is asked."""

    curve: str
    at: int
    models: str = "models"
    rows: int = 1
    connections: int = 16
    workers: int = 1
    asked: str = "known"


FEATURES = {"models": 4, "wine": 13, "breast_cancer": 30, "digits": 61}
CASES = [
    *(Case("connections", n, connections=n) for n in (1, 4, 16, 64, 256)),
    *(Case("rows", n, rows=n) for n in (1, 10, 100, 1000)),
    *(
        Case(f"trees, {asked} rows", trees, models, asked=asked)
        for asked in ("known", "new")
        for trees, models in ((20, "20 trees"), (100, "models"), (500, "500 trees"))
    ),
    *(Case("features", width, models) for models, width in FEATURES.items()),
    *(Case("workers", n, workers=n, connections=32) for n in (1, 2)),
]
NEW = 50_000  # rows: more than the service remembers answers


def new_rows() -> Rows:
    """Rows that the service has not seen, within the range of the flowers."""
    dice = random.Random(0)  # noqa: S311
    spans = ((4.3, 7.9), (2.0, 4.4), (1.0, 6.9), (0.1, 2.5))
    return [[round(dice.uniform(*span), 4) for span in spans] for _ in range(NEW)]


def run_growth(race: Race, record: dict[str, Any]) -> None:
    """Measure how the service grows, in rounds, and write it into `record`."""
    wide = ask_python(MODELS, str(race.folder))
    rows = {"known": race.rows, "new": new_rows(), **wide}
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, int, bool], Running] = {}
        for case in CASES:
            key = service_of(case)
            if key not in running:
                on = race.both if case.curve == "workers" else race.one
                service = race.service(race.folder / case.models, case.workers, on)
                running[key] = stack.enter_context(service)
                body = json.dumps(ours(rows[table_of(case)][:1]))
                running[key].wait("/predict", body)
        longest = 0.0
        print("\ngrowth of the service alone", flush=True)
        for number in range(1, race.plan.rounds + 1):
            began = time.monotonic()
            if number > 1 and race.left() < longest:
                break
            for case in CASES if number % 2 else CASES[::-1]:
                found = grow(race, running[service_of(case)], case, rows[table_of(case)])
                print(
                    f"{number:>2}  {case.curve:<18} {case.at:>5} {found.rate:>9,.0f}/s "
                    f"{found.p50:7.2f} ms",
                    flush=True,
                )
                add(record["growth"].setdefault(case.curve, {}).setdefault(str(case.at), {}), found)
            longest = max(longest, time.monotonic() - began)


def service_of(case: Case) -> tuple[str, int, bool]:
    """What tells the services apart that are started for the growth."""
    return case.models, case.workers, case.curve == "workers"


def table_of(case: Case) -> str:
    """Which rows a case asks: those of its table, or flowers, known or new."""
    own = case.curve == "features" and case.models != "models"
    return case.models if own else case.asked


def grow(race: Race, running: Running, case: Case, rows: Rows) -> Load:
    """Measure one point."""
    around = rows * (case.rows // len(rows) + 1) if case.rows > len(rows) else rows
    name = f"growth {table_of(case)} {case.rows}"
    bodies = race.ask_file(name, TUTORIAL.bodies(around, case.rows))
    on = race.both if case.curve == "workers" else race.other
    return load(running, "/predict", bodies, case.connections, race.plan.seconds, on)


# --- the result


def git(*words: str) -> str:
    """What git says; empty if there is none."""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def about_here(quick: bool) -> dict[str, Any]:
    """What a reader of the record has to know: which commit, and on which machine."""
    described = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    names = git("status", "--porcelain", "--untracked-files=no").splitlines()
    return {
        "commit": git("rev-parse", "--short=10", "HEAD"),
        "changed since": any("essays/" not in name for name in names),
        "quick": quick,
        "python": sys.version.split()[0],
        "processor": described[1] if described else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "waiting before": round(os.getloadavg()[0], 1),
    }


def dump(record: dict[str, Any]) -> str:
    """The record as JSON, with lists of figures on one line."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def table(record: dict[str, Any]) -> Iterator[str]:
    """The medians as lines of Markdown: requests a second, waits, and what the service has more.

    The ratio in brackets counts requests by processor time.
    """
    yield "| | start, s | memory, MB | " + " | ".join(SCENARIOS) + " |"
    yield "| --- | ---: | ---: |" + " ---: |" * len(SCENARIOS)
    ours = record["contestants"].get("service", {}).get("loads")
    for kept in record["contestants"].values():
        cells = [kept["title"], f"{median(kept['start']):.2f}", f"{median(kept['memory']):.0f}"]
        for title in SCENARIOS:
            found = kept["loads"][title]
            cell = f"{median(found['rate']):,.0f}/s, {median(found['p50']):.2f}/"
            cell += f"{median(found['p99']):.2f} ms"
            cells.append(cell + (f", {times(ours[title], found)}" if ours else ""))
        yield "| " + " | ".join(cells) + " |"


def times(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> str:
    """How many times as much we answer, by the clock and (in brackets) by processor time."""
    clock = [a / b for a, b in zip(ours["rate"], theirs["rate"], strict=True)]
    used = [
        max(b, 0.01) / max(a, 0.01) for a, b in zip(ours["server"], theirs["server"], strict=True)
    ]
    return f"{median(clock):.3g}× ({median(a * b for a, b in zip(clock, used, strict=True)):.3g}×)"


def options() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    text, _, rest = (__doc__ or "").partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=text, epilog=rest, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="one round, under three minutes")
    parser.add_argument("--only", type=chosen, default=CHOICES, help="names, with commas")
    parser.add_argument("--environments", type=Path, default=CACHE, help="where they are made")
    parser.add_argument("--minutes", type=float, help="the longest that the rounds may take")
    parser.add_argument("--record", action="store_true", help="for the essay and the README")
    parser.add_argument("--to", type=Path, help="a file for the record")
    return parser


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for; returns the record."""
    plan = QUICK if asked.quick else FULL
    if asked.minutes:
        plan = plan._replace(limit=asked.minutes * 60)
    record = about_here(asked.quick)
    record |= {"rounds": 0, "seconds": plan.seconds}
    record |= {"contestants": {}, "left out": {}, "growth": {}}
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder:
        race = Race(Path(folder), asked.environments.expanduser().absolute(), plan)
        if asked.only != [GROWTH]:
            run_contest(race, asked.only, record)
        if GROWTH in asked.only:
            try:
                run_growth(race, record)
            except LoadError as error:
                record["left out"][GROWTH] = str(error)
                print(f"left out: growth: {error}", flush=True)
    return record


def main() -> None:
    """Measure, print the medians, and keep the record where that is wanted."""
    parser = options()
    asked = parser.parse_args()
    if asked.record and asked.only != CHOICES:
        parser.error("a record is of all contestants: leave out --only, or write it --to a file")
    try:
        need_tools()
        with stops_on_signals():
            record = measure(asked)
    except LoadError as error:
        sys.exit(f"benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("\n" + "\n".join(table(record)))
    if asked.record and (missing := figures.missing(record)):
        sys.exit(f"benchmark: not recorded, since these are missing: {', '.join(missing)}")
    for place in [asked.to] * bool(asked.to) + [figures.RECORD] * asked.record:
        place.write_text(dump(record), encoding="utf-8")
        print(f"written: {place}")
    if asked.record:
        figures.write(record)
    if not record["contestants"] and asked.only != [GROWTH]:
        sys.exit("benchmark: no contestant was measured")


if __name__ == "__main__":
    main()
