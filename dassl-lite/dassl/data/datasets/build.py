"""Data sets by name."""

from collections.abc import Callable

from yacs.config import CfgNode

from dassl.data.datasets.base_dataset import DatasetBase
from dassl.utils import Registry
from dassl.utils.registry import build

DATASET_REGISTRY: Registry[Callable[..., DatasetBase]] = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> DatasetBase:
    return build(DATASET_REGISTRY, "dataset", cfg.DATASET.NAME, cfg)
