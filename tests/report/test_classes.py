"""What a report shows of classes and images: headline, accuracy per class, confusion matrix, worst
confusions, gallery, pictures."""

import base64
import io
import json
from dataclasses import asdict

import numpy
import pandas
import pytest
from PIL import Image

from report import classes
from report.classes import class_page
from report.gallery import LEAST_CERTAIN, WRONG_LABELS, gallery
from report.page import make_report
from report.pictures import find_images
from report.review import WrongLabels
from report.tasks import headlines
from results.answers import UNCERTAINTY
from results.runs import collect, group
from tests.conftest import GOLDEN
from tests.results.conftest import Page, make_answers, write_run
from tests.runs import CLASSES, write_answers

NAMES = ["ant", "bee", "cat", "dog"]
# (truth, answer); there is no image of a dog
CONFUSED = [(0, 0)] * 3 + [(1, 1)] * 2 + [(1, 0)] * 2 + [(2, 3)] + [(2, 2)]


def answers_of(pairs):
    label, answer = numpy.array(pairs).T
    confidence = numpy.linspace(0.4, 0.9, len(pairs)).astype("float32")
    return {
        "image": numpy.array([f"{NAMES[truth]}/{n}.png" for n, truth in enumerate(label)]),
        "label": label,
        "top": numpy.stack([answer, (answer + 1) % 4], axis=1),
        "top_probability": numpy.stack([confidence, 1 - confidence], axis=1),
        "max_probability": 1 - confidence,
    }


def plain(value):
    """As YAML has it: lists for tuples."""
    return json.loads(json.dumps(value, default=float))


@pytest.fixture
def make(tmp_path):
    """Writes a run that answers so, and returns all series there are."""

    def start(trainer, pairs=CONFUSED, seed=1, measured=(), **changes):
        right = 100 * sum(truth == answer for truth, answer in pairs) / len(pairs)
        metrics = {"accuracy": right, "images": len(pairs), "per_class_accuracy": {}}
        metrics |= dict(measured)
        facts = {"arrays": answers_of(pairs), "classnames": NAMES, "metrics": {"test": metrics}}
        write_run(tmp_path, "train_all", trainer, seed, **facts, **changes)
        return group(collect(tmp_path))

    return start


def test_the_headline_compares_with_the_same_clip_untrained_chance_and_the_commonest_class(
    make, tmp_path
):
    make("CDC", backbone_hash="a")
    zero_shot = [(0, 0)] * 3 + [(1, 0)] * 4 + [(2, 0)] * 2
    trained, itself = headlines(make("ZeroshotCLIP", zero_shot, backbone_hash="a"))
    found = asdict(trained)
    assert not found.pop("facts")
    assert found == pytest.approx(GOLDEN["tables"]["headline"], abs=1e-3)
    assert itself.zero_shot_itself
    make_report([tmp_path], tmp_path / "page.html", {})
    text = " ".join(Page(tmp_path / "page.html").text.replace("\xa0", " ").split())
    assert text.count("Report on openmoji") == 2  # title and head; "on 2 runs" for two trainings
    assert "66.7 % right answers by CDC tiny on openmoji, 9 test images." in text
    assert "lies within the interval" not in text  # 33.3 does not


@pytest.mark.parametrize(
    "other", [{"backbone_hash": "other"}, {"pairs": CONFUSED[:-1]}, {"split_hash": "other"}]
)
def test_zero_shot_of_another_clip_or_on_other_images_is_no_comparison(make, other):
    make("CDC")
    assert headlines(make("ZeroshotCLIP", **other))[0].zero_shot is None


def test_each_template_alone_is_beside_the_fused_answer_and_a_lost_training_is_warned_of(make):
    """Of 90 images 45 are right untrained; 36 right ones are within the noise, 35 are not."""
    make("ZeroshotCLIP", [(0, 0)] * 45 + [(1, 0)] * 45)
    accuracies = [100 * right / 90 for right in (36, 35, 60)]
    measured = {"template_accuracy": accuracies}
    config = {"MODEL": {"BACKBONE": {"NAME": "tiny"}}, "OPTIM": {"MAX_EPOCH": 10}}
    head = headlines(make("CDC", CONFUSED * 10, measured=measured, config=config))[0]
    assert head.votes == (
        "Right: templates alone 40.0, 38.9, 66.7 %, fused 66.7 %, untrained CLIP 50.0 %."
    )
    assert head.warning.startswith("1 of the 3 templates of CDC tiny on openmoji are right less")
    assert "Train for longer (20 for OPTIM.MAX_EPOCH), or take" in head.warning


