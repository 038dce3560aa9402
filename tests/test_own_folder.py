"""train.py --images: what it stands for, which CLIP it takes, and a whole run on the embedded tiny
CLIP; ``fit`` is the same."""

import json
import shlex
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import predict
import train
from datasets.image_folder import ImageFolder
from protocols.command_line import asked_of_images, parse_arguments
from tests.conftest import CASES
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
from trainers import PromptedClassifier
from trainers.classifier.choice import completed
from trainers.classifier.own_run import config_of_images, notes_on_classes
from trainers.commands import predict as cdc_predict
from trainers.commands import train as cdc_train
from trainers.common.image_files import decoded, read_picture
from trainers.data.pictures import one_by_one, pictures_and_labels, write_class_folders
from trainers.engine.run import Run
from trainers.evaluation.doubts import Judge
from trainers.learners.candidates import TAKEN
from trainers.prompting.weights import open_clip_models, openai


@pytest.fixture
def shapes(tmp_path):
    return make_pictures(tmp_path / "my shapes", names=("red square", "blue quokka"))


@pytest.fixture
def written_out(shapes):
    """The run that a command on the shapes stands for: its recipe's name, its CLIP, and why that."""

    def expand(trainer, *more):
        args = parse_arguments(["--trainer", trainer, "--images", str(shapes), *more])
        asked = asked_of_images(args)
        run, why, _ = completed(asked, [*filter(None, [args.resume]), asked.folder])
        place = f"{REPOSITORY}/configs/trainers/"
        return run.recipe.removeprefix(place).removesuffix(".yaml"), run.backbone, why

    return expand


def test_without_a_trainer_one_is_taken(shapes, tmp_path, monkeypatch, capsys):
    """By the command and by ``fit`` alike, which the record says; the same command again finds the run
    done."""
    monkeypatch.chdir(tmp_path)
    words = ["--backbone", "tiny", "--images", str(shapes)]
    assert train.main(words) == 0
    folder = Path("output/my shapes/seed1")
    record = record_of(folder)
    assert record["trainer"] == TAKEN
    assert record["notes"][0].startswith(f"{TAKEN} was taken")
    assert record["notes"][0] in capsys.readouterr().out, "it is said"
    before = contents_of(folder)
    assert train.main(words) == 0
    assert contents_of(folder).keys() == before.keys() and record_of(folder) == record
    fitted = PromptedClassifier.fit(shapes, backbone="tiny", folder="fitted").record
    for key in ("trainer", "notes", "prompts_hash"):
        assert fitted[key] == record[key]
    assert fitted["metrics"]["test"] == record["metrics"]["test"]
    line = "recipe my.yaml is of one trainer: say which"
    with refuses(line):
        PromptedClassifier.fit(shapes, folder="other", recipe="my.yaml")


def test_few_pictures_are_all_tested_by_what_has_not_seen_them_and_all_trained_on(
    shapes, tmp_path, capsys
):
    """The record, the log, the report and the promise say which it was; of 100 pictures a part is held
    out."""
    words = ["--backbone", "tiny", "--trainer", "GDA", "--images", str(shapes)]
    assert train.main([*words, "--output-dir", f"{tmp_path}/few"]) == 0
    record = record_of(tmp_path / "few")
    assert record["folds"] == 5 and record["metrics"]["test"]["images"] == 20
    by_folds = "of all 20 images by 5-fold cross-validation"
    assert by_folds in capsys.readouterr().out
    page = (tmp_path / "few/report.html").read_text()
    assert "all 20 images by 5-fold cross-validation" in page
    assert page.count("data:image/") >= 16, "pictures of the gallery"
    assert "the run's 20 cross-validated images" in Judge(f"{tmp_path}/few").rule()
    known = PromptedClassifier.load(tmp_path / "few")
    assert known.method.learner.features.shape[0] == 20, "what is kept has seen all"
    line = "the images were all trained on: an accuracy on them is no test, leave out DATASET.FOLDS"
    given = ["--eval-only", "--model-dir", f"{tmp_path}/few", "--output-dir", f"{tmp_path}/test"]
    assert train.main([*words, *given, "DATASET.FOLDS", "5"]) == 2
    assert line in capsys.readouterr().err
    assert train.main([*words, *given]) == 0 and "folds" not in record_of(tmp_path / "test")
    make_pictures(shapes, count=50, names=("red square", "blue quokka"))
    many = PromptedClassifier.fit(
        shapes, trainer="GDA", backbone="tiny", folder=tmp_path / "many"
    ).record
    assert "folds" not in many and many["metrics"]["test"]["images"] == 30


