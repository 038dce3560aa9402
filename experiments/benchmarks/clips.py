"""What models of ``open_clip`` cost, with random weights: parameters, GFLOP of a picture, and how long one
core computes for it.

    python -m experiments.benchmarks.clips ViT-B-16 PE-Core-B-16 ViT-B-16-SigLIP2

The image towers are those that a run has: CLIP's own are ours, the others the package's. Nothing is
downloaded. Time is the processor's, of one thread, which other processes hardly change; of several
batches the fastest counts.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainers.prompting.backbone import image_encoder
from trainers.prompting.black_box import ImageBox
from trainers.prompting.transformer import GELU, QUICK_GELU
from trainers.prompting.weights.open_clip_models import build, is_clips, kind_of

BATCH = 4
BATCHES = 5


def image_tower(config: dict[str, Any], package: Any) -> nn.Module:
    """The image tower that a run on a model of the package has."""
    vision = {**vars(open_clip.CLIPVisionCfg()), **config["vision_cfg"]}
    if not is_clips(vision, open_clip.CLIPVisionCfg()):
        return ImageBox(package.visual, vision["image_size"], kind_of(package.visual))
    activation = QUICK_GELU if config.get("quick_gelu") else GELU
    state = package.visual.state_dict()
    return image_encoder(state, vision["head_width"], activation, config["embed_dim"])


def millions(module: nn.Module) -> float:
    """How many parameters a module has, in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def milliseconds(tower: nn.Module, images: Tensor) -> float:
    """The processor's time for a picture in the fastest batch."""
    taken = []
    for _ in range(BATCHES):
        started = time.process_time()
        tower(images)
        taken.append(time.process_time() - started)
    return 1000 * min(taken) / BATCH


@torch.no_grad()
def measured(model: str) -> dict[str, float]:
    """Column → value of a model."""
    config = open_clip.get_model_config(model)
    package: Any = build(config).eval().requires_grad_(False)
    tower = image_tower(config, package).eval().requires_grad_(False)
    size = config["vision_cfg"].get("image_size", 224)
    images = torch.randn(1, BATCH, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        tower(images)
    return {
        "image parameters (M)": millions(package.visual),
        "text parameters (M)": millions(package.text),
        "pixels": size,
        "GFLOP per picture": counter.get_total_flops() / BATCH / 1e9,
        "ms of one core per picture": milliseconds(tower, images),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("models", nargs="+", metavar="MODEL", help="of open_clip.list_models()")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # the package's attention in operations that are counted
    torch.backends.mha.set_fastpath_enabled(False)
    rows = [{"model": f"`{model}`", **measured(model)} for model in args.models]
    print(tabulate(rows, "keys", "github", floatfmt=".0f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
