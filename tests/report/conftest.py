"""Reports of made-up fleets in a real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import report_files
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_document import make
from playwright.sync_api import Browser, Page, sync_playwright

from . import fleets

# A window as a person has it, and a phone.
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


class Reports:
    """Writes each fleet's report once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, name: str) -> Path:
        """The page of a fleet: a number of nodes, or hostile."""
        directory = self.directory / name
        if not directory.exists():
            given = fleets.hostile() if name == "hostile" else fleets.fleet(int(name))
            if name != "hostile":
                given["former"] = make(fleets.before(given))
            report_files.write(str(directory), make(given))
        return directory / "report.html"


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return Reports(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if found is None:
        pytest.fail("there is no chromium: tests/tools/packages installs it")
    with sync_playwright() as playwright:
        # A container's root has no user namespaces for chromium's own sandbox.
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


class Visit:
    """A page that was opened, and whatever it did besides showing itself."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.messages: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        self.refused: list[str] = []
        page.on("requestfailed", lambda request: self.refused.append(request.url) if request.failure == "csp" else None)
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("dialog", lambda dialog: self.messages.append(f"dialog {dialog.message}") or dialog.dismiss())


@pytest.fixture
def visit(browser: Browser, reports: Reports) -> Iterator[Any]:
    """visit(name, ...): the report of that fleet in a window of its own."""
    with contextlib.ExitStack() as stack:

        def opened(name: str, **options: Any) -> Visit:
            context = browser.new_context(**{"viewport": DESK, **options})
            stack.callback(context.close)
            found = Visit(context.new_page())
            found.page.goto(reports.of(name).as_uri())
            return found

        yield opened


def axe() -> str:
    """axe-core, as its package for playwright carries it."""
    package = subprocess.run(
        [sys.executable, "-c", "import axe_playwright_python as p; print(p.__path__[0])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return next(Path(package).rglob("axe*.js")).read_text(encoding="utf-8")
