"""Files of few-shot samples: CoOp's pickles are read without running them, ours give the same sample again, and neither changes a run."""

import json
import logging
import os
import pickle
import random
from collections import Counter

import numpy
import pytest
import torch
from dassl.data.datasets import Datum
from dassl.utils import set_random_seed

from datasets import fewshot
from protocols import training as train
from protocols.command_line import parse_arguments
from tests.conftest import base_arguments, make_textures
from trainers.common.errors import UserError

from .miniatures import files_below, imagenet, split_file
from .test_every_dataset import build

NAME = "OxfordPets"
FOLDER = "oxford_pets/split_fewshot"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "cache"))
    split_file(tmp_path / "data", NAME)
    return tmp_path / "data"


def build_pets(root, seed=1, shots=2):
    return build(NAME, root, shots=shots, seed=seed)


def sample(dataset, root):
    """What a run trains and validates on, without the folder's place."""
    return [
        [(os.path.relpath(item.impath, root), item.label, item.classname) for item in part]
        for part in (dataset.train_x, dataset.val)
    ]


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


def coops_sample(root, seed=1, shots=2):
    """The pickle that CoOp writes, whose sample is not the one the seed draws here."""
    whole = build(NAME, root)
    content = {
        "train": [
            item
            for label in range(3)
            for item in [x for x in whole.train_x if x.label == label][::-1][:shots]
        ],
        "val": [
            item
            for label in range(3)
            for item in [x for x in whole.val if x.label == label][::-1][: min(shots, 4)]
        ],
    }
    write_pickle(root / FOLDER / f"shot_{shots}-seed_{seed}.pkl", content)
    return content


# --- our own files


def test_the_sample_of_a_seed_is_coops(root):
    """Drawn class by class with a generator freshly set to the seed, train before val."""
    whole = build(NAME, root)
    random.seed(5)
    expected = [
        [
            item.impath
            for label in range(3)
            for item in random.sample([x for x in part if x.label == label], shots)
        ]
        for part, shots in ((whole.train_x, 5), (whole.val, 4))
    ]
    dataset = build_pets(root, seed=5, shots=5)
    assert [[item.impath for item in part] for part in (dataset.train_x, dataset.val)] == expected


def test_a_stored_sample_is_given_again_without_drawing(root, monkeypatch):
    first = sample(build_pets(root), root)
    [name] = os.listdir(root / FOLDER)
    assert name.startswith("OxfordPets-shot_2-seed_1-") and name.endswith(".json")
    monkeypatch.setattr(random, "sample", lambda *_: pytest.fail("drawn again"))
    assert sample(build_pets(root), root) == first


def test_our_file_has_relative_paths_and_says_what_it_is_of(root):
    build_pets(root, seed=3)
    [path] = (root / FOLDER).iterdir()
    content = json.loads(path.read_text())
    assert (content["shots"], content["seed"]) == (2, 3) and content["split_hash"] in path.name
    named = [name for part in ("train", "val") for name, _ in content[part]]
    assert all(
        (root / "oxford_pets" / name).is_file() and not os.path.isabs(name) for name in named
    )


def test_a_stored_sample_holds_wherever_the_data_lie(root, tmp_path):
    first = sample(build_pets(root), root)
    root.rename(tmp_path / "moved")
    assert sample(build_pets(tmp_path / "moved"), tmp_path / "moved") == first


def test_another_split_number_or_seed_is_another_file(root):
    build_pets(root)
    build_pets(root, seed=2)
    build_pets(root, shots=3)
    split = root / "oxford_pets" / "split_zhou_OxfordPets.json"
    content = json.loads(split.read_text())
    split.write_text(json.dumps({**content, "train": content["train"][1:]}))
    build_pets(root)
    assert len(os.listdir(root / FOLDER)) == 4


def test_the_whole_run_after_is_the_same_with_and_without_a_file(root):
    """Python's, numpy's and torch's generators are where the seed left them, however the sample came about."""

    def states():
        set_random_seed(1)
        dataset = build_pets(root)
        return sample(dataset, root), random.random(), numpy.random.random(), torch.rand(1).item()

    drawn, read = states(), states()
    assert drawn == read
    coops_sample(root)
    assert states()[1:] == drawn[1:], "with CoOp's pickle too"
    set_random_seed(1)
    assert (random.random(), numpy.random.random(), torch.rand(1).item()) == drawn[1:]


