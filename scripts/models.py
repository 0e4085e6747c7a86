"""Fit, add and serve the models that people bring, and compare the answers with their own.

python3 scripts/models.py                    all of them, a line each
python3 scripts/models.py --only "grid forest,ridge"

Each model is fitted on a made-up table, once of numbers and once with texts and gaps, written by
`joblib.dump`, added, and asked through the application in this process. A line says how it is
served, whether the answers are those of the estimator (`bits`: to the last one), how long a row
takes over the application, and how long it takes to open. XGBoost and LightGBM are tried where
they are installed. Exits with 1 if one is neither served as it answers, nor refused as expected.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).resolve().parent.parent))


def passengers() -> pd.DataFrame:
    """A made-up table with texts, gaps, truth values, codes, and a name in each row."""
    rng, n = np.random.default_rng(7), 400
    frame = pd.DataFrame({"name": [f"passenger {i}" for i in range(n)]})
    frame["pclass"] = rng.integers(1, 4, n)
    frame["sex"] = rng.choice(["male", "female"], n)
    frame["age"] = np.where(rng.random(n) < 0.2, np.nan, rng.uniform(1, 80, n).round(1))
    frame["port"] = rng.choice(["S", "C", "Q"], n)
    frame.loc[rng.random(n) < 0.1, "port"] = None
    frame["alone"] = rng.random(n) < 0.5
    frame["fare"] = rng.gamma(2, 15, n).round(2)
    chance = 0.6 * (frame["sex"] == "female") + 0.1 * (3 - frame["pclass"])
    frame["survived"] = (rng.random(n) < chance + 0.1).astype(int)
    frame["berth"] = rng.choice(["?", "-", "A", "B"], n)
    frame["cabin"] = rng.integers(101, 109, n)
    return frame


def flowers() -> pd.DataFrame:
    """Iris, with names of classes, and the width of a petal to be predicted as a number."""
    from sklearn.datasets import load_iris

    frame = load_iris(as_frame=True).frame
    frame.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width", "target"]
    frame["species"] = np.array(["setosa", "versicolor", "virginica"])[frame["target"]]
    return frame


MEASURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
TABLES = {"flowers": flowers, "passengers": passengers}


@dataclass(frozen=True)
class Model:
    """A model to try: `make` fits it on a table; it has to be `served`, or refused in `words`."""

    name: str
    make: Callable[[pd.DataFrame], Any]
    table: str = "flowers"
    target: str = "species"
    columns: tuple[str, ...] = tuple(MEASURES)
    framed: bool = False
    served: str = "from a pickle"
    words: str = ""
    types: tuple[tuple[str, str], ...] = ()

    def rows(self, frame: pd.DataFrame) -> Any:
        """What the model is fitted on, and asked with; some columns have `types` made by hand."""
        own = frame[list(self.columns)].astype(dict(self.types))
        return own if self.framed else own.to_numpy(np.float64)


def fitted(estimator: Any, target: Callable[[pd.Series], Any] = lambda y: y) -> Any:
    """A function that fits `estimator` on a model's rows and the `target` made of its column."""
    return lambda rows, y: estimator.fit(rows, target(y))


