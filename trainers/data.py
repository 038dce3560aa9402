"""What the trainers add to Dassl's data pipeline: training images are decoded once, and images that can't be read are named."""
import multiprocessing

from dassl.data import DatasetWrapper
from dassl.utils import read_image
from torch.utils.data import get_worker_info

from .errors import UserError

DECODED_BYTES = 2 ** 30  # of decoded training images that a data set keeps in memory, at most; the others are decoded each time


class CheckedImages(DatasetWrapper):
    """Dassl's data set of images, which keeps those it trains on decoded, and whose errors say which file is broken.

    What it hands out is what Dassl's hands out, pixel for pixel, and the transforms draw the same random numbers. For transforms
    only: ``INPUT.NO_TRANSFORM`` and ``DATALOADER.K_TRANSFORMS`` other than 1 are refused by ``check_run``.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        super().__init__(cfg, data_source, transform=transform, is_train=is_train)
        self.decoded, self.room = {}, DECODED_BYTES if is_train else 0  # index → PIL image; bytes left

    def __getitem__(self, index):
        """A dict like Dassl's: label, domain, impath, index, and the image under each transform (img, img2 …).

        Raises:
            UserError: the image can't be read.
        """
        item, image = self.data_source[index], self.image(index)
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": index}
        transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
        for number, transform in enumerate(transforms, start=1):
            output[f"img{number}" if number > 1 else "img"] = transform(image)
        if self.cfg.DATALOADER.RETURN_IMG0:
            output["img0"] = self.to_tensor(image)
        return output

    def image(self, index):
        """The decoded image, out of memory if it is there. It is shared: whoever changes it must copy it first."""
        if index in self.decoded:
            return self.decoded[index]
        path = self.data_source[index].impath
        try:
            image = read_image(path)
        except (OSError, SyntaxError) as error:  # Pillow reports some broken PNGs as a SyntaxError
            raise UserError(f"image {path} can't be read ({error}): replace it or take it out of the split") from error
        size = 4 * image.width * image.height  # Pillow keeps RGB in 32 bits a pixel
        if size <= self.room and get_worker_info() is None:  # what a worker keeps is gone with it at the end of the epoch
            self.decoded[index] = image
            self.room -= size
        return image

    def decode_ahead(self):
        """Decodes what there is room for, so that workers, which are forked from this process for every epoch, find it done."""
        if multiprocessing.get_start_method() == "fork":  # started in another way they would get all of it through a pipe
            for index in range(len(self)):
                self.image(index)
                if index not in self.decoded:
                    break
