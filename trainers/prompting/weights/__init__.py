"""From a name or a file to a state dict under OpenAI's names, and to the facts that weights don't
show."""

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor

from ..black_box import ImageBox, NoTexts, TextBox

Normalization = tuple[Sequence[float], Sequence[float]]  # mean and deviation of red, green, blue
# how a CLIP's pixels are made, as far as is known: keys of ``cfg.INPUT`` → values
Pixels = dict[str, object]


class Facts(TypedDict, total=False):
    """Facts that CLIP's weights don't show, as ``build_backbone`` takes them; OpenAI's models need none.

    head_width, text_head_width: of the attention heads in the image and in the text encoder.
    activation: of the MLPs, ``quick_gelu`` or ``gelu``.
    normalization: mean and standard deviation of the pixels, three numbers each.
    logit_bias: of models of a sigmoid loss.
    image, text: towers that are not CLIP's own; no texts beside an image encoder alone.
    """

    head_width: int
    text_head_width: int
    activation: str
    normalization: Normalization | None
    logit_bias: Tensor | None
    image: ImageBox
    text: TextBox | NoTexts
