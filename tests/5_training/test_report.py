"""The page of a run loads nothing and runs nothing, and shows the report."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import mixed_file, table_file

import iris_serve.training.runner
from iris_serve.registry.records import PAGE_FILE
from iris_serve.registry.registry import Registry
from iris_serve.training.page import notebook_page
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import retrain
from iris_serve.training.runner import RetrainError

HOSTILE = [
    "<script>evil()</script>",
    "<img src=x onerror=evil()>",
    "<img src='https://evil.example/x.png'>",
    "<iframe src='https://evil.example'></iframe>",
    "<form action='https://evil.example'><input name=evil><button>evil</button></form>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<style>body { background: url(https://evil.example) }</style>",
    "<a href='javascript:evil()'>x</a>",
    "<a href='java\tscript:evil()'>x</a>",
    "<a href='data:text/html,<script>evil()</script>'>x</a>",
    "<svg onload=evil()><animate onbegin=evil() attributeName=x /></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=evil()>",
    "<noscript><p title='</noscript><img src=x onerror=evil()>'>",
    "<base href='https://evil.example/'>",
    "<object data='https://evil.example'></object><embed src='https://evil.example'>",
    "<p style='background: url(https://evil.example)' onclick=evil()>x</p>",
    "<!--><img src=x onerror=evil()>-->",
    "</body><script>evil()</script>",
    "<scr<script>x</script>ipt>evil()</script>",
    "<video src='https://evil.example' autoplay onplay=evil()></video>",
]


class Tags(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def tags_of(html):
    parser = Tags()
    parser.feed(html)
    return parser.seen


def assert_harmless(html):
    for tag, attributes in tags_of(html):
        assert tag not in {"script", "iframe", "form", "input", "button", "link", "base", "object"}
        assert tag not in {"embed", "svg", "math", "video", "audio", "noscript", "template"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert re.match(r"https?://|#", attributes.get("href", "#"))
        assert tag != "meta" or attributes == {"charset": "utf-8"}
    assert [tag for tag, _ in tags_of(html)].count("style") == 1


def notebook_with(text):
    outputs = [
        {"output_type": "display_data", "data": {kind: text}, "metadata": {}}
        for kind in ("text/html", "text/markdown", "image/svg+xml", "application/javascript")
    ]
    outputs += [
        {"output_type": "display_data", "data": {kind: text}, "metadata": {"isolated": True}}
        for kind in ("text/html", "text/latex", "text/plain", "image/png", "image/jpeg")
    ]
    outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    wrong = {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]}
    code = {"cell_type": "code", "source": text, "execution_count": 1, "metadata": {"tags": [text]}}
    cells = [code | {"outputs": [*outputs, wrong]}]
    cells += [{"cell_type": kind, "source": text, "metadata": {}} for kind in ("markdown", "raw")]
    whole = {"nbformat": 4, "nbformat_minor": 4, "metadata": {"title": text}, "cells": cells}
    return json.dumps(whole).encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_cell_is_harmless_on_the_page(text):
    assert_harmless(notebook_page(notebook_with(text)).decode())


@settings(max_examples=10, deadline=None, print_blob=True)
@given(pieces=st.lists(st.sampled_from([*HOSTILE, "<", ">", "'", '"', "&lt;", "\n\n", "`"])))
def test_no_mixture_of_hostile_cells_does_harm(pieces):
    assert_harmless(notebook_page(notebook_with("".join(pieces))).decode())


def test_the_page_of_a_run_loads_nothing_and_shows_the_report(cellar):
    html = (Registry(cellar, "wine").path(1) / PAGE_FILE).read_text()
    assert_harmless(html)
    assert [tag for tag, _ in tags_of(html)].count("img") == 2
    assert "promoted: the first version" in html
    assert "<h2>" in html


def test_a_table_with_thirty_columns_and_two_classes_has_its_report(tmp_path):
    from sklearn.datasets import load_breast_cancer

    file = table_file(tmp_path, load_breast_cancer, "cancer.csv")
    run = retrain(tmp_path / "models", Parameters(data=str(file), target="kind", n_estimators=5))
    folder = Registry(tmp_path / "models").path(run.version)
    assert (folder / "retrain.ipynb").read_bytes().count(b'"image/png"') == 2
    assert b"mean radius" in (folder / PAGE_FILE).read_bytes()


def test_without_the_packages_the_page_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(iris_serve.training.runner, "find_spec", lambda name: None)
    with pytest.raises(RetrainError, match=r"nbconvert, .*: pip install 'iris_serve\[retrain\]'"):
        notebook_page(b"{}")


def test_hostile_names_in_a_table_neither_stop_a_run_nor_reach_the_page(tmp_path):
    rng = np.random.default_rng(0)
    names = ["<script>evil()</script>", "$\\frac{a}{", "a|b", "<b>bold</b>"]
    kinds = ["<img src=x onerror=evil()>", "$x$ and $\\y", "plain"]
    lines = [",".join([*names, "kind"])]
    for i in range(120):
        row = rng.normal(i % 3, 1, len(names)).round(3).tolist()
        lines.append(",".join([*map(str, row), kinds[i % 3]]))
    (tmp_path / "hostile.csv").write_text("\n".join(lines) + "\n")
    run = retrain(tmp_path / "m", Parameters(data="hostile.csv", target="kind", n_estimators=5))
    assert_harmless((Registry(tmp_path / "m").path(run.version) / PAGE_FILE).read_text())


def test_names_that_no_font_has_bring_no_warning_into_the_report(tmp_path):
    lines = [
        "花びら,size,kind",
        *(f"{i % 7},{i % 5},{('薔薇', 'tulip')[i % 2]}" for i in range(60)),
    ]
    (tmp_path / "flowers.csv").write_text("\n".join(lines), encoding="utf-8")
    told = Parameters(data=str(tmp_path / "flowers.csv"), target="kind", n_estimators=5)
    path = Registry(tmp_path / "m").path(retrain(tmp_path / "m", told).version)
    cells = json.loads((path / "retrain.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
    assert "薔薇" in (path / PAGE_FILE).read_text(encoding="utf-8")


class Shown(HTMLParser):
    """Collects the text that is shown before anything is unfolded."""

    def __init__(self):
        super().__init__()
        self.folded, self.texts = 0, []

    def handle_starttag(self, tag, attrs):
        self.folded += tag == "details"

    def handle_endtag(self, tag):
        self.folded -= tag == "details"

    def handle_data(self, data):
        if not self.folded:
            self.texts.append(data)


def test_the_result_stands_on_top_of_the_page_and_code_is_folded(cellar):
    path = Registry(cellar, "wine").path(1)
    html = (path / PAGE_FILE).read_text()
    result = html[: html.index("<details>")]
    for words in (
        "wine: promoted",
        "a random forest, 5 trees",
        "wine.csv: 178 rows",
        "baseline 0.",
    ):
        assert words in result
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", result)
    shown = Shown()
    shown.feed(html)
    text = "".join(shown.texts)
    assert "The accuracy is the share" in text or "the accuracy is the share" in text
    assert not re.search(r"begin|n_estimators|report\.", text.replace("-p n_estimators 200", ""))
    cells = json.loads((path / "retrain.ipynb").read_text())["cells"]
    assert cells[0]["source"].startswith("# wine: promoted")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["metadata"]["jupyter"]["source_hidden"] for cell in code)


@pytest.mark.parametrize("number", [False, True])
def test_a_mixed_table_has_its_report_with_kinds_and_what_was_left_out(tmp_path, number):
    file = mixed_file(tmp_path / "pets.csv", number=number)
    lines = file.read_text().splitlines()
    numbered = [f"{'row' if i == 0 else i},{line}" for i, line in enumerate(lines)]
    file.write_text("\n".join(numbered) + "\n")
    told = Parameters(name="pets", data=str(file), target="kind", n_estimators=5, cv=3)
    run = retrain(tmp_path / "m", told)
    path = Registry(tmp_path / "m", "pets").path(run.version)
    html = (path / PAGE_FILE).read_text()
    assert_harmless(html)
    assert [tag for tag, _ in tags_of(html)].count("img") == 2
    for words in ("left out", "category", "boolean", "north, south", "in 3 folds"):
        assert words in html
    assert ("always the mean)" in html) is number
    notebook = json.loads((path / "retrain.ipynb").read_text())
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
