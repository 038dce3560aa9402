"""The report's page: what is on it, that names stay text, what it does without predictions,
refusals, and how it looks in a browser."""

import base64

import numpy
import pytest

from report.__main__ import main
from report.tables import measured_tables
from results.render import render
from results.runs import collect, group
from results.table import tables
from tests.chromium import assert_fits_and_is_readable, look
from tests.results.conftest import NASTY, Page, make_answers, values, write_curve, write_run
from tests.runs import call, write_answers


def test_tables_are_those_of_results_table_and_say_what_their_columns_mean(report, page):
    made = tables(collect(report))
    assert len(made) == 3
    for table in made:
        assert render(table, "html") in page.source
    for name in ("H", "ECE", "adaptive ECE", "NLL", "Brier", "AURC", "error AUROC", "macro F1"):
        assert f"{name}: " in page.text


def test_every_kind_of_figure_is_in_the_page_with_its_numbers_in_words_and_once_beside_it(
    report, page
):
    files = {path.stem: path.read_bytes() for path in (report / "out" / "page_figures").iterdir()}
    kinds = {name.split("-")[0] for name in files}
    assert kinds == {"curve", "reliability", "risk", "vacuity", "training"}
    images = [image for image in page.all("img") if "svg" in image["src"]]
    embedded = [base64.b64decode(image["src"].split(",")[1]) for image in images]
    assert sorted(embedded) == sorted(files.values())
    alts = [image["alt"] for image in page.all("img")]
    assert "Accuracy in percent on openmoji by shots. CoOp tiny: 1 58.5, 4 58.5." in alts
    assert all(map(str.strip, alts))


def test_the_page_needs_nothing_from_elsewhere_and_its_links_lead_to_headings(page):
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes[name])
    assert not page.all("script")
    assert "@import" not in page.source
    assert "url(" not in page.source
    links = {link["href"][1:] for link in page.all("a")}
    assert links == {attributes["id"] for _, attributes in page.tags if "id" in attributes}


def test_names_of_classes_images_models_and_data_are_text_in_page_and_file_names(page, tmp_path):
    for name in (*NASTY, "folder <1>/"):
        assert name in page.text
    assert "<script" not in page.source
    assert "folder <" not in page.source
    facts = {"arrays": make_answers(1, templates=2), "data": "d&<i>$^$"}
    write_run(tmp_path / "r", "train_all", '<b>"M"&$\\frac$', 1, **facts)
    assert call(main, tmp_path / "r", "--output", tmp_path / "page.html") == 0
    page = Page(tmp_path / "page.html")
    assert not page.all("b")
    assert not page.all("i")
    assert '<b>"M"&$\\frac$ tiny' in page.text
    assert "d&<i>$^$" in page.text
    assert (tmp_path / "page_figures" / "reliability-d-i.svg").is_file()


def test_without_predictions_there_are_tables_training_curves_and_warnings(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "runs", "train_base", "CDC", 1, "base")
    write_curve(folder, (1, 1.0, 50.0), (2, 0.5, 75.0))
    write_run(tmp_path / "runs", "test_new", "CDC", 1, "new", prompts_hash="others")
    monkeypatch.chdir(tmp_path)
    assert call(main, "runs") == 0
    text = Page(tmp_path / "report.html").text
    assert "Without predictions-test.npz: 2 of 2 runs" in text
    assert "CDC tiny, seed 1: its parts were tested" in text, "what tables warn of"
    assert "Gallery" not in text
    assert {path.name for path in (tmp_path / "report_figures").iterdir()} == {
        "training-loss-openmoji-base-classes.svg",
        "training-acc-openmoji-base-classes.svg",
    }


def test_measured_tables_have_a_row_for_each_model_and_measure(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "train_base", "CDC", seed, "base")
    calibration, uncertainty = measured_tables(group(collect(tmp_path)))
    key = ("openmoji, base classes", "CDC tiny")
    expected = {"accuracy": [56, 59], "ECE": [11, 12], "adaptive ECE": [12, 13], "NLL": [2, 3]}
    assert values(calibration) == {key: {**expected, "Brier": [0.5, 0.5]}}
    expected = {"AURC": [21, 22], "error AUROC": [71, 72]}  # energy has no error AUROC
    assert values(uncertainty) == {(*key, "max probability"): expected}


# ---- refusals ----


def test_what_cannot_be_reported_on_is_named_and_nothing_written(tmp_path, error_of):
    """What can\'t be read: test_security.py, test_damaged_files.py."""

    def refused(*arguments):
        line = error_of(main, *arguments, "--output", tmp_path / "out" / "page.html")
        assert not (tmp_path / "out").exists()
        return line

    folder = write_run(tmp_path / "runs", "train_all", "CDC", 1, arrays=make_answers(1))
    nothing = tmp_path / "no"
    assert f"no results.json in or below {nothing}" in refused(folder, nothing)
    assert "--root nowhere is not a folder" in refused(folder, "--root", "nowhere")
    write_answers(folder, "test", {"label": numpy.arange(3)})
    path = folder / "predictions-test.npz"
    assert refused(folder).startswith(f"error: {path} lacks image, top, top_probability, max_")
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
    selectors = ("body", "figcaption", ".soft", "a", ".wrong", ".right", "thead th", ".notes")
    assert_fits_and_is_readable(browser, width, selectors)
    shown = "return Array.from(document.images).every(one => one.naturalWidth > 0)"
    assert browser.execute_script(shown)
    assert browser.get_log("browser") == []
