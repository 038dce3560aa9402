"""The text encoder under prompts against the usual way: forward, and forward with backward to the prompts.

K classes, M templates, n context tokens; with n = 2 the prompts are deep as in MaPLe. The usual way costs the same whatever n is, so
it is timed at the n of CoOp's short recipe and at one K for the others. Where its graph does not fit in memory, or takes too
long, only ours is timed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from measure import (
    DEVICE,
    GIGA,
    Entry,
    Repetitions,
    Work,
    compare,
    log,
    main,
    matmul_peak,
    peak_memory,
)
import torch
from models import RN50, SMALL, VIT_B16, VIT_L14, Shape, class_names, random_backbone
from torch import Tensor

import reference
from trainers.prompting.backbone import Backbone
from trainers.prompting.prompts import FixedTokens, gaussian


Point = tuple[int, int, int, int]  # K, M, n, prompted layers


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        shapes: name → sizes; the first gets the whole grid, the others one point each.
        classes, templates, contexts: K, M and n.
        depths: n → layers that get prompts of their own, the first included.
        usual_context, usual_texts: n and the most texts K·M for which the usual way is timed …
        point: … and K at which it is timed for every n.
    """

    shapes: dict[str, Shape]
    classes: tuple[int, ...] = (10, 50, 100, 500, 1000)
    templates: tuple[int, ...] = (1, 4)
    contexts: tuple[int, ...] = (2, 4, 16)
    depths: tuple[tuple[int, int], ...] = ((2, 9), (4, 1), (16, 1))
    usual_context: int = 4
    usual_texts: int = 500
    point: int = 100
    repetitions: Repetitions = Repetitions(seconds=10)


FULL = Setting({"ViT-B/16": VIT_B16, "ViT-L/14": VIT_L14, "RN50": RN50})
QUICK = Setting(
    {"small": SMALL},
    classes=(50,),
    contexts=(2,),
    depths=((2, 3),),
    usual_context=2,
    point=50,
    repetitions=Repetitions(most=3, seconds=1),
)


class TextPass:
    """A pass of one text encoder over K classes under M templates of n context tokens.

    Args:
        encoder: ours or the usual one.
        backbone: ours, whose token embeddings make the texts.
        classes, templates, context, depth: K, M, n, prompted layers.
    """

    def __init__(
        self,
        encoder: Any,
        backbone: Backbone,
        classes: int,
        templates: int,
        context: int,
        depth: int,
    ) -> None:
        torch.manual_seed(0)
        width = backbone.text.width
        self.encoder = encoder
        self.contexts = [
            gaussian(templates, context, width).to(DEVICE).requires_grad_() for _ in range(depth)
        ]  # (M, n, D) each
        no_words = torch.empty(0, width)
        self.tokens = FixedTokens(
            backbone.text, class_names(classes), context, [no_words] * templates
        ).to(DEVICE)

    def features(self) -> Tensor:
        """(M, K, E), not normalised."""
        prompts = self.tokens(self.contexts[0], deep_text=self.contexts[1:])
        return self.encoder(prompts.prefix, prompts.suffix, prompts.end, prompts.deep_text)

    @torch.no_grad()
    def forward(self) -> Tensor:
        return self.features()

    def backward(self) -> list[Tensor | None]:
        """Forward and backward; the gradients of the contexts, (M, n, D) each."""
        for context in self.contexts:
            context.grad = None
        self.features().square().mean().backward()  # autograd.grad on leaves is what FlopCounterMode can't follow
        return [context.grad for context in self.contexts]


def build_pass(shape: Shape, implementation: str, passes: str, point: Point) -> Work:
    """For ``peak_memory``: the pass in a process of its own."""
    backbone = random_backbone(shape)
    encoder = backbone.text if implementation == "ours" else reference.usual(backbone).text
    return getattr(TextPass(encoder, backbone, *point), passes)


def tables(setting: Setting) -> Iterator[tuple[str, list[Entry]]]:
    peak = matmul_peak()
    for index, (name, shape) in enumerate(setting.shapes.items()):
        one_point = replace(
            setting, classes=(setting.point,), templates=(1,), contexts=(setting.usual_context,)
        )
        for passes in ("forward", "backward"):
            title = f"{name}, {'forward' if passes == 'forward' else 'forward and backward'}"
            yield title, list(rows(shape, setting if index == 0 else one_point, passes, peak))


def rows(shape: Shape, setting: Setting, passes: str, peak: float) -> Iterator[Entry]:
    backbone = random_backbone(shape)
    towers = {"usual": reference.usual(backbone).text, "ours": backbone.text}
    depths = dict(setting.depths)
    for context in setting.contexts:
        for templates in setting.templates:
            for classes in setting.classes:
                log.info("K = %d, M = %d, n = %d, %s", classes, templates, context, passes)
                point = (classes, templates, context, depths[context])
                names = ["ours"]
                if usual_is_timed(setting, classes, templates, context):
                    names.insert(0, "usual")
                memory = {
                    name: peak_memory(build_pass, shape, name, passes, point) for name in names
                }
                fitting = {
                    name: getattr(TextPass(towers[name], backbone, *point), passes)
                    for name in names
                    if memory[name]
                }
                measured = compare(fitting, setting.repetitions, peak)
                if len(measured) < 2:
                    why = "does not fit in memory" if len(names) == 2 else "not timed"
                    measured.insert(0, {"implementation": f"usual: {why}"})
                for row in measured:
                    added = memory.get(row["implementation"])
                    yield {
                        "K": classes,
                        "M": templates,
                        "n": context,
                        "layers": point[3],
                        **row,
                        "memory GB": added.added / GIGA if added else None,
                    }


def usual_is_timed(setting: Setting, classes: int, templates: int, context: int) -> bool:
    if context == setting.usual_context:
        return classes * templates <= setting.usual_texts
    return classes == setting.point and templates == 1


if __name__ == "__main__":
    main(__doc__, tables, FULL, QUICK)
