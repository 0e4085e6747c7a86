"""Frames as an added estimator knows them: types of columns, gaps by column, numbers for gaps."""

import json
import warnings
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from iris_serve.cli.settings import Settings
from iris_serve.data.choices import DEFAULTS, MARKS, Choices
from iris_serve.data.files import TableError
from iris_serve.data.tables import read_table
from iris_serve.model.card import read_card
from iris_serve.model.save import how_served
from iris_serve.registry.registry import Registry
from iris_serve.training.fitted_frame import PANDAS_MARKS
from iris_serve.training.import_model import add
from iris_serve.training.model_file import EstimatorError
from iris_serve.training.own_table import table_for
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import train
from iris_serve.wsgi import make_app


def spell(frame):
    """Each value as its text."""
    return frame.astype(str)


def kinds_of(frame):
    """The columns, and for each of them another that says whether its type is one of integers."""
    whole = {f"{name} is whole": frame[name].dtype.kind == "i" for name in frame}
    return frame.assign(**whole).astype(float)


def last_digits(frame):
    """The last digit of each text."""
    return frame.map(lambda text: float(text[-1]))


def cabins(rows=240, seed=3):
    """Whole numbers, texts with a question mark and with gaps, ages with gaps, and an answer."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"deck": rng.integers(101, 106, rows)})
    frame["work"] = rng.choice(["cook", "?", "clerk", "-", " "], rows)
    frame["age"] = rng.uniform(1, 80, rows).round(1)
    chance = 0.2 + 0.5 * frame["deck"].isin([101, 104]) + 0.25 * (frame["work"] == "?")
    frame["y"] = (rng.random(rows) < chance).astype(int)
    return frame


def forgetting():
    """An encoder that takes what it does not know for nothing."""
    return OneHotEncoder(handle_unknown="ignore")


class Asked:
    """The service with one added estimator."""

    def __init__(self, folder, estimator, file, target="y", features=None, choices=DEFAULTS):
        self.registry = Registry(folder / "models", "own")
        joblib.dump(estimator, folder / "own.pkl")
        read = partial(table_for, file=file, target=target, features=features, choices=choices)
        add(self.registry, folder / "own.pkl", read)
        self.card = read_card(self.registry.path(1))
        app = make_app(Settings(models=str(folder / "models"), name="own", access_log="off"))
        self.client, self.live = app.test_client(), app.extensions["live"]

    def each(self, rows, detail=True):
        """What is answered to each of `rows`, asked one by one."""
        path = "/predict?detail=true" if detail else "/predict"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return [self.client.post(path, json={"features": row}) for row in rows]

    def probabilities(self, rows):
        """The probabilities for each of `rows`."""
        answers = self.each(rows)
        assert [answer.status_code for answer in answers] == [200] * len(rows)
        return [list(answer.json["probabilities"].values()) for answer in answers]


@pytest.fixture
def ask(tmp_path):
    """A function that adds an estimator and returns the service that has it."""
    made = []

    def added(estimator, frame, **options):
        file = frame if isinstance(frame, Path) else tmp_path / "rows.csv"
        if isinstance(frame, pd.DataFrame):
            frame.to_csv(file, index=False)
        made.append(Asked(tmp_path, estimator, file, **options))
        return made[-1]

    yield added
    for one in made:
        one.live.stop()


def rows_of(frame):
    """The rows of `frame` as JSON has them."""
    return json.loads(frame.to_json(orient="records"))


def written(tmp_path, frame, na_rep="", **options):
    """`frame` as pandas reads it from a file that it wrote."""
    frame.to_csv(tmp_path / "rows.csv", index=False, na_rep=na_rep)
    return pd.read_csv(tmp_path / "rows.csv", **options)


# Types


def test_a_step_that_makes_texts_of_whole_numbers_sees_them_as_pandas_does(ask, tmp_path):
    frame = written(tmp_path, cabins())
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    own = frame[["deck", "work"]]
    model.fit(own, frame["y"])
    service = ask(model, frame)
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)
    assert [f.dtype for f in service.card.contract.features] == ["int64", str(own["work"].dtype)]


def test_codes_that_are_whole_numbers_are_whole_numbers_to_an_encoder(ask, tmp_path):
    frame = written(tmp_path, cabins())
    kinds = FunctionTransformer(kinds_of)
    model = make_pipeline(kinds, LogisticRegression()).fit(frame[["deck", "age"]], frame["y"])
    service = ask(model, frame)
    assert service.card.contract.features[0].dtype == "int64"
    own = frame[["deck", "age"]]
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)


def test_a_fraction_in_a_column_of_whole_numbers_is_answered_as_pandas_would(ask, tmp_path):
    frame = written(tmp_path, cabins())
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    model.fit(frame[["deck"]], frame["y"])
    service = ask(model, frame)
    wanted = model.predict_proba(pd.DataFrame({"deck": [101.5]})).tolist()
    assert service.probabilities([{"deck": 101.5}]) == wanted


def test_a_fraction_that_a_model_cannot_take_is_refused_in_words(ask, tmp_path):
    frame = written(tmp_path, cabins())
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame[["deck"]], frame["y"])
    (answer,) = ask(model, frame).each([{"deck": 101.5}])
    assert 400 <= answer.status_code < 500
    assert "no answer to this row" in answer.text


@pytest.mark.parametrize("odd", [101.5, 1e30, -0.5])
def test_the_rows_beside_a_fraction_are_answered_as_they_are_alone(ask, tmp_path, odd):
    frame = written(tmp_path, cabins())
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    model.fit(frame[["deck", "age"]], frame["y"])
    service = ask(model, frame)
    rows = rows_of(frame[["deck", "age"]].head(20))
    rows[7]["deck"] = rows[13]["deck"] = odd
    alone = [answer.json for answer in service.each(rows)]
    together = service.client.post("/v1/models/own:predict", json={"instances": rows})
    assert together.json["predictions"] == [answer["prediction"] for answer in alone]


def test_golden_rows_are_asked_with_the_types_that_the_estimator_saw(ask, tmp_path):
    frame = written(tmp_path, cabins())
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    model.fit(frame[["deck"]], frame["y"])
    golden = ask(model, frame).card.golden
    decks = pd.DataFrame({"deck": [int(row[0]) for row in golden.rows]})
    assert [list(p) for p in golden.probabilities] == model.predict_proba(decks).tolist()


def test_what_was_fitted_on_floats_is_asked_with_floats(ask, tmp_path):
    frame = written(tmp_path, cabins())
    own = frame[["deck"]].astype(float)
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    service = ask(model.fit(own, frame["y"]), frame)
    assert service.card.contract.features[0].dtype == ""
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)


def test_a_parquet_file_gives_its_types(ask, tmp_path):
    frame = cabins()[["deck", "age", "y"]].astype({"deck": "int16", "age": "float32"})
    file = tmp_path / "rows.parquet"
    frame.to_parquet(file)
    own = frame[["deck", "age"]]
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    model.fit(own, frame["y"])
    joblib.dump(model, tmp_path / "own.pkl")
    table = table_for(model, file, "y")
    assert [feature.dtype for feature in table.contract.features] == ["int16", "float32"]


def test_rows_without_an_answer_do_not_hide_the_types(ask, tmp_path):
    frame = cabins().astype({"y": object})
    frame.loc[::8, "y"] = "?"
    frame = written(tmp_path, frame)
    known = frame[frame["y"] != "?"]
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    service = ask(model.fit(known[["deck"]], known["y"].astype(int)), None)
    assert service.card.contract.features[0].dtype == "int64"


# Gaps


def test_texts_that_pandas_keeps_are_categories_and_gaps_are_gaps_elsewhere(ask, tmp_path):
    frame = cabins()
    frame.loc[::9, "age"] = None
    frame.loc[::7, "work"] = None
    frame = written(tmp_path, frame)
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(), ["work"]), (make_pipeline(SimpleImputer(), StandardScaler()), ["age"])
        ),
        LogisticRegression(),
    ).fit(frame[["work", "age"]], frame["y"])
    service = ask(model, frame)
    work, age = service.card.contract.features
    assert (work.values, work.missing, age.missing) == (
        (" ", "-", "?", "clerk", "cook"),
        True,
        True,
    )
    own = frame[["work", "age"]]
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)
    text = own.to_csv(index=False)
    many = service.client.post("/predict", data=text, content_type="text/csv")
    assert many.json["predictions"] == model.predict(own).tolist()
    marks = service.client.post("/predict", data="work,age\n?,?\n", content_type="text/csv")
    wanted = model.predict(pd.DataFrame({"work": ["?"], "age": [np.nan]})).tolist()
    assert marks.json["predictions"] == wanted


@pytest.mark.parametrize("gap", ["", "NA"])
def test_a_constant_for_gaps_stands_beside_numbers_with_gaps(ask, tmp_path, gap):
    frame = cabins().replace({"work": {" ": None, "?": None, "-": None}})
    frame.loc[::9, "age"] = None
    frame = written(tmp_path, frame, na_rep=gap)
    filled = make_pipeline(SimpleImputer(strategy="constant", fill_value="NA"), OneHotEncoder())
    model = make_pipeline(
        make_column_transformer((filled, ["work"]), (SimpleImputer(), ["age"])),
        LogisticRegression(max_iter=999),
    ).fit(frame, frame["y"])
    own = frame[["work", "age"]]
    service = ask(model, None)
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(frame), 1e-12)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), forgetting()])
def test_a_country_called_na_is_found_where_no_default_marks_were_read(ask, tmp_path, encoder):
    frame = cabins().assign(work=lambda f: f["work"].replace({"?": "NA", " ": "DE", "-": "DE"}))
    frame = written(tmp_path, frame, keep_default_na=False)
    model = make_pipeline(encoder, LogisticRegression()).fit(frame[["work"]], frame["y"])
    service = ask(model, frame)
    assert service.card.contract.features[0].values == ("DE", "NA", "clerk", "cook")
    own = frame[["work"]]
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), forgetting()])
def test_marks_named_by_na_values_are_gaps(ask, tmp_path, encoder):
    frame = written(tmp_path, cabins().replace({"work": {" ": "cook", "-": "cook"}}))
    own = pd.read_csv(tmp_path / "rows.csv", na_values="?")[["work"]]
    model = make_pipeline(encoder, LogisticRegression()).fit(own, frame["y"])
    service = ask(model, frame)
    assert service.card.contract.features[0].missing
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)


def test_numbers_made_by_hand_stand_beside_texts_with_marks(ask, tmp_path):
    frame = cabins()
    frame["age"] = frame["age"].astype(object)
    frame.loc[::11, "age"] = " "
    frame = written(tmp_path, frame)
    own = frame.assign(age=pd.to_numeric(frame["age"], errors="coerce"))[["work", "age"]]
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["work"]), (SimpleImputer(), ["age"])),
        LogisticRegression(),
    ).fit(own, frame["y"])
    service = ask(model, frame)
    assert "?" in service.card.contract.features[0].values
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)


@pytest.mark.parametrize("mark", sorted({*MARKS, *PANDAS_MARKS, "n.a.", " ", " NA", "None "}))
def test_the_marks_of_pandas_are_these(tmp_path, mark):
    (tmp_path / "t.csv").write_text(f"a,b\n1,{mark}\n2,x\n")
    assert (mark in PANDAS_MARKS) == bool(pd.read_csv(tmp_path / "t.csv")["b"].isna()[0])


def test_what_fits_no_reading_is_refused_and_leads_on(ask, tmp_path):
    frame = written(tmp_path, cabins())
    model = make_pipeline(OneHotEncoder(), LogisticRegression())
    model.fit(frame[["work"]].replace("cook", "baker"), frame["y"])
    with pytest.raises(EstimatorError, match=r"cannot answer the table.*as pandas\.read_csv gives"):
        ask(model, frame)


@pytest.mark.parametrize("seed", [1, 5, 7])
def test_a_gap_that_is_filled_stays_a_gap_however_well_the_answers_go_without_it(
    ask, tmp_path, seed
):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"port": rng.choice(["S", "C", "Q"], 150, p=[0.6, 0.3, 0.1])})
    frame.loc[rng.random(150) < 0.15, "port"] = None
    chance = np.where(frame["port"] == "C", 0.7, np.where(frame["port"].isna(), 0.6, 0.35))
    frame["y"] = (rng.random(150) < chance).astype(int)
    frame = written(tmp_path, frame)
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), forgetting())
    model = make_pipeline(filled, LogisticRegression()).fit(frame[["port"]], frame["y"])
    service = ask(model, None)
    own = pd.DataFrame({"port": ["C", "Q", "S", np.nan]})
    rows = [{"port": "C"}, {"port": "Q"}, {"port": "S"}, {"port": None}]
    assert np.allclose(service.probabilities(rows), model.predict_proba(own), 1e-12)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), forgetting()])
def test_numbers_that_were_read_as_texts_are_texts(ask, tmp_path, encoder):
    zips = np.random.default_rng(0).choice(["02134", "10001", "00501"], 90)
    frame = pd.DataFrame({"zip": zips, "y": (zips == "00501").astype(int)})
    model = make_pipeline(encoder, LogisticRegression()).fit(frame[["zip"]], frame["y"])
    service = ask(model, frame)
    assert service.card.contract.features[0].values == ("00501", "02134", "10001")
    own = frame[["zip"]].head(9)
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)
    assert any("read with numbers as texts" in note.why for note in service.card.columns)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), forgetting()])
def test_dates_that_an_encoder_knows_as_texts_are_categories(ask, tmp_path, encoder):
    days = np.random.default_rng(0).choice(["2020-01-01", "2020-01-02"], 90)
    frame = pd.DataFrame({"day": days, "y": (days == "2020-01-02").astype(int)})
    model = make_pipeline(encoder, LogisticRegression()).fit(frame[["day"]], frame["y"])
    own = frame[["day"]].head(9)
    found = ask(model, frame).probabilities(rows_of(own))
    assert np.allclose(found, model.predict_proba(own), 1e-12)


def test_dates_that_no_encoder_knows_are_refused_with_a_remedy(ask):
    days = np.random.default_rng(0).choice(["2020-01-01", "2020-01-02"], 90)
    frame = pd.DataFrame({"day": days, "y": (days == "2020-01-02").astype(int)})
    ends = FunctionTransformer(last_digits)
    model = make_pipeline(ends, LogisticRegression()).fit(frame[["day"]], frame["y"])
    with pytest.raises(TableError, match="fit it without this column"):
        ask(model, frame)


def test_a_scaler_before_a_forest_that_knows_gaps_is_frozen(ask):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=150), "b": rng.random(150) * 1e-6})
    frame["y"] = (frame["a"] + frame["b"] * 1e6 > 0.5).astype(int)
    frame = frame.mask(rng.random(frame.shape) < [0.1, 0.1, 0.0])
    forest = RandomForestClassifier(8, random_state=0)
    model = make_pipeline(StandardScaler(), forest).fit(frame[["a", "b"]], frame["y"])
    service, own = ask(model, frame), frame[["a", "b"]].head(30)
    assert how_served(service.card) == "frozen"
    rows = [{k: None if v != v else v for k, v in row.items()} for row in own.to_dict("records")]
    assert service.probabilities(rows) == model.predict_proba(own).tolist()


# Categories of pandas


def test_boosting_with_categories_from_the_types_is_served(ask, tmp_path):
    frame = written(tmp_path, cabins())
    own = frame[["deck", "work", "age"]].astype({"work": "category"})
    model = HistGradientBoostingClassifier(max_iter=9, categorical_features="from_dtype")
    model.fit(own, frame["y"])
    service = ask(model, frame)
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)


@pytest.mark.parametrize("columns", [["work"], ["work", "deck"], ["deck"]])
@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosters_that_learned_from_categories_are_served(ask, tmp_path, library, columns):
    module = pytest.importorskip(library)
    frame = written(tmp_path, cabins())
    own = frame[["deck", *(["work"] if "work" in columns else []), "age"]]
    own = own.astype(dict.fromkeys(columns, "category"))
    model = (
        module.LGBMClassifier(n_estimators=9, verbose=-1)
        if library == "lightgbm"
        else module.XGBClassifier(n_estimators=9, enable_categorical=True)
    )
    model.fit(own, frame["y"])
    service = ask(model, frame)
    assert [f.name for f in service.card.contract.features if f.dtype == "category"] == sorted(
        columns
    )
    found = np.array(service.probabilities(rows_of(own)))
    assert np.array_equal(found, np.asarray(model.predict_proba(own)))
    assert any(name.startswith(library) for name in service.card.versions)


# Numbers that mean a gap


def test_a_number_that_marks_gaps_is_one_in_every_format(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.uniform(0, 9, 200).round(2), "b": rng.uniform(0, 9, 200)})
    frame["y"] = np.where(frame["a"] > 4, "high", "low")
    frame.loc[::10, "a"] = -9
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = read_table(tmp_path / "t.csv", "y", choices=Choices(missing=("-9",)))
    assert [feature.marks for feature in table.contract.features] == [("-9",), ()]
    chosen = {"data": str(tmp_path / "t.csv"), "target": "y", "missing": "-9"}
    train(tmp_path / "models", Parameters(name="own", n_estimators=5, **chosen))
    app = make_app(Settings(models=str(tmp_path / "models"), name="own", access_log="off"))
    client = app.test_client()
    try:
        wanted = client.post("/predict?detail=true", json={"features": [None, 2.0]}).json
        for row in ([-9, 2.0], [-9.0, 2.0], {"a": -9, "b": 2.0}):
            answer = client.post("/predict?detail=true", json={"features": row}).json
            assert answer["probabilities"] == wanted["probabilities"]
            assert "-9 marked a gap in training and counts as missing" in str(answer["notes"])
        lines = client.post("/predict", data="a,b\n-9,2\n", content_type="text/csv").json
        many = client.post(
            "/v1/models/own:predict", json={"instances": [[-9, 2.0], [None, 2.0]]}
        ).json
        tensor = {"name": "features", "datatype": "FP64", "shape": [2, 2], "data": [-9, 2, -9.0, 2]}
        asked = client.post("/v2/models/own/infer", json={"inputs": [tensor]}).json
        assert lines["predictions"] == [wanted["prediction"]]
        assert many["predictions"] == [wanted["prediction"]] * 2
        assert asked["outputs"][0]["data"] == [wanted["prediction"]] * 2
    finally:
        app.extensions["live"].stop()


def test_a_linear_model_answers_whole_numbers_as_before(ask, tmp_path):
    frame = written(tmp_path, cabins())
    model = LinearRegression().fit(frame[["deck", "age"]], frame["y"] * 1.5)
    frame["y"] = frame["y"] * 1.5
    service = ask(model, frame)
    found = [answer.json["prediction"] for answer in service.each(rows_of(frame[["deck", "age"]]))]
    assert np.allclose(found, model.predict(frame[["deck", "age"]]), 1e-12)


# What is said by --missing and --categories


def test_a_text_that_is_said_to_be_a_gap_is_one_in_texts_and_among_numbers(ask, tmp_path):
    frame = cabins().replace({"work": {"?": "unasked", " ": "cook", "-": "cook"}})
    frame["age"] = frame["age"].astype(object)
    frame.loc[::30, "age"] = "unasked"
    frame = written(tmp_path, frame)
    own = pd.read_csv(tmp_path / "rows.csv", na_values="unasked")[["deck", "work", "age"]]
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(FunctionTransformer(spell), forgetting()), ["deck", "work"]),
            (SimpleImputer(), ["age"]),
        ),
        LogisticRegression(max_iter=999),
    ).fit(own, frame["y"])
    service = ask(model, frame, choices=Choices(missing=(" unasked",)))
    deck, work, age = service.card.contract.features
    assert (work.values, work.missing, age.kind, age.missing) == (
        ("clerk", "cook"),
        True,
        "number",
        True,
    )
    assert (deck.dtype, "unasked" in service.card.contract.marks) == ("int64", True)
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)
    text = frame[["deck", "work", "age"]].to_csv(index=False)
    many = service.client.post("/predict", data=text, content_type="text/csv")
    assert many.json["predictions"] == model.predict(own).tolist()


def test_what_is_said_to_be_a_gap_is_none_of_the_categories_even_if_the_model_knows_it(
    ask, tmp_path
):
    frame = written(tmp_path, cabins().replace({"work": {" ": "cook", "-": "cook"}}))
    model = make_pipeline(forgetting(), LogisticRegression()).fit(frame[["work"]], frame["y"])
    known = ask(model, frame).card.contract.features[0]
    (tmp_path / "models").rename(tmp_path / "before")
    said = ask(model, frame, choices=Choices(missing=("?",))).card.contract.features[0]
    assert (known.values, said.values) == (("?", "clerk", "cook"), ("clerk", "cook"))
    assert (known.missing, said.missing) == (False, True)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_number_that_is_said_to_be_a_gap_is_one_for_an_added_model(ask, tmp_path, ending):
    frame = cabins()[["deck", "age", "y"]]
    frame.loc[::7, "deck"] = -9
    frame.loc[::10, "age"] = -9
    file = tmp_path / f"own.{ending}"
    frame.to_csv(file, index=False) if ending == "csv" else frame.to_parquet(file)
    own = frame[["deck", "age"]].replace(-9, np.nan)
    model = make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression(max_iter=999))
    model.fit(own, frame["y"])
    service = ask(model, file, choices=Choices(missing=("-9",)))
    assert ["-9" in feature.marks for feature in service.card.contract.features] == [True, True]
    assert [feature.low > 0 for feature in service.card.contract.features] == [True, True]
    wanted = model.predict_proba(own)
    assert np.allclose(service.probabilities(rows_of(frame[["deck", "age"]])), wanted, 1e-12)
    assert np.allclose(service.probabilities(rows_of(own)), wanted, 1e-12)


@pytest.mark.parametrize("kind", ["int64", "float64"])
def test_numbers_that_are_said_to_be_names_have_the_type_that_the_estimator_saw(
    ask, tmp_path, kind
):
    frame = written(tmp_path, cabins())
    own = frame[["deck"]].astype(kind)
    model = make_pipeline(FunctionTransformer(spell), forgetting(), LogisticRegression())
    model.fit(own, frame["y"])
    service = ask(model, frame, choices=Choices(categories=("deck",)))
    (deck,) = service.card.contract.features
    assert (deck.kind, deck.values) == ("category", (101, 102, 103, 104, 105))
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)
    (refused,) = service.each([{"deck": 909}])
    assert (refused.status_code, "deck" in refused.get_data(as_text=True)) == (400, True)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), forgetting()])
def test_a_mark_that_is_said_to_be_none_is_a_category_beside_gaps(ask, tmp_path, encoder):
    frame = cabins()
    frame["work"] = frame["work"].replace({"?": "NA", " ": "", "-": "DE"})
    frame.loc[::9, "age"] = None
    frame = written(tmp_path, frame, keep_default_na=False, na_values=[""])
    own = frame[["work", "age"]]
    columns = make_column_transformer((encoder, ["work"]), (SimpleImputer(), ["age"]))
    model = make_pipeline(columns, LogisticRegression(max_iter=999)).fit(own, frame["y"])
    service = ask(model, frame, choices=Choices(present=("NA",)))
    work, age = service.card.contract.features
    assert (work.values, work.missing, age.missing) == (("DE", "NA", "clerk", "cook"), True, True)
    assert np.allclose(service.probabilities(rows_of(own)), model.predict_proba(own), 1e-12)
