"""Knows the pictures of a training again: by the bytes of their files, or saved again, as JPEG, say."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy
from PIL import Image

from .console import counted, first_few
from .fingerprints import start_of
from .image_files import COARSE, PictureFacts

LIGHT_SIDE = 12  # cells of a side of a thumbnail's light
COLOUR_SIDE = 4  # of its colours, which JPEG keeps coarsely
LENGTH = LIGHT_SIDE**2 + 2 * COLOUR_SIDE**2  # numbers of a thumbnail
# Two thumbnails are of one picture if their root mean square difference is below both limits. They were chosen on half
# of the sources of twelve kinds of pictures, where of scans of 8 × 8 pixels none was known; on the other half
# all pictures saved as JPEG of quality 90 were known (of coarse sprites 95 %), and no independent ones but twins
# among emojis (2 %). Lossy WebP was not measured.
SAVED_AGAIN = 2.0  # of 255
SHARE = 0.2  # of the deviation of its light, which is small in a faint picture
BLOCK = 256  # pictures compared at a time


@dataclass(frozen=True)
class TrainedOn:
    """Fingerprints of the training pictures, by which they are recognised.

    Attributes:
        files: the first 8 bytes of each file's hash, as a number; empty where they are unknown.
        thumbnails: (T, ``LENGTH``) uint8, by ``thumbnail``.
    """

    files: frozenset[int] = frozenset()
    thumbnails: numpy.ndarray = field(default_factory=lambda: numpy.empty((0, LENGTH), numpy.uint8))

    def has(self, digests: Sequence[bytes]) -> numpy.ndarray:
        """Return which of N files, given by their hashes, are training files, (N,) bool."""
        return numpy.array([start_of(digest) in self.files for digest in digests], bool)

    def saved_again(self, thumbnails: numpy.ndarray) -> numpy.ndarray:
        """Return which of N thumbnails (N, ``LENGTH``) are of a training picture, (N,) bool."""
        known = self.thumbnails.astype(numpy.float32)  # (T, D)
        size = (known**2).sum(axis=1)  # (T,)
        found = [numpy.zeros(0, bool)]
        for start in range(0, len(thumbnails), BLOCK):
            some = thumbnails[start : start + BLOCK].astype(numpy.float32)  # (B, D)
            # exact: each product of whole numbers up to 255, and their sum, is below 2^24
            squares = (some**2).sum(axis=1)[:, None] + size - 2 * some @ known.T  # (B, T)
            contrast = some[:, : LIGHT_SIDE**2].std(axis=1)
            limit = numpy.minimum(SAVED_AGAIN, SHARE * contrast) ** 2 * LENGTH
            found.append((squares < limit[:, None]).any(axis=1))
        return numpy.concatenate(found)


UNKNOWN_PICTURES = TrainedOn()


def thumbnail(coarse: numpy.ndarray) -> numpy.ndarray:
    """Return a picture's light and colours, (``LENGTH``,) uint8; coarse: as in ``image_files.PictureFacts``."""
    seen = Image.fromarray(coarse.reshape(COARSE, COARSE, 3)).convert("YCbCr")
    light, *colours = seen.split()
    cells = [light.resize((LIGHT_SIDE, LIGHT_SIDE), Image.Resampling.BOX)]
    for colour in colours:
        cells.append(colour.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX))
    return numpy.concatenate([numpy.asarray(each).ravel() for each in cells])


def thumbnails(looks: Sequence[PictureFacts | None]) -> numpy.ndarray:
    """Return the thumbnails (N, ``LENGTH``) of pictures; zeros, which no picture is known by, for one that can't
    be read."""
    small = numpy.zeros((len(looks), LENGTH), numpy.uint8)
    for row, seen in zip(small, looks):
        if seen is not None and seen.coarse is not None:
            row[:] = thumbnail(seen.coarse)
    return small


def note_on_trained(
    trained: TrainedOn, digests: Sequence[bytes], thumbnails: numpy.ndarray, names: Sequence[str]
) -> tuple[int, str]:
    """Return how many of N tested images were trained on, and a remark, "" for none.

    Args:
        digests: N hashes of files; thumbnails: (N, ``LENGTH``); names: N.
    """
    is_file = trained.has(digests)
    is_again = trained.saved_again(thumbnails) & ~is_file
    number = int(is_file.sum() + is_again.sum())
    if not number:
        return 0, ""
    how = "byte for byte"
    if again := [names[place] for place in is_again.nonzero()[0]]:
        how = f"{len(again)} of them saved again ({first_few(again)})"
    return number, (
        f"{number} of {counted(len(names), 'image')} tested were trained on, {how}: "
        "an accuracy on these is not a test"
    )
