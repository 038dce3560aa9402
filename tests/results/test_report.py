"""The report's page: what is on it, that names stay text, what it does without predictions, refusals, and how it looks in a browser."""

import base64
import shutil
import statistics
import subprocess

import numpy
import pytest
from PIL import Image

from analysis.inspection import inspect_all
from results.render import render
from results.report.__main__ import main
from results.report.page import make_report
from results.table import collect
from tests.chromium import contrast
from tests.conftest import REPOSITORY
from tests.results.conftest import NASTY, Page, make_answers, write_curve, write_run


def test_tables_are_those_of_results_table(report, page):
    for folder in ("base2new", "transfer", "fewshot"):
        for table in collect(report / folder):
            assert render(table, "html") in page.source
    text = " ".join(page.text.split())
    h = [2 * 56 * 56 / 112, 2 * 59 * 59 / 118]  # of CDC: base and new have 50 + 3 · seed + 3
    assert f"{statistics.mean(h):.2f} ± {statistics.stdev(h):.2f}" in text
    assert (
        "Accuracy, base-to-new (base2new)" in text
        and "Accuracy, few-shot, by shots (fewshot)" in text
    )


def test_every_kind_of_figure_is_in_the_page_and_beside_it_for_light_and_dark(report, page):
    pictures = list(
        zip(
            page.all("source"),
            [image for image in page.all("img") if image["src"].startswith("data:image/svg")],
        )
    )
    folder = report / "out" / "page_figures"
    stems = {path.stem for path in folder.glob("*.svg")}
    assert stems == {path.stem for path in folder.glob("*.png")} and len(pictures) == len(
        stems
    ) / 2 == len(page.all("figure"))
    for kind in (
        "bars-openmoji",
        "curve-openmoji",
        "reliability-openmoji-base-classes-16-shots",
        "risk-openmoji-new-classes-16-shots",
        "vacuity-openmoji_corrupted-16-shots-cdc-tiny",
        "vacuity-by-data-openmoji-base-classes-16-shots-cdc-tiny",
        "agreement-openmoji-new-classes-16-shots-cdc-tiny",
        "kappa-openmoji-base-classes-16-shots-cdc-tiny",
        "training-loss-openmoji-base-classes-16-shots",
    ):
        assert {kind, f"{kind}-dark"} <= stems
    embedded = {
        base64.b64decode(uri.split(",")[1])
        for source, image in pictures
        for uri in (source["srcset"], image["src"])
    }
    assert embedded == {path.read_bytes() for path in folder.glob("*.svg")}
    assert all(
        source["media"] == "(prefers-color-scheme: dark)" and source["srcset"] != image["src"]
        for source, image in pictures
    )
    light, dark = (
        numpy.asarray(Image.open(folder / f"bars-openmoji{end}.png").convert("L"))
        for end in ("", "-dark")
    )
    assert light[0, 0] == 255 and dark[0, 0] < 40
    assert not list((report / "out").rglob("*.tmp"))


def test_pictures_have_their_numbers_in_words(page):
    (bars,) = [image["alt"] for image in page.all("img") if image["alt"].startswith("Bars")]
    assert bars == (
        "Bars of the accuracy in percent on openmoji. CDC tiny: base 57.5, new 57.5, H 57.5; "
        "CoOp tiny: base 58.5, new 58.5, H 58.5."
    )
    assert all(image["alt"].strip() for image in page.all("img"))


def test_the_page_needs_nothing_from_elsewhere(page):
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes[name])
    assert not page.all("script") and "@import" not in page.source and "url(" not in page.source


def test_links_lead_to_headings_and_identifiers_are_unique(page):
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers)) and {
        link["href"][1:] for link in page.all("a")
    } == set(identifiers)


def test_names_are_text_whatever_they_hold(page):
    for name in (*NASTY, "folder <1>/"):
        assert name in page.text
    assert "<script" not in page.source and "folder <" not in page.source


def test_names_of_models_and_data_are_text_in_tables_figures_and_file_names(tmp_path):
    write_run(
        tmp_path / "r",
        "train_all",
        '<b>"M"&$\\frac$',
        1,
        arrays=make_answers(1, templates=2),
        data="d&<i>$^$",
    )
    assert main([str(tmp_path / "r"), "--output", str(tmp_path / "page.html")]) == 0
    page = Page(tmp_path / "page.html")
    assert (
        not page.all("b")
        and not page.all("i")
        and '<b>"M"&$\\frac$ tiny' in page.text
        and "d&<i>$^$" in page.text
    )
    assert (tmp_path / "page_figures" / "reliability-d-i.svg").is_file()


