"""Importing this registers every data set."""
from . import factors, fgvc_aircraft, image_folder, imagenet, imagenet_variants, openmoji, split_files  # noqa: F401
