"""What the trainers add to Dassl's data pipeline: training images are decoded once, an image that can't be
read is named, and workers leave signals to their parent."""

import signal
import sys
from collections.abc import Sequence
from typing import Any

from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from PIL import Image
from torch.utils.data import DataLoader, get_worker_info
from yacs.config import CfgNode

from ..common.image_files import background_of, read_picture
from ..common.interruption import SIGNALS

# of decoded training images that a data set keeps in memory, at most; others are decoded each time
DECODED_BYTES = 2**30
# How a loader's workers are started, None being Python's own way. Forked, they end with the process that
# they are forked from: started from a server they would outlive a run that is killed.
WORKERS = "fork" if sys.platform == "linux" else None


class CheckedImages(DatasetWrapper):
    """Dassl's data set of images, which keeps those it trains on decoded, and whose errors say which
    file is broken.

    What it hands out is what Dassl's hands out, and the transforms draw the same random numbers. For
    transforms only: ``INPUT.NO_TRANSFORM`` and ``DATALOADER.K_TRANSFORMS`` other than 1 are refused by
    ``check_run``.
    """

    # there is always one, see ``check_run``; in training PictureViews, which ``finish`` what comes from here
    transform: Any

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Any = None,
        is_train: bool = False,
    ) -> None:
        super().__init__(cfg, data_source, transform=transform, is_train=is_train)
        self.facts = [
            {"label": item.label, "domain": item.domain, "impath": item.impath, "index": index}
            for index, item in enumerate(data_source)
        ]
        self.decoded: dict[int, Image.Image] = {}  # by index
        self.room = DECODED_BYTES if is_train else 0  # bytes left
        self.background = background_of(cfg)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A dict like Dassl's: label, domain, impath, index, and img, what the transform makes of it.

        Raises:
            UserError: the image can't be read.
        """
        image = self.image(index)
        output = {**self.facts[index], "img": self.transform(image)}
        if self.cfg.DATALOADER.RETURN_IMG0:
            output["img0"] = self.to_tensor(image)
        return output

    def image(self, index: int) -> Image.Image:
        """The decoded image, out of memory if it is there: copy it before you change it."""
        if index in self.decoded:
            return self.decoded[index]
        image = read_picture(str(self.facts[index]["impath"]), self.background)
        size = 4 * image.width * image.height  # Pillow keeps RGB in 32 bits a pixel
        if size <= self.room and get_worker_info() is None:  # workers are new for every epoch
            self.decoded[index] = image
            self.room -= size
        return image


def prepare_workers(loader: DataLoader[Any]) -> None:
    """Makes a loader's workers end with this process, and not by a signal to the whole job."""
    loader.worker_init_fn = leave_signals_to_parent
    loader.multiprocessing_context = WORKERS if loader.num_workers > 0 else None


def leave_signals_to_parent(worker: int) -> None:
    """Initialises a worker: the parent, which the signal is meant for, ends it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
