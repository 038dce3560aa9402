"""Every trainer on a GPU that is pretended: what meets on it is on it, and the numbers are the CPU's."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from analysis import image_groups, occlusion
from results.runs import collect
from tests.app.conftest import make_demo
from tests.conftest import FEW
from tests.pretended_gpu import pretended_gpu
from tests.runs import make_pictures, record_of
from tests.trainers.test_every_trainer import BASE, TRAINERS
from trainers import PromptedClassifier

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")


def test_it_refuses_what_a_gpu_refuses():
    with pretended_gpu():
        there = torch.ones(3, device="cuda")
        here = torch.ones(3)
        assert there.device.type == "cuda" and here.device.type == "cpu"
        assert (2 * there[1:]).device == there.device
        assert there.cpu().device.type == "cpu" and here.to(there.device).is_cuda
        assert (there + torch.tensor(1.0)).is_cuda  # a number
        assert there[torch.tensor([0, 2])].is_cuda  # indices
        for mixed in (
            lambda: there + here,
            lambda: here + there.sum(),
            lambda: here[torch.zeros(1, dtype=torch.long, device="cuda")],
            lambda: torch.cat([there, here]),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="can't convert cuda"):
            there.numpy()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_whole_run_is_that_of_the_cpu(run, trained, name):
    expected = record_of(trained(name))
    with pretended_gpu():
        trainer, record, _ = run(name, name="gpu")
        assert trainer.model.device.type == "cuda"
        assert all(value.is_cuda for value in trainer.model.state_dict().values())
    assert record["device"] == "cuda"
    assert record["metrics"] == expected["metrics"]
    assert record["prompts_hash"] == expected["prompts_hash"]


@pytest.mark.parametrize("name", FEW)
def test_a_run_that_was_stopped_on_the_cpu_goes_on_there_to_the_same_numbers(
    run, trained, stopped, name
):
    each_epoch = ("TRAIN.CHECKPOINT_FREQ", "1")
    folder = trained(name, *each_epoch)
    stopped(folder, epoch=2, name="gpu")
    with pretended_gpu():
        _, record, _ = run(name, *each_epoch, name="gpu")
    assert record["device"] == "cuda"
    assert record["prompts_hash"] == record_of(folder)["prompts_hash"]
    assert record["metrics"] == record_of(folder)["metrics"]


@pytest.mark.parametrize("precision", ["amp", "fp16"])
@pytest.mark.parametrize("name", FEW)
def test_every_precision_runs_there(run, monkeypatch, name, precision):
    with pretended_gpu():
        trainer, record, _ = run(name, f"TRAINER.{name.upper()}.PREC", precision)
    method = trainer.model
    assert record["precision"] == (
        "fp32" if precision == "fp16" and method.official_precision.stays_fp32 else precision
    )
    is_half = record["precision"] == "fp16"
    half = torch.float16 if is_half else torch.float32
    assert method.backbone.text.text_projection.dtype == half
    measures = record["metrics"]["test"]
    assert numpy.isfinite(measures["nll"])


@pytest.mark.parametrize("name", FEW)
def test_a_classifier_answers_there_as_on_the_cpu(trained, data_root, name):
    """Its own classes, others, and images that come as tensors."""
    folder = trained(name)
    images = sorted(Path(data_root, "dtd/images").glob("*/0[89].png"))
    pixels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)

    def answers():
        classifier = PromptedClassifier.load(folder)
        asked = [classifier.predict(images), classifier.predict(pixels)]
        if not classifier.method.is_class_specific:
            asked.append(classifier.with_classes(["dotted", "sun", "moon"]).predict(images))
        return asked, classifier

    expected, _ = answers()
    with pretended_gpu():
        found, classifier = answers()
        assert classifier.method.device.type == "cuda"
    for one, other in zip(found, expected, strict=True):
        for part in ("probabilities", "uncertainty", "vacuity", "votes"):
            here = getattr(other, part)
            assert (here is None) == (getattr(one, part) is None)
            if here is not None:  # a CPU encodes fewer images at a time
                numpy.testing.assert_allclose(getattr(one, part), here, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("trainer", ["", "CDC", "CDCGDA"])
def test_pictures_of_ones_own_are_trained_on_there(tmp_path, trainer):
    """With the choice of a trainer, in folds, prompts, and the thresholds of a test."""
    images = make_pictures(tmp_path / "pictures", count=60 if trainer else 10)

    def fitted(name):
        few = {"OPTIM.MAX_EPOCH": 1, "OPTIM.LEAST_STEPS": 0}
        return PromptedClassifier.fit(
            images, trainer=trainer or None, backbone="tiny", folder=tmp_path / name, settings=few
        )

    expected = fitted("cpu").record
    with pretended_gpu():
        record = fitted("gpu").record
    assert record["device"] == "cuda"
    assert record["metrics"] == expected["metrics"]
    assert record["prompts_hash"] == expected["prompts_hash"]


def test_what_looks_at_a_finished_run_does_so_there(trained, data_root):
    """The page, the maps of where templates look, and the groups of images of the uncertainty."""
    folder = trained("CDC", *BASE)
    (run,) = collect(folder)
    paths = {name: f"{data_root}/dtd/images/{name}" for name in run.answers["image"].tolist()}
    picture = Image.open(next(iter(paths.values())))

    def looks():
        demo = make_demo(str(folder), data_root, max_error=0.5)
        shown = demo.ask(picture, demo.classifier.classnames)
        maps = numpy.array([drops for _, _, drops in occlusion.occlusions(run, paths)])
        figures, _ = image_groups.evaluate(folder, data_root)
        return demo.classifier.method.device.type, shown, maps, figures["accuracy"]

    _, expected, expected_maps, accuracy = looks()
    with pretended_gpu():
        device, shown, maps, found = looks()
    assert device == "cuda"
    assert shown == expected and found == accuracy
    # a CPU encodes a few images at a time
    numpy.testing.assert_allclose(maps, expected_maps, atol=1e-5)
