"""The report's page: what is on it, that names stay text, what it does without predictions, refusals, and how it looks in a browser."""

import base64
import shutil
import subprocess

import numpy
import pytest

from results.render import render
from results.report.__main__ import main
from results.report.page import MEANINGS, make_report, measured_tables
from results.runs import collect, group
from results.table import tables
from tests.chromium import contrast
from tests.conftest import REPOSITORY
from tests.results.conftest import NASTY, Page, make_answers, values, write_curve, write_run


def no_figures(*_):
    return ()


def test_tables_are_those_of_results_table_and_say_what_their_columns_mean(report, page):
    made = tables(collect(report))
    assert len(made) == 3
    for table in made:
        assert render(table, "html") in page.source and f"Accuracy, {table.title}" in page.text
    for name in ("H", "ECE", "adaptive ECE", "NLL", "Brier", "AURC", "error AUROC", "macro F1"):
        assert f"{name}: {MEANINGS[name]}" in page.text


def test_every_kind_of_figure_is_in_the_page_and_once_beside_it(report, page):
    folder = report / "out" / "page_figures"
    stems = {path.stem for path in folder.iterdir()}
    for kind in (
        "bars-openmoji",
        "curve-openmoji",
        "reliability-openmoji-base-classes-16-shots",
        "risk-openmoji-new-classes-16-shots",
        "vacuity-openmoji_corrupted-16-shots-cdc-tiny",
        "training-loss-openmoji-base-classes-16-shots",
    ):
        assert kind in stems
    embedded = [
        base64.b64decode(image["src"].split(",")[1])
        for image in page.all("img")
        if image["src"].startswith("data:image/svg")
    ]
    assert len(embedded) == len(stems) == len(page.all("figure"))
    assert set(embedded) == {path.read_bytes() for path in folder.glob("*.svg")}


def test_pictures_have_their_numbers_in_words(page):
    (bars,) = [image["alt"] for image in page.all("img") if image["alt"].startswith("Bars")]
    assert bars == (
        "Bars of the accuracy in percent on openmoji. CDC tiny: base 57.5, new 57.5, H 57.5; "
        "CoOp tiny: base 58.5, new 58.5, H 58.5."
    )
    assert all(image["alt"].strip() for image in page.all("img"))


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


def test_the_same_runs_make_the_same_page(tmp_path):
    write_run(tmp_path / "runs", "train_base", "CDC", 1, "base", make_answers(1, templates=2))
    pages = []
    for _ in range(2):
        make_report([tmp_path / "runs"], tmp_path / "page.html", no_figures)
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1] and b"Report on 1 run<" in pages[0]


def test_without_predictions_there_are_tables_and_training_curves(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "runs", "train_base", "CDC", 1, "base")
    write_curve(folder, (1, 1.0, 50.0), (2, 0.5, 75.0))
    write_run(tmp_path / "runs", "test_new", "CDC", 1, "new", prompts_hash="others")
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    page = Page(tmp_path / "report.html")
    assert "2 of 2 runs have no predictions-test.npz" in page.text and "Gallery" not in page.text
    assert "CDC tiny, seed 1: its parts were tested" in page.text, "what tables warn of"
    assert {path.name for path in (tmp_path / "report_figures").iterdir()} == {
        "training-loss-openmoji-base-classes.svg",
        "training-acc-openmoji-base-classes.svg",
    }


