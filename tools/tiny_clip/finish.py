"""The tiny CLIP's last stage: mixes weights of several stages, then trains the text tower a little on fixed image features.

    PYTHONPATH=tools python -m tiny_clip.finish --sources NODE_MODULES --output output/tiny/7 \
        --weights output/tiny/5/tiny.pt output/tiny/6/tiny.pt --image 0.25 0.75 --text -1 2

A text tower mixed *beyond* a stage that trained without class names (its share above 1) knows less of the classes than either.
That leaves room for prompt learning; captions with just their names restore the weakest classes.
docs/tiny-clip.md says what was chosen and why.
"""

import argparse
import logging
import random
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import make_batch
from .evaluate import Benchmark, percent
from .model import TinyCLIP, save_deflated
from .pretrain import Material, losses
from .pretrain import parse as parse_pretraining

WEAK = 20  # percent right on train and val below which a class is named in captions
IMAGES_AT_ONCE = 64
log = logging.getLogger("finish")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sources", type=Path, required=True, help="as of pretrain.py")
    add(
        "--output",
        type=Path,
        required=True,
        help="folder for the weights; caches of the drawings are taken from there too",
    )
    add("--weights", type=Path, nargs="+", required=True, help="tiny.pt of several stages")
    add("--image", type=float, nargs="+", required=True, help="share of each in the image tower")
    add("--text", type=float, nargs="+", required=True, help="share of each in the text tower")
    add(
        "--class-captions",
        type=float,
        default=0.15,
        help="share of a weak class's captions that are its name",
    )
    add("--steps", type=int, default=250, help="of the schedule")
    add("--stop-at", type=int, default=50, help="the step whose weights are written")
    add("--batch", type=int, default=256)
    add("--phrases", type=int, default=64, help="general phrases a step, for the teacher")
    add("--lr", type=float, default=3e-4)
    args = parser.parse_args(argv)
    if not len(args.weights) == len(args.image) == len(args.text):
        parser.error("--weights, --image and --text belong together: as many shares as files")
    return args


def mixture(
    states: Sequence[Mapping[str, Tensor]], image: Sequence[float], text: Sequence[float]
) -> dict[str, Tensor]:
    """Sum of state dicts, weighted by ``image`` for the image tower and by ``text`` for the rest."""
    return {
        name: reduce(
            torch.add,
            (
                share * state[name].float()
                for share, state in zip(image if name.startswith("visual") else text, states)
            ),
        )
        for name in states[0]
    }


@torch.no_grad()
def features_of_drawings(material: Material, model: TinyCLIP) -> Tensor:
    """One augmented picture of every drawing in every stroke → unit vectors (strokes, n, embed)."""
    torch.manual_seed(5)
    found = []
    for images in material.images:
        parts = zip(images.split(IMAGES_AT_ONCE), material.may_flip.split(IMAGES_AT_ONCE))
        found.append(
            torch.cat([F.normalize(model.visual(make_batch(*part)), dim=-1) for part in parts])
        )
    return torch.stack(found)


@torch.no_grad()
def weak_classes(benchmark: Benchmark, model: TinyCLIP, material: Material) -> set[str]:
    """Names of the classes that zero-shot is hardly ever right on, over train and val."""
    text = F.normalize(
        material.encode(model, [f"a photo of a {name}." for name in benchmark.names]), dim=-1
    )
    features = benchmark.features(model.visual)
    labels = torch.cat([benchmark.labels[part] for part in features])
    right = (torch.cat(list(features.values())) @ text.T).argmax(1) == labels
    log.info("zero-shot on train and val: %s %%", percent(right))
    return {
        name for label, name in enumerate(benchmark.names) if percent(right[labels == label]) < WEAK
    }


def main(argv: Sequence[str] | None = None) -> TinyCLIP:
    args = parse(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout
    )
    settings = parse_pretraining(
        [
            "--sources",
            str(args.sources),
            "--output",
            str(args.output),
            "--teach-image",
            "3",
            "--class-words",
            "0",
        ]
    )
    material, benchmark = Material(settings), Benchmark()
    model = TinyCLIP(material.tokens, vision_width=settings.width, vision_layers=settings.layers)
    model.load_exported(
        mixture(
            [torch.load(file, weights_only=True) for file in args.weights], args.image, args.text
        )
    )
    weak = weak_classes(benchmark, model, material)
    material.captions.class_captions = {
        name: args.class_captions if name in weak else 0.0 for name in benchmark.names
    }
    log.info("captions name %s", ", ".join(sorted(weak)))
    features = features_of_drawings(material, model)

    learned = [
        parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(("visual.", "look."))
    ]
    optimiser = torch.optim.AdamW(
        learned, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    for step in range(args.stop_at):
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 50, 2 * (args.steps - step) / args.steps)
        torch.manual_seed(step)
        rng = random.Random(f"lit {step}")
        chosen, stroke = (
            torch.randint(len(material.concepts), (args.batch,)),
            torch.randint(len(features), (args.batch,)),
        )
        concepts = material.concepts[chosen]
        texts, positive, phrases = material.texts(concepts, args.phrases, rng)
        terms = losses(
            features[stroke, chosen],
            model.encode_text(texts),
            model,
            positive,
            concepts,
            phrases,
            None,
            material,
            settings,
        )
        optimiser.zero_grad()
        reduce(torch.add, terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
    weak_classes(benchmark, model, material)
    save_deflated(model.export(), args.output / "tiny.pt")
    log.info("weights: %s", args.output / "tiny.pt")
    return model


if __name__ == "__main__":
    main()
