"""Show README.md in a browser as GitHub shows it, wide and narrow, and take a picture of each: `make look`.

GitHub's own parser of Markdown (cmark-gfm) and its published style sheet are used. Pictures of the repository are taken from the
checkout. What does not load, and what is wider than the window, is printed and ends with exit code 1.
"""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path

import cmarkgfm
from cmarkgfm.cmark import Options
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".bench/pictures"
STYLE = PLACE / "node_modules/github-markdown-css/github-markdown-light.css"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
WIDTHS = (1280, 390)
OVERFLOW = """() => [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .filter(e => !e.closest('pre, table')).map(e => e.tagName + ' ' + e.textContent.slice(0, 50))"""
UNLOADED = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"


def page(text: str) -> str:
    """Return the page that GitHub makes of Markdown, its pictures from the checkout."""
    ini = ConfigParser(interpolation=None)
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    url, branch = ini["package"]["url"], ini["package"]["branch"]
    pictures = url.replace("//github.com/", "//raw.githubusercontent.com/")
    body = cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_GITHUB_PRE_LANG)
    body = body.replace(f"{pictures}/{branch}/", f"{ROOT.as_uri()}/")
    style = STYLE.read_text(encoding="utf-8")
    layout = "body{margin:0}.markdown-body{box-sizing:border-box;max-width:980px;margin:0 auto;padding:45px}@media(max-width:767px){.markdown-body{padding:15px}}"
    return (
        f'<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{style}{layout}'
        f'</style><article class="markdown-body">{body}</article>'
    )


def main() -> int:
    """Take the pictures; return 1 where something does not load or does not fit."""
    file = PLACE / "readme.html"
    file.write_text(page((ROOT / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
    wrong = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        for width in WIDTHS:
            view = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
            view.goto(file.as_uri())
            view.wait_for_timeout(500)
            for fault, script in (("not loaded", UNLOADED), ("wider than the window", OVERFLOW)):
                for place in view.evaluate(script):
                    wrong += 1
                    print(f"{width} pixels: {fault}: {place}")
            picture = PLACE / f"readme-{width}.png"
            view.screenshot(path=str(picture), full_page=True)
            print(f"{picture.relative_to(ROOT)}: {view.evaluate('() => document.body.scrollHeight')} pixels high")
        browser.close()
    words = len(re.findall(r"\S+", (ROOT / "README.md").read_text(encoding="utf-8")))
    print(f"{words} words, {wrong} faults")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
