"""What the folds of a run on one's own pictures say of its training pictures."""

import csv

import numpy
import pytest
from PIL import Image

import train
from tests.labelling.tables import list_images

pytestmark = pytest.mark.usefixtures("no_figures")
COLOURS = {"red square": (200, 30, 30), "blue square": (30, 30, 200)}


@pytest.fixture
def colours(tmp_path):
    """Fifty pictures of each of two colours."""
    generator = numpy.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / f"colours/{name}").mkdir(parents=True)
        for index in range(50):
            pixels = generator.normal(0, 30, (32, 32, 3)) + colour
            picture = Image.fromarray(numpy.clip(pixels, 0, 255).astype("uint8"))
            picture.save(f"{tmp_path}/colours/{name}/{index:02d}.png")
    return tmp_path / "colours"


def test_a_training_picture_whose_label_is_wrong_is_listed(colours, tmp_path, monkeypatch):
    """As the fit in folds has it, in which it was held out once."""
    monkeypatch.chdir(tmp_path)
    wrong = next(item for item in list_images(str(colours))[0] if item.classname == "red square")
    Image.open(colours / "blue square/00.png").rotate(90).save(wrong.impath)
    assert train.main(["--images", str(colours), "--backbone", "tiny"]) == 0
    with open("output/colours/seed1/report_wrong_labels.csv", encoding="utf-8-sig") as file:
        first = next(csv.DictReader(file))
    assert wrong.impath.endswith(first["image"])
    assert first["split"] == "test", "all are tested in folds"
    assert (first["label"], first["answer"]) == ("red square", "blue square")
