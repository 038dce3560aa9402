"""Can a CLIP tell class names apart? It reads names through its tokens, of which a small CLIP has
learned only a few.

Pure functions of names, tokens and text features; ``check_names`` asks them of a CLIP's.
"""

import logging
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.console import first_few
from ..common.errors import UserError
from ..devices import in_float64
from ..prompting.backbone import Backbone
from ..prompting.tokens import readable, token_ids
from .templates import DEFAULT_TEMPLATE

log = logging.getLogger(__name__)
# distance of two texts' features below which they are one: rounding's in half precision
SAME = 1e-4
RATIO = 1.5  # of two classes' probabilities: where no picture can exceed it, they are too near
SHOWN_PAIRS = 1000  # that are found, at most
COSINES_AT_ONCE = 2**22  # cosines that are looked at together: 32 MB


def canonical(name: str) -> str:
    """Return a name without case, spaces, underscores and Unicode forms, which tell no classes apart."""
    return " ".join(unicodedata.normalize("NFKC", readable(name)).casefold().split())


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that are one in their ``canonical`` form."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[canonical(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def unknown_words(names: Iterable[str], unknown: Tensor) -> dict[str, list[str]]:
    """Return name → its words with a token of ``unknown``, (V,) bool; names without such words are left
    out."""
    found = {}
    for name in names:
        words = readable(name).split()
        if missing := [word for word in words if unknown[[*token_ids(word)]].any()]:
            found[name] = missing
    return found


def close_pairs(features: Tensor, names: Sequence[str], distance: float) -> list[str]:
    """``'a' = 'b'`` for the pairs of classes whose texts are at most ``distance`` apart.

    Args:
        features: (K, E) of length one; names: K.
    """
    # the distance of near ones is smaller than a float's rounding of their cosine
    features = F.normalize(in_float64(features.detach()), dim=-1)
    pairs: list[list[int]] = []
    rows = max(1, COSINES_AT_ONCE // len(names))
    for first in range(0, len(names), rows):
        cosines = features[first : first + rows] @ features[first:].T  # (rows, K − first)
        are_close = (cosines >= 1 - distance**2 / 2).triu(diagonal=1)
        pairs += (first + are_close.nonzero()[:SHOWN_PAIRS]).tolist()
        if len(pairs) >= SHOWN_PAIRS:
            break
    return [f"{names[a]!r} = {names[b]!r}" for a, b in pairs[:SHOWN_PAIRS]]


def check_names(
    backbone: Backbone,
    names: Sequence[str],
    are_fixed: bool,
    texts: Tensor | None = None,
    are_seen: bool = False,
) -> list[str]:
    """``check_classes`` of K class names in a CLIP's prompts.

    texts: their features (M, K, E) in M prompts; None: they are encoded in a plain one. Of a backbone
        without texts nothing is to be checked.
    """
    if not backbone.has_texts:
        return []
    if texts is None:
        with torch.no_grad():
            texts = backbone.encode_classes(DEFAULT_TEMPLATE, names)[None]
    # as if they were one text's: squared distances are the prompts' mean
    features = texts.transpose(0, 1).flatten(1) / len(texts) ** 0.5  # (K, M · E), of length one
    scale = backbone.log_scale.float().exp().item()
    unknown = backbone.unlearned_tokens
    return check_classes(names, unknown, features, scale, are_fixed, are_seen)


def check_classes(
    names: Sequence[str],
    unknown: Tensor,
    features: Tensor,
    scale: float,
    are_fixed: bool,
    are_seen: bool = False,
) -> list[str]:
    """Warns of names that a CLIP doesn't know or can hardly tell apart; returns the warnings.

    Args:
        names: K names; unknown: (V,) bool, the tokens that the CLIP has not learned.
        features: the names' texts (K, E), of length one; scale: logits are so many times the cosines.
        are_fixed: the names are a data set's of the field; else they are the user's own, who can
            choose others.
        are_seen: the classes are learned from features of pictures, which tell them apart where texts
            don't.

    Raises:
        UserError: texts of the user's own names are equal, and nothing else tells them apart.
    """
    same = first_few(close_pairs(features, names, SAME))
    warnings = [f"To this CLIP these classes are one and the same: {same}"] if same else []
    if not are_fixed:
        if same and are_seen:
            warnings[0] += "; nothing but the pictures tells them apart, other words may help"
        if words := unknown_words(names, unknown):
            shown = [f"{name!r} ({', '.join(missing)})" for name, missing in words.items()]
            of = f"{len(words)} of {len(names)} class names"
            warnings.append(f"This CLIP does not know some words in {of}: {first_few(shown)}")
        if same and not are_seen:
            raise UserError(
                f"{'. '.join(warnings)}: give other words (of class folders in a file classnames.txt "
                "beside them), or another CLIP"
            )
        # |logit a − logit b| ≤ scale · ‖a − b‖ for features of length one, whatever the picture
        if not same and (near := close_pairs(features, names, math.log(RATIO) / scale)):
            warnings.append(
                "This CLIP can hardly tell these classes apart, whatever the picture: "
                f"{first_few(near)}"
            )
    for warning in warnings:
        log.warning("%s", warning)
    return warnings
