"""Zero-shot CLIP: the class whose hand-crafted prompt is nearest to the image (Radford et al., 2021). Nothing is learned."""
import torch.nn.functional as F
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .base import PromptTrainer
from .prompting.tokens import readable, tokenize


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
        texts = [self.template.format(readable(name)) for name in self.classnames]
        tokens = tokenize(texts, self.backbone.text.context_length).to(self.device)
        features = self.backbone.text.encode_tokens(tokens)  # (K, E)
        return F.normalize(features.float(), dim=-1)[None], None
