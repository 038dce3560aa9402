"""What the methods of one family share: trainers to derive from, not registered themselves."""
from yacs.config import CfgNode

from .base import PromptTrainer
from .common.errors import UserError
from .engine.checks import check_at_least, check_choice, check_depth, check_image_prompts
from .prompting.backbone import Backbone
from .prompting.context import POSITIONS, ContextLearner
from .prompting.independent import IndependentPrompts


class ContextTrainer(PromptTrainer):
    """CoOp's prompts; the node has N_CTX, CSC, CTX_INIT, CLASS_TOKEN_POSITION."""

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_choice(f"{self.path}.CLASS_TOKEN_POSITION", node.CLASS_TOKEN_POSITION, POSITIONS)
        check_at_least(1, self.path, node, "N_CTX")

    def build_prompt_learner(self, backbone: Backbone) -> ContextLearner:
        return ContextLearner.from_settings(self.settings, self.classnames, backbone.text)


class IndependentTrainer(PromptTrainer):
    """Deep prompts that each encoder learns for itself; the node has IVLP's keys."""
    text_only = {"PROMPT_DEPTH_VISION": 0, "N_CTX_VISION": 0}
    shape_setting = "N_CTX_TEXT"

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        node = self.node(cfg)
        check_at_least(1, self.path, node, "N_CTX_TEXT", "PROMPT_DEPTH_TEXT")
        check_at_least(0, self.path, node, "N_CTX_VISION", "PROMPT_DEPTH_VISION")
        if (node.N_CTX_VISION == 0) != (node.PROMPT_DEPTH_VISION == 0):
            raise UserError(f"{self.path} has N_CTX_VISION {node.N_CTX_VISION} and PROMPT_DEPTH_VISION {node.PROMPT_DEPTH_VISION}: "
                            "both are 0 to prompt the text encoder only, or neither")

    def build_prompt_learner(self, backbone: Backbone) -> IndependentPrompts:
        node, name = self.settings, self.cfg.MODEL.BACKBONE.NAME
        check_depth(f"{self.path}.PROMPT_DEPTH_TEXT", node.PROMPT_DEPTH_TEXT, backbone.text.layers, name)
        if node.PROMPT_DEPTH_VISION > 0:
            check_image_prompts(f"{self.path}.PROMPT_DEPTH_VISION", backbone, name, "set it and N_CTX_VISION to 0")
            check_depth(f"{self.path}.PROMPT_DEPTH_VISION", node.PROMPT_DEPTH_VISION, backbone.vision_transformer.layers, name)
        return IndependentPrompts(node, self.classnames, backbone)
