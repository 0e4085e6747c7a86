"""An exported page answers as the service does, bit for bit, and is harmless."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from browser import needs_browser, visiting
from forests import EXTREMES
from msgspec.structs import replace as changed
from random_tables import Wish, random_table

from iris_serve.data.contract import FLOAT32_LIMIT, Contract, Feature
from iris_serve.data.rows import RowError, check_row
from iris_serve.data.table import Table, iris
from iris_serve.forest import Forest
from iris_serve.forest.trees import SparseValues
from iris_serve.model.card import read_card
from iris_serve.model.golden import freeze_or_reason
from iris_serve.model.load import ForestPredictor, NumberForestPredictor
from iris_serve.model.page_data import read_page_data
from iris_serve.model.train import Params, fit, make_estimator
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry, open_predictor
from iris_serve.service.browser import PAGE_STYLE, asset_files
from iris_serve.service.explain import (
    contract_document,
    cuts_document,
    feature_document,
    paths_document,
)
from iris_serve.service.export import export_page, forest_document, page_script
from iris_serve.service.predict import PredictRequest, answer_request
from iris_serve.training.retrain import Parameters, train

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node")
MANY = 100_000
LIMITS = [np.nextafter(FLOAT32_LIMIT, 0), -np.nextafter(FLOAT32_LIMIT, 0), 0.0, -0.0]

ASK = Path(__file__).parent / "ask_forest.mjs"
ASK_IN_BROWSER = """async given => {
    const { page, arrays, rows } = JSON.parse(given);
    const { probabilities, numbers } = await localModel(page, arrays).answers(rows);
    const flat = Float64Array.from(probabilities ? probabilities.flat() : numbers);
    const bytes = new Uint8Array(flat.buffer);
    let letters = "";
    for (let i = 0; i < bytes.length; i += 8192)
        letters += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(letters);
}"""


# Models, and what is asked


def mixed(task):
    """A table of all kinds, with gaps, marks of gaps, and unknown categories that count as such."""
    wish = Wish(task, columns=8, rows=400, missing=0.6, classes=("no", "perhaps", "yes"))
    table = random_table(np.random.default_rng(5), wish)
    features = [
        changed(f, unknown="missing" if f.kind == "category" else "refuse", marks=("-999", "?"))
        for f in table.contract.features
    ]
    return replace(table, contract=changed(table.contract, features=tuple(features), unit="g"))


TABLES = {
    "iris": iris,
    "mixed": lambda: mixed("classes"),
    "number": lambda: mixed("number"),
    "one class": lambda: replace(iris().take(np.arange(9)), contract=one_class()),
}


def one_class():
    return changed(iris().contract, classes=(0,), labels=("setosa",))


@cache
def predictor_of(name, trees=30):
    """A frozen forest of the table called `name`."""
    table = TABLES[name]()
    estimator = fit(make_estimator(Params(n_estimators=trees), table.contract), table)
    forest = freeze_or_reason(estimator, table.contract)
    kind = NumberForestPredictor if table.contract.task == "number" else ForestPredictor
    return kind(forest, "a model", 3, table.contract, "0" * 64)


def page_for(predictor):
    """As much of the page document as the forest in the page needs."""
    features = [feature_document(feature) for feature in predictor.contract.features]
    named = {"name": predictor.name, "version": str(predictor.version), "features": features}
    return named | contract_document(predictor.contract, predictor.has_proba)


def in_node(predictor, asked, tmp_path):
    """What the exported forest of `predictor` answers to each verb with its words in `asked`."""
    script = tmp_path / "forest.mjs"
    script.write_bytes(asset_files()["forest.js"])
    arrays = forest_document(predictor.forest, predictor.contract)
    given = json.dumps({"page": page_for(predictor), "arrays": arrays, "asked": asked})
    done = subprocess.run(
        [NODE, ASK, script], input=given, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def near_cuts(forest, place):
    """The cuts of a feature and their neighbors, as far as a row may have them."""
    cuts = forest.arrays.cuts[forest.arrays.features == place]
    near = np.concatenate([cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf)])
    return near[np.abs(near) < FLOAT32_LIMIT].tolist()


def some_values(rng, feature, near, count):
    """So many values of `feature` as clients send them: on and beside cuts, and all others."""
    if feature.kind == "number":
        spread = rng.uniform(feature.low - 1, feature.high + 1, count)
        values = [*spread.tolist(), *near, *EXTREMES.tolist(), *LIMITS, 3, -7]
        more = [None, -999, -999.0] * 30 if feature.missing else []
    else:
        texts = [v for v in feature.values if isinstance(v, str)]
        values = [*feature.values, *(f" {text}\u2003" for text in texts)]
        if feature.kind == "boolean":
            values = [True, False, " TRUE\x1f", "false", *(text.upper() for text in texts)]
        elif not texts:
            values += [repr(v) for v in feature.values]
        lenient = feature.unknown == "missing"
        more = [None] * feature.missing + ["never seen", "12345.5"] * lenient
    every = values + more
    return [every[i] for i in rng.integers(len(every), size=count)]


def some_rows(predictor, count, seed=0):
    """So many rows, each accepted by the contract of `predictor`."""
    rng, forest = np.random.default_rng(seed), predictor.forest
    columns = [
        some_values(rng, feature, near_cuts(forest, i), count)
        for i, feature in enumerate(predictor.contract.features)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def rows_at_cuts(predictor):
    """For each cut of a number a row that has it, and two that have its neighbors."""
    base, rows = some_rows(predictor, 1, 1)[0], []
    for i, feature in enumerate(predictor.contract.features):
        if feature.kind == "number":
            near = near_cuts(predictor.forest, i)
            rows += [[*base[:i], value, *base[i + 1 :]] for value in near]
    return rows


def expected(predictor, rows):
    """The bits of Python's answers to `rows`, and the places of its classes."""
    coded = [check_row(row, predictor.contract) for row in rows]
    answers = predictor.forest.answers(np.array(coded))
    return answers.tobytes(), answers.argmax(axis=1).tolist()


