"""The page's table: many pictures at once, what is corrected, and what is saved."""

import csv
import io
import threading
from types import SimpleNamespace

import pytest

import demo_app
from labelling.page import table as tables
from labelling.page.table import AnsweredPictures
from tests.chromium import assert_fits_and_is_readable, look, next_page
from tests.labelling.page.conftest import Page, png
from tests.runs import CLASSES


@pytest.fixture
def paths(data_root):
    return [f"{data_root}/dtd/images/{name}/13.png" for name in CLASSES]


@pytest.fixture
def own(demo):
    """A ``Demo`` with a table of its own."""
    return demo_app.Demo(demo.classifier, demo.threshold)


@pytest.fixture
def client(own):
    return demo_app.make_app(own).test_client()


@pytest.fixture
def answered(own, client, paths):
    """The answers to one picture of each class, which the table has, beside one that is none."""
    files = [(io.BytesIO(png(path)), f"{name}.png") for path, name in zip(paths, CLASSES)]
    form = {"upload": [*files, (io.BytesIO(b"no picture"), "notes.png")]}
    response = client.post("/", data=form, content_type="multipart/form-data")
    assert (response.status_code, response.headers["Location"]) == (303, "/table")
    return own.classifier.predict(paths)


def saved(client, **form):
    """Rows of the file by image."""
    response = client.post("/labels.csv", data=form)
    assert response.headers["Content-Disposition"].startswith("attachment; filename=labels.csv")
    text = response.get_data().decode("utf-8-sig")
    assert text.startswith("image,label,corrected,")
    return {row["image"]: row for row in csv.DictReader(io.StringIO(text))}


def test_several_pictures_become_a_table_the_least_certain_first(client, answered):
    page = Page(client.get("/table").text)
    assert "7 of 7 pictures answered" in page.text
    assert "left out: notes.png" in page.text
    queue = sorted(range(6), key=lambda number: -answered.uncertainty[number])
    names = [field["name"] for field in page.all("input", type="text")]
    assert names == [f"label-{number}" for number in queue]
    assert client.get("/pictures/row-5").mimetype == "image/jpeg"
    assert client.get("/pictures/row-6").status_code == 404


def test_what_is_corrected_is_saved_and_can_be_taken_back(own, client, answered):
    page = Page(client.post("/table", data={"label-2": " quokka "}).text)
    assert f"Corrected; the answer was {answered.labels[2]}" in page.text
    rows = saved(client)
    for number, name in enumerate(CLASSES):
        doubtful = own.threshold.rejects(answered.uncertainty[number])
        label = "" if doubtful else answered.labels[number]
        expected = ("quokka", "True") if number == 2 else (label, "False")
        row = rows[f"{name}.png"]
        assert (row["label"], row["corrected"]) == expected
        assert row["class_1"] == answered.labels[number]
    rows = saved(client, **{"label-2": "", "label-99": "a", "classes": "a"})
    assert {row["corrected"] for row in rows.values()} == {"False"}


def test_an_empty_table_is_not_saved(client):
    assert client.post("/labels.csv").status_code == 404


def test_a_label_that_is_too_long_is_refused(client, answered):
    error = Page(client.post("/table", data={"label-0": "x" * 201}).text).error
    assert error == "A label has 201 characters: give at most 200."


def test_pages_hold_the_least_certain_first_and_every_picture_once(own, paths, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 4)
    monkeypatch.setattr(tables, "BATCH", 4)
    table = AnsweredPictures(own.classifier, own.threshold, own.lock)
    asked = []
    predict = own.classifier.predict

    def counting(images):
        asked.append((len(images), table.done, table.expected))
        return predict(images)

    monkeypatch.setattr(own.classifier, "predict", counting)
    table.answer([(path, path) for path in paths])
    assert asked == [(4, 0, 6), (2, 4, 6)], "it can be watched how many are answered"
    assert table.pages == 2
    both = [*table.page(1), *table.page(2)]
    assert sorted(place for place, _ in both) == [*range(6)]
    doubts = [entry.row["uncertainty"] for _, entry in both]
    assert doubts == sorted(doubts, reverse=True)


def test_a_folder_of_the_command_is_answered_while_the_page_is_there(
    folder, paths, monkeypatch, tmp_path, error_of
):
    begun = []

    def make_thread(target, args, daemon):
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


@pytest.mark.parametrize("width", [320, pytest.param(1280, marks=pytest.mark.slow)])
def test_the_table_in_a_browser_fits_and_is_readable(own, paths, browser, width):
    server = demo_app.make_server(demo_app.make_app(own), 0)
    threading.Thread(target=server.run, daemon=True).start()
    look(browser, f"http://127.0.0.1:{server.effective_port}", width)
    browser.find_element("css selector", "#upload").send_keys("\n".join(paths))
    with next_page(browser):
        browser.find_element("css selector", ".ask").click()
    first = browser.find_element("css selector", ".rows input")
    first.clear()
    first.send_keys("quokka")
    with next_page(browser):
        browser.find_element("css selector", ".actions button").click()
    assert own.table.page(1)[0][1].correction == "quokka"
    assert_fits_and_is_readable(browser, width, ("body", ".soft", ".ask", ".rows label", "a"))
    assert browser.get_log("browser") == []
    server.close()
