"""The browser of the tests sees what a page does, and keeps it from the network."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import needs_browser, visiting

pytestmark = needs_browser

PAGE = b"""<!doctype html><meta charset="utf-8"><title>A page</title>
<link rel="stylesheet" href="http://styles.invalid/a.css">
<button>Ask</button><output></output>
<script>
console.warn("mind");
document.querySelector("button").onclick = async () => {
    for (const url of ["http://127.0.0.1:1/", "https://elsewhere.invalid/", "/missing"])
        await fetch(url).catch(() => null);
    new WebSocket("ws://sockets.invalid/");
    document.querySelector("output").textContent = await (await fetch("/answer")).text();
    throw new Error("uncaught");
};
</script>"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {"/": (PAGE, "text/html"), "/answer": (b"42", "text/plain")}
        body, kind = answers.get(self.path, (b"", "text/plain"))
        self.send_response(200 if self.path in answers else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def origin():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_is_shown_clicked_and_kept_from_the_network(origin):
    with visiting(origin) as visit:
        visit.page.goto(f"{origin}/")
        assert visit.page.title() == "A page"
        with visit.page.expect_event("pageerror"):
            visit.page.get_by_role("button", name="Ask").click()
        assert visit.page.locator("output").inner_text() == "42"
    elsewhere = ["http://styles.invalid/a.css", "http://127.0.0.1:1/"]
    elsewhere += ["https://elsewhere.invalid/", "ws://sockets.invalid/"]
    assert visit.blocked == elsewhere
    assert {f"GET {origin}{path}" for path in ("/", "/answer")} <= set(visit.requests)
    assert visit.errors == ["uncaught"]
    assert "warning: mind" in visit.console
    assert any(said.startswith("error: ") for said in visit.console)
    assert f"{origin}/missing: 404" in visit.failed
