"""Can a CLIP tell class names apart? It reads names through its tokens, of which a small CLIP has learned a few only.

Pure functions of names, token rows and text features; ``check_names`` asks them of a method's.
"""

import logging
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .common.errors import UserError
from .prompting.tokens import TOKENIZER, readable
from .templates import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from .method import Method

log = logging.getLogger(__name__)
Groups = list[list[str]]
SAME = (
    1e-4  # distance of two texts' features below which they are one: rounding's in half precision
)
RATIO = 1.5  # of two classes' probabilities: where no picture can exceed it, they are too near
PAIRS = 1000  # that are looked at, at most
NAMED = 5  # groups in a message, at most


def alike(names: Iterable[str]) -> Groups:
    """Groups of names that differ in case, spaces or Unicode form only, or not at all."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = unicodedata.normalize("NFKC", readable(name)).casefold()
        groups[" ".join(key.split())].append(name)
    return [group for group in groups.values() if len(group) > 1]


def unknown_tokens(rows: Tensor) -> Tensor:
    """Which of V tokens a CLIP has not learned, (V,) bool: those that share their row of the table (V, E) with another."""
    _, places, counts = rows.detach().unique(dim=0, return_inverse=True, return_counts=True)
    return counts[places] > 1


def unknown_words(names: Iterable[str], unknown: Tensor) -> dict[str, list[str]]:
    """Name → its words of which a token is unknown, see ``unknown_tokens``; names without such words are left out."""
    words = {
        name: [word for word in readable(name).split() if unknown[TOKENIZER.encode(word)].any()]
        for name in names
    }
    return {name: missing for name, missing in words.items() if missing}


def close_pairs(features: Tensor, distance: float) -> list[tuple[int, int]]:
    """Pairs of classes a < b whose texts are at most ``distance`` apart under every template, the first ``PAIRS`` of them.

    Args:
        features: (M, K, E) of length one.
    """
    features = features.detach().float()
    likeness = (features[0] @ features[0].T).triu(diagonal=1)  # (K, K)
    # a float's own error is larger than what separates the nearest ones, which are measured then
    a, b = (likeness > 1 - max(distance**2, 1e-4)).nonzero()[:PAIRS].T
    gaps = (features[:, a] - features[:, b]).norm(dim=-1).amax(dim=0)  # (pairs,)
    return [(int(i), int(j)) for i, j, gap in zip(a, b, gaps) if gap <= distance]


def groups_of(pairs: Iterable[tuple[int, int]], names: Sequence[str]) -> Groups:
    """Names that pairs connect."""
    group_of: dict[int, list[int]] = {}
    for a, b in pairs:
        merged = sorted({*group_of.get(a, [a]), *group_of.get(b, [b])})
        group_of.update(dict.fromkeys(merged, merged))
    groups = {tuple(group) for group in group_of.values()}
    return [[names[label] for label in group] for group in sorted(groups)]


def listed(groups: Groups) -> str:
    """The first few groups in words."""
    shown = [" = ".join(map(repr, group)) for group in groups[:NAMED]]
    return "; ".join(shown) + ("; …" if groups[NAMED:] else "")


def check_names(method: "Method", are_fixed: bool) -> list[str]:
    """``check_classes`` of a method's class names in a plain prompt of its CLIP."""
    backbone = method.backbone
    with torch.no_grad():
        features = backbone.encode_classes(DEFAULT_TEMPLATE, method.classnames)[None]  # (1, K, E)
    rows, scale = backbone.text.token_embedding.weight, float(backbone.logit_scale)
    return check_classes(method.classnames, rows, features, scale, are_fixed)


def check_classes(
    names: Sequence[str], rows: Tensor, features: Tensor, scale: float, are_fixed: bool
) -> list[str]:
    """Warns of names that a CLIP doesn't know or can hardly tell apart; returns the warnings.

    Args:
        names: K names; rows: the CLIP's table of tokens (V, E).
        features: the names' texts (M, K, E), of length one; scale: by which cosines become logits.
        are_fixed: the names are a data set's of the field; else they are the user's own, who can choose others.

    Raises:
        UserError: texts of the user's own names are equal.
    """
    unknown = ""
    if not are_fixed and (words := unknown_words(names, unknown_tokens(rows))):
        shown = [f"{name!r} ({', '.join(missing)})" for name, missing in words.items()]
        shown[NAMED:] = ["…"] * (len(words) > NAMED)
        of = f"{len(words)} of {len(names)} class names"
        unknown = f"This CLIP does not know words of {of}: {'; '.join(shown)}"
    same = groups_of(close_pairs(features, SAME), names)
    if same and not are_fixed:
        raise UserError(
            f"to this CLIP these class names are one and the same: {listed(same)}: give other words "
            "(a file classnames.txt beside the class folders, or --classes), or another CLIP "
            f"(--backbone){unknown and f'. {unknown}'}"
        )
    warnings = []
    if same:
        warnings.append(f"To this CLIP these classes are one and the same: {listed(same)}")
    # |logit a − logit b| ≤ scale · ‖a − b‖ for features of length one, whatever the picture
    near = groups_of(close_pairs(features, math.log(RATIO) / scale), names)
    if near and not are_fixed:
        warnings.append(
            f"This CLIP can hardly tell these classes apart, whatever the picture: {listed(near)}"
        )
    if unknown:
        warnings.append(unknown)
    for warning in warnings:
        log.warning("%s", warning)
    return warnings
