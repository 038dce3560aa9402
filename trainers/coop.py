"""CoOp: the words around the class name become learnable vectors (Zhou et al., 2022, "Learning to
Prompt for Vision-Language Models"). The context is shared by all classes, or one per class (CSC);
it stands before, around or after the class name. Cross-entropy on the logits of one template; both
encoders frozen.
"""

from yacs.config import CfgNode

from .class_part import ClassPart
from .common.setting import COUNT, Setting, node_of
from .learners.context import POSITIONS, ContextLearner
from .method import Method
from .registration import registered
from .settings import ENCODER

SETTINGS = {
    "N_CTX": Setting(16, "context tokens; a phrase brings its own number", COUNT),
    "CSC": Setting(False, "a context for each class"),
    "CTX_INIT": Setting("", "phrase the context starts from, Gaussian without"),
    **ENCODER,
    "CLASS_TOKEN_POSITION": Setting("end", "of the class name in the context", POSITIONS),
}


def add_coop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.COOP``, CoOp's own keys."""
    cfg.TRAINER.COOP = node_of(SETTINGS)


class CoOpMethod(Method):
    """Context optimisation: ``ContextLearner`` under the cross-entropy."""

    declared = SETTINGS
    learner: ContextLearner

    def build(self) -> ContextLearner:
        return ContextLearner.from_settings(self)

    @property
    def class_part(self) -> ClassPart:
        return self.learner.class_part


CoOp = registered(CoOpMethod)