def check_bits(predictor, rows, tmp_path):
    (told,) = in_node(predictor, [["answers", rows]], tmp_path)
    bits, places = expected(predictor, rows)
    assert base64.b64decode(told["bits"]) == bits
    assert told["labels"] == (places if predictor.contract.task == "classes" else None)


# The same bits


@needs_node
@pytest.mark.parametrize("name", ["iris", "mixed", "number"])
def test_random_rows_are_answered_with_the_same_bits(name, tmp_path):
    check_bits(predictor_of(name), some_rows(predictor_of(name), MANY), tmp_path)


@needs_node
@pytest.mark.parametrize("name", TABLES)
def test_rows_on_and_beside_each_cut_are_answered_with_the_same_bits(name, tmp_path):
    predictor = predictor_of(name)
    check_bits(predictor, rows_at_cuts(predictor) or some_rows(predictor, 5), tmp_path)


@needs_node
@pytest.mark.parametrize("name", ["iris", "mixed", "number"])
def test_a_forest_too_large_for_masks_is_walked_with_the_same_bits(name, tmp_path, monkeypatch):
    small = re.sub(
        rb"MOST_MASK_WORDS = [^;]+;", b"MOST_MASK_WORDS = 0;", asset_files()["forest.js"]
    )
    assert small != asset_files()["forest.js"]
    monkeypatch.setitem(asset_files(), "forest.js", small)
    check_bits(predictor_of(name), some_rows(predictor_of(name), 500), tmp_path)


@needs_node
@pytest.mark.parametrize("name", ["iris", "mixed"])
def test_values_without_their_zeros_are_added_to_the_same_bits(name, tmp_path):
    dense = predictor_of(name)
    arrays = dense.forest.arrays
    leaves, columns = arrays.values.nonzero()
    starts = np.searchsorted(leaves, np.arange(len(arrays.values) + 1)).astype(np.int32)
    fractions = arrays.values[leaves, columns]
    sparse = SparseValues(starts, columns.astype(np.int32), fractions, arrays.values.shape[1])
    predictor = replace(dense, forest=Forest(replace(arrays, values=sparse)))
    rows = some_rows(predictor, 500)
    check_bits(predictor, rows, tmp_path)
    told, said = in_node(predictor, [["paths", rows[0], 7], ["paths", rows[0]]], tmp_path)
    assert told == paths_document(predictor, check_row(rows[0], predictor.contract), 7)
    assert said == paths_document(predictor, check_row(rows[0], predictor.contract))


