"""Pretrain the tiny CLIP on open drawing sets (never on OpenMoji) and write it in OpenAI's format.

    PYTHONPATH=tools python -m tiny_clip.pretrain --sources NODE_MODULES --output output/tiny_clip

A stopped command, given again, resumes to the same weights. docs/tiny-clip.md says what to install first,
how long it takes and what came out.
"""

import argparse
import json
import logging
import math
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from make_openmoji_split import concept
from torch import Tensor

from .augment import make_batch
from .captions import LONGEST, TEMPLATES, Captions, caption_ids, teach
from .drawings import STROKES, bare, load_drawings, read_concepts
from .evaluate import Benchmark, read_split
from .image_teacher import DIMENSIONS, load_looks
from .model import TinyCLIP, save_deflated

START, END = 49406, 49407
log = logging.getLogger("pretrain")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--sources",
        type=Path,
        required=True,
        help="node_modules with @iconify-json/* and emojibase-data",
    )
    add(
        "--output",
        type=Path,
        required=True,
        help="folder for the caches, the checkpoint, the curve and the weights",
    )
    add(
        "--steps",
        type=int,
        default=6000,
        help="in all; may be changed while the last --decay-steps have not started",
    )
    add(
        "--decay-steps",
        type=int,
        default=1000,
        help="the last steps, over which the learning rate falls to zero",
    )
    add(
        "--patches",
        type=int,
        default=32,
        help="of the 64 patches of an image, how many are seen at a time",
    )
    add(
        "--stop-at",
        type=int,
        default=None,
        help="stop at this step, to be continued; the schedule stays that of --steps",
    )
    add("--batch", type=int, default=256, help="images a step")
    add("--phrases", type=int, default=96, help="general phrases a step, for the teacher")
    add("--width", type=int, default=192, help="of the vision tower")
    add("--layers", type=int, default=4, help="of the vision tower")
    add("--seed", type=int, default=1)
    add("--lr", type=float, default=8e-4)
    add("--held-out", type=float, default=0.2, help="share of the concepts that are never seen")
    add(
        "--class-words",
        type=float,
        default=0.02,
        help="share of captions that may use a keyword naming the class",
    )
    add(
        "--class-captions",
        type=float,
        default=0.0,
        help="share of captions that are the name of the concept's class",
    )
    add(
        "--image-class-words",
        type=float,
        default=0.0,
        help="share of images that the teacher compares with class names too",
    )
    add(
        "--teach-text",
        type=float,
        default=1.0,
        help="weight of the teacher on caption-phrase and phrase-phrase similarity",
    )
    add(
        "--teach-image",
        type=float,
        default=0.3,
        help="weight of the teacher on image-phrase similarity ",
    )
    add(
        "--teach-look",
        type=float,
        default=0.0,
        help="weight of the image teacher: what a linear map of the image's features should tell",
    )
    add("--every", type=int, default=250, help="steps between checkpoints and evaluations")
    add(
        "--begin-from",
        type=Path,
        help="a checkpoint of an earlier stage: its weights, optimiser and step, under the settings given now; "
        "or a file of weights (tiny.pt): these alone, at step 0",
    )
    add(
        "--bf16",
        action="store_true",
        help="towers in bfloat16: several times faster where the CPU has it, many times slower where not",
    )
    add("--no-evaluation", action="store_true", help="log the losses only")
    return parser.parse_args(argv)


