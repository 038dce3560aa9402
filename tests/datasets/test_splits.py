"""Split files, base/new halves and FGVC-Aircraft's lists against literal references."""

import json
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from datasets.split_files import SplitFileDataset
from datasets.splits import read_split
from tests.datasets.miniatures import aircraft, split_file
from tests.datasets.test_every_dataset import build
from tests.runs import REPOSITORY, refuses
from trainers.common.fingerprints import split_hash
from trainers.data.lists import Image, subsample_classes


@given(st.lists(st.integers(0, 12), min_size=2).filter(lambda labels: len({*labels}) > 1))
def test_base_is_the_first_half_of_the_labels_and_new_the_rest(labels):
    def images(kept):
        """The kept labels' images, which are numbered from 0 on."""
        of_kept = [label for label in labels if label in kept]
        return [Image(__file__, kept.index(label), f"{label}") for label in of_kept]

    every = [Image(__file__, label, f"{label}") for label in labels]
    classes = sorted({*labels})
    middle = math.ceil(len(classes) / 2)
    for subsample, kept in (("base", classes[:middle]), ("new", classes[middle:])):
        halves = subsample_classes(every, [], subsample=subsample)
        assert halves == (images(kept), [])
    assert subsample_classes(every, [], subsample="all") == (every, [])


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
        return split_hash(build("EuroSAT", tmp_path / place, shots=4, classes=classes))

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


def test_the_docs_name_every_split_file_its_folder_and_where_to_get_it():
    page = (REPOSITORY / "docs/reproduce.md").read_text("utf-8")
    sets = SplitFileDataset.__subclasses__()
    assert len(sets) == 9 and "huggingface.co/zhengli97/prompt_learning_dataset" in page
    for dataset in sets:
        name = dataset.__name__
        assert f"| {name} | `split_zhou_{name}.json` | `{dataset.dataset_dir}` |" in page
