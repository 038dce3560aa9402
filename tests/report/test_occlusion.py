"""Where templates look: maps of covered pictures against the classifier's own answers, and in a report."""

import numpy
import pytest
import torch
from PIL import Image, ImageOps

from labelling import PromptedClassifier
from report.occlusion import COVER, PATCH, PATCH_PLACES, SIDE, STRIDE, occlusion_figures, occlusions
from report.page import make_report
from report.pictures import Found
from results.runs import collect
from tests.conftest import BASE
from tests.results.conftest import Page


def test_maps_are_of_the_least_doubted_right_answers_one_a_class(trained, data_root):
    (run,) = collect(trained("CDC", *BASE))
    answers = run.answers
    paths = {name: Found(f"{data_root}/dtd/images/{name}") for name in answers["image"].tolist()}
    images = {}  # label: name
    for index in numpy.argsort(answers["max_probability"]):
        if answers["right"][index]:
            images.setdefault(int(answers["label"][index]), str(answers["image"][index]))
    found = occlusions(run, paths)
    classifier = PromptedClassifier.load(run.folder)
    assert [name for name, *_ in found] == [classifier.classnames[label] for label in images]
    label, file = next(iter(images.items()))
    whole = ImageOps.fit(Image.open(paths[file].path), (SIDE, SIDE))
    covered = whole.copy()
    covered.paste(COVER, (2 * STRIDE, STRIDE, 2 * STRIDE + PATCH, STRIDE + PATCH))
    votes = torch.as_tensor(classifier.predict([whole, covered]).votes)[:, :, label]
    drops = found[0][2]
    assert drops.shape == (4, PATCH_PLACES, PATCH_PLACES)
    assert drops[:, 1, 2] == pytest.approx((votes[0] - votes[1]).numpy(), abs=1e-6)


def test_where_templates_look_is_drawn_in_the_report(trained, data_root, tmp_path):
    make_report(
        [trained("CDC", *BASE)], tmp_path / "page.html", {"Maps": occlusion_figures}, data_root
    )
    texts = [image["alt"] for image in Page(tmp_path / "page.html").all("img")]
    (alt,) = (text for text in texts if text.startswith("Occlusion maps of"))
    assert "CDC small, DescribableTextures, base classes, seed 1. Largest fall" in alt
