"""The page in a browser: with mouse and keyboard, on a phone, in the dark."""

import threading
from types import SimpleNamespace

import pytest

from labelling.serve.answer import percent
from labelling.serve.demo import EXAMPLES
from labelling.serve.page import make_app, make_server
from tests.chromium import assert_fits_and_is_readable, look, next_page
from tests.labelling.serve.conftest import NASTY
from tests.runs import CLASSES


@pytest.fixture(scope="module")
def address(demo):
    """Of the page, served."""
    server = make_server(make_app(demo), 0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


@pytest.fixture
def window(browser, address):
    """The browser with a few helpers; afterwards it has asked no other host, and its console is
    empty."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    def one(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    def press(*keys):
        """Presses keys, one after the other, whatever has the focus."""
        ActionChains(browser).send_keys(*keys).perform()

    def submit(key="\ue007"):
        """Presses a key that sends the form, by default Enter, until the next page is there."""
        with next_page(browser):
            press(key)

    def focus():
        return browser.execute_script(
            "const one = document.activeElement; return one.id || one.value || one.className || one.tagName"
        )

    def focus_on(selector):
        browser.execute_script("arguments[0].focus()", one(selector))

    yield SimpleNamespace(
        driver=browser,
        look=lambda *more, path="/": look(browser, address + path, *more),
        one=one,
        press=press,
        submit=submit,
        focus=focus,
        focus_on=focus_on,
    )
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)"
    )
    assert loaded
    assert all(name.startswith((address, "data:")) for name in loaded)
    assert browser.get_log("browser") == []


def test_upload_a_picture_and_recover_from_a_mistake(window, demo, data_root, tmp_path):
    path = f"{data_root}/dtd/images/woven/13.png"
    (tmp_path / "notes.txt").write_text("no picture")
    window.look()
    for sent, focus in ((tmp_path / "notes.txt", "error"), (path, "SECTION")):
        window.one("#upload").send_keys(str(sent))
        window.focus_on(".ask")
        window.submit()
        assert window.focus() == focus
    answers = demo.classifier.predict(path)
    text = " ".join(window.one("body").text.split())
    assert f"{answers.labels[0]} {percent(answers.probabilities.max())}" in text
    assert window.driver.title.startswith(f"{answers.labels[0]}, ")
    loaded = "return Array.from(document.images).every(one => one.naturalWidth > 0)"
    assert window.driver.execute_script(loaded)


def test_it_works_with_the_keyboard_alone(window, demo):
    from selenium.webdriver.common.keys import Keys

    window.look()
    visited, outline = [], "return getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(3 + EXAMPLES):
        window.press(Keys.TAB)
        visited.append(window.focus())
        assert window.driver.execute_script(outline) == "solid", visited[-1]
    assert visited == ["upload", "classes", "ask", *demo.examples]
    window.submit()  # on the last example
    (label,) = demo.classifier.predict(demo.examples["example-8"][0]).labels
    assert window.one(".label strong").text == label
    assert window.focus() == "SECTION"
    window.focus_on("#classes")
    deleted = [Keys.DELETE] * (1 + len("\n".join(CLASSES)))
    window.press(*deleted, "cat", Keys.ENTER, "dog", Keys.TAB)
    window.submit(Keys.SPACE)  # on the button
    assert window.one(".label strong").text in ("cat", "dog")


@pytest.mark.parametrize("width, scheme", [(320, "dark"), (1280, "light")])
def test_nothing_overflows_or_is_hard_to_read(window, width, scheme):
    window.look(width, scheme, path="/?picture=example-8")
    everywhere = ("body", ".soft", ".ask", ".examples button", "textarea", "input[type=file]", "a")
    for names, selectors in (
        ("\n".join(NASTY), (".doubtful, .sure, .unknown", ".bars td", "dd")),
        ("x" * 300 + "\n" + "y" * 90, (".error",)),
    ):
        field = window.one("#classes")
        window.driver.execute_script("arguments[0].value = arguments[1]", field, names)
        window.focus_on(".ask")
        window.submit()
        assert_fits_and_is_readable(window.driver, width, (*everywhere, *selectors))
