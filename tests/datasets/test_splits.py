"""Split files, base/new halves and FGVC-Aircraft's lists against literal references."""

import json
import random
from pathlib import Path

import pytest

from datasets.splits import read_split
from tests.datasets.miniatures import aircraft, split_file
from tests.datasets.test_every_dataset import build
from tests.runs import refuses
from trainers.data.lists import Image, subsample_classes


def test_base_is_the_first_half_of_the_labels_and_new_the_rest():
    """Of five classes three are base; each half's labels are numbered from 0 on."""
    images = [Image(__file__, label, f"class {label}") for label in (7, 1, 0, 3, 9, 1)]
    half = {name: subsample_classes(images, [], subsample=name)[0] for name in ("base", "new")}
    base = [(1, "class 1"), (0, "class 0"), (2, "class 3"), (1, "class 1")]
    assert [(image.label, image.classname) for image in half["base"]] == base
    assert [(image.label, image.classname) for image in half["new"]] == [
        (0, "class 7"),
        (1, "class 9"),
    ]
    assert subsample_classes(images, [], subsample="all") == (images, [])


@pytest.fixture
def split_with(tmp_path):
    """Writes a split file of a sound training image and further entries; returns its path and the folder
    of the images, beside which there are others."""
    for place in ("images/in", "images_2", "outside"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / f"{place}/a.png").write_bytes(b"never opened")

    def write(*entries, test=()):
        path = tmp_path / "split.json"
        train = [["in/a.png", "0", "ant"], *entries]
        path.write_text(json.dumps({"train": train, "val": [], "test": test}))
        return str(path), str(tmp_path / "images")

    return write


def test_a_split_file_is_read_in_order_and_links_to_images_elsewhere_are_followed(split_with):
    path, folder = split_with(
        ["one.png", 1, "bee"], ["more/a.png", 0, "ant"], test=[["in/a.png", 0, "ant"]]
    )
    Path(folder, "one.png").symlink_to("../outside/a.png")
    Path(folder, "more").symlink_to("../outside")
    link = Path(f"{folder}_linked")
    link.symlink_to(folder)
    for place in (folder, str(link)):
        first, one, more = (
            Image(f"{place}/{name}", label, classname)
            for name, label, classname in (
                ("in/a.png", 0, "ant"),
                ("one.png", 1, "bee"),
                ("more/a.png", 0, "ant"),
            )
        )
        assert read_split(path, place) == ([first, one, more], [], [first])


OUTSIDE = "lies outside .*images: it is refused"
UNREADABLE = "split.json can't be read "


@pytest.mark.parametrize(
    "entry, message",
    [
        (["../outside/a.png", 0, "ant"], OUTSIDE),
        (["{folder}/../outside/a.png", 0, "ant"], OUTSIDE),
        (["../images_2/a.png", 0, "ant"], OUTSIDE),
        (["b.png", 2, "bee"], "b.png has the label 2, training images have 2 classes: labels must"),
        (["b.png", -1, "bee"], "has the label -1, training images have 2 classes"),
        (["b.png", 1.5, "bee"], f"{UNREADABLE}.ValueError: invalid literal.*'1.5'"),
        (["b.png", 1, None], "None is no class name"),
        ([5, 1, "bee"], f"{UNREADABLE}.TypeError"),
        (None, f"{UNREADABLE}.TypeError"),
    ],
)
def test_an_entry_that_is_none_or_points_outside_its_folder_is_named(split_with, entry, message):
    _, folder = split_with()
    if entry and isinstance(entry[0], str):
        entry = [entry[0].format(folder=folder), *entry[1:]]
    with refuses(message):
        read_split(*split_with(entry))


def test_a_test_image_of_a_class_without_training_images_is_named(split_with):
    with refuses("in/a.png has the label 1, training images have 1 classes"):
        read_split(*split_with(test=[["in/a.png", 1, "bee"]]))


def test_the_split_hash_tells_samples_apart_but_not_machines(tmp_path):
    split_file(tmp_path / "data", "EuroSAT")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "data")

    def hash_of(seed, place="data", classes="all"):
        random.seed(seed)
        return build("EuroSAT", tmp_path / place, shots=4, classes=classes).images.split_hash

    assert hash_of(1) == hash_of(1) == hash_of(1, "elsewhere")
    other = {hash_of(2), hash_of(1, classes="base"), hash_of(1, classes="new"), hash_of(1)}
    assert len(other) == 4


def test_fgvc_aircraft_reads_its_own_lists(tmp_path):
    aircraft(tmp_path)
    dataset, folder = build("FGVCAircraft", tmp_path), tmp_path / "fgvc_aircraft"
    assert dataset.classnames == ["707-320", "A310", "Boeing 717"]
    assert [item.label for item in dataset.test] == [0, 2, 1, 0, 2, 1]
    assert dataset.test[0].impath == f"{folder}/images/0000027.jpg"
    for line, message in (
        ("3 Concorde\n", "val.txt can't be read .ValueError: 'Concorde' is not in list"),
        ("../../3 A310\n", "lies outside"),
    ):
        (folder / "images_variant_val.txt").write_text(line)
        with refuses(message):
            build("FGVCAircraft", tmp_path)
