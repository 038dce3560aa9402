"""What is measured: CLIPs of the published shapes with random weights, real class names, and trainers on made-up images."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from measure import DEVICE, REPOSITORY
import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from torchvision.models import ResNet50_Weights
from tqdm import tqdm
from yacs.config import CfgNode

import reference
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from trainers.base import PromptTrainer
from trainers.prompting import clip
from trainers.prompting.backbone import Backbone, build_backbone


@dataclass(frozen=True)
class Shape:
    """Sizes of a CLIP, under the names of ``clip.model.CLIP``'s arguments."""

    embed_dim: int
    image_resolution: int
    vision_layers: object  # a number, or four of them for a ResNet
    vision_width: int
    vision_patch_size: object  # None for a ResNet
    transformer_width: int
    transformer_heads: int
    transformer_layers: int
    context_length: int = 77
    vocab_size: int = 49408


VIT_B16 = Shape(512, 224, 12, 768, 16, 512, 8, 12)
VIT_L14 = Shape(768, 224, 24, 1024, 14, 768, 12, 12)
RN50 = Shape(1024, 224, (3, 4, 6, 3), 64, None, 512, 8, 12)
SMALL = Shape(128, 64, 4, 192, 8, 192, 3, 4)  # for --quick


def state_dict(shape: Shape) -> dict[str, Tensor]:
    """Random weights of a shape, in OpenAI's format, as CLIP initialises them; always the same."""
    torch.manual_seed(0)
    return clip.model.CLIP(**asdict(shape)).float().state_dict()


def random_backbone(shape: Shape) -> Backbone:
    return build_backbone(state_dict(shape)).to(DEVICE)


def class_names(classes: int) -> list[str]:
    """ImageNet's class names, at most 1000, as the installed torchvision holds them for its ResNet-50.

    Fewer are taken evenly spaced from the whole list, so that their lengths are distributed alike: of the
    thousand, 30 % have one CLIP token, 54 % two, 11 % three, 3 % four, 2 % five to seven.
    """
    names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    return [names[index * len(names) // classes] for index in range(classes)]


def build_trainer(
    name: str, shape: Shape, classes: int, options: Sequence[Any] = (), recipe: str = "vit_b16"
) -> PromptTrainer:
    """The real trainer with one of its recipes and no data set, ready for ``forward_backward`` and ``answer``.

    Args:
        name: as registered.
        shape: of the backbone.
        classes: K.
        options: KEY, value pairs over the recipe.
        recipe: in ``configs/trainers/<name>``.
    """
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "random.pt"
        torch.save(state_dict(shape), backbone)
        cfg = read_recipe(
            name,
            recipe,
            "imagenet",
            "MODEL.BACKBONE.NAME",
            str(backbone),
            "INPUT.SIZE",
            str((shape.image_resolution,) * 2),
            *map(str, options),
        )
        trainer = TRAINER_REGISTRY.get(name)(cfg, class_names(classes))
    make_ready(trainer)
    return trainer


def read_recipe(trainer: str, recipe: str, dataset: str, *options: str) -> CfgNode:
    """The config of a trainer's recipe on a data set, with KEY, value pairs over it."""
    folder = REPOSITORY / "configs"
    return build_config(
        parse_arguments(
            [
                "--trainer",
                trainer,
                "--config-file",
                str(folder / "trainers" / trainer / f"{recipe}.yaml"),
                "--dataset-config-file",
                str(folder / "datasets" / f"{dataset}.yaml"),
                "VERBOSE",
                "False",
                *options,
            ]
        )
    )


def make_ready(trainer: PromptTrainer) -> None:
    """Prepares the trainer for steps outside an epoch's loop."""
    trainer.progress = tqdm(disable=True)
    trainer.batch_idx, trainer.num_batches = (
        0,
        2,
    )  # never the last of an epoch: the learning rate stays
    trainer.set_model_mode("train")


def in_the_usual_way(trainer: PromptTrainer) -> PromptTrainer:
    """The trainer with the usual encoders in place of ours; both encode the hand-crafted texts once in a run."""
    if trainer.cfg.TRAINER.NAME == "CDC":
        trainer.hand_crafted  # noqa: B018  (cached from here on)
    trainer.backbone = reference.usual(trainer.backbone)
    return trainer


@contextlib.contextmanager
def usual_fusion() -> Iterator[None]:
    """Within it, Dempster's rule is applied pairwise."""
    with mock.patch("trainers.cdc.dempster", reference.dempster):
        yield


def random_images(batch: int, shape: Shape) -> Tensor:
    """(B, 3, H, W), distributed like normalised ones."""
    return torch.randn(batch, 3, shape.image_resolution, shape.image_resolution)


def training_batch(batch: int, views: int, shape: Shape, classes: int) -> dict[str, Any]:
    """What the loader hands to ``forward_backward``: B images in as many views, and labels."""
    size = batch, 3, shape.image_resolution, shape.image_resolution
    return {
        "img": [torch.randint(0, 256, size, dtype=torch.uint8) for _ in range(views)],
        "label": torch.arange(batch) % classes,
    }
