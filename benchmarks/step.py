"""Whole training steps through the real trainers, against the same trainers with the usual encoders and fusion in them.

Forward, loss, backward and the optimiser's step; images are there already: on ViT-B/16, and CDC's on ViT-L/14 too. Then the peak memory of
training at ImageNet's size.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from measure import (
    DEVICE,
    GIGA,
    Entry,
    Memory,
    Repetitions,
    Work,
    by_name,
    compare,
    log,
    main,
    matmul_peak,
    peak_memory,
)
import torch
from models import (
    SMALL,
    VIT_B16,
    VIT_L14,
    Shape,
    build_trainer,
    in_the_usual_way,
    training_batch,
    usual_fusion,
)
from torch import Tensor

from trainers.base import PromptTrainer

PRECISION, DTYPE = ("amp", torch.bfloat16) if DEVICE.type == "cuda" else ("fp32", torch.float32)


@dataclass(frozen=True)
class Method:
    """A trainer with its recipe, and the batch that recipe trains on: B images in as many views as it has templates."""

    trainer: str
    recipe: str
    batch: int
    views: int


CDC_DUAL = Method("CDC", "vit_b16", batch=4, views=4)
CDC_TEXT = Method("CDC", "vit_b16_text", batch=32, views=4)
MAPLE = Method("MaPLe", "vit_b16", batch=4, views=1)
COOP = Method("CoOp", "vit_b16", batch=32, views=1)


@dataclass(frozen=True)
class Comparison:
    """Our step of a method against usual steps, at several K.

    Attributes:
        ours: the method that is ours.
        usual: name → method in the usual way.
        classes: values of K.
        targets: (name, K) → how many times ours the usual step should take at least.
        shape: of the backbone, where that is not the setting's.
    """

    ours: Method
    usual: dict[str, Method]
    classes: tuple[int, ...]
    targets: dict[tuple[str, int], float] = field(default_factory=dict)
    shape: Shape | None = None


ONE_TEMPLATE = "usual MaPLe, one template"
COMPARISONS = {
    "CDC, prompts in both encoders": Comparison(
        CDC_DUAL,
        {ONE_TEMPLATE: MAPLE, "usual CDC": CDC_DUAL},
        (50, 100, 125, 500, 1000),
        {
            (ONE_TEMPLATE, 50): 1 / 1.3,
            (ONE_TEMPLATE, 100): 1.0,
            (ONE_TEMPLATE, 500): 2.0,
            ("usual CDC", 50): 2.7,
            ("usual CDC", 500): 8.0,
        },
    ),
    "MaPLe": Comparison(MAPLE, {"usual MaPLe": MAPLE}, (50, 100), {("usual MaPLe", 50): 2.5}),
    "CoOp": Comparison(
        COOP, {"usual CoOp": COOP}, (100, 500), {("usual CoOp", 100): 2.0, ("usual CoOp", 500): 4.0}
    ),
    "CDC, prompts in the text encoder": Comparison(CDC_TEXT, {"usual CDC": CDC_TEXT}, (50, 100)),
    "CDC, prompts in both encoders, ViT-L/14": Comparison(
        CDC_DUAL, {ONE_TEMPLATE: MAPLE}, (100,), shape=VIT_L14
    ),
}


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        shape: of the backbone.
        comparisons: title → ``Comparison``.
        memory: precisions of the memory table.
        memory_classes, text_chunk: its K, and classes in one pass of the text encoder where these are chunked.
        depth: layers that get prompts of their own, where that is not the recipe's.
    """

    shape: Shape
    comparisons: dict[str, Comparison]
    memory: tuple[str, ...] = ("fp32", "amp")
    memory_classes: int = 1000
    text_chunk: int = 100
    depth: int = 0
    repetitions: Repetitions = Repetitions(seconds=60)

    def options(self, method: Method, precision: str, chunk: int = 0) -> tuple[Any, ...]:
        """KEY, value pairs over the method's recipe; ``chunk`` classes in one pass of the text encoder, 0 for all."""
        node = f"TRAINER.{method.trainer.upper()}"
        shallow = (
            [f"{node}.PROMPT_DEPTH", self.depth]
            if self.depth and method in (CDC_DUAL, MAPLE)
            else []
        )
        chunked = [f"{node}.TEXT_CHUNK", chunk] if chunk else []  # VPT has no such setting
        return (f"{node}.PREC", precision, *chunked, *shallow)