@pytest.mark.parametrize("before", [0, 3])
def test_the_sample_does_not_depend_on_draws_before_it(root, before):
    set_random_seed(1)
    expected = sample(build_pets(root), root)
    [path] = (root / FOLDER).iterdir()
    path.unlink()
    for _ in range(before):
        random.random()
    assert sample(build_pets(root), root) == expected


def test_without_a_seed_nothing_is_read_or_written(root):
    (root / FOLDER).mkdir()
    (root / FOLDER / "shot_2-seed_-1.pkl").write_bytes(b"never opened")
    drawn = set()
    for seed in range(5):
        random.seed(seed)
        drawn.add(str(sample(build_pets(root, seed=-1), root)))
    assert (
        len(drawn) > 1
        and os.listdir(root / FOLDER) == ["shot_2-seed_-1.pkl"]
        and not os.path.exists(os.environ["CDC_CACHE"])
    )


def refuse_writing(monkeypatch, *folders):
    real = fewshot.write_text

    def write(path, text):
        if any(path.startswith(str(folder)) for folder in folders):
            raise PermissionError(13, "Permission denied")
        real(path, text)

    monkeypatch.setattr(fewshot, "write_text", write)


def test_a_read_only_data_folder_has_its_samples_in_the_cache_folder(root, monkeypatch):
    refuse_writing(monkeypatch, root)
    before = files_below(root)
    first = sample(build_pets(root), root)
    assert files_below(root) == before
    [name] = os.listdir(os.path.join(os.environ["CDC_CACHE"], "split_fewshot"))
    assert name.startswith("OxfordPets-shot_2-seed_1-")
    monkeypatch.setattr(random, "sample", lambda *_: pytest.fail("drawn again"))
    assert sample(build_pets(root), root) == first


def test_where_nothing_can_be_written_the_run_goes_on(root, monkeypatch, caplog):
    refuse_writing(monkeypatch, root, os.environ["CDC_CACHE"])
    with caplog.at_level(logging.INFO):
        first, second = (sample(build_pets(root), root) for _ in range(2))
    assert (
        first == second
        and "The few-shot sample is not stored; the same seed draws it again" in caplog.text
    )


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"CDC_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/cdc-prompt-learning"),
        ({}, "/c/.cache/cdc-prompt-learning"),
    ],
)
def test_the_cache_folder(monkeypatch, variables, expected):
    for name in ("CDC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/c", **variables}.items():
        monkeypatch.setenv(name, value)
    assert fewshot.cache_folder() == expected


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text[:50], "can't be read"),
        (lambda text: "", "can't be read"),
        (lambda text: "{}", r"can't be read \(KeyError: 'train'\)"),
        (
            lambda text: (
                text.replace("train0.jpg", "val0.jpg")
                .replace("train1", "val1")
                .replace("train2", "val2")
            ),
            "is not in the train split",
        ),
        (
            lambda text: json.dumps({**json.loads(text), "val": json.loads(text)["val"][1:]}),
            "has 1 val images of class 0, not 2: delete it",
        ),
    ],
)
def test_a_damaged_sample_is_named(root, damage, message):
    build_pets(root, shots=4 if "split" in message else 2)
    [path] = (root / FOLDER).iterdir()
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=f"few-shot sample {path}.* ?{message}"):
        build_pets(root, shots=4 if "split" in message else 2)


def test_a_class_with_fewer_images_gives_all_it_has(root):
    dataset = build_pets(root, shots=16)
    assert Counter(item.label for item in dataset.train_x) == {0: 6, 1: 6, 2: 6}
    assert Counter(item.label for item in dataset.val) == {0: 4, 1: 4, 2: 4}
    assert sample(build_pets(root, shots=16), root) == sample(dataset, root)


# --- CoOp's files


