"""What CDC's default loss weights do for a CLIP of the usual size: losses, gradients and vacuity on simulated features.

    python tools/simulate_losses.py [KEY VALUE ...]      # of cfg.TRAINER.CDC: N_TEMPLATES, DECOUPLING_WEIGHT, EVIDENCE_START ...

Features of E = 512 numbers whose cosines are those of CLIP ViT-B/16: an image with its own class's text 0.30 ± 0.03, with others 0.22 ± 0.02;
the logit scale is 100, the batch 4 as in the recipes. Each template lies at a given cosine to CLIP's own features, in a direction of its own.
Prints, for K classes, the length of each loss term's gradient by one template's features (all K texts, or all images of the batch).
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from dassl.config import get_cfg_default  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch import Tensor  # noqa: E402
from yacs.config import CfgNode  # noqa: E402

from trainers.cdc import add_cdc_config  # noqa: E402
from trainers.evidence import Opinion, dempster, trusted_cross_entropy, usual_reliability  # noqa: E402
from trainers.losses import collapse_weight, consistency_loss, decoupling_loss, distance_at_minimum  # noqa: E402

WIDTH, SCALE, BATCH, PICTURES = 512, 100.0, 4, 400
COSINES = (0.99, 0.95)  # of a template's features to CLIP's own
CLASSES = (10, 100, 1000)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def clip_features(classes: int, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Texts (K, E), images (B, E) and labels (B,): all share one direction, and an image has a part of its class's own."""
    common = torch.zeros(WIDTH, dtype=torch.float64)
    common[0] = 1
    own, noise = unit(classes, WIDTH), unit(images, WIDTH)
    own[:, 0] = noise[:, 0] = 0
    texts = F.normalize(0.85 * common + 0.53 * own, dim=-1)
    labels = torch.arange(images) % classes
    part = (0.08 + 0.02 * torch.randn(images, 1, dtype=torch.float64)) / 0.53
    pictures = 0.22 / 0.85 * common + part * own[labels]
    return (
        texts,
        pictures
        + (1 - pictures.square().sum(dim=-1, keepdim=True)).sqrt() * F.normalize(noise, dim=-1),
        labels,
    )


def turned(features: Tensor, templates: int, cosine: float) -> Tensor:
    """Features (M, N, E) at a cosine to given ones (N, E), each template in a direction of its own, at random."""
    away = unit(templates, *features.shape)
    away = F.normalize(away - (away * features).sum(dim=-1, keepdim=True) * features, dim=-1)
    return (cosine * features + math.sqrt(1 - cosine**2) * away).requires_grad_()


def gradient(loss: Tensor, features: Tensor) -> float:
    """Length of a loss's gradient by one template's features (M, N, E), along the sphere that they lie on; mean over templates."""
    (found,) = torch.autograd.grad(loss, features, retain_graph=True)
    along = found - (found * features).sum(dim=-1, keepdim=True) * features
    return along.norm(dim=(1, 2)).mean().item()


def gradients(node: CfgNode, classes: int, cosine: float) -> list[float]:
    """By texts: cross-entropy, trusted loss, β L_de, γ L_con; by images: cross-entropy, β L_de, γ L_con."""
    templates = node.N_TEMPLATES
    clip_texts, clip_images, labels = clip_features(classes, BATCH)
    texts, images = turned(clip_texts, templates, cosine), turned(clip_images, templates, cosine)
    logits = SCALE * images @ texts.transpose(1, 2)  # (M, B, K)
    every = labels.expand(templates, -1)
    evidence = logits - offset(node, classes)
    votes = F.cross_entropy(logits.transpose(1, 2), every, reduction="none").mean(dim=1).sum()
    trusted = (
        trusted_cross_entropy(Opinion(evidence), every).mean(dim=1).sum()
        + trusted_cross_entropy(dempster(evidence), labels).mean()
    )
    held = ((texts, clip_texts), (images, clip_images))
    apart = [node.DECOUPLING_WEIGHT * decoupling_loss(*pair) for pair in held]
    near = [node.CONSISTENCY_WEIGHT * templates * consistency_loss(*pair) for pair in held]
    by_texts, by_images = (votes, trusted, apart[0], near[0]), (votes, apart[1], near[1])
    return [
        *(gradient(loss, texts) for loss in by_texts),
        *(gradient(loss, images) for loss in by_images),
    ]


def offset(node: CfgNode, classes: int) -> float:
    """b as CDC sets it from zero-shot logits."""
    texts, images, _ = clip_features(classes, PICTURES)
    return (
        (SCALE * images @ texts.T).logsumexp(dim=-1).mean().item()
        - math.log(classes)
        - node.EVIDENCE_START
    )


def vacuities(node: CfgNode, classes: int) -> list[float]:
    """Accuracy in percent; vacuity of right and of wrong zero-shot answers, of one template, and of M fused ones with ``usual_reliability``."""
    texts, images, labels = clip_features(classes, PICTURES)
    evidence = (SCALE * images @ texts.T - offset(node, classes))[None].expand(
        node.N_TEMPLATES, -1, -1
    )  # (M, N, K)
    right = evidence[0].argmax(dim=-1) == labels
    of = (
        Opinion(evidence[0]).vacuity,
        dempster(evidence, usual_reliability(node.N_TEMPLATES)).vacuity,
    )
    return [
        100 * right.double().mean().item(),
        *(vacuity[chosen].mean().item() for vacuity in of for chosen in (right, ~right)),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "settings", nargs="*", metavar="KEY VALUE", help="of cfg.TRAINER.CDC, over its defaults"
    )
    args = parser.parse_args(argv)
    cfg = get_cfg_default()
    add_cdc_config(cfg)
    node = cfg.TRAINER.CDC
    node.merge_from_list(args.settings)
    torch.manual_seed(0)
    heads = [
        "K",
        "cosine to CLIP",
        "texts: CE",
        "trusted loss",
        "β L_de",
        "γ L_con",
        "images: CE",
        "β L_de",
        "γ L_con",
    ]
    print("Length of the gradient by a template's features\n")
    rows = [
        [classes, cosine, *gradients(node, classes, cosine)]
        for classes in CLASSES
        for cosine in COSINES
    ]
    print(tabulate(rows, heads, "pipe", floatfmt=".3g"))
    print(f"\nVacuity of zero-shot answers, EVIDENCE_START {node.EVIDENCE_START:g}\n")
    heads = [
        "K",
        "accuracy %",
        "one template, right",
        "one template, wrong",
        "fused, right",
        "fused, wrong",
    ]
    print(
        tabulate(
            [[classes, *vacuities(node, classes)] for classes in CLASSES],
            heads,
            "pipe",
            floatfmt=".2f",
        )
    )
    templates, beta = node.N_TEMPLATES, node.DECOUPLING_WEIGHT
    distance = distance_at_minimum(templates, beta, node.CONSISTENCY_WEIGHT)
    print(
        f"\nWithout the votes L_de and L_con are least at a cosine of {1 - distance**2 / 2:.4f} to CLIP; templates collapse from γ = "
        f"{collapse_weight(templates, beta):.0f} on"
    )


if __name__ == "__main__":
    main()
