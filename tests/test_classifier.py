"""PromptedClassifier: a run's own answers without its data, from any kind of image, for other classes, and out of the ONNX file."""

import functools
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.transforms import RandomErasing

from protocols.training import main
from tests.conftest import ALWAYS, in_turn, small_recipe
from tests.trainers.test_every_trainer import BASE, LEARNING, NEW, TRAINERS
from trainers import PromptedClassifier
from trainers.classifier import export
from trainers.classifier.saved_run import read_record
from trainers.common.errors import UserError
from trainers.features import FeatureMethod

CONDITIONAL = "CoCoOp"  # whose texts depend on the image
EXPORTED = [name for name in TRAINERS if name != CONDITIONAL]


def kept(folder, split="test"):
    """What the run wrote of each image, arrays by name."""
    with numpy.load(folder / f"predictions-{split}.npz", allow_pickle=False) as found:
        return dict(found)


def paths_of(expected, data_root):
    return [f"{data_root}/dtd/images/{name}" for name in expected["image"]]


def assert_same(answers, expected):
    """To the bit: the probabilities of the classes that were kept, and all that methods with templates say."""
    top = expected["top"]
    numpy.testing.assert_array_equal(
        numpy.take_along_axis(answers.probabilities, top, axis=1), expected["top_probability"]
    )
    assert answers.labels == [answers.classnames[label] for label in top[:, 0]]
    numpy.testing.assert_array_equal(answers.uncertainty, expected["max_probability"])
    for name in ("vacuity", "conflict"):
        assert (name in expected) == (getattr(answers, name) is not None)
        if name in expected:
            numpy.testing.assert_array_equal(getattr(answers, name), expected[name])
    assert ("vote" in expected) == (answers.votes is not None)
    if "vote" in expected:
        numpy.testing.assert_array_equal(answers.votes.argmax(axis=2).T, expected["vote"])
        numpy.testing.assert_array_equal(answers.votes.max(axis=2).T, expected["vote_probability"])


@pytest.fixture
def classifier(trained):
    return PromptedClassifier.load(trained("CDC")[1])


@pytest.fixture
def pictures(data_root):
    """Paths of six pictures of 40 × 40 pixels."""
    return [
        f"{data_root}/dtd/images/{name}/00.png"
        for name in ("banded", "dotted", "striped", "woven", "zigzagged", "grid")
    ]


# ---- the run's own answers ----


@pytest.mark.parametrize(
    "options",
    [(), ("TRAINER.CDC.PREC", "amp", "TRAINER.MAPLE.PREC", "fp16", "TRAINER.COOP.PREC", "fp16")],
)
@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_it_says_what_the_runs_own_test_said(trained, data_root, monkeypatch, name, options):
    """Also for runs in other precisions, as some of the trainers' are."""
    monkeypatch.setattr("trainers.engine.precision.SLOW_IN_FP16", ())
    trainer, folder = trained(name, *options)
    monkeypatch.setattr("trainers.trainer.DataManager", None)  # it must do without
    classifier = PromptedClassifier.load(str(folder))
    assert classifier.cfg == trainer.cfg
    assert classifier.classnames == trainer.model.classnames
    assert_same(classifier.predict(paths_of(kept(folder), data_root)), kept(folder))


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_with_other_classes_it_says_what_a_test_on_them_says(trained, run, data_root, name):
    _, base = trained(name, *BASE)
    _, _, new = run(name, *NEW, flags=("--eval-only", "--model-dir", str(base)))
    classifier = PromptedClassifier.load(base)
    other = classifier.with_classes(["woven", "zigzagged", "grid"])
    assert_same(other.predict(paths_of(kept(new), data_root)), kept(new))
    assert_same(
        classifier.predict(paths_of(kept(base), data_root)), kept(base)
    )  # the first one is as it was
    numpy.testing.assert_array_equal(
        kept(new)["top_probability"].sum(axis=1).round(5), 1
    )  # so all three classes were compared


def test_class_specific_contexts_answer_for_their_own_classes_only(trained, data_root):
    _, folder = trained("CoOp", "TRAINER.COOP.CSC", "True")
    classifier = PromptedClassifier.load(folder)
    assert_same(classifier.predict(paths_of(kept(folder), data_root)), kept(folder))
    with pytest.raises(
        UserError,
        match=r"contexts are class-specific \(TRAINER.COOP.CSC\): they say nothing of classes",
    ):
        classifier.with_classes(["cat", "dog"])


