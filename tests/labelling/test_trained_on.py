"""What was trained on is no test, and no test takes a training's place: on every road."""

import shutil

import numpy
import pytest
from PIL import Image

import train
from labelling import PromptedClassifier
from tests.runs import REPOSITORY, call, contents_of, make_pictures, prompts_of, record_of
from trainers.common.fingerprints import note_on_trained

OWN = "--images"
DASSL = "--root"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder of 20 pictures and a run that was trained on all of them."""
    place = tmp_path_factory.mktemp("mine")
    pictures = make_pictures(place / "pictures")
    PromptedClassifier.fit(pictures, trainer="GDA", backbone="tiny", folder=place / "run", shots=-1)
    return pictures, place / "run"


def make_test(road, pictures, run, output):
    """The exit code of a test of a run's prompts on pictures."""
    recipe = REPOSITORY / "configs/trainers/GDA/tiny.yaml"
    words = [road, pictures, "--trainer", "GDA", "--backbone", "tiny", "--config-file", recipe]
    if road == DASSL:
        words += ["--dataset-config-file", REPOSITORY / "configs/datasets/image_folder.yaml"]
    shots = ["DATASET.NUM_SHOTS", -1, "DATALOADER.NUM_WORKERS", 0]
    return call(train.main, *words, *prompts_of(run), "--output-dir", output, *shots)


@pytest.mark.parametrize("road", [OWN, DASSL])
def test_a_test_notes_how_many_of_its_images_were_trained_on(mine, tmp_path, capsys, road):
    pictures, run = mine
    copy = shutil.copytree(pictures, tmp_path / "copy")
    others = make_pictures(tmp_path / "others", seed=1)
    assert make_test(road, copy, run, tmp_path / "of copies") == 0
    assert make_test(road, others, run, tmp_path / "of others") == 0
    record = record_of(tmp_path / "of copies")
    number = record["metrics"]["test"]["images"]
    line = note_on_trained(number, number)
    assert line.startswith(f"{number} of {number} images")
    assert line in record["notes"]
    assert line in "".join(capsys.readouterr())
    assert not [n for n in record_of(tmp_path / "of others")["notes"] if "trained on, byte" in n]


def test_an_evaluation_counts_the_images_that_were_trained_on(mine, tmp_path, caplog):
    pictures, run = mine
    classifier = PromptedClassifier.load(run)
    mixed = make_pictures(tmp_path / "mixed", seed=1, count=5)
    for number in range(3):
        shutil.copyfile(pictures / f"ant/{number}.bmp", mixed / f"ant/again {number}.bmp")
    for asked in (classifier, classifier.with_classes(["bee", "ant"])):
        assert asked.evaluate(mixed).trained_on == 3
    assert note_on_trained(3, 13) in caplog.messages
    caplog.clear()
    assert classifier.evaluate(make_pictures(tmp_path / "others", seed=2)).trained_on == 0
    assert not caplog.messages


def test_images_that_a_program_holds_are_known_again(tmp_path):
    generator = numpy.random.default_rng(0)
    images = [*generator.integers(0, 256, (20, 32, 32, 3), dtype="uint8")]
    names = ["ant", "bee"] * 10
    classifier = PromptedClassifier.fit(
        images, names, trainer="GDA", backbone="tiny", folder=tmp_path / "run"
    )
    others = [*generator.integers(0, 256, (4, 32, 32, 3), dtype="uint8")]
    again = [images[0], Image.fromarray(images[1])]
    evaluation = classifier.evaluate(again + others, names[:6])
    assert evaluation.trained_on == 2


def test_what_is_kept_of_a_training_image_are_eight_bytes(mine):
    pictures, run = mine
    known = PromptedClassifier.load(run).trained_on
    assert len(known) == 20
    assert all(-(2**63) <= number < 2**63 for number in known)


@pytest.mark.parametrize("road", [OWN, DASSL])
@pytest.mark.parametrize("place", ["run", "run/", "link"])
def test_a_test_does_not_replace_the_record_of_a_training(mine, error_of, road, place):
    pictures, run = mine
    link = run.parent / "link"
    if not link.exists():
        link.symlink_to(run)
    before = contents_of(run)
    output = f"{run.parent}/{place}"
    for prompts in (run, pictures):
        line = error_of(lambda _: make_test(road, pictures, prompts, output))
        assert "holds a training, whose record the test would replace" in line
    assert contents_of(run) == before
