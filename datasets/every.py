"""Importing this registers every data set."""

from . import clones, fgvc_aircraft, image_folder, imagenet, imagenet_variants, split_files  # noqa: F401
from .drawn import factors, openmoji  # noqa: F401
