"""IVLP: deep prompts in both encoders, learned independently of each other (Khattak et al., 2023,
MaPLe, §4.2 and its public repository). Cross-entropy; both encoders frozen. Without the image
encoder's part it is deep language prompting.
"""

from yacs.config import CfgNode

from .common.ranges import COUNT, at_least, note_ranges
from .learners.independent import IndependentPrompts
from .method import Method
from .registration import registered
from .settings import add_encoder_settings


def add_ivlp_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.IVLP``, the official keys."""
    cfg.TRAINER.IVLP = node = CfgNode()
    # prompt tokens per layer of the image encoder; 0, with PROMPT_DEPTH_VISION 0: none
    node.N_CTX_VISION = 2
    node.N_CTX_TEXT = 2  # the same of the text encoder, at least 1
    node.CTX_INIT = "a photo of a"  # its first N_CTX_TEXT tokens start the context, the rest stays in the text; Gaussian without
    add_encoder_settings(node)
    node.PROMPT_DEPTH_VISION = 9  # layers that get prompts of their own, the first included
    node.PROMPT_DEPTH_TEXT = 9  # likewise
    note_ranges(
        node,
        N_CTX_VISION=at_least(0, 1000),
        PROMPT_DEPTH_VISION=at_least(0, 1000),
        N_CTX_TEXT=COUNT,
        PROMPT_DEPTH_TEXT=COUNT,
    )


class IVLPMethod(Method):
    """Independent vision-language prompting: ``IndependentPrompts`` under the cross-entropy."""

    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}

    def build(self) -> IndependentPrompts:
        return IndependentPrompts(self)


IVLP = registered(IVLPMethod)