def own_classes() -> Iterator[Model]:
    """Classes as people have them."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import LabelEncoder

    forest = partial(RandomForestClassifier, 20, random_state=0)
    line = partial(LogisticRegression, max_iter=1000)
    spelled: dict[str, tuple[str, Callable[[pd.Series], Any]]] = {
        "bool": ("target", lambda y: y == 1),
        "float": ("target", lambda y: y.astype(float)),
        "text digits": ("target", lambda y: y.astype(str)),
        "np.str_ objects": ("species", lambda y: np.array([np.str_(v) for v in y], object)),
        "label encoded": ("species", lambda y: LabelEncoder().fit_transform(y)),
    }
    for name, (target, spell) in spelled.items():
        refused = "knows the classes [False, True]" if name == "bool" else ""
        for kind, make in (("forest", forest), ("line", line)):
            served = "frozen" if kind == "forest" else "from a pickle"
            yield Model(
                f"{kind}, classes {name}",
                fitted(make(), spell),
                target=target,
                served="refused" if refused else served,
                words=refused,
            )
    yield Model(
        "forest, classes bool of two",
        fitted(forest(), lambda y: y == 1),
        "passengers",
        "survived",
        ("pclass", "fare"),
        served="frozen",
    )


def classifiers() -> Iterator[Model]:
    """Classifiers on arrays and on frames, most of which no forest is in."""
    from sklearn import (
        discriminant_analysis,
        ensemble,
        gaussian_process,
        linear_model,
        multiclass,
        naive_bayes,
        neighbors,
        neural_network,
        svm,
        tree,
    )
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import TunedThresholdClassifierCV

    line = partial(linear_model.LogisticRegression, max_iter=1000)
    frozen = [
        tree.DecisionTreeClassifier(random_state=0),
        tree.ExtraTreeClassifier(random_state=0),
        ensemble.RandomForestClassifier(20, random_state=0),
        ensemble.ExtraTreesClassifier(20, random_state=0),
    ]
    pickled = [
        line(),
        linear_model.SGDClassifier(random_state=0),
        svm.SVC(),
        svm.LinearSVC(random_state=0),
        neighbors.KNeighborsClassifier(),
        naive_bayes.GaussianNB(),
        discriminant_analysis.LinearDiscriminantAnalysis(),
        discriminant_analysis.QuadraticDiscriminantAnalysis(),
        neural_network.MLPClassifier((8,), random_state=0, max_iter=50),
        gaussian_process.GaussianProcessClassifier(random_state=0),
        ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0),
        ensemble.AdaBoostClassifier(n_estimators=10, random_state=0),
        ensemble.BaggingClassifier(n_estimators=5, random_state=0, n_jobs=2),
        ensemble.VotingClassifier(
            [("a", line()), ("b", tree.DecisionTreeClassifier())], voting="soft"
        ),
        ensemble.StackingClassifier([("b", tree.DecisionTreeClassifier(max_depth=2))], cv=2),
        CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=2),
        multiclass.OneVsRestClassifier(line()),
    ]
    for estimator in frozen:
        for framed in (False, True):
            name = type(estimator).__name__ + ", frame" * framed
            yield Model(name, fitted(estimator), framed=framed, served="frozen")
    for estimator in pickled:
        yield Model(type(estimator).__name__, fitted(estimator))
    for estimator in (line(), ensemble.HistGradientBoostingClassifier(max_iter=10)):
        yield Model(f"{type(estimator).__name__}, frame", fitted(estimator), framed=True)
    yield Model(
        "TunedThreshold",
        fitted(TunedThresholdClassifierCV(line(), cv=2)),
        "passengers",
        "survived",
        ("pclass", "fare"),
    )
    yield Model(
        "HistGradientBoosting, gaps",
        fitted(ensemble.HistGradientBoostingClassifier(max_iter=10)),
        "passengers",
        "survived",
        ("pclass", "age", "fare"),
    )
    yield Model(
        "forest, gaps",
        fitted(ensemble.RandomForestClassifier(20, random_state=0)),
        "passengers",
        "survived",
        ("pclass", "age", "fare"),
        served="frozen",
    )


def regressors() -> Iterator[Model]:
    """Estimators that answer with a number."""
    from sklearn import ensemble, linear_model, neighbors, svm, tree

    some = partial(Model, target="petal_width", columns=tuple(MEASURES[:3]))
    for estimator in (
        tree.DecisionTreeRegressor(random_state=0),
        ensemble.RandomForestRegressor(20, random_state=0, n_jobs=2),
        ensemble.ExtraTreesRegressor(20, random_state=0),
    ):
        for framed in (False, True):
            name = type(estimator).__name__ + ", frame" * framed
            yield some(name, fitted(estimator), framed=framed, served="frozen")
    for estimator in (
        linear_model.LinearRegression(),
        linear_model.Ridge(),
        svm.SVR(),
        neighbors.KNeighborsRegressor(),
        ensemble.GradientBoostingRegressor(n_estimators=10, random_state=0),
        ensemble.HistGradientBoostingRegressor(max_iter=10),
    ):
        yield some(type(estimator).__name__, fitted(estimator), framed=True)


def around_forests() -> Iterator[Model]:
    """Forests with something around them."""
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        MaxAbsScaler,
        MinMaxScaler,
        PowerTransformer,
        RobustScaler,
        StandardScaler,
    )

    forest = partial(RandomForestClassifier, 20, random_state=0)
    frozen = {
        "one-step pipeline": make_pipeline(forest()),
        "passthrough": make_pipeline("passthrough", forest()),
        "StandardScaler": make_pipeline(StandardScaler(), forest()),
        "MinMaxScaler": make_pipeline(MinMaxScaler(), forest()),
        "MaxAbs, Robust": make_pipeline(MaxAbsScaler(), RobustScaler(), forest()),
        "scaler, set_output": make_pipeline(StandardScaler(), forest()).set_output(
            transform="pandas"
        ),
        "grid": GridSearchCV(forest(), {"max_depth": [2, 4]}, cv=2),
        "random search": RandomizedSearchCV(forest(), {"max_depth": [2, 4]}, n_iter=2, cv=2),
        "grid of a pipeline": GridSearchCV(
            make_pipeline(StandardScaler(), forest()),
            {"randomforestclassifier__max_depth": [2, 4]},
            cv=2,
        ),
    }
    for name, estimator in frozen.items():
        for framed in (False, True):
            title = f"{name} forest{', frame' * framed}"
            yield Model(title, fitted(estimator), framed=framed, served="frozen")
    yield Model("PowerTransformer forest", fitted(make_pipeline(PowerTransformer(), forest())))
    yield Model(
        "scaler forest, numbers",
        fitted(make_pipeline(StandardScaler(), ExtraTreesRegressor(20, random_state=0))),
        target="petal_width",
        columns=tuple(MEASURES[:3]),
        served="frozen",
    )


def by_name() -> Iterator[Model]:
    """Pipelines that pick columns by name, take texts and fill gaps."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        FunctionTransformer,
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
    )

    texts, numbers = ["sex", "port"], ["age", "fare"]
    every = ("name", "pclass", "sex", "age", "port", "alone", "fare")
    some = partial(Model, table="passengers", target="survived", columns=every, framed=True)
    forest = partial(RandomForestClassifier, 20, random_state=0)
    encoder = partial(OneHotEncoder, handle_unknown="ignore")
    filled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    usual = make_column_transformer((encoder(), [*texts, "pclass"]), (filled, numbers))
    codes = partial(OrdinalEncoder, handle_unknown="use_encoded_value", unknown_value=np.nan)
    coded = make_column_transformer(
        (codes(), texts), ("passthrough", ["pclass", "alone", *numbers])
    )
    scaled = make_column_transformer((codes(), texts), (StandardScaler(), numbers))
    selected = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), encoder()),
         make_column_selector(dtype_include=["object", "str"])),
        remainder=SimpleImputer(),
    )  # fmt: skip
    yield some("names, line", fitted(make_pipeline(usual, LogisticRegression(max_iter=1000))))
    yield some("names, one-hot forest", fitted(make_pipeline(usual, forest())))
    yield some("names, codes, forest", fitted(make_pipeline(coded, forest())), served="frozen")
    yield some("names, codes, scaler", fitted(make_pipeline(scaled, forest())), served="frozen")
    yield some(
        "names, grid",
        fitted(GridSearchCV(make_pipeline(coded, forest()), {}, cv=2)),
        served="frozen",
    )
    yield some("selectors, remainder", fitted(make_pipeline(selected, forest())), columns=every[1:])
    yield some(
        "names, boosting", fitted(make_pipeline(coded, HistGradientBoostingClassifier(max_iter=9)))
    )
    dense = make_column_transformer((OneHotEncoder(sparse_output=False), texts), (filled, numbers))
    piped = make_pipeline(dense, forest()).set_output(transform="pandas")
    yield some("names, set_output", fitted(piped))
    yield some(
        "FunctionTransformer",
        fitted(make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())),
        columns=("pclass", "fare"),
    )
    yield some(
        "one-hot of whole numbers",
        fitted(make_pipeline(OneHotEncoder(), LogisticRegression())),
        columns=("pclass",),
        framed=False,
    )