def test_classes_matrix_and_confusions_are_counts_of_the_answers(make, monkeypatch):
    make("CDC")
    (one,) = make("CDC", [(0, 0)] * 3 + [(1, 1)] * 4 + [(2, 3)] * 2, seed=2)
    page = asdict(class_page(one, {}))
    for confusion in page["confusions"]:
        confusion["images"] = [taken["image"] for taken in confusion["images"]]
    found = {name: plain(page[name]) for name in ("classes", "names", "rows", "confusions")}
    assert found == GOLDEN["tables"]["confusions"]
    # those with most mistakes, and the rest together
    monkeypatch.setattr(classes, "MATRIX", 2)
    page = class_page(one, {})
    assert page.names == ["cat", "dog"]
    assert page.left_out == 2
    ((_, cells),) = page.rows
    assert [cell.number for cell in cells] == [1, 3, 0]


# ---- the gallery ----


def listing(monkeypatch, *places):
    """Has these answers' labels for wrong, whatever they are."""
    found = WrongLabels(numpy.full(60, 0.4), numpy.array(places), is_shown=True)
    monkeypatch.setattr("report.gallery.probably_wrong", lambda *answers: found)


def test_gallery_order_and_what_stands_on_a_card(tmp_path, monkeypatch):
    listing(monkeypatch, 1, 2, 5)
    known = GOLDEN["tables"]["gallery"]
    answers = {name: numpy.array(values) for name, values in known["answers"].items()}
    answers["max_probability"] = answers["max_probability"].astype("float32")
    write_run(tmp_path, "train_base", "CDC", 1, "base", answers, names=("cat", "dog", "eel"))
    cards = gallery(*group(collect(tmp_path)), {}).cards
    suspicious, uncertain = cards[WRONG_LABELS], cards[LEAST_CERTAIN]
    orders = ["".join(card.image[2] for card in of_kind) for of_kind in (suspicious, uncertain)]
    assert orders == known["orders"]
    assert [card.right for card in uncertain] == known["right"]
    assert plain(asdict(suspicious[2])) == known["third"]
    assert uncertain[3].answer == "class 5"


def test_the_lists_are_of_validation_and_test_images_and_each_vote_has_its_weight(
    tmp_path, monkeypatch
):
    listing(monkeypatch, 33, 4)
    parts = [make_answers(seed, 30, templates=2) for seed in (1, 2)]
    for name, arrays in zip("ab", parts):
        arrays["image"] = numpy.array([f"{name}/{index}.png" for index in range(30)])
        arrays["vote_weight"] = numpy.array([0.2, 0.8])
    folder = write_run(tmp_path / "runs", "train_all", "CDC", 1, arrays=parts[1])
    write_answers(folder, "val", parts[0])
    make_report([tmp_path / "runs"], tmp_path / "page.html", {})
    text = Page(tmp_path / "page.html").text
    assert "template 2: " in text
    assert "weight 20" in text
    assert "weight 80" in text
    queue = pandas.read_csv(tmp_path / "page_least_certain.csv")
    names, uncertainties = (
        numpy.concatenate([of[name] for of in parts]) for name in ("image", UNCERTAINTY)
    )
    assert queue["image"].tolist() == names[numpy.argsort(-uncertainties, kind="stable")].tolist()
    assert set(queue["split"]) == {"val", "test"}
    wrong = pandas.read_csv(tmp_path / "page_wrong_labels.csv")
    assert wrong["image"].tolist() == ["b/3.png", "a/4.png"]
    assert "2 labels, about 40 in 100 of which are wrong" in text


def test_pictures_are_those_of_the_test_images_and_others_are_said_not_shown(
    tmp_path, data_root, caplog
):
    images = numpy.array([f"{name}/11.png" for name in CLASSES])
    answers = {**make_answers(0, 6, 6), "image": images}
    facts = {"arrays": answers, "names": CLASSES, "dataset": "DescribableTextures"}
    write_run(tmp_path, "train_all", "CoOp", 1, **facts)
    (entry,) = group(collect(tmp_path))
    pixels = {
        name: numpy.asarray(Image.open(f"{data_root}/dtd/images/{name}"), float) for name in images
    }
    for card in gallery(entry, find_images(entry.first, data_root)).cards[LEAST_CERTAIN]:
        head, content = card.picture.split(",")
        assert head == "data:image/jpeg;base64"
        shown = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(content))), float)
        nearest = min(pixels, key=lambda name: numpy.abs(pixels[name] - shown).mean())
        assert nearest == card.image
    assert find_images(entry.first, tmp_path) == {}
    assert "no pictures of DescribableTextures: data folder" in caplog.text
