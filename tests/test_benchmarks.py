"""The benchmarks: the usual way gives the same numbers as ours, their commands run, and the FLOPs they count are right.

Work is asserted as counted FLOPs and calls, never as time, which depends on the machine.
"""

import copy
import importlib
import json
import operator
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.conftest import REPOSITORY, scrambled

sys.path.append(str(REPOSITORY / "benchmarks"))

import base2new  # noqa: E402
import fusion  # noqa: E402
import measure  # noqa: E402
import models  # noqa: E402
import reference  # noqa: E402
import step  # noqa: E402
import text  # noqa: E402

from trainers.evidence import dempster  # noqa: E402

SHAPE = models.Shape(32, 32, 3, 64, 8, 64, 1, 3)  # E, pixels, layers, D_v, patch, D, heads, layers
RESNET = replace(SHAPE, vision_layers=(1, 1, 1, 1), vision_width=8, vision_patch_size=None)
CLASSES, DEPTH = 7, 2
SETTING = step.Setting(SHAPE, {}, depth=DEPTH)
pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = {
    "CDC dual": step.CDC_DUAL,
    "CDC text": step.CDC_TEXT,
    "MaPLe": step.MAPLE,
    "CoOp": step.COOP,
}


@pytest.fixture(scope="module")
def backbone():
    return models.random_backbone(SHAPE)


@pytest.fixture
def trainer(request):
    """The trainer of a method at the size of these tests, no two templates alike."""
    return small_trainer(METHODS[request.param])


def small_trainer(method):
    torch.manual_seed(1)
    trainer = models.build_trainer(
        method.trainer, SHAPE, CLASSES, SETTING.options(method, "fp32"), method.recipe
    )
    scrambled(trainer.prompt_learner)
    return trainer


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


# ---- the usual way gives the same numbers ----


@pytest.mark.parametrize("context, depth", [(2, 3), (4, 1)])
def test_usual_text_encoder_equals_ours(backbone, context, depth):
    ours, usual = (
        text.TextPass(encoder, backbone, CLASSES, 3, context, depth)
        for encoder in (backbone.text, reference.usual(backbone).text)
    )
    assert relative_error(usual.forward(), ours.forward()) < 1e-5
    for found, expected in zip(usual.backward(), ours.backward()):
        assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("views", [1, 3])
def test_usual_image_encoder_equals_ours(backbone, views):
    usual, images = reference.usual(backbone), torch.randn(views, 2, 3, 32, 32)
    prompts, deep = torch.randn(3, 2, 64), [torch.randn(3, 2, 64)]
    assert relative_error(usual.image(images), backbone.image(images)) < 1e-5
    assert (
        relative_error(usual.image(images, prompts, deep), backbone.image(images, prompts, deep))
        < 1e-5
    )


def test_usual_resnet_equals_ours():
    backbone = models.random_backbone(RESNET)
    images = torch.randn(2, 2, 3, 32, 32)
    assert relative_error(reference.usual(backbone).image(images), backbone.image(images)) < 1e-5


def test_usual_weights_are_shared_not_copied(backbone):
    pointers = [
        {name: tensor.data_ptr() for name, tensor in towers.state_dict().items()}
        for towers in (backbone, reference.usual(backbone))
    ]
    assert pointers[0] == pointers[1]


def test_pairwise_loop_equals_closed_form():
    log_evidences = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    values = [fuse(log_evidences).log_evidence for fuse in (dempster, reference.dempster)]
    gradients = [torch.autograd.grad(value.square().sum(), log_evidences)[0] for value in values]
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("trainer", METHODS, indirect=True)
def test_usual_step_and_answer_equal_ours(trainer, request):
    method = METHODS[request.node.callspec.params["trainer"]]
    usual = models.in_the_usual_way(copy.deepcopy(trainer))
    batch = models.training_batch(2, method.views, SHAPE, CLASSES)
    images = models.random_images(2, SHAPE)[None]  # (1, B, 3, H, W)
    with torch.no_grad(), models.usual_fusion():
        expected = usual.answer(images).probability
    torch.testing.assert_close(trainer.answer(images).probability, expected, rtol=1e-4, atol=1e-6)
    ours, theirs = (step.step_of(one, batch, one is trainer)() for one in (trainer, usual))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    for found, expected in zip(
        trainer.prompt_learner.parameters(), usual.prompt_learner.parameters()
    ):
        assert relative_error(found.grad, expected.grad) < 1e-4


# ---- what is measured, and how ----


def test_class_names_have_the_lengths_of_imagenet_whatever_their_number():
    lengths = {
        classes: [len(name) for name in models.class_names(classes)] for classes in (50, 1000)
    }
    assert [len(lengths[50]), len(lengths[1000])] == [50, 1000]
    assert sum(lengths[50]) / 50 == pytest.approx(sum(lengths[1000]) / 1000, rel=0.15)


