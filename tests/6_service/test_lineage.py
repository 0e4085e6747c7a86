"""From an answer to its notebook, over HTTP; and to nothing else."""

import json
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import urljoin

import pytest
from bad_bodies import GOOD
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from iris_serve.cli.server import make_app
from iris_serve.cli.settings import Settings
from iris_serve.model.atomic import sha256, to_json, write_new_file
from iris_serve.model.card import CARD_FILE
from iris_serve.registry.records import NOTEBOOK_FILE, PAGE_FILE, read_run
from iris_serve.registry.registry import Registry, promote
from iris_serve.service.access import Policy
from iris_serve.service.app import create_app
from iris_serve.service.lineage import make_lineage
from iris_serve.service.live import LivePredictor
from iris_serve.service.versions import Versions
from iris_serve.training.retrain import Parameters, train

MALICIOUS = b"<script>alert(1)</script><meta http-equiv=refresh content='0;url=//evil.example/'>"


def give_notebook(path, page):
    """A notebook and its page, as a run with a notebook leaves them in a version."""
    write_new_file(path / NOTEBOOK_FILE, b'{"cells": []}')
    write_new_file(path / PAGE_FILE, page)
    run = replace(read_run(path), made_by="retrain", notebook=sha256(b'{"cells": []}'))
    (path / "run.json").write_bytes(to_json(run))


@pytest.fixture(scope="module")
def two_trained(tmp_path_factory):
    """A models directory that no test writes to: version 1 without a notebook, 2 with one."""
    folder = tmp_path_factory.mktemp("two") / "models"
    train(folder, Parameters(n_estimators=5))
    train(folder, Parameters(n_estimators=6, promote="never"))
    registry = Registry(folder)
    promote(registry, 2, "to be tried first", alias="canary")
    give_notebook(registry.path(2), MALICIOUS)
    (registry.path(2) / "data.csv").write_text("secret,table\n")
    return folder


@pytest.fixture
def two(two_trained, tmp_path):
    return shutil.copytree(two_trained, tmp_path / "two")


def client_of(models):
    live = LivePredictor(Registry(models))
    live.stop()
    policy = Policy(address="127.0.0.1")
    return create_app(live, [make_lineage(Versions(live))], policy).test_client()


@pytest.fixture(scope="module")
def client(two_trained):
    return client_of(two_trained)


def test_every_link_leads_on(client):
    (model,) = client.get("/models").json["models"]
    assert (model["name"], model["version"]) == ("iris", "1")
    at = urljoin("/models", model["link"])
    found = client.get(at).json
    assert [v["version"] for v in found["versions"]] == ["1", "2"]
    at = urljoin(at, found["versions"][1]["link"])
    links = {name: urljoin(at, link) for name, link in client.get(at).json["links"].items()}
    assert client.get(links["self"]).status_code == 200
    assert client.get(links["notebook"]).status_code == 200
    assert client.post(links["predict"], data=GOOD).headers["X-Model-Version"] == "2"


def test_every_link_leads_on_below_the_path_of_a_proxy(client):
    origin = "http://localhost/flowers/and/models"
    (model,) = client.get("/models").json["models"]
    one = urljoin(origin, model["link"])
    assert one == f"{origin}/iris"
    found = client.get("/models/iris").json["versions"]
    assert [urljoin(one, v["link"]) for v in found] == [f"{one}/versions/{n}" for n in (1, 2)]
    for named in ("2", "current"):
        links = client.get(f"/models/iris/versions/{named}").json["links"]
        number = 2 if named == "2" else 1
        at, right = f"{one}/versions/{named}", f"{one}/versions/{number}"
        assert urljoin(at, links["self"]) == right
        page = links["notebook"]
        assert urljoin(at, page) == f"{right}/notebook" if number == 2 else page is None
        assert urljoin(at, links["predict"]) == f"{right}/predict"


def test_the_card_is_told_but_for_its_libraries_and_the_aliases_with_their_histories(
    client, two_trained
):
    told = client.get("/models/iris/versions/2").json
    card = json.loads((two_trained / "iris" / "2" / CARD_FILE).read_bytes())
    assert told["card"] == {key: value for key, value in card.items() if key != "versions"}
    assert told["run"]["made_by"] == "retrain"
    aliases = client.get("/models/iris").json["aliases"]
    assert {name: alias["version"] for name, alias in aliases.items()} == {
        "canary": "2",
        "current": "1",
    }
    assert aliases["canary"]["history"][0]["why"] == "to be tried first"