def as_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Each value as a text."""
    return frame.astype(str)


def by_types() -> Iterator[Model]:
    """Pipelines to which it matters what pandas calls a column, and what it takes for missing."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    some = partial(Model, table="passengers", target="survived", framed=True)
    encoder = partial(OneHotEncoder, handle_unknown="ignore")
    texts = partial(FunctionTransformer, as_texts)
    line, forest = LogisticRegression, partial(RandomForestClassifier, 20, random_state=0)
    own = ("cabin", "berth", "pclass")
    yield some("types, whole numbers", fitted(make_pipeline(OneHotEncoder(), line())), columns=own)
    yield some("types, texts of numbers", fitted(make_pipeline(texts(), encoder(), line())),
               columns=own)  # fmt: skip
    yield some("types, texts, forest", fitted(make_pipeline(texts(), encoder(), forest())),
               columns=own)  # fmt: skip
    yield some("types, floats by hand", fitted(make_pipeline(texts(), encoder(), line())),
               columns=("cabin",), types=(("cabin", "float64"),))  # fmt: skip
    filled = make_pipeline(SimpleImputer(strategy="constant", fill_value="NA"), encoder())
    gaps = make_column_transformer((filled, ["port"]), (SimpleImputer(), ["age"]))
    yield some("gaps, a constant beside numbers", fitted(make_pipeline(gaps, line())),
               columns=("port", "age"))  # fmt: skip
    marks = make_column_transformer((OneHotEncoder(), ["berth"]), (SimpleImputer(), ["age"]))
    yield some("gaps, marks that are texts", fitted(make_pipeline(marks, line())),
               columns=("berth", "age"))  # fmt: skip
    boosting = partial(HistGradientBoostingClassifier, max_iter=9)
    yield some("categories from the types", fitted(boosting(categorical_features="from_dtype")),
               columns=("sex", "port", "age"), types=KINDS)  # fmt: skip
    yield some("categories by name", fitted(boosting(categorical_features=["sex", "port"])),
               columns=("sex", "port", "age"))  # fmt: skip


