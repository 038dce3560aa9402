"""What the trainers add to Dassl's data pipeline: training images are decoded once, each template
has a view of its own, an image that can't be read is named, and workers leave signals to their
parent.

A view is Dassl's own training transform with one more operation. The paper names its two
augmentation sets; which operations they hold is our choice (docs/method.md).
"""

import math
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

import torch
import torchvision.transforms as T
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from yacs.config import CfgNode

from ..common.image_files import read_picture
from ..common.interruption import SIGNALS

# of decoded training images that a data set keeps in memory, at most; others are decoded each time
DECODED_BYTES = 2**30
# How a loader's workers are started, None being Python's own way. Forked, they end with the process
# that they are forked from: started from a server they would outlive a run that is killed.
WORKERS = "fork" if sys.platform == "linux" else None


class Batch(TypedDict):
    """What a loader hands out for B images.

    img: (B, 3, H, W), or a list of these, one for each view.
    label, domain, index: (B,).
    impath: B paths.
    """

    img: Any  # as there is no one type for it
    label: Tensor
    domain: Tensor
    index: Tensor
    impath: list[str]


class CheckedImages(DatasetWrapper):
    """Dassl's data set of images, which keeps those it trains on decoded, and whose errors say which
    file is broken.

    The transforms draw the same random numbers. For transforms only: ``INPUT.NO_TRANSFORM`` and
    ``DATALOADER.K_TRANSFORMS`` other than 1 are refused by ``check_run``.
    """

    # there is always one, see ``check_run``; in training a list, one for each view
    transform: Any

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Any = None,
        is_train: bool = False,
    ) -> None:
        super().__init__(cfg, data_source, transform=transform, is_train=is_train)
        self.decoded: dict[int, Image.Image] = {}  # by index
        self.room = DECODED_BYTES if is_train else 0  # bytes left
        self.background = cfg.INPUT.BACKGROUND

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A dict like Dassl's: label, domain, impath, index, and img, what the transform makes of it,
        or a list of what each transform does.

        Raises:
            UserError: the image can't be read.
        """
        item = self.data_source[index]
        image = self.image(index)
        transform = self.transform
        is_list = isinstance(transform, list)
        return {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": index,
            "img": [view(image) for view in transform] if is_list else transform(image),
        }

    def image(self, index: int) -> Image.Image:
        """The decoded image, out of memory if it is there: copy it before you change it."""
        if index in self.decoded:
            return self.decoded[index]
        image = read_picture(str(self.data_source[index].impath), self.background)
        size = 4 * image.width * image.height  # Pillow keeps RGB in 32 bits a pixel
        if size <= self.room and get_worker_info() is None:  # workers are new for every epoch
            self.decoded[index] = image
            self.room -= size
        return image


def steps_of_epoch(images: int, optim: CfgNode, batch_size: int) -> int:
    """Steps in which an epoch shows every image once: in batches of at most ``batch_size``, and of
    fewer where the epochs would else have less than ``LEAST_STEPS`` steps together.

    Args:
        images: number of training images; optim: ``cfg.OPTIM``.
    """
    least: int = math.ceil(optim.LEAST_STEPS / optim.MAX_EPOCH)
    return min(images, max(least, math.ceil(images / batch_size)))


class EvenBatches:
    """All indices of a sampler in batches whose sizes differ by one at most.

    Args:
        sampler: yields each index once; steps: number of batches.
    """

    def __init__(self, sampler: Iterable[int], steps: int) -> None:
        self.sampler = sampler
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for batch in torch.tensor(list(self.sampler)).tensor_split(self.steps):
            yield batch.tolist()


def in_even_batches(loader: DataLoader[Batch], optim: CfgNode) -> DataLoader[Batch]:
    """A loader of the same images, all of them in each epoch; see ``steps_of_epoch``."""
    assert loader.batch_size is not None
    steps = steps_of_epoch(len(loader.sampler), optim, loader.batch_size)  # type: ignore[arg-type]
    return DataLoader(
        loader.dataset,
        batch_sampler=EvenBatches(loader.sampler, steps),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )


def prepare_workers(loader: DataLoader[Batch]) -> None:
    """Makes a loader's workers end with this process, and not by a signal to the whole job."""
    loader.worker_init_fn = leave_signals_to_parent
    loader.multiprocessing_context = WORKERS if loader.num_workers > 0 else None


def leave_signals_to_parent(worker: int) -> None:
    """Initialises a worker: the parent, which the signal is meant for, ends it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def template_views(cfg: CfgNode, templates: int, augmentation: int | None) -> list[T.Compose]:
    """One transform a template.

    Args:
        cfg: ``cfg.INPUT`` says what all views share (``TRANSFORMS``: crop, flip, normalise …) and
            how strong colour jitter (``COLORJITTER_*``), grayscale (``RGS_P``) and blur (``GB_P``,
            ``GB_K``) are.
        templates: M.
        augmentation: ``1``: in turn nothing more, colour jitter, grayscale and blur, a small affine
            map; ``2``: the same, and one more random crop each (``CROP_PADDING``); None: nothing
            more for any of them.

    Returns:
        list of M transforms, PIL image → (3, H, W).
    """
    steps = build_transform(cfg, is_train=True).transforms
    tensor = place_of_tensor(steps)
    jitter = T.ColorJitter(*(cfg.INPUT[f"COLORJITTER_{part}"] for part in "BCSH"))
    blur = T.RandomApply([GaussianBlur(cfg.INPUT.GB_K)], cfg.INPUT.GB_P)
    extra = [
        [],
        [jitter],
        [T.RandomGrayscale(cfg.INPUT.RGS_P), blur],
        [T.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.9, 1.1))],
    ]
    if augmentation is None:
        extra = [[]]
    crop = (
        [T.RandomCrop(cfg.INPUT.SIZE, padding=cfg.INPUT.CROP_PADDING)] if augmentation == 2 else []
    )
    return [
        T.Compose(steps[:tensor] + crop + extra[template % len(extra)] + steps[tensor:])
        for template in range(templates)
    ]


def place_of_tensor(steps: Sequence[object]) -> int:
    """Which of Dassl's steps makes a tensor of a PIL image; there is always one."""
    return next(i for i, step in enumerate(steps) if isinstance(step, T.ToTensor))


class GaussianBlur(T.GaussianBlur):  # type: ignore[misc]  # torchvision has no types
    """torchvision's blur without the time that it takes over numbers next to zero.

    The outer taps of a narrow Gaussian, or products of them, are so small that a float can only hold
    them unnormalised, for which some processors take a hundred times as long; here they are zero. What
    they add to a pixel is far below a float's last digit.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        torch.set_flush_denormal(True)
        try:
            blurred: Image.Image = super().forward(image)
            return blurred
        finally:
            torch.set_flush_denormal(False)