def test_coops_sample_is_taken_if_it_is_there(root):
    drawn = sample(build_pets(root), root)
    expected = coops_sample(root)
    dataset = build_pets(root)
    assert [item.impath for item in dataset.train_x] == [item.impath for item in expected["train"]]
    assert [item.impath for item in dataset.val] == [item.impath for item in expected["val"]]
    assert sample(dataset, root) != drawn


@pytest.mark.parametrize("windows", [False, True])
def test_coops_paths_of_another_machine_lead_to_this_folder(root, tmp_path, windows):
    coops_sample(root)
    expected = sample(build_pets(root), root)
    root.rename(tmp_path / "elsewhere")
    if windows:
        path = tmp_path / "elsewhere" / FOLDER / "shot_2-seed_1.pkl"
        content = pickle.loads(path.read_bytes())
        for item in [*content["train"], *content["val"]]:
            item._impath = "D:" + item._impath.replace("/", "\\")
        write_pickle(path, content)
    assert sample(build_pets(tmp_path / "elsewhere"), tmp_path / "elsewhere") == expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"_impath": "/etc/passwd"}, "/etc/passwd with label 0 is not in the train split"),
        ({"_impath": "../../images/one/train5.jpeg"}, "is not in the train split"),
        ({"_label": 1}, "with label 1 is not in the train split"),
        ({"_impath": 7}, "a Datum whose path is a int"),
        ({"_label": "0"}, "whose label is a str"),
    ],
)
def test_a_sample_that_leads_elsewhere_is_refused(root, change, message):
    content = coops_sample(root)
    vars(content["train"][0]).update(change)
    write_pickle(root / FOLDER / "shot_2-seed_1.pkl", content)
    with pytest.raises(UserError, match=message):
        build_pets(root)


@pytest.mark.parametrize(
    "content",
    [[], {}, {"train": []}, {"train": [1], "val": []}, {"train": None, "val": None}, "text", 7],
)
def test_a_pickle_of_something_else_is_refused(root, content):
    write_pickle(root / FOLDER / "shot_2-seed_1.pkl", content)
    with pytest.raises(
        UserError, match="shot_2-seed_1.pkl is not read .* delete it|has 0 train images of class 0"
    ):
        build_pets(root)


def test_a_sample_of_another_number_of_images_is_refused(root):
    content = coops_sample(root)
    write_pickle(root / FOLDER / "shot_2-seed_1.pkl", {**content, "train": content["train"][:-1]})
    with pytest.raises(UserError, match="has 1 train images of class 2, not 2: delete it"):
        build_pets(root)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def dotted(module, name, argument):
    """A pickle that asks a module it may name for something inside it, and calls that."""
    return (
        b"\x80\x04"
        + b"\x8c"
        + bytes([len(module)])
        + module
        + b"\x8c"
        + bytes([len(name)])
        + name
        + b"\x93"
        + b"\x8c"
        + bytes([len(argument)])
        + argument
        + b"\x85R."
    )


@pytest.mark.parametrize(
    "kind",
    [
        "os.system",
        "builtins.exec",
        "builtins.eval",
        "inside a sample",
        "getattr",
        "dotted",
        "old protocol",
        "persistent",
    ],
)
def test_a_malicious_pickle_is_refused_and_not_executed(root, tmp_path, kind):
    marker = tmp_path / "executed"
    shell, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    content = coops_sample(root)
    data = {
        "os.system": lambda: pickle.dumps(Calls(os.system, shell)),
        "builtins.exec": lambda: pickle.dumps(Calls(exec, code)),
        "builtins.eval": lambda: pickle.dumps({"train": [Calls(eval, code)], "val": []}),
        "inside a sample": lambda: pickle.dumps(
            {**content, "val": [*content["val"], Calls(os.system, shell)]}
        ),
        "getattr": lambda: pickle.dumps(Calls(getattr, content["train"][0], "__class__")),
        "dotted": lambda: dotted(b"dassl.data.datasets.base_dataset", b"os.system", shell.encode()),
        "old protocol": lambda: b"cos\nsystem\n(S'" + shell.encode() + b"'\ntR.",
        "persistent": lambda: b"Pname\n.",
    }[kind]()
    (root / FOLDER / "shot_2-seed_1.pkl").write_bytes(data)
    with pytest.raises(UserError, match="shot_2-seed_1.pkl is not read .*delete it"):
        build_pets(root)
    assert not marker.exists()
    if kind == "os.system":
        pickle.loads(data)
        assert marker.exists(), "it would have been"


