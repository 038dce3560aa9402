"""Fixtures that many tests share: small random CLIPs in the stock implementation, and ours with the same weights."""

import functools
import gc
import json
import logging
import os
import random
import shutil
from itertools import groupby, islice
from operator import itemgetter
from unittest.mock import patch

import clip.model
import hypothesis
import numpy
import pytest
import torch
import yaml

import labelling.checkout.image_folder  # noqa: F401  (registers ImageFolder)
import train
from datasets.drawn.openmoji import DrawnDataset
from labelling import PromptedClassifier
from protocols import launch, training
from protocols.command_line import parse_arguments
from tests.chromium import start_browser
from tests.methods import small_settings
from tests.runs import REPOSITORY, base_arguments, call, make_textures, record_of, small_recipe
from trainers import METHODS, method_class, method_node, methods_for
from trainers.common.console import LogHandler
from trainers.common.errors import UserError
from trainers.engine.checkpoint import MODEL_NAME
from trainers.prompting.backbone import Backbone, build_backbone
from trainers.prompting.text import TextEncoder
from trainers.prompting.transformer import ImageEncoder, Transformer
from trainers.prompting.weights import openai

# the same examples every time, none of them remembered from another run
hypothesis.settings.register_profile(
    "here", deadline=None, max_examples=20, derandomize=True, database=None
)
hypothesis.settings.load_profile("here")
GOLDEN = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in (REPOSITORY / "tests/golden").glob("*.yaml")
}
VOCABULARY = 49408  # of CLIP's tokenizer
TRAINERS = [*METHODS]
METHOD_OF = {name: method_class(name) for name in TRAINERS}
LEARNING = [name for name in TRAINERS if METHOD_OF[name].learns]
IN_EPOCHS = [name for name in TRAINERS if METHOD_OF[name].learns_in_epochs]
BASE = ("DATASET.SUBSAMPLE_CLASSES", "base")
NEW = ("DATASET.SUBSAMPLE_CLASSES", "new")
# What holds for every trainer and takes long is tested for these, and for the others by -m slow:
# our own method, prompts in both encoders, prompts in the text alone, and the last of the list,
# which may be new.
FEW = ("CDC", "MaPLe", "CoOp", TRAINERS[-1])


def slow_but_for(few, names, argument="name", indirect=False):
    """A test for each of the names; for all but those of ``few`` it is slow. ``indirect``: the argument
    is a fixture, which takes the name."""
    return pytest.mark.parametrize(
        argument,
        [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in names],
        indirect=indirect,
    )


def pytest_configure(config):
    # not in pytest.ini, which would import torch before tests/__init__.py has said how threads wait
    config.addinivalue_line("filterwarnings", "ignore::torch.jit.TracerWarning")
    # pytest-randomly draws the order of the tests and no more, see same_draws
    config.option.randomly_reset_seed = False
    gc.disable()  # while tests are collected
    if config.option.markexpr != "gpu":  # scripts/gpu.sh; all others compute on the CPU, exactly
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish():
    """The garbage collector passes over the objects of imports and tests, as a command's does
    (``trainers.common.imports``): statsmodels, which calls it for each correction, would take a minute."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: started last, one would keep the other processes waiting. Tests
    of one run of ``of_each`` follow each other, whatever their order: else it is made for each."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    place = {}
    for number, item in enumerate(items):
        place.setdefault(shared_run(item), number)
    items.sort(key=lambda item: (item.path not in long, place[shared_run(item)]))


def shared_run(item):
    """The trainer whose run a test shares with others of its file, or else the test."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("of_each", item) if callspec else item


def random_clip(
    vision_layers=3,
    vision_width=128,
    patch_size=8,
    transformer_width=128,
    transformer_layers=4,
):
    """A small CLIP of the installed ``clip`` package with random weights large enough for every part to matter."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # a test in float64 may be the first that needs it
    torch.manual_seed(0)
    model = clip.model.CLIP(
        embed_dim=48,
        image_resolution=32,
        vision_layers=vision_layers,
        vision_width=vision_width,
        vision_patch_size=patch_size,
        context_length=77,
        vocab_size=VOCABULARY,
        transformer_width=transformer_width,
        transformer_heads=transformer_width // 64,
        transformer_layers=transformer_layers,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale" and parameter.dim() > 0:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    torch.set_default_dtype(default)
    return model.float().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def same_draws():
    """Random numbers are those of the test, whichever ran before it."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_methods():
    """Methods that a test adds, or a command that it reads, are known to that test alone."""
    known = {**METHODS}
    yield
    METHODS.clear()
    METHODS.update(known)


