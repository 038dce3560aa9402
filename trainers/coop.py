"""CoOp: the words around the class name become learnable vectors (Zhou et al., 2022, "Learning to
Prompt for Vision-Language Models"). The context is shared by all classes, or one per class (CSC);
it stands before, around or after the class name. Cross-entropy on the logits of one template; both
encoders frozen.
"""

from yacs.config import CfgNode

from .class_part import ClassPart
from .common.ranges import COUNT, note_ranges
from .learners.context import POSITIONS, ContextLearner
from .method import Method
from .registration import registered
from .settings import add_encoder_settings


def add_coop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.COOP``, CoOp's own keys."""
    cfg.TRAINER.COOP = node = CfgNode()
    node.N_CTX = 16  # context tokens; a phrase brings its own number
    node.CSC = False  # a context for each class
    node.CTX_INIT = ""  # phrase the context starts from, Gaussian without
    add_encoder_settings(node)
    node.CLASS_TOKEN_POSITION = "end"  # end | middle | front
    note_ranges(node, N_CTX=COUNT, CLASS_TOKEN_POSITION=POSITIONS)


class CoOpMethod(Method):
    """Context optimisation: ``ContextLearner`` under the cross-entropy."""

    learner: ContextLearner

    def build(self) -> ContextLearner:
        return ContextLearner.from_settings(self)

    @property
    def class_part(self) -> ClassPart:
        return self.learner.class_part


CoOp = registered(CoOpMethod)
