"""Places of a run's images, and small pictures of them for a page."""

import base64
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import PIL.Image
from torch import Tensor

from results.runs import FinishedRun
from trainers.common.boxes import box_of
from trainers.common.errors import UserError, raise_machines
from trainers.common.fingerprints import image_name, places_in
from trainers.common.image_files import read_picture, upright_size
from trainers.common.record_file import nested
from trainers.data.kept import THUMBNAIL, PictureCache, small_jpeg
from trainers.data.lists import Image

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """An image that is at hand.

    Attributes:
        path: its file.
        kept: pictures and features from a look at the run's images in this process; None without one.
    """

    path: str
    kept: PictureCache | None = None

    def as_tested(self, background: str, least: int) -> PIL.Image.Image:
        """Return the decoded image, or its kept pixels, which the test transform does not change.

        Raises:
            UserError: it can't be read.
        """
        known = None if self.kept is None else self.kept.shown.images.get(self.path)
        return known or read_picture(self.path, background, least)

    def features(self, key: tuple[str, str]) -> Tensor | None:
        """Return the features (E,) of a CLIP that are ``PictureCache``; None where they are not known."""
        return None if self.kept is None else self.kept.features.get(key, {}).get(self.path)

    def small(self) -> bytes:
        """Return a thumbnail, as a JPEG, of ``as_tested``."""
        known = None if self.kept is None else self.kept.small.get(self.path)
        return known or small_jpeg(read_picture(self.path, "white", 2 * THUMBNAIL))


Paths = dict[str, Found]  # name of an image, as the answers have it → its file


def check_root(root: str | None) -> None:
    """Checks the folder of the data sets, or the file that names one's own images.

    Raises:
        UserError: a root is given, and it is neither.
    """
    if root and not all(map(os.path.exists, places_in(root))):
        raise UserError(
            f"--root {root} is not a folder: give the one that holds the data sets, or leave it out "
            "for what needs no images"
        )


def find_images(run: FinishedRun, root: str, kept: PictureCache | None = None) -> Paths:
    """The files of the images that a run has answered; none, with a warning, where the data set is
    not there; kept: as in ``Found``.
    """
    from datasets.every import data_set  # here, since it takes seconds

    name = run.record["dataset"]
    try:
        dataset = data_set(name)
        place = dataset.find(root)
        boxes = bool(nested(run.record["config"], "DATASET", "BOXES"))
        if run.is_multi_label or boxes:
            trained = []
            held_out = dataset.undivided_images(place, boxes)
        else:
            trained, validated, tested = dataset.list_images(place)
            held_out = [*validated, *tested]
    except UserError as error:
        log.warning("no pictures of %s: %s", name, error)
        return {}
    # a training image never takes the place of one that was held out
    places = {**by_name(trained), **by_name(held_out)}
    # of several images of one name it is not known which
    return {name: Found(paths.pop(), kept) for name, paths in places.items() if len(paths) == 1}


def by_name(images: Iterable[Image]) -> dict[str, set[str]]:
    """Name of an image, as the answers have it → the files that are called so."""
    places: dict[str, set[str]] = defaultdict(set)
    for image in images:
        places[image_name(image.impath)].add(image.impath)
    return places


def thumbnail(image: Found | None) -> str | None:
    """A small JPEG as a data URI; None without an image, or, with a warning, if it can't
    be read.
    """
    if image is None:
        return None
    try:
        content = image.small()
    except UserError as error:
        log.warning("no picture: %s", error)
        return None
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def unseen_share(image: Found | None) -> float | None:
    """Return the share of a picture beside the square in its middle, in [0, 1); None without an image, or if
    its header can't be read.
    """
    if image is None:
        return None
    box = box_of(image.path)
    if box is not None:
        sides = box.width, box.height
    else:
        try:
            sides = upright_size(image.path)
        except Exception as error:  # damaged bytes can raise anything
            raise_machines(error, image.path)
            return None
    return 1 - min(sides) / max(sides)
