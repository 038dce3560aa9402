"""What the trainers add to Dassl's data pipeline: training images are decoded once, each template has a view
of its own, an image that can't be read is named, and workers leave signals to their parent.

A view is Dassl's own training transform with one more operation. The paper names its two augmentation sets;
which operations they hold is our choice (docs/method.md).
"""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
import torchvision.transforms as T
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from yacs.config import CfgNode

from ..common.image_files import background_of, read_picture
from ..common.interruption import SIGNALS

# of decoded training images that a data set keeps in memory, at most; others are decoded each time
DECODED_BYTES = 2**30
# How a loader's workers are started, None being Python's own way. Forked, they end with the process that
# they are forked from: started from a server they would outlive a run that is killed.
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

    What it hands out is what Dassl's hands out, and the transforms draw the same random numbers. For
    transforms only: ``INPUT.NO_TRANSFORM`` and ``DATALOADER.K_TRANSFORMS`` other than 1 are refused by
    ``check_run``.
    """

    # there is always one, see ``check_run``; in training PictureViews, which ``finish`` what comes from here
    transform: Callable[[Image.Image], Tensor | list[Tensor]]

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Callable[[Image.Image], Tensor | list[Tensor]] | None = None,
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
        cfg: ``cfg.INPUT`` says what all views share (``TRANSFORMS``: crop, flip, normalise …) and how strong colour jitter
            (``COLORJITTER_*``), grayscale (``RGS_P``) and blur (``GB_P``, ``GB_K``) are.
        templates: M.
        augmentation: ``1``: in turn nothing more, colour jitter, grayscale and blur, a small affine map; ``2``: the same, and
            one more random crop each (``CROP_PADDING``); None: nothing more for any of them.

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


class PictureViews:
    """Views by torchvision's transforms, which travel to the device as uint8, a quarter of the memory, and become normalised floats there.

    To the bit what the transforms themselves give. Where something other than ``Normalize`` comes after their ``ToTensor`` they travel as
    they are.

    Args:
        transforms: M of them, PIL image → (3, H, W).
    """

    def __init__(self, transforms: Sequence[T.Compose]) -> None:
        self.transforms = list(transforms)
        self.to_bytes, self.rest = zip(*map(until_tensor, transforms))

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """What the loader hands out for an image: M tensors (3, H, W)."""
        return [transform(image) for transform in self.to_bytes]

    def finish(self, batch: Sequence[Tensor], device: torch.device) -> Tensor:
        """Views (M, B, 3, H, W) from what the loader has collated for B images: M tensors (B, 3, H, W)."""
        views = torch.stack([crops.to(device, non_blocking=True) for crops in batch]).float()
        for view, rest in zip(views, self.rest):
            if rest is not None:
                view.div_(
                    view.new_tensor(255)
                )  # a tensor: a GPU would multiply by a number's inverse
                for step in rest:
                    mean, std = (
                        view.new_tensor(values)[:, None, None] for values in (step.mean, step.std)
                    )
                    view.sub_(mean).div_(std)
        return views


def place_of_tensor(steps: Sequence[object]) -> int:
    """Which of Dassl's steps makes a tensor of a PIL image; there is always one."""
    return next(i for i, step in enumerate(steps) if isinstance(step, T.ToTensor))


def until_tensor(transform: T.Compose) -> tuple[T.Compose, list[T.Normalize] | None]:
    """A transform up to uint8 (3, H, W) and the Normalize steps (none or one) after that; the whole and None where other steps are there."""
    steps = transform.transforms
    tensor = place_of_tensor(steps)
    rest = steps[tensor + 1 :]
    if all(isinstance(step, T.Normalize) for step in rest):
        return T.Compose([*steps[:tensor], T.PILToTensor()]), rest
    return transform, None


class GaussianBlur(T.GaussianBlur):
    """torchvision's blur of a PIL image, pixel for pixel, without the time that it takes over numbers next to zero, see ``gaussian``."""

    def forward(self, image: Image.Image) -> Image.Image:
        width, height = self.kernel_size
        sigma = torch.tensor([self.get_params(*self.sigma)])
        pixels = pil_to_tensor(image)[None].float()  # (1, 3, H, W)
        kernel = torch.outer(gaussian(sigma, height), gaussian(sigma, width)).expand(
            pixels.shape[1], 1, height, width
        )
        pixels = F.pad(pixels, [width // 2, width // 2, height // 2, height // 2], mode="reflect")
        return to_pil_image(F.conv2d(pixels, kernel, groups=pixels.shape[1])[0].round().byte())


def gaussian(sigma: Tensor, length: int) -> Tensor:
    """Taps (…, ``length``) of Gaussians with deviations of ``sigma`` (…, 1) pixels; they sum to one.

    Next to zero they are zero. A narrow Gaussian's outer taps, or products of them, are so small that a float can only hold them unnormalised, for
    which some processors take a hundred times as long; what they add to a pixel is far below a float's last digit.
    """
    tap = torch.arange(length, device=sigma.device) - length // 2
    taps = torch.exp(-0.5 * (tap / sigma) ** 2)
    taps = taps / taps.sum(dim=-1, keepdim=True)
    return torch.where(taps < 1e-15, 0, taps)
