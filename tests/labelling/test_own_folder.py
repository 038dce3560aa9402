"""train.py --images: what it stands for, which CLIP it takes, and a whole run on the embedded tiny
CLIP; ``fit`` is the same."""

import html
import json
import shlex
import textwrap
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

import predict
import train
from labelling import PromptedClassifier
from labelling.checkout.arguments import asked_of_images
from labelling.checkout.image_folder import ImageFolder
from labelling.commands import predict as cdc_predict
from labelling.commands import train as cdc_train
from labelling.label_cells import pictures_and_labels, write_images
from labelling.own_run import complete
from labelling.request import add_arguments
from labelling.rules import explain, offered
from labelling.task import SINGLE_LABEL
from labelling.threshold import read_validation, threshold_of
from protocols.command_line import parse_arguments
from tests.runs import (
    REPOSITORY,
    call,
    contents_of,
    make_pictures,
    python,
    record_of,
    refuses,
    small_recipe,
)
from trainers.common.image_files import decoded, read_picture
from trainers.data.images import Images
from trainers.data.lists import Image as Listed
from trainers.engine.run import Run
from trainers.engine.testing import Evaluator
from trainers.prompting.weights import open_clip_models, openai

NAMES = ("red square", "blue quokka")
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def shapes(tmp_path):
    return make_pictures(tmp_path / "my shapes", names=NAMES)


@pytest.fixture
def written_out(shapes):
    """The run that a command on the shapes stands for: its recipe's name, its CLIP, and why that."""

    def expand(trainer, *more):
        args = parse_arguments(
            ["--trainer", trainer, "--images", str(shapes), *more], add_arguments
        )
        asked = asked_of_images(args)
        run, reasons = complete(asked, [*filter(None, [args.resume]), asked.folder])
        place = f"{REPOSITORY}/configs/trainers/"
        return run.recipe.removeprefix(place).removesuffix(".yaml"), run.backbone, " ".join(reasons)

    return expand


# ---- whole runs ----


def test_without_a_trainer_one_is_taken(shapes, tmp_path, monkeypatch, capsys):
    """By the command and by ``fit`` alike; the same command again finds the run done."""
    monkeypatch.chdir(tmp_path)
    words = ["--backbone", "tiny", "--images", str(shapes)]
    assert train.main(words) == 0
    folder = Path("output/my shapes/seed1")
    record = record_of(folder)
    assert record["trainer"] == SINGLE_LABEL.trainer
    assert f"{SINGLE_LABEL.trainer} is taken, which is fitted in seconds" in capsys.readouterr().out
    assert train.main(words) == 0
    assert record_of(folder) == record
    fitted = PromptedClassifier.fit(shapes, backbone="tiny", folder="fitted").record
    for key in ("trainer", "notes", "prompts_hash"):
        assert fitted[key] == record[key]
    assert fitted["metrics"]["test"] == record["metrics"]["test"]


def test_pictures_are_all_tested_by_what_has_not_seen_them_and_all_trained_on(
    shapes, tmp_path, capsys
):
    """The record, the log, the report and the promise say which it was, at every number of pictures."""
    words = ["--backbone", "tiny", "--trainer", "GDA", "--images", str(shapes)]
    assert train.main([*words, "--output-dir", f"{tmp_path}/few"]) == 0
    record = record_of(tmp_path / "few")
    assert record["folds"] == 10
    assert record["metrics"]["test"]["images"] == 20
    said = "all 20 images by 10-fold cross-validation"
    assert said in capsys.readouterr().out
    page = html.unescape((tmp_path / "few/report.html").read_text())
    assert said in page
    assert f"<p>{offered(threshold_of(f'{tmp_path}/few').validation)}</p>" in page
    assert "the run's 20 cross-validated images" in explain(threshold_of(f"{tmp_path}/few"))
    known = PromptedClassifier.load(tmp_path / "few")
    assert known.method.learner.features.shape[0] == 20, "what is kept has seen all"
    make_pictures(shapes, count=50, names=NAMES)
    place = tmp_path / "many"
    many = PromptedClassifier.fit(shapes, trainer="GDA", backbone="tiny", folder=place).record
    assert many["folds"] == 10
    assert many["metrics"]["test"]["images"] == 100