class Material:
    """Everything training draws from, with held-out concepts already taken out."""

    def __init__(self, args: argparse.Namespace) -> None:
        images, codes, _ = load_drawings(args.sources, args.output / "drawings.npz")
        records = read_concepts(args.sources)
        kept = {
            c: r
            for c, r in records.items()
            if random.Random(f"{args.seed} held out {concept(c)}").random() >= args.held_out
        }
        split = read_split()
        names = sorted({name for _, _, name in split["train"]})
        subgroups = json.loads(
            (args.sources / "emojibase-data/en/messages.json").read_text(encoding="utf-8")
        )["subgroups"]
        class_of = {
            bare(code): name for part in ("train", "val", "test") for code, _, name in split[part]
        }
        self.captions = Captions(
            kept,
            names,
            {s["key"].replace("-", " ") for s in subgroups},
            args.class_words,
            class_of,
            args.class_captions,
        )
        index = {c: i for i, c in enumerate(self.captions.codes)}
        chosen = np.array([i for i, c in enumerate(codes) if c in index])
        self.images = (
            torch.from_numpy(images[:, chosen]).permute(0, 1, 4, 2, 3).contiguous()
        )  # (strokes, n, 4, 64, 64)
        self.concepts = torch.tensor([index[codes[i]] for i in chosen])
        symbols = {
            8,
            9,
        }  # emojibase's groups of symbols and flags: a mirrored arrow or letter is another one
        self.may_flip = torch.tensor([records[codes[i]]["group"] not in symbols for i in chosen])
        self.tokens = sorted(
            {START, END, 0}
            | {t for text in self.captions.texts() for t in caption_ids(text)}
            | {t for template in TEMPLATES for t in caption_ids("", template)}
        )
        self.place = {t: i for i, t in enumerate(self.tokens)}
        log.info(
            "%d images of %d concepts, %d concepts held out, %d tokens; %.1f %% of captions name their class",
            len(chosen),
            len(kept),
            len(records) - len(kept),
            len(self.tokens),
            100 * self.captions.share_naming_a_class(),
        )
        if args.teach_text or args.teach_image:
            self.taught, self.phrases = map(
                torch.from_numpy, teach(self.captions, args.output / "teacher.npz")
            )
        if args.teach_look:
            thin = STROKES.index(0.014)
            self.looks = torch.from_numpy(
                load_looks(images[thin], args.output / "looks.npy")[chosen]
            )

    def compact(self, ids: Sequence[Sequence[int]], length: int) -> Tensor:
        """List of token id tuples → (n, length) positions in `tokens`, with start and end marks, zero-padded."""
        rows = torch.zeros(len(ids), length, dtype=torch.long)
        for row, found in zip(rows, ids):
            full = [START, *found, END]
            row[: len(full)] = torch.tensor([self.place.get(t, 0) for t in full])
        return rows

    def batch(self, step: int, args: argparse.Namespace) -> tuple[Any, ...]:
        """The batch of a step, a function of seed and step alone."""
        steps_an_epoch = len(self.concepts) // args.batch
        if steps_an_epoch == 0:
            raise ValueError(f"{len(self.concepts)} drawings do not fill one batch of {args.batch}")
        epoch, turn = divmod(step, steps_an_epoch)
        order = np.random.default_rng((args.seed, epoch)).permutation(len(self.concepts))
        chosen = torch.from_numpy(order[turn * args.batch : (turn + 1) * args.batch])
        torch.manual_seed(args.seed * 1_000_003 + step)
        rng = random.Random(f"{args.seed} {step}")
        stroke = torch.randint(len(self.images), (args.batch,))
        images = make_batch(self.images[stroke, chosen], self.may_flip[chosen])
        concepts = self.concepts[chosen]
        texts, positive, phrases = self.texts(concepts, args.phrases, rng)
        keep = torch.rand(args.batch, 64).topk(args.patches).indices
        looks = self.looks[chosen] if args.teach_look else None
        return images, keep, texts, positive, concepts, phrases, looks

    def texts(
        self, concepts: Tensor, phrases: int, rng: random.Random
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A caption of each concept (b,), then `phrases` general phrases.

        → ((b + p, LONGEST) compact, (b, b) which captions are right for which concept, (p,) the phrases)
        """
        texts, ids = zip(*(self.captions.draw(c, rng) for c in concepts.tolist()))
        general = self.captions.general
        chosen = rng.sample(range(len(general)), min(phrases, len(general)))
        ids += tuple(caption_ids(general[p], rng.choice(TEMPLATES)) for p in chosen)
        number = {t: i for i, t in enumerate(sorted(set(texts)))}
        spoken = torch.tensor([number[t] for t in texts])
        return (
            self.compact(ids, LONGEST),
            (concepts[:, None] == concepts) | (spoken[:, None] == spoken),
            torch.tensor(chosen),
        )

    def encode(self, model: TinyCLIP, texts: Sequence[str]) -> Tensor:
        """List of strings → (n, embed)."""
        return model.encode_text(self.compact([caption_ids(text) for text in texts], LONGEST))


def agree(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL divergence of the student's row distributions from the teacher's; both are similarities, mask: what to leave out."""
    if mask is not None:
        student, teacher = student.masked_fill(mask, -1e4), teacher.masked_fill(mask, -1e4)
    return F.kl_div(F.log_softmax(student, 1), F.softmax(teacher, 1), reduction="batchmean")


def losses(
    image: Tensor,
    text: Tensor,
    model: TinyCLIP,
    positive: Tensor,
    concepts: Tensor,
    phrases: Tensor,
    looks: Tensor | None,
    material: Material,
    args: argparse.Namespace,
) -> dict[str, Tensor]:
    """image (b, e), text (b + p, e): captions, then phrases; looks (b, d) → dictionary of terms, already weighted."""
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    spoken, general = text[: len(image)], text[len(image) :]
    logits = model.logit_scale.exp() * image @ spoken.T
    target = positive.float() / positive.sum(
        1, keepdim=True
    )  # several captions of a batch may be right
    terms = {"clip": (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2}
    if args.teach_text or args.teach_image:
        known, bank = material.taught[concepts], material.phrases[phrases]
        wanted = known @ bank.T / 0.1
    if args.teach_text:
        itself = torch.eye(len(bank), dtype=torch.bool)
        terms["text"] = args.teach_text * (
            agree(20 * spoken @ general.T, wanted)
            + 0.5 * agree(20 * general @ general.T, bank @ bank.T / 0.1, itself)
        )
    if args.teach_image:
        hidden = ~torch.from_numpy(material.captions.safe)[phrases] & (
            torch.rand(len(image), 1) >= args.image_class_words
        )
        terms["image"] = args.teach_image * agree(20 * image @ general.T, wanted, hidden)
    if args.teach_look and looks is not None:
        terms["look"] = args.teach_look * (1 - F.cosine_similarity(model.look(image), looks)).mean()
    return terms


def judge(benchmark: Benchmark, model: TinyCLIP, material: Material) -> dict[str, Any]:
    """Zero-shot on train and val (nothing of OpenMoji is trained on) and the probe on val, for the curve."""
    features = benchmark.features(model.visual)
    line: dict[str, Any] = {}
    for part in features:
        for template, result in benchmark.zero_shot(
            features, lambda texts: material.encode(model, texts), part
        ).items():
            line[f"{part} {template}"] = [result[name] for name in ("all", "base", "new")]
    line["probe_base_val"] = benchmark.probe(features, "val", seeds=(1,), strengths=(10,))[1]
    return line


def check_continuation(
    checkpoint: Path, kept: Mapping[str, Any], settings: Mapping[str, Any], args: argparse.Namespace
) -> None:
    """Exits with one line where continuing would not give the weights of an uninterrupted run."""
    if kept["settings"] != settings:
        raise SystemExit(f"{checkpoint} was made with other settings: {kept['settings']}")
    if (
        kept["steps"] != args.steps
        and kept["step"] > min(kept["steps"], args.steps) - args.decay_steps
    ):
        raise SystemExit(
            f"{checkpoint} is in the last steps of {kept['steps']}: too late for another number of steps"
        )


def main(argv: Sequence[str] | None = None) -> TinyCLIP:
    args = parse(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    args.output.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout
    )
    material = Material(args)
    torch.manual_seed(args.seed)
    model = TinyCLIP(
        material.tokens,
        vision_width=args.width,
        vision_layers=args.layers,
        look_dimensions=DIMENSIONS,
    )
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=args.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    settings = {
        k: v
        for k, v in vars(args).items()
        if k
        not in ("sources", "output", "steps", "stop_at", "every", "begin_from", "no_evaluation")
    }
    checkpoint, first = args.output / "checkpoint.pt", 0
    source = checkpoint if checkpoint.exists() else args.begin_from
    if source:
        kept = torch.load(source, weights_only=True)
        if source == checkpoint:
            check_continuation(checkpoint, kept, settings, args)
        if "model" in kept:
            model.load_state_dict(kept["model"])
            optimiser.load_state_dict(kept["optimiser"])
            first = kept["step"]
        else:
            model.load_exported(kept)
        log.info("continuing from %s at step %d", source, first)
    benchmark = None if args.no_evaluation else Benchmark()
    started, seen = time.monotonic(), 0
    last = min(args.steps, args.stop_at or args.steps)
    sums: dict[str, float] = {}
    for step in range(first, last):
        rate = args.lr * min(1, (step + 1) / 300, (args.steps - step) / args.decay_steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, keep, texts, positive, concepts, phrases, looks = material.batch(step, args)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            image, text = model.visual(images, keep), model.encode_text(texts)
        terms = losses(image, text, model, positive, concepts, phrases, looks, material, args)
        optimiser.zero_grad()
        reduce(torch.add, terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        seen += args.batch
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.item()
        if (step + 1) % 50 == 0:
            log.info(
                "step %d of %d, %.0f images/s since the start",
                step + 1,
                args.steps,
                seen / (time.monotonic() - started),
            )
        if (step + 1) % args.every == 0 or step + 1 == last:
            done = (step % args.every) + 1
            line = {
                "step": step + 1,
                "images_per_second": round(seen / (time.monotonic() - started)),
                **{f"loss_{name}": round(value / done, 3) for name, value in sums.items()},
            }
            sums = {}
            if benchmark:
                line.update(judge(benchmark, model, material))
            log.info("%s", json.dumps(line))
            with open(args.output / "curve.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            temporary = checkpoint.with_suffix(".tmp")
            torch.save(
                {
                    "settings": settings,
                    "steps": args.steps,
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                },
                temporary,
            )
            os.replace(temporary, checkpoint)
    save_deflated(model.export(), args.output / "tiny.pt")
    log.info("weights: %s", args.output / "tiny.pt")
    return model


if __name__ == "__main__":
    main()
