"""On a GPU that is pretended what meets on it is on it, and the numbers are the CPU's. Every trainer's
run: test_every_trainer.py."""

import contextlib
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from yacs.config import CfgNode

from labelling import PromptedClassifier, fit
from labelling.commands import predict, serve, train
from labelling.serve import page
from report import occlusion
from report.pictures import Found
from results.runs import collect
from tests.conftest import BASE, FEW, LEARNING, slow_but_for
from tests.labelling.serve.conftest import make_demo
from tests.pretended_gpu import as_on_a_gpu, pretended_gpu, taken_gpu
from tests.runs import call, make_pictures, record_of, small_recipe
from tests.same_run import assert_near_run
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
    assert_near_run(record, expected)


def test_a_run_on_the_cpu_leaves_a_gpu_to_the_program_that_has_it(run, stopped):
    """To its record, at each checkpoint and where it goes on."""
    options = ("OPTIM.MAX_EPOCH", "2", *EACH_EPOCH, "USE_CUDA", "False")
    with taken_gpu():
        with pytest.raises(RuntimeError, match="busy"):
            torch.cuda.get_rng_state()
        _, expected, folder = run("CoOp", *options, name="whole")
        stopped(folder, epoch=1, name="resumed")
        _, record, _ = run("CoOp", *options, name="resumed")
    assert record["device"] == expected["device"] == "cpu"
    assert record["prompts_hash"] == expected["prompts_hash"]


@slow_but_for(("CDC", "CoOp", "GDA"), LEARNING)
def test_apples_gpu_has_the_cpus_numbers_without_float64(run, name):
    """What is computed in float64 stays on the CPU."""
    with as_on_a_gpu():
        _, expected, _ = run(name, *BASE, name="cpu")
    with pretended_gpu("mps:0"):
        trainer, record, _ = run(name, *BASE, "DEVICE", "mps", name="mps")
        assert trainer.model.device.type == "mps"
    assert record["device"] == "mps:0"
    assert_near_run(record, expected)