def test_of_parts_that_the_user_made_the_test_stays_out_and_promises_come_of_the_rest(
    shapes, tmp_path
):
    parts = tmp_path / "parts"
    for part, count in (("train", 12), ("val", 6), ("test", 8)):
        make_pictures(parts / part, count=count, names=NAMES)
    place = tmp_path / "run"
    made = PromptedClassifier.fit(parts, trainer="GDA", backbone="tiny", folder=place)
    assert made.method.learner.features.shape[0] == 2 * 18, "training and validation"
    assert made.record["metrics"]["test"]["images"] == 2 * 8
    assert "folds" not in made.record
    validation = read_validation(str(place))
    assert validation.is_folds
    counted = validation.points[-1].answered if validation.points else 0
    assert counted + validation.uncounted == 2 * 18


def test_a_run_in_folds_that_was_stopped_ends_with_the_same_numbers(shapes, tmp_path, monkeypatch):
    def fit(name):
        place = tmp_path / name
        return PromptedClassifier.fit(shapes, trainer="GDA", backbone="tiny", folder=place).record

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "write_record", stop)
        with pytest.raises(KeyboardInterrupt):
            fit("stopped")
    again = fit("stopped")
    whole = fit("whole")
    for key in ("prompts_hash", "metrics", "folds"):
        assert again[key] == whole[key]


@pytest.mark.slow
def test_a_process_of_its_own_shows_ones_own_pictures(shapes, tmp_path):
    """The tests' process knows ImageFolder since other tests began."""
    folder = tmp_path / "run"
    words = "train.py --trainer ZeroshotCLIP --backbone tiny --images".split()
    assert python(*words, shapes, "--output-dir", folder).returncode == 0
    assert "data:image/" in (folder / "report.html").read_text()
    shown = """
import sys
from labelling.serve.demo import find_examples
from trainers.common.record_file import read_record
folder, root = sys.argv[1:]
print(len(find_examples(folder, read_record(f"{folder}/results.json"), root)))
"""
    found = python("-c", shown, folder, shapes)
    assert found.stdout == "8\n", found.stderr


LOG = [  # of the run on the shapes
    "This CLIP does not know some words in 1 of 2 class names: 'blue quokka' (quokka)",
    "MAX_EPOCH: 2",  # what the console is spared
    "CDC/tiny.yaml, results in output/my shapes/CDC/seed1",
    "Training takes up to 1 minute",
    "The CLIP is tiny, to try things: it has seen small drawings only",
    " for comparison: chance 50.0 %, zero-shot ",
    "Look at the run: output/my shapes/CDC/seed1/report.html",
    "Label images with: python predict.py --run 'output/my shapes/CDC/seed1' PATH",
]