def test_no_client_is_told_who_promoted_or_which_libraries_there_are(two, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ada-lovelace")
    promote(Registry(two), 1, "by somebody")
    card = json.loads((two / "iris" / "2" / CARD_FILE).read_bytes())
    secrets = ["ada-lovelace", "granian", "flask", "werkzeug", *card["versions"].values()]
    app = make_app(Settings(models=str(two), access_log="off"))
    app.extensions["live"].stop()
    client = app.test_client()
    for path in ("/", "/models", "/models/iris", "/models/iris/versions/2", "/v2", "/readyz"):
        answer = client.get(path)
        assert answer.status_code == 200
        told = f"{answer.text} {answer.headers}".lower()
        assert not [word for word in secrets if word in told], path


def test_documents_carry_the_number_of_their_version_and_no_cache_keeps_them(client):
    for path, version in (
        ("/models", "1"),
        ("/models/iris", "1"),
        ("/models/iris/versions/1", "1"),
        ("/models/iris/versions/2", "2"),
        ("/models/iris/versions/canary", "2"),
        ("/models/iris/versions/2/notebook", "2"),
    ):
        answer = client.get(path)
        assert answer.headers.get_all("X-Model-Version") == [version], path
        kept = "private, no-cache" if path.endswith("notebook") else "no-store"
        assert answer.headers["Cache-Control"] == kept, path


def test_an_alias_may_stand_for_its_number(client):
    canary = client.get("/models/iris/versions/canary").json
    assert canary == client.get("/models/iris/versions/2").json
    answer = client.post("/models/iris/versions/current/predict", data=GOOD)
    assert answer.headers["X-Model-Version"] == "1"


def test_the_page_is_sent_unchanged_and_its_scripts_are_locked_up(client):
    page = client.get("/models/iris/versions/2/notebook")
    assert (page.status_code, page.data) == (200, MALICIOUS)
    policy = [part.strip() for part in page.headers["Content-Security-Policy"].split(";")]
    assert {"default-src 'none'", "sandbox", "img-src data:", "form-action 'none'"} <= set(policy)
    assert not any("script" in part or "allow-" in part for part in policy)
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.content_type == "text/html; charset=utf-8"


def test_a_version_without_a_notebook_says_so(client):
    answer = client.get("/models/iris/versions/1/notebook")
    assert answer.status_code == 404
    assert "no page of an executed notebook: it was made by train, without" in answer.json["detail"]
    assert client.get("/models/iris/versions/1").json["links"]["notebook"] is None


def test_a_changed_notebook_is_a_503_and_not_a_page(two):
    (two / "iris" / "2" / NOTEBOOK_FILE).write_bytes(b'{"cells": [1]}')
    answer = client_of(two).get("/models/iris/versions/2/notebook")
    assert answer.status_code == 503
    assert "2/retrain.ipynb is not the notebook" in answer.json["detail"]


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege elsewhere")
def test_a_symbolic_link_in_the_place_of_a_record_reveals_nothing(two, tmp_path):
    (tmp_path / "secret").write_text("no client may read this")
    for name in (PAGE_FILE, NOTEBOOK_FILE, CARD_FILE, "run.json"):
        path = two / "iris" / "2" / name
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        for route in ("", "/notebook", "/predict"):
            for method in ("GET", "POST"):
                answer = client_of(two).open(f"/models/iris/versions/2{route}", method=method)
                assert b"no client may read this" not in answer.data
    assert client_of(two).get("/models/iris/versions/2/notebook").status_code == 503


def test_a_damaged_version_does_not_spoil_the_list(two):
    (two / "iris" / "2" / "run.json").write_text("{")
    versions = client_of(two).get("/models/iris").json["versions"]
    assert versions[0]["run"]["version"] == 1
    assert "version 2 cannot be trusted" in versions[1]["trouble"]


def test_a_version_is_said_to_be_served_in_the_words_of_its_card(two):
    card = two / "iris" / "2" / CARD_FILE
    client = client_of(two)
    versions = client.get("/models/iris").json["versions"]
    assert [version["served"] for version in versions] == ["frozen"] * 2
    assert client.get("/models/iris/versions/2").json["served"] == "frozen"
    card.write_bytes(card.read_bytes().replace(b'"forest', b'"florist'))
    first, second = client.get("/models/iris").json["versions"]
    assert "served" in first
    assert "trouble" not in first
    assert "served" not in second
    assert second["run"]["version"] == 2
    assert "version 2 cannot be trusted" in second["trouble"]


def test_a_wrong_question_to_a_version_is_explained_by_that_version(client):
    answer = client.post("/models/iris/versions/2/predict", data=b'{"features": [1]}')
    assert answer.status_code == 400
    assert answer.headers["X-Model-Version"] == "2"
    assert len(answer.json["example"]["features"]) == 4


WRONG = [
    "/models/roses",
    "/models/..",
    "/models/Iris",
    "/models/iris/versions",
    "/models/iris/versions/9",
    "/models/iris/versions/0",
    "/models/iris/versions/-1",
    "/models/iris/versions/01",
    "/models/iris/versions/\uff11",
    "/models/iris/versions/latest",
    "/models/iris/versions/aliases",
    "/models/iris/versions/..",
    "/models/iris/versions/9/notebook",
    "/models/iris/versions/2/data.csv",
    "/models/iris/versions/2/notebook/data.csv",
    "/models/iris/versions/2/../2/data.csv",
    "/models/iris/versions/..%2f..%2fetc%2fpasswd",
    "/models/iris/versions/" + "9" * 5000,
    "/models/" + "a" * 5000,
]


def names_no_path(answer, *folders):
    text = answer.get_data(as_text=True)
    places = [*map(str, folders), str(Path.cwd()), sys.prefix, str(Path.home()), "site-packages"]
    return not any(place in text for place in places if len(place) > 1) and "Traceback" not in text


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path[:50])
def test_what_does_not_exist_is_a_404_in_json_that_names_no_path(client, two_trained, path):
    for method, where in (("GET", path), ("POST", f"{path}/predict")):
        answer = client.open(where, method=method)
        assert answer.status_code in (404, 405), answer.data
        assert answer.json["detail"]
        assert len(answer.data) < 2000
        assert names_no_path(answer, two_trained)


