"""Importing this registers every data set."""

from . import clones, image_folder, imagenet, split_files  # noqa: F401
from .drawn import factors, openmoji  # noqa: F401
