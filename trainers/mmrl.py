"""MMRL: tokens of a representation space that both encoders share enter their upper layers (Guo and
Gu, 2025, "MMRL: Multi-Modal Representation Learning for Vision-Language Models", §3). An image has
two features: its class token's, held near to CLIP's own, and its representation
tokens' under a projection which is learned. Classes that were trained are answered by both, others
by the first alone. The texts are one hand-crafted prompt; CLIP's own weights are frozen.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ClassPart
from .common.setting import COUNT, Setting, at_least, node_of
from .evaluation.prediction import Prediction, Scores
from .method import Figures, Method
from .prompting.precision import OfficialPrecision
from .prompting.prompts import FixedTokens, Prompts, gaussian
from .prompting.transformer import Adapter, Readout
from .registration import registered
from .settings import ENCODER

SETTINGS = {
    "N_REP_TOKENS": Setting(5, "n, in either encoder", COUNT),
    "REP_DIM": Setting(512, "width of the representation space", at_least(1, 65536)),
    "REP_START": Setting(6, "first layer of both encoders that the tokens enter, from 1", COUNT),
    "REP_END": Setting(12, "last one", COUNT),
    "SCALE": Setting(
        0.7,
        "α: weight of the class token's logits, the representation tokens' have 1 − α",
        at_least(0, 1),
    ),
    "REG_WEIGHT": Setting(1.0, "λ: of the distance to CLIP's own features", at_least(0)),
    **ENCODER,
}


def add_mmrl_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.MMRL``, the official keys, but for REP_START and REP_END (REP_LAYERS,
    a list)."""
    cfg.TRAINER.MMRL = node_of(SETTINGS)


class Enters(Adapter):
    """A change of a layer's input: tokens (n, D) after the first one, in the place of the ones that entered
    the layer before."""

    def __init__(self, representation: Tensor, is_first: bool) -> None:
        super().__init__()
        self.representation = representation
        self.others = 1 if is_first else 1 + len(representation)

    def enter(self, tokens: Tensor) -> Tensor:
        own = self.representation.to(tokens.dtype).expand(len(tokens), -1, -1)  # (N, n, D)
        return torch.cat([tokens[:, :1], own, tokens[:, self.others :]], dim=1)


class RepresentationSpace(nn.Module):
    """The tokens (n, d) of the space, the maps of each layer that make the encoders' tokens, and
    the projection of their outputs.

    Parameters have the official initial values and names.
    """

    proj_rep: Any  # a parameter; None for classes that were not trained

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        text = method.backbone.text
        image = method.backbone.image
        self.before = node.REP_START - 1
        layers = range(node.REP_START, node.REP_END + 1)
        projection = torch.randn(image.width, method.backbone.embed_dim)
        self.proj_rep = nn.Parameter(image.width**-0.5 * projection)  # (D_v, E)
        self.compound_rep_tokens = nn.Parameter(gaussian(node.N_REP_TOKENS, node.REP_DIM))
        visual, textual = (nn.Linear(node.REP_DIM, tower.width) for tower in (image, text))
        # all start alike
        self.compound_rep_tokens_r2vproj = nn.ModuleList(copy.deepcopy(visual) for _ in layers)
        self.compound_rep_tokens_r2tproj = nn.ModuleList(copy.deepcopy(textual) for _ in layers)
        template = method.hand_crafted_template()
        self.tokens = FixedTokens.of_prompt(text, template, method.classnames)

    def entering(self, maps: nn.ModuleList) -> list[Adapter | None]:
        """One or None for each layer up to ``REP_END``."""
        tokens = [project(self.compound_rep_tokens) for project in maps]  # (n, D) each
        return [None] * self.before + [Enters(layer, layer is tokens[0]) for layer in tokens]

    def project(self, tokens: Tensor) -> Tensor:
        """The second feature (N, E) of an image's representation tokens (N, n, D_v)."""
        feature: Tensor = tokens.float().mean(dim=1) @ self.proj_rep
        return feature

    def forward(self) -> Prompts:
        readout = Readout(len(self.compound_rep_tokens), self.project)
        return replace(
            self.tokens(),
            text_adapters=self.entering(self.compound_rep_tokens_r2tproj),
            image_adapters=self.entering(self.compound_rep_tokens_r2vproj),
            readout=None if self.proj_rep is None else readout,
        )


class MMRLMethod(Method):
    """Multi-modal representation learning; its logits are (2, B, K), or (1, B, K) for classes that
    were not trained."""

    declared = SETTINGS
    learner: RepresentationSpace
    class_part = ClassPart(("proj_rep",))
    official_precision = OfficialPrecision(amp_is_fp16=True)
    text_only = None

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        super().check(settings, path)
        cls.check_order(settings, path, "REP_START", "REP_END")

    def build(self) -> RepresentationSpace:
        end = self.settings.REP_END
        backbone = self.backbone
        self.check_depth("REP_END", end, backbone.text, backbone.image)
        return RepresentationSpace(self)

    def drop_class_part(self) -> None:
        self.learner.proj_rep = None

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """α CE(class token) + (1 − α) CE(representation tokens) + λ (1 − cos(z, z⁰)) + λ (1 −
        cos(w, w⁰)), means over images and classes.

        z are the class tokens' features, w the texts', ⁰ the frozen CLIP's (Guo and Gu, 2025, §3.3).
        """
        node = self.settings
        first, second = (F.cross_entropy(logits, labels) for logits in scores.logits)
        image = 1 - torch.linalg.vecdot(scores.image_features[:1], self.unprompted(scores)).mean()
        text = 1 - torch.linalg.vecdot(scores.text_features, self.hand_crafted).mean()
        total = node.SCALE * first + (1 - node.SCALE) * second + node.REG_WEIGHT * (image + text)
        parts = {"loss_ce": first, "loss_ce_rep": second, "loss_image": image, "loss_text": text}
        return total, parts

    def predict(self, logits: Tensor) -> Prediction:
        if len(logits) == 1:
            return super().predict(logits)
        scale = self.settings.SCALE
        return Prediction((scale * logits[0] + (1 - scale) * logits[1]).softmax(dim=-1))


MMRL = registered(MMRLMethod)
