"""The report's page: what is on it, that names stay text, what it does without predictions,
refusals, and how it looks in a browser."""

import base64

import numpy
import pytest

from results.render import render
from results.report.__main__ import main
from results.report.page import measured_tables
from results.runs import collect, group
from results.table import tables
from tests.chromium import assert_fits_and_is_readable, look
from tests.results.conftest import NASTY, Page, make_answers, values, write_curve, write_run
from tests.runs import write_answers


def test_tables_are_those_of_results_table_and_say_what_their_columns_mean(report, page):
    made = tables(collect(report))
    assert len(made) == 3
    for table in made:
        assert render(table, "html") in page.source and f"Accuracy, {table.title}" in page.text
    for name in ("H", "ECE", "adaptive ECE", "NLL", "Brier", "AURC", "error AUROC", "macro F1"):
        assert f"{name}: " in page.text


def test_every_kind_of_figure_is_in_the_page_and_once_beside_it(report, page):
    files = {path.stem: path.read_bytes() for path in (report / "out" / "page_figures").iterdir()}
    assert files.keys() >= {
        "curve-openmoji",
        "reliability-openmoji-base-classes-16-shots",
        "risk-openmoji-new-classes-16-shots",
        "vacuity-openmoji_corrupted-16-shots-cdc-tiny",
        "training-loss-openmoji-base-classes-16-shots",
    }
    sources = [image["src"].split(",") for image in page.all("img")]
    embedded = [base64.b64decode(content) for head, content in sources if "svg" in head]
    assert sorted(embedded) == sorted(files.values()) and len(embedded) == len(page.all("figure"))
    alts = [image["alt"] for image in page.all("img")]
    assert "Accuracy in percent on openmoji by shots. CoOp tiny: 1 58.5, 4 58.5." in alts
    assert all(map(str.strip, alts)), "pictures have their numbers in words"


def test_the_page_needs_nothing_from_elsewhere_and_its_links_lead_to_headings(page):
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes[name])
    assert not page.all("script") and "@import" not in page.source and "url(" not in page.source
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = {link["href"][1:] for link in page.all("a")}
    assert len(identifiers) == len(set(identifiers)) and links == set(identifiers)


def test_names_of_classes_images_models_and_data_are_text_in_page_and_file_names(page, tmp_path):
    for name in (*NASTY, "folder <1>/"):
        assert name in page.text
    assert "<script" not in page.source and "folder <" not in page.source
    facts = {"arrays": make_answers(1, templates=2), "data": "d&<i>$^$"}
    write_run(tmp_path / "r", "train_all", '<b>"M"&$\\frac$', 1, **facts)
    assert main([str(tmp_path / "r"), "--output", str(tmp_path / "page.html")]) == 0
    page = Page(tmp_path / "page.html")
    assert not page.all("b") and not page.all("i")
    assert '<b>"M"&$\\frac$ tiny' in page.text and "d&<i>$^$" in page.text
    assert (tmp_path / "page_figures" / "reliability-d-i.svg").is_file()


def test_without_predictions_there_are_tables_and_training_curves(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "runs", "train_base", "CDC", 1, "base")
    write_curve(folder, (1, 1.0, 50.0), (2, 0.5, 75.0))
    write_run(tmp_path / "runs", "test_new", "CDC", 1, "new", prompts_hash="others")
    write_run(tmp_path / "runs", "train_all", "CDC", 1, metrics={"val": {"accuracy": 50.0}})
    monkeypatch.chdir(tmp_path)
    pages = [main(["runs"]) or Page(tmp_path / "report.html") for _ in range(2)]
    text = pages[0].text
    assert pages[0].source == pages[1].source
    assert "Without predictions-test.npz: 3 of 3 runs" in text
    assert "CDC tiny, seed 1: its parts were tested" in text, "what tables warn of"
    assert "tests the all classes' val" in text and "Gallery" not in text
    assert {path.name for path in (tmp_path / "report_figures").iterdir()} == {
        "training-loss-openmoji-base-classes.svg",
        "training-acc-openmoji-base-classes.svg",
    }


def test_measured_tables_have_a_row_for_each_model_and_measure(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "train_base", "CDC", seed, "base", make_answers(seed))
    calibration, doubt = measured_tables(group(collect(tmp_path)))
    key = ("openmoji, base classes", "CDC tiny")
    expected = {"accuracy": [56, 59], "ECE": [11, 12], "adaptive ECE": [12, 13], "NLL": [2, 3]}
    assert values(calibration) == {key: {**expected, "Brier": [0.5, 0.5]}}
    of_doubt = {"AURC": [21, 22], "error AUROC": [71, 72]}  # energy has no error AUROC
    assert values(doubt) == {(*key, "max probability"): of_doubt}


# ---- refusals ----


def test_what_cannot_be_reported_on_is_named(tmp_path, error_of):
    """What can't be read: test_security.py, test_damaged_files.py."""

    def refused(*arguments):
        line = error_of(main, *arguments, "--output", tmp_path / "out" / "page.html")
        assert not (tmp_path / "out").exists()
        return line

    folder = write_run(tmp_path / "runs", "train_all", "CDC", 1, arrays=make_answers(1))
    path = folder / "predictions-test.npz"
    write_answers(folder, "test", {"label": numpy.arange(3)})
    assert refused(tmp_path).startswith(f"error: {path} lacks image, top, top_probability, max_")
    # not silently one of the two
    assert f"no results.json in or below {tmp_path}/no" in refused(folder, tmp_path / "no")
    path.unlink()
    assert "--root nowhere is not a folder" in refused(tmp_path, "--root", "nowhere")
    for seed in (2, 3):
        arrays = make_answers(seed, templates=seed)
        write_run(tmp_path / "more", "train_all", "CDC", seed, arrays=arrays)
    assert "have different settings (vote: " in refused(tmp_path / "more")


# ---- in a browser ----


@pytest.mark.parametrize("width, scheme", [(375, "dark"), (1280, "light")])
def test_in_a_browser_nothing_overflows_fails_or_is_hard_to_read(report, browser, width, scheme):
    look(browser, (report / "out" / "page.html").as_uri(), width, scheme)
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true"
    )
    assert browser.get_log("browser") == []
    selectors = ("body", "figcaption", ".soft", "a", ".wrong", ".right", "thead th", ".notes")
    assert_fits_and_is_readable(browser, width, selectors)
    images = browser.execute_script(
        "return Array.from(document.images, one => [one.alt, one.naturalWidth, one.clientWidth])"
    )
    assert images and all(alt and natural > 0 and shown > 250 for alt, natural, shown in images)
    darkest = browser.execute_script("""
        const one = document.images[0], canvas = document.createElement('canvas'), context = canvas.getContext('2d');
        context.drawImage(one, 0, 0, canvas.width = one.naturalWidth, canvas.height = one.naturalHeight);
        const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data, inks = [];
        for (let place = 0; place < pixels.length; place += 4)
            if (pixels[place + 3] > 250) inks.push(Math.max(pixels[place], pixels[place + 1], pixels[place + 2]));
        return Math.min(...inks)""")
    assert (darkest < 80) == (scheme == "light"), "the figures have the page's ink"
