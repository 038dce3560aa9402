"""From images to batches, as Dassl makes them: training images are decoded once, an image that can't
be read is named, and workers leave signals to their parent.
"""

import atexit
import contextlib
import copy
import math
import multiprocessing
import random
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict, cast

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler
from yacs.config import CfgNode

from ..common.boxes import box_of
from ..common.environment import usable_cores
from ..common.image_files import LastPhotograph, read_picture
from ..common.interruption import SIGNALS
from ..devices import wants_cuda
from .images import Images, Item
from .kept import PictureCache, Pictures, for_crops
from .transforms import View, least_side, pixels_of_test

# How a loader's workers are started, None being Python's own way. Forked, they end with the process
# that they are forked from: started from a server they would outlive a run that is killed.
START_METHOD = "fork" if sys.platform == "linux" else None
# Workers of epochs with fewer steps stay between epochs: starting them takes longer than such an epoch.
FEW_STEPS = 50


class Batch(TypedDict):
    """A loader's batch of B images.

    img: (B, 3, H, W), or a list of these, one for each view; or (B, E), the CLIP's own features of images
        where they are known (``Towers.encode_images``).
    label, domain, index: (B,).
    impath: B paths.
    """

    img: Tensor | list[Tensor]
    label: Tensor
    domain: Tensor
    index: Tensor
    impath: list[str]


Loader = DataLoader[dict[str, object]]  # of items as ``CheckedImages`` has them, in ``Batch``es


@contextlib.contextmanager
def without_denormals() -> Iterator[None]:
    """Takes numbers next to zero for zeros, to the end of the block: views are made so.

    The outer taps of a narrow Gaussian blur are such numbers, over which some processors take a
    hundred times as long; as zeros they change no pixel.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Drawn(NamedTuple):
    """An image, by its index in the data set, and the seed that its views are drawn from."""

    image: int
    seed: int


class Dealt(NamedTuple):
    """An image, by its index in the data set, with the seed of the epoch's workers and the number of the one
    that its batch falls to."""

    image: int
    seed: int
    worker: int


class Generators:
    """The random generators of Dassl's workers, in one process that does the work of several of them.

    Attributes:
        seed: of the epoch; worker: the one whose random numbers the process draws now.
        states: worker → states of its random generators, kept while another worker's are drawn.
    """

    def __init__(self) -> None:
        self.seed = -1
        self.worker = -1
        self.states: dict[int, tuple[Any, Any, Tensor]] = {}

    def become(self, seed: int, worker: int) -> None:
        """Draw this worker's random numbers from now on; torch starts them at its seed."""
        if (seed, worker) == (self.seed, self.worker):
            return
        if seed == self.seed:
            self.states[self.worker] = (
                random.getstate(),
                numpy.random.get_state(),
                torch.get_rng_state(),
            )
        else:
            self.seed = seed
            self.states.clear()
        self.worker = worker
        if worker not in self.states:
            random.seed(seed + worker)
            torch.manual_seed(seed + worker)
            # torch's way from a seed to numpy's
            words = [worker, seed % 2**32, seed >> 32, 0]
            numpy.random.seed(numpy.random.SeedSequence(words).generate_state(4))
            return
        of_python, of_numpy, of_torch = self.states[worker]
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's generators to the end of the block; then they go on as before it."""
    of_python = random.getstate()
    of_numpy = numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            numpy.random.set_state(of_numpy)


