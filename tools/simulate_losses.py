"""What CDC's loss and evidence do for a CLIP of the usual size: gradients, calibration on lists of classes, and steps, on simulated features.

    python tools/simulate_losses.py [KEY VALUE ...]      # of cfg.TRAINER.CDC: N_TEMPLATES, DECOUPLING_WEIGHT, EVIDENCE_LEVEL ...

Features of E = 512 numbers whose cosines are those of CLIP ViT-B/16: an image with its own class's text 0.30 ± 0.05, with others 0.22 ± 0.02;
the logit scale is 100, where such a CLIP's zero-shot answers are about calibrated. Each template's texts lie at a given cosine to CLIP's own,
in a direction of its own. Figures are of one draw.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor
from yacs.config import CfgNode

from trainers import losses
from trainers.cdc import add_cdc_config
from trainers.evaluation.prediction import calibration, percent_right
from trainers.evaluation.uncertainty import fit_temperature, temperature_scaled
from trainers.evidence import Opinion, dempster, evidential_loss, usual_reliabilities
from trainers.settings import method_node

WIDTH, SCALE, BATCH, PICTURES = 512, 100.0, 4, 1000
COSINES = (0.99, 0.95)  # of a template's features to CLIP's own
CLASSES = (10, 100, 1000)
LISTS = (2, 10, 100, 1000)
LEVELS = (2.0, 4.0, 8.0)
SHOTS, STEPS = 16, (30, 100, 300, 1000, 3000)
RATES = {4: 0.0035, 32: 0.002}  # batch → LR, as in the recipes
HIDDEN = 0.2  # part of an image that all of its class have and no text says
TITLES = (
    "Length of the gradient by a template's features",
    "ECE in %, beside accuracy and vacuity",
    "Accuracy in % after so many steps",
)
HEADS = (
    "K|cosine to CLIP|texts: CE|CDC's votes|β L_de|γ L_con|images: CE|CDC's votes|β L_de|γ L_con",
    "K trained|K asked|accuracy|zero-shot|fitted|level 2|level 4|level 8|no rule|u, right|u, wrong",
    "K|batch|steps|CE: training|CE: test|CDC: training|CDC: test",
)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


class Clip:
    """Texts (K, E) and images of K classes: all share one direction, and an image has parts of its class's own."""

    def __init__(self, classes: int) -> None:
        self.directions, self.hidden = unit(classes, WIDTH), unit(classes, WIDTH)
        self.directions[:, 0] = 0
        self.texts = F.normalize(0.85 * torch.eye(WIDTH)[0] + 0.53 * self.directions, dim=-1)

    def images(self, labels: Tensor, hidden: float = 0.0) -> Tensor:
        """(B, E) of labels (B,)."""
        part = (0.08 + 0.045 * torch.randn(len(labels), 1)) / 0.53
        images = 0.22 / 0.85 * torch.eye(WIDTH)[0] + part * self.directions[labels]
        images = images + hidden * self.hidden[labels]
        noise = torch.cat([torch.zeros(len(labels), 1), unit(len(labels), WIDTH - 1)], dim=1)
        return images + (1 - images.square().sum(dim=-1, keepdim=True)).sqrt() * noise


def turned(features: Tensor, templates: int, cosine: float) -> Tensor:
    """Features (M, N, E) at a cosine to given ones (N, E), each template in a direction of its own, at random."""
    away = unit(templates, *features.shape)
    away = F.normalize(away - (away * features).sum(dim=-1, keepdim=True) * features, dim=-1)
    return (cosine * features + math.sqrt(1 - cosine**2) * away).requires_grad_()


def offset(clip: Clip, classes: int) -> float:
    """Of log e_k / K at level 0 for prompts of the first K classes, as CDC sets it."""
    logits = SCALE * clip.images(torch.arange(PICTURES) % classes) @ clip.texts[:classes].T
    return logits.logsumexp(dim=-1).mean().item()


def cdc_votes(logits: Tensor, labels: Tensor, at_zero: float, level: float) -> Tensor:
    """Σ_m ``evidential_loss`` of the votes, and that of the fused opinion."""
    votes = logits - at_zero + level + math.log(logits.shape[-1])
    fused = dempster(votes, usual_reliabilities(len(logits)))
    each = evidential_loss(Opinion(votes), labels.expand(len(logits), -1)).mean(dim=1)
    return each.sum() + evidential_loss(fused, labels).mean()


