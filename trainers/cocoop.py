"""CoCoOp: a small network turns each image's feature into a shift of the context, so that every
image is compared with texts of its own (Zhou et al., 2022, "Conditional Prompt Learning for
Vision-Language Models", §3.2). Both encoders frozen, cross-entropy.

Nothing of the texts can be kept for the next image, but within an image all classes share start
token and context: they are encoded once per image, and only the classes' own tokens K times.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .common.setting import COUNT, Setting, node_of
from .evaluation.prediction import Scores
from .method import Encoded, Method
from .prompting.prompts import FixedTokens, Prompts, context_of_phrase
from .registration import registered
from .settings import ENCODER

META_REDUCTION = 16  # of the width in the meta-net's hidden layer
TEXTS_AT_ONCE = 8192  # images × classes in one pass of the text encoder, at most (but one image at least), to bound the memory


SETTINGS = {
    "N_CTX": Setting(16, "context tokens; a phrase brings its own number", COUNT),
    "CTX_INIT": Setting("", "phrase the context starts from, Gaussian without"),
    **ENCODER,
}


def add_cocoop_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.COCOOP``, the official keys."""
    cfg.TRAINER.COCOOP = node_of(SETTINGS)


class ConditionalContext(nn.Module):
    """Learnable context (n, D) and the meta-net that shifts it by an image's feature."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        embed_dim = method.backbone.embed_dim
        self.ctx = nn.Parameter(context_of_phrase(text, node.N_CTX, node.CTX_INIT))  # (n, D)
        hidden = embed_dim // META_REDUCTION
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(embed_dim, hidden),
                relu=nn.ReLU(),
                linear2=nn.Linear(hidden, text.width),
            )
        )
        self.tokens = FixedTokens(text, method.classnames, len(self.ctx))

    def forward(self, image_features: Tensor) -> Prompts:
        """Normalised image features (B, E) → ``Prompts`` of B templates, one per image."""
        shift = self.meta_net(image_features)[:, None]  # (B, 1, D): the same for all n tokens
        return self.tokens(self.ctx + shift)  # contexts (B, n, D)


class CoCoOpMethod(Method):
    """Conditional context optimisation."""

    declared = SETTINGS
    learner: ConditionalContext

    def build(self) -> ConditionalContext:
        return ConditionalContext(self)

    def encode(self) -> None:
        """Return None: prompts depend on the image, so that nothing can be encoded before."""

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        image_features = self.towers.encode_images(images)  # (1, B, E)
        chunks = image_features[0].split(max(1, TEXTS_AT_ONCE // len(self.classnames)))
        parts = [self.towers.encode_texts(self.learner(chunk)) for chunk in chunks]
        texts = torch.cat(parts)  # (B, K, E)
        # (B, 1, E), (B, K, E) → (B, 1, K)
        logits = self.towers.logits(image_features.transpose(0, 1), texts)
        return Scores(logits.transpose(0, 1), image_features, texts, images)


CoCoOp = registered(CoCoOpMethod)
