"""How good a CLIP file is on a part of OpenMoji: zero-shot over all, base and new classes, and what a linear probe could reach.

    PYTHONPATH=tools python -m tiny_clip.evaluate trainers/prompting/weights/tiny.pt --part val

Prints one JSON object. The model is the unmodified clip package's. Choices are made on val; test is for the one final figure.
"""

import argparse
import importlib.util
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from make_openmoji_split import concept
from torch import Tensor

from .augment import normalise
from .drawings import bare

ROOT = Path(__file__).parents[2]
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")


def read_split() -> dict[str, Any]:
    """The committed split: {"train": [[hexcode, label, class name], …], "val": …, "test": …, …}."""
    return json.loads(
        (ROOT / "datasets" / "drawn" / "openmoji_split.json").read_text(encoding="utf-8")
    )


def draw(items: Iterable[tuple[str, int, str]]) -> Tensor:
    """Items of the split → normalised images (n, 3, 64, 64). Loads the drawing code by its file: no Dassl needed."""
    spec = importlib.util.spec_from_file_location(
        "emoji_font", ROOT / "datasets" / "drawn" / "emoji_font.py"
    )
    assert spec is not None and spec.loader is not None
    font = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(font)
    pixels = np.stack([np.asarray(font.draw_emoji(code)) for code, _, _ in items])
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)


class Benchmark:
    """Images and labels of the parts of the split, drawn once."""

    def __init__(self, parts: Iterable[str] = ("train", "val")) -> None:
        split = read_split()
        self.names = [
            name for _, name in sorted({(label, name) for _, label, name in split["train"]})
        ]
        self.images = {part: draw(split[part]) for part in parts}
        self.labels = {part: torch.tensor([label for _, label, _ in split[part]]) for part in parts}

    @torch.no_grad()
    def features(self, encode_image: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """→ {part: unit vectors (n, embed)}, what the two methods below judge."""
        return {
            part: torch.cat(
                [F.normalize(encode_image(x).float(), dim=-1) for x in images.split(256)]
            )
            for part, images in self.images.items()
        }

    @torch.no_grad()
    def zero_shot(
        self, features: dict[str, Tensor], encode_texts: Callable[[list[str]], Tensor], part: str
    ) -> dict[str, dict[str, Any]]:
        """encode_texts: list of strings → (n, embed). → {template: {"all", "base", "new": % right, "classes": {name: %}}}"""
        images, labels = features[part], self.labels[part]
        half = -(-len(self.names) // 2)
        found = {}
        for template in TEMPLATES:
            texts = F.normalize(
                encode_texts([template.format(n) for n in self.names]).float(), dim=-1
            )
            logits = images @ texts.T
            right = logits.argmax(1) == labels
            result: dict[str, Any] = {"all": percent(right)}
            for name, low, high in (("base", 0, half), ("new", half, len(self.names))):
                inside = (labels >= low) & (labels < high)
                result[name] = percent(logits[inside, low:high].argmax(1) + low == labels[inside])
            result["classes"] = {n: percent(right[labels == k]) for k, n in enumerate(self.names)}
            found[template] = result
        return found

    def probe(
        self,
        features: dict[str, Tensor],
        part: str,
        shots: int = 16,
        seeds: Sequence[int] = (1, 2, 3),
        strengths: Sequence[float] = (1, 10, 100),
    ) -> tuple[float, float]:
        """Linear probe on the base classes: `shots` train images a class. → (best C on val, % right on `part`, seed mean)"""
        from sklearn.linear_model import LogisticRegression

        half = -(-len(self.names) // 2)
        kept = {}
        for name in {"train", "val", part}:
            inside = self.labels[name] < half
            kept[name] = (features[name][inside].numpy(), self.labels[name][inside].numpy())
        scores: dict[float, dict[str, list[float]]] = {c: {"val": [], part: []} for c in strengths}
        for seed in seeds:
            rng = np.random.default_rng(seed)
            x, y = kept["train"]
            chosen = np.concatenate(
                [rng.permutation(np.flatnonzero(y == k))[:shots] for k in range(half)]
            )
            for c in strengths:
                model = LogisticRegression(C=c, max_iter=1000).fit(x[chosen], y[chosen])
                for name in scores[c]:
                    scores[c][name].append(100 * model.score(*kept[name]))
        best = max(strengths, key=lambda c: np.mean(scores[c]["val"]))
        return best, round(float(np.mean(scores[best][part])), 1)


def percent(right: Tensor) -> float:
    return round(100 * right.float().mean().item(), 1)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--part", choices=("train", "val", "test"), default="val")
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="of the pretraining: it says which concepts were held out",
    )
    parser.add_argument("--held-out", type=float, default=0.2)
    args = parser.parse_args(argv)
    import clip
    from clip.model import build_model

    model = build_model(torch.load(args.weights, map_location="cpu", weights_only=True)).float()
    benchmark = Benchmark(sorted({"train", "val", args.part}))
    features = benchmark.features(model.encode_image)
    with torch.no_grad():
        found = benchmark.zero_shot(
            features, lambda texts: model.encode_text(clip.tokenize(texts)), args.part
        )
        texts = model.encode_text(
            clip.tokenize([f"a photo of a {name}." for name in benchmark.names])
        )
    right = (features[args.part] @ F.normalize(texts, dim=-1).T).argmax(1) == benchmark.labels[
        args.part
    ]
    held = torch.tensor(
        [
            random.Random(f"{args.seed} held out {concept(bare(code))}").random() < args.held_out
            for code, _, _ in read_split()[args.part]
        ]
    )
    found["concepts held out of pretraining"] = {
        "images": int(held.sum()),
        "all": percent(right[held]),
    }
    strength, accuracy = benchmark.probe(features, args.part)
    found["linear probe on base, 16 shots, 3 seeds"] = {
        "C chosen on val": strength,
        "base": accuracy,
    }
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
