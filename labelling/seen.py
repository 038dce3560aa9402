"""Facts of a run's pictures, kept by their bytes, so that the next round decodes new pictures alone."""

import os

import numpy

from trainers.common.errors import raise_machines
from trainers.common.files import write_arrays
from trainers.common.image_files import PictureFacts
from trainers.common.readers import read_arrays
from trainers.data.kept import PictureCache

FEATURES_FOLDER = "features"  # in the folder of a run
SEEN_FILE = f"{FEATURES_FOLDER}/seen.npz"


def read_seen(folder: str, kept: PictureCache) -> None:
    """Give a cache the facts of the pictures that a run has looked at, where it decodes at the same scale."""
    least, facts = facts_in(folder)
    if least == kept.least:
        kept.add_facts(facts)


def facts_in(folder: str) -> tuple[int, list[PictureFacts]]:
    """Return at which scale a run has decoded its pictures (``PictureCache.least``), and their facts; none where
    there is no such file, or it can't be read."""
    place = f"{folder}/{SEEN_FILE}"
    if not os.path.isfile(place):
        return 0, []
    try:
        arrays = read_arrays(place)
        names = "is_transparent", "digest", "coarse", "fine"
        rows = zip(*(arrays[name] for name in names), strict=True)
        facts = [PictureFacts("", bool(has), own.tobytes(), *seen) for has, own, *seen in rows]
        return int(arrays["least"]), facts
    except Exception as error:  # damaged bytes can raise anything
        raise_machines(error, place)
        return 0, []


def write_seen(folder: str, kept: PictureCache) -> None:
    """Write the facts of a cache's pictures, those of former rounds included."""
    facts = [*kept.facts.values()]
    place = f"{folder}/{SEEN_FILE}"
    os.makedirs(os.path.dirname(place), exist_ok=True)
    write_arrays(
        place,
        {
            "digest": numpy.stack([numpy.frombuffer(one.digest, numpy.uint8) for one in facts]),
            "is_transparent": numpy.array([one.is_transparent for one in facts]),
            "coarse": numpy.stack([one.coarse for one in facts]),  # type: ignore[misc]  # decoded
            "fine": numpy.stack([one.fine for one in facts]),  # type: ignore[misc]
            "least": numpy.array(kept.least),
        },
    )
