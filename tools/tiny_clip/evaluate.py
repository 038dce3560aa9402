"""How good a tiny CLIP is on OpenMoji: zero-shot over all, base and new classes, and what a linear probe could reach."""
import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import normalise

ROOT = Path(__file__).parents[2]
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")


def read_split() -> dict[str, Any]:
    """The committed split: {"train": [[hexcode, label, class name], …], "val": …, "test": …, …}."""
    return json.loads((ROOT / "datasets" / "drawn" / "openmoji_split.json").read_text(encoding="utf-8"))


def draw(items: Iterable[tuple[str, int, str]]) -> Tensor:
    """Items of the split → normalised images (n, 3, 64, 64). Loads the drawing code by its file: no Dassl needed."""
    spec = importlib.util.spec_from_file_location("emoji_font", ROOT / "datasets" / "drawn" / "emoji_font.py")
    assert spec is not None and spec.loader is not None
    font = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(font)
    pixels = np.stack([np.asarray(font.draw_emoji(code)) for code, _, _ in items])
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)


class Benchmark:
    """Images and labels of the parts of the split, drawn once."""

    def __init__(self, parts: Iterable[str] = ("train", "val")) -> None:
        split = read_split()
        self.names = [name for _, name in sorted({(label, name) for _, label, name in split["train"]})]
        self.images = {part: draw(split[part]) for part in parts}
        self.labels = {part: torch.tensor([label for _, label, _ in split[part]]) for part in parts}

    @torch.no_grad()
    def features(self, encode_image: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """→ {part: unit vectors (n, embed)}, what the two methods below judge."""
        return {part: torch.cat([F.normalize(encode_image(x).float(), dim=-1) for x in images.split(256)])
                for part, images in self.images.items()}

    @torch.no_grad()
    def zero_shot(self, features: dict[str, Tensor], encode_texts: Callable[[list[str]], Tensor], part: str) -> dict[str, dict[str, Any]]:
        """encode_texts: list of strings → (n, embed). → {template: {"all", "base", "new": % right, "classes": {name: %}}}"""
        images, labels = features[part], self.labels[part]
        half = -(-len(self.names) // 2)
        found = {}
        for template in TEMPLATES:
            texts = F.normalize(encode_texts([template.format(n) for n in self.names]).float(), dim=-1)
            logits = images @ texts.T
            right = logits.argmax(1) == labels
            result: dict[str, Any] = {"all": percent(right)}
            for name, low, high in (("base", 0, half), ("new", half, len(self.names))):
                inside = (labels >= low) & (labels < high)
                result[name] = percent(logits[inside, low:high].argmax(1) + low == labels[inside])
            result["classes"] = {n: percent(right[labels == k]) for k, n in enumerate(self.names)}
            found[template] = result
        return found

    def probe(self, features: dict[str, Tensor], part: str, shots: int = 16, seeds: Sequence[int] = (1, 2, 3),
              strengths: Sequence[float] = (1, 10, 100)) -> tuple[float, float]:
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
            chosen = np.concatenate([rng.permutation(np.flatnonzero(y == k))[:shots] for k in range(half)])
            for c in strengths:
                model = LogisticRegression(C=c, max_iter=1000).fit(x[chosen], y[chosen])
                for name in scores[c]:
                    scores[c][name].append(100 * model.score(*kept[name]))
        best = max(strengths, key=lambda c: np.mean(scores[c]["val"]))
        return best, round(float(np.mean(scores[best][part])), 1)


def percent(right: Tensor) -> float:
    return round(100 * right.float().mean().item(), 1)