def test_a_run_in_folds_that_was_stopped_ends_with_the_same_numbers(shapes, tmp_path, monkeypatch):
    def fit(name):
        return PromptedClassifier.fit(
            shapes, trainer="GDA", backbone="tiny", folder=tmp_path / name
        ).record

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "test", stop)
        with pytest.raises(KeyboardInterrupt):
            fit("stopped")
    again, whole = fit("stopped"), fit("whole")
    for key in ("prompts_hash", "metrics", "folds"):
        assert again[key] == whole[key]


def test_one_command_trains_and_its_run_labels_images(shapes, asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in (shapes / "red square").iterdir():
        path.write_bytes((shapes / "red square/0.bmp").read_bytes())  # copies in training and test
    words = ["--trainer", "CDC", "--images", f"{shapes}/", "OPTIM.MAX_EPOCH", "2"]
    assert train.main(words) == 0
    output = Path("output/my shapes/CDC/seed1")
    record, zero_shot = record_of(output), record_of(output / "ZeroshotCLIP")
    facts = {"dataset": "ImageFolder", "shots": -1, "seed": 1}
    assert (facts | {"classnames": ["blue quokka", "red square"]}).items() <= record.items()
    assert record["metrics"]["test"]["images"] == 6
    assert record["config"]["MODEL"]["BACKBONE"]["NAME"] == "tiny"
    out, err = capsys.readouterr()
    before = [*out.split("epoch [1/2]")[0].split("\n"), *err.split("CDC on ")[0].split("\n")]
    assert len(before) <= 25 and not any("MAX_EPOCH" in line for line in before), before
    log, page = (output / "log.txt").read_text(), (output / "report.html").read_text()
    for line in CASES["log of one's own pictures"]:
        assert line.replace("SHAPES", str(shapes)) in log
    assert zero_shot["trainer"] == "ZeroshotCLIP"
    assert all(zero_shot[key] == record[key] for key in ("split_hash", "backbone_hash"))
    for key in ("SIZE", "INTERPOLATION", "PIXEL_MEAN", "PIXEL_STD", "BACKGROUND"):
        assert zero_shot["config"]["INPUT"][key] == record["config"]["INPUT"][key]
    accuracy, known = (of["metrics"]["test"]["accuracy"] for of in (record, zero_shot))
    for part in (
        "This CLIP does not know some words in 1 of 2 class names",
        "Training images look like 3 test images, such as red square/",
        f"untrained (zero-shot)</dt> <dd>{known:.1f}&nbsp;%",
        f"{accuracy:.2f}",
        "data:image/",
    ):
        assert part in page
    assert call(predict.main, "--run", output, shapes, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 20
    assert train.main(words) == 0 and asked == ["ViT-B/32"], "the run's CLIP is known by now"
    assert "Done already" in capsys.readouterr().out


def test_help_starts_with_ones_own_pictures_and_hides_what_is_internal(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    assert (
        shown.index("your own pictures:") < shown.index("--images") < shown.index("CoOp's further")
    )
    assert "python train.py --images my_folder" in shown
    assert not any(flag in shown for flag in ("--with-parent", "--run", "--protocol"))


def test_an_unknown_clip_is_refused_before_any_picture_is_opened(
    shapes, asked, monkeypatch, error_of
):
    monkeypatch.setattr("trainers.common.image_files.open_image", lambda file: pytest.fail(file))
    line = error_of(train.main, "--trainer", "CoOp", "--images", shapes, "--backbone", "tinyy")
    assert "MODEL.BACKBONE.NAME is 'tinyy', which is neither" in line and "mean tiny?" in line


@pytest.mark.parametrize("trainer, words, recipe, backbone", CASES["clips"])
def test_the_recipe_follows_the_clip(written_out, asked, trainer, words, recipe, backbone):
    assert written_out(trainer, *words.split())[:2] == (recipe, backbone) and asked == []


@pytest.mark.parametrize("trainer, has_gpu, recipe, backbone", CASES["found clips"])
def test_a_clip_that_knows_photographs_is_taken_where_it_can_be_had(
    written_out, monkeypatch, caplog, trainer, has_gpu, recipe, backbone
):
    monkeypatch.setattr(openai, "find", lambda name: f"{name} is there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    *found, why = written_out(trainer)
    assert found == [recipe, backbone]
    assert why.startswith(f"The CLIP is {backbone}, which knows photographs")
    assert ("MaPLe has no recipe for ViT-B/32" in caplog.text) is (trainer == "MaPLe")


@pytest.mark.parametrize("has_gpu, size", [(False, "32"), (True, "16")])
def test_better_weights_of_the_same_cost_are_told_and_taken_where_they_are_in_the_cache(
    written_out, monkeypatch, has_gpu, size
):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    monkeypatch.setattr(openai, "find", lambda name: f"{name} is there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    better = f"open_clip:ViT-B-{size}/datacomp_xl_s13b_b90k"
    _, backbone, why = written_out("CoOp")
    assert backbone == f"ViT-B/{size}"
    assert f"then --backbone {better} (" in why
    asked = []
    monkeypatch.setattr(open_clip_models, "cached", lambda *file: asked.append(file) or "a file")
    _, backbone, why = written_out("CoOp")
    assert backbone == better and why.startswith(f"The CLIP is {better}, which knows")
    tag = open_clip.get_pretrained_cfg(f"ViT-B-{size}", "datacomp_xl_s13b_b90k")
    assert asked[0][0] == tag["hf_hub"].strip("/")
    monkeypatch.setattr(open_clip_models, "find_spec", lambda name: None)  # it is not installed
    assert written_out("CoOp")[1] == f"ViT-B/{size}"


def test_a_folder_that_holds_a_run_keeps_its_clip(
    written_out, asked, trained, stopped, small_clip_file
):
    whole = trained("CoOp")
    begun = stopped(whole, epoch=3)
    for flag, folder in (("--output-dir", whole), ("--resume", whole), ("--output-dir", begun)):
        assert written_out("CoOp", flag, str(folder))[1] == small_clip_file
    (begun / "results.json").write_text("{")  # it is made again
    assert written_out("CoOp", "--output-dir", str(begun))[1] == small_clip_file
    assert asked == []


def test_small_classes_and_a_class_that_is_most_of_the_test_are_warned_of():
    def part(**counts):
        return [SimpleNamespace(classname=name) for name in counts for _ in range(counts[name])]

    data = SimpleNamespace(train_x=part(ant=9, bee=2), val=[], test=part(ant=8, bee=1, cat=10))
    (note,) = notes_on_classes(data)
    assert "Fewer than 10 images are in 1 class, such as bee (3)" in note
    data.test += part(cat=30)
    _, note = notes_on_classes(data)
    assert "82 % of the test images are of cat: always answering that is right" in note


def test_what_is_given_stays(shapes):
    def asked_by(*words):
        given = ["--images", str(shapes), "--trainer", "CoOp", "--backbone", "tiny", *words]
        return asked_of_images(parse_arguments(given))

    recipe = f"{REPOSITORY}/configs/trainers/CoOp/tiny.yaml"
    words = ["--seed", "0", "--output-dir", "mine", "--config-file", recipe]
    asked = asked_by(*words, "DATASET.NUM_SHOTS", "4")
    assert (asked.seed, asked.folder, asked.recipe) == (0, "mine", recipe)
    assert config_of_images(asked).DATASET.NUM_SHOTS == 4
    assert asked_by("--seed", "3").folder == "output/my shapes/CoOp/seed3"


def test_fit_is_the_run_of_the_command_on_a_folder_or_on_images_with_labels(
    data_root, small_clip_file, tmp_path
):
    """Where there is no Dassl; with images that are given one by one as well: they have the same
    classes, in the same order."""
    folder = f"{data_root}/dtd/images"
    recipe = small_recipe("CoOp")
    options = ("--config-file", recipe, "--seed", "3", "OPTIM.MAX_EPOCH", "2")
    words = ["--images", folder, "--trainer", "CoOp", "--backbone", small_clip_file]
    assert call(train.main, *words, "--output-dir", f"{tmp_path}/command", *options) == 0
    given = {"trainer": "CoOp", "backbone": small_clip_file, "recipe": recipe, "seed": 3}
    given["settings"] = {"OPTIM.MAX_EPOCH": 2}
    program = f"""
        import random, sys, torch
        sys.modules["dassl"] = None
        from cdc_trainers import PromptedClassifier
        before = random.getstate(), torch.get_rng_state()
        PromptedClassifier.fit({folder!r}, folder="fit", **{given!r})
        assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    """
    done = python("-W", "ignore", "-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fitted = PromptedClassifier.load(tmp_path / "fit")
    command, log = record_of(tmp_path / "command"), (tmp_path / "command/log.txt").read_text()
    for key in ("prompts_hash", "metrics", "split_hash", "fewshot_sample", "run"):
        assert fitted.record[key] == command[key]
    assert "to try things: for real use" not in log
    paths = sorted(map(str, Path(folder).glob("*/*.png")))
    images = [path if number % 2 else Image.open(path) for number, path in enumerate(paths)]
    labels = [Path(path).parent.name for path in paths]
    again = PromptedClassifier.fit(images, labels, folder=tmp_path / "again", **given)
    assert again.classnames == fitted.classnames
    assert again.record["metrics"]["test"]["images"] == command["metrics"]["test"]["images"]
    loaded = PromptedClassifier.load(f"{tmp_path}/again")
    answers = [each.predict(paths[:3]).probabilities for each in (loaded, again)]
    numpy.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("trainer, run", [(None, "output/fit"), ("CoOp", "output/fit/CoOp")])
def test_images_that_are_no_folder_are_written_beside_the_run(tmp_path, monkeypatch, trainer, run):
    asked = []
    monkeypatch.setattr(
        "trainers.classifier.prompted.fit_folder",
        lambda run: asked.append((run.images, run.folder)),
    )
    monkeypatch.setattr(PromptedClassifier, "load", lambda folder: None)
    monkeypatch.chdir(tmp_path)
    PromptedClassifier.fit([Image.new("RGB", (8, 8))] * 2, ["ant", "bee"], trainer=trainer)
    assert asked == [(f"{tmp_path}/{run}-images", run)] and not Path(run).exists()


def test_a_fit_that_was_stopped_goes_on_by_the_same_call(
    shapes, small_clip_file, tmp_path, monkeypatch
):
    def fit(name):
        return PromptedClassifier.fit(
            shapes,
            trainer="CoOp",
            backbone=small_clip_file,
            folder=tmp_path / name,
            recipe=small_recipe("CoOp"),
        )

    made = []
    after_epoch = Run.after_epoch

    def stopping(self):
        after_epoch(self)
        made.append(self.epoch)
        if len(made) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "after_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit("stopped")
    again = fit("stopped")
    assert made == [0, 1, 2], "three epochs, and none of them twice"
    whole = fit("whole")
    for key in ("prompts_hash", "metrics"):
        assert again.record[key] == whole.record[key]
    fit("whole")
    assert made == [0, 1, 2, 0, 1, 2], "it is done"


def test_the_installed_commands_train_and_label(shapes, tmp_path, capsys):
    words = [str(shapes), "--trainer", "ZeroshotCLIP", "--backbone", "tiny"]
    words += ["--output-dir", f"{tmp_path}/my run"]
    assert cdc_train.main([*words, "--settings", "DATALOADER.TEST.BATCH_SIZE"]) == 2
    assert "settings must come in pairs, KEY VALUE" in capsys.readouterr().err
    assert cdc_train.main([*words, "--settings", "DATALOADER.TEST.BATCH_SIZE", "4"]) == 0
    record = record_of(tmp_path / "my run")
    assert record["config"]["DATALOADER"]["TEST"]["BATCH_SIZE"] == 4
    accuracy = f"Accuracy: {record['metrics']['test']['accuracy']:.1f} % of all 20 images by 5-fold"
    said = capsys.readouterr().err
    advice = said.partition(accuracy)[2].partition("Label images with: cdc-predict ")[2]
    options = shlex.split(advice.partition(" PATH …")[0])
    assert cdc_predict.main([*options, "--json", str(shapes / "red square/0.bmp")]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {entry["class"] for entry in answer["top"]} == {"red square", "blue quokka"}


class Pairs(Dataset):
    """Six pictures of two classes, as torchvision's data sets have them."""

    classes = ["ant", "bee"]

    def __len__(self):
        return 6

    def __getitem__(self, number):
        return Image.new("RGB", (8, 8), (number, 0, 0)), number % 2


def test_images_with_their_labels_come_in_many_forms():
    names = ["ant", "bee"] * 3
    paths = [f"{number}.png" for number in range(6)]
    table = pandas.DataFrame({"path": paths, "label": names, "camera": 1})
    assert pictures_and_labels(table, None) == (paths, names)
    assert pictures_and_labels(iter(paths), numpy.array(names)) == (paths, names)
    pictures, labels = pictures_and_labels(Pairs(), None)
    assert labels == names and [picture.getpixel((0, 0))[0] for picture in pictures] == [*range(6)]
    part = torch.utils.data.Subset(torch.utils.data.Subset(Pairs(), [0, 1, 2]), [1, 2])
    assert pictures_and_labels(part, None)[1] == ["bee", "ant"]
    assert pictures_and_labels(data_set([1, 0]), None)[1] == ["1", "0"]
    with refuses("the images have no labels: give labels, .* columns path and label"):
        pictures_and_labels(table.drop(columns="label"), None)


@pytest.mark.parametrize("classes", [["ant", "bee"], None], ids=["of classes", "without classes"])
@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize(
    "label",
    [
        -1,
        0.9,
        None,
        float("nan"),
        [0, 1],
        torch.tensor([0, 1]),
        torch.tensor(-1),
        torch.tensor(0.9),
    ],
    ids=repr,
)
def test_a_label_of_a_data_set_is_a_name_or_a_number_and_all_else_is_refused(label, kind, classes):
    with refuses(
        "the label of image 1 is .*: give a name or a .*; leave out images without a label"
    ):
        pictures_and_labels(data_set([0, label], kind, classes), None)
    for known in (1, numpy.int64(1), torch.tensor(1)):
        name = "bee" if classes else "1"
        assert pictures_and_labels(data_set([known, "wasp"], kind, classes), None)[1] == [
            name,
            "wasp",
        ]


def data_set(labels, kind="map", classes=None):
    """A torch data set of black pictures with these labels."""
    items = [(Image.new("RGB", (8, 8)), label) for label in labels]
    base = torch.utils.data.IterableDataset if kind == "iterable" else Dataset
    methods = {
        "__iter__": lambda _: iter(items),
        "__len__": lambda _: len(items),
        "__getitem__": lambda _, number: items[number],
    }
    made = type("Pairs", (base,), methods)()
    if classes is not None:
        made.classes = classes
    return made


def test_classes_of_a_data_set_have_a_name_each():
    with refuses("the label of image 0 is 2: give a name or a number from 0 to 1"):
        pictures_and_labels(data_set([2], classes=["ant", "bee"]), None)
    for twice in (["ant", "bee", "ant"], ["ant", "ant "]):
        with refuses(r"classes have a name twice \(ant\)"):
            pictures_and_labels(data_set([0, 1], classes=twice), None)
    with refuses("the label 5 is not a name"):
        pictures_and_labels(data_set([0], classes=[5, 6]), None)
    three = [(Image.new("RGB", (8, 8)), 0, 0)]
    with refuses("item 0 of the data set is .*: each must be a pair of image and label"):
        pictures_and_labels(torch.utils.data.Subset(three, [0]), None)


@pytest.mark.parametrize("kind", ["U", "O"])
def test_an_array_of_paths_is_many_images(tmp_path, kind):
    paths = [f"{tmp_path}/{number}.png" for number in range(4)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    names = ["ant", "bee"] * 2
    array = numpy.array(paths).astype(kind)
    assert [*one_by_one(array)] == paths
    assert pictures_and_labels(array, numpy.array(names)) == (paths, names)
    folder = write_class_folders(*pictures_and_labels(array, names), f"{tmp_path}/run-images")
    assert len([*Path(folder).rglob("*.png")]) == 4


def test_fit_says_what_is_wrong_with_images_and_labels(tmp_path):
    pictures = ["a.png"] * 6
    with refuses("there are 6 images and 1 labels: give one for each"):
        PromptedClassifier.fit(pictures, ["cat"], folder=tmp_path / "out")
    with refuses("give labels"):
        PromptedClassifier.fit(pictures)
    with refuses("unknown trainer 'CDX'.*did you mean CDC"):
        PromptedClassifier.fit(
            [Image.new("RGB", (8, 8))], ["cat"], trainer="CDX", folder=tmp_path / "out"
        )
    assert not any(tmp_path.iterdir()), "the corrected call finds its place free"


LABELS = [
    "../victim",
    "fruit/apple",
    "fruit/pear",
    "Fruit",
    "fruit",
    "..",
    "/etc",
    ".hidden",
    "train",
    "a b  c",
    "x" * 300,
    "Käse",
    "C:\\x",
]


def test_a_label_is_a_name_and_no_path(tmp_path):
    """Each is a class of its own, under its own name, and nothing is written outside the folder."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/000000.png").write_bytes(b"somebody's")
    images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(4 * len(LABELS))]
    folder = write_class_folders(images, LABELS * 4, f"{tmp_path}/run-images")
    lists = ImageFolder.list_images(folder)
    assert [len(part) for part in lists] == [2 * len(LABELS), len(LABELS), len(LABELS)]
    for image in sum(lists, []):
        number = Image.open(image.impath).getpixel((0, 0))[0]
        assert image.classname == LABELS[number % len(LABELS)] == sorted(LABELS)[image.label]
    assert contents_of(tmp_path / "victim") == {tmp_path / "victim/000000.png": b"somebody's"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-images", "victim"]


@pytest.mark.parametrize(
    "label", [None, 1, b"cat", "", " ", "a\0b", "a\nb", "\ud800", ["cat"], float("nan")]
)
def test_what_is_no_label_is_named_and_leaves_nothing(tmp_path, label):
    images = [Image.new("RGB", (8, 8))] * 2
    with refuses("the label .* is not a name: give a text of one line"):
        PromptedClassifier.fit(images, ["cat", label], folder=tmp_path / "run")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "image", ["missing.png", ".", "a\0b", b"x.png", 5, None, Image.new("RGB", (0, 0))]
)
def test_an_image_that_is_none_is_named_and_the_corrected_call_works(tmp_path, image):
    sound = Image.new("RGB", (8, 8))
    with refuses("is not a file|is not an image|can't be read"):
        write_class_folders([sound, image], ["cat", "dog"], f"{tmp_path}/run-images")
    assert not any(tmp_path.iterdir())
    write_class_folders([sound, sound], ["cat", "dog"], f"{tmp_path}/run-images")


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "P", "LA", "1", "I;16", "HSV", "YCbCr", "PA"])
def test_pictures_of_every_mode_are_written_as_they_are_seen(tmp_path, mode):
    """Against what is seen of the same picture when it is given to ``predict``."""
    pixels = numpy.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype="uint8")
    picture = Image.fromarray(pixels, "RGBA")
    if mode == "I;16":
        picture = Image.fromarray(pixels[..., 0].astype("uint16") * 256)
    elif mode != "RGBA":
        picture = picture.convert("P" if mode == "PA" else mode if mode == "LA" else "RGB").convert(
            mode
        )
    write_class_folders([picture], ["cat"], f"{tmp_path}/images")
    (path,) = tmp_path.rglob("*.png")
    with decoded(picture, "white") as seen:
        assert read_picture(str(path), "white").tobytes() == seen.tobytes()
