"""Few-shot samples: drawn as CoOp draws them, or read from CoOp's pickles without running these;
neither changes a run."""

import os
import pickle
import random

import numpy
import pytest
import torch
from dassl.utils import set_random_seed

from datasets.imagenet import in_coops_order
from tests.datasets.miniatures import files_below, imagenet, split_file
from tests.datasets.test_every_dataset import build
from tests.runs import refuses

NAME = "OxfordPets"
FOLDER = "oxford_pets/split_fewshot"
PICKLE = f"{FOLDER}/shot_2-seed_1.pkl"


@pytest.fixture
def root(tmp_path):
    split_file(tmp_path / "data", NAME)
    return tmp_path / "data"


def build_pets(root, seed=1, shots=2):
    return build(NAME, root, shots=shots, seed=seed)


def sample(root, **options):
    """What a run trains and validates on, without the folder's place."""
    dataset = build_pets(root, **options)
    return [
        [(os.path.relpath(item.impath, root), item.label, item.classname) for item in part]
        for part in (dataset.train_x, dataset.val)
    ]


def of_class(items, label):
    return [item for item in items if item.label == label]


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


def coops_sample(root):
    """The pickle that CoOp writes, whose sample is not the one the seed draws here."""
    whole = build(NAME, root)
    content = {
        part: [item for label in range(3) for item in of_class(items, label)[:-3:-1]]
        for part, items in (("train", whole.train_x), ("val", whole.val))
    }
    write_pickle(root / PICKLE, content)
    return content


# --- drawn samples


@pytest.mark.parametrize("draws_before", [0, 3])
def test_the_sample_of_a_seed_is_coops_whatever_was_drawn_before(root, draws_before):
    """Drawn class by class with a generator freshly set to the seed, train before val."""
    whole, before = build(NAME, root), files_below(root)
    random.seed(5)
    expected = []
    for part, shots in ((whole.train_x, 5), (whole.val, 4)):
        for label in range(3):
            expected.extend(random.sample(of_class(part, label), shots))
    for _ in range(draws_before):
        random.random()
    dataset = build_pets(root, seed=5, shots=5)
    found = [item.impath for item in (*dataset.train_x, *dataset.val)]
    assert found == [item.impath for item in expected]
    assert files_below(root) == before


def test_a_class_with_fewer_images_gives_all_it_has(root):
    most = build_pets(root, shots=16)
    assert (len(most.train_x), len(most.val)) == (18, 12)


def test_the_whole_run_after_is_the_same_with_and_without_a_file(root):
    """Python's, numpy's and torch's generators are where the seed left them, however the sample
    came about."""

    def states():
        set_random_seed(1)
        return sample(root), random.random(), numpy.random.random(), torch.rand(1).item()

    drawn, again = states(), states()
    coops_sample(root)
    read = states()
    assert drawn == again
    assert drawn[0] != read[0]
    assert drawn[1:] == read[1:]


# --- CoOp's files


@pytest.mark.parametrize("windows", [False, True])
def test_coops_sample_is_taken_and_named_wherever_it_was_written(root, tmp_path, windows):
    drawn, content = build_pets(root).images.fewshot_sample, coops_sample(root)
    expected = [os.path.relpath(item.impath, root) for item in content["train"]]
    elsewhere = tmp_path / "elsewhere"
    root.rename(elsewhere)
    if windows:
        for item in [*content["train"], *content["val"]]:
            item._impath = "D:" + item._impath.replace("/", "\\")
        write_pickle(elsewhere / PICKLE, content)
    assert [name for name, *_ in sample(elsewhere)[0]] == expected
    taken = build_pets(elsewhere).images.fewshot_sample
    assert (drawn["origin"], taken["origin"]) == ("drawn with seed 1", "CoOp: shot_2-seed_1.pkl")
    assert drawn["hash"] != taken["hash"]
    half = build(NAME, elsewhere, shots=2, seed=1, classes="base")
    assert half.images.fewshot_sample == taken  # of the images, whichever classes are kept


def first(**change):
    return lambda content: vars(content["train"][0]).update(change)


@pytest.mark.parametrize(
    "change, message",
    [
        (first(_impath="/etc/passwd"), "/etc/passwd with label 0, which .*oxford_pets has not"),
        (first(_label=1), "with label 1, which .* has not"),
        (lambda content: content.pop("val"), "is not read .KeyError: 'val'.*delete it"),
        (lambda content: content["val"].pop(0), "must have 2 val images of each class.*delete it"),
        (
            lambda content: content["train"].append(content["train"][0]),
            "jpg with label 0, twice: .*delete it",
        ),
    ],
)
def test_a_sample_of_other_images_is_refused(root, change, message):
    content = coops_sample(root)
    change(content)
    write_pickle(root / PICKLE, content)
    with refuses(message):
        build_pets(root)


class Calls:
    """Pickles as a call that makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_malicious_pickle_is_refused_and_not_executed(root, tmp_path):
    data = pickle.dumps({"train": [Calls(tmp_path / "executed")]})
    (root / FOLDER).mkdir()
    (root / PICKLE).write_bytes(data)
    (root / "preprocessed.pkl").write_bytes(data)
    with refuses("shot_2-seed_1.pkl is not read .*delete it"):
        build_pets(root)
    with refuses("preprocessed.pkl is not read"):
        in_coops_order([], str(root))
    assert not (tmp_path / "executed").exists()
    pickle.loads(data)
    assert (tmp_path / "executed").exists()  # it would have been


# --- ImageNet


def test_imagenets_sample_has_no_validation_part(tmp_path):
    imagenet(tmp_path)
    whole = build("ImageNet", tmp_path)
    train = [item for item in whole.train_x if item.impath.endswith(("_4.JPEG", "_1.JPEG"))]
    folder = tmp_path / "imagenet/split_fewshot"
    write_pickle(folder / "shot_2-seed_1.pkl", {"train": train})
    dataset = build("ImageNet", tmp_path, shots=2, seed=1)
    assert [item.impath for item in dataset.train_x] == [item.impath for item in train]
    assert dataset.val is dataset.test
    assert len(dataset.test) == 15


def test_coops_order_of_imagenet_is_taken_over_or_refused(tmp_path):
    """CoOp draws from the order in which its file system listed the images."""
    imagenet(tmp_path)
    whole = build("ImageNet", tmp_path)
    order = sorted(whole.train_x, key=lambda item: (item.label, -ord(item.impath[-6])))
    path = tmp_path / "imagenet/preprocessed.pkl"
    write_pickle(path, {"train": order, "test": whole.test})
    random.seed(1)
    expected = []
    for label in range(3):
        expected.extend(random.sample(of_class(order, label), 2))
    dataset = build("ImageNet", tmp_path, shots=2, seed=1)
    assert [item.impath for item in dataset.train_x] == [item.impath for item in expected]
    write_pickle(path, {"train": order[:3]})
    with refuses("preprocessed.pkl lacks training images"):
        build("ImageNet", tmp_path)
