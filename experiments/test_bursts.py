"""A folder of bursts, from pictures to a promise: all that is said is about new scenes."""

from collections import defaultdict

import numpy
import pytest

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.openmoji import SPLIT
from experiments import bursts
from labelling import PromptedClassifier
from labelling.explain import explain
from labelling.threshold import threshold_of
from tests.datasets.test_every_dataset import build
from trainers.common.readers import read_json
from trainers.data.lists import PARTS

SHOTS = 4


@pytest.fixture
def write_bursts(tmp_path):
    """A folder of two classes of drawings, each shot four times, in parts or not."""

    def write(scenes, part_of=lambda scene, shot: "."):
        draws = numpy.random.default_rng(0)
        by_class = defaultdict(list)
        for picture, name in bursts.drawings():
            by_class[name].append(picture)
        for name in ("mammal", "land vehicle"):
            for scene, picture in enumerate(by_class[name][:scenes]):
                for shot, taken in enumerate(bursts.shots(picture, SHOTS, 0.5, draws)):
                    place = tmp_path / "burst" / part_of(scene, shot) / name
                    place.mkdir(parents=True, exist_ok=True)
                    taken.save(place / f"{scene:02d}-{shot}.png")
        return tmp_path / "burst"

    return write


def test_shots_of_a_burst_are_found_and_different_pictures_are_not():
    """Of drawings, and of textures, which nothing distinguishes from afar."""
    split = read_json(SPLIT)
    rows = [row for part in PARTS for row in split[part]][::40]
    drawings = [(draw_emoji(code, bursts.SIZE), name) for code, _, name in rows]
    assert bursts.found(drawings, strength=0.5) > 90
    assert bursts.found(drawings, strength=1) > 75
    textures = bursts.textures(classes=2, each=25)
    group = bursts.groups(*zip(*textures))
    assert group == list(range(len(textures)))


def scenes_of(images):
    return {(image.label, image.impath.rsplit("/", 1)[1].split("-")[0]) for image in images}


def test_no_scene_is_in_two_parts_and_one_shot_of_each_counts(write_bursts, tmp_path):
    folder = write_bursts(scenes=20)
    dataset = build("ImageFolder", folder)
    parts = dataset.train_x, dataset.val, dataset.test
    assert [len(part) for part in parts] == [80, 32, 48]
    scenes = [scenes_of(part) for part in parts]
    assert sum(map(len, scenes)) == 40, "each scene is in one part"
    assert any("160 images look like others, in 40 groups" in note for note in dataset.notes)
    fitted = PromptedClassifier.fit(folder, trainer="GDA", backbone="tiny", folder=tmp_path / "run")
    assert fitted.record["metrics"]["test"]["images"] == 48
    rule = explain(threshold_of(f"{tmp_path}/run"))
    assert "the run's 8 validation images" in rule
    assert "Not counted: 24 validation images" in rule


def test_folds_of_few_pictures_answer_scenes_that_they_have_not_seen(write_bursts, tmp_path):
    folder = write_bursts(scenes=6)
    PromptedClassifier.fit(folder, trainer="GDA", backbone="tiny", folder=tmp_path / "run")
    with numpy.load(tmp_path / "run/predictions-test.npz") as kept:
        assert len(kept["is_new"]) == 48
        assert kept["is_new"].sum() == 12
    assert "12 cross-validated images" in explain(threshold_of(f"{tmp_path}/run"))


def test_shots_of_training_scenes_in_a_divided_folder_are_said_and_promise_nothing(write_bursts):
    folder = write_bursts(
        scenes=6, part_of=lambda scene, shot: ("train", "train", "val", "test")[shot]
    )
    dataset = build("ImageFolder", folder)
    assert not dataset.are_new([image.impath for image in dataset.val]).any()
    said = " ".join(dataset.notes)
    assert "Training images look like 12 test images, such as train/land vehicle/00-0.png" in said
    assert "look like 12 validation images" in said
    assert "no promise (--max-error) rests" in said