def test_implementations_take_turns_and_ratios_are_to_ours():
    calls = []
    rows = measure.compare(
        {name: lambda name=name: calls.append(name) for name in ("usual", "ours")},
        measure.Repetitions(least=3, most=3),
        peak=1.0,
    )
    assert calls == [
        "usual",
        "ours",
        "usual",
        "ours",
        "ours",
        "usual",
        "usual",
        "ours",
    ]  # counted once, then three rounds
    assert measure.by_name(rows)["ours"]["times ours"] == 1
    assert [row["rounds"] for row in rows] == [3, 3]


def test_attention_is_counted_in_either_direction():
    query, key = torch.randn(2, 3, 5, 8, requires_grad=True), torch.randn(2, 3, 7, 8)

    def attention():
        torch.nn.functional.scaled_dot_product_attention(query, key, key).sum().backward()

    products = 2 * 2 * 3 * 5 * 7 * 8  # of queries and keys; as many of weights and values
    assert (
        measure.count_flops(attention) == (2 + 5) * products
    )  # backwards the weights are computed anew, then four gradients


def test_peak_memory_is_what_the_pass_adds_and_none_where_it_does_not_fit():
    allocate = partial(
        partial, operator.mul, b"x"
    )  # of this size: a function that makes so many bytes
    assert measure.peak_memory(allocate, 10**8).added == pytest.approx(10**8, rel=0.1)
    assert measure.peak_memory(allocate, int(measure.free_memory())) is None


def test_memory_that_was_freed_is_given_back_before_a_child_is_limited_to_what_is_free():
    blocks = [bytearray(100_000) for _ in range(2000)]  # too small to be given back one by one
    before = measure.memory_in_use("VmRSS")
    del blocks[:-1]  # the last one lies above all others
    measure.give_back_memory()
    assert before - measure.memory_in_use("VmRSS") > 1.5e8


# ---- the commands ----


@pytest.fixture
def in_this_process(monkeypatch):
    """Memory passes run here and measure nothing: a process for each would take the tests minutes."""

    def run_here(build, *args):
        build(*args)()
        return measure.Memory(2, 1)

    for name in ("text", "step", "methods", "fusion"):
        monkeypatch.setattr(importlib.import_module(name), "peak_memory", run_here)


@pytest.mark.parametrize(
    "name, changes",
    [
        (
            "text",
            {
                "shapes": {"first": SHAPE, "second": RESNET},
                "classes": (3, 5),
                "templates": (2,),
                "contexts": (2, 4),
                "depths": ((2, 2), (4, 1)),
                "usual_context": 4,
                "point": 5,
            },
        ),
        ("step", {"memory_classes": 3}),
        ("base2new", {"datasets": ("EuroSAT",), "batch": 2}),
        ("methods", {"classes": 3}),
        ("fusion", {"batch": 2, "classes": 5}),
        ("eval", {"classes": (3, 5), "batch": 2, "encoders": (("ViT", SHAPE), ("ResNet", RESNET))}),
        (
            "scaling",
            {
                "middle": {"classes": 3, "templates": 2, "batch": 2, "side": 32},
                "values": (("classes", (3, 5)), ("side", (16, 32))),
            },
        ),
    ],
)
def test_quick_command_prints_and_keeps_its_tables(
    name, changes, tmp_path, capsys, in_this_process
):
    module = importlib.import_module(name)
    if hasattr(module.QUICK, "shape"):
        changes = {**changes, "shape": SHAPE, "depth": DEPTH}
    if name == "step":
        changes["comparisons"] = {
            title: replace(case, classes=(3,), targets={(other, 3): 1.0 for other in case.usual})
            for title, case in module.QUICK.comparisons.items()
        }
        changes["comparisons"]["CDC, a larger one"] = replace(
            next(iter(changes["comparisons"].values())), shape=replace(SHAPE, vision_layers=4)
        )
    if name == "scaling":
        changes.update(middle=module.Sizes(**changes["middle"]), folder=str(tmp_path))
    tiny = replace(module.QUICK, **changes, repetitions=measure.Repetitions(least=1, most=1))
    file = tmp_path / "figures.json"
    measure.main(module.__doc__, module.tables, None, tiny, ["--quick", "--json", str(file)])
    record, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert record["quick"] and record["tables"]
    for title, rows in record["tables"].items():
        assert title in printed and rows
    if name == "step":
        assert sum("a larger one" in title for title in record["tables"]) == 1
    if name == "scaling":
        assert {path.name for path in tmp_path.glob("*.png")} == {
            "scaling_classes.png",
            "scaling_side.png",
        }


def test_hours_are_seconds_times_the_steps_and_images_of_a_data_set():
    """Five classes, three of them base: 48 training images, twelve steps of four an epoch."""
    row = base2new.row(
        "five",
        base2new.DataSet(5, 90),
        5,
        base2new.Measured(usual_step=None, step=0.5, answer=0.1, gflop=100.0, of_peak=50.0),
    )
    assert (row["base classes"], row["steps"], row["usual training h"]) == (3, 60, None)
    assert [row[key] for key in ("training h", "tests h", "training and tests h")] == pytest.approx(
        [30 / 3600, 9 / 3600, 39 / 3600]
    )
    assert row["TFLOP/s"] == pytest.approx(0.2)


