"""On a GPU that is pretended what meets on it is on it, and the numbers are the CPU's. Every trainer's
run: test_every_trainer.py."""

import numpy
import pytest
import torch
from PIL import Image

from labelling import PromptedClassifier
from labelling.commands import predict, train
from report import occlusion
from report.pictures import Found
from results.runs import collect
from tests.conftest import BASE, FEW, LEARNING, slow_but_for
from tests.labelling.serve.conftest import make_demo
from tests.pretended_gpu import as_on_a_gpu, pretended_gpu
from tests.runs import call, make_pictures, record_of, small_recipe
from trainers.common.errors import UserError
from trainers.engine.checkpoint import MODEL_NAME, epoch_name

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")


EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")


@pytest.fixture
def all_at_a_time(monkeypatch):
    """Images are encoded all at a time, as a GPU does: in pieces, the last digits may be others."""
    monkeypatch.setattr("trainers.prompting.transformer.CPU_BATCH", 1000)


@slow_but_for(("CDC", "CoOp"), dict.fromkeys(FEW))
def test_a_run_that_was_stopped_on_the_cpu_goes_on_there_to_the_same_numbers(
    run, stopped, all_at_a_time, name
):
    with as_on_a_gpu():
        _, expected, folder = run(name, *EACH_EPOCH, name="cpu")
        stopped(folder, epoch=2, name="gpu")
    with pretended_gpu():
        _, record, _ = run(name, *EACH_EPOCH, name="gpu")
    assert record["device"] == "cuda:0"
    assert record["gpu"]["name"] == "pretended"
    assert "gpu" not in expected
    assert record["prompts_hash"] == expected["prompts_hash"]
    assert record["metrics"] == expected["metrics"]


@slow_but_for(("CDC", "CoOp", "GDA"), LEARNING)
def test_apples_gpu_has_the_cpus_numbers_without_float64(run, name):
    """What is computed in float64 stays on the CPU."""
    with as_on_a_gpu():
        _, expected, _ = run(name, *BASE, name="cpu")
    with pretended_gpu("mps"):
        trainer, record, _ = run(name, *BASE, "DEVICE", "mps", name="mps")
        assert trainer.model.device.type == "mps"
    assert record["device"] == "mps:0"
    for measure in ("accuracy", "nll", "brier"):
        value = expected["metrics"]["test"][measure]
        assert record["metrics"]["test"][measure] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("name", ["cuda:1", "mps", "gpu", "cuda:", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there_is_named(run, name):
    with pretended_gpu(), pytest.raises(UserError, match=f"the device is '?{name}"):
        run("CoOp", "DEVICE", name)


def test_a_named_device_is_taken_whatever_others_there_are(run):
    with pretended_gpu():
        _, record, _ = run("CoOp", "DEVICE", "cpu", "OPTIM.MAX_EPOCH", "1", name="cpu")
        assert record["device"] == "cpu"
        _, record, _ = run("CoOp", "DEVICE", "cuda:0", "OPTIM.MAX_EPOCH", "1", name="gpu")
        assert record["device"] == "cuda:0"


@pytest.mark.parametrize("precision", ["amp", "fp16"])
@slow_but_for(("CDC",), dict.fromkeys(FEW))
def test_in_every_precision_it_learns_there(run, name, precision):
    with pretended_gpu():
        options = (f"TRAINER.{name.upper()}.PREC", precision, *EACH_EPOCH, *BASE)
        trainer, record, folder = run(name, *options)
    is_half = precision == "fp16" and not trainer.model.official_precision.stays_fp32
    half = torch.float16 if is_half else torch.float32
    assert trainer.model.backbone.text.text_projection.dtype == half
    assert numpy.isfinite(record["metrics"]["test"]["nll"])
    first, last = (
        torch.load(folder / MODEL_NAME / epoch_name(epoch), weights_only=True)["state_dict"]
        for epoch in (1, 3)
    )
    assert any(not torch.equal(first[key], last[key]) for key in first)


@pytest.mark.parametrize("trainer", [None, "CDC"])
def test_pictures_of_ones_own_are_trained_on_and_answered_there(
    tmp_path, small_clip_file, all_at_a_time, trainer
):
    """In folds, prompts, the thresholds of a test, and other classes."""
    images = make_pictures(tmp_path / "pictures", count=50 if trainer else 10)
    shown = sorted(images.glob("*/0.bmp"))
    clip, recipe = (small_clip_file, small_recipe(trainer)) if trainer else ("tiny", None)
    options = {"trainer": trainer, "backbone": clip, "recipe": recipe, "shots": 8}
    few = {"OPTIM.MAX_EPOCH": 1, "OPTIM.LEAST_STEPS": 0}

    def answers(name):
        classifier = PromptedClassifier.fit(images, folder=tmp_path / name, settings=few, **options)
        others = classifier.with_classes(["ant", "sun", "moon"])
        asked = [each.predict(shown).probabilities for each in (classifier, others)]
        return classifier.record, asked

    with as_on_a_gpu():
        expected, here = answers("cpu")
    with pretended_gpu():
        record, there = answers("gpu")
    assert record["device"] == "cuda:0"
    assert record["metrics"] == expected["metrics"]
    assert record["prompts_hash"] == expected["prompts_hash"]
    for one, other in zip(here, there):
        numpy.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_ones_own_run_is_made_and_answers_on_the_device_that_is_named(tmp_path, capsys):
    images = make_pictures(tmp_path / "pictures", count=10)
    folder = tmp_path / "run"
    with pretended_gpu():
        words = [images, "--backbone", "tiny", "--output-dir", folder, "--device", "cpu"]
        assert call(train.main, *words) == 0
        assert record_of(folder)["device"] == "cpu"
        there = PromptedClassifier.load(folder, device="cuda:0")
        assert there.method.device.type == "cuda"
        assert call(predict.main, "--run", folder, "--device", "cpu", images / "ant") == 0
        assert call(predict.main, "--run", folder, "--device", "mps", images / "ant") == 2
    assert "the device is mps, and torch sees 1 of CUDA's" in capsys.readouterr().err


def test_what_looks_at_a_finished_run_does_so_there(trained, data_root):
    """The page, and the maps of where templates look."""
    folder = trained("CDC", *BASE)
    (run,) = collect(folder)
    names = run.answers["image"].tolist()
    paths = {name: Found(f"{data_root}/dtd/images/{name}") for name in names}
    picture = Image.open(paths[names[0]].path)

    def looks():
        demo = make_demo(str(folder), data_root, max_error=0.5)
        shown = demo.ask(picture, demo.classifier.classnames)
        maps = numpy.array([drops for _, _, drops in occlusion.occlusions(run, paths)])
        return demo.classifier.method.device.type, shown, maps

    _, expected, expected_maps = looks()
    with pretended_gpu():
        device, shown, maps = looks()
    assert device == "cuda"
    assert shown == expected
    # a CPU encodes a few images at a time
    numpy.testing.assert_allclose(maps, expected_maps, atol=1e-5)
