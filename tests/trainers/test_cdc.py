"""CDC's trainings: views, phrases, what is kept with the prompts; its formulas are in formulas.py
and test_cdc_evidence.py."""

import numpy
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T

from tests.conftest import make_method
from tests.runs import prompts_of
from tests.trainers.test_fits import images
from trainers.gaussians import FACTORS, ImageWitness, fit_gaussians, held_out_log_densities
from trainers.phrases import PHRASES, choose_phrases

TEXT = ("TRAINER.CDC.PROMPT_MODALITY", "text", "TRAINER.CDC.PROMPT_DEPTH", "1")
DEEP = ("TRAINER.CDC.PROMPT_DEPTH", "3")


def test_weights_under_which_templates_collapse_are_named_in_a_warning(vit, caplog):
    make_method("CDC", vit, ["cat", "dog"], DECOUPLING_WEIGHT=0.01, CONSISTENCY_WEIGHT=30.0)
    (line,) = caplog.messages
    assert "TRAINER.CDC.DECOUPLING_WEIGHT 0.01 and CONSISTENCY_WEIGHT 30" in line
    assert "below 1.85" in line


def test_phrases_are_of_use_alone_and_err_on_different_images():
    """Four phrases of ten images each: the second is as good as the first but on the same images,
    the third on others, the last is junk."""
    right = torch.zeros(4, 10)
    right[0, :8] = right[1, :8] = right[2, 2:] = right[3, :3] = 1
    answers = torch.stack([right, 1 - right], dim=-1) * 0.8 + 0.1
    labels = torch.zeros(10, dtype=torch.long)  # the class that all images are of
    assert choose_phrases(answers.log(), labels, 2) == [0, 2]
    assert choose_phrases(answers.log(), labels, 4) == [0, 2, 1]  # and not the junk


def test_chosen_phrases_and_cosines_are_kept_with_the_prompts(run):
    phrases = str([*PHRASES[3::-1], "a photo", "graffiti of a rather long phrase"])
    trainer, record, folder = run("CDC", "TRAINER.CDC.CTX_INIT", phrases, *DEEP, name="chosen")
    tokens, learned = trainer.model.learner.phrases, record["learned"]
    assert len({tuple(row) for row in tokens.tolist()}) == 4
    for name in ("to_clip", "between", "deviations"):
        for of in ("texts", "images"):
            before, after = (learned[f"{of}_{name}_{when}"] for when in ("before", "after"))
            assert -1 <= before <= 1 and after != before
    others = ("TRAINER.CDC.CTX_INIT", str(PHRASES[:5]))
    _, again, _ = run("CDC", *DEEP, *others, flags=prompts_of(folder), name="tested")
    assert again["metrics"]["test"] == record["metrics"]["test"]


def test_templates_over_another_method_start_from_phrases_of_the_contexts_length(vit):
    phrases = ["a photo of a", "a photo of one", "art of the", "a bad photo of the"]
    method = make_method("CDCPromptSRC", vit, ["cat", "dog"], PHRASES=phrases)
    assert method.possible_phrases() == phrases[:2]
    contexts = [one.ctx for one in method.learner.learners]
    assert torch.equal(contexts[0][:3], contexts[1][:3])
    assert not torch.equal(contexts[0][3], contexts[1][3])


@pytest.mark.parametrize("augmentation, crops", [("1", 0), ("2", 1)])
def test_views_differ_by_one_operation(run, augmentation, crops):
    settings = ("TRAINER.CDC.N_TEMPLATES", "5", "TRAINER.CDC.AUGMENTATION", augmentation)
    trainer, _, _ = run("CDC", *TEXT, *settings, flags=("--no-train",))
    usual = [T.RandomResizedCrop, T.RandomHorizontalFlip, T.ToTensor, T.Normalize]
    varied = [[T.ColorJitter], [T.RandomGrayscale, T.RandomApply], [T.RandomAffine]]
    own = []
    for view in trainer.views:
        kinds = [type(step) for step in view.transforms]
        assert kinds.count(T.RandomCrop) == crops
        assert [kind for kind in kinds if kind in usual] == usual
        own.append([kind for kind in kinds if kind in sum(varied, [])])
    assert own == [[], *varied, []]


@pytest.mark.parametrize("augmentation, views", [("1", 4), ("None", 1)])
def test_each_template_is_trained_on_its_own_view(run, augmentation, views):
    settings = ("TRAINER.CDC.AUGMENTATION", augmentation)
    trainer, _, _ = run("CDC", *TEXT, *settings, flags=("--no-train",))
    images, labels = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    assert images.shape == (views, 8, 3, 32, 32) and labels.shape == (8,)
    assert all(not torch.equal(images[0], images[m]) for m in range(1, views))


# ---- the image witness ----


def features(*counts):
    pictures, labels = images(counts, noise=0.5)
    return pictures.float(), labels


