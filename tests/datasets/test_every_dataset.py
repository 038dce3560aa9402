"""What holds for every registered data set, on a miniature of its real layout: generated from the registry."""

import os

import pytest
import yaml
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset

import datasets.every  # noqa: F401
from datasets.base import ImageDataset
from tests.conftest import REPOSITORY
from trainers.common.errors import UserError

from .miniatures import MINIATURES

ALL = sorted(
    name
    for name in DATASET_REGISTRY.registered_names()
    if issubclass(DATASET_REGISTRY.get(name), ImageDataset)
)
TEST_ONLY = [name for name in ALL if DATASET_REGISTRY.get(name).test_only]
TRAINED = [name for name in ALL if name not in TEST_ONLY]


@pytest.fixture(scope="module")
def root_of(tmp_path_factory, drawn_root):
    """``root_of(name)``: a data folder in which that data set lies; made once."""
    roots = {name: drawn_root for name in ALL if name.startswith("OpenMoji")}

    def make(name):
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp(name)
            MINIATURES[name](roots[name])
        return roots[name]

    return make


def build(name, root, shots=-1, classes="all", seed=-1):
    cfg = get_cfg_default()
    cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES = (
        name,
        str(root),
        shots,
        classes,
    )
    cfg.SEED, cfg.VERBOSE = seed, False
    return build_dataset(cfg)


def test_the_names_are_coops_and_ours():
    coops = (
        "ImageNet Caltech101 OxfordPets StanfordCars OxfordFlowers Food101 FGVCAircraft SUN397 DescribableTextures "
        "EuroSAT UCF101 ImageNetV2 ImageNetSketch ImageNetA ImageNetR"
    )
    assert set(ALL) >= set(coops.split())
    targets = (
        "ImageNetV2 ImageNetSketch ImageNetA ImageNetR OpenMojiSketch OpenMojiCorrupted OpenMojiRecoloured "
        "PACSPhotoAll PACSArtPaintingAll PACSCartoonAll PACSSketchAll"
    )
    assert set(TEST_ONLY) == set(targets.split())


def test_every_data_set_has_a_config_and_every_config_a_data_set():
    files = (REPOSITORY / "configs" / "datasets").glob("*.yaml")
    assert (
        sorted({yaml.safe_load(path.read_text())["DATASET"]["NAME"] for path in files}) == ALL
    )  # a set's settings may have files


@pytest.mark.parametrize("name", ALL)
def test_labels_have_no_gaps_and_every_image_is_there(root_of, name):
    dataset = build(name, root_of(name))
    assert len(dataset.classnames) == dataset.num_classes >= 3
    assert {item.label for item in dataset.test} == set(range(dataset.num_classes))
    for part in (dataset.train_x, dataset.val or (), dataset.test):
        assert all(
            os.path.isfile(item.impath) and dataset.lab2cname[item.label] == item.classname
            for item in part
        )


@pytest.mark.parametrize("name", TRAINED)
def test_no_test_image_is_trained_on(root_of, name):
    dataset = build(name, root_of(name))
    train, val, test = (
        {item.impath for item in part} for part in (dataset.train_x, dataset.val, dataset.test)
    )
    assert not train & test and not train & val
    assert val == test if name == "ImageNet" else not val & test


@pytest.mark.parametrize("name", TRAINED)
def test_base_and_new_are_the_two_halves_of_the_classes(root_of, name):
    whole = build(name, root_of(name))
    base, new = (
        build(name, root_of(name), shots=2, classes=half, seed=3) for half in ("base", "new")
    )
    assert base.classnames + new.classnames == whole.classnames and len(base.test) + len(
        new.test
    ) == len(whole.test)
    assert len(base.train_x) == 2 * len(base.classnames) and len(new.train_x) == 2 * len(
        new.classnames
    )


@pytest.mark.parametrize("name", TRAINED)
def test_a_seeds_sample_is_the_same_whichever_half_is_asked_for_first(root_of, name):
    whole, base = (
        build(name, root_of(name), shots=2, classes=half, seed=4) for half in ("all", "base")
    )
    assert [item.impath for item in base.train_x] == [
        item.impath for item in whole.train_x if item.label < base.num_classes
    ]


@pytest.mark.parametrize("name", TEST_ONLY)
@pytest.mark.parametrize(
    "keys, reason",
    [
        ({"shots": 16}, "no few-shot sample can be drawn"),
        ({"classes": "base"}, "base-to-new needs training images"),
        ({"classes": "new"}, "base-to-new needs training images"),
    ],
)
def test_a_set_without_training_images_refuses_what_needs_them(root_of, name, keys, reason):
    with pytest.raises(
        UserError,
        match=f"{name} has test images only, {reason}.*: train on (ImageNet|OpenMoji|another domain of PACS), then test",
    ):
        build(name, root_of(name), **keys)


@pytest.mark.parametrize("name", [name for name in ALL if "OpenMoji" not in name])
def test_a_missing_folder_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"data folder {tmp_path}/nowhere.* is missing"):
        build(name, tmp_path / "nowhere")
