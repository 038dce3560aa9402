"""The map of a report: of more than 20 images, the same each time, wrong answers circled."""

import numpy
import pytest

from analysis.feature_map import FEWEST, MOST, map_figures, map_of
from results.report.gallery import find_images
from results.report.page import make_report
from results.runs import collect, group
from tests.results.conftest import Page


@pytest.fixture
def tested(trained, data_root):
    """A run, and the paths of its 24 test images by name."""
    (run,) = collect(trained("CDC"))
    return run, find_images(run, data_root)


def test_a_map_has_every_image_with_its_own_class_and_is_the_same_each_time(tested):
    run, paths = tested
    made, again = map_of(run, paths), map_of(run, paths)
    numpy.testing.assert_array_equal(made.places, again.places)
    assert made.places.shape == (24, 2) and numpy.isfinite(made.places).all()
    assert made.classes == [run.class_name(label) for label in run.answers["label"].tolist()]
    numpy.testing.assert_array_equal(made.right, run.answers["right"])


def test_few_images_have_no_map_and_many_are_thinned_out(tested, monkeypatch):
    run, paths = tested
    few = dict(list(paths.items())[: FEWEST - 1])
    assert map_of(run, few) is None
    assert MOST > FEWEST
    monkeypatch.setattr("analysis.feature_map.MOST", 10)
    made = map_of(run, paths)
    ends = [run.class_name(label) for label in run.answers["label"][[0, -1]].tolist()]
    assert len(made.classes) == 10 and [made.classes[0], made.classes[-1]] == ends


def test_the_report_has_one_map_for_each_setting_with_pictures(
    tested, trained, data_root, tmp_path
):
    run, _ = tested
    runs = [run.folder, trained("ZeroshotCLIP")]
    page = tmp_path / "page.html"
    make_report(runs, page, {"Which images are alike?": map_figures}, data_root)
    (alt,) = [image["alt"] for image in Page(page).all("img") if "Map of" in image["alt"]]
    wrong = (~run.answers["right"]).sum()
    assert alt.startswith("Map of 24 test images of 6 classes by CDC") and f"{wrong} of" in alt
    make_report(runs, page, {"Which images are alike?": map_figures})
    assert not [image for image in Page(page).all("img") if "Map of" in image["alt"]]


def test_a_run_without_its_prompts_has_no_map_and_the_log_says_why(copied, data_root, caplog):
    folder = copied("CDC")
    for path in (folder / "prompt_learner").iterdir():
        path.unlink()
    series = group(collect(folder))
    run = series[0].first
    images = {run.record["dataset"]: find_images(run, data_root)}
    assert [*map_figures(series, images)] == []
    assert f"the map of {run.folder} can't be drawn" in caplog.text