def test_runs_without_test_metrics_are_listed_and_make_no_table(tmp_path):
    write_run(tmp_path / "runs", "train_all", "CDC", 1, metrics={"val": {"accuracy": 50.0}})
    make_report([tmp_path / "runs"], tmp_path / "page.html", no_figures)
    page = Page(tmp_path / "page.html")
    assert "tests the all classes' val" in page.text and len(page.all("table")) == 1


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


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs the command and returns its one line of error; fails if it does not refuse or writes anything."""

    def start(*arguments):
        assert main([*map(str, arguments), "--output", str(tmp_path / "out" / "page.html")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists()
        return line

    return start


def test_folders_without_runs_are_refused(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        assert refused(tmp_path / name) == (
            f"error: no results.json in or below {tmp_path / name}: give the folder of a finished "
            "run, or one that holds such folders"
        )
    write_run(tmp_path / "runs", "train_all", "CDC", 1)
    assert "below" in refused(tmp_path / "runs", tmp_path / "empty")  # not silently one of the two


def test_files_that_cannot_be_read_are_named(tmp_path, refused):
    folder = write_run(tmp_path, "train_all", "CDC", 1, arrays=make_answers(1))
    path = folder / "predictions-test.npz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no archive"):
        path.write_bytes(content)
        assert refused(tmp_path).startswith(f"error: {path} can't be read (")
    numpy.savez(path, label=numpy.arange(3))
    assert refused(tmp_path).startswith(f"error: {path} lacks image, top, top_probability, max_")
    numpy.savez(path, label=numpy.array([{}], dtype=object))
    assert f"{path} can't be read" in refused(tmp_path)  # a pickle is not opened
    (folder / "results.json").write_text("{")
    assert "is not a valid run record" in refused(tmp_path)


def test_a_root_that_is_no_folder_is_refused(tmp_path, refused):
    write_run(tmp_path, "train_all", "CDC", 1)
    nowhere = tmp_path / "nowhere"
    assert refused(tmp_path, "--root", nowhere).startswith(
        f"error: --root {nowhere} is not a folder: "
    )


def test_seeds_with_different_numbers_of_templates_are_refused(tmp_path, refused):
    for seed in (1, 2):
        write_run(tmp_path, "train_all", "CDC", seed, arrays=make_answers(seed, templates=1 + seed))
    assert "have different settings (vote: " in refused(tmp_path)


# ---- in a browser ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser_nothing_overflows_fails_or_is_hard_to_read(report, browser, width, scheme):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((report / "out" / "page.html").as_uri())
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true"
    )
    assert browser.execute_script("return innerWidth") == width and browser.get_log("browser") == []
    too_wide = browser.execute_script("""
        const width = document.documentElement.clientWidth, found = document.documentElement.scrollWidth > width ? ['page'] : [];
        for (const one of document.body.querySelectorAll('*')) {
            const {left, right} = one.getBoundingClientRect();
            if (!one.parentElement.closest('.scroll') && (right > width + 0.5 || left < 0)) found.push(one.outerHTML.slice(0, 200));
        }
        return found""")
    assert too_wide == []
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
    for selector in ("body", "figcaption", ".soft", "a", ".wrong", ".right", "thead th", ".notes"):
        ink, paper = browser.execute_script(
            """
            let one = document.querySelector(arguments[0]); const ink = getComputedStyle(one).color;
            while (getComputedStyle(one).backgroundColor == 'rgba(0, 0, 0, 0)') one = one.parentElement;
            return [ink, getComputedStyle(one).backgroundColor]""",
            selector,
        )
        assert contrast(ink, paper) >= 4.5, selector


# ---- the script that brings the browser ----


def install(folder, **programs):
    """Runs the script where there are only these programs: name → body."""
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        [shutil.which("bash"), str(REPOSITORY / "scripts" / "install_browser.sh")],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_a_browser_that_is_there_is_left_alone(tmp_path):
    assert install(tmp_path, chromium="", chromedriver="", **{"apt-get": "exit 9"}).returncode == 0


def test_a_browser_that_cannot_be_installed_is_an_error(tmp_path):
    done = install(tmp_path, chromium="")
    assert done.returncode == 1 and done.stderr.startswith("error: no apt-get here")
    for name, body, message in (
        ("fails", "exit 9", ""),
        ("brings nothing", "exit 0", "error: installed, but there is no chromium"),
    ):
        (tmp_path / name).mkdir()
        programs = {"id": "echo 0", "env": f'exec {shutil.which("env")} "$@"', "apt-get": body}
        done = install(tmp_path / name, **programs)
        assert done.returncode != 0 and done.stderr.startswith(message)
