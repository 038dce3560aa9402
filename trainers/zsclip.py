"""Zero-shot CLIP: the class whose hand-crafted prompt is nearest to the image (Radford et al.,
2021, §3.1). Nothing is learned.

``ZeroshotCLIP`` takes one prompt a class, ``ZeroshotCLIP2`` the mean over several (their §3.1.4).
"""

from torch import Tensor
from yacs.config import CfgNode

from .method import Method
from .registration import registered
from .settings import add_precision
from .texts.templates import SELECTED_TEMPLATES


def add_zeroshotclip_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.ZEROSHOTCLIP``."""
    cfg.TRAINER.ZEROSHOTCLIP = node = CfgNode()
    add_precision(node, "fp32")


def add_zeroshotclip2_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.ZEROSHOTCLIP2``."""
    cfg.TRAINER.ZEROSHOTCLIP2 = node = CfgNode()
    add_precision(node, "fp32")


class ZeroshotCLIPMethod(Method):
    """One template per data set, no training."""

    learns = False
    prompts_texts = False

    def encode(self) -> tuple[Tensor, None]:
        return self.hand_crafted[None], None  # (1, K, E)


class ZeroshotCLIP2Method(ZeroshotCLIPMethod):
    """The normalised mean over seven selected templates and, but for ImageNet, the data set's own."""

    def hand_crafted_templates(self) -> list[str]:
        of_dataset = [] if self.dataset == "ImageNet" else super().hand_crafted_templates()
        return SELECTED_TEMPLATES + of_dataset


ZeroshotCLIP = registered(ZeroshotCLIPMethod)


ZeroshotCLIP2 = registered(ZeroshotCLIP2Method)
