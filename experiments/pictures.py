"""Makes the documents' pictures of the page and of the report, and the numbers that they show.

    python -m experiments.pictures docs

``page.png``, which README shows 800 pixels wide, and ``report.png`` are of a run of the default
trainer on drawings of our own; ``report_risk.svg`` and ``report_vacuity.svg`` of the demo's runs,
which take some minutes. It needs Chromium (scripts/install_browser.sh).
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import csv
import io
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from werkzeug.datastructures import FileStorage

from labelling.classifier import PromptedClassifier
from labelling.serve import HOST
from labelling.serve.demo import Demo
from labelling.serve.page import make_app, make_server
from results.runs import collect
from trainers.common.record_file import RECORD_FILE, read_record

REPOSITORY = Path(__file__).resolve().parents[1]
NUMBERS = "data/pictures.csv"  # what the pictures show, below their folder
OF_DEMO = ("ZeroshotCLIP", "CoOp", "CDC")  # trainers, as in scripts/cdc/demo.sh
WIDTH = 860  # pixels; narrower pages have one column
PICTURES = 30  # of each class
MAX_ERROR = 0.05  # what its images can promise
SIDE = 288  # pixels of a drawing
FINE = 3  # a drawing is drawn so much larger, for smooth edges
# name → shapes, one above the other: kind, corners in a unit square, which of the drawing's colours
DRAWINGS = {
    "house": (
        ("polygon", (0.1, 0.45, 0.9, 0.45, 0.9, 1, 0.1, 1), 0),
        ("polygon", (0, 0.45, 0.5, 0, 1, 0.45), 1),
        ("polygon", (0.4, 0.65, 0.6, 0.65, 0.6, 1, 0.4, 1), 2),
    ),
    "tree": (
        ("polygon", (0.42, 0.5, 0.58, 0.5, 0.58, 1, 0.42, 1), 0),
        ("ellipse", (0.15, 0, 0.85, 0.7), 1),
    ),
    "boat": (
        ("polygon", (0, 0.7, 1, 0.7, 0.8, 1, 0.2, 1), 0),
        ("polygon", (0.47, 0, 0.52, 0, 0.52, 0.7, 0.47, 0.7), 2),
        ("polygon", (0.55, 0.05, 0.95, 0.62, 0.55, 0.62), 1),
    ),
    "fish": (
        ("polygon", (0.65, 0.5, 1, 0.25, 1, 0.75), 1),
        ("ellipse", (0, 0.25, 0.8, 0.75), 0),
        ("ellipse", (0.15, 0.4, 0.23, 0.48), 2),
    ),
    "car": (
        ("polygon", (0.2, 0.55, 0.33, 0.3, 0.7, 0.3, 0.82, 0.55), 1),
        ("polygon", (0, 0.55, 1, 0.55, 1, 0.78, 0, 0.78), 0),
        ("ellipse", (0.15, 0.66, 0.37, 0.88), 2),
        ("ellipse", (0.63, 0.66, 0.85, 0.88), 2),
    ),
    "flower": (
        ("polygon", (0.47, 0.4, 0.53, 0.4, 0.53, 1, 0.47, 1), 2),
        ("ellipse", (0.35, 0, 0.65, 0.3), 0),
        ("ellipse", (0.2, 0.17, 0.5, 0.47), 0),
        ("ellipse", (0.5, 0.17, 0.8, 0.47), 0),
        ("ellipse", (0.35, 0.33, 0.65, 0.63), 0),
        ("ellipse", (0.4, 0.22, 0.6, 0.42), 1),
    ),
}


def draw(name: str, chance: random.Random) -> Image.Image:
    """A drawing on white, its place, its size and its colours by chance."""
    pixels = SIDE * FINE
    picture = Image.new("RGB", (pixels, pixels), "white")
    canvas = ImageDraw.Draw(picture)
    side = chance.uniform(0.5, 0.9) * pixels
    left, top = (chance.uniform(0, pixels - side) for _ in range(2))
    colours = [tuple(chance.choices(range(230), k=3)) for _ in range(3)]
    for kind, corners, colour in DRAWINGS[name]:
        moved = [
            side * corner + (top if number % 2 else left) for number, corner in enumerate(corners)
        ]
        paint = canvas.ellipse if kind == "ellipse" else canvas.polygon
        paint(moved, fill=colours[colour])
    return picture.reduce(FINE)


def draw_folders(folder: Path, chance: random.Random) -> None:
    """Class folders of drawings."""
    for name in DRAWINGS:
        place = folder / name
        place.mkdir(parents=True)
        for number in range(PICTURES):
            draw(name, chance).save(place / f"{number}.png")


def take(address: str, height: int, picture: Path) -> None:
    """Keeps what Chromium shows at an address, with few colours."""
    size = f"--window-size={WIDTH},{height}"
    flags = ("--headless", "--no-sandbox", "--hide-scrollbars", size, f"--screenshot={picture}")
    subprocess.run(["chromium", *flags, address], check=True, capture_output=True)
    Image.open(picture, formats=["PNG"]).quantize(128).save(picture, optimize=True)


def train_on_drawings(work: Path, chance: random.Random) -> Path:
    """Trains the default trainer on drawings; returns the run's folder."""
    draw_folders(work / "drawings", chance)
    words = "--images drawings --backbone tiny --output-dir run"
    command = [sys.executable, str(REPOSITORY / "train.py"), *words.split()]
    # from there, so that the report names no folder of this machine
    subprocess.run(command, check=True, cwd=work)
    return work / "run"