def test_one_command_trains_and_its_run_labels_images(shapes, asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in (shapes / "red square").iterdir():
        path.write_bytes((shapes / "red square/0.bmp").read_bytes())  # copies in training and test
    words = ["--trainer", "CDC", "--images", f"{shapes}/", "OPTIM.MAX_EPOCH", "2"]
    assert train.main(words) == 0
    output = Path("output/my shapes/CDC/seed1")
    record = record_of(output)
    assert (record["dataset"], record["shots"]) == ("ImageFolder", -1)
    assert record["metrics"]["test"]["images"] == 6
    assert record["config"]["MODEL"]["BACKBONE"]["NAME"] == "tiny"
    assert "MAX_EPOCH" not in capsys.readouterr().out
    log = (output / "log.txt").read_text()
    assert [line for line in LOG if line not in log] == []
    zero_shot = record_of(output / "ZeroshotCLIP")
    assert zero_shot["trainer"] == "ZeroshotCLIP"
    for key in ("split_hash", "backbone_hash"):
        assert zero_shot[key] == record[key]
    page = (output / "report.html").read_text()
    for part in (
        "Training images look like 3 test images, such as red square/",
        f"untrained (zero-shot)</dt> <dd>{zero_shot['metrics']['test']['accuracy']:.1f}&nbsp;%",
        f"{record['metrics']['test']['accuracy']:.2f}",
        "data:image/",
    ):
        assert part in page
    assert call(predict.main, "--run", output, shapes, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 20
    assert train.main(words) == 0
    assert asked == ["ViT-B/32"], "the run's CLIP is known by now"
    assert "Done already" in capsys.readouterr().out


def test_fit_is_the_run_of_the_command_on_a_folder_or_on_images_with_labels(
    shapes, small_clip_file, tmp_path
):
    """Where there is no Dassl, and its answers, too; with images that are given one by one as well: they
    have the same classes, in the same order."""
    folder = str(shapes)
    paths = sorted(map(str, shapes.glob("*/*.bmp")))
    recipe = small_recipe("CoOp")
    options = f"--config-file {recipe} --seed 3 OPTIM.MAX_EPOCH 2 DATALOADER.NUM_WORKERS 0".split()
    words = ["--images", folder, "--trainer", "CoOp", "--backbone", small_clip_file]
    assert call(train.main, *words, "--output-dir", f"{tmp_path}/command", *options) == 0
    given = {"trainer": "CoOp", "backbone": small_clip_file, "recipe": recipe, "seed": 3}
    given["settings"] = {"OPTIM.MAX_EPOCH": 2}
    program = f"""
        import random, sys, torch
        sys.modules["dassl"] = None
        from cdc_labelling import PromptedClassifier
        before = random.getstate(), torch.get_rng_state()
        PromptedClassifier.fit({folder!r}, folder="fit", **{given!r})
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        print(PromptedClassifier.load("fit").predict({paths[:3]!r}).labels)
    """
    done = python("-W", "ignore", "-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fitted = PromptedClassifier.load(tmp_path / "fit")
    assert done.stdout.splitlines()[-1] == str(fitted.predict(paths[:3]).labels)
    command = record_of(tmp_path / "command")
    for key in ("prompts_hash", "metrics", "split_hash", "fewshot_sample", "run"):
        assert fitted.record[key] == command[key]
    images = [path if number % 2 else Image.open(path) for number, path in enumerate(paths)]
    labels = [Path(path).parent.name for path in paths]
    again = PromptedClassifier.fit(images, labels, folder=tmp_path / "again", **given)
    assert again.classnames == fitted.classnames
    assert again.record["metrics"]["test"]["images"] == command["metrics"]["test"]["images"]
    loaded = PromptedClassifier.load(f"{tmp_path}/again")
    answers = [each.predict(paths[:3]).probabilities for each in (loaded, again)]
    numpy.testing.assert_array_equal(*answers)


def test_a_fit_that_was_stopped_goes_on_by_the_same_call(
    shapes, small_clip_file, tmp_path, monkeypatch
):
    given = {"trainer": "CoOp", "backbone": small_clip_file, "recipe": small_recipe("CoOp")}
    made = []
    after_epoch = Run.after_epoch

    def stopping(self):
        after_epoch(self)
        made.append(self.epoch)
        if len(made) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "after_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        PromptedClassifier.fit(shapes, folder=tmp_path / "stopped", **given)
    again = PromptedClassifier.fit(shapes, folder=tmp_path / "stopped", **given)
    assert made == [0, 1, 2], "three epochs, and none of them twice"
    whole = PromptedClassifier.fit(shapes, folder=tmp_path / "whole", **given)
    for key in ("prompts_hash", "metrics"):
        assert again.record[key] == whole.record[key]


def test_the_installed_commands_train_and_label(shapes, tmp_path, capsys):
    words = [str(shapes), "--trainer", "ZeroshotCLIP", "--backbone", "tiny"]
    words += ["--output-dir", f"{tmp_path}/my run"]
    assert cdc_train.main([*words, "--settings", "DATALOADER.TEST.BATCH_SIZE"]) == 2
    assert "settings must come in pairs, KEY VALUE" in capsys.readouterr().err
    assert cdc_train.main([*words, "--settings", "DATALOADER.TEST.BATCH_SIZE", "4"]) == 0
    record = record_of(tmp_path / "my run")
    assert record["config"]["DATALOADER"]["TEST"]["BATCH_SIZE"] == 4
    accuracy = f"Accuracy: at least about {record['metrics']['test']['accuracy']:.1f} % of all 20 images by 10-fold"
    said = capsys.readouterr().err
    advice = said.partition(accuracy)[2].partition("Label images with: cdc-predict ")[2]
    options = shlex.split(advice.partition(" PATH …")[0])
    assert cdc_predict.main([*options, "--json", str(shapes / "red square/0.bmp")]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {entry["class"] for entry in answer["top"]} == {*NAMES}


# ---- which run ----


def test_an_unknown_clip_is_refused_before_any_picture_is_opened(
    shapes, asked, monkeypatch, error_of
):
    monkeypatch.setattr("trainers.common.image_files.open_image", lambda file: pytest.fail(file))
    line = error_of(train.main, "--trainer", "CoOp", "--images", shapes, "--backbone", "tinyy")
    assert "MODEL.BACKBONE.NAME is 'tinyy', which is neither" in line
    assert "mean tiny?" in line


@pytest.mark.parametrize(
    "trainer, has_gpu, device, recipe, backbone",
    [
        ("CDC", True, [], "CDC/vit_b16", "ViT-B/16"),
        ("CDC", True, ["--device", "cuda:1"], "CDC/vit_b16", "ViT-B/16"),
        ("CDC", True, ["--device", "cpu"], "CDC/vit_b32_text", "ViT-B/32"),
        ("CDC", False, [], "CDC/vit_b32_text", "ViT-B/32"),
        ("MaPLe", False, [], "MaPLe/vit_b16", "ViT-B/32"),
    ],
)
def test_a_clip_that_knows_photographs_is_taken_where_it_can_be_had(
    written_out, monkeypatch, caplog, trainer, has_gpu, device, recipe, backbone
):
    monkeypatch.setattr(openai, "find", lambda name: f"{name} is there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    *found, why = written_out(trainer, *device)
    assert found == [recipe, backbone]
    assert why.startswith(f"The CLIP is {backbone}, which knows photographs")
    assert ("MaPLe has no recipe for ViT-B/32" in caplog.text) is (trainer == "MaPLe")


def test_better_weights_of_the_same_cost_are_told_and_taken_where_they_are_in_the_cache(
    written_out, monkeypatch
):
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    monkeypatch.setattr(openai, "find", lambda name: f"{name} is there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    better = "open_clip:ViT-B-16/datacomp_xl_s13b_b90k"
    _, backbone, why = written_out("CoOp")
    assert backbone == "ViT-B/16"
    assert f"then --backbone {better} (" in why
    monkeypatch.setattr(open_clip_models, "path_in_cache", lambda *file: "a file")
    _, backbone, why = written_out("CoOp")
    assert backbone == better
    assert why.startswith(f"The CLIP is {better}, which knows")
    monkeypatch.setattr(open_clip_models, "find_spec", lambda name: None)  # it is not installed
    assert written_out("CoOp")[1] == "ViT-B/16"


def test_small_classes_and_a_class_that_is_most_of_the_test_are_warned_of():
    def part(**counts):
        return [
            Listed(f"{name} {number}", 0, name) for name in counts for number in range(counts[name])
        ]

    names = ["ant", "bee", "cat"]
    data = Images(part(ant=9, bee=2), [], part(ant=8, bee=1, cat=10), names)
    (note,) = SINGLE_LABEL.notes_on_classes(data)
    assert "Fewer than 10 images are in 1 class, such as bee (3)" in note
    data = Images(part(ant=9, bee=2), [], part(ant=8, bee=1, cat=40), names)
    _, note = SINGLE_LABEL.notes_on_classes(data)
    assert "82 % of the test images are of cat: always answering that is right" in note


# ---- images with labels ----


def data_set(labels, kind=Dataset, classes=None):
    """A torch data set of black pictures with these labels."""
    items = [(Image.new("RGB", (8, 8)), label) for label in labels]
    methods = {
        "__iter__": lambda _: iter(items),
        "__len__": lambda _: len(items),
        "__getitem__": lambda _, number: items[number],
    }
    made = type("Pairs", (kind,), methods)()
    if classes is not None:
        made.classes = classes
    return made


def test_images_with_their_labels_come_in_many_forms(tmp_path):
    names = ["ant", "bee"] * 3
    paths = [f"{number}.png" for number in range(6)]
    table = pandas.DataFrame({"path": paths, "label": names, "camera": 1})
    assert pictures_and_labels(table, None) == (paths, names)
    assert pictures_and_labels(numpy.array(paths), numpy.array(names)) == (paths, names)
    numbered = data_set([0, 1] * 3, classes=["ant", "bee"])
    assert pictures_and_labels(numbered, None)[1] == names
    part = Subset(Subset(numbered, [0, 1, 2]), [1, 2])
    assert pictures_and_labels(part, None)[1] == ["bee", "ant"]
    assert pictures_and_labels(data_set([1, 0]), None)[1] == ["1", "0"]
    with refuses("the images have no labels: give labels, .* columns path and label"):
        pictures_and_labels(table.drop(columns="label"), None)
    with refuses("there are 6 images and 1 labels: give one for each"):
        PromptedClassifier.fit(paths, ["cat"], folder=tmp_path / "run")


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_a_label_of_a_data_set_is_a_name_or_a_number_and_all_else_is_refused(kind):
    classes = ["ant", "bee"]
    for known in (1, numpy.int64(1), torch.tensor(1)):
        found = pictures_and_labels(data_set([known, "wasp"], kind, classes), None)
        assert found[1] == ["bee", "wasp"]
    for label in (-1, 2, 0.9, None, torch.tensor([0, 1])):
        with refuses("the label of image 1 is .*: give a name or a "):
            pictures_and_labels(data_set([0, label], kind, classes), None)


def test_classes_of_a_data_set_have_a_name_each():
    for twice in (["ant", "bee", "ant"], ["ant", "ant "]):
        with refuses(r"classes have a name twice \(ant\)"):
            pictures_and_labels(data_set([0, 1], classes=twice), None)
    with refuses("the label 5 is not a name"):
        pictures_and_labels(data_set([0], classes=[5, 6]), None)


LABELS = [*"../victim fruit/apple Fruit fruit .. /etc .hidden train Käse C:\\x".split(), "x" * 300]


def test_a_label_is_a_name_and_no_path(tmp_path):
    """Each is a class of its own, under its own name, and nothing is written outside the folder."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/000000.png").write_bytes(b"somebody's")
    images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(4 * len(LABELS))]
    file = write_images(images, LABELS * 4, f"{tmp_path}/run-images", multi_label=False)
    lists = ImageFolder.list_images(file)
    assert [len(part) for part in lists] == [2 * len(LABELS), len(LABELS), len(LABELS)]
    for image in sum(lists, []):
        number = Image.open(image.impath).getpixel((0, 0))[0]
        assert image.classname == LABELS[number % len(LABELS)] == sorted(LABELS)[image.label]
    assert contents_of(tmp_path / "victim") == {tmp_path / "victim/000000.png": b"somebody's"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-images", "victim"]


@pytest.mark.parametrize("label", [None, "", "a\nb", "\ud800", float("nan")])
def test_what_is_no_label_is_named_and_leaves_nothing(tmp_path, label):
    images = [Image.new("RGB", (8, 8))] * 2
    with refuses("the label .* is not a name: give a text of one line"):
        PromptedClassifier.fit(images, ["cat", label], folder=tmp_path / "run")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("image", ["missing.png", ".", None, Image.new("RGB", (0, 0))])
def test_an_image_that_is_none_is_named_and_the_corrected_call_works(tmp_path, image):
    sound = Image.new("RGB", (8, 8))
    with refuses("is not a file|is not an image|can't be read"):
        write_images([sound, image], ["cat", "dog"], f"{tmp_path}/run-images", multi_label=False)
    assert not any(tmp_path.iterdir())
    write_images([sound, sound], ["cat", "dog"], f"{tmp_path}/run-images", multi_label=False)


NOISE = numpy.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype="uint8")


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(NOISE),
        Image.fromarray(NOISE[..., 0].astype("uint16") * 256),
        Image.fromarray(NOISE[..., :3]).convert("CMYK"),
    ],
    ids=lambda picture: picture.mode,
)
def test_pictures_of_every_mode_are_written_as_they_are_seen(tmp_path, picture):
    """Against what is seen of the same picture when it is given to ``predict``."""
    write_images([picture], ["cat"], f"{tmp_path}/images", multi_label=False)
    (path,) = tmp_path.rglob("*.png")
    with decoded(picture, "white") as seen:
        assert read_picture(str(path), "white").tobytes() == seen.tobytes()
