"""Models of one's own: columns by name, texts and gaps, classes as they come, and remedies."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from iris_serve.cli.settings import Settings
from iris_serve.data.table import iris
from iris_serve.model.card import read_card
from iris_serve.model.save import MODEL_FILE, how_served
from iris_serve.registry.registry import Registry
from iris_serve.training.import_model import add
from iris_serve.training.model_file import EstimatorError, open_estimator
from iris_serve.training.own_table import table_for
from iris_serve.wsgi import make_app

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("models", ROOT / "scripts" / "models.py")
TRIALS = importlib.util.module_from_spec(SPEC)
sys.modules["models"] = TRIALS
SPEC.loader.exec_module(TRIALS)
QUICK = (
    "forest, classes float",
    "forest, classes text digits",
    "line, classes np.str_ objects",
    "forest, classes label encoded",
    "forest, classes bool of two",
    "StandardScaler forest, frame",
    "grid of a pipeline forest",
    "RandomForestRegressor, frame",
    "Ridge",
    "HistGradientBoosting, gaps",
    "names, line",
    "names, codes, scaler",
    "names, set_output",
    "selectors, remainder",
    "one-hot of whole numbers",
    "two targets",
    "a dictionary",
)
MODELS = {model.name: model for model in TRIALS.all_models()}


@pytest.mark.parametrize("name", QUICK)
def test_the_commonest_models_are_served_as_they_answer_or_refused_with_a_remedy(name):
    assert TRIALS.check(MODELS[name])[1] == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS.keys() - set(QUICK)))
def test_all_other_models_are_served_as_they_answer_or_refused_with_a_remedy(name):
    assert TRIALS.check(MODELS[name])[1] == ""


@pytest.fixture
def passengers(tmp_path):
    """A table with texts and gaps, as pandas reads its file."""
    TRIALS.passengers().to_csv(tmp_path / "passengers.csv", index=False)
    return pd.read_csv(tmp_path / "passengers.csv")


def usual():
    """The commonest recipe of all."""
    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["sex", "port"]), (SimpleImputer(), ["age"])
        ),
        LogisticRegression(),
    )


def added(tmp_path, estimator, data, target, features=None, name="own"):
    """The registry in which `estimator` is version 1, added by the table in the file `data`."""
    registry = Registry(tmp_path / "models", name)
    joblib.dump(estimator, tmp_path / "own.pkl")
    add(
        registry,
        tmp_path / "own.pkl",
        partial(table_for, file=data, target=target, features=features),
    )
    return registry


def served(registry, rows):
    """What the service answers to each of `rows`, with a list of what it warned about."""
    app = make_app(
        Settings(models=str(registry.folder.parent), name=registry.name, access_log="off")
    )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        answers = [app.test_client().post("/predict", json={"features": row}) for row in rows]
    app.extensions["live"].stop()
    return [(answer.status_code, answer.json) for answer in answers], warned


def test_only_the_columns_that_a_pipeline_uses_are_asked_and_the_others_are_named(
    tmp_path, passengers
):
    pipeline = usual().fit(passengers.drop(columns="survived"), passengers["survived"])
    registry = added(tmp_path, pipeline, tmp_path / "passengers.csv", "survived")
    card = read_card(registry.path(1))
    assert card.contract.names == ["sex", "age", "port"]
    left = [note.name for note in card.columns if note.kind == "left out"]
    assert left == ["name", "pclass", "alone", "fare", "berth", "cabin"]
    one = passengers[passengers["port"].isna()][:1]
    row = {"sex": one["sex"].item(), "age": one["age"].item(), "port": None}
    answers, warned = served(registry, [row if row["age"] == row["age"] else row | {"age": None}])
    wanted = pipeline.predict(one).tolist()
    assert answers == [(200, {"prediction": wanted[0]})]
    assert warned == []


def test_a_model_file_is_kept_byte_by_byte(tmp_path, passengers):
    pipeline = usual().fit(passengers[["sex", "port", "age"]], passengers["survived"])
    registry = added(tmp_path, pipeline, tmp_path / "passengers.csv", "survived")
    assert (registry.path(1) / MODEL_FILE).read_bytes() == (tmp_path / "own.pkl").read_bytes()


def test_golden_rows_of_a_pickle_have_observed_values_only(tmp_path, passengers):
    encoder = make_column_transformer((OneHotEncoder(), ["pclass", "sex"]))
    pipeline = make_pipeline(encoder, LogisticRegression())
    pipeline.fit(passengers[["pclass", "sex"]], passengers["survived"])
    registry = added(tmp_path, pipeline, tmp_path / "passengers.csv", "survived")
    golden = read_card(registry.path(1)).golden
    assert {row[0] for row in golden.rows} == {1.0, 2.0, 3.0}


def test_a_mark_that_an_encoder_has_learned_is_a_category(tmp_path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"work": rng.choice(["?", "clerk", "cook"], 200)})
    frame["rich"] = (frame["work"] == "?") ^ (rng.random(200) < 0.1)
    frame.to_csv(tmp_path / "t.csv", index=False)
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame[["work"]], frame["rich"])
    registry = added(tmp_path, model, tmp_path / "t.csv", "rich")
    answers, _ = served(registry, [{"work": "?"}, {"work": "cook"}])
    assert answers == [(200, {"prediction": True}), (200, {"prediction": False})]


def test_names_with_blanks_at_the_ends_are_found_in_the_table(tmp_path):
    frame = iris().frame().rename(columns=lambda name: f" {name} ")
    frame.to_csv(tmp_path / "t.csv", index=False)
    forest = RandomForestClassifier(3, random_state=0).fit(frame.iloc[:, :4], frame[" label "])
    registry = added(tmp_path, forest, tmp_path / "t.csv", "label")
    assert read_card(registry.path(1)).contract.names == iris().contract.names
    line = LogisticRegression(max_iter=999).fit(frame.iloc[:, :4], frame[" label "])
    registry = added(tmp_path, line, tmp_path / "t.csv", "label", name="line")
    answers, warned = served(registry, [iris().X[0].tolist()])
    assert (answers, warned) == ([(200, {"prediction": "setosa"})], [])


def test_an_index_column_does_not_concern_an_estimator_without_names(tmp_path):
    frame = iris().frame()
    frame.to_csv(tmp_path / "t.csv")
    line = LogisticRegression(max_iter=999).fit(iris().X, frame["label"])
    registry = added(tmp_path, line, tmp_path / "t.csv", "label")
    assert read_card(registry.path(1)).contract.names == iris().contract.names


def test_codes_are_never_handed_to_what_was_fitted_on_an_array(tmp_path, passengers):
    coded = OrdinalEncoder().fit_transform(passengers[["sex", "pclass"]])
    line = LogisticRegression().fit(coded, passengers["survived"])
    with pytest.raises(EstimatorError, match="fit it on a data frame of these"):
        added(tmp_path, line, tmp_path / "passengers.csv", "survived", ["sex", "pclass"])


class Renamed(RandomForestRegressor):
    """A subclass that overrides nothing that predicts."""


def test_a_subclass_that_predicts_as_its_forest_is_frozen(tmp_path):
    frame = iris().frame().drop(columns="label")
    frame.to_csv(tmp_path / "t.csv", index=False)
    forest = Renamed(5, random_state=0).fit(frame.iloc[:, :3], frame["petal_width"])
    registry = added(tmp_path, forest, tmp_path / "t.csv", "petal_width")
    assert how_served(read_card(registry.path(1))) == "frozen"


def test_what_serves_from_a_pickle_says_so_in_the_same_words_everywhere(tmp_path):
    frame = iris().frame()
    frame.to_csv(tmp_path / "t.csv", index=False)
    line = LogisticRegression(max_iter=999).fit(frame.iloc[:, :4], frame["label"])
    joblib.dump(line, tmp_path / "own.pkl")
    words = "from a pickle: LogisticRegression cannot be frozen"
    command = [sys.executable, "-m", "iris_serve"]
    models = ["--models", tmp_path / "models"]
    told = ["add", tmp_path / "own.pkl", "--data", tmp_path / "t.csv", "--target", "label"]
    for line in (told, ["versions"], ["show", "1"]):
        done = subprocess.run([*command, *line, *models], capture_output=True, text=True)
        assert (done.returncode, done.stderr, words in done.stdout) == (0, "", True)
    shown = subprocess.run([*command, "show", "1", "--json", *models], capture_output=True)
    assert json.loads(shown.stdout)["served"].startswith(words)
    app = make_app(Settings(models=str(tmp_path / "models"), access_log="off"))
    client = app.test_client()
    (listed,) = client.get("/models/iris").json["versions"]
    assert listed["served"] == client.get("/models/iris/versions/1").json["served"]
    assert listed["served"] == json.loads(shown.stdout)["served"]
    app.extensions["live"].stop()


# Files that cannot be served


def test_a_pickle_that_cloudpickle_wrote_is_opened(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")

    class Mine(LogisticRegression):
        pass

    (tmp_path / "own.pkl").write_bytes(cloudpickle.dumps(Mine().fit([[0.0], [1.0]], [0, 1])))
    assert type(open_estimator(tmp_path / "own.pkl")[0]).__name__ == "Mine"


@pytest.mark.parametrize("then", ["1.0.2", "1.9.0rc1", "0.24.2"])
@pytest.mark.parametrize("compress", [0, 3])
def test_a_file_of_another_version_names_the_version_to_install(
    tmp_path, monkeypatch, then, compress
):
    monkeypatch.setattr("sklearn.base.__version__", then)
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "own.pkl", compress)
    monkeypatch.undo()
    with pytest.raises(EstimatorError, match=r"own\.pkl was written by scikit-learn [\d.]+.*inst"):
        open_estimator(tmp_path / "own.pkl")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"c__main__\nMine\n.", "defined in a notebook or a script: put it into a module"),
        (b"cmy_own_steps\nClip\n.", "needs the module my_own_steps.*PYTHONPATH"),
        (b"csklearn.forests\nForest\n.", "another scikit-learn than this"),
        (b"cjson\nClip\n.", "use the version of the module that it was fitted with"),
        (b"not a pickle", "keep the estimator by joblib.dump"),
        (pickle.dumps([LogisticRegression()]), r"joblib.dump\(it\[0\], 'my_own.pkl'\)"),
        (pickle.dumps("a text"), "one is a Pipeline, a RandomForestClassifier"),
    ],
)
def test_each_file_that_cannot_be_opened_is_met_with_a_remedy(tmp_path, data, words):
    (tmp_path / "own.pkl").write_bytes(data)
    with pytest.raises(EstimatorError, match=words):
        open_estimator(tmp_path / "own.pkl")


@pytest.mark.parametrize(
    ("name", "words"),
    [("m.json", "XGBClassifier"), ("m.skops", "skops.io.load"), ("m.txt", "LGBMClassifier")],
)
def test_a_file_of_another_library_says_how_to_keep_it(tmp_path, name, words):
    (tmp_path / name).write_text("{}")
    with pytest.raises(EstimatorError, match=f"{words}.*joblib.dump"):
        open_estimator(tmp_path / name)


def test_a_pickle_whose_module_is_gone_stops_the_start_with_one_line(tmp_path):
    (tmp_path / "own_steps.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "class Mine(LogisticRegression): pass\n"
    )
    frame = iris().frame()
    frame.to_csv(tmp_path / "t.csv", index=False)
    program = (
        "import joblib, pandas, own_steps; t = pandas.read_csv('t.csv'); "
        "joblib.dump(own_steps.Mine(max_iter=999).fit(t.iloc[:, :4], t['label']), 'own.pkl')"
    )
    here = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    there = {"cwd": tmp_path, "env": here, "check": True, "capture_output": True}
    subprocess.run([sys.executable, "-c", program], **there)
    words = ["add", "own.pkl", "--data", "t.csv", "--target", "label"]
    subprocess.run([sys.executable, "-m", "iris_serve", *words], **there)
    (tmp_path / "own_steps.py").unlink()
    command = [sys.executable, "-m", "iris_serve", "--port", "5399"]
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)
    assert (done.returncode != 0, "serving" in done.stdout) == (True, False)
    assert "No module named 'own_steps'; install what it needs" in done.stderr
    assert "Traceback" not in done.stderr


def groups(rows=200, classes=4, seed=0):
    """A frame with a number `x` that tells the text `y`, and a digit `z` that does not."""
    kind = np.random.default_rng(seed).integers(0, classes, rows)
    x = kind + np.random.default_rng(seed + 1).uniform(0, 0.8, rows)
    return pd.DataFrame({"x": x, "z": np.arange(rows) % 7, "y": np.array(list("abcd"))[kind]})


def added_from(tmp_path, estimator, frame):
    """As `added`, with the table `frame` as a CSV file."""
    frame.to_csv(tmp_path / "rows.csv", index=False)
    return added(tmp_path, estimator, tmp_path / "rows.csv", "y")


def assert_refused(tmp_path, estimator, frame, words):
    with pytest.raises(EstimatorError, match=words):
        added_from(tmp_path, estimator, frame)
    assert Registry(tmp_path / "models", "own").versions() == []


def test_numbers_for_names_in_another_order_are_refused(tmp_path):
    frame = groups()
    order = {"a": 0, "b": 1, "d": 2, "c": 3}
    estimator = RandomForestClassifier(5, random_state=0).fit(frame[["x", "z"]], frame.y.map(order))
    assert_refused(tmp_path, estimator, frame, "knows the classes")


def test_zero_and_one_the_other_way_round_are_refused(tmp_path):
    frame = groups(classes=2).replace({"a": "no", "b": "yes"})
    estimator = LogisticRegression().fit(frame[["x", "z"]], (frame.y == "no").astype(int))
    assert_refused(tmp_path, estimator, frame, "knows the classes")


def test_a_step_that_makes_texts_of_whole_numbers_is_never_wrong(tmp_path):
    frame = groups(classes=2).assign(x=np.arange(200) * 0.1, z=lambda f: (f.y == "a") + 101)
    texts = FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "str"})
    encode = make_pipeline(texts, OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer((encode, ["z"]), remainder="passthrough")
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame[["x", "z"]], frame.y)
    answers, _ = served(added_from(tmp_path, estimator, frame), frame[["x", "z"]].values.tolist())
    wanted = estimator.predict(frame[["x", "z"]]).tolist()
    assert answers == [(200, {"prediction": answer}) for answer in wanted]


def test_a_scaler_of_columns_that_no_tree_uses_does_not_stop_the_freezing(tmp_path):
    frame = groups(classes=2)
    scalers = make_column_transformer((StandardScaler(), ["x"]), (MinMaxScaler(), ["z"]))
    estimator = make_pipeline(scalers, DecisionTreeClassifier(max_depth=1))
    registry = added_from(tmp_path, estimator.fit(frame[["x", "z"]], frame.y), frame)
    assert how_served(read_card(registry.path(1))) == "frozen"
