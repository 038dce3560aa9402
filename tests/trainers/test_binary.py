"""``BinaryProbe``: a minimum at every strength, CLIP's own answers where little is known, and the cost of
many labels."""

import time

import clip
import numpy
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.task import MULTI_LABEL_TASK
from trainers.binaryprobe import BinaryProbeMethod
from trainers.common.setting import node_of
from trainers.maths.logistic import (
    BIAS_PRIOR,
    IMAGES_AT_ONCE,
    STRENGTHS,
    TEXT_PRIOR,
    Sigmoid,
    regressions,
)
from trainers.prompting.backbone import build_backbone

SHAPE = (512, 32, 1, 64, 8, 77, 49408, 64, 1, 1)  # of a CLIP that has such features


def drawn(images=90, labels=3, width=12, seed=0):
    """Features, labels that depend on them, and texts' logits, which know something of the labels."""
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(images, width, generator=generator) + 0.5, dim=-1)
    right = torch.randn(width, labels, generator=generator).double()
    features = features.double()
    noise = torch.randn(images, labels, generator=generator)
    truth = 4 * features @ right + noise > 1
    texts = 4 * features @ (right + torch.randn(width, labels, generator=generator))
    return features, truth, texts


def test_each_probe_is_the_minimum_of_its_objective():
    """½ |W|² + C Σ BCE(W z + b + s t), and next to nothing of b and s, in the features' own coordinates: a
    step of Newton's method from there would lower it by less than ½ %."""
    features, truth, texts = drawn()
    some = STRENGTHS[::4]

    def logits(point):
        weight, bias, share = point.split([36, 3, 1])
        return features @ weight.view(3, 12).t() + bias + share * texts

    def objective(point, strength):
        prior = torch.tensor([1.0] * 36 + [BIAS_PRIOR] * 3 + [TEXT_PRIOR]).double()
        loss = F.binary_cross_entropy_with_logits(logits(point), truth.double(), reduction="sum")
        return prior @ point.square() / 2 + strength * loss

    for strength, found in zip(some, regressions(features, truth.float(), texts, some, Sigmoid())):
        point = torch.cat([found.weight.ravel(), found.bias, found.text_weight[None]])
        torch.testing.assert_close(found(features, texts), logits(point))
        slope = torch.func.grad(objective)(point, strength)
        curvature = torch.func.hessian(objective)(point, strength)
        lowered = slope @ torch.linalg.solve(curvature, slope) / 2
        assert lowered < 0.005 * objective(point, strength)


def test_without_texts_it_answers_as_scikit_learn_does_per_label():
    """Which has no prior of the bias, and fits each label alone."""
    features, truth, texts = drawn()
    (found,) = regressions(features, truth.float(), torch.zeros_like(texts), [10.0], Sigmoid())
    ours = found(features, torch.zeros_like(texts)).sigmoid().numpy()
    for label in range(3):
        other = LogisticRegression(C=10, tol=1e-8, max_iter=1000).fit(features, truth[:, label])
        theirs = other.predict_proba(features.numpy())[:, 1]
        numpy.testing.assert_allclose(ours[:, label], theirs, atol=0.02)


def test_weak_data_leave_the_texts_order_and_as_many_of_each_label_as_there_are():
    features, truth, texts = drawn()
    weak, *_ = regressions(features, truth.float(), texts, [3e-3], Sigmoid())
    logits = weak(features, texts)
    rest = logits - weak.text_weight * texts
    assert (rest - rest.mean(dim=0)).abs().max() < 0.1
    assert weak.text_weight > 0.3
    strong, *_ = regressions(features, truth.float(), texts, [1.0], Sigmoid())
    shares = strong(features, texts).sigmoid().mean(dim=0)
    torch.testing.assert_close(shares, truth.double().mean(dim=0), atol=0.02, rtol=0)


def test_a_label_of_no_or_every_picture_stays_finite_and_takes_nothing_from_the_others():
    features, truth, texts = drawn()
    odd = truth.clone()
    odd[:, 0] = False
    odd[:, 1] = True
    *_, found = regressions(features, odd.float(), texts, STRENGTHS, Sigmoid())
    logits = found(features, texts)
    assert logits.isfinite().all()
    assert (logits[:, 0] < 0).all() and (logits[:, 1] > 0).all()


def test_blocks_of_images_change_nothing(monkeypatch):
    features, truth, texts = drawn()
    whole, *_ = regressions(features, truth.float(), texts, [1.0], Sigmoid())
    monkeypatch.setattr(Sigmoid, "block", 7)
    parts, *_ = regressions(features, truth.float(), texts, [1.0], Sigmoid())
    assert len(features) < IMAGES_AT_ONCE
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-3, atol=1e-4)


class GivenTexts(BinaryProbeMethod):
    """``BinaryProbe`` under texts whose directions (E, K) are given, in the place of a CLIP's."""

    def texts(self, features):
        return features @ self.given


@pytest.mark.slow
def test_a_hundred_labels_of_ten_thousand_pictures_take_at_most_90_seconds_of_a_processor():
    features, truth, texts = drawn(10_000, 100, 512)
    backbone = build_backbone(clip.model.CLIP(*SHAPE).float().state_dict())
    node = node_of(GivenTexts.declared)
    node.PREC = "fp32"
    method = GivenTexts(node, [f"label {number}" for number in range(100)], backbone).eval()
    method.given = torch.linalg.lstsq(features, texts).solution
    known = FeatureSet(features[None], features, truth, torch.arange(10_000) % 5)
    started = time.process_time()
    cross_fit(method, MULTI_LABEL_TASK, known)
    assert time.process_time() - started < 90
