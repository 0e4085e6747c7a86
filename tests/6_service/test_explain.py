"""What a version knows is told exactly, to those who may know, and to browsers as pages."""

import csv
import gzip
import json
import random
import re
from unittest.mock import patch

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier

from iris_serve.cli.settings import Settings
from iris_serve.data.table import iris
from iris_serve.forest.trees import exact_cuts
from iris_serve.model.load import UnanswerableError
from iris_serve.registry.registry import Registry
from iris_serve.service.keys import make_key
from iris_serve.training.import_model import add
from iris_serve.training.retrain import Parameters, train
from iris_serve.wsgi import make_app

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "אבג' onload=x",
    "🌱" * 60,
)
ONE = "/models/iris/versions/1"


def app_of(models, name="iris", **settings):
    app = make_app(Settings(models=str(models), name=name, access_log="off", **settings))
    app.extensions["live"].stop()
    return app


@pytest.fixture(scope="module")
def client(trained):
    return app_of(trained).test_client()


@pytest.fixture(scope="module")
def estimator(trained):
    return joblib.load(Registry(trained).path(1) / "iris_model.pkl")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A model of four columns with hostile names: numbers with gaps, texts, and yes or no."""
    folder, pick = tmp_path_factory.mktemp("mixed"), random.Random(7)  # noqa: S311
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*HOSTILE, "answer"])
        for _ in range(200):
            size, port, old = (
                pick.choice([1, 2, 3, ""]),
                pick.choice("ABC"),
                pick.choice(["no", "yes"]),
            )
            answer = "<b>up</b>" if (size or 2) > 2 or port == "C" else "down"
            table.writerow([size, port, old, round(pick.random(), 2), answer])
    asked = {"name": "mixed", "data": str(folder / "table.csv"), "target": "answer"}
    train(folder / "models", Parameters(**asked, n_estimators=10, missing=""))
    return folder / "models"


def test_the_cuts_are_all_thresholds_of_all_trees_and_no_other(client, estimator):
    found = client.get(f"{ONE}/cuts").json["features"]
    for place, feature in enumerate(found):
        thresholds = [t.tree_.threshold[t.tree_.feature == place] for t in estimator.estimators_]
        assert feature["cuts"] == np.unique(exact_cuts(np.concatenate(thresholds))).tolist()


def test_the_votes_and_paths_are_those_of_the_trees(client, estimator):
    rows = np.random.default_rng(3).uniform([4, 2, 1, 0], [8, 4.5, 7, 2.6], (20, 4))
    for row in rows.tolist():
        for tree, single in enumerate(estimator.estimators_):
            told = client.post(f"{ONE}/paths?tree={tree}", json={"features": row}).json
            assert told["votes"][tree] == int(single.predict([row])[0])
            path = told["path"]
            assert (
                list(path["leaf"]["probabilities"].values())
                == single.predict_proba([row])[0].tolist()
            )
            counts = single.tree_.n_node_samples[single.decision_path([row]).indices].tolist()
            assert [step["rows"] for step in path["steps"]] + [path["leaf"]["rows"]] == counts
            values = dict(
                zip(
                    ("sepal_length", "sepal_width", "petal_length", "petal_width"), row, strict=True
                )
            )
            for step in path["steps"]:
                assert step["left"] is (values[step["feature"]] <= step["cut"])


def test_a_step_about_a_category_lists_the_values_that_go_left(mixed):
    client = app_of(mixed, "mixed").test_client()
    contract = client.get("/models/mixed/versions/1/page").json["features"]
    seen = set()
    for row in ([1, "A", "no", 0.5], [None, "C", "yes", 0.1], [3, "B", "no", 0.9]):
        for tree in range(10):
            asked = client.post(
                f"/models/mixed/versions/1/paths?tree={tree}", json={"features": row}
            )
            for step in asked.json["path"]["steps"]:
                place = [feature["name"] for feature in contract].index(step["feature"])
                seen.add(contract[place]["kind"])
                if step["values"] is not None:
                    assert step["left"] is (row[place] in step["values"])
                elif row[place] is not None:
                    assert step["left"] is (row[place] <= step["cut"])
                assert step["missing"] is (row[place] is None)
    assert {"number", "category"} <= seen


def test_a_pickled_version_has_a_page_and_says_why_it_has_no_trees(tmp_path):
    X, y = load_iris(return_X_y=True)
    joblib.dump(KNeighborsClassifier(3).fit(X, y), tmp_path / "near.joblib")
    add(Registry(tmp_path / "models", "near"), tmp_path / "near.joblib", iris())
    client = app_of(tmp_path / "models", "near", pickles=True).test_client()
    page = client.get("/models/near/versions/1/page").json
    assert (page["frozen"], page["trees"], page["links"]["cuts"]) == (False, None, None)
    assert page["served"].startswith("from a pickle")
    row = {"features": page["example"]}
    for route, asked in (("cuts", None), ("paths", row), ("export", None)):
        place = f"/models/near/versions/1/{route}"
        refused = client.post(place, json=asked) if asked else client.get(place)
        assert refused.status_code == 404
        assert "served from a pickle" in refused.json["detail"]
    assert client.get("/", headers=BROWSER).status_code == 200


def test_with_keys_only_the_form_is_public(trained):
    secret, digest = make_key()
    client = app_of(trained, keys=f"teacher:{digest}").test_client()
    for route in ("page", "cuts", "export"):
        assert client.get(f"{ONE}/{route}").status_code == 401
        told = client.get(f"{ONE}/{route}", headers={"Authorization": f"Bearer {secret}"})
        assert told.status_code == 200
    assert client.post(f"{ONE}/paths", json={"features": [6.1, 2.8, 4.7, 1.2]}).status_code == 401
    assert client.get("/assets/page.css").status_code == 200
    shown = client.get("/?f0=6.1&f1=2.8&f2=4.7&f3=1.2", headers=BROWSER)
    assert shown.status_code == 200
    assert "password" in shown.text
    assert not re.search("train_rows|histogram|0\\.97", shown.text)
    refused = client.get(ONE, headers=BROWSER)
    assert (refused.status_code, refused.mimetype) == (401, "text/html")
    assert refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/", "/models", "/models/iris", ONE, "/nowhere", "/models/rose"])
def test_only_a_browser_gets_a_page(client, path):
    plain = client.get(path)
    java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
    problem = "application/problem+json, text/html;q=0.9"
    plainly = ("*/*", "application/json", "application/json, text/html;q=0.9", "text/*;q=0")
    for accept in (*plainly, java, problem):
        told = client.get(path, headers={"Accept": accept})
        assert (told.data, told.content_type) == (plain.data, plain.content_type)
    page = client.get(path, headers=BROWSER)
    assert (page.status_code, page.mimetype) == (plain.status_code, "text/html")
    assert page.headers["X-Model-Version"] == plain.headers["X-Model-Version"]
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    assert (page.headers["Vary"], plain.headers["Vary"]) == ("Accept, Accept-Encoding", "Accept")
    small = client.get(path, headers={**BROWSER, "Accept-Encoding": "gzip"})
    assert gzip.decompress(small.data) == page.data
    assert not re.search(
        r"<script(?![^>]*\bsrc=)(?![^>]*application/json)| style=| on\w+=", page.text
    )
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)


def test_hostile_names_are_text_in_every_page(mixed):
    client = app_of(mixed, "mixed").test_client()
    for path in ("/", "/?f0=%3Cscript%3E", "/models", "/models/mixed", "/models/mixed/versions/1"):
        page = client.get(path, headers=BROWSER)
        assert page.status_code == 200
        assert not re.search(r"<script>alert|<img src=x|<b>up", page.text)
    assert "&lt;script&gt;alert(1)" in client.get("/", headers=BROWSER).text


@pytest.mark.parametrize(
    ("query", "sign"),
    [
        ("f2=1.4&f3=0.2", "setosa"),
        ("f0=nonsense", "must be a number"),
        ("f0=", "must be a number"),
        ("v=99", "99"),
        ("v=../../etc", "version"),
        ("f0=1e999", "must be a number"),
        ("f7=1&map=x,y&tree=-1&with=77", "versicolor"),
        ("v=1&v=2&f0=6.1", "versicolor"),
    ],
)
def test_a_link_is_answered_without_javascript(client, query, sign):
    page = client.get(f"/?{query}", headers=BROWSER)
    assert page.status_code == 200
    assert sign in page.text


def test_a_changed_record_of_the_rows_is_a_trouble_and_the_form_stays(registry):
    client = app_of(registry.folder.parent).test_client()
    file = registry.path(1) / "page.json"
    file.write_text(file.read_text().replace("0", "1", 1))
    told = client.get(f"{ONE}/page")
    assert told.status_code == 503
    assert str(registry.folder) not in told.text
    page = client.get("/", headers=BROWSER)
    assert page.status_code == 200
    assert "cannot be trusted" in page.text
    assert client.post("/predict", json={"features": [6.1, 2.8, 4.7, 1.2]}).json == {
        "prediction": 1
    }


def test_a_mistake_in_a_row_of_paths_gets_the_sentence_of_predict(client):
    for features in ([6.1, 2.8, "4,7", 1.2], [6.1, 2.8], {"petal_length": 1}, None, []):
        body = json.dumps({"features": features})
        asked = [client.post(f"{place}", data=body) for place in (f"{ONE}/paths", f"{ONE}/predict")]
        assert asked[0].status_code == asked[1].status_code == 400
        assert asked[0].json["detail"] == asked[1].json["detail"]


def test_a_question_in_the_address_is_counted_as_any_other(trained, tmp_path):
    client = app_of(trained, rate=2, shared=str(tmp_path)).test_client()
    told = [client.get("/?f2=1.4", headers=BROWSER) for _ in range(3)]
    assert [each.status_code for each in told] == [200, 200, 429]
    assert ("setosa" in told[0].text, "setosa" in told[2].text) == (True, False)
    assert int(told[2].headers["Retry-After"]) > 0
    assert (told[2].mimetype, "may ask 2 times a minute" in told[2].text) == ("text/html", True)
    assert client.get("/", headers=BROWSER).status_code == 200
    assert client.get("/?f2=1.4").status_code == 200
    page = client.get("/metrics").text
    counted = re.findall(r'requests_total{.*route="/",status="(\d+)".*} (\d+)', page)
    assert sorted(counted) == [("200", "4"), ("429", "1")]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UnanswerableError("it has no answer to this"), 400, "it has no answer to this"),
        (ValueError("in /home/somewhere"), 500, "internal"),
    ],
)
def test_a_model_that_cannot_answer_a_link_says_so_on_a_page(client, error, status, said):
    with patch("iris_serve.service.browser.answer_request", side_effect=error):
        page = client.get("/?f2=1.4", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert said in page.text.lower()
    assert "somewhere" not in page.text
    assert page.headers["X-Request-Id"]


def test_the_form_chooses_the_value_that_a_link_means(mixed):
    client = app_of(mixed, "mixed").test_client()
    for said, chosen in (("true", "yes"), ("YES", "yes"), ("no", "no")):
        page = client.get(f"/?f0=1&f1=A&f2={said}&f3=0.5", headers=BROWSER).text
        assert re.findall(r'<option value="(\w+)" selected', page)[-1] == chosen
