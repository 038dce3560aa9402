"""What the trainers add to Dassl's data pipeline: training images are decoded once, and images that can't be read are named or skipped.

``DATALOADER.BROKEN_IMAGES`` says what becomes of an image that can't be read: ``error`` ends the run, ``skip`` goes on without it.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from dassl.data import DatasetWrapper
from dassl.data.datasets import Datum
from PIL import Image
from torch.utils.data import default_collate, get_worker_info
from yacs.config import CfgNode

from .. import distributed
from ..common.errors import UserError, WorkerKilled
from ..common.fingerprints import image_name
from ..common.image_files import background_of, read_picture, skips_broken_images
from .random_state import State, restore_rng_state

log = logging.getLogger(__name__)

FACTS = ("label", "domain", "impath", "index")  # what is known of an item without its image
DECODED_BYTES = (
    2**30
)  # of decoded training images that a data set keeps in memory, at most; the others are decoded each time
# How a loader's workers are started, None being Python's own way. Forked, they end with the process that they are forked from: Python may
# start them from a server instead, with which they would outlive a run that is killed.
WORKERS = "fork" if sys.platform == "linux" else None


def worth_starting(workers: int) -> int:
    """How many of a loader's workers to start. A single one is started only where it is forked: started afresh for every epoch, it would
    cost more than it saves."""
    return workers if workers > 1 or WORKERS == "fork" else 0


def bytes_of(image: Image.Image) -> int:
    """How much memory a decoded RGB image takes; Pillow keeps it in 32 bits a pixel."""
    return 4 * image.width * image.height


def with_tensor(state: State) -> State:
    """States of random generators as they travel between processes → as the generators take them."""
    return {**state, "torch": torch.from_numpy(state["torch"])}


class FirstBatch(list[int]):
    """Indices of the images of a worker's first batch in an epoch, with the states of the random generators that it is made with."""

    def __init__(self, indices: Iterable[int], state: State) -> None:
        super().__init__(indices)
        self.state = state


class CheckedImages(DatasetWrapper):
    """Dassl's data set of images, which keeps those it trains on decoded, and whose errors say which file is broken.

    What it hands out is what Dassl's hands out, and the transforms draw the same random numbers. For transforms only: ``INPUT.NO_TRANSFORM``
    and ``DATALOADER.K_TRANSFORMS`` other than 1 are refused by ``check_run``.
    """

    transform: Any  # there is always one, see ``check_run``; in training PictureViews, which ``finish`` what comes from here

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
        self.process: tuple[int, int] | None = (
            None  # (rank, number of processes) where the batches' images are divided
        )
        self.skips = skips_broken_images(cfg)
        self.background = background_of(cfg)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A dict like Dassl's: label, domain, impath, index, and img, what the transform makes of the image.

        Where broken images are skipped there is ``skipped`` too, the path of one that can't be read, else an empty string. In training
        the dict is that of the image in its place, see ``stand_in``; in a test its image is black, and left out by ``readable``.

        Raises:
            UserError: the image can't be read, and is not skipped.
        """
        skipped = ""
        try:
            image = self.image(index)
        except UserError as error:
            if not self.skips:
                raise UserError(
                    f"{error}; DATALOADER.BROKEN_IMAGES skip goes on without it"
                ) from error
            skipped = self.data_source[index].impath
            index, image = (
                self.stand_in(index)
                if self.is_train
                else (index, Image.new("RGB", tuple(self.cfg.INPUT.SIZE)))
            )
        output = self.facts(index)
        if self.skips:
            output["skipped"] = skipped
        output["img"] = self.transform(image)
        if self.cfg.DATALOADER.RETURN_IMG0:
            output["img0"] = self.to_tensor(image)
        return output

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch; each process loads the images of its own share only, and has the others' items without the image."""
        if isinstance(indices, FirstBatch):
            restore_rng_state(with_tensor(indices.state))
        own = (
            slice(None) if self.process is None else distributed.share(len(indices), *self.process)
        )
        mine = range(len(indices))[own]
        return [
            self[index] if place in mine else self.foreign(index)
            for place, index in enumerate(indices)
        ]

    def facts(self, index: int) -> dict[str, Any]:
        item = self.data_source[index]
        return dict(zip(FACTS, (item.label, item.domain, item.impath, index)))

    def foreign(self, index: int) -> dict[str, Any]:
        """An item without the image, which another process loads; in training its views are made, for their random draws, and thrown away."""
        if self.is_train:
            self[index]
        return self.facts(index)

    def image(self, index: int) -> Image.Image:
        """The decoded image, out of memory if it is there. It is shared: whoever changes it must copy it first."""
        if index in self.decoded:
            return self.decoded[index]
        image = read_picture(self.data_source[index].impath, self.background)
        size = bytes_of(image)
        worker = get_worker_info()
        if size <= self.room and (
            worker is None or worker.num_workers == 1
        ):  # several are started anew for every epoch
            self.decoded[index] = image
            self.room -= size
        return image

    def stand_in(self, index: int) -> tuple[int, Image.Image]:
        """What is trained on in place of an image that can't be read: index and image of the next one of its class that can.

        Next in the order of the images, after whose last comes the first: the same in every process and every run.

        Raises:
            UserError: there is none.
        """
        label, count = self.data_source[index].label, len(self)
        for other in ((index + step) % count for step in range(1, count)):
            if self.data_source[other].label == label:
                try:
                    return other, self.image(other)
                except UserError:
                    continue
        raise UserError(
            f"no training image of the class {self.data_source[index].classname!r} can be read, the first being "
            f"{self.data_source[index].impath}: get its images again"
        )


