"""What the trainers add to Dassl's data pipeline: training images are decoded once, and images that can't be read are named."""
import multiprocessing

from dassl.data import DatasetWrapper
from dassl.utils import read_image
from torch.utils.data import default_collate, get_worker_info

from . import distributed
from .errors import UserError

FACTS = ("label", "domain", "impath", "index")  # what is known of an item without its image
DECODED_BYTES = 2 ** 30  # of decoded training images that a data set keeps in memory, at most; the others are decoded each time


class CheckedImages(DatasetWrapper):
    """Dassl's data set of images, which keeps those it trains on decoded, and whose errors say which file is broken.

    What it hands out is what Dassl's hands out, pixel for pixel, and the transforms draw the same random numbers. For transforms
    only: ``INPUT.NO_TRANSFORM`` and ``DATALOADER.K_TRANSFORMS`` other than 1 are refused by ``check_run``.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        super().__init__(cfg, data_source, transform=transform, is_train=is_train)
        self.decoded, self.room = {}, DECODED_BYTES if is_train else 0  # index → PIL image; bytes left
        self.process = None  # (rank, number of processes) where the batches' images are divided

    def __getitem__(self, index):
        """A dict like Dassl's: label, domain, impath, index, and the image under each transform (img, img2 …).

        Raises:
            UserError: the image can't be read.
        """
        output, image = self.facts(index), self.image(index)
        transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
        for number, transform in enumerate(transforms, start=1):
            output[f"img{number}" if number > 1 else "img"] = transform(image)
        if self.cfg.DATALOADER.RETURN_IMG0:
            output["img0"] = self.to_tensor(image)
        return output

    def __getitems__(self, indices):
        """The items of a batch; of several processes each has the images of its own share only, and of the others what is known of them."""
        own = slice(None) if self.process is None else distributed.share(len(indices), *self.process)
        mine = range(len(indices))[own]
        return [self[index] if place in mine else self.foreign(index) for place, index in enumerate(indices)]

    def facts(self, index):
        item = self.data_source[index]
        return dict(zip(FACTS, (item.label, item.domain, item.impath, index)))

    def foreign(self, index):
        """An item without the image, which another process loads; the random numbers of its transforms are drawn all the same."""
        if self.is_train:
            self[index]
        return self.facts(index)

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


def divide_loading(loader):
    """The loader (or None); of several processes each loads its share of every batch's images. Labels and paths are the whole batch's."""
    if loader is not None and distributed.count() > 1:
        loader.dataset.process = distributed.rank(), distributed.count()
        loader.collate_fn = collate_share
    return loader


def collate_share(items):
    """A batch whose images are those that there are, and whose labels, paths and so on are all items'."""
    return {**default_collate([item for item in items if len(item) > len(FACTS)]),
            **default_collate([{name: item[name] for name in FACTS} for item in items])}
