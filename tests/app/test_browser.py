"""demo_app.py's page in a browser: with mouse, keyboard and screen reader, on a phone, in the dark."""

import threading
from types import SimpleNamespace

import pytest

import demo_app
from app import demo as asked
from app.answer import percent
from tests.app.conftest import NASTY
from tests.chromium import assert_fits_and_is_readable, look, next_page
from tests.runs import CLASSES


@pytest.fixture(scope="module")
def address(demo):
    """Of the page, served."""
    server = demo_app.make_server(demo_app.make_app(demo), 0)
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

    def press_and_wait(key):
        """Presses a key that sends the form, until the next page is there."""
        with next_page(browser):
            press(key)

    def submit():
        browser.execute_script("arguments[0].focus()", one(".ask"))
        press_and_wait("\ue007")  # Enter

    def focus():
        return browser.execute_script(
            "const one = document.activeElement; return one.id || one.value || one.className || one.tagName"
        )

    def text():
        return " ".join(one("body").text.split())

    yield SimpleNamespace(
        driver=browser,
        look=lambda *more, path="/": look(browser, address + path, *more),
        one=one,
        press=press,
        press_and_wait=press_and_wait,
        submit=submit,
        focus=focus,
        text=text,
    )
    asked = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)"
    )
    assert asked and all(name.startswith((address, "data:")) for name in asked)
    assert browser.get_log("browser") == []


def test_upload_a_picture_and_recover_from_a_mistake(window, demo, data_root, tmp_path):
    path = f"{data_root}/dtd/images/woven/13.png"
    (tmp_path / "notes.txt").write_text("no picture")
    window.look()
    for sent, focus in ((tmp_path / "notes.txt", "error"), (path, "SECTION")):
        window.one("#upload").send_keys(str(sent))
        window.submit()
        assert window.focus() == focus
    answers = demo.classifier.predict(path)
    assert f"{answers.labels[0]} {percent(answers.probabilities.max())}" in window.text()
    assert window.driver.title.startswith(f"{answers.labels[0]}, ")
    loaded = "return Array.from(document.images).every(one => one.naturalWidth > 0)"
    assert window.driver.execute_script(loaded)


def test_it_works_with_the_keyboard_alone(window, demo):
    from selenium.webdriver.common.keys import Keys

    window.look()
    visited, outline = [], "return getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(3 + asked.EXAMPLES):
        window.press(Keys.TAB)
        visited.append(window.focus())
        assert window.driver.execute_script(outline) == "solid", visited[-1]
    assert visited == ["upload", "classes", "ask", *demo.examples]
    window.press_and_wait(Keys.ENTER)  # on the last example
    (label,) = demo.classifier.predict(demo.examples["example-8"][0]).labels
    assert window.one(".label strong").text == label and window.focus() == "SECTION"
    for _ in range(20):
        if window.focus() != "classes":
            window.press(Keys.SHIFT, Keys.TAB, Keys.NULL)
    deleted = [Keys.DELETE] * (1 + len("\n".join(CLASSES)))
    window.press(*deleted, "cat", Keys.ENTER, "dog", Keys.TAB)
    window.press_and_wait(Keys.SPACE)  # on the button
    assert window.one(".label strong").text in ("cat", "dog")
    assert window.one("#classes").text.split() == ["cat", "dog"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_overflows_or_is_hard_to_read(window, width, scheme):
    window.look(width, scheme, path="/?picture=example-8")
    everywhere = ("body", ".soft", ".ask", ".examples button", "textarea", "input[type=file]", "a")
    for names, selectors in (
        ("\n".join(NASTY), (".doubtful, .sure, .unknown", ".bars td", "dd")),
        ("x" * 300 + "\n" + "y" * 90, (".error",)),
    ):
        window.driver.execute_script(
            "arguments[0].value = arguments[1]", window.one("#classes"), names
        )
        window.submit()
        assert_fits_and_is_readable(window.driver, width, (*everywhere, *selectors))


def test_every_control_has_a_name_for_screen_readers(window):
    window.look(path="/?picture=example-2")
    tree = window.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {}
    for node in (node for node in tree if not node.get("ignored")):
        name = node.get("name", {}).get("value", "")
        named.setdefault(node["role"]["value"], []).append(name)
    assert named["textbox"] == ["Class names"] and named["region"] == ["Answer"]
    assert named["heading"][:3] == ["Try a run", "Question", "Answer"]
    for start in ("Picture", "Ask", "Example 1: "):
        assert any(name.startswith(start) for name in named["button"])
    for role in ("button", "link", "image", "table", "rowheader"):
        assert all(name.strip() for name in named.get(role, ())), role


def test_a_picture_can_be_dropped(window, data_root):
    window.look()
    place = window.driver.execute_script("""
        const {x, y} = document.querySelector('#upload').getBoundingClientRect();
        return {x: x + 40, y: y + 20}""")
    for kind in ("dragEnter", "dragOver", "drop"):
        window.driver.execute_cdp_cmd(
            "Input.dispatchDragEvent",
            {
                "type": kind,
                **place,
                "data": {
                    "items": [],
                    "files": [f"{data_root}/dtd/images/grid/14.png"],
                    "dragOperationsMask": 1,
                },
            },
        )
    assert (
        window.driver.execute_script("return document.querySelector('#upload').files[0].name")
        == "14.png"
    )
    window.submit()
    assert window.one(".label").is_displayed()
