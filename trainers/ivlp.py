"""IVLP: deep prompts in both encoders, learned independently of each other (Khattak et al., 2023,
MaPLe, §4.2 and its public repository). Cross-entropy; both encoders frozen. Without the image
encoder's part it is deep language prompting.
"""

from yacs.config import CfgNode

from .common.setting import COUNT, Setting, at_least, node_of
from .learners.independent import IndependentPrompts
from .method import Method
from .registration import registered
from .settings import ENCODER

SETTINGS = {
    "N_CTX_VISION": Setting(
        2,
        "prompt tokens per layer of the image encoder; 0, with PROMPT_DEPTH_VISION 0: none",
        at_least(0, 1000),
    ),
    "N_CTX_TEXT": Setting(2, "prompt tokens per layer of the text encoder", COUNT),
    "CTX_INIT": Setting(
        "a photo of a",
        "its first N_CTX_TEXT tokens start the context, the rest stays in the text; Gaussian without",
    ),
    **ENCODER,
    "PROMPT_DEPTH_VISION": Setting(
        9,
        "layers of the image encoder that get prompts of their own, the first included",
        at_least(0, 1000),
    ),
    "PROMPT_DEPTH_TEXT": Setting(9, "likewise of the text encoder", COUNT),
}


def add_ivlp_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.IVLP``, the official keys."""
    cfg.TRAINER.IVLP = node_of(SETTINGS)


class IVLPMethod(Method):
    """Independent vision-language prompting: ``IndependentPrompts`` under the cross-entropy."""

    declared = SETTINGS
    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}

    def build(self) -> IndependentPrompts:
        return IndependentPrompts(self)


IVLP = registered(IVLPMethod)
