"""Fetches the pictures of tasks that no setting may be chosen on, and lays them out as class folders.

    # writes data/put_aside/<task>/<class name>/*.png and prints each task's hash
    pip install resvg_py
    python -m experiments.put_aside --root data

The tasks stand in put_aside.yaml; clones are looked for below the root. None of the pictures was seen
by the tiny CLIP (docs/backbones.md). A picture that two classes claim is left out, and of pictures
that look alike, mirrored ones too, the first stays.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps

from trainers.common.image_files import as_seen, read_picture
from trainers.common.readers import read_yaml

TASKS = Path(__file__).with_suffix(".yaml")
SIZE = 128  # pixels of a side
KEPT = 40  # pictures of a class
LEAST = 8
ALIKE = 0.97  # correlation of grey thumbnails from which on two pictures are one
Pictures = dict[str, Callable[[], Image.Image]]  # name → what opens it


def drawn(svg: str) -> Image.Image:
    import resvg_py

    return Image.open(
        io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE)), formats=("PNG",)
    )


def icons(name: str, version: str, _: Path) -> Pictures:
    """The icons of an icon set of npm's."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"@iconify-json/{name}@{version}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        with tarfile.open(Path(folder) / f"iconify-json-{name}-{version}.tgz") as archive:
            found = json.load(archive.extractfile("package/icons.json"))  # type: ignore[arg-type]
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">{body}</svg>'
    whole = {"left": 0, "top": 0, "width": 16, "height": 16}
    whole |= {key: found[key] for key in whole.keys() & found.keys()}
    return {
        name: partial(drawn, svg.format(**whole | icon)) for name, icon in found["icons"].items()
    }


def folder(place: str, root: Path) -> Pictures:
    """The pictures of a clone's folder, ``class/name``."""
    paths = sorted((root / place).glob("*/*"))
    return {f"{path.parent.name}/{path.stem}": partial(read_picture, str(path)) for path in paths}


KINDS: dict[str, Callable[..., Pictures]] = {"npm": icons, "folder": folder}


def words_pattern(words: str) -> str:
    """The pattern of names that hold one of the words, "cat dog", or its plural, between dashes."""
    return rf"(?:^|-)(?:{words.replace(' ', '|')})s?(?=$|-)"


def by_class(
    names: Iterable[str], patterns: Mapping[str, str], only: str, without: str
) -> dict[str, list[str]]:
    """Class → the names that its pattern alone is found in, in a fixed order that has nothing to do
    with what they show."""
    members: dict[str, list[str]] = {label: [] for label in patterns}
    for name in sorted(names, key=lambda name: zlib.crc32(name.encode())):
        if not re.search(only, name) or re.search(without, name):
            continue
        claims = [label for label, pattern in patterns.items() if re.search(pattern, name)]
        if len(claims) == 1:
            members[claims[0]].append(name)
    return members


def square(picture: Image.Image) -> Image.Image:
    """A picture on white, without its white margins, as large as it goes into a square."""
    flat = as_seen(picture, "white")
    margins = ImageChops.difference(flat, Image.new("RGB", flat.size, "white"))
    return ImageOps.pad(
        flat.crop(margins.getbbox()), (SIZE, SIZE), Image.Resampling.LANCZOS, "white"
    )


def look(picture: Image.Image) -> NDArray[numpy.float64]:
    """(2, 256): a grey thumbnail and its mirror image, with mean zero and length one."""
    grey = numpy.asarray(picture.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=float)
    both = numpy.stack([grey.ravel(), grey[:, ::-1].ravel()])
    both -= both.mean()
    length = max(float(numpy.linalg.norm(both[0])), 1e-6)
    return both / length


def choose(
    members: Mapping[str, list[str]], pictures: Pictures
) -> dict[str, dict[str, Image.Image]]:
    """Class → name → square picture, up to ``KEPT`` a class that look like none before, of classes
    with at least ``LEAST``."""
    chosen: dict[str, dict[str, Image.Image]] = {}
    seen = numpy.zeros((0, 256))
    for label, names in members.items():
        kept: dict[str, Image.Image] = {}
        for name in names:
            if len(kept) == KEPT:
                break
            picture = square(pictures[name]())
            looks = look(picture)
            if looks.any() and not (seen @ looks.T > ALIKE).any():
                kept[name] = picture
                seen = numpy.concatenate([seen, looks[:1]])
        if len(kept) >= LEAST:
            chosen[label] = kept
    return chosen


def write_task(chosen: Mapping[str, Mapping[str, Image.Image]], place: Path) -> str:
    """Writes a task's class folders, all or none; returns the SHA-256 of its lines "path, SHA-256 of
    its RGB pixels", by path."""
    lines = []
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as folder:
        task = Path(folder) / place.name
        for label, pictures in chosen.items():
            (task / label).mkdir(parents=True)
            for name, picture in pictures.items():
                stem = re.sub("[^a-zA-Z0-9]+", "_", name)[-80:]
                path = task / label / f"{stem}_{zlib.crc32(name.encode()):08x}.png"
                picture.save(path)
                pixels = hashlib.sha256(picture.tobytes()).hexdigest()
                lines.append(f"{path.relative_to(task).as_posix()} {pixels}\n")
        task.rename(place)
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--root", type=Path, default=Path("data"))
    args = parser.parse_args(arguments)
    stated = read_yaml(TASKS)
    patterns = {label: words_pattern(words) for label, words in stated["words"].items()}
    for name, task in stated["tasks"].items():
        place = args.root / "put_aside" / name
        if place.exists():
            print(f"{place} is there already")
            continue
        pictures: Pictures = {}
        for source in task["sources"]:
            kind, *where = stated["sources"][source]
            for icon, opened in KINDS[kind](*where, args.root).items():
                pictures[f"{source}-{icon}"] = opened
        of_classes = {label: f"-{label}/" for label in task.get("folders", ())} or patterns
        members = by_class(pictures, of_classes, task.get("only", ""), task.get("without", "^$"))
        chosen = choose(members, pictures)
        digest = write_task(chosen, place)
        print(f"{name},{sum(map(len, chosen.values()))},{len(chosen)},{digest}")


if __name__ == "__main__":
    main()
