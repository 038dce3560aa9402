"""The page's table: many pictures at once, what is corrected, and what is saved."""

import csv
import io
import threading
from types import SimpleNamespace

import pytest

import demo_app
from app import table as tables
from app.table import Table
from tests.app.conftest import Page, png
from tests.chromium import assert_fits_and_is_readable, look, next_page
from tests.runs import CLASSES


@pytest.fixture
def paths(data_root):
    return [f"{data_root}/dtd/images/{name}/13.png" for name in CLASSES]


@pytest.fixture
def own(demo):
    """A ``Demo`` with a table of its own."""
    return demo_app.Demo(demo.classifier, demo.judge)


def sent(paths, *broken):
    files = [(io.BytesIO(png(path)), f"{name}.png") for path, name in zip(paths, CLASSES)]
    return {"upload": [*files, *((io.BytesIO(b"no picture"), name) for name in broken)]}


def saved(response):
    text = response.get_data().decode()
    assert text.startswith("\ufeffimage,label,corrected,")
    assert response.headers["Content-Disposition"].startswith("attachment; filename=labels.csv")
    return {row["image"]: row for row in csv.DictReader(io.StringIO(text[1:]))}


def test_several_pictures_become_a_table_that_is_corrected_and_saved(own, paths):
    client = demo_app.make_app(own).test_client()
    assert client.post("/labels.csv").status_code == 404, "there is none yet"
    response = client.post("/", data=sent(paths, "notes.png"), content_type="multipart/form-data")
    assert (response.status_code, response.headers["Location"]) == (303, "/table")
    own.table.answer([("a\udcff.png", __file__)])  # as Python has a name that is no UTF-8
    page = Page(client.get("/table").text)
    assert "8 of 8 pictures answered" in page.text
    assert r"left out: notes.png, a\udcff.png" in page.text
    answers = own.classifier.predict(paths)
    queue = sorted(range(6), key=lambda number: -answers.uncertainty[number])
    fields = page.all("input", type="text")
    assert [field["name"] for field in fields] == [f"label-{number}" for number in queue]
    given = {field["name"]: field["value"] for field in fields}
    surest = queue[-1]
    given[f"label-{surest}"] = " quokka "
    page = Page(client.post("/table", data=given).text)
    assert f"Corrected; the answer was {answers.labels[surest]}" in page.text
    rows = saved(client.post("/labels.csv", data={}))
    for number, name in enumerate(CLASSES):
        row = rows[f"{name}.png"]
        doubtful = own.judge.doubtful(answers.uncertainty[number])
        label = "" if doubtful else answers.labels[number]
        expected = ("quokka", "True") if number == surest else (label, "False")
        assert (row["label"], row["corrected"]) == expected
        assert row["class_1"] == answers.labels[number]
    taken_back = {f"label-{surest}": "", "label-x": "a", "label-99": "a", "classes": "a"}
    assert "True" not in {
        row["corrected"] for row in saved(client.post("/labels.csv", data=taken_back)).values()
    }
    error = Page(client.post("/table", data={"label-0": "x" * 201}).text).error
    assert error == "A label has 201 characters: give at most 200."
    assert client.get("/pictures/row-5").mimetype == "image/jpeg"
    assert client.get("/pictures/row-6").status_code == 404


def test_pages_hold_the_least_certain_first_and_every_picture_once(own, paths, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 4)
    monkeypatch.setattr(tables, "BATCH", 4)
    table = Table(own.classifier, own.judge, own.lock)
    asked = []
    predict = own.classifier.predict

    def counting(images):
        asked.append((len(images), table.done, table.expected))
        return predict(images)

    monkeypatch.setattr(own.classifier, "predict", counting)
    table.answer([(path, path) for path in paths])
    assert asked == [(4, 0, 6), (2, 4, 6)], "it can be watched how many are answered"
    both = [*table.page(1), *table.page(2)]
    assert table.pages == 2 and sorted(place for place, _ in both) == [*range(6)]
    doubts = [entry.row["uncertainty"] for _, entry in both]
    assert doubts == sorted(doubts, reverse=True)


def test_a_folder_of_the_command_is_answered_while_the_page_is_there(
    folder, paths, monkeypatch, tmp_path, error_of
):
    begun = []

    def make_thread(target, args, daemon):
        assert daemon
        return SimpleNamespace(start=lambda: begun.append(lambda: target(*args)))

    def make_server(app, port):
        client = app.test_client()

        def serve():
            assert "pictures answered" not in client.get("/").text
            begun[0]()
            assert "6 of 6 pictures answered" in client.get("/").text

        return SimpleNamespace(effective_port=port, run=serve)

    monkeypatch.setattr(demo_app, "threading", SimpleNamespace(Thread=make_thread))
    monkeypatch.setattr(demo_app, "make_server", make_server)
    assert demo_app.main(["--run", folder, *paths]) == 0
    assert "there is no image to label" in error_of(demo_app.main, tmp_path, "--run", folder)


@pytest.mark.parametrize("width", [320, 1280])
def test_the_table_in_a_browser_fits_and_is_readable(own, paths, browser, width):
    server = demo_app.make_server(demo_app.make_app(own), 0)
    threading.Thread(target=server.run, daemon=True).start()
    address = f"http://127.0.0.1:{server.effective_port}"
    look(browser, address, width)
    field = browser.find_element("css selector", "#upload")
    field.send_keys("\n".join(paths))
    with next_page(browser):
        browser.find_element("css selector", ".ask").click()
    first = browser.find_element("css selector", ".rows input")
    first.clear()
    first.send_keys("quokka")
    with next_page(browser):
        browser.find_element("css selector", ".actions button").click()
    assert browser.current_url.endswith("/table")
    assert own.table.page(1)[0][1].correction == "quokka"
    assert_fits_and_is_readable(browser, width, ("body", ".soft", ".ask", ".rows label", "a"))
    assert browser.get_log("browser") == []
    server.close()
