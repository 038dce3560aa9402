"""What the tests that look at pages see there, in a browser or without."""

import re
import shutil
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

from tests.runs import PATIENCE


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the pieces of text outside style."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.pieces, self.source = [], [], source
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] != "style":
            self.pieces.append(data)

    def all(self, tag, **wanted):
        return [
            found for name, found in self.tags if name == tag and wanted.items() <= found.items()
        ]


def contrast(first, second):
    """WCAG's contrast of two CSS colours ``rgb(r, g, b)``."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def start_browser(folder):
    """Chromium without a window, with its profile in the folder; skips the test where there is none."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install -e '.[test]'"
    )
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and chromedriver: bash scripts/install_browser.sh")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = (
        "headless no-sandbox disable-gpu disable-dev-shm-usage disable-quic no-first-run "
        "disable-background-networking disable-component-update disable-sync"
    )
    for argument in (*flags.split(), f"user-data-dir={folder}"):
        options.add_argument(f"--{argument}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


TOO_WIDE = """
    const width = document.documentElement.clientWidth, found = document.documentElement.scrollWidth > width ? ['page'] : [];
    for (const one of document.body.querySelectorAll('*')) {
        const {left, right} = one.getBoundingClientRect();
        if (!one.parentElement.closest('.scroll') && (right > width + 0.5 || left < 0)) found.push(one.outerHTML.slice(0, 200));
    }
    return found"""
COLOURS = """
    let one = document.querySelector(arguments[0]); const ink = getComputedStyle(one).color;
    while (getComputedStyle(one).backgroundColor == 'rgba(0, 0, 0, 0)') one = one.parentElement;
    return [ink, getComputedStyle(one).backgroundColor]"""


def look(browser, address, width=1280, scheme="light"):
    """Opens a page in a window of that width, for a user who prefers that colour scheme."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(address)


@contextmanager
def next_page(browser):
    """Waits, after what is done within it, until another page is there: a click or a key that sends
    a form can return before the browser starts to leave the page."""
    from selenium.webdriver.support.wait import WebDriverWait

    browser.execute_script("document.body.dataset.old = ''")
    yield
    is_there = "return document.readyState == 'complete' && document.body.dataset.old === undefined"
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.execute_script(is_there))


def assert_fits_and_is_readable(browser, width, selectors):
    """Nothing is wider than the window, and the elements' ink has WCAG's contrast to their paper."""
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script(TOO_WIDE) == []
    for selector in selectors:
        assert contrast(*browser.execute_script(COLOURS, selector)) >= 4.5, selector