PARTS = st.sampled_from(
    ["models", "iris", "versions", "1", "2", "3", "current", "canary", "notebook", "predict"]
) | st.sampled_from(["..", ".", "data.csv", "run.json", "%2e%2e", "\x00", "é", "aliases"])


@settings(max_examples=300, deadline=None, print_blob=True)
@given(
    parts=st.lists(PARTS | st.text(max_size=5), max_size=7),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    body=st.sampled_from([GOOD, b"", b"{"]),
)
def test_no_route_reveals_a_path_of_this_machine(client, two_trained, parts, method, body):
    raw = ("/" + "/".join(parts)).encode().decode("latin-1")
    answer = client.open("/", method=method, data=body, environ_overrides={"PATH_INFO": raw})
    assert answer.status_code < 500
    assert names_no_path(answer, two_trained)
    assert b"secret" not in answer.data


@pytest.mark.parametrize("name", ["card.json", "run.json", "iris_model.pkl", "forest.safetensors"])
@pytest.mark.parametrize("damage", [None, b"", b"{}", b"\xff" * 9])
def test_no_damage_reveals_a_path_of_this_machine(two, name, damage):
    path = two / "iris" / "2" / name
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    client = client_of(two)
    for route in ("", "/versions/2", "/versions/2/notebook"):
        assert names_no_path(client.get(f"/models/iris{route}"), two)
    answer = client.post("/models/iris/versions/2/predict", data=GOOD)
    not_needed = name == "iris_model.pkl" and damage is None  # the forest answers
    assert answer.status_code == (200 if not_needed else 503)
    assert names_no_path(answer, two)


ROUTES = ["/", "/predict", "/models", "/models/iris/versions/2/notebook", "/readyz", "/nowhere"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:5000", "localhost.evil.example"])
def test_a_page_whose_name_was_rebound_to_this_machine_reads_nothing(client, path, host):
    for method in ("GET", "POST"):
        answer = client.open(path, method=method, data=GOOD, headers={"Host": host})
        assert answer.status_code == 421
        assert "Host header must be localhost" in answer.json["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:5000", "[::1]:5000"])
def test_a_request_to_this_machine_by_its_names_is_answered(client, host):
    assert client.get("/models", headers={"Host": host}).status_code == 200


def test_under_another_server_that_listens_to_the_network_any_host_is_allowed(two):
    os.environ["IRIS_SERVE_MODELS"] = str(two)
    try:
        app = make_app()
    finally:
        del os.environ["IRIS_SERVE_MODELS"]
    app.extensions["live"].stop()
    client, name = app.test_client(), {"Host": "iris.example"}
    for server, status in (("192.0.2.7", 200), ("127.0.0.1", 421)):
        where = {"SERVER_NAME": server}
        assert client.get("/", headers=name, environ_overrides=where).status_code == status


def test_the_whole_application_serves_the_lineage_and_lists_its_routes(two):
    app = make_app(Settings(models=str(two)))
    app.extensions["live"].stop()
    client = app.test_client()
    assert client.get("/models/iris/versions/2/notebook").data == MALICIOUS
    said = client.get("/nowhere").json["detail"]
    for route in ("POST /predict", "GET /models/{name}/versions/{v}/notebook", "GET /readyz"):
        assert route in said


def test_a_linked_alias_is_a_trouble_of_its_own_and_hides_no_other(three, tmp_path):
    registry = Registry(three)
    (registry.folder / "aliases" / "evil").symlink_to(tmp_path)
    app = make_app(Settings(models=str(three)))
    app.extensions["live"].stop()
    reply = app.test_client().get("/models/iris")
    assert reply.status_code == 200
    assert "trouble" in reply.json["aliases"]["evil"]
    assert reply.json["aliases"]["current"]["version"] == "1"
