"""Backbones, heads and networks by name."""

from collections.abc import Sequence
from typing import Any

import torch.nn as nn
from torch import Tensor

from dassl.utils import Registry, check_availability

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
NETWORK_REGISTRY = Registry("NETWORK")


class Backbone(nn.Module):
    """A feature extractor; subclasses set `self._out_features`."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError

    @property
    def out_features(self) -> int | None:
        """The size of the features; None if the subclass does not say."""
        return getattr(self, "_out_features", None)


def _build(registry: Registry, kind: str, name: str, verbose: bool, kwargs: dict[str, Any]) -> Any:
    names = registry.registered_names()
    if not names:
        raise ValueError(
            f"No {kind.lower()} is registered, so [{name}] is unknown: dassl-lite comes with none; "
            f"decorate your own with @{kind.upper()}_REGISTRY.register() (dassl.modeling)"
        )
    check_availability(name, names)
    if verbose:
        print(f"{kind}: {name}")
    return registry.get(name)(**kwargs)


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    return _build(BACKBONE_REGISTRY, "Backbone", name, verbose, kwargs)


def build_head(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    return _build(HEAD_REGISTRY, "Head", name, verbose, kwargs)


def build_network(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    return _build(NETWORK_REGISTRY, "Network", name, verbose, kwargs)


ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU}


class MLP(nn.Module):
    """Hidden layers of linear, batch norm, activation, dropout."""

    def __init__(
        self, in_features: int, hidden_layers: int | Sequence[int], activation: str, bn: bool, dropout: float
    ) -> None:
        super().__init__()
        check_availability(activation, list(ACTIVATIONS), key="MODEL.HEAD.ACTIVATION")
        hidden_layers = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if not hidden_layers:
            raise ValueError("An mlp head needs MODEL.HEAD.HIDDEN_LAYERS")
        layers: list[nn.Module] = []
        for size in hidden_layers:
            layers.append(nn.Linear(in_features, size))
            if bn:
                layers.append(nn.BatchNorm1d(size))
            layers.append(ACTIVATIONS[activation]())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = size
        self.layers = nn.Sequential(*layers)
        self.out_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@HEAD_REGISTRY.register()
def mlp(
    in_features: int = 2048,
    hidden_layers: int | Sequence[int] = (),
    activation: str = "relu",
    bn: bool = True,
    dropout: float = 0.0,
) -> MLP:
    return MLP(in_features, hidden_layers, activation, bn, dropout)
