"""The documents' pictures show today's numbers."""

import csv
import random

import pytest

from experiments.pictures import NUMBERS, shown, train_on_drawings
from tests.runs import REPOSITORY

with open(REPOSITORY / "docs" / NUMBERS, encoding="utf-8", newline="") as file:
    KEPT = list(csv.DictReader(file))


@pytest.mark.slow
def test_the_pictures_of_the_page_and_the_report_show_todays_numbers(tmp_path):
    """To two of their images; another processor may answer one or two in another way."""
    kept = KEPT[0]
    today = shown(kept["pictures"], train_on_drawings(tmp_path, random.Random(0)))
    apart = abs(float(kept.pop("accuracy")) - float(today.pop("accuracy")))
    assert today == kept
    assert apart <= 200 / int(kept["images"]) + 0.05
