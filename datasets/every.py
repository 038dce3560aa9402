"""Importing this registers every data set of the field, and the drawn ones."""

from typing import cast

from dassl.data.datasets import DATASET_REGISTRY

from trainers.common.errors import UserError

from . import clones, imagenet, split_files  # noqa: F401
from .base import ImageDataset
from .drawn import factors, openmoji  # noqa: F401


def data_set(name: str) -> type[ImageDataset]:
    """The data set that is registered under a name.

    Raises:
        UserError: there is none.
    """
    if name not in DATASET_REGISTRY.registered_names():
        raise UserError(f"{name} is not a data set of this toolbox")
    return cast(type[ImageDataset], DATASET_REGISTRY.get(name))
