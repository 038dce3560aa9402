"""Registries for backbones, heads and networks. No backbone comes with dassl-lite: register your own."""

from dassl.modeling.build import (
    BACKBONE_REGISTRY,
    HEAD_REGISTRY,
    NETWORK_REGISTRY,
    Backbone,
    build_backbone,
    build_head,
    build_network,
)

__all__ = [
    "BACKBONE_REGISTRY",
    "Backbone",
    "HEAD_REGISTRY",
    "NETWORK_REGISTRY",
    "build_backbone",
    "build_head",
    "build_network",
]