KINDS = (("sex", "category"), ("port", "category"))


def boosters() -> Iterator[Model]:
    """XGBoost and LightGBM, where they are installed."""
    try:
        import lightgbm
        import xgboost
    except ImportError:
        return
    quiet = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1)
    for framed in (False, True):
        title = ", frame" * framed
        yield Model(
            f"XGBClassifier{title}",
            fitted(xgboost.XGBClassifier(n_estimators=5)),
            target="target",
            framed=framed,
        )
        yield Model(
            f"XGBRegressor{title}",
            fitted(xgboost.XGBRegressor(n_estimators=5)),
            target="petal_width",
            columns=tuple(MEASURES[:3]),
            framed=framed,
        )
        yield Model(f"LGBMClassifier{title}", fitted(quiet), framed=framed)
    some = partial(Model, table="passengers", framed=True)
    made: dict[str, tuple[Any, Any]] = {
        "XGB": (
            xgboost.XGBClassifier(n_estimators=9, enable_categorical=True),
            xgboost.XGBRegressor(n_estimators=9, enable_categorical=True),
        ),
        "LGBM": (
            lightgbm.LGBMClassifier(n_estimators=9, verbose=-1),
            lightgbm.LGBMRegressor(n_estimators=9, verbose=-1),
        ),
    }
    numbered = (*KINDS, ("pclass", "category"))
    for name, (classes, number) in made.items():
        own = ("sex", "age", "port", "pclass")
        yield some(f"{name}Classifier, categories", fitted(classes), target="survived",
                   columns=own, types=KINDS)  # fmt: skip
        yield some(f"{name}Classifier, numbers as categories", fitted(classes), target="survived",
                   columns=own, types=numbered)  # fmt: skip
        yield some(f"{name}Regressor, categories", fitted(number), target="fare",
                   columns=own, types=KINDS)  # fmt: skip
        yield some(f"{name}Regressor, gaps", fitted(number), target="fare",
                   columns=("age", "pclass"))  # fmt: skip
    yield Model("LGBMRegressor", fitted(made["LGBM"][1]), target="petal_width",
                columns=tuple(MEASURES[:3]))  # fmt: skip
    yield Model(
        "XGBClassifier, names of classes",
        fitted(xgboost.XGBClassifier(n_estimators=5), lambda y: y.astype("category").cat.codes),
    )


def refused() -> Iterator[Model]:
    """What cannot be served, and the words that lead on."""
    from sklearn.cluster import KMeans
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def both(rows: Any, y: pd.Series) -> Any:
        return RandomForestClassifier(3).fit(rows, np.column_stack([y, y]))

    line = LogisticRegression(max_iter=1000)
    wrong: dict[str, tuple[Any, str]] = {
        "KMeans": (fitted(KMeans(3, n_init=1)), "fit a classifier on the answers"),
        "IsolationForest": (
            fitted(IsolationForest(n_estimators=5)),
            "fit a classifier on the answers",
        ),
        "two targets": (both, "fit one estimator for each"),
        "unfitted": (lambda rows, y: LogisticRegression(), "call fit before you keep it"),
        "a scaler": (fitted(StandardScaler()), "put a classifier or a regressor at its end"),
        "a dictionary": (
            lambda rows, y: {"model": line.fit(rows, y), "columns": MEASURES},
            "joblib.dump(it['model'], 'my_own.pkl') keeps that alone",
        ),
    }
    for name, (make, words) in wrong.items():
        yield Model(name, make, served="refused", words=words)


def all_models() -> list[Model]:
    """The models to try, in the order of the lines."""
    groups = (
        own_classes,
        classifiers,
        regressors,
        around_forests,
        by_name,
        by_types,
        boosters,
        refused,
    )
    return [model for group in groups for model in group()]


@dataclass(frozen=True)
class Found:
    """What became of a model."""

    served: str
    equal: str
    milliseconds: float
    seconds: float


