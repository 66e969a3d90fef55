"""Other pages, and other names for this machine, get nothing out of the console's cookie."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from tests.appliances import ApplianceProcess
from tests.browser.conftest import FOREIGN
from tests.browser.page import Console

ATTACK = """<!doctype html><title>another site</title>
<form method="post" enctype="text/plain" action="{target}"><input name='{{"a":"' value='"}}'></form>
"""
FETCH = """async (url) => {
  const tries = [
    { method: "POST", mode: "no-cors", credentials: "include", body: "{}" },
    { method: "POST", credentials: "include", body: "{}",
      headers: { "content-type": "application/json", "x-csrf-token": "guess" } },
    { credentials: "include" },
  ];
  const answers = [];
  for (const init of tries) {
    try {
      const response = await fetch(url, init);
      answers.push([response.type, response.status]);
    } catch (error) { answers.push(["refused", 0]); }
  }
  return answers;
}"""


@pytest.fixture
def stranger(shared_box: ApplianceProcess) -> Iterator[str]:
    """A site of another origin on this machine, with a form that stops the engine."""
    page = ATTACK.format(target=f"{shared_box.base_url}/appliance/v1/stop").encode()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_a_form_of_another_site_does_not_stop_the_engine(
    tab: Console, shared_box: ApplianceProcess, stranger: str
) -> None:
    page = tab.page.context.new_page()
    page.goto(stranger)
    with page.expect_response(lambda response: response.url.endswith("/stop")) as answer:
        page.evaluate("document.forms[0].submit()")
    assert answer.value.status in (401, 403, 415)
    assert shared_box.status()["state"] == "ready"


def test_a_script_of_another_site_neither_reads_nor_changes(
    tab: Console, shared_box: ApplianceProcess, stranger: str
) -> None:
    page = tab.page.context.new_page()
    page.goto(stranger)
    for path in ("stop", "status"):
        answers = page.evaluate(FETCH, f"{shared_box.base_url}/appliance/v1/{path}")
        assert all(status == 0 for _, status in answers), answers
    assert shared_box.status()["state"] == "ready"


def test_another_name_for_this_machine_is_refused(
    chromium: Browser, shared_box: ApplianceProcess
) -> None:
    page = chromium.new_page()
    port = shared_box.base_url.rpartition(":")[2]
    for path in ("/", "/appliance/v1/status", "/console/main.js"):
        answer = page.goto(f"http://{FOREIGN}:{port}{path}")
        assert answer is not None
        assert answer.status == 421, path
    page.close()
