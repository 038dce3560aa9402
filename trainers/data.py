"""What the trainers add to Dassl's data pipeline: images that can't be read are named."""
from dassl.data import DatasetWrapper

from .errors import UserError


class CheckedImages(DatasetWrapper):
    """Dassl's data set of images, whose errors say which file is broken."""

    def __getitem__(self, index):
        try:
            return super().__getitem__(index)
        except (OSError, SyntaxError) as error:  # Pillow reports some broken PNGs as a SyntaxError
            path = self.data_source[index].impath
            raise UserError(f"image {path} can't be read ({error}): replace it or take it out of the split") from error
