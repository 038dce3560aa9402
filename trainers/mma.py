"""MMA: adapters beside the upper layers of both encoders, which meet in a projection that the two
share (Yang et al., 2024, "MMA: Multi-Modal Adapter for Vision-Language Models", §3.3). Lower
layers, which hold general features, stay as they are. The texts are one hand-crafted prompt.
Cross-entropy; CLIP's own weights are frozen.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

from torch import Tensor, nn
from yacs.config import CfgNode

from .common.setting import COUNT, Setting, at_least, larger_than, node_of
from .method import Method
from .prompting.precision import OfficialPrecision
from .prompting.prompts import FixedTokens, Prompts
from .prompting.transformer import Adapter, Block
from .registration import registered
from .settings import ENCODER
from .texts.templates import template_of

SETTINGS = {
    "TEXT_CTX_INIT": Setting(
        "a photo of a", "what stands before the class name; it is not learned"
    ),
    "ADAPTER_START": Setting(5, "first layer with an adapter, from 1", COUNT),
    "ADAPTER_END": Setting(12, "last one", COUNT),
    "ADAPTER_DIM": Setting(32, "width d of the shared projection", at_least(1, 65536)),
    "ADAPTER_SCALE": Setting(
        0.001, "s, by which an adapter's output is multiplied", larger_than(0)
    ),
    **ENCODER,
}


def add_mma_config(cfg: CfgNode) -> None:
    """Declares ``cfg.TRAINER.MMA``, the official keys (of ``cfg.TRAINER.MMADAPTER``)."""
    cfg.TRAINER.MMA = node_of(SETTINGS)


def with_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, with its gradient multiplied by a factor."""
    return x.detach() + factor * (x - x.detach())


class Beside(Adapter):
    """Adds s · up(shared(down(norm(x)))) to a layer's output, x being the tokens that enter it.

    The gradient of the adapter's own parameters belongs to the sum without s, as in the official
    code; the gradient of x is the true one.
    """

    def __init__(self, maps: nn.ModuleDict, shared: nn.Module, scale: float) -> None:
        super().__init__()
        self.maps = maps
        self.shared = shared
        self.scale = scale

    def leave(self, block: Block, tokens: Tensor, output: Tensor) -> Tensor:
        normed = block.ln_1(with_gradient(tokens.float(), self.scale))  # (…, D)
        added = self.maps["up"](self.shared(self.maps["down"](normed))) * self.scale
        return output + with_gradient(added, 1 / self.scale).to(output.dtype)


class SharedAdapters(nn.Module):
    """Called, it gives the hand-crafted prompt with an adapter beside each of the upper layers of
    both encoders.

    Parameters carry the official names, with the layer's number from 1, and are drawn in the
    official order.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        node = method.settings
        image = method.backbone.image
        text = method.backbone.text
        layers = range(node.ADAPTER_START, node.ADAPTER_END + 1)
        dim = node.ADAPTER_DIM
        self.before = node.ADAPTER_START - 1
        self.scale = node.ADAPTER_SCALE
        self.text_adapter = new_adapter(layers, lambda: bottleneck(text.width, dim))
        self.visual_adapter = new_adapter(layers, lambda: bottleneck(image.width, dim))
        self.shared_adapter = new_adapter(
            layers, lambda: nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        )
        template = template_of(f"{method.path}.TEXT_CTX_INIT", node.TEXT_CTX_INIT)
        self.tokens = FixedTokens.of_prompt(text, template, method.classnames)

    def beside(self, maps: nn.ModuleDict) -> list[Adapter | None]:
        """One or None for each layer up to ``ADAPTER_END``."""
        pairs = zip(maps.values(), self.shared_adapter.values())
        changes = [Beside(cast(nn.ModuleDict, own), shared, self.scale) for own, shared in pairs]
        return [*[None] * self.before, *changes]

    def forward(self) -> Prompts:
        return replace(
            self.tokens(),
            text_adapters=self.beside(self.text_adapter),
            image_adapters=self.beside(self.visual_adapter),
        )


def bottleneck(width: int, dim: int) -> nn.ModuleDict:
    """The part of an adapter that is the encoder's own: (…, D) → (…, d), and back."""
    return nn.ModuleDict(
        {"down": nn.Sequential(nn.Linear(width, dim), nn.ReLU()), "up": nn.Linear(dim, width)}
    )


def new_adapter(layers: Iterable[int], adapter: Callable[[], nn.Module]) -> nn.ModuleDict:
    """An adapter for each layer with Gaussian weights, standard deviation √(2 / outputs), and
    biases of zero."""
    modules = nn.ModuleDict({str(layer): adapter() for layer in layers})
    for module in modules.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return modules


class MMAMethod(Method):
    """Multi-modal adapter."""

    declared = SETTINGS
    official_precision = OfficialPrecision(amp_is_fp16=True)
    text_only = None

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        super().check(settings, path)
        cls.check_order(settings, path, "ADAPTER_START", "ADAPTER_END")

    def build(self) -> SharedAdapters:
        end = self.settings.ADAPTER_END
        backbone = self.backbone
        self.check_depth("ADAPTER_END", end, backbone.text, backbone.image)
        return SharedAdapters(self)


MMA = registered(MMAMethod)
