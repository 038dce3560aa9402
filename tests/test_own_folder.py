"""train.py --images: what it stands for, a whole run on the embedded tiny CLIP, and every way to ask for the wrong thing."""

import json

import numpy
import pytest
from PIL import Image

import predict
from protocols import training as train
from protocols.arguments import build_config
from protocols.command_line import expand_images, parse_arguments
from tests.conftest import REPOSITORY
from tests.trainers.test_every_trainer import TRAINERS


@pytest.fixture
def shapes(tmp_path):
    """A folder of two class folders, ten pictures each."""
    generator = numpy.random.default_rng(0)
    for name, colour in (("red square", (200, 0, 0)), ("blue square", (0, 0, 200))):
        (tmp_path / "my shapes" / name).mkdir(parents=True)
        for index in range(10):
            pixels = numpy.clip(generator.normal(0, 30, (70, 80, 3)) + colour, 0, 255).astype(
                "uint8"
            )
            Image.fromarray(pixels).save(tmp_path / "my shapes" / name / f"{index}.png")
    return tmp_path / "my shapes"


def written_out(*arguments):
    return expand_images(parse_arguments(arguments))


def recipe(*arguments):
    path = written_out(*arguments).config_file
    assert path.startswith(str(REPOSITORY / "configs" / "trainers"))
    return path.removeprefix(str(REPOSITORY / "configs" / "trainers"))


def test_one_command_trains_and_its_run_labels_images(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main(["--trainer", "CDC", "--images", f"{shapes}/", "OPTIM.MAX_EPOCH", "2"]) == 0
    output = tmp_path / "output" / "my shapes" / "CDC" / "seed1"
    record = json.loads((output / "results.json").read_text())
    assert (record["dataset"], record["shots"], record["seed"]) == ("ImageFolder", 16, 1)
    assert record["classnames"] == ["blue square", "red square"]
    assert (
        record["metrics"]["test"]["images"] == 6
        and record["config"]["MODEL"]["BACKBONE"]["NAME"] == "tiny"
    )
    out, err = capsys.readouterr()
    before = [*out.split("epoch [1/2]")[0].splitlines(), *err.split("CDC on ")[0].splitlines()]
    assert len(before) <= 25 and not any("MAX_EPOCH" in line for line in before)
    log = (output / "log.txt").read_text()
    assert "MAX_EPOCH: 2" in log and "Building transform_train" in log  # what the console is spared
    assert f"Your images: {shapes}, up to 16 a class for training, recipe " in log
    assert "CDC/tiny.yaml, results in output/my shapes/CDC/seed1" in log
    assert "it is for trying. For real use add --backbone ViT-B/16" in log
    assert "Look at the run: output/my shapes/CDC/seed1/report.html" in log
    zero_shot = json.loads((output / "ZeroshotCLIP" / "results.json").read_text())
    assert (zero_shot["trainer"], zero_shot["split_hash"], zero_shot["backbone_hash"]) == (
        "ZeroshotCLIP",
        record["split_hash"],
        record["backbone_hash"],
    )
    page = (output / "report.html").read_text()
    assert (
        f"untrained (zero-shot)</dt> <dd>{zero_shot['metrics']['test']['accuracy']:.1f}&nbsp;%"
        in page
    )
    assert f"{record['metrics']['test']['accuracy']:.2f}" in page and "data:image/" in page
    assert "Label images with: python predict.py --run 'output/my shapes/CDC/seed1' PATH" in log
    assert predict.main(["--run", "output/my shapes/CDC/seed1", str(shapes), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 20


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_has_a_recipe_for_it(shapes, name):
    assert recipe("--images", str(shapes), "--trainer", name) == f"/{name}/tiny.yaml"
    assert (
        recipe("--images", str(shapes), "--trainer", name, "--backbone", "ViT-B/16")
        == f"/{name}/vit_b16.yaml"
    )
    cfg = build_config(written_out("--images", str(shapes), "--trainer", name))
    assert (cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.SEED) == (
        "ImageFolder",
        str(shapes),
        16,
        1,
    )


@pytest.mark.parametrize(
    "trainer, backbone, expected",
    [
        ("CDC", "tiny", "tiny"),
        ("CDC", "RN50", "rn50_text"),
        ("CoOp", "RN50", "rn50"),
        ("CoOp", "ViT-L/14", "vit_b16"),
        ("CoOp", "/some/where/clip.pt", "vit_b16"),
    ],
)
def test_the_recipe_follows_the_clip(shapes, trainer, backbone, expected):
    assert (
        recipe("--images", str(shapes), "--trainer", trainer, "--backbone", backbone)
        == f"/{trainer}/{expected}.yaml"
    )


def test_what_is_given_stays(shapes):
    args = written_out(
        "--images",
        str(shapes),
        "--trainer",
        "CoOp",
        "--seed",
        "0",
        "--output-dir",
        "mine",
        "--config-file",
        "my.yaml",
        "DATASET.NUM_SHOTS",
        "4",
    )
    assert (args.seed, args.output_dir, args.config_file) == (0, "mine", "my.yaml")
    args.config_file = ""
    assert build_config(args).DATASET.NUM_SHOTS == 4
    assert (
        written_out("--images", str(shapes), "--trainer", "CoOp", "--seed", "3").output_dir
        == "output/my shapes/CoOp/seed3"
    )


def test_another_clip_is_not_called_a_toy(shapes, small_clip_file, tmp_path):
    train.run(
        parse_arguments(
            [
                "--trainer",
                "ZeroshotCLIP",
                "--images",
                str(shapes),
                "--backbone",
                small_clip_file,
                "--output-dir",
                str(tmp_path / "out"),
                "INPUT.SIZE",
                "(32, 32)",
                "DATALOADER.NUM_WORKERS",
                "0",
            ]
        )
    )
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "Your images: " in log and "for trying" not in log


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("--trainer", "CDC", "--images", "nowhere"),
            "--images nowhere is not a folder: give the one that holds the class folders, or train",
        ),
        (("--trainer", "CDCC", "--images", "."), "unknown trainer 'CDCC' (did you mean CDC?)"),
        (("--images", "."), "no trainer is given: give --trainer"),
        (
            ("--trainer", "CDC", "--images", ".", "--root", "data"),
            "--images is a data set of its own: leave out --root and",
        ),
        (
            ("--trainer", "CDC", "--images", ".", "--dataset-config-file", "x.yaml"),
            "--images is a data set of its own",
        ),
        (
            ("--trainer", "CDC", "--images", ".", "--eval-only", "--model-dir", "x"),
            "--images with --eval-only needs --output-dir",
        ),
        (("--trainer", "CDC", "--images", "."), "/CDC/seed1, which lies in "),
        (
            ("--trainer", "CDC", "--images", ".", "--output-dir", "a/b"),
            "the results would go to a/b, which lies in ",
        ),
        (
            ("--trainer", "CDC", "--images", ".", "--output-dir", "../out"),
            "has no class folders: put the images of each class",
        ),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert train.main(list(arguments)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [] and not (tmp_path.parent / "out").exists()
