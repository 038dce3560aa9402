"""Zero-shot CLIP: the class whose hand-crafted prompt is nearest to the image (Radford et al., 2021). Nothing is learned."""
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .base import PromptTrainer


def add_zeroshotclip_config(cfg):
    """Declares ``cfg.TRAINER.ZEROSHOTCLIP``."""
    cfg.TRAINER.ZEROSHOTCLIP = CfgNode()
    cfg.TRAINER.ZEROSHOTCLIP.PREC = "fp32"


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """One template a data set, no training; ``train()`` only tests."""

    def build_prompt_learner(self, backbone):
        return None

    def encode_prompts(self):
        return self.backbone.encode_classes(self.template, self.classnames)[None], None  # (1, K, E)
