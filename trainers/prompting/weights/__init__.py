"""From a name or a file to a state dict under OpenAI's names, and to what the weights don't
show."""

from collections.abc import Sequence
from typing import TypedDict

Normalization = tuple[Sequence[float], Sequence[float]]  # mean and deviation of red, green, blue


class Facts(TypedDict, total=False):
    """What CLIP's weights don't show, as ``build_backbone`` takes it; OpenAI's models need none.

    head_width, text_head_width: of the attention heads in the image and in the text encoder.
    activation: of the MLPs, ``quick_gelu`` or ``gelu``.
    normalization: mean and standard deviation of the pixels, three numbers each.
    """

    head_width: int
    text_head_width: int
    activation: str
    normalization: Normalization | None
