"""Backbones, heads and networks by name."""

import torch.nn as nn

from dassl.utils import Registry, check_availability

BACKBONE_REGISTRY = Registry("BACKBONE")
HEAD_REGISTRY = Registry("HEAD")
NETWORK_REGISTRY = Registry("NETWORK")


class Backbone(nn.Module):
    """A feature extractor; subclasses set `self._out_features`."""

    def forward(self, *args, **kwargs):
        raise NotImplementedError

    @property
    def out_features(self):
        """The size of the features; None if the subclass does not say."""
        return getattr(self, "_out_features", None)


def _build(registry, kind, name, verbose, kwargs):
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


def build_backbone(name, verbose=True, **kwargs):
    return _build(BACKBONE_REGISTRY, "Backbone", name, verbose, kwargs)


def build_head(name, verbose=True, **kwargs):
    return _build(HEAD_REGISTRY, "Head", name, verbose, kwargs)


def build_network(name, verbose=True, **kwargs):
    return _build(NETWORK_REGISTRY, "Network", name, verbose, kwargs)


ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU}


class MLP(nn.Module):
    """Hidden layers of linear, batch norm, activation, dropout."""

    def __init__(self, in_features, hidden_layers, activation, bn, dropout):
        super().__init__()
        check_availability(activation, list(ACTIVATIONS), key="MODEL.HEAD.ACTIVATION")
        hidden_layers = [hidden_layers] if isinstance(hidden_layers, int) else list(hidden_layers)
        if not hidden_layers:
            raise ValueError("An mlp head needs MODEL.HEAD.HIDDEN_LAYERS")
        layers = []
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

    def forward(self, x):
        return self.layers(x)


@HEAD_REGISTRY.register()
def mlp(in_features=2048, hidden_layers=(), activation="relu", bn=True, dropout=0.0):
    return MLP(in_features, hidden_layers, activation, bn, dropout)