class CheckedImages(Dataset[dict[str, object]]):
    """Images under a transform, like Dassl's ``DatasetWrapper``; training
    images are kept decoded, and errors say which file is broken.

    Args:
        cfg: the run's config; data_source: the images.
        transform: a list in training, one for each view.
        is_train: whether the images are trained on.
        pictures: the decoded ones, and room for more; None: room for the training
            images.
        features: path → features (E,), of images that are known by these and not decoded.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Item],
        transform: View | list[View],
        is_train: bool = False,
        pictures: Pictures | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.least = least_side(cfg.INPUT)
        if pictures is None:
            pictures = for_crops(self.least) if is_train else Pictures(0)
        self.pictures = pictures
        self.features = {} if features is None else features
        self.background = cfg.INPUT.BACKGROUND
        self.photograph = LastPhotograph()
        self.generators = Generators()

    def under(self, transform: View, every: int) -> "CheckedImages":
        """Return each ``every``-th image under another transform, in order; pictures decoded by
        either serve both."""
        other = copy.copy(self)
        other.data_source = self.data_source[::every]
        other.transform = transform
        other.is_train = False
        return other

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int | Drawn | Dealt) -> dict[str, object]:
        """A dict like Dassl's: label, domain, impath, index, and img, the transform's result,
        or a list with each transform's, or its features. Views of a ``Drawn`` image come from its
        seed alone, those of a ``Dealt`` one from its worker's numbers, whichever process makes them.

        Raises:
            UserError: the image can't be read.
        """
        if isinstance(index, Drawn):
            with drawing_from(index.seed):
                return self[index.image]
        if isinstance(index, Dealt):
            self.generators.become(index.seed, index.worker)
            return self[index.image]
        item = self.data_source[index]
        path = str(item.impath)
        shown: Tensor | list[Tensor]
        if path in self.features:
            shown = self.features[path]
        else:
            image = self.image(path)
            with without_denormals():
                if isinstance(self.transform, list):
                    shown = [view(image) for view in self.transform]
                else:
                    shown = self.transform(image)
        return {
            "label": item.label,
            "domain": getattr(item, "domain", 0),  # Dassl's
            "impath": item.impath,
            "index": index,
            "img": shown,
        }

    def image(self, path: str) -> Image.Image:
        """The decoded image, out of memory if it is there: copy it before you change it."""
        kept = self.pictures.images
        if path in kept:
            return kept[path]
        if box_of(path) is None:
            return self.pictures.take(path, read_picture(path, self.background, self.least))
        return self.pictures.take(path, self.photograph.read(path, self.background))


def steps_of_epoch(images: int, optim: CfgNode, batch_size: int) -> int:
    """Return the number of steps that show every image once: in batches of at most ``batch_size``, and of
    fewer where the epochs would else have less than ``LEAST_STEPS`` steps together.

    Args:
        images: number of training images; optim: ``cfg.OPTIM``.
    """
    least: int = math.ceil(optim.LEAST_STEPS / optim.MAX_EPOCH)
    return min(images, max(least, math.ceil(images / batch_size)))


class EvenBatches:
    """All indices of a sampler in batches whose sizes differ by one at most, each with a seed for its
    image's views, which follows from torch's generator, the epoch and the index.

    Args:
        sampler: yields each index below its length once; steps: number of batches.
    """

    def __init__(self, sampler: Iterable[int], steps: int) -> None:
        self.sampler = sampler
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Drawn]]:
        of_epoch = torch.Generator().manual_seed(drawn_seeds(1)[0])
        order = list(self.sampler)
        seeds = drawn_seeds(len(order), of_epoch)
        for batch in torch.tensor(order).tensor_split(self.steps):
            yield [Drawn(index, seeds[index]) for index in batch.tolist()]


def drawn_seeds(number: int, generator: torch.Generator | None = None) -> list[int]:
    """Draw seeds in [0, 2^63) from a generator; None: torch's own."""
    seeds: list[int] = torch.empty(number, dtype=torch.int64).random_(generator=generator).tolist()
    return seeds


class DealtBatches:
    """A loader's batches, dealt to its workers in turn, as torch does it and with the draws of torch's: the
    workers' seed comes from torch's generator, before the order of the images.

    Args:
        batches: of indices; workers: number of workers.
    """

    def __init__(self, batches: Iterable[list[int]], workers: int) -> None:
        self.batches = batches
        self.workers = workers

    def __len__(self) -> int:
        return len(cast(Sized, self.batches))

    def __iter__(self) -> Iterator[list[Dealt]]:
        (seed,) = drawn_seeds(1)
        for number, batch in enumerate(self.batches):
            yield [Dealt(index, seed, number % self.workers) for index in batch]


def for_any_machine(loader: Loader, optim: CfgNode, workers: int) -> Loader:
    """Return a loader of the same images whose random views depend on no number of cores; with
    ``OPTIM.LEAST_STEPS`` on no number of workers either, with all images in each epoch, in
    ``steps_of_epoch``.

    workers: the number that was asked for, of which ``loader`` has as many as there are cores.
    """
    processes = loader.num_workers
    batches: EvenBatches | DealtBatches
    if optim.LEAST_STEPS:
        assert loader.batch_size is not None
        images = len(cast(Sized, loader.sampler))
        batches = EvenBatches(loader.sampler, steps_of_epoch(images, optim, loader.batch_size))
    elif workers:
        batches = DealtBatches(cast(Iterable[list[int]], loader.batch_sampler), workers)
        # torch deals batches to processes in turn: only so do all of a worker's fall to the same one
        processes = max(n for n in range(1, processes + 1) if workers % n == 0)
    else:  # this process draws all, as Dassl's
        return loader
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=processes,
        pin_memory=loader.pin_memory,
        # the seed that torch draws whenever processes start: not out of the training's own draws
        generator=torch.Generator(),
        persistent_workers=processes > 0 and len(batches) < FEW_STEPS,
    )


