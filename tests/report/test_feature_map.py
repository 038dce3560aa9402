"""The map of a report: of more than 20 images, the same each time, wrong answers circled."""

import numpy
import pytest

from report.feature_map import FEWEST, map_figures, map_of
from report.page import make_report
from report.pictures import find_images
from results.runs import collect
from tests.results.conftest import Page


@pytest.fixture
def tested(trained, data_root):
    """A run, and the paths of its 24 test images by name."""
    (run,) = collect(trained("CDC"))
    return run, find_images(run, data_root)


def test_a_map_has_every_image_with_its_own_class_and_is_the_same_each_time(tested):
    made, again = map_of(*tested), map_of(*tested)
    answers = tested[0].answers
    assert made.places.shape == (24, 2)
    assert made.classes == [tested[0].class_name(label) for label in answers["label"].tolist()]
    numpy.testing.assert_array_equal(made.places, again.places)
    numpy.testing.assert_array_equal(made.right, answers["right"])


def test_few_images_have_no_map(tested):
    run, paths = tested
    assert map_of(run, dict(list(paths.items())[: FEWEST - 1])) is None


def test_the_report_has_one_map_for_each_setting_with_pictures(
    tested, trained, data_root, tmp_path
):
    run, _ = tested
    page = tmp_path / "page.html"
    runs = [run.folder, trained("ZeroshotCLIP")]
    make_report(runs, page, {"Which images are alike?": map_figures}, data_root)
    (alt,) = [image["alt"] for image in Page(page).all("img") if "Map of" in image["alt"]]
    assert alt.startswith("Map of 24 test images of 6 classes by CDC")
    assert f"{(~run.answers['right']).sum()} of" in alt