@pytest.fixture(autouse=True, scope="session")
def no_inventory():
    """Runs don't log what is installed: torch starts pip for it, which takes longer than many a run here. The scripts' tests do.

    Runs that a module's tests share are made before a test's own fixtures are.
    """
    with patch.object(training, "collect_env_info", lambda: "left out in tests"):
        yield


@pytest.fixture(autouse=True)
def own_log_handlers(monkeypatch):
    """A run's messages go to the standard output of its time, which is closed in the next test."""
    root = logging.getLogger()
    kept = [handler for handler in root.handlers if not isinstance(handler, LogHandler)]
    monkeypatch.setattr(root, "handlers", kept)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """No fsync before a result is renamed: it takes 10 ms each and matters only in a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def one_thread():
    """One thread, for tensors so small that several would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stock_vit():
    return random_clip()


@pytest.fixture(scope="session")
def stock_resnet():
    return random_clip(vision_layers=(1, 1, 1, 1), vision_width=8, patch_size=None)


@pytest.fixture(scope="session")
def vit(stock_vit):
    return build_backbone(stock_vit.state_dict())


@pytest.fixture(scope="session")
def resnet(stock_resnet):
    return build_backbone(stock_resnet.state_dict())


@pytest.fixture(scope="session")
def vit_b16():
    """The shapes of CLIP's ViT-B/16 with weights that mean nothing, to count parameters on."""
    text = TextEncoder(Transformer(512, 12, 8, 2048, "gelu"), 77, VOCABULARY, 512)
    torch.nn.init.zeros_(text.token_embedding.weight)
    image = ImageEncoder(Transformer(768, 12, 12, 3072, "gelu"), 224, 16, 512)
    return Backbone(text, image, torch.zeros(()))


def saved(stock, folder):
    path = folder.mktemp("clip") / "small.pt"
    torch.save(stock.state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def small_clip_file(stock_vit, tmp_path_factory):
    """A file with the weights of ``stock_vit``: 32 pixels, text width 128, 4 text and 3 vision layers."""
    return saved(stock_vit, tmp_path_factory)


@pytest.fixture(scope="session")
def small_resnet_file(stock_resnet, tmp_path_factory):
    return saved(stock_resnet, tmp_path_factory)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """A miniature in a real data set's layout: six textures, 8 / 3 / 4 images each for train / val / test."""
    root = tmp_path_factory.mktemp("data")
    make_textures(root)
    return str(root)


@pytest.fixture
def drawn_root(tmp_path_factory, monkeypatch):
    """A data folder for the embedded sets, which have four emojis of a class, since drawing takes long.

    The first test that needs a set draws it. Each of pytest-xdist's processes has a folder of its
    own: a data set's folder is locked, and so changed, by whoever looks into it.
    """
    whole, label = DrawnDataset.list_images.__func__, itemgetter(1)

    def few(cls, folder):
        return tuple(
            [image for _, of in groupby(sorted(part, key=label), label) for image in islice(of, n)]
            for part, n in zip(whole(cls, folder), (2, 1, 1))
        )

    monkeypatch.setattr(DrawnDataset, "list_images", classmethod(few))
    folder = tmp_path_factory.getbasetemp() / "drawn"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def arguments(data_root, small_clip_file, tmp_path):
    """``arguments(trainer, *more)``: those of train.py on the miniature, or on the data in ``root``."""

    def words(trainer, *more, folder=tmp_path / "out", seed=1, root=data_root):
        return [*base_arguments(trainer, root, small_clip_file, folder, seed), *more]

    return words


@pytest.fixture
def asked(monkeypatch):
    """The names of weights that were looked for, none of which can be had."""

    def find(name):
        names.append(name)
        raise UserError("no network")

    names = []
    monkeypatch.setattr(openai, "find", find)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return names


@pytest.fixture
def run(arguments, tmp_path):
    """Trains or tests on the miniature: ``run(trainer, *options, name="out")`` → (trainer object, record, output folder)."""

    def start(trainer, *options, name="out", seed=1, flags=()):
        folder = tmp_path / name
        words = arguments(trainer, *flags, *options, folder=folder, seed=seed)
        finished = training.run(parse_arguments(words))
        return finished, record_of(folder) if (folder / "results.json").exists() else None, folder

    return start


@pytest.fixture
def no_figures(monkeypatch):
    """Reports have no figures, which take longer to draw than the runs do."""
    monkeypatch.setattr("report.page.write_figure", lambda *_: "")


@pytest.fixture
def train_on(small_clip_file, tmp_path, capsys, no_figures):
    """Trains on a folder of one's own: ``train_on(images, *options)`` → exit code, record or None, what was printed."""

    def start(images, *options, trainer="CoOp", name="out"):
        capsys.readouterr()
        place = tmp_path / name
        words = ["--images", images, "--trainer", trainer, "--output-dir", place, "--seed", 1]
        words += ["--backbone", small_clip_file, "--config-file", small_recipe(trainer)]
        # also in the untrained CLIP's run that it is compared with
        code = call(train.main, *words, *options, "DATALOADER.NUM_WORKERS", 0)
        record = record_of(place) if (place / "results.json").exists() else None
        return code, record, "".join(capsys.readouterr())

    return start


@pytest.fixture
def in_this_process(monkeypatch):
    """run.py makes its runs in this process: starting Python again takes longer."""

    def make(self, job):
        training.run(parse_arguments(job.arguments(self.args.root, self.args.opts)))
        return 0

    monkeypatch.setattr(launch.Processes, "make", make)


@pytest.fixture(scope="session")
def just_trained(data_root, small_clip_file, tmp_path_factory):
    """``just_trained(trainer, *options)`` → (trainer object, folder) of a run on the miniature, to be left as they are."""

    @functools.lru_cache(maxsize=4)  # a trainer holds its CLIP: all of them would fill the memory
    def start(trainer, *options):
        folder = tmp_path_factory.mktemp(trainer) / "run"
        arguments = base_arguments(trainer, data_root, small_clip_file, folder)
        return training.run(parse_arguments([*arguments, *options])), folder

    return start


@pytest.fixture(scope="session")
def trained(just_trained):
    """Folders of such runs, each made once: ``trained(trainer, *options)``, to be left as they are."""
    return functools.cache(lambda *asked: just_trained(*asked)[1])


@pytest.fixture(scope="session")
def loaded(trained):
    """``loaded(trainer, *options)``: the classifier of such a run."""
    return lambda *asked: PromptedClassifier.load(trained(*asked))


@pytest.fixture
def fp16_anywhere(monkeypatch):
    """fp16 is not replaced on a CPU."""
    monkeypatch.setattr("trainers.prompting.precision.SLOW_IN_FP16", ())


@pytest.fixture
def copied(trained, tmp_path):
    """``copied(trainer, *options)``: the folder of such a run, to be changed."""

    def copy(*asked):
        return shutil.copytree(trained(*asked), tmp_path / "out", dirs_exist_ok=True)

    return copy


@pytest.fixture
def stopped(tmp_path):
    """Copies a training with a checkpoint an epoch as if it had been stopped after one: ``stopped(folder, epoch)`` → the folder of ``run(…)``."""

    def copy(folder, epoch=2, name="out"):
        names = [path.name for path in (folder / MODEL_NAME).glob("model.pth.tar-*")]
        later = [each for each in names if int(each.rpartition("-")[2]) > epoch]
        left_out = shutil.ignore_patterns(*later, "results.json", "predictions-*.npz")
        place = shutil.copytree(folder, tmp_path / name, ignore=left_out)
        lines = (place / "metrics.jsonl").read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.strip() and json.loads(line)["epoch"] <= epoch]
        (place / "metrics.jsonl").write_text("".join(kept))
        return place

    return copy