def test_command_runs_from_the_repository_root(tmp_path):
    file = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, "benchmarks/fusion.py", "--quick", "--json", str(file)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    times, _, memory = map(measure.by_name, json.loads(file.read_text())["tables"].values())
    assert times["usual"]["rounds"] >= fusion.QUICK.repetitions.least
    assert (
        memory["usual"]["memory GB"] > memory["ours"]["memory GB"]
    )  # B · K² products against a few times M · B · K


# ---- no regression: counted work against its closed form ----


def block_flops(tokens, width):
    """Linear maps of one block on that many tokens: queries, keys and values (3 D²), output (D²), MLP (8 D²)."""
    return 2 * tokens * 12 * width**2


def last_block_flops(tokens, read, width):
    """The same of the last block, of which only ``read`` output tokens are used: all give keys and values."""
    return 2 * tokens * 2 * width**2 + 2 * read * 10 * width**2


def text_flops(prompts, forward_only=False):
    """Linear maps of the text encoder under ``Prompts``, exactly: each template's prefix once, each class's own tokens up to end-of-text.

    Backwards through frozen weights costs as much again, but for the first layer's gradient of the classes' tokens, which are constant.
    """
    templates, shared, width = prompts.prefix.shape
    texts = prompts.end.expand(templates, -1) + 1  # (M, K) own tokens
    own, read = int(texts.sum()), texts.numel()
    tokens = templates * shared + own
    forward = (
        (SHAPE.transformer_layers - 1) * block_flops(tokens, width)
        + last_block_flops(tokens, read, width)
        + 2 * read * width * SHAPE.embed_dim
    )
    return forward if forward_only else 2 * forward - 2 * own * 3 * width**2


def image_flops(passes, prompts):
    """Linear maps of the image encoder on that many images with n prompts in each, forward."""
    width = SHAPE.vision_width
    tokens = passes * (1 + (SHAPE.image_resolution // SHAPE.vision_patch_size) ** 2 + prompts)
    return (
        (SHAPE.vision_layers - 1) * block_flops(tokens, width)
        + last_block_flops(tokens, passes, width)
        + 2 * passes * width * SHAPE.embed_dim
    )


def linear_flops(function, grad=True):
    """Counted FLOPs of linear maps; attention, convolutions and products of batches are other operators."""
    with nullcontext() if grad else torch.no_grad():
        counts = measure.flops_by_operator(function)
    return counts.get("addmm", 0) + counts.get("mm", 0)


class Calls:
    """How often the encoders of a trainer's backbone are called."""

    def __init__(self, trainer):
        self.text = self.image = 0
        trainer.backbone.text.register_forward_hook(lambda *_: self.count("text"))
        trainer.backbone.image.register_forward_hook(lambda *_: self.count("image"))

    def count(self, encoder):
        setattr(self, encoder, getattr(self, encoder) + 1)


@pytest.mark.parametrize("trainer", ["CDC dual", "CDC text"], indirect=True)
def test_training_step_does_the_work_it_has_to(trainer, request):
    dual = request.node.callspec.params["trainer"] == "CDC dual"
    batch, images = (
        models.training_batch(2, 4, SHAPE, CLASSES),
        4 * 2,
    )  # each template's view of each image
    trainer.hand_crafted  # noqa: B018  (encoded once a run)
    calls = Calls(trainer)
    found = linear_flops(lambda: trainer.forward_backward(batch))
    prompts = trainer.prompt_learner()
    # backwards through the image encoder only where prompts stand in it, and there once forwards without prompts
    plain = image_flops(images, 0)
    assert found == text_flops(prompts) + plain + (
        2 * image_flops(images, prompts.visual.shape[1]) if dual else 0
    )
    assert (calls.text, calls.image) == (1, 1 + dual)  # all templates in one call


@pytest.mark.parametrize("trainer", ["CDC dual", "CDC text"], indirect=True)
def test_batches_at_test_time_do_the_work_they_have_to(trainer, request):
    dual = request.node.callspec.params["trainer"] == "CDC dual"
    images = models.random_images(3, SHAPE)[None]  # (1, B, 3, H, W)
    calls, prompts, encoded = Calls(trainer), trainer.prompt_learner(), []
    assert linear_flops(lambda: encoded.extend(trainer.encode_prompts()), grad=False) == text_flops(
        prompts, forward_only=True
    )
    expected = (
        image_flops(4 * 3, prompts.visual.shape[1]) if dual else image_flops(3, 0)
    )  # one pass for all templates
    for _ in range(2):
        assert linear_flops(lambda: trainer.answer(images, encoded), grad=False) == expected
    assert (calls.text, calls.image) == (1, 2)


def test_usual_way_costs_77_positions_for_every_class_of_every_template():
    trainer = models.in_the_usual_way(small_trainer(step.CDC_TEXT))
    tokens, width = 4 * CLASSES * SHAPE.context_length, SHAPE.transformer_width
    with torch.no_grad():
        prompts = trainer.prompt_learner()
    found = linear_flops(lambda: trainer.encode_texts(prompts), grad=False)
    read = 4 * CLASSES
    assert (
        found
        == SHAPE.transformer_layers * block_flops(tokens, width)
        + 2 * read * width * SHAPE.embed_dim
    )
