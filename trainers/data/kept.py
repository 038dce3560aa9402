"""Decoded pictures in memory, so that no file of one's own is decoded twice."""

import io
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from functools import partial
from threading import Lock

import torchvision.transforms as T
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from yacs.config import CfgNode

from ..common.image_files import PictureFacts, on_background
from .transforms import least_side, shape_of_test

# of decoded pictures that a run keeps in memory, at most; others are decoded each time: those for
# random crops in each epoch, those as they are tested once more, for their features
DECODED_BYTES = 2**30
SHOWN_BYTES = 2**29  # 2,600 pictures of 224 pixels
MOST_SMALL = 20_000  # thumbnails, of 3 KB each; a report decodes the others that it shows
THUMBNAIL = 112  # pixels of a thumbnail's longer side
LARGE = 1.5  # times ``least_side``: larger pictures are made smaller for random crops
Form = Callable[[Image.Image], Image.Image]


class Pictures:
    """Decoded pictures by path, as many as there is room for.

    Args:
        room: bytes for them; form: the function that reduces each; None: none.
    """

    def __init__(self, room: int, form: Form | None = None) -> None:
        self.room = room
        self.form = form
        self.images: dict[str, Image.Image] = {}
        self.lock = Lock()

    def __reduce__(self) -> tuple[object, ...]:
        """A loader's worker that is not forked begins with none."""
        return Pictures, (0, self.form)

    def take(self, path: str, image: Image.Image) -> Image.Image:
        """Reduce a decoded picture, and keep the result if there is room."""
        made = image if self.form is None else self.form(image)
        size = bytes_of(made)
        with self.lock:
            if size <= self.room and get_worker_info() is None:  # workers are new for every epoch
                self.images[path] = made
                self.room -= size
        return made

    def keep_only(self, paths: Collection[str]) -> None:
        """Forget the pictures of all other paths, so that their memory can be used again."""
        for path in self.images.keys() - {*paths}:
            self.room += bytes_of(self.images.pop(path))


def bytes_of(image: Image.Image) -> int:
    """Return a picture's bytes in memory: Pillow keeps RGB in 32 bits a pixel."""
    return 4 * image.width * image.height


def for_crops(least: int) -> Pictures:
    """Pictures for random crops: one's own at two to three times ``SIZE``, all others as they are.

    least: as in ``least_side``.
    """
    return Pictures(DECODED_BYTES, partial(made_smaller, least=least) if least else None)


def made_smaller(image: Image.Image, least: int) -> Image.Image:
    """A picture whose shorter side has ``least`` pixels, or one that is hardly larger as it is."""
    shorter = min(image.size)
    if shorter <= LARGE * least:
        return image
    size = (round(image.width * least / shorter), round(image.height * least / shorter))
    return image.resize(size, Image.Resampling.BICUBIC)


def small_jpeg(image: Image.Image) -> bytes:
    """A thumbnail of an RGB picture."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


class PictureCache:
    """The parts of one's own pictures that a first look keeps for later steps; an ``image_files.PictureSink``.

    Args:
        settings: ``cfg.INPUT``; background: as in ``decoded``.
        has_crops: whether random crops are trained on.

    Attributes:
        crops: pictures for random crops; shown: as they are tested, before they are normalised.
        small: path → its ``small_jpeg``.
        features: ``Towers.key`` → path → that CLIP's own features (E,) of the picture as it is tested, of
            any length.
        facts: hash of a file's bytes → facts of the picture, of former rounds' as well.
    """

    def __init__(self, settings: CfgNode, background: str, has_crops: bool) -> None:
        steps = shape_of_test(settings)
        if settings.CROP_PCT != 1:  # what is cut out would be resized, and cut once more
            steps = steps[:1]
        shape = T.Compose(steps)
        self.least = least_side(settings)
        self.background = background
        self.has_crops = has_crops
        self.crops = for_crops(self.least)
        self.shown = Pictures(SHOWN_BYTES, shape)
        self.small: dict[str, bytes] = {}
        self.features: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
        self.facts: dict[bytes, PictureFacts] = {}

    def add_facts(self, facts: Iterable[PictureFacts]) -> None:
        """Keep the facts of pictures that can be read."""
        self.facts.update({one.digest: one for one in facts if not one.reason})

    def take(self, path: str, image: Image.Image, seen: Image.Image) -> None:
        picture = seen if self.background == "white" else on_background(image, self.background)
        self.shown.take(path, picture)
        if self.has_crops:
            self.crops.take(path, picture)
        if len(self.small) < MOST_SMALL:
            self.small[path] = small_jpeg(seen)

    def keep_only(self, trained: Collection[str], paths: Collection[str]) -> None:
        """Forget pictures that a run does not take: all beside the paths, and for random crops all
        beside the trained ones."""
        self.crops.keep_only(trained)
        self.shown.keep_only(paths)