def test_best_val_runs_answer_with_their_best_epoch(trained, data_root):
    _, folder = trained(
        "CoOp", "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "4", "OPTIM.LR", "2.0"
    )
    best = torch.load(folder / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    assert best["epoch"] < 4, "for this test to mean anything"
    assert_same(
        PromptedClassifier.load(folder).predict(paths_of(kept(folder), data_root)), kept(folder)
    )


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_embeddings_are_what_the_answer_is_made_of(trained, pictures, name):
    """For any classes, but for what a head of the trained ones alone adds."""
    classifier = PromptedClassifier.load(trained(name)[1])
    if getattr(classifier.method.learner, "class_parameters", ()):
        classifier = classifier.with_classes([*classifier.classnames[:-1], "cat"])
    images, method = classifier.embed_image(pictures), classifier.method
    assert images.shape[::2] == (6, 48) and images.dtype == numpy.float32
    numpy.testing.assert_allclose(numpy.linalg.norm(images, axis=2), 1, rtol=1e-5)
    if name == CONDITIONAL:
        with pytest.raises(UserError, match="CoCoOp's texts depend on the image"):
            classifier.embed_text()
        return
    texts = classifier.embed_text()
    numpy.testing.assert_allclose(numpy.linalg.norm(texts, axis=2), 1, rtol=1e-5)
    templates = max(images.shape[1], len(texts))
    logits = torch.from_numpy(
        numpy.stack(
            [images[:, m % images.shape[1]] @ texts[m % len(texts)].T for m in range(templates)]
        )
    )
    logits = logits * method.backbone.logit_scale
    if isinstance(method, FeatureMethod):  # whose classifier has more than the texts
        logits = method.learner(torch.from_numpy(images[:, 0]), logits[0])[None]
    answer = method.predict(logits)
    numpy.testing.assert_allclose(
        answer.probability, classifier.predict(pictures).probabilities, atol=1e-5
    )


# ---- kinds of images ----


def test_all_kinds_of_images_are_the_same_image(classifier, pictures):
    expected = classifier.predict(pictures)
    pillow = [Image.open(path) for path in pictures]
    arrays = numpy.stack([numpy.asarray(image) for image in pillow])
    tensor = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    floats = tensor.float() / 255
    for many in (
        pillow,
        arrays,
        list(arrays),
        tensor,
        list(tensor),
        floats,
        floats.double(),
        (path for path in pictures),
        [pictures[0], pillow[1], arrays[2], tensor[3], floats[4], pictures[5]],
    ):
        numpy.testing.assert_array_equal(
            classifier.predict(many).probabilities, expected.probabilities
        )
    alone = classifier.predict(pictures[1:2])
    for one in (pictures[1], pillow[1], arrays[1], tensor[1], floats[1]):
        numpy.testing.assert_array_equal(classifier.predict(one).probabilities, alone.probabilities)
    assert expected.images == pictures and classifier.predict([pictures[0], arrays[0]]).images == [
        pictures[0],
        None,
    ]


def test_colours_and_shapes_are_brought_to_what_the_test_takes(classifier, pictures, tmp_path):
    wide = Image.open(pictures[0]).resize((90, 50)).convert("LA")
    wide.save(tmp_path / "wide.png")
    expected = classifier.predict(numpy.asarray(wide.convert("RGB"))).probabilities
    numpy.testing.assert_array_equal(
        classifier.predict(tmp_path / "wide.png").probabilities, expected
    )
    numpy.testing.assert_array_equal(classifier.predict(wide).probabilities, expected)


def test_batches_are_the_runs_and_images_are_read_as_they_come(classifier, pictures, monkeypatch):
    read, seen, answer = [], [], classifier.method.answer
    monkeypatch.setattr(
        classifier.method,
        "answer",
        lambda images, encoded: (
            seen.append((images.shape[1], len(read))) or answer(images, encoded)
        ),
    )
    assert classifier.predict(
        read.append(path) or path for path in pictures * 6
    ).probabilities.shape == (36, 6)
    assert seen == [(16, 16), (16, 32), (4, 36)]


@pytest.mark.parametrize(
    "images, message",
    [
        (
            "nowhere.png",
            "image nowhere.png can't be read (there is no such file): replace it, or leave it out",
        ),
        ([], "there is no image to look at"),
        (5, "an image is a path, a PIL image, an array or a tensor, not int"),
        ([None], "not NoneType"),
        (
            numpy.zeros((3, 8, 8), "uint8"),
            "the array uint8 (3, 8, 8) is not an image: it must be uint8 (H, W, 3)",
        ),
        (numpy.zeros((8, 8, 3)), "the array float64 (8, 8, 3) is not an image"),
        (numpy.zeros((8, 8), "uint8"), "the array uint8 (8, 8) is not an image"),
        (numpy.zeros((0, 8, 3), "uint8"), "the array uint8 (0, 8, 3) is not an image"),
        (
            torch.zeros(8, 8, 3),
            "the tensor float32 (8, 8, 3) is not an image: it must be uint8 or floating point (3, H, W)",
        ),
        (torch.zeros(3, 8, 8, dtype=torch.long), "the tensor int64 (3, 8, 8) is not an image"),
        (torch.zeros(3, 0, 8), "the tensor float32 (3, 0, 8) is not an image"),
        (
            torch.full((3, 8, 8), -1.5),
            "has values from -1.5 to -1.5: give an image in [0, 1], not normalised",
        ),
        (torch.full((3, 8, 8), float("nan")), "has values from nan to nan"),
    ],
)
def test_what_is_no_image(classifier, images, message):
    with pytest.raises(UserError, match=re.escape(message)):
        classifier.predict(images)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_broken_file_is_named(classifier, pictures, tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(open(pictures[0], "rb").read()[:-60] if content is None else content)
    with pytest.raises(UserError, match="broken.png can't be read") as found:
        classifier.predict([*pictures, path])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("names", ["cat", ["cat"], [], ["cat", ""], ["cat", 3]])
def test_what_are_no_classes(classifier, names):
    with pytest.raises(UserError, match="give a list of at least two names"):
        classifier.with_classes(names)
    with pytest.raises(UserError, match="the class name .* is too long: with it a prompt has"):
        classifier.with_classes(["cat", "very " * 90 + "long"])


def test_a_table_for_pandas(classifier, trained, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    answers = classifier.predict(pictures)
    found = answers.to_pandas()
    assert list(found) == [
        "image",
        "label",
        "probability",
        "uncertainty",
        "vacuity",
        "conflict",
        *(f"vote_{m}" for m in range(1, 5)),
    ]
    assert all(len(column) == 6 for column in found.values()) and found["image"] == pictures
    assert found["vote_2"][3] == answers.classnames[answers.votes[3, 1].argmax()]
    assert (
        found["probability"][3]
        == answers.probabilities[3, answers.classnames.index(found["label"][3])]
    )
    plain = PromptedClassifier.load(trained("CoOp")[1]).predict(pictures).to_pandas()
    assert list(plain) == ["image", "label", "probability", "uncertainty"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="to_pandas needs pandas"):
        answers.to_pandas()


# ---- the run's folder ----


@pytest.fixture
def copy_of(trained, tmp_path):
    """A run's folder to be changed, and a way to change its record."""

    def copy(name, **changed):
        folder = tmp_path / f"copy of {name}"
        shutil.copytree(trained(name)[1], folder, dirs_exist_ok=True)
        record = {**json.loads((folder / "results.json").read_text()), **changed}
        (folder / "results.json").write_text(
            json.dumps(
                {
                    key: value
                    for key, value in record.items()
                    if key not in changed or value is not None
                }
            )
        )
        return folder

    return copy


def test_a_folder_without_a_finished_run(copy_of, tmp_path):
    with pytest.raises(
        UserError,
        match="nowhere holds no finished run, there is no results.json: give the --output-dir of a training",
    ):
        PromptedClassifier.load("nowhere")
    folder = copy_of("CoOp", config=None)
    with pytest.raises(
        UserError,
        match=r"results.json is not a valid run record \(its config is missing or of another kind\): run it again",
    ):
        PromptedClassifier.load(folder)
    (folder / "results.json").write_text("{")
    with pytest.raises(UserError, match="results.json is not a valid run record"):
        PromptedClassifier.load(folder)


def test_a_folder_without_prompts(copy_of):
    folder = copy_of("CoOp")
    shutil.rmtree(folder / "prompt_learner")
    with pytest.raises(
        UserError,
        match="holds no prompts: it tested those of another run, give the folder of that training",
    ):
        PromptedClassifier.load(folder)


def test_a_trainer_that_is_not_ours(copy_of, monkeypatch):
    with pytest.raises(
        UserError,
        match="made by the trainer 'Tcp2', which is not known here: import the module that registers it first",
    ):
        PromptedClassifier.load(copy_of("CoOp", trainer="Tcp2"))
    with pytest.raises(
        UserError, match="made by the trainer 'Base'"
    ):  # a module of ours, but none of a trainer
        PromptedClassifier.load(copy_of("CoOp", trainer="Base"))
    monkeypatch.setattr(TRAINER_REGISTRY, "get", lambda name: SimpleNamespace)
    with pytest.raises(
        UserError, match="the trainer CoOp that is registered here is types's, not trainers's"
    ):
        PromptedClassifier.load(copy_of("CoOp"))


def test_records_from_before_class_names_and_from_before_a_setting(copy_of, trained, pictures):
    config = read_record(trained("CDC")[1])["config"]
    del config["TRAINER"]["CDC"]["RELIABILITY"]
    config["OUTPUT_DIR"] = "7"  # a name that yacs would take for a number
    older = PromptedClassifier.load(copy_of("CDC", config=config, classnames=None))
    assert older.cfg.TRAINER.CDC.RELIABILITY == "fitted" and older.cfg.OUTPUT_DIR == "7"
    assert older.cfg.INPUT.SIZE == (32, 32)
    expected = PromptedClassifier.load(trained("CDC")[1]).predict(pictures)
    numpy.testing.assert_array_equal(older.predict(pictures).probabilities, expected.probabilities)
    with pytest.raises(
        UserError,
        match="does not say which classes there were: it was written by an earlier version, run it again",
    ):
        PromptedClassifier.load(copy_of("ZeroshotCLIP", classnames=None))


def test_a_clip_that_was_moved(copy_of, small_clip_file, tmp_path):
    config = read_record(copy_of("CoOp"))["config"]
    config["MODEL"]["BACKBONE"]["NAME"] = "moved.pt"
    folder = copy_of("CoOp", config=config)
    with pytest.raises(
        UserError, match="MODEL.BACKBONE.NAME is 'moved.pt', which is neither a file"
    ):
        PromptedClassifier.load(folder)
    assert len(PromptedClassifier.load(folder, backbone=small_clip_file).classnames) == 6
    state = torch.load(small_clip_file, weights_only=True)
    torch.save({**state, "text_projection": state["text_projection"] * 2}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="was trained for the backbone"):
        PromptedClassifier.load(folder, backbone=str(tmp_path / "other.pt"))


def test_as_a_guest_it_registers_nothing_but_the_runs_trainer_and_prints_nothing(
    trained, pictures, tmp_path
):
    program = f"""
        import cdc_trainers, sys
        from dassl.engine import TRAINER_REGISTRY
        assert not [name for name in sys.modules if name.startswith("cdc_trainers.")]
        before = set(TRAINER_REGISTRY.registered_names())
        from cdc_trainers import PromptedClassifier
        assert set(TRAINER_REGISTRY.registered_names()) == before
        for folder, ours in (({str(trained("CDC")[1])!r}, {{"CDC"}}),
                             ({str(trained("ZeroshotCLIP")[1])!r}, {{"CDC", "ZeroshotCLIP", "ZeroshotCLIP2"}})):
            classifier = PromptedClassifier.load(folder)
            assert set(TRAINER_REGISTRY.registered_names()) - before == ours
            print(classifier.predict({pictures[0]!r}).labels)
        try:
            cdc_trainers.nothing
        except AttributeError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    labels = [
        PromptedClassifier.load(trained(name)[1]).predict(pictures[0]).labels
        for name in ("CDC", "ZeroshotCLIP")
    ]
    assert done.stdout.splitlines() == [
        *map(str, labels),
        "module 'cdc_trainers' has no attribute 'nothing'",
    ]


# ---- export ----


def exported(classifier, folder):
    classifier.export(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.onnx",
        "prompts.safetensors",
    ]
    return onnxruntime.InferenceSession(folder / "model.onnx")


@pytest.fixture(scope="module")
def german(trained, tmp_path_factory):
    """``german()`` → a classifier for other classes, its exported folder, and that as a session; made once."""

    @functools.cache
    def make():
        classifier = PromptedClassifier.load(trained("CDC")[1]).with_classes(["Kühe", "Pferde"])
        folder = tmp_path_factory.mktemp("german") / "a" / "b"
        return classifier, folder, exported(classifier, folder)

    return make


@pytest.mark.parametrize("name", in_turn(EXPORTED, always=("CDC", ALWAYS[-1])))
def test_the_onnx_model_says_what_torch_says(trained, tmp_path, name):
    classifier = PromptedClassifier.load(trained(name)[1])
    session = exported(classifier, tmp_path / "exported")
    torch.manual_seed(0)
    pixels = torch.randint(256, (40, 3, 32, 32)).byte()  # of the model's size: nothing is resized
    for images in (40, 1):
        outputs = session.run(None, {"pixels": pixels[:images].float().numpy() / 255})
        answers = classifier.predict(pixels[:images])
        assert answers.probabilities.std() > 20 * export.TOLERANCE, (
            "images and classes must differ for this test to mean anything"
        )
        numpy.testing.assert_allclose(
            outputs[0], answers.probabilities, rtol=0, atol=export.TOLERANCE
        )
        assert len(outputs) == (1 if answers.vacuity is None else 2)
        if answers.vacuity is not None:
            numpy.testing.assert_allclose(
                outputs[1], answers.vacuity, rtol=0, atol=export.TOLERANCE
            )
    stored = load_file(tmp_path / "exported" / "prompts.safetensors")
    numpy.testing.assert_array_equal(stored.pop("text_features"), classifier.embed_text())
    if name in LEARNING:
        state = torch.load(
            trained(name)[1] / "prompt_learner" / "model.pth.tar-3", weights_only=True
        )["state_dict"]
        assert stored.keys() == state.keys() and all(
            torch.equal(value, state[key]) for key, value in stored.items()
        )


def test_what_the_files_say_of_themselves(german):
    classifier, folder, session = german()
    metadata = session.get_modelmeta().custom_metadata_map
    with safe_open(folder / "prompts.safetensors", "pt") as file:
        assert file.metadata() == {key: metadata[key] for key in file.metadata()}
    assert (
        json.loads(metadata["classnames"]) == ["Kühe", "Pferde"]
        and metadata["trainer"] == "CDC"
        and metadata["seed"] == "1"
    )
    card, record = (folder / "README.md").read_text(encoding="utf-8"), classifier.record
    assert card.startswith("# CDC on DescribableTextures\n") and "for 2 classes" in card
    accuracy = f"| accuracy (test) | {record['metrics']['test']['accuracy']:.2f} % |"
    for fact in (
        "DescribableTextures, all classes, 4 images a class",
        record["prompts_hash"],
        record["backbone_hash"],
        record["split_hash"],
        accuracy,
        "0. Kühe\n1. Pferde\n",
        "`vacuity` (N,)",
        "to 0.0001",
    ):
        assert fact in card


def test_the_cards_example_runs(german, pictures):
    classifier, folder, _ = german()
    program = (
        (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    )
    # half transparent, black where nobody sees it, turned by its EXIF data
    image, exif = Image.open(pictures[0]).convert("RGBA"), Image.Exif()
    image.paste((0, 0, 0, 0), (0, 0, image.width // 2, image.height))
    exif[0x0112] = 6
    image.save(folder / "cat.jpg", "PNG", exif=exif)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120
    )
    answers = classifier.predict(folder / "cat.jpg")
    label, probability = done.stdout.rsplit(maxsplit=1)
    assert label == answers.labels[0] and float(probability) == pytest.approx(
        answers.probabilities.max(), abs=0.02
    ), done.stderr


def test_a_run_in_fp16_on_a_resnet_on_pixels_as_they_are_without_a_test_is_exported_in_fp32(
    trained, small_resnet_file, tmp_path, monkeypatch
):
    """Pixels that were not normalised are not normalised in the model."""
    monkeypatch.setattr("trainers.engine.precision.SLOW_IN_FP16", ())
    options = (
        "TRAINER.COOP.PREC",
        "fp16",
        "MODEL.BACKBONE.NAME",
        small_resnet_file,
        "TEST.NO_TEST",
        "True",
        "INPUT.TRANSFORMS",
        "['random_resized_crop']",
    )
    classifier = PromptedClassifier.load(trained("CoOp", *options)[1])
    session = exported(classifier, tmp_path / "exported")
    pixels = torch.randint(256, (3, 3, 32, 32)).byte()
    images = classifier.embed_image(pixels)[:, 0]
    texts = classifier.embed_text()[0]
    expected = F.softmax(
        torch.from_numpy(images @ texts.T) * classifier.method.backbone.logit_scale, dim=1
    )
    numpy.testing.assert_allclose(
        session.run(None, {"pixels": pixels.float().numpy() / 255})[0], expected, atol=0.02
    )  # fp16 itself
    assert classifier.cfg.TRAINER.COOP.PREC == "fp16"
    assert "The run was not tested." in (tmp_path / "exported" / "README.md").read_text(
        encoding="utf-8"
    )


def test_what_cannot_be_exported(trained, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="CoCoOp can't be exported: its texts depend on the image"):
        PromptedClassifier.load(trained("CoCoOp")[1]).export(tmp_path / "out")
    classifier = PromptedClassifier.load(trained("CoOp")[1])
    classifier.transform.transforms.append(RandomErasing())
    with pytest.raises(
        UserError, match="INPUT.TRANSFORMS has RandomErasing, the model has room for normalize only"
    ):
        classifier.export(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        UserError,
        match="export needs the package onnxscript: pip install onnx onnxscript safetensors",
    ):
        PromptedClassifier.load(trained("CoOp")[1]).export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- from pictures ----


def test_fit_is_the_run_of_the_command_on_a_folder_or_on_images_with_labels(
    data_root, small_clip_file, tmp_path, capsys
):
    """With images that are given one by one as well: they end in the same folders, in the same order."""
    folder = f"{data_root}/dtd/images"
    options = ("--config-file", small_recipe(), "--seed", "3", "OPTIM.MAX_EPOCH", "2")
    arguments = ["--images", folder, "--trainer", "CoOp", "--backbone", small_clip_file]
    assert main([*arguments, "--output-dir", str(tmp_path / "command"), *options]) == 0
    given = {"trainer": "CoOp", "backbone": small_clip_file, "options": options}
    fitted = PromptedClassifier.fit(folder, folder=tmp_path / "fit", **given)
    command = read_record(str(tmp_path / "command"))
    assert fitted.record["prompts_hash"] == command["prompts_hash"] is not None
    assert fitted.record["metrics"] == command["metrics"]
    paths = sorted(str(path) for path in Path(folder).glob("*/*.png"))
    images = [path if number % 2 else Image.open(path) for number, path in enumerate(paths)]
    labels = [Path(path).parent.name for path in paths]
    again = PromptedClassifier.fit(images, labels, folder=tmp_path / "again", **given)
    assert again.classnames == fitted.classnames
    assert again.record["metrics"]["test"]["images"] == command["metrics"]["test"]["images"]
    numpy.testing.assert_array_equal(
        PromptedClassifier.load(tmp_path / "again").predict(paths[:3]).probabilities,
        again.predict(paths[:3]).probabilities,
    )


def test_fit_says_what_is_wrong_with_images_and_labels(tmp_path, pictures):
    with pytest.raises(UserError, match="there are 6 images and 1 labels: give one for each"):
        PromptedClassifier.fit(pictures, ["cat"], folder=tmp_path / "out")
    with pytest.raises(UserError, match="give labels"):
        PromptedClassifier.fit(pictures)


def test_labelling_pictures_builds_nothing_that_trains(trained, pictures, monkeypatch):
    folder = trained("CDC")[1]
    for name in ("DataManager", "Evaluator", "Checkpoints", "build_optimizer", "build_schedule"):
        monkeypatch.setattr(f"trainers.trainer.{name}", None)
    assert len(PromptedClassifier.load(folder).predict(pictures[:3]).labels) == 3