def prepare_workers(loader: Loader) -> None:
    """Makes a loader's workers end with this process, and not by a signal to the whole job."""
    loader.worker_init_fn = leave_signals_to_parent
    loader.multiprocessing_context = START_METHOD if loader.num_workers > 0 else None


def leave_signals_to_parent(worker: int) -> None:
    """Initialises a worker: the parent, which the signal is meant for, ends it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def end_workers() -> None:
    """Kill the workers that are left at the end of the process, as those of an epoch that an error has
    ended: Python would end them by a signal that they ignore, and wait for them."""
    if hasattr(signal, "SIGCHLD"):  # which torch takes for an error
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def make_loader(cfg: CfgNode, images: CheckedImages, augmented: bool = False) -> Loader:
    """Make a loader of images, with Dassl's draws: training images are shuffled, and an
    incomplete last batch is left out if there is a whole one.

    augmented: views of images that are not shuffled are drawn at random, too.
    """
    node = cfg.DATALOADER.TRAIN_X if images.is_train else cfg.DATALOADER.TEST
    are_known = all(str(item.impath) in images.features for item in images.data_source)
    workers = 0 if are_known else cfg.DATALOADER.NUM_WORKERS
    loader: Loader = DataLoader(
        images,
        batch_size=node.BATCH_SIZE,
        sampler=RandomSampler(images) if images.is_train else SequentialSampler(images),
        num_workers=min(workers, usable_cores()),
        drop_last=images.is_train and len(images) >= node.BATCH_SIZE,
        pin_memory=torch.cuda.is_available() and wants_cuda(cfg),
    )
    if images.is_train or augmented:
        loader = for_any_machine(loader, cfg.OPTIM, workers)
    prepare_workers(loader)
    return loader


@dataclass
class Loaders:
    """The images of a run as batches.

    Attributes:
        cfg: the run's config; images: their images.
        train, val, test: loaders of the splits; val is None where there is none.
        views: V transforms of training images; augmented: one without their own augmentations.
        shown: the transform of test images.
        features: path → the CLIP's own features (E,), of images that batches of tests have so.
    """

    cfg: CfgNode
    images: Images
    train: Loader
    val: Loader | None
    test: Loader
    views: list[View]
    augmented: View
    shown: View
    features: dict[str, Tensor] = field(default_factory=dict)

    def over(self, images: Sequence[Item]) -> Loader:
        """A loader of images in their order, as they are tested."""
        return make_test_loader(self.cfg, images, self.shown, self.images.kept, self.features)

    def over_training(self, every: int, augmented: bool) -> Loader:
        """A loader of each ``every``-th training image in their order, as they are tested or
        ``augmented``."""
        images = cast(CheckedImages, self.train.dataset)
        if least_side(self.cfg.INPUT) and not augmented:  # those for crops are smaller
            return self.over(images.data_source[::every])
        transform = self.augmented if augmented else self.shown
        return make_loader(self.cfg, images.under(transform, every), augmented)

    @property
    def own_val(self) -> Loader | None:
        """The loader of validation images; None where test images stand in for them."""
        return None if self.images.validates_on_test_images else self.val


def make_loaders(
    cfg: CfgNode,
    images: Images,
    views: list[View],
    augmented: View,
    features: dict[str, Tensor],
) -> Loaders:
    """Make the ``Loaders`` of a run, without Dassl."""
    shown = pixels_of_test(cfg.INPUT)
    kept = images.kept
    crops = None if kept is None else kept.crops
    train = CheckedImages(cfg, images.train_x, views, is_train=True, pictures=crops)
    return Loaders(
        cfg,
        images,
        train=make_loader(cfg, train),
        val=make_test_loader(cfg, images.val, shown, kept, features) if images.val else None,
        test=make_test_loader(cfg, images.test, shown, kept, features),
        views=views,
        augmented=augmented,
        shown=shown,
        features=features,
    )


def make_test_loader(
    cfg: CfgNode,
    images: Sequence[Item],
    shown: View,
    kept: PictureCache | None,
    features: dict[str, Tensor],
) -> Loader:
    """Make a loader of test images for ``Loaders``."""
    pictures = None if kept is None else kept.shown
    checked = CheckedImages(cfg, images, shown, pictures=pictures, features=features)
    return make_loader(cfg, checked)


class Pairs:
    """A loader's batches as images (V, B, 3, H, W) and labels (B,); V is 1 where images are shown as they
    are tested. The loader draws its seed only when they are asked for."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batch: Batch
        for batch in self.loader:
            views = batch["img"]
            images = torch.stack(views) if isinstance(views, list) else views[None]
            yield images, batch["label"]
