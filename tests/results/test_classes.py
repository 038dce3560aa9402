"""What a report shows of classes and images: headline, accuracy per class, confusion matrix, worst confusions, gallery."""

import base64
import io
from pathlib import Path

import numpy
import pytest
from PIL import Image

from results.report import classes
from results.report.classes import class_page, headlines
from results.report.gallery import find_images, gallery
from results.report.page import make_report
from results.runs import collect, group
from tests.results.conftest import Page, make_answers, write_run

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
    return group(collect(folder))


def test_the_headline_compares_with_the_same_clip_untrained_chance_and_the_commonest_class(
    make, tmp_path
):
    make("CDC", backbone_hash="a")
    make("ZeroshotCLIP", [(0, 0)] * 3 + [(1, 0)] * 4 + [(2, 0)] * 2, backbone_hash="a")
    trained, zero_shot = headlines(series_in(tmp_path))
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
    make_report([tmp_path], tmp_path / "page.html", lambda *_: ())
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
    assert headlines(series_in(tmp_path))[0]["zero_shot"] is None


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
    make_report([tmp_path], tmp_path / "page.html", lambda *_: ())
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get((tmp_path / "page.html").as_uri())
    wide = browser.execute_script("""
        return Array.from(document.querySelectorAll('.scroll')).filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth)
            .map(one => [one.offsetHeight - one.clientHeight, getComputedStyle(one).backgroundImage.split('gradient').length - 1])""")
    assert wide and all(bar >= 8 and shadows == 4 for bar, shadows in wide)


@pytest.mark.parametrize("number, whole", [(25, True), (26, False)])
def test_up_to_25_classes_stand_there_in_full(tmp_path, number, whole):
    label = numpy.arange(number).repeat(2)
    answers = {
        **make_answers(1, 2 * number),
        "label": label,
        "top": numpy.stack([label, (label + 1) % number], 1),
        "top_probability": numpy.full((2 * number, 2), 0.5),
    }
    write_run(tmp_path, "train_all", "CDC", 1, arrays=answers, names=map(str, range(number)))
    make_report([tmp_path], tmp_path / "page.html", lambda *_: ())
    page = Page(tmp_path / "page.html")
    boxes = {box.get("aria-label", ""): box["class"] for box in page.all("div") if "class" in box}
    assert (boxes["Accuracy per class, CDC tiny, openmoji"] == "scroll whole") == whole
    assert boxes["Confusion matrix, CDC tiny, openmoji"] == "scroll whole"
    assert ("Without the 1 classes" in page.text) != whole


# ---- the gallery ----


def test_gallery_order_and_what_stands_on_a_card(tmp_path):
    answers = {
        "image": numpy.array([f"a/{name}.png" for name in "uvwxyz"]),
        "label": numpy.array([0, 0, 1, 1, 2, 2]),
        "top": numpy.array([[0, 1], [1, 0], [0, 1], [1, 2], [5, 2], [0, 2]]),
        "top_probability": numpy.full((6, 2), 0.5, "float32"),
        "max_probability": numpy.array([0.9, 0.3, 0.1, 0.2, 0.3, 0.8], "float32"),
        "vote": numpy.array([[0, 1, 0, 1, 2, 0], [1, 1, 0, 1, 5, 0]]),
        "vote_probability": numpy.tile([[0.25], [0.75]], (1, 6)),
    }
    write_run(tmp_path, "train_base", "CDC", 1, "base", answers, names=("cat", "dog", "eel"))
    mistakes, doubted = gallery(collect(tmp_path)[0], {}).values()
    names = ["".join(card["image"][2] for card in cards) for cards in (mistakes, doubted)]
    assert names == ["wvyz", "uzvyxw"], "v before y: equally doubted, in their order"
    assert [card["right"] for card in doubted] == [True, False, False, False, True, False]
    assert mistakes[2] == {
        "image": "a/y.png",
        "picture": None,
        "truth": "eel",
        "answer": "class 5",
        "probability": 50,
        "right": False,
        "doubt": pytest.approx(0.3),
        "votes": [("eel", 25), ("class 5", 75)],
    }


def test_pictures_are_those_of_the_test_images(tmp_path, data_root):
    names = ("banded", "dotted", "striped", "woven", "zigzagged", "grid")
    answers = {**make_answers(0, 6, 6), "image": numpy.array([f"{name}/11.png" for name in names])}
    facts = {"arrays": answers, "names": names, "dataset": "DescribableTextures"}
    write_run(tmp_path, "train_all", "CoOp", 1, **facts)
    (run,) = collect(tmp_path)
    pixels = {
        path: numpy.asarray(Image.open(path), float)
        for path in (Path(data_root) / "dtd" / "images").rglob("*.png")
    }
    for card in gallery(run, find_images(run, data_root))["Most doubted images"]:
        kind, content = card["picture"].split(",")
        assert kind == "data:image/jpeg;base64" and card["votes"] == []
        shown = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(content))), float)
        nearest = min(pixels, key=lambda path: numpy.abs(pixels[path] - shown).mean())
        assert "/".join(nearest.parts[-2:]) == card["image"]


def test_pictures_that_are_not_there_are_said_not_shown(tmp_path, data_root, caplog):
    for trainer, data in (("CoOp", "DescribableTextures"), ("MaPLe", "OxfordPets"), ("CDC", "Own")):
        answers = {"arrays": make_answers(0), "dataset": data}
        write_run(tmp_path, "train_all", trainer, 1, **answers)
    for run in collect(tmp_path):
        cards = gallery(run, find_images(run, data_root))["Most doubted images"]
        assert not any(card["picture"] for card in cards)
    assert "no pictures of OxfordPets: data folder" in caplog.text
    assert "Own is not a data set of this toolbox" in caplog.text
