"""Split files, base/new halves and FGVC-Aircraft's lists against literal references."""

import json
import random

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


def test_a_split_file_is_read_in_order(tmp_path):
    """What it may not say: test_faults_classes.py."""
    path = tmp_path / "split.json"
    sound = {"train": [["b/1.png", "1", "bee"], ["a/2.png", 0, "ant"]], "val": []}
    sound["test"] = [["a/2.png", 0, "ant"]]
    path.write_text(json.dumps(sound))
    folder = str(tmp_path)
    assert read_split(path, folder) == (
        [Image(f"{folder}/b/1.png", 1, "bee"), Image(f"{folder}/a/2.png", 0, "ant")],
        [],
        [Image(f"{folder}/a/2.png", 0, "ant")],
    )


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
