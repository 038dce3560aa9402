"""TCP: prompts made of each class's own text, put into one middle layer of the text encoder (Yao et
al., 2024, "TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model", §3.2). A
bottleneck network, the textual knowledge embedding, turns the features of the hand-crafted prompts
into n tokens per class, which take the place of the context there. Cross-entropy and KgCoOp's term;
both encoders frozen.
"""

from dataclasses import replace

from torch import Tensor, nn
from yacs.config import CfgNode

from .common.setting import COUNT, Setting, at_least, larger_than, node_of
from .evaluation.prediction import Scores
from .kgcoop import knowledge_guided_loss
from .method import Figures, Method, ParameterGroups
from .prompting.prompts import FixedTokens, Prompts, context_of_phrase
from .prompting.transformer import quick_gelu
from .registration import registered
from .settings import ENCODER

REDUCTION = 4  # of the width in the bottleneck
AFTER_CONTEXT = {  # the words after the learned context, if not the class name and a full stop
    "OxfordPets": "{}, a type of pet.",
    "OxfordFlowers": "{}, a type of flower.",
    "FGVCAircraft": "{}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "StanfordCars": "{}, a type of car",
    "Food101": "{}, a type of food.",
    "UCF101": "person doing {}.",
}


SETTINGS = {
    "N_CTX": Setting(
        4,
        "context tokens n, of the input and of the layer; a phrase brings its own number",
        COUNT,
    ),
    "CTX_INIT": Setting("", "phrase the context starts from, Gaussian without"),
    "LAYER": Setting(8, "whose context is each class's own, counted from 0", COUNT),
    "W": Setting(8.0, "weight of the knowledge-guided term", at_least(0)),
    "ADAM_EPS": Setting(
        1e-3,
        "of OPTIM.NAME adam: gradients much smaller than this make small steps; found for fp16, "
        "where 1e-8 is zero",
        larger_than(0),
    ),
    **ENCODER,
}


def add_tcp_config(cfg: CfgNode) -> None:
    """Declare ``cfg.TRAINER.TCP``; officially its keys are in ``TRAINER.COOP``, layer and eps in its code."""
    cfg.TRAINER.TCP = node_of(SETTINGS)


class ClassAwarePrompts(nn.Module):
    """Learnable context (n, D), and the bottleneck network that makes n tokens of each class's text."""

    classes: Tensor

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        embed_dim = method.backbone.embed_dim
        self.ctx = nn.Parameter(context_of_phrase(text, node.N_CTX, node.CTX_INIT))
        self.reduce = nn.Linear(embed_dim, embed_dim // REDUCTION)
        self.expand = nn.Linear(embed_dim // REDUCTION, self.ctx.numel())
        # (K, E); they follow from the names: not saved
        self.register_buffer("classes", method.hand_crafted, persistent=False)
        template = AFTER_CONTEXT.get(method.dataset, "{}.")
        self.tokens = FixedTokens(text, method.classnames, len(self.ctx), template=template)
        self.layers_before = node.LAYER - 1  # these keep the context as it has become

    def forward(self) -> Prompts:
        hidden = quick_gelu(self.reduce(self.classes))  # (K, E/4)
        of_classes = self.expand(hidden).view(-1, *self.ctx.shape)  # (K, n, D)
        deep = [None] * self.layers_before + [of_classes[None]]
        return replace(self.tokens(self.ctx[None]), deep_text=deep)


class TCPMethod(Method):
    """Textual-based class-aware prompt tuning."""

    declared = SETTINGS
    learner: ClassAwarePrompts
    exceptions = {
        "FGVCAircraft": "a photo of an aircraft {}.",
        "DescribableTextures": "a photo of a {}, a type of texture.",
        "Food101": "a photo of a {}, a type of food.",
    }

    def build(self) -> ClassAwarePrompts:
        layer = self.settings.LAYER + 1
        self.check_depth("LAYER, counted from 0,", layer, self.backbone.text)
        return ClassAwarePrompts(self)

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        return knowledge_guided_loss(
            scores.logits[0], labels, scores.text_features, self.hand_crafted, self.settings.W
        )

    def parameter_groups(self, lr: float) -> ParameterGroups:
        return [{"params": list(self.learner.parameters()), "eps": self.settings.ADAM_EPS}]


TCP = registered(TCPMethod)
