"""demo_app.py's page in a browser: with mouse, keyboard and screen reader, on a phone, in the dark."""

import threading
from types import SimpleNamespace

import pytest

import demo_app
from app import demo as asked
from app.answer import percent
from tests.app.conftest import CLASSES, NASTY
from tests.chromium import contrast


@pytest.fixture(scope="module")
def address(demo):
    """Of the page, served."""
    server = demo_app.make_server(demo_app.make_app(demo), 0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


@pytest.fixture
def window(browser, address):
    """The browser with a few helpers; afterwards it has asked no other host, and its console is empty."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def look(width=1280, scheme="light", path="/"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.get(address + path)

    def one(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    def press(*keys):
        """Presses keys, one after the other, whatever has the focus."""
        ActionChains(browser).send_keys(*keys).perform()

    def press_and_wait(key):
        """Presses a key that sends the form, until the next page is there."""
        browser.execute_script("document.body.dataset.old = ''")
        press(key)
        WebDriverWait(browser, 20).until(
            lambda _: browser.execute_script(
                "return document.readyState == 'complete' && document.body.dataset.old === undefined"
            )
        )

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
        look=look,
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


def test_upload_edit_classes_read_the_answer_and_recover_from_mistakes(
    window,
    demo,
    data_root,
    tmp_path,
):
    path = f"{data_root}/dtd/images/woven/13.png"
    window.look()
    window.one("#upload").send_keys(path)
    window.submit()
    answers = demo.classifier.predict(path)
    assert f"{answers.labels[0]} {percent(answers.probabilities.max())}" in window.text()
    assert window.focus() == "SECTION" and window.driver.title.startswith(f"{answers.labels[0]}, ")
    assert window.driver.execute_script(
        "return Array.from(document.images).every(one => one.naturalWidth > 0)"
    )

    (tmp_path / "notes.txt").write_text("no picture")
    window.one("#upload").send_keys(str(tmp_path / "notes.txt"))
    window.submit()
    assert (
        window.one("[role=alert]").text.startswith("'notes.txt' cannot be read as a picture")
        and window.focus() == "error"
    )

    window.one("#upload").send_keys(path)
    window.one("#classes").clear()
    window.submit()
    assert (
        window.one("[role=alert]").text == "There is no class name: give at least two, one a line."
    )
    window.one("#classes").send_keys("cat\nDog")
    window.submit()  # the picture was kept
    other = demo.classifier.with_classes(["cat", "Dog"]).predict(path)
    assert (
        f"{other.labels[0]} {percent(other.probabilities.max())}" in window.text()
        and "is not known" in window.text()
    )


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


def test_it_works_with_the_keyboard_alone(window, demo):
    from selenium.webdriver.common.keys import Keys

    window.look()
    visited = []
    for _ in range(3 + asked.EXAMPLES):
        window.press(Keys.TAB)
        visited.append(window.focus())
        assert (
            window.driver.execute_script(
                "return getComputedStyle(document.activeElement).outlineStyle"
            )
            == "solid"
        ), visited[-1]
    assert visited == ["upload", "classes", "ask", *demo.pictures.examples]
    window.press_and_wait(Keys.ENTER)  # on the last example
    (label,) = demo.classifier.predict(demo.pictures.examples["example-8"][0]).labels
    assert window.one(".label strong").text == label and window.focus() == "SECTION"
    backwards = 0
    while window.focus() != "classes":
        window.press(Keys.SHIFT, Keys.TAB, Keys.NULL)
        backwards += 1
        assert backwards < 20
    window.press(
        Keys.DELETE, *[Keys.DELETE] * len("\n".join(CLASSES)), "cat", Keys.ENTER, "dog", Keys.TAB
    )
    window.press_and_wait(Keys.SPACE)  # on the button
    assert window.one(".label strong").text in ("cat", "dog") and window.one(
        "#classes"
    ).text.split() == ["cat", "dog"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_overflows_or_is_hard_to_read(window, width, scheme):
    window.look(width, scheme, "/?picture=example-8")
    window.driver.execute_script(
        "arguments[0].value = arguments[1]", window.one("#classes"), "\n".join(NASTY)
    )
    window.submit()
    everywhere = ("body", ".soft", ".ask", ".examples button", "textarea", "input[type=file]", "a")
    for selectors in (
        (*everywhere, ".doubtful, .sure, .unknown", ".bars td", "dd"),
        (*everywhere, ".error"),
    ):
        too_wide = window.driver.execute_script("""
            const width = document.documentElement.clientWidth, found = document.documentElement.scrollWidth > width ? ['page'] : [];
            for (const one of document.body.querySelectorAll('*')) {
                const {left, right} = one.getBoundingClientRect();
                if (right > width + 0.5 || left < 0) found.push(one.outerHTML.slice(0, 200));
            }
            return found""")
        assert too_wide == [] and window.driver.execute_script("return innerWidth") == width
        for selector in selectors:
            ink, paper = window.driver.execute_script(
                """
                let one = document.querySelector(arguments[0]); const ink = getComputedStyle(one).color;
                while (getComputedStyle(one).backgroundColor == 'rgba(0, 0, 0, 0)') one = one.parentElement;
                return [ink, getComputedStyle(one).backgroundColor]""",
                selector,
            )
            assert contrast(ink, paper) >= 4.5, selector
        window.driver.execute_script(
            "arguments[0].value = arguments[1]", window.one("#classes"), "x" * 300 + "\n" + "y" * 90
        )
        window.submit()


def test_every_control_has_a_name_for_screen_readers(window):
    window.look(path="/?picture=example-2")
    tree = window.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {}
    for node in tree:
        if not node.get("ignored"):
            named.setdefault(node["role"]["value"], []).append(
                node.get("name", {}).get("value", "")
            )
    assert named["textbox"] == ["Class names"] and named["heading"][:3] == [
        "Try a run",
        "Question",
        "Answer",
    ]
    assert any(name.startswith("Picture") for name in named["button"]) and "Ask" in named["button"]
    assert [name for name in named["button"] if name.startswith("Example ")][0].startswith(
        "Example 1: "
    ) and named["region"] == ["Answer"]
    for role in ("button", "link", "image", "table", "rowheader"):
        assert all(name.strip() for name in named.get(role, ())), role