def batches_of(batches: Iterator[Any], kept: int | None = None) -> Iterator[Any]:
    """The batches of a loader's iterator, whose workers end with the loop over them, however that ends.

    torch ends them when the iterator is garbage-collected. An error's traceback can delay that, and then torch waits long for each.

    Args:
        kept: how many batches there are; after the last the workers do not end, but wait for another epoch.

    Raises:
        RuntimeError: a worker was killed; ``WorkerKilled`` while handing over a batch, where torch itself raises the socket's error.
    """
    is_through = False
    try:
        yield from islice(batches, kept)
        is_through = True
    except (ConnectionError, EOFError) as error:
        raise WorkerKilled(
            "DataLoader worker (pid unknown) was killed while it handed over a batch"
        ) from error
    finally:
        if kept is None or not is_through:
            end_workers(batches)


def end_workers(batches: Iterator[Any]) -> None:
    """Ends the workers, if there are any, of a loader's iterator."""
    getattr(batches, "_shutdown_workers", lambda: None)()


def divide_loading(loader: Any) -> Any:
    """The loader (or None); of several processes each loads its share of every batch's images. Labels and paths are the whole batch's.

    Raises:
        UserError: broken images are to be skipped: only one process would know which.
    """
    if loader is not None and distributed.count() > 1:
        if loader.dataset.skips:
            raise UserError(
                "DATALOADER.BROKEN_IMAGES skip is for one process, whose results.json lists them: take them out of the data, and give "
                "DATALOADER.BROKEN_IMAGES error"
            )
        loader.dataset.process = distributed.rank(), distributed.count()
        loader.collate_fn = collate_share
    return loader


def collate_share(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch with the images of this process's share, and the labels, paths and so on of all items."""
    return {
        **default_collate([item for item in items if len(item) > len(FACTS)]),
        **default_collate([{name: item[name] for name in FACTS} for item in items]),
    }


class SkippedImages:
    """The images that a run went on without.

    Attributes:
        names: part (``train``, ``val``, ``test``) → sorted names, see ``image_name``.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def note(self, batch: dict[str, Any], part: str) -> None:
        """Takes up a batch's skipped images; each is logged once."""
        for path in filter(None, batch.get("skipped", ())):
            names = self.names.setdefault(part, [])
            if image_name(path) not in names:
                names.append(image_name(path))
                names.sort()
                log.warning("Skipped: image %s of %s can't be read", path, part)

    def readable(self, batches: Iterable[dict[str, Any]], part: str) -> Iterator[dict[str, Any]]:
        """Yields the batches of a test without their skipped images, and no empty batch.

        Raises:
            UserError: not one image can be read.
        """
        found = False
        for batch in batches:
            self.note(batch, part)
            kept = [index for index, path in enumerate(batch.get("skipped", ())) if not path]
            if "skipped" in batch and len(kept) < len(batch["skipped"]):
                batch = {
                    key: value[kept] if torch.is_tensor(value) else [value[index] for index in kept]
                    for key, value in batch.items()
                }
            if len(batch["label"]):
                found = True
                yield batch
        if not found:
            raise UserError(
                f"not one of the {part} images can be read, such as {self.names[part][0]}: get them again"
            )
