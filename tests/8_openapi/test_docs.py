"""The documentation page: complete without the internet, and closely confined."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from browser import needs_browser, visiting
from services import Service, serving
from test_openapi import CONTRACTS, First
from werkzeug.datastructures import EnvironHeaders
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from iris_serve.cli.settings import Settings
from iris_serve.openapi.docs import ASSET_TYPES, PAGE, SCRIPT, make_docs
from iris_serve.service.access import Policy
from iris_serve.service.app import OPEN_POLICY, create_app
from iris_serve.service.keys import Key
from iris_serve.service.live import Fixed
from iris_serve.wsgi import make_app

FILES = [f"/docs/{file}" for file in (*ASSET_TYPES, "page.js")]


def make_test_app(contract, policy=OPEN_POLICY):
    live = Fixed(First(contract))
    return create_app(live, [make_docs(live)], policy)


@pytest.fixture
def client():
    return make_test_app(CONTRACTS["iris"]).test_client()


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", *FILES])
def test_each_file_of_the_page_is_sent_with_the_content_policy_and_an_etag(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"\*|https?:", policy)
    again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.head(path).status_code == 200


@pytest.mark.parametrize(
    "file",
    [
        *("index.html", "swagger-ui.js", "oauth2-redirect.html", "LICENSE", "/", "%00", "a" * 5000),
        *("../flask_swagger_ui.py", "..%2f__init__.py", "swagger-ui.css/", "swagger-ui.css%00"),
    ],
)
def test_no_other_file_can_be_reached(client, file):
    answer = client.get(f"/docs/{file}")
    assert answer.status_code == 404
    assert answer.json["status"] == 404


def test_the_page_has_relative_addresses_and_no_script_in_its_html():
    found = re.findall(r'(?:href|src)="([^"]*)"|url: "([^"]*)"', PAGE + SCRIPT)
    addresses = {"/" + (one or other) for one, other in found}
    assert addresses == {"/openapi.json", *FILES}
    assert re.findall(r"<script[^>]*>(.*?)</script>", PAGE) == ["", ""]
    assert not re.search(r" on\w+=| style=", PAGE)


def test_the_package_with_the_files_is_never_imported():
    code = (
        "import sys; from iris_serve.openapi import docs; docs.read_asset('swagger-ui.css');"
        "print([m for m in ('flask_swagger_ui', 'sklearn', 'openapi_spec_validator') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_missing_swagger_ui_is_named_with_the_command_that_installs_it(monkeypatch, client):
    monkeypatch.setattr("iris_serve.openapi.docs.find_spec", lambda name: None)
    assert client.get("/docs").status_code == 200
    with pytest.raises(ModuleNotFoundError, match="pip install flask-swagger-ui"):
        client.application.view_functions["docs.swagger-ui_css"]()


def open_predict(page):
    """Open `POST /predict` on the page and press *Try it out*."""
    operation = page.locator("#operations-questions-post_predict")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    return operation


def execute(operation):
    """Press *Execute* in `operation`; returns the status and the body that the page then shows."""
    if (clear := operation.get_by_role("button", name="Clear", exact=True)).count():
        clear.click()
    operation.get_by_role("button", name="Execute").click()
    shown = operation.locator(".live-responses-table .response").first
    status = shown.locator(".response-col_status").inner_text()
    return int(status.split()[0]), shown.locator("pre").first.inner_text()


def assert_quiet(visit, origin):
    assert visit.blocked == []
    assert visit.console == []
    assert visit.errors == []
    assert visit.failed == []
    assert all(made.split(" ")[1].startswith((origin, "data:")) for made in visit.requests)


@needs_browser
def test_the_page_works_and_asks_the_service_without_any_network(trained):
    with Service(trained) as service:
        service.ready()
        origin = f"http://127.0.0.1:{service.port}"
        with visiting(origin) as visit:
            visit.page.goto(f"{origin}/docs")
            assert visit.page.locator(".info .title").inner_text().startswith("iris")
            assert "OAS 3.1" in visit.page.locator(".info").inner_text()
            status, body = execute(open_predict(visit.page))
            assert (status, json.loads(body)) == (200, {"prediction": 1})
            assert visit.page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert_quiet(visit, origin)
        assert f"POST {origin}/predict" in visit.requests


@needs_browser
def test_the_example_of_every_media_type_is_answered_from_the_page(client):
    with serving(client.application) as origin, visiting(origin) as visit:
        visit.page.goto(f"{origin}/docs")
        operation = open_predict(visit.page)
        for kind in ("application/json", "text/csv", "application/x-ndjson"):
            operation.locator(".body-param-content-type select").select_option(kind)
            assert execute(operation)[0] == 200
    assert_quiet(visit, origin)


@needs_browser
def test_the_page_works_below_a_prefix_that_only_the_proxy_knows(client):
    app = DispatcherMiddleware(lambda *_: [], {"/some/where": client.application})
    with serving(app) as origin, visiting(origin) as visit:
        visit.page.goto(f"{origin}/some/where/docs")
        assert execute(open_predict(visit.page))[0] == 200
    assert_quiet(visit, origin)
    assert f"POST {origin}/some/where/predict" in visit.requests


@needs_browser
def test_a_key_is_sent_and_forgotten_when_the_page_is_closed():
    key = Key("alice", hashlib.sha256(b"a secret").hexdigest())
    app = make_test_app(CONTRACTS["iris"], Policy(keys=(key,)))
    sent = []

    def noting(environ, start_response):
        sent.append(dict(EnvironHeaders(environ)))
        return app(environ, start_response)

    with serving(noting) as origin, visiting(origin) as visit:
        visit.page.goto(f"{origin}/docs")
        authorize(visit.page, "bearer", "a secret")
        operation = open_predict(visit.page)
        assert execute(operation)[0] == 200
        assert sent[-1]["Authorization"] == "Bearer a secret"
        visit.page.goto("about:blank")
        visit.page.goto(f"{origin}/docs")
        assert execute(open_predict(visit.page))[0] == 401
        assert "Authorization" not in sent[-1]
        authorize(visit.page, "header", "a secret")
        assert execute(visit.page.locator("#operations-questions-post_predict"))[0] == 200
        assert sent[-1]["X-Api-Key"] == "a secret"
    assert [line for line in (*visit.console, *visit.failed) if "401" not in line] == []
    assert (visit.blocked, visit.errors) == ([], [])


@needs_browser
def test_there_are_no_locks_without_keys_and_what_is_always_refused_is_folded(trained):
    app = make_app(Settings(models=str(trained), access_log="off"))
    with serving(app) as origin, visiting(origin) as visit:
        visit.page.goto(f"{origin}/docs")
        tags = visit.page.locator(".opblock-tag-section")
        visit.page.locator(".opblock-tag-section.is-open").last.wait_for()
        assert tags.first.locator(".opblock-tag").get_attribute("data-tag") == "questions"
        last = tags.last.locator(".opblock-tag")
        assert last.get_attribute("data-tag") == "always refused"
        assert last.get_attribute("data-is-open") == "false"
        assert visit.page.locator(".authorize, .authorization__btn").count() == 0
        shown = open_predict(visit.page).locator(".responses-table .response").first
        assert re.search(r'\{\s*"prediction": 1\s*\}', shown.inner_text())
    app.extensions["live"].stop()
    assert_quiet(visit, origin)


def authorize(page, scheme, secret):
    page.locator(".auth-wrapper .authorize").first.click()
    dialog = page.locator(".dialog-ux .auth-container", has_text=scheme)
    dialog.locator("input").fill(secret)
    dialog.locator("button.authorize").click()
    page.locator(".dialog-ux .btn-done").first.click()


@needs_browser
def test_markup_in_feature_names_is_shown_as_text_and_never_runs():
    with serving(make_test_app(CONTRACTS["nasty"])) as origin, visiting(origin) as visit:
        visit.page.goto(f"{origin}/docs")
        assert "<b onclick=x>" in visit.page.locator(".info .description").inner_text()
        assert execute(open_predict(visit.page))[0] == 200
    assert_quiet(visit, origin)