FULL = Setting(VIT_B16, COMPARISONS)
QUICK = Setting(
    SMALL,
    {
        title: Comparison(case.ours, case.usual, (20,))
        for title, case in list(COMPARISONS.items())[:1]
    },
    memory=("fp32",),
    memory_classes=50,
    text_chunk=10,
    depth=3,
    repetitions=Repetitions(most=3, seconds=1),
)


def build_step(
    setting: Setting, method: Method, is_ours: bool, classes: int, precision: str, chunk: int = 0
) -> Work:
    """One training step as a function without arguments; for ``peak_memory`` too."""
    trainer = build_trainer(
        method.trainer,
        setting.shape,
        classes,
        setting.options(method, precision, chunk),
        method.recipe,
    )
    batch = training_batch(method.batch, method.views, setting.shape, classes)
    return step_of(trainer if is_ours else in_the_usual_way(trainer), batch, is_ours)


def step_of(trainer: PromptTrainer, batch: dict[str, Tensor], is_ours: bool) -> Work:
    if is_ours:
        return lambda: trainer.forward_backward(batch)

    def step() -> object:
        with usual_fusion():
            return trainer.forward_backward(batch)

    return step


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    peak, targets = matmul_peak(DTYPE), []
    for title, case in setting.comparisons.items():
        rows = []
        for classes in case.classes:
            log.info("%s, K = %d", title, classes)
            rows += compare_steps(setting, case, classes, peak)
            times_ours = {
                row["implementation"]: row.get("times ours") for row in rows if row["K"] == classes
            }
            targets += [
                {
                    "ours": title,
                    "against": name,
                    "K": classes,
                    "at least": least,
                    "measured": times_ours[name] or "does not fit",
                }
                for (name, at), least in case.targets.items()
                if at == classes
            ]
        yield f"{title}, a training step of {case.ours.batch} images, {PRECISION}", rows
    if targets:
        yield "Targets: how many times ours the usual step takes", targets
    yield (
        f"Peak memory of a training step, K = {setting.memory_classes}",
        list(memory_rows(setting)),
    )


def compare_steps(setting: Setting, case: Comparison, classes: int, peak: float) -> list[Entry]:
    """Rows of one K; a usual step that does not fit in memory says so."""
    setting = replace(setting, shape=case.shape or setting.shape)
    memory = {
        name: peak_memory(build_step, setting, method, name == "ours", classes, PRECISION)
        for name, method in {**case.usual, "ours": case.ours}.items()
    }
    # a trainer that shares the prompts and weights of ours, with the usual encoders in it, stands for the usual way of the same method
    ours = build_trainer(
        case.ours.trainer,
        setting.shape,
        classes,
        setting.options(case.ours, PRECISION),
        case.ours.recipe,
    )
    steps = {}
    for name, method in case.usual.items():
        if memory[name] is None:
            continue
        if method == case.ours:
            trainer = in_the_usual_way(copy.copy(ours))
            steps[name] = step_of(
                trainer, training_batch(method.batch, method.views, setting.shape, classes), False
            )
        else:
            steps[name] = build_step(setting, method, False, classes, PRECISION)
    steps["ours"] = step_of(
        ours, training_batch(case.ours.batch, case.ours.views, setting.shape, classes), True
    )
    measured = by_name(compare(steps, setting.repetitions, peak))
    return [
        {"K": classes, **measured.get(name, {"implementation": name}), **figures(memory[name])}
        for name in memory
    ]


def figures(memory: Memory | None) -> Entry:
    """Columns of a memory measurement."""
    if memory is None:
        return {"memory GB": "does not fit", "of it added": None}
    return {"memory GB": memory.peak / GIGA, "of it added": memory.added / GIGA}


def memory_rows(setting: Setting) -> Iterator[Entry]:
    """Ours, ours in chunks of classes with recomputation, and the usual way; each step in a process of its own."""
    for name, method in (("CDC, text", CDC_TEXT), ("CDC, dual", CDC_DUAL)):
        for precision in setting.memory:
            for implementation, chunk in (
                ("ours", 0),
                (f"ours, TEXT_CHUNK {setting.text_chunk}", setting.text_chunk),
                ("usual", 0),
            ):
                log.info("memory of %s, %s, %s", name, precision, implementation)
                memory = peak_memory(
                    build_step,
                    setting,
                    method,
                    implementation != "usual",
                    setting.memory_classes,
                    precision,
                    chunk,
                )
                yield {
                    "step": name,
                    "B": method.batch,
                    "precision": precision,
                    "implementation": implementation,
                    **figures(memory),
                }


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)
