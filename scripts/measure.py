"""Measure the frozen forest beside scikit-learn, and the service beside a Flask hello world.

python scripts/measure.py forest     one row and many rows, side by side, as a Markdown table
python scripts/measure.py start      start to first answer, and resident memory of a worker
python scripts/measure.py lane       one request by the fast lane and by Flask, step by step
python scripts/measure.py million    memory and descriptors of a worker over a million requests

Each figure is the median of several rounds in which all contestants take turns. The machine is
shared with others, so the ratios mean something, and the single figures little.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROUNDS = 7


def timed(work: Callable[[], Any], least: float = 0.02) -> float:
    """Seconds that one call of `work` takes, called again until `least` seconds are over."""
    calls, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < least or not calls:
        work()
        calls += 1
    return taken / calls


def side_by_side(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median seconds of each of `works`, which take turns."""
    rounds = [{name: timed(work) for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(turn[name] for turn in rounds) for name in works}


def line(*words: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(str(word) for word in words) + " |", flush=True)


def one_row(estimator: Any, forest: Any, row: list[float]) -> list[str]:
    """scikit-learn, a cache miss and a hit for `row`; in microseconds, with ratios."""
    forget = forest.single.remembered.cache_clear

    def miss() -> None:
        forget()
        forest.predict_proba([row])

    works = {
        "sklearn": lambda: estimator.predict_proba([row]),
        "miss": miss,
        "forget": forget,
        "hit": lambda: forest.predict_proba([row]),
    }
    found = side_by_side(works)
    theirs, hit = found["sklearn"], found["hit"]
    missed = found["miss"] - found["forget"]
    figures = [f"{theirs * 1e6:,.0f}"]
    return figures + [f"{s * 1e6:.2f} ({theirs / s:,.0f}×)" for s in (missed, hit)]


def many_rows(estimator: Any, forest: Any, X: Any) -> str:
    """scikit-learn and the forest for `X` after one call to warm up; microseconds a row."""
    forest.predict_proba(X)
    works = {
        "sklearn": lambda: estimator.predict_proba(X),
        "forest": lambda: forest.predict_proba(X),
    }
    found = side_by_side(works)
    theirs, ours = (found[name] / len(X) * 1e6 for name in ("sklearn", "forest"))
    return f"{theirs:.2f} → {ours:.3f} ({theirs / ours:.1f}×)"


def forest_table() -> None:
    """Print what scikit-learn and the frozen forest need for the same rows."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
    from sklearn.ensemble import RandomForestClassifier

    from iris_serve.forest import freeze

    line("data, trees", "leaves", "freeze, ms", "one row, scikit-learn, µs", "miss", "hit", *SIZES)
    line(*["---"] * (6 + len(SIZES)))
    loads = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}
    for name, load in (loads | {"digits": load_digits}).items():
        X, y = load(return_X_y=True)
        rows = np.random.default_rng(0).uniform(X.min(0), X.max(0), (1_000_000, X.shape[1]))
        for trees in (20, 100, 500):
            estimator = RandomForestClassifier(trees, random_state=0, n_jobs=1).fit(X, y)
            freezing = timed(lambda e=estimator: freeze(e))
            forest = freeze(estimator)
            row = rows[0].tolist()
            some = [many_rows(estimator, forest, rows[:n]) for n in SIZES.values() if n < 10**5]
            # A million rows take scikit-learn minutes on wide data; iris is what was promised.
            large = many_rows(estimator, freeze(estimator), rows) if name == "iris" else "-"
            leaves = len(forest.arrays.values)
            found = one_row(estimator, forest, row)
            line(f"{name}, {trees}", leaves, f"{freezing * 1e3:.0f}", *found, *some, large)


SIZES = {"100 rows": 100, "10,000 rows": 10_000, "1,000,000 rows": 1_000_000}

HELLO = """
import sys
from flask import Flask
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

def make():
    app = Flask("hello")
    app.post("/predict")(lambda: {"prediction": 1})
    return app

where = dict(address="127.0.0.1", port=int(sys.argv[1]), interface=Interfaces.WSGI)
options = dict(workers=1, blocking_threads=32, websockets=False, log_level=LogLevels.error)
server = Granian("hello", **where, **options)
server.serve(target_loader=make, wrap_loader=False)
"""


def free_port() -> int:
    """A port on the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def until_answered(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return as soon as a row is answered with 200 on `port`, asked every 5 ms."""
    body = b'{"features": [6.1, 2.8, 4.7, 1.2]}'
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/predict", body, 10) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError("the service did not answer")


def memory(process: int) -> tuple[int, int]:
    """The resident and the proportional set size of `process`, in kilobytes (Linux)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    sizes = {words[0]: int(words[1]) for words in map(str.split, lines[1:])}
    return sizes["Rss:"], sizes["Pss:"]


def start_once(program: list[str], port: int) -> tuple[float, float]:
    """Seconds to the first answer, and resident megabytes of the worker that gave it."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *program], stdout=subprocess.DEVNULL)
    try:
        until_answered(port, process)
        seconds = time.perf_counter() - started
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return seconds, max(memory(int(child))[0] for child in children) / 1024
    finally:
        process.terminate()
        process.wait()


def start_table() -> None:
    """Print start and memory of a Flask hello world and of the service, on the same server."""
    with tempfile.TemporaryDirectory() as folder:
        trained = [sys.executable, "-m", "iris_serve", "train", "--models", folder]
        subprocess.run(trained, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, list[tuple[float, float]]] = {"hello": [], "iris_serve": []}
        for _ in range(ROUNDS):
            port = free_port()
            found["hello"].append(start_once(["-c", HELLO, str(port)], port))
            service = ["-m", "iris_serve", "--models", folder, "--port", str(port)]
            found["iris_serve"].append(start_once(service, port))
    line("", "start to first answer, s", "resident memory of the worker, MB")
    line("---", "---", "---")
    medians = {}
    for name, rounds in found.items():
        medians[name] = [statistics.median(column) for column in zip(*rounds, strict=True)]
        line(name, *(f"{figure:.2f}" for figure in medians[name]))
    pairs = zip(medians["iris_serve"], medians["hello"], strict=True)
    line("ratio", *(f"{ours / theirs:.2f}×" for ours, theirs in pairs))


def made_apps(models: str) -> dict[str, Any]:
    """The application with the fast lane and without; their logs go to the null device."""
    from iris_serve.cli.settings import Settings
    from iris_serve.wsgi import make_app

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return {
        way: make_app(Settings(models=models, fast_lane=way == "lane")) for way in ("Flask", "lane")
    }


def question(path: str, value: object) -> dict[str, Any]:
    """The environ of a request to `path` with `value` as JSON."""
    from werkzeug.test import EnvironBuilder

    return EnvironBuilder(path, method="POST", json=value, headers={"Accept": "*/*"}).get_environ()


def ask(app: Any, environ: dict[str, Any]) -> None:
    """Ask `app` once, from the beginning of the body."""
    environ["wsgi.input"].seek(0)
    list(app(dict(environ), lambda status, headers: None))


def lane_steps(lane: Any, environ: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Each step of a request in the fast `lane`, ready to be called."""
    from iris_serve.service import lane as steps
    from iris_serve.service import predict

    hot, policy, live = lane.hot["/predict"], lane.policy, lane.live
    model, body = live.pin(), environ["wsgi.input"].getvalue()
    parsed = predict.parse_body(body, "", model.contract, policy.limits)
    asked = predict.check_request(parsed, model.contract, policy.limits)
    begun, reply = (
        steps.begin_plain(hot, environ, live, policy),
        predict.answer_request(asked, model),
    )
    return {
        "is it plain, and short enough?": lambda: (
            steps.plain_length(environ, policy.limits.body),
            steps.short_headers(environ, policy.limits.headers),
        ),
        "id, predictor, host, key": lambda: steps.begin_plain(hot, environ, live, policy),
        "parse and check the row": lambda: predict.check_request(
            predict.parse_body(body, "", model.contract, policy.limits),
            model.contract,
            policy.limits,
        ),
        "answer, and write the body": lambda: predict.answer_request(asked, model),
        "headers": lambda: steps.headers_of(reply, begun, environ, policy.origins),
        "leave a note for the counters and the log": lambda: steps.record(
            hot, begun, body, reply, lane.observer
        ),
    }


def lane_table() -> None:
    """Print what a request costs in the process, by both ways, and what its steps cost."""
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP64", "data": [6.1, 2.8, 4.7, 1.2]}
    asked = {
        "POST /predict, one row": question("/predict", {"features": [6.1, 2.8, 4.7, 1.2]}),
        "POST /predict, 100 rows": question("/predict", {"features": [[6.1, 2.8, 4.7, 1.2]] * 100}),
        "V2 infer, one row": question("/v2/models/iris/infer", {"id": "1", "inputs": [tensor]}),
    }
    with tempfile.TemporaryDirectory() as folder:
        trained = [sys.executable, "-m", "iris_serve", "train", "--models", folder]
        subprocess.run(trained, check=True, stdout=subprocess.DEVNULL)
        apps = made_apps(folder)
        line("microseconds", "Flask", "lane", "ratio")
        line(*["---"] * 4)
        for name, environ in asked.items():
            works = {way: partial(ask, app, environ) for way, app in apps.items()}
            found = side_by_side(works)
            ratio = f"{found['Flask'] / found['lane']:.1f}×"
            line(name, *(f"{found[way] * 1e6:.1f}" for way in apps), ratio)
        print()
        line("a step of the lane", "microseconds")
        line("---", "---")
        steps = lane_steps(apps["lane"].wsgi_app, asked["POST /predict, one row"])
        for name, seconds in side_by_side(steps).items():
            line(name, f"{seconds * 1e6:.2f}")


MILLION, EVERY, WARM = 1_000_000, 50_000, 200_000  # requests
SECONDS, CONNECTIONS, LONGEST = 2, 16, 600


def held_by(worker: int) -> tuple[float, float, int, int]:
    """PSS in megabytes, what of it is no part of a file; descriptors, threads.

    Libraries are shared by all programs that use them, so the first depends on these.
    """
    kept = {"Pss:": 0.0, "Pss_Anon:": 0.0}
    for text in Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines():
        name, *words = text.split()
        if name in kept:
            kept[name] = int(words[0]) / 1024
    descriptors, threads = (len(os.listdir(f"/proc/{worker}/{what}")) for what in ("fd", "task"))
    return kept["Pss:"], kept["Pss_Anon:"], descriptors, threads


def when_left(worker: int, descriptors: int) -> tuple[float, float, int, int]:
    """As `held_by`, when all connections are closed, so that there are so few `descriptors`."""
    deadline = time.monotonic() + 5
    while len(os.listdir(f"/proc/{worker}/fd")) > descriptors and time.monotonic() < deadline:
        time.sleep(0.01)
    return held_by(worker)


def two_versions(models: Path) -> None:
    """Train two versions into `models`, of which the first is in service."""
    from iris_serve.training.parameters import Parameters
    from iris_serve.training.retrain import train

    for seed in (0, 1):
        train(models, Parameters(seed=seed, promote="never" if seed else "auto"))


def new_rows(path: Path, count: int) -> Path:
    """The file `path` with so many questions, one a line: flowers that nobody has seen."""
    import numpy as np

    rows = np.random.default_rng(0).uniform([4, 2, 1, 0], [8, 4.5, 7, 2.5], (count, 4)).round(2)
    path.write_text("".join(f'{{"features": {row}}}\n' for row in rows.tolist()))
    return path


def drift(figures: list[float]) -> float:
    """How far the `figures` are from their median at most, in percent."""
    middle = statistics.median(figures)
    return max(abs(figure / middle - 1) for figure in figures) * 100


def million_table() -> None:
    """Print what a worker holds while it answers a million requests, with a swap in each load."""
    from load import Running, cores, load, memory, need_tools

    from iris_serve.registry.registry import Registry, promote

    need_tools()
    on, beside, _ = cores()
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        two_versions(folder / "models")
        bodies, registry = new_rows(folder / "bodies", 5000), Registry(folder / "models")
        command = [sys.executable, "-m", "iris_serve", "--models", str(folder / "models")]
        root = str(Path(__file__).parents[1])
        with Running([*command, "--port", str(port)], folder, port, on, PYTHONPATH=root) as service:
            service.wait("/predict", '{"features": [6.1, 2.8, 4.7, 1.2]}')
            main = service.process.pid
            children = [process for process in service.family() if process != main]
            worker = max(children, key=lambda process: memory([process]))
            few = held_by(worker)[2]
            held: list[tuple[float, float, int, int]] = []
            asked, swaps, began = 0.0, 0, time.monotonic()
            line("requests", "swaps", "seconds", "PSS, MB", "anonymous", "descriptors", "threads")
            line(*["---"] * 7)
            while asked < MILLION and time.monotonic() - began < LONGEST:
                swaps += 1
                swap = partial(promote, registry, 1 + swaps % 2, "measured")
                timer = threading.Timer(SECONDS / 2, swap)
                timer.start()
                found = load(service, "/predict", bodies, CONNECTIONS, SECONDS, beside)
                timer.join()
                before, asked = asked, asked + found.rate * SECONDS
                now = when_left(worker, few)
                held += [now] if asked > WARM else []
                if asked // EVERY > before // EVERY:
                    figures = f"{now[0]:.1f}", f"{now[1]:.1f}", *now[2:]
                    line(f"{asked:,.0f}", swaps, f"{time.monotonic() - began:.0f}", *figures)
    pss, anonymous, descriptors, _ = map(list, zip(*held, strict=True))
    print(f"\nafter {WARM:,}: PSS at most {max(pss):.1f} MB, within ±{drift(pss):.1f} %,")
    print(f"anonymous within ±{drift(anonymous):.1f} %,", end=" ")
    print(f"descriptors {min(descriptors)} to {max(descriptors)}")


TABLES = {
    "forest": forest_table,
    "start": start_table,
    "lane": lane_table,
    "million": million_table,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in TABLES:
        sys.exit(__doc__)
    TABLES[sys.argv[1]]()