def own_answers(estimator: Any, rows: Any) -> tuple[list[Any], Any]:
    """What `estimator` answers to `rows`, and its probabilities if it knows some."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else None
        return np.asarray(estimator.predict(rows)).tolist(), known


def equality(ours: list[dict[str, Any]], answers: list[Any], known: Any) -> str:
    """How exactly `ours`, the answers with details, are the `answers` and what is `known`."""
    given = [one["prediction"] for one in ours]
    number = isinstance(given[0], float)
    if not number and given != answers and list(map(str, given)) != list(map(str, answers)):
        return "different"
    pairs = np.array([given, answers], np.float64) if number else None
    if pairs is None and known is not None:
        pairs = np.array([[list(one["probabilities"].values()) for one in ours], known])
    if pairs is None:
        return "same classes"
    if np.array_equal(pairs[0], pairs[1]):
        return "bits"
    return f"to {np.abs(pairs[0] - pairs[1]).max():.0e}"


def ask(client: Any, rows: list[dict[str, Any]], detail: str = "?detail=true") -> list[Any]:
    """What the application answers to `rows`, one question for each."""
    found = []
    for row in rows:
        answer = client.post(f"/predict{detail}", json={"features": row})
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
        found.append(answer.json)
    return found


def serve(model: Model, frame: pd.DataFrame, file: Path, models: Path) -> Found:
    """Add the model in `file`, ask it through the application, and compare."""
    from iris_serve.cli.settings import Settings
    from iris_serve.model.estimator import use_one_thread
    from iris_serve.model.load import open_model
    from iris_serve.model.save import how_served
    from iris_serve.registry.registry import Registry
    from iris_serve.training.import_model import add
    from iris_serve.training.own_table import table_for
    from iris_serve.wsgi import make_app

    registry = Registry(models)
    features = None if model.framed else model.columns
    data, target = models.parent / f"{model.table}.csv", model.target
    add(registry, file, partial(table_for, file=data, target=target, features=features))
    started = time.perf_counter()
    _, card = open_model(registry.path(1))
    seconds = time.perf_counter() - started
    app = make_app(Settings(models=str(models), access_log="off"))
    try:
        client, some = app.test_client(), frame[:100]
        names = card.contract.names
        rows = some[names].astype(object).where(some[names].notna(), None).to_dict("records")
        rows = [{k: v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in rows]
        ours = ask(client, rows)
        started = time.perf_counter()
        ask(client, rows, "")
        each = (time.perf_counter() - started) / len(rows)
    finally:
        app.extensions["live"].stop()
    answers, known = own_answers(use_one_thread(joblib.load(file)), model.rows(some))
    return Found(how_served(card), equality(ours, answers, known), 1000 * each, seconds)


def try_model(model: Model, folder: Path) -> Found:
    """Fit `model`, keep it, add and ask it; raises what `add` raises."""
    frame = TABLES[model.table]()
    frame.to_csv(folder / f"{model.table}.csv", index=False)
    frame = pd.read_csv(folder / f"{model.table}.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = model.make(model.rows(frame), frame[model.target])
    joblib.dump(estimator, folder / "own.pkl")
    return serve(model, frame, folder / "own.pkl", folder / "models")


def problem(model: Model, found: Found) -> str:
    """What is not as expected of `model`, in words; empty if all is."""
    if not found.served.startswith(model.served):
        return f"not {model.served}"
    exact = ("bits",) if model.served == "frozen" else ("bits", "same classes", "to ")
    if model.served != "refused" and not found.equal.startswith(exact):
        return "other answers"
    return "" if model.words in found.served else f"not in these words: {model.words}"


def check(model: Model) -> tuple[Found, str]:
    """What became of `model`, and what is not as expected."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = try_model(model, Path(folder))
        except (ValueError, TypeError) as error:  # a refusal in words
            found = Found(f"refused: {error}", "", 0.0, 0.0)
    return found, problem(model, found)


def main() -> None:
    """Read the command line, and print a line for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", help="names of models, separated by semicolons")
    asked = parser.parse_args()
    names = asked.only.split(";") if asked.only else None
    models = [model for model in all_models() if not names or model.name in names]
    heads = ["model", "served", "equal", "ms a row", "s to open", "what is wrong"]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    wrong = 0
    for model in models:
        found, problems = check(model)
        wrong += bool(problems)
        numbers = [f"{found.milliseconds:.2f}", f"{found.seconds:.3f}"] if found.equal else ["", ""]
        cells = [model.name, found.served, found.equal, *numbers, problems or "–"]
        print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{len(models)} models, {wrong} of them not as expected")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