def test_its_log_evidence_is_of_the_densities_that_are_most_likely_on_held_out_images():
    pictures, labels = features(10, 10, 10, 10)
    witness = ImageWitness(6, 4)
    witness.fit(pictures, labels)
    held_out = held_out_log_densities(pictures, labels, 4).numpy()
    losses = []
    for factor in FACTORS:
        exponentials = numpy.exp(factor * (held_out - held_out.max(axis=1, keepdims=True)))
        right = exponentials[range(len(labels)), labels] / exponentials.sum(axis=1)
        losses.append(-numpy.log(right).mean())
    best = FACTORS[int(numpy.argmin(losses))]
    assert FACTORS[0] < best < FACTORS[-1]
    levels = numpy.log(numpy.exp(best * held_out).sum(axis=1))
    means, precision = (value.numpy() for value in fit_gaussians(pictures, labels, 4))
    away = pictures.double().numpy()[:, None] - means  # (N, K, E)
    expected = -best / 2 * numpy.einsum("nke,ef,nkf->nk", away, precision, away) - levels.mean()
    level = numpy.log(numpy.exp(expected).sum(axis=1, keepdims=True))
    expected += level / max(1, levels.std(ddof=1)) - level
    assert levels.std(ddof=1) > 1.2
    numpy.testing.assert_allclose(witness(pictures), expected, rtol=1e-4, atol=1e-4)


def test_it_abstains_where_nothing_can_be_held_out_and_until_it_is_fitted():
    witness, loaded = ImageWitness(6, 4), ImageWitness(6, 4)
    witness.fit(*features(1, 1, 1, 1))
    assert not witness.is_fitted
    witness.fit(*features(10, 10, 10, 10))
    loaded.load_state_dict(witness.state_dict())
    assert witness.is_fitted and loaded.is_fitted


@pytest.fixture
def classifier(loaded):
    return loaded("CDC")


def scores_of(classifier):
    torch.manual_seed(0)
    with torch.no_grad():
        return classifier.method(torch.randn(1, 5, 3, 32, 32), classifier.encoded)


def test_it_speaks_for_any_part_of_its_classes_as_for_the_whole(classifier):
    """In any order, and again on a part of the part; the evidence e_k of a class stays."""

    def evidence(of):
        logits = scores_of(of).logits
        assert len(logits) == 5
        return of.method.log_evidence(logits)[-1]

    names, whole = classifier.classnames, evidence(classifier)
    shorter = classifier.with_classes([names[index] for index in (4, 1, 3)])
    turned = classifier.with_classes(names[::-1])
    part = turned.with_classes([names[0], names[5]])
    for of, chosen in ((shorter, [4, 1, 3]), (turned, [5, 4, 3, 2, 1, 0]), (part, [0, 5])):
        torch.testing.assert_close(evidence(of), whole[:, chosen], rtol=1e-4, atol=1e-3)


def test_it_abstains_for_a_list_with_a_class_that_it_has_not_seen(classifier):
    """Then the answers are those of the templates alone; nor does it come back with the whole list."""
    other = classifier.with_classes([*classifier.classnames[:3], "cat"])
    for each in (other, other.with_classes(classifier.classnames)):
        assert each.method.learner.witness is None and len(scores_of(each).logits) == 4


def test_prompts_of_an_epoch_before_the_last_answer_without_it(run):
    _, record, folder = run("CDC", "TRAIN.CHECKPOINT_FREQ", "1")
    for more, count in (("--load-epoch", "2"), 4), ((), 5):
        tester, again, _ = run("CDC", flags=(*prompts_of(folder), *more), name=f"{count}")
        with torch.no_grad():
            assert len(tester.model.eval()(torch.randn(1, 5, 3, 32, 32)).logits) == count
    assert again["metrics"]["test"] == record["metrics"]["test"]


@pytest.mark.parametrize("name", ["CDC", "CDCPromptSRC"])
def test_a_step_encodes_images_once_without_prompts(vit, monkeypatch, name):
    """CDC's an M-th of the batch of each view, over PromptSRC all that it is held to."""
    method = make_method(name, vit, ["cat", "dog"], N_TEMPLATES=2)
    passes, encode = [], method.unprompted_images

    def noted(images):
        passes.append(images.shape[:2])
        return encode(images)

    for each in (method, method.base or method):
        monkeypatch.setattr(each, "unprompted_images", noted)
    method.loss(method(torch.randn(2, 4, 3, 32, 32)), torch.tensor([0, 1, 1, 0]))
    assert passes == [(2, 2 if name == "CDC" else 4)]


def test_after_training_it_holds_the_classes_means_under_the_prompts(trained):
    trainer, _ = trained("CDC")
    with torch.no_grad():
        batches = [*trainer.training_images()]
        pictures = torch.cat([trainer.model(images).image_features for images, _ in batches], dim=1)
    labels = torch.cat([label for _, label in batches])
    pictures = F.normalize(pictures.mean(dim=0), dim=-1)
    for k, mean in enumerate(trainer.model.learner.witness.means):
        torch.testing.assert_close(mean, pictures[labels == k].mean(dim=0))
