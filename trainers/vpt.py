"""VPT: deep prompts in the image encoder only, compared with a hand-crafted text (Jia et al., 2022, "Visual Prompt Tuning", for
CLIP as in MaPLe's public repository). Cross-entropy; both encoders frozen, and the texts are encoded once a run.
"""

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from .base import PromptTrainer
from .common.errors import UserError
from .engine.checks import check_at_least, check_depth, check_image_prompts
from .prompting.backbone import Backbone
from .prompting.independent import VisualPrompts
from .prompting.prompts import Prompts
from .prompting.tokens import readable


def add_vpt_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.VPT``, the official keys."""
    cfg.TRAINER.VPT = node = CfgNode()
    node.N_CTX_VISION = 2  # prompt tokens a layer
    node.CTX_INIT = "a photo of a"  # what stands before the class name; it is not learned
    node.PREC = "fp16"
    node.PROMPT_DEPTH_VISION = 1  # layers that get prompts of their own, the first included


@TRAINER_REGISTRY.register()
class VPT(PromptTrainer):
    """Visual prompt tuning."""

    small = {"PROMPT_DEPTH_VISION": 2}
    text_only = None
    shape_setting = "N_CTX_VISION"
    stays_fp32 = True  # the official code loads CLIP with .float()

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_at_least(1, self.path, node, "N_CTX_VISION", "PROMPT_DEPTH_VISION")
        if {"{", "}"} & set(node.CTX_INIT):
            raise UserError(
                f"{self.path}.CTX_INIT is {node.CTX_INIT!r}: give what stands before the class name, without braces"
            )

    def build_prompt_learner(self, backbone: Backbone) -> VisualPrompts:
        node, name = self.settings, self.cfg.MODEL.BACKBONE.NAME
        check_image_prompts("VPT", backbone, name, "choose a ViT")
        check_depth(
            f"{self.path}.PROMPT_DEPTH_VISION",
            node.PROMPT_DEPTH_VISION,
            backbone.vision_transformer.layers,
            name,
        )
        return VisualPrompts(
            backbone.vision_transformer.width, node.N_CTX_VISION, node.PROMPT_DEPTH_VISION
        )

    def hand_crafted_template(self) -> str:
        return f"{readable(self.settings.CTX_INIT)} {{}}.".lstrip()

    def encode_prompts(self) -> tuple[Tensor, Prompts]:
        return self.hand_crafted[None], self.prompt_learner()  # (1, K, E)
