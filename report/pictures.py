"""Where a run's images lie, and small pictures of them for a page."""

import base64
import io
import logging
import os
from collections import defaultdict
from collections.abc import Iterable

from results.runs import FinishedRun
from trainers.common.errors import UserError
from trainers.common.fingerprints import image_name
from trainers.common.image_files import read_picture
from trainers.data.lists import Image

log = logging.getLogger(__name__)

PIXELS = 112  # of an embedded picture's longer side
Paths = dict[str, str]  # name of an image, as the answers have it → its file


def check_root(root: str | None) -> None:
    """Checks the folder of the data sets, or the file that names one's own images.

    Raises:
        UserError: a root is given, and it is neither.
    """
    if root and not os.path.exists(root):
        raise UserError(
            f"--root {root} is not a folder: give the one that holds the data sets, or leave it out "
            "for what needs no images"
        )


def find_images(run: FinishedRun, root: str) -> Paths:
    """The files of the images that a run has answered; none, with a warning, where the data set is
    not there.
    """
    from datasets.every import data_set  # here, since it takes seconds

    name = run.record["dataset"]
    try:
        dataset = data_set(name)
        trained, validated, tested = dataset.list_images(dataset.find(root))
    except UserError as error:
        log.warning("no pictures of %s: %s", name, error)
        return {}
    # a training image never takes the place of one that was held out
    places = {**by_name(trained), **by_name([*validated, *tested])}
    # of several images of one name it is not known which
    return {name: paths.pop() for name, paths in places.items() if len(paths) == 1}


def by_name(images: Iterable[Image]) -> dict[str, set[str]]:
    """Name of an image, as the answers have it → the files that are called so."""
    places: dict[str, set[str]] = defaultdict(set)
    for image in images:
        places[image_name(image.impath)].add(image.impath)
    return places


def thumbnail(path: str | None) -> str | None:
    """A small JPEG as a data URI; None where there is no path, or, with a warning, no picture that
    can be read.
    """
    if path is None:
        return None
    buffer = io.BytesIO()
    try:
        small = read_picture(path, "white")
        small.thumbnail((PIXELS, PIXELS))
        small.save(buffer, format="JPEG", quality=85)
    except UserError as error:
        log.warning("no picture: %s", error)
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