@pytest.fixture
def error_of(capsys):
    """``error_of(main, *words)``: the one line of error with which a command refuses; fails if it does not.

    Its standard output is ``error_of.printed``.
    """

    def start(main, *words):
        capsys.readouterr()  # what a training has printed
        assert call(main, *words) == 2
        start.printed, errors = capsys.readouterr()
        lines = errors.replace("\r", "\n").splitlines()
        (line,) = (line for line in lines if line.startswith("error: "))
        return line

    return start


@pytest.fixture
def refusal(data_root, small_clip_file, tmp_path, error_of):
    """Runs train.py and returns its one line of error; fails if it does not refuse."""

    def start(*more, trainer="CDC", root=data_root, backbone=small_clip_file):
        start.output = tmp_path / "out"
        arguments = base_arguments(trainer, root, backbone, start.output)
        line = error_of(train.main, *arguments, *more)
        assert not (start.output / "results.json").exists()
        return line

    return start


def trainer_node(name, *pairs):
    """A trainer's own config node, ``KEY, value`` pairs over its defaults."""
    node = method_node(name)
    node.merge_from_list(list(pairs))
    return node


def make_method(
    name, backbone, classnames, dataset="DescribableTextures", describe=None, **settings
):
    """The ``Method`` of a name alone, in fp32 and its smallest settings but for those given."""
    method = method_class(name)
    pairs = {"PREC": "fp32", **small_settings(name), **settings}
    node = trainer_node(name, *(part for pair in pairs.items() for part in pair))
    path = f"TRAINER.{name.upper()}"
    method.check(node, path)
    method.check_towers(node, backbone, path, functools.partial(methods_for, backbone))
    return method(node, classnames, backbone, dataset, describe)


def scrambled(module):
    """The module with noise on all parameters, so that none are equal or zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = start_browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.quit()
