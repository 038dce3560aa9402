"""VPT: deep prompts in the image encoder only, compared with a hand-crafted text (Jia et al., 2022,
"Visual Prompt Tuning", for CLIP as in MaPLe's public repository). Cross-entropy; both encoders
frozen, and the texts are encoded once per run.
"""

from torch import Tensor
from yacs.config import CfgNode

from .common.setting import COUNT, Setting, node_of
from .learners.independent import VisualPrompts
from .method import Method
from .prompting.precision import OfficialPrecision
from .prompting.prompts import Prompts
from .registration import registered
from .settings import PRECISION
from .texts.templates import template_of

SETTINGS = {
    "N_CTX_VISION": Setting(2, "prompt tokens per layer", COUNT),
    "CTX_INIT": Setting("a photo of a", "what stands before the class name; it is not learned"),
    **PRECISION,
    "PROMPT_DEPTH_VISION": Setting(
        1, "layers that get prompts of their own, the first included", COUNT
    ),
}


def add_vpt_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.VPT``, the official keys."""
    cfg.TRAINER.VPT = node_of(SETTINGS)


class VPTMethod(Method):
    """Visual prompt tuning."""

    declared = SETTINGS
    learner: VisualPrompts
    text_only = None
    prompts_texts = False
    # the official code loads CLIP with .float()
    official_precision = OfficialPrecision(stays_fp32=True)

    def build(self) -> VisualPrompts:
        node = self.settings
        image = self.backbone.image
        self.check_depth("PROMPT_DEPTH_VISION", node.PROMPT_DEPTH_VISION, image)
        return VisualPrompts(image.width, node.N_CTX_VISION, node.PROMPT_DEPTH_VISION)

    def hand_crafted_template(self) -> str:
        return template_of(f"{self.path}.CTX_INIT", self.settings.CTX_INIT)

    def encode(self) -> tuple[Tensor, Prompts]:
        return self.hand_crafted[None], self.learner()  # (1, K, E)


VPT = registered(VPTMethod)