def test_not_even_datum_is_called(root, monkeypatch):
    """Its constructor looks for files; a pickle could ask for any."""
    coops_sample(root)
    (root / FOLDER / "shot_2-seed_1.pkl").write_bytes(pickle.dumps(Calls(Datum, __file__)))
    monkeypatch.setattr(Datum, "__init__", lambda *_: pytest.fail("called"))
    with pytest.raises(UserError, match="is not read"):
        build_pets(root)


# --- ImageNet


def test_imagenets_sample_has_no_validation_part(tmp_path):
    imagenet(tmp_path)
    whole = build("ImageNet", tmp_path)
    content = {
        "train": [item for item in whole.train_x if item.impath.endswith(("_4.JPEG", "_1.JPEG"))]
    }
    write_pickle(tmp_path / "imagenet" / "split_fewshot" / "shot_2-seed_1.pkl", content)
    dataset = build("ImageNet", tmp_path, shots=2, seed=1)
    assert [item.impath for item in dataset.train_x] == [item.impath for item in content["train"]]
    assert dataset.val is dataset.test and len(dataset.test) == 15


def test_coops_order_of_imagenet_is_taken_over(tmp_path):
    """CoOp draws from the order in which its file system listed the images."""
    imagenet(tmp_path / "there")
    whole = build("ImageNet", tmp_path / "there")
    order = sorted(whole.train_x, key=lambda item: (item.label, -ord(item.impath[-6])))
    write_pickle(
        tmp_path / "there" / "imagenet" / "preprocessed.pkl", {"train": order, "test": whole.test}
    )
    (tmp_path / "there").rename(tmp_path / "here")
    random.seed(1)
    expected = [
        item.impath
        for label in range(3)
        for item in random.sample([x for x in order if x.label == label], 2)
    ]
    dataset = build("ImageNet", tmp_path / "here", shots=2, seed=1)
    assert [item.impath.replace("/here/", "/there/") for item in dataset.train_x] == expected


def test_an_order_of_other_images_is_refused(tmp_path):
    imagenet(tmp_path)
    whole = build("ImageNet", tmp_path)
    path = tmp_path / "imagenet" / "preprocessed.pkl"
    write_pickle(path, {"train": whole.train_x, "test": whole.test})
    (tmp_path / "imagenet" / "images" / "train" / "n02" / "n02_0.JPEG").unlink()
    with pytest.raises(
        UserError, match="preprocessed.pkl lists other training images than .*images/train holds"
    ):
        build("ImageNet", tmp_path)
    path.write_bytes(pickle.dumps(Calls(os.system, f"touch {tmp_path / 'executed'}")))
    with pytest.raises(UserError, match="preprocessed.pkl is not read"):
        build("ImageNet", tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_training_is_the_same_whether_the_file_was_there_or_not(tmp_path, small_clip_file):
    make_textures(tmp_path)
    records = []
    for name in ("drawn", "read"):
        train.run(
            parse_arguments(base_arguments("CoOp", str(tmp_path), small_clip_file, tmp_path / name))
        )
        records.append(json.loads((tmp_path / name / "results.json").read_text()))
        assert len(os.listdir(tmp_path / "dtd" / "split_fewshot")) == 1
    for key in ("split_hash", "prompts_hash", "metrics", "fewshot_sample"):
        assert records[0][key] == records[1][key]
    assert (
        records[0]["fewshot_sample"]["origin"] == "drawn with seed 1"
        and len(records[0]["fewshot_sample"]["hash"]) == 16
    )


def test_coops_sample_is_named_and_its_hash_is_of_the_images_whichever_classes_are_kept(root):
    drawn = build_pets(root).fewshot_sample
    coops_sample(root)
    taken = build_pets(root).fewshot_sample
    assert (drawn["origin"], taken["origin"]) == ("drawn with seed 1", "CoOp: shot_2-seed_1.pkl")
    assert drawn["hash"] != taken["hash"]
    assert build(NAME, root, shots=2, seed=1, classes="base").fewshot_sample == taken
