"""Every page of the site fits a window of 1366 pixels and a phone of 390, and so do its tables."""

import pytest
from conftest import CHROMIUM

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.xdist_group("site")]

# What is wider than its place: the page, its tables, which the theme would let scroll, and on a screen the samples.
TOO_WIDE = """() => {
  const columns = (code) => Math.max(...code.innerText.split("\\n").map((line) => line.length));
  const samples = [...document.querySelectorAll(".md-typeset pre > code")].filter((code) => columns(code) <= 120);
  return [document.scrollingElement, ...document.querySelectorAll(".md-typeset__scrollwrap")]
    .concat(innerWidth > 1000 ? samples : [])
    .filter((place) => place.scrollWidth > place.clientWidth + 1)
    .map((place) => `${place.scrollWidth} of ${place.clientWidth}: ${place.innerText.slice(0, 60)}`);
}"""


def test_pages_and_tables_fit(site):
    from playwright.sync_api import sync_playwright

    pages = sorted(site.rglob("index.html"))
    assert len(pages) > 30
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        page = browser.new_page()
        page.route("http*://**", lambda route: route.abort())
        for width in (1366, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for file in pages:
                page.goto(file.as_uri())
                if wide := page.evaluate(TOO_WIDE):
                    found[f"{file.parent.relative_to(site)} at {width}"] = wide
        browser.close()
    assert not found
