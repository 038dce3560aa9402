"""Makes the documents' pictures of the page and of the report, from a run of a minute on shapes that it
draws.

    python -m experiments.pictures docs

They are as wide as README is shown, so that their letters are as large as README's. It needs
Chromium (scripts/install_browser.sh).
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from labelling.classifier import PromptedClassifier
from labelling.page.demo import Demo, find_examples
from labelling.page.page import HOST, make_app, make_server
from labelling.threshold import threshold_of

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH = 860  # pixels
COLOURS = ("red", "blue", "green")
SHAPES = ("circle", "square", "triangle")
PICTURES = 30  # of each class
MAX_ERROR = 0.2  # what its validation images can promise


def draw_shapes(folder: Path) -> None:
    """Class folders of coloured shapes on white."""
    chance = random.Random(0)
    for colour in COLOURS:
        for shape in SHAPES:
            place = folder / f"{colour} {shape}"
            place.mkdir(parents=True)
            for number in range(PICTURES):
                picture = Image.new("RGB", (96, 96), "white")
                side = chance.randint(30, 70)
                x = chance.randint(4, 92 - side)
                y = chance.randint(4, 92 - side)
                canvas = ImageDraw.Draw(picture)
                if shape == "circle":
                    canvas.ellipse((x, y, x + side, y + side), fill=colour)
                elif shape == "square":
                    canvas.rectangle((x, y, x + side, y + side), fill=colour)
                else:
                    corners = [(x, y + side), (x + side, y + side), (x + side / 2, y)]
                    canvas.polygon(corners, fill=colour)
                picture.save(place / f"{number}.png")


def take(address: str, height: int, picture: Path) -> None:
    """Keeps what Chromium shows at an address, with few colours."""
    size = f"--window-size={WIDTH},{height}"
    flags = ("--headless", "--no-sandbox", "--hide-scrollbars", size, f"--screenshot={picture}")
    subprocess.run(["chromium", *flags, address], check=True, capture_output=True)
    Image.open(picture, formats=["PNG"]).quantize(128).save(picture, optimize=True)


def make_pictures(folder: Path, work: Path) -> None:
    """``page.png`` and ``report.png`` in a folder; the run is made in another."""
    shapes = work / "shapes"
    run = work / "run"
    draw_shapes(shapes)
    words = "--trainer CDC --images shapes --backbone tiny --output-dir run OPTIM.MAX_EPOCH 5"
    command = [sys.executable, str(REPOSITORY / "train.py"), *words.split()]
    subprocess.run(
        command, check=True, cwd=work
    )  # where the report names no folder of this machine
    classifier = PromptedClassifier.load(run)
    examples = find_examples(run, classifier.record, str(shapes))
    app = make_app(Demo(classifier, threshold_of(str(run), MAX_ERROR), examples))
    server = make_server(app, 0)
    threading.Thread(target=server.run, daemon=True).start()
    address = f"http://{HOST}:{server.effective_port}/?picture=example-7"
    take(address, 1000, folder / "page.png")
    server.close()
    take((run / "report.html").as_uri(), 862, folder / "report.png")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        make_pictures(args.folder.resolve(), Path(work))


if __name__ == "__main__":
    main()
