"""The head of a report: headline, accuracy per class, confusion matrix, worst confusions."""

import re

import numpy
import pytest
from PIL import Image

from analysis.inspection import inspect_all
from results.report import classes
from results.report.classes import class_page, headlines
from results.report.page import make_report
from results.runs import find_runs, group, titles
from tests.results.conftest import Page, write_run

NAMES = ("ant", "bee", "cat", "dog")
CONFUSED = (
    [(0, 0)] * 3 + [(1, 1)] * 2 + [(1, 0)] * 2 + [(2, 3)] + [(2, 2)]
)  # (truth, answer); there is no image of a dog


def answers_of(pairs):
    label, answer = numpy.array(pairs).T
    confidence = numpy.linspace(0.4, 0.9, len(pairs)).astype("float32")
    return {
        "image": numpy.array(
            [f"{NAMES[truth]}/{number}.png" for number, truth in enumerate(label)]
        ),
        "label": label,
        "top": numpy.stack([answer, (answer + 1) % 4], axis=1),
        "top_probability": numpy.stack([confidence, 1 - confidence], axis=1),
        "max_probability": 1 - confidence,
    }


@pytest.fixture
def make(tmp_path):
    def start(trainer, pairs=CONFUSED, seed=1, **changes):
        right = 100 * sum(truth == answer for truth, answer in pairs) / len(pairs)
        present = [NAMES[label] for label in sorted({truth for truth, _ in pairs})]
        metrics = {
            "accuracy": right,
            "images": len(pairs),
            "per_class_accuracy": dict.fromkeys(present, 50.0),
        }
        return write_run(
            tmp_path,
            "train_all",
            trainer,
            seed,
            arrays=answers_of(pairs),
            classnames=list(NAMES),
            metrics={"test": metrics},
            **changes,
        )

    return start


def series_in(folder):
    series = group(find_runs([folder]))
    return series, titles([one.setting for one in series])


def test_the_headline_compares_with_the_same_clip_untrained_chance_and_the_commonest_class(
    make, tmp_path
):
    make("CDC", backbone_hash="a")
    make("ZeroshotCLIP", [(0, 0)] * 3 + [(1, 0)] * 4 + [(2, 0)] * 2, backbone_hash="a")
    trained, zero_shot = headlines(*series_in(tmp_path))
    assert trained == {
        "tested_on": "openmoji",
        "model": "CDC tiny",
        "zero_shot_itself": False,
        "seeds": 1,
        "accuracy": pytest.approx(600 / 9),
        "images": 9,
        "classes": 4,
        "low": pytest.approx(35.42, abs=0.01),
        "high": pytest.approx(87.94, abs=0.01),
        "chance": 25,
        "zero_shot": pytest.approx(300 / 9),
        "commonest": pytest.approx(400 / 9),
    }
    assert zero_shot["zero_shot_itself"]
    make_report([tmp_path], tmp_path / "page.html", inspect_all)
    text = " ".join(Page(tmp_path / "page.html").text.replace("\xa0", " ").split())
    head = text[: text.index("Accuracy per class")]
    for words in (
        "66.7 % of 9 test images are answered rightly by CDC tiny on openmoji.",
        "95 % interval 35.4 to 87.9 %",
        "the same CLIP untrained (zero-shot) 33.3 %",
        "chance, 4 classes 25.0 %",
        "always the commonest class 44.4 %",
        "Classes",
    ):
        assert words in head
    assert "lies within the interval" not in head  # 33.3 does not


@pytest.mark.parametrize(
    "other", [{"backbone_hash": "b"}, {"pairs": CONFUSED[:-1]}, {"split_hash": "other"}]
)
def test_zero_shot_of_another_clip_or_on_other_images_is_no_comparison(make, tmp_path, other):
    make("CDC", **{"backbone_hash": "a"})
    make("ZeroshotCLIP", **{"backbone_hash": "a", **other})
    assert headlines(*series_in(tmp_path))[0]["zero_shot"] is None


def test_classes_matrix_and_confusions_are_counts_of_the_answers(make, tmp_path):
    make("CDC")
    make("CDC", [(0, 0)] * 3 + [(1, 1)] * 4 + [(2, 3)] * 2, seed=2)
    (one,), _ = series_in(tmp_path)
    page = class_page(one, {})
    assert page["classes"] == [
        {"name": "cat", "images": 2, "accuracy": 25, "mistakes": ("dog", 3)},
        {"name": "bee", "images": 4, "accuracy": 75, "mistakes": ("ant", 2)},
        {"name": "ant", "images": 3, "accuracy": 100, "mistakes": None},
    ]
    assert page["names"] == list(NAMES) and page["left_out"] == 0
    assert [(name, [number for number, *_ in cells]) for name, cells in page["rows"]] == [
        ("ant", [6, 0, 0, 0, 0]),
        ("bee", [2, 6, 0, 0, 0]),
        ("cat", [0, 0, 1, 3, 0]),
    ]
    assert page["rows"][1][1][:2] == [(2, 0.25, False), (6, 0.75, True)]
    assert [
        (found["truth"], found["answer"], found["number"], found["of"])
        for found in page["confusions"]
    ] == [("cat", "dog", 3, 4), ("bee", "ant", 2, 8)]
    assert [card["image"] for card in page["confusions"][0]["cards"]] == [
        "cat/8.png",
        "cat/7.png",
    ]  # once each, the surest first


def test_of_many_classes_the_matrix_shows_those_with_most_mistakes_and_the_rest_together(
    make, tmp_path, monkeypatch
):
    monkeypatch.setattr(classes, "MATRIX", 2)
    make("CDC")
    (one,), _ = series_in(tmp_path)
    page = class_page(one, {})
    assert page["names"] == ["ant", "bee"] and page["left_out"] == 2
    assert [(name, [number for number, *_ in cells]) for name, cells in page["rows"]] == [
        ("ant", [3, 0, 0]),
        ("bee", [2, 2, 0]),
    ]


def test_confusions_are_shown_as_pictures(make, tmp_path):
    make("CDC")
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    (one,), _ = series_in(tmp_path)
    (first,) = class_page(one, {"cat/7.png": str(tmp_path / "red.png")})["confusions"][1]["cards"]
    assert first["picture"].startswith("data:image/jpeg;base64,")


def test_wide_tables_show_that_they_scroll(make, tmp_path, browser):
    make("CDC", [(truth, (truth + 1) % 4) for truth in range(4)])
    make_report([tmp_path], tmp_path / "page.html", inspect_all)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get((tmp_path / "page.html").as_uri())
    wide = browser.execute_script("""
        return Array.from(document.querySelectorAll('.scroll')).filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth)
            .map(one => [one.offsetHeight - one.clientHeight, getComputedStyle(one).backgroundImage.split('gradient').length - 1])""")
    assert wide and all(bar >= 8 and shadows == 4 for bar, shadows in wide)


def test_names_in_the_head_are_text(page):
    assert re.search(r"&lt;script&gt;.*?</th>", page.source) and "<script" not in page.source