def test_the_same_runs_make_the_same_page(report):
    page = (report / "out" / "page.html").read_bytes()
    assert main([str(report), "--output", str(report / "out" / "page.html")]) == 0
    assert (report / "out" / "page.html").read_bytes() == page


def test_without_predictions_there_are_tables_bars_and_training_curves(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "runs", "train_base", "CDC", 1, "base")
    write_curve(folder, (1, 1.0, 50.0), (2, 0.5, 75.0))
    write_run(tmp_path / "runs", "test_new", "CDC", 1, "new")
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    page = Page(tmp_path / "report.html")
    assert "2 of 2 runs have no predictions-test.npz" in page.text and "Gallery" not in page.text
    assert {
        path.stem
        for path in (tmp_path / "report_figures").glob("*.svg")
        if not path.stem.endswith("-dark")
    } == {
        "bars-openmoji",
        "training-loss-openmoji-base-classes",
        "training-acc-openmoji-base-classes",
    }


def test_what_a_table_warns_of_stands_in_the_page(tmp_path):
    write_run(tmp_path / "runs", "train_base", "CDC", 1, "base")
    write_run(tmp_path / "runs", "test_new", "CDC", 1, "new", prompts_hash="others")
    make_report([tmp_path / "runs"], tmp_path / "page.html", inspect_all)
    assert (
        "CDC tiny, seed 1: its parts were tested with different prompts"
        in Page(tmp_path / "page.html").text
    )


def test_runs_without_test_metrics_are_listed_and_make_no_table(tmp_path):
    write_run(tmp_path / "runs", "train_all", "CDC", 1, metrics={"val": {"accuracy": 50.0}})
    make_report([tmp_path / "runs"], tmp_path / "page.html", inspect_all)
    page = Page(tmp_path / "page.html")
    assert (
        "no table: no run record" in page.text
        and "Report on 1 run" in page.text
        and len(page.all("table")) == 1
    )


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
            f"error: no results.json in or below {tmp_path / name}: give the folder of a finished run, or "
            "one that holds such folders"
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
    assert (
        refused(tmp_path)
        == f"error: {path} lacks image, top, top_probability, max_probability: run it again with this version"
    )
    numpy.savez(path, label=numpy.array([{}], dtype=object))
    assert f"{path} can't be read" in refused(tmp_path)  # a pickle is not opened
    (folder / "results.json").write_text("{")
    assert "is no run record" in refused(tmp_path)


def test_a_root_that_is_no_folder_is_refused(tmp_path, refused):
    write_run(tmp_path, "train_all", "CDC", 1)
    assert refused(tmp_path, "--root", tmp_path / "nowhere").startswith(
        f"error: --root {tmp_path / 'nowhere'} is no folder: "
    )


def test_seeds_with_different_numbers_of_templates_are_refused(tmp_path, refused):
    for seed in (1, 2):
        write_run(tmp_path, "train_all", "CDC", seed, arrays=make_answers(seed, templates=1 + seed))
    assert "have different settings (vote: " in refused(tmp_path)


# ---- in a browser ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser_nothing_overflows_fails_or_is_hard_to_read(report, browser, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
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
        "return Array.from(document.images, one => [one.alt, one.naturalWidth, one.clientWidth, one.currentSrc])"
    )
    dark = {source["srcset"] for source in Page(report / "out" / "page.html").all("source")}
    assert images and all(alt and natural > 0 and shown > 250 for alt, natural, shown, _ in images)
    assert all((source in dark) == (scheme == "dark") for *_, source in images)
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
    for name, body, says in (
        ("fails", "exit 9", ""),
        ("brings nothing", "exit 0", "error: installed, but there is no chromium"),
    ):
        (tmp_path / name).mkdir()
        done = install(
            tmp_path / name,
            id="echo 0",
            env=f'exec {shutil.which("env")} "$@"',
            **{"apt-get": body},
        )
        assert done.returncode != 0 and done.stderr.startswith(says)