@needs_node
@pytest.mark.parametrize("trees", [1, 2, 7, 8, 9, 100, 129, 300, 1000])
def test_the_spread_over_any_number_of_trees_has_the_same_bits(trees, tmp_path):
    predictor = predictor_of("number", trees)
    rows = some_rows(predictor, 20)
    told = in_node(predictor, [["ask", row] for row in rows], tmp_path)
    coded = np.array([check_row(row, predictor.contract) for row in rows])
    assert [each["detail"]["spread"] for each in told] == predictor.forest.spread(coded).tolist()


@needs_node
@pytest.mark.parametrize("name", TABLES)
def test_details_paths_and_cuts_are_those_of_the_service(name, tmp_path):
    predictor = predictor_of(name)
    rows = some_rows(predictor, 60, 3)
    asked = [["cuts"], *(["ask", row] for row in rows)]
    asked += [["paths", row, i % 30] for i, row in enumerate(rows)]
    cuts, *told = in_node(predictor, asked, tmp_path)
    assert cuts == [feature["cuts"] for feature in cuts_document(predictor)["features"]]
    for row, reply, paths in zip(rows, told[: len(rows)], told[len(rows) :], strict=True):
        coded = check_row(row, predictor.contract)
        body = answer_request(PredictRequest([coded], detail=True, given=[row]), predictor).body
        assert reply["detail"] == json.loads(body)
        assert json.loads(reply["request"]) == {"features": row}
        assert paths == paths_document(predictor, coded, paths["path"]["tree"])


ODD = [
    None,
    True,
    False,
    "",
    " ",
    "a",
    "yes",
    "1",
    "1.0",
    "1e0",
    "nan",
    0,
    1,
    2.5,
    -999,
    1e39,
    [],
    {},
]


@needs_node
@pytest.mark.parametrize("name", ["iris", "mixed", "number"])
def test_what_the_contract_refuses_is_refused(name, tmp_path):
    predictor = predictor_of(name)
    good = some_rows(predictor, 1)[0]
    rows = [[*good[:i], odd, *good[i + 1 :]] for i in range(len(good)) for odd in ODD]
    rows += [good[:-1], [*good, 1.0], []]
    told = in_node(predictor, [["ask", row] for row in rows], tmp_path)
    for row, reply in zip(rows, told, strict=True):
        try:
            check_row(row, predictor.contract)
        except RowError as error:
            where = re.match(r"features(\[\d+\] \([^)]*\))?", str(error))[0]
            assert (reply["status"], row) == (400, row)
            assert reply["detail"]["detail"].startswith(where)
        else:
            assert (reply["status"], row) == (200, row)


# One file


@pytest.fixture(scope="session")
def exported(trained):
    """The file of the model that `trained` has."""
    path = Registry(trained).path(1)
    card = read_card(path)
    known, predictor = read_page_data(path, card), open_predictor(Registry(trained))
    return export_page(card, read_run(path), predictor, known, current=True)


def test_the_file_needs_nothing_else_and_knows_its_training_rows(exported):
    html = exported.decode()
    assert not re.search(r"(?:src|href)=(?!\"(?:data:|#))", html)
    assert not re.search(r"^(?:import|export)\b", page_script(), re.M)
    page = json.loads(re.search(r'id="page-data">(.*?)</script>', html, re.S)[1])
    assert len(page["rows"]) == page["train_rows"]
    assert set(page["links"].values()) == {None}
    assert "default-src &#39;none&#39;" in html.partition("<style>")[0]


@needs_node
def test_all_modules_together_are_one_valid_module(tmp_path):
    (tmp_path / "all.mjs").write_text(page_script())
    subprocess.run([NODE, "--check", tmp_path / "all.mjs"], check=True)
    assert not re.search(r"</script|<!--", page_script(), re.I)
    assert "</style" not in PAGE_STYLE.lower()


EVIL = [
    "</script><script>document.title = 'bad'</script>",
    "<!--<script>",
    "\"'><img src=x onerror=\"document.title = 'bad'\">",
    "{{ 7 * 7 }} {% raw %} \\u003c &lt; &amp;",
    "\u202edesrever\u2066 \U0001f33c\u200d\U0001f33a",
    "long " * 40,
    "__proto__",
    "constructor",
]