def template_terms(node: CfgNode, features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """β L_de and γ Σ_m L_con of features (M, N, E)."""
    apart = node.DECOUPLING_WEIGHT * losses.decoupling_loss(features, reference)
    near = losses.consistency_loss(features, reference)
    return apart, node.CONSISTENCY_WEIGHT * len(features) * near


def gradient(loss: Tensor, features: Tensor) -> float:
    """Length of a loss's gradient by one template's features (M, N, E), along the sphere that they lie on; mean over templates."""
    (slope,) = torch.autograd.grad(loss, features, retain_graph=True)
    along = slope - (slope * features).sum(dim=-1, keepdim=True) * features
    return along.norm(dim=(1, 2)).mean().item()


def gradients(node: CfgNode, classes: int, cosine: float) -> list[float]:
    """By texts: cross-entropy, CDC's votes, β L_de, γ L_con; by images: the same."""
    templates, clip, labels = node.N_TEMPLATES, Clip(classes), torch.arange(BATCH)
    pictures = clip.images(labels)
    texts, images = (turned(of, templates, cosine) for of in (clip.texts, pictures))
    logits = SCALE * images @ texts.transpose(1, 2)  # (M, B, K)
    ours = cdc_votes(logits, labels, offset(clip, classes), node.EVIDENCE_START)
    votes = torch.stack([F.cross_entropy(of, labels) for of in logits]).sum(), ours
    few = slice(None, None, templates)  # of the images
    of_texts = template_terms(node, texts, clip.texts)
    of_images = template_terms(node, images[:, few], pictures[few])
    pairs = (texts, of_texts), (images, of_images)
    return [gradient(loss, of) for of, terms in pairs for loss in (*votes, *terms)]


def lists(node: CfgNode, clip: Clip, trained: int, asked: int) -> list[float]:
    """Accuracy; ECE of a zero-shot and of a fitted softmax, and of CDC's answers at ``LEVELS`` and, at EVIDENCE_LEVEL,
    without the rule for lists; vacuity of right and of wrong answers: of ``asked`` classes."""
    labels = torch.arange(PICTURES) % asked
    texts = turned(clip.texts[:asked], node.N_TEMPLATES, COSINES[0]).detach()
    judged, held_out = (clip.images(labels) for _ in range(2))
    logits, others = (SCALE * of @ texts.transpose(1, 2) for of in (judged, held_out))  # (M, N, K)
    shares = logits - offset(clip, trained)  # log(e_k / K) at level 0 on the trained list
    longer, level, of = max(asked, trained), node.EVIDENCE_LEVEL, usual_reliabilities(len(shares))
    pairs = [*((other, longer) for other in LEVELS), (level, asked), (level, longer)]
    opinions = [dempster(shares + at + math.log(listed), of) for at, listed in pairs]
    default = opinions.pop()
    means = [of.mean(dim=0).log_softmax(dim=-1) for of in (logits, others)]
    probabilities = [
        (SCALE * judged @ clip.texts[:asked].T).softmax(dim=-1),
        temperature_scaled(means[0], fit_temperature(means[1], labels)),
        *(opinion.probability for opinion in opinions),
    ]
    right = default.probability.argmax(dim=-1) == labels
    errors = [calibration(probability, labels)["ece"] for probability in probabilities]
    vacuities = [default.vacuity[of].mean().item() for of in (right, ~right)]
    return [100 * right.double().mean().item(), *errors, *vacuities]


def trained(node: CfgNode, clip: Clip, batch: int, steps: int) -> list[float]:
    """Training and test accuracy of M templates' free text features after SGD with a cosine schedule:
    by cross-entropy, and by CDC's loss."""
    classes, accuracies = len(clip.texts), []
    labels = torch.arange(SHOTS * classes) % classes
    for is_cdc in (False, True):
        images, others = (clip.images(labels, HIDDEN) for _ in range(2))
        texts = turned(clip.texts, node.N_TEMPLATES, COSINES[0])
        optimizer = torch.optim.SGD([texts], RATES[batch], momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        at_zero = offset(clip, classes)
        for _ in range(steps):
            drawn = torch.randint(len(labels), (batch,))
            features = F.normalize(texts, dim=-1)
            logits = SCALE * images[drawn] @ features.transpose(1, 2)
            loss = torch.stack([F.cross_entropy(of, labels[drawn]) for of in logits]).sum()
            if is_cdc:
                votes = cdc_votes(logits, labels[drawn], at_zero, node.EVIDENCE_START)
                loss = votes + sum(template_terms(node, features, clip.texts))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        summed = F.normalize(texts.detach(), dim=-1).sum(dim=0)
        answers = [(of @ summed.T).argmax(dim=-1) for of in (images, others)]
        accuracies += [percent_right(answer, labels) for answer in answers]
    return accuracies


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="of cfg.TRAINER.CDC")
    node = method_node(add_cdc_config)
    node.merge_from_list(parser.parse_args(argv).settings)
    torch.manual_seed(0)
    clips = {classes: Clip(classes) for classes in CLASSES}
    tables = (
        [[*of, *gradients(node, *of)] for of in itertools.product(CLASSES, COSINES)],
        [[*of, *lists(node, clips[1000], *of)] for of in itertools.product(CLASSES, LISTS)],
        [
            [classes, *how, *trained(node, clips[classes], *how)]
            for classes, *how in itertools.product(CLASSES[:2], RATES, STEPS)
        ],
    )
    for title, heads, rows in zip(TITLES, HEADS, tables):
        print(f"{title}\n\n{tabulate(rows, heads.split('|'), 'pipe', floatfmt='.3g')}\n")
    weights = node.N_TEMPLATES, node.DECOUPLING_WEIGHT
    cosine = 1 - losses.distance_at_minimum(*weights, node.CONSISTENCY_WEIGHT) ** 2 / 2
    print(f"L_de and L_con are least at a cosine of {cosine:.4f} to CLIP;")
    print(f"templates collapse from γ = {losses.collapse_weight(*weights):.0f} on")


if __name__ == "__main__":
    main()
