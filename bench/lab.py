"""Create a notebook job in JupyterLab as a person does, in a headless Chromium: `make test-lab`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aims import Aim, close
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

D2C = Path(__file__).resolve().parents[1] / ".venv/bin/d2c"
CHROMIUM = "/usr/bin/chromium"
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
TEXT = """it's "quoted"; print(1) # {x} \\n ü"""
PARAMETERS = "from datetime import date\nwho: str = 'nobody'\ndays: int = 7\nday: date = date(2026, 1, 31)"
CELLS = (PARAMETERS, "from d2c_mlops.runs.recording import record\nrecord(who=who, days=days)\nprint('seen', who)")
OFFERED = [("who", "nobody"), ("days", "7"), ("day", "2026-01-31")]
FORM = Path("/tmp/d2c-lab-form.png")
PATIENCE = 90_000  # ms


def write_project(folder: Path) -> None:
    (folder / "settings.ini").write_text("[d2c]\n")
    made = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": ["parameters"]} if i == 0 else {}, "source": source,
         "outputs": [], "execution_count": None}
        for i, source in enumerate(CELLS)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "nb.ipynb").write_text(
        json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )


def runs(folder: Path) -> list[dict[str, Any]]:
    told = subprocess.run([str(D2C), "runs", "--json"], cwd=folder, capture_output=True, text=True, check=True)
    return list(json.loads(told.stdout))


def create_job(page: Page, url: str) -> tuple[list[tuple[str, str]], str]:
    """Right-click the notebook, fill the form in, create the job; return what the form offers and what it refuses."""
    page.goto(url, timeout=PATIENCE)
    notebook = page.locator(".jp-DirListing-itemText", has_text="nb.ipynb")
    notebook.wait_for(timeout=PATIENCE)
    notebook.click(button="right")
    page.get_by_text("Create Job").first.click()
    page.locator('input[name="parameter-2-value"]').wait_for(timeout=PATIENCE)
    names, values = (page.locator(f'input[name^="parameter-"][name$="-{field}"]') for field in ("name", "value"))
    offered = [(names.nth(i).input_value(), values.nth(i).input_value()) for i in range(names.count())]
    page.screenshot(path=FORM)
    no = page.get_by_role("button", name="No", exact=True)  # JupyterLab offers news
    if no.count():
        no.click()
    fill(page, 1, "a week")
    page.get_by_role("button", name="Create", exact=True).click()
    refusal = page.get_by_text("is not of type int").first
    refusal.wait_for(timeout=PATIENCE)
    refused = refusal.inner_text()
    fill(page, 1, "14")
    fill(page, 0, TEXT)
    page.get_by_role("button", name="Create", exact=True).click()
    return offered, refused


def fill(page: Page, row: int, text: str) -> None:
    """Write the value of a parameter into the form."""
    entry = page.locator(f'input[name="parameter-{row}-value"]')
    entry.fill(text)
    entry.press("Tab")


def open_output(page: Page) -> str:
    """Open the output notebook from the list of jobs and return what it shows."""
    completed = page.get_by_text("Completed").first  # the list shows what it was when it was loaded
    for _ in range(PATIENCE // 2000):
        page.get_by_role("button", name="Reload", exact=True).click()
        with contextlib.suppress(PlaywrightTimeout):
            completed.wait_for(timeout=2000)
            break
    page.locator('button[title*="ownload"]').first.click()
    page.get_by_role("link", name="Notebook").first.click(timeout=PATIENCE)
    output = page.locator(".jp-OutputArea-output", has_text="seen").first
    output.wait_for(timeout=PATIENCE)
    return output.inner_text()


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE / 1000) -> Any:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(1)
    return None


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def try_it(folder: Path) -> list[Aim]:
    """Start `d2c lab`, create a job in the browser, and compare what browser and ledger say."""
    write_project(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {name: str(folder / ".jupyter" / name) for name in ("HOME", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    options = ("--no-browser", f"--port={port}", "--allow-root", "--IdentityProvider.token=t")
    with (folder / "lab.log").open("w") as log:
        lab = subprocess.Popen([str(D2C), "lab", "--", *options], cwd=folder, env={**os.environ, **homes}, stdout=log,
                               stderr=log)  # fmt: skip
    try:
        wait_for(lambda: answers(port))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            shot = Path("/tmp/d2c-lab.png")
            try:
                offered, refused = create_job(page, f"http://127.0.0.1:{port}/lab?token=t")
                done = wait_for(lambda: [run for run in runs(folder) if run["status"] != "running"]) or [{}]
                page.screenshot(path=shot)
                shown = open_output(page)
            finally:
                page.screenshot(path=shot)
                print(f"the last that the browser showed is in {shot}")
                browser.close()
    except Exception:
        print((folder / "lab.log").read_text()[-3000:], runs(folder))
        raise
    finally:
        lab.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for the kernel of the output that was opened
            lab.wait(30)
        lab.kill()
        lab.wait()
    (run,) = done
    return [
        Aim("the form offers the notebook's parameters and defaults", repr(offered), offered == OFFERED),
        Aim(
            "a value that does not fit is refused in the form", refused[:120], "'a week' is not of type int" in refused
        ),
        Aim("the job is a run in the ledger that succeeded", str(run.get("status")), run.get("status") == "succeeded"),
        Aim(
            "a text with quotes and code arrives as it is",
            repr(run.get("recorded")),
            run["recorded"] == {"who": TEXT, "days": 14},
        ),
        Aim("the Lab shows it as completed and opens its output", shown, shown.strip().endswith(f"seen {TEXT}")),
    ]


def main() -> int:
    """Try it and print the aims."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        return close(try_it(Path(name)))


if __name__ == "__main__":
    sys.exit(main())