@pytest.fixture
def hostile(tmp_path):
    """The file of a model whose names are hostile, and these names."""
    rng, names = np.random.default_rng(0), EVIL
    numbers = [Feature(name, name, 0.0, 1.0) for name in names[:6]]
    words = Feature("word\n<b>", "", 0, 7, "category", tuple(sorted(names)), True)
    X = np.column_stack([*rng.random((6, 200)), rng.integers(8, size=200)])
    y = np.array(names)[(X[:, 0] * 8).astype(int)]
    classes = tuple(sorted(names))
    example = (*X[0, :6].tolist(), names[0])
    contract = Contract((*numbers, words), classes, classes, example, target=names[0])
    table = Table(X, y, contract, names[1])
    with mock.patch("iris_serve.training.retrain.read_data", return_value=table):
        train(tmp_path / "models", Parameters(n_estimators=5, page_rows=50, promote="always"))
    registry = Registry(tmp_path / "models")
    path = registry.path(1)
    card = read_card(path)
    data = export_page(
        card, read_run(path), open_predictor(registry), read_page_data(path, card), current=True
    )
    (tmp_path / "hostile.html").write_bytes(data)
    return tmp_path / "hostile.html"


def test_hostile_names_never_end_a_script_or_begin_a_tag(hostile):
    html = hostile.read_text("utf-8")
    assert len(re.findall("</script", html, re.I)) == len(re.findall("<script", html, re.I)) == 4
    assert not re.search("<img|<b>|<!--", html)


def opened(visit, file, ready="#answer .verdict"):
    """Open the `file` in a browser without a network, and wait until it has answered."""
    visit.page.context.set_offline(True)
    visit.page.goto(file.as_uri())
    visit.page.locator(ready).wait_for()
    visit.page.locator("#flip-body *").first.wait_for()


def check_quiet(visit, file):
    """Nothing but the file was asked for, and nothing went wrong."""
    asked = [line for line in visit.requests if not line.startswith("GET data:")]
    assert asked == [f"GET {file.as_uri()}"]
    assert (visit.blocked, visit.failed, visit.errors, visit.console) == ([], [], [], [])


@needs_browser
def test_the_file_opens_from_a_disk_asks_and_shows_without_a_network(exported, tmp_path):
    file = tmp_path / "model.html"
    file.write_bytes(exported)
    with visiting(file.as_uri()) as visit:
        opened(visit, file)
        page = visit.page
        assert "versicolor" in page.locator("#answer .verdict, #answer").first.inner_text()
        page.get_by_role("button", name="virginica").first.click()
        page.wait_for_function("document.querySelector('#answer').innerText.includes('virginica')")
        assert page.locator("#votes .vote").count() == 10
        page.locator("#votes .vote").first.click()
        page.locator("#votes .leaf").wait_for()
        check_quiet(visit, file)


@needs_browser
def test_hostile_names_are_shown_as_text_in_a_browser(hostile):
    with visiting(hostile.as_uri()) as visit:
        opened(visit, hostile)
        assert visit.page.title() != "bad"
        shown = visit.page.locator("#controls").inner_text()
        assert EVIL[0] in shown
        assert EVIL[2] in shown
        assert visit.page.locator("img").count() == 0
        check_quiet(visit, hostile)


@needs_browser
@pytest.mark.parametrize("name", ["iris", "mixed", "number"])
def test_a_browser_answers_with_the_same_bits(name, tmp_path):
    predictor, rows = predictor_of(name), some_rows(predictor_of(name), MANY, 9)
    arrays = forest_document(predictor.forest, predictor.contract)
    script = asset_files()["forest.js"].decode().replace("export ", "")
    with visiting("http://127.0.0.1:1") as visit:
        visit.page.set_content("<title>An empty page</title>")
        visit.page.add_script_tag(content=script)
        given = json.dumps({"page": page_for(predictor), "arrays": arrays, "rows": rows})
        assert (
            base64.b64decode(visit.page.evaluate(ASK_IN_BROWSER, given))
            == expected(predictor, rows)[0]
        )
