"""Images per second at test time against bare passes of the image encoder, and against text encoded anew for every batch.

Bare passes are what every method needs: one of the image encoder over the batch, or, where it has prompts, one for each template.
The usual way is timed at the smallest K only: it would take minutes a batch at a thousand classes.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from measure import DEVICE, Entry, Repetitions, Work, by_name, compare, log, main, matmul_peak
import torch
from models import (
    RN50,
    SMALL,
    VIT_B16,
    Shape,
    build_trainer,
    in_the_usual_way,
    random_backbone,
    random_images,
    usual_fusion,
)
from step import CDC_DUAL, CDC_TEXT, COOP, DTYPE, PRECISION, Method
from step import Setting as StepSetting
from torch import Tensor

import reference

METHODS = {"CDC, text": CDC_TEXT, "CDC, dual": CDC_DUAL, "CoOp": COOP}


@dataclass(frozen=True)
class Setting(StepSetting):
    """As for a training step, with K, the number of test images B, and the shapes of encoders that are timed alone."""

    classes: tuple[int, ...] = (50, 1000)
    batch: int = 16
    encoders: tuple[tuple[str, Shape], ...] = (("ViT-B/16", VIT_B16), ("RN50", RN50))


FULL = Setting(VIT_B16, {}, repetitions=Repetitions(seconds=60))
QUICK = Setting(
    SMALL,
    {},
    depth=3,
    classes=(20, 50),
    repetitions=Repetitions(most=5, seconds=2),
    encoders=(("small", SMALL),),
)


def passes_at_test_time(
    setting: StepSetting, method: Method, classes: int, batch: int, with_usual: bool
) -> dict[str, Work]:
    """Name → function without arguments that answers the same ``batch`` test images; ``bare`` only encodes them."""
    trainer = build_trainer(
        method.trainer, setting.shape, classes, setting.options(method, PRECISION), method.recipe
    )
    images = random_images(batch, setting.shape)[None].to(DEVICE)  # (1, B, 3, H, W)
    usual = in_the_usual_way(copy.copy(trainer)) if with_usual else None
    with torch.no_grad(), trainer.precision.autocast():
        encoded = trainer.encode_prompts()  # as ``test`` does, once a class list
    assert encoded is not None and encoded[1] is not None
    prompts = encoded[1]

    @torch.no_grad()
    def bare() -> Tensor:
        with trainer.precision.autocast():
            return trainer.backbone.image(images, *prompts.images())

    @torch.no_grad()
    def ours() -> Tensor:
        return trainer.answer(images, encoded).probability

    @torch.no_grad()
    def usual_way() -> Tensor:
        assert usual is not None
        with usual_fusion():
            return usual.answer(images).probability

    return {**({"usual": usual_way} if with_usual else {}), "bare": bare, "ours": ours}


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    peak = matmul_peak(DTYPE)
    for name, method in METHODS.items():
        rows = []
        for classes in setting.classes:
            log.info("%s, K = %d", name, classes)
            passes = passes_at_test_time(
                setting, method, classes, setting.batch, with_usual=classes == min(setting.classes)
            )
            measured = compare(passes, setting.repetitions, peak)
            bare = by_name(measured)["bare"]["times ours"]
            rows += [
                {
                    "K": classes,
                    **row,
                    "images/s": setting.batch / row["median s"],
                    "of bare": bare / row["times ours"],
                }
                for row in measured
            ]
        yield f"{name}, testing {setting.batch} images, {PRECISION}", rows
    yield f"The image encoder alone, {setting.batch} images, fp32", list(encoder_rows(setting))


@torch.no_grad()
def encoder_rows(setting: Setting) -> Iterator[Entry]:
    """The usual encoder and ours without prompts."""
    peak = matmul_peak()
    for name, shape in setting.encoders:
        log.info("The image encoder of %s", name)
        backbone, images = (
            random_backbone(shape),
            random_images(setting.batch, shape)[None].to(DEVICE),
        )  # (1, B, 3, H, W)
        encoders = {"usual": reference.usual(backbone).image, "ours": backbone.image}
        passes: dict[str, Work] = {
            key: partial(encoder, images) for key, encoder in encoders.items()
        }
        for row in compare(passes, setting.repetitions, peak):
            yield {"encoder": name, **row, "images/s": setting.batch / row["median s"]}


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)
