"""Zero-shot CLIP: the class whose hand-crafted prompt is nearest to the image (Radford et al.,
2021, §3.1). Nothing is learned.

``ZeroshotCLIP`` takes one prompt a class, ``ZeroshotCLIP2`` the mean over several (their §3.1.4).
"""

from dataclasses import replace

from torch import Tensor
from yacs.config import CfgNode

from .common.setting import node_of
from .evaluation.prediction import Prediction
from .maths.logistic import around
from .method import Method
from .registration import registered
from .settings import PRECISION
from .texts.templates import SELECTED_TEMPLATES

SETTINGS = {"PREC": replace(PRECISION["PREC"], default="fp32")}


def add_zeroshotclip_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.ZEROSHOTCLIP``."""
    cfg.TRAINER.ZEROSHOTCLIP = node_of(SETTINGS)


def add_zeroshotclip2_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.ZEROSHOTCLIP2``."""
    cfg.TRAINER.ZEROSHOTCLIP2 = node_of(SETTINGS)


class ZeroshotCLIPMethod(Method):
    """One template per data set, no training."""

    declared = SETTINGS
    learns = False
    learns_in_epochs = False
    prompts_texts = False

    def encode(self) -> tuple[Tensor, None]:
        return self.hand_crafted[None], None  # (1, K, E)


class ZeroshotCLIP2Method(ZeroshotCLIPMethod):
    """The normalised mean over seven selected templates and, but for ImageNet, the data set's own."""

    def hand_crafted_templates(self) -> list[str]:
        of_dataset = [] if self.dataset == "ImageNet" else super().hand_crafted_templates()
        return SELECTED_TEMPLATES + of_dataset


class NamesAloneMethod(ZeroshotCLIPMethod):
    """``ZeroshotCLIP`` of multi-label pictures: each label has a probability of its own, which ranks it; none is
    given."""

    @classmethod
    def name(cls) -> str:
        return "ZeroshotCLIP"

    def predict(self, logits: Tensor) -> Prediction:
        """Return the ``Prediction`` from (1, B, K) logits, moved by ``around``."""
        return Prediction(around(logits[0], logits[0]).sigmoid())


ZeroshotCLIP = registered(ZeroshotCLIPMethod)


ZeroshotCLIP2 = registered(ZeroshotCLIP2Method)