def make_pictures(folder: Path, work: Path) -> list[dict[str, str]]:
    """``page.png`` and ``report.png`` in a folder; the run is made in another. Returns what they
    show."""
    chance = random.Random(0)
    run = train_on_drawings(work, chance)
    classifier = PromptedClassifier.load(run, max_error=MAX_ERROR)
    demo = Demo(classifier)
    content = io.BytesIO()
    draw("boat", chance).save(content, "PNG")
    content.seek(0)
    key = demo.keep_uploads([FileStorage(content, "boat.png")])
    server = make_server(make_app(demo), 0)
    threading.Thread(target=server.run, daemon=True).start()
    take(f"http://{HOST}:{server.effective_port}/?picture={key}", 440, folder / "page.png")
    server.close()
    take((run / "report.html").as_uri(), 1000, folder / "report.png")
    return [shown("page.png, report.png", run)]


def make_figures(folder: Path, work: Path) -> list[dict[str, str]]:
    """``report_risk.svg`` and ``report_vacuity.svg`` in a folder, of the demo's runs, which are made in
    another. Returns what they show."""
    demo = work / "demo"
    runs = f"--protocol base2new --dataset openmoji --trainer {' '.join(OF_DEMO)} --seeds 1"
    for words in (
        f"run.py {runs} --root data --output {demo}",
        f"-m experiments.lab.uncertainty {demo} --root data",
        f"-m report {demo} --root data --output {work}/report.html",
    ):
        subprocess.run([sys.executable, *words.split()], check=True, cwd=REPOSITORY)
    figures = work / "report_figures"
    shutil.copy(figures / "risk-openmoji-base-classes.svg", folder / "report_risk.svg")
    shutil.copy(
        figures / "vacuity-openmoji-base-classes-cdc-tiny.svg", folder / "report_vacuity.svg"
    )
    return [
        shown("report_risk.svg, report_vacuity.svg", run.folder)
        for run in collect(demo)
        if "train_base" in run.folder.parts
    ]


def shown(pictures: str, run: Path) -> dict[str, str]:
    """What pictures show of a run: its trainer, its test images, and how many % of them are right."""
    record = read_record(run / RECORD_FILE)
    test = record["metrics"]["test"]
    return {
        "pictures": pictures,
        "trainer": record["trainer"],
        "images": str(test["images"]),
        "accuracy": f"{test['accuracy']:.1f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    args = parser.parse_args(arguments)
    folder = args.folder.resolve()
    with tempfile.TemporaryDirectory() as work:
        numbers = [*make_pictures(folder, Path(work)), *make_figures(folder, Path(work))]
    with open(folder / NUMBERS, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, numbers[0], lineterminator="\n")
        table.writeheader()
        table.writerows(numbers)


if __name__ == "__main__":
    main()
