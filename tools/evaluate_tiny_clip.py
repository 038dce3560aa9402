"""Zero-shot accuracy and linear probe of a CLIP file on a part of OpenMoji, as one JSON object.

    python tools/evaluate_tiny_clip.py trainers/prompting/weights/tiny.pt --part val

The model is the unmodified clip package's, as its clip.load makes it. Choices are made on val; test is for the one final figure.
"""
import argparse
import json
import random
from collections.abc import Sequence
from typing import Any

import clip
import torch
from clip.model import build_model
from make_openmoji_split import concept
from tiny_clip.drawings import bare
from tiny_clip.evaluate import Benchmark, percent, read_split


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--part", choices=("train", "val", "test"), default="val")
    parser.add_argument("--seed", type=int, default=1, help="of the pretraining: it says which concepts were held out")
    parser.add_argument("--held-out", type=float, default=0.2)
    args = parser.parse_args(argv)
    model = build_model(torch.load(args.weights, map_location="cpu", weights_only=True)).float()
    benchmark = Benchmark(sorted({"train", "val", args.part}))
    features = benchmark.features(model.encode_image)
    with torch.no_grad():
        found = benchmark.zero_shot(features, lambda texts: model.encode_text(clip.tokenize(texts)), args.part)
        texts = model.encode_text(clip.tokenize([f"a photo of a {name}." for name in benchmark.names]))
    right = (features[args.part] @ torch.nn.functional.normalize(texts, dim=-1).T).argmax(1) == benchmark.labels[args.part]
    held = torch.tensor([random.Random(f"{args.seed} held out {concept(bare(code))}").random() < args.held_out
                         for code, _, _ in read_split()[args.part]])
    found["concepts held out of pretraining"] = {"images": int(held.sum()), "all": percent(right[held])}
    strength, accuracy = benchmark.probe(features, args.part)
    found["linear probe on base, 16 shots, 3 seeds"] = {"C chosen on val": strength, "base": accuracy}
    print(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main()
