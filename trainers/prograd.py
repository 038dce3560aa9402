"""ProGrad: CoOp whose gradient never conflicts with zero-shot CLIP (Zhu et al., 2023,
"Prompt-aligned Gradient for Prompt Tuning", §3.2). Where the gradient of the cross-entropy points
against the gradient of the distance to zero-shot CLIP's answers, the conflicting part is removed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from .class_part import ClassPart
from .common.errors import UserError
from .common.setting import COUNT, Setting, at_least, larger_than, node_of
from .evaluation.prediction import Scores
from .learners.context import POSITIONS, ContextLearner
from .method import Figures, Method
from .prompting.precision import OfficialPrecision
from .prompting.prompts import embed, gaussian
from .prompting.tokens import phrase_tokens
from .registration import registered
from .settings import ENCODER

SETTINGS = {
    "N_CTX": Setting(16, "context tokens", COUNT),
    "CSC": Setting(False, "a context for each class"),
    "CTX_INIT": Setting(
        True,
        "start from the data set's hand-crafted prompt, zeros before it; False: Gaussian",
    ),
    **ENCODER,
    "CLASS_TOKEN_POSITION": Setting("end", "of the class name in the context", POSITIONS),
    "LAMBDA": Setting(
        1.0,
        "how much of the part that works against CLIP is taken away; 0 is CoOp",
        at_least(0),
    ),
    "T": Setting(1.0, "temperature of the distance to zero-shot CLIP", larger_than(0)),
}


def add_prograd_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.PROGRAD``: CoOp's keys, and LAMBDA and T (``cfg.LOSS`` in the official
    code)."""
    cfg.TRAINER.PROGRAD = node_of(SETTINGS)


def project(task: Tensor, general: Tensor, strength: float) -> Tensor:
    """The task's gradient g_d without its part against the general one g_g (Zhu et al., 2023, §3.2).

    g_d − λ (g_d · ĝ_g) ĝ_g with ĝ_g = g_g / ‖g_g‖ where g_d · g_g < 0, else g_d. All of one
    tensor's shape; ``strength`` is λ.
    """
    direction = general / general.norm().clamp(min=torch.finfo(general.dtype).tiny)
    along = (task * direction).sum()
    projected: Tensor = task - strength * along.clamp(max=0) * direction
    return projected


class ProGradMethod(Method):
    """Prompt-aligned gradient."""

    declared = SETTINGS
    learner: ContextLearner
    # the class name is always last, so that the words before it can start the context
    exceptions = {
        "OxfordPets": "a type of pet, a photo of a {}.",
        "OxfordFlowers": "a type of flower, a photo of a {}.",
        "FGVCAircraft": "a type of aircraft, a photo of a {}.",
        "DescribableTextures": "a texture of {}.",
        "Food101": "a type of food, a photo of {}.",
    }
    official_precision = OfficialPrecision(fp32_teacher=True)
    compiles = False

    def build(self) -> ContextLearner:
        node = self.settings
        text = self.backbone.text
        of_classes = [len(self.classnames)] if node.CSC else []
        if node.CTX_INIT:
            phrase = self.hand_crafted_template().split(" {}")[0]
            # as many tokens as there are words: a comma, which is a token too, leaves the last one fixed
            count = len(phrase.split(" "))
            if count > node.N_CTX:
                raise UserError(
                    f"{self.path}.N_CTX is {node.N_CTX}, but CTX_INIT starts it from {phrase!r}, which has {count} "
                    "words: raise N_CTX or set CTX_INIT to False"
                )
            tokens = embed(text, phrase_tokens(phrase, text.context_length))  # (count + r, D)
            blank = tokens.new_zeros(node.N_CTX - count, text.width)
            context = torch.cat([blank, tokens[:count]]).repeat(*of_classes, 1, 1)
            return ContextLearner(self, context, tokens[count:])
        # (n, D) or (K, n, D)
        return ContextLearner(self, gaussian(*of_classes, node.N_CTX, text.width))

    @property
    def class_part(self) -> ClassPart:
        return self.learner.class_part

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """The cross-entropy, whose gradient is the projected one.

        The general knowledge is −Σ_k p_k log q_k · T² with p zero-shot CLIP's and q the prompts'
        probabilities at temperature T, averaged over images: it has the gradient of KL(p ‖ q).
        """
        node = self.settings
        logits = scores.logits[0]  # (B, K)
        # the image encoder is not prompted: zero-shot CLIP's features are the step's, unless those
        # are fp16's
        images = scores.image_features  # (1, B, E)
        if self.towers.teacher is not self.backbone:
            with torch.no_grad(), self.towers.autocast():
                images = F.normalize(self.towers.teacher.image(scores.images).float(), dim=-1)
        zero_shot = self.towers.logits(images, self.hand_crafted[None])[0]  # (B, K)
        task = F.cross_entropy(logits, labels)
        general = F.cross_entropy(logits / node.T, (zero_shot / node.T).softmax(dim=-1)) * node.T**2
        parameters = list(self.learner.parameters())
        of_task = torch.autograd.grad(task, parameters, retain_graph=True)
        of_general = torch.autograd.grad(general, parameters)
        # terms that are zero and have the projected gradient: an ordinary step follows
        total = task.detach()
        for g_task, g_general, parameter in zip(of_task, of_general, parameters):
            projected = project(g_task, g_general, node.LAMBDA)
            total = total + (projected * (parameter - parameter.detach())).sum()
        return total, {"loss_ce": task, "loss_general": general}


ProGrad = registered(ProGradMethod)