@pytest.mark.parametrize("name", ["cuda:1", "mps", "gpu", "cuda:", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there_is_named(run, name):
    with pretended_gpu(), pytest.raises(UserError, match=f"the device is '?{name}"):
        run("CoOp", "DEVICE", name)


def test_a_named_device_is_taken_whatever_others_there_are(run):
    with pretended_gpu("cuda:1"):
        _, record, _ = run("CoOp", "DEVICE", "cpu", "OPTIM.MAX_EPOCH", "1", name="cpu")
        assert record["device"] == "cpu"
        _, record, _ = run("CoOp", "DEVICE", "cuda:1", "OPTIM.MAX_EPOCH", "1", name="gpu")
        assert record["device"] == "cuda:1"


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
    assert_near_run(record, expected)
    for one, other in zip(here, there):
        numpy.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def train_words(trainer, clip):
    """A training's words: of a classifier of features, or of a trainer in epochs, whose report asks the model."""
    if trainer is None:
        return ["--backbone", "tiny"]
    few = ["OPTIM.MAX_EPOCH", "1", "OPTIM.LEAST_STEPS", "0"]
    known = ["--backbone", clip, "--trainer", trainer, "--recipe", small_recipe(trainer)]
    return [*known, "--shots", "8", "--settings", *few]


@slow_but_for([None], [None, "CDC"], "trainer")
def test_ones_own_run_is_made_and_answers_on_the_device_that_is_named(
    tmp_path, small_clip_file, monkeypatch, capsys, trainer
):
    """The CPU beside a GPU that another program has, and the second of two GPUs."""
    images = make_pictures(tmp_path / "pictures", count=50 if trainer else 10)
    folder = tmp_path / "run"
    asked = []

    def make_server(app, *_):
        body = (images / "ant" / "0.bmp").read_bytes()
        ask = lambda: asked.append(app.test_client().post("/predict", data=body).json)  # noqa: E731
        return SimpleNamespace(effective_port=1, run=ask)

    monkeypatch.setattr(page, "make_server", make_server)
    words = [images, *train_words(trainer, small_clip_file)]
    with taken_gpu():
        assert call(train.main, "--device", "cpu", "--output-dir", folder, *words) == 0
        assert record_of(folder)["device"] == "cpu"
        assert call(predict.main, "--run", folder, "--device", "cpu", images / "ant") == 0
        assert call(serve.main, "--run", folder, "--device", "cpu") == 0
    with pretended_gpu("cuda:1"):
        assert call(predict.main, "--run", folder, "--device", "cuda:1", images / "ant") == 0
        assert call(serve.main, "--run", folder, "--device", "cuda:1") == 0
        assert call(predict.main, "--run", folder, "--device", "mps", images / "ant") == 2
    assert "the device is mps, and torch sees 2 of CUDA's" in capsys.readouterr().err
    here, there = ([row["label"] for row in answer] for answer in asked)
    assert here == there


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [None, "CDC"])
def test_ones_own_run_is_made_on_the_second_gpu(tmp_path, small_clip_file, trainer):
    images = make_pictures(tmp_path / "pictures", count=50 if trainer else 10)
    words = [images, *train_words(trainer, small_clip_file)]
    with pretended_gpu("cuda:1"):
        assert call(train.main, "--device", "cuda:1", "--output-dir", tmp_path / "run", *words) == 0
    assert record_of(tmp_path / "run")["device"] == "cuda:1"


@pytest.mark.slow
def test_a_device_among_the_settings_answers_too(tmp_path):
    images = make_pictures(tmp_path / "pictures", count=10)
    with taken_gpu():
        made = PromptedClassifier.fit(
            images, folder=tmp_path / "run", backbone="tiny", settings={"DEVICE": "cpu"}
        )
    assert made.method.device.type == "cpu"


class Started(TorchFunctionMode):
    """Work that a device does in ``seconds``, a first time and later, while the program goes on: it waits
    where it reads a value."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = {name: [*both] for name, both in seconds.items()}
        self.now = 0.0
        self.ahead = 0.0

    def start(self, name):
        """Starts a piece of work, and returns what will be its result."""
        first, later = self.seconds[name]
        self.seconds[name] = [later, later]
        self.ahead += first
        return torch.zeros(1)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.item, torch.Tensor.cpu):
            self.now += self.ahead
            self.ahead = 0.0
        return func(*args, **(kwargs or {}))


def test_the_minutes_that_are_said_are_a_warm_devices_to_the_end_of_its_work(monkeypatch):
    """20 steps of 60 views; a step costs three times the texts, 6 s, and an image's 2 s a view."""
    gpu = Started({"texts": (500, 6), "images": (900, 2 * fit.PROBES)})
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: gpu.now))
    method = SimpleNamespace(
        device=torch.device("cpu"),
        towers=SimpleNamespace(autocast=contextlib.nullcontext),
        encode=lambda: gpu.start("texts"),
        answer=lambda images, texts: gpu.start("images"),
        eval=lambda: None,
        train=lambda: None,
    )
    images = SimpleNamespace(train_x=range(80))
    loaders = SimpleNamespace(train=range(4), images=images, views=range(3))
    cfg = CfgNode({"OPTIM": {"MAX_EPOCH": 5}, "INPUT": {"SIZE": (32, 32)}})
    with gpu:
        minutes = fit.most_minutes(SimpleNamespace(method=method, cfg=cfg, loaders=loaders))
    assert minutes == 20 * 3 * (6 + 60 * 2) / 60


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
    with taken_gpu():
        drawn = occlusion.occlusions(run, paths, "cpu")
    numpy.testing.assert_array_equal([drops for _, _, drops in drawn], expected_maps)
    with pretended_gpu():
        device, shown, maps = looks()
    assert device == "cuda"
    assert shown == expected
    # a CPU encodes a few images at a time
    numpy.testing.assert_allclose(maps, expected_maps, atol=1e-5)
