"""Class names and phrases → token ids, through the tokenizer of the ``clip`` package."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from ..common.errors import UserError
from .clip_package import clip_module

TOKENIZER = clip_module("simple_tokenizer").SimpleTokenizer()
START_TOKEN = TOKENIZER.encoder["<|startoftext|>"]
END_TOKEN = TOKENIZER.encoder["<|endoftext|>"]
SHOWN_CHARACTERS = 60  # characters of a name in a message
LONGEST_NAME = 1000  # characters of a name: the tokenizer's time grows with their square


@lru_cache(10_000)  # a class name is read several times: alone, in its prompt, at each new start
def token_ids(text: str) -> tuple[int, ...]:
    """A text's tokens, without the marks of its start and its end."""
    return tuple(TOKENIZER.encode(text))


def readable(classname: str) -> str:
    """A class name as it goes into a prompt: underscores are spaces."""
    return classname.replace("_", " ")


def tokenize_classes(classnames: Iterable[str], template: str, context_length: int) -> Tensor:
    """Token ids (K, context_length) of a template for each of K classes, with ``{}`` where the name
    goes; zero after end-of-text.

    Raises:
        UserError: a name, which the message quotes, makes its text too long, is nothing to the
            tokenizer, is not UTF-8, or holds one of the tokenizer's own marks, after which it would
            not read on.
    """
    texts = []
    for name in classnames:
        check_name(name)
        texts.append(template.format(readable(name)))
        count = 2 + len(token_ids(texts[-1]))
        if count > context_length:
            raise UserError(
                f"the class name {name[:SHOWN_CHARACTERS]!r}{' …' if name[SHOWN_CHARACTERS:] else ''} is too long: "
                f"with it a prompt has {count} tokens, and {context_length} fit; shorten it, or give fewer context tokens"
            )
    return tokenize(texts, context_length)


def check_name(name: str) -> None:
    """Check that a class name can be tokenized.

    Raises:
        UserError: as ``tokenize_classes``.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the class name {name!a} is no UTF-8: rename it") from None
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"the class name {name[:SHOWN_CHARACTERS]!r} … is too long: it has {len(name)} characters"
        )
    tokens = token_ids(readable(name))
    if not tokens:
        raise UserError(
            f"nothing of the class name {name!r} is left for the text encoder: give it a name of "
            "letters"
        )
    if START_TOKEN in tokens or END_TOKEN in tokens:
        raise UserError(
            f"the class name {name!r} holds one of the marks that CLIP's tokenizer sets itself: "
            "take it out"
        )


def tokenize(texts: Iterable[str], context_length: int, cut: bool = False) -> Tensor:
    """Return token ids (N, context_length), zero after end-of-text.

    cut: whether a text with more tokens than positions loses the last ones, instead of being refused.

    Raises:
        UserError: a text has more tokens than positions; the message quotes it.
    """
    texts = list(texts)
    ids = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(ids, texts):
        tokens = [START_TOKEN, *token_ids(text), END_TOKEN]
        if len(tokens) > context_length:
            if not cut:
                raise UserError(
                    f"a prompt is too long for the text encoder's {context_length} positions, it has "
                    f"{len(tokens)} tokens: {text}"
                )
            tokens = [*tokens[: context_length - 1], END_TOKEN]
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


def phrase_tokens(phrase: str, context_length: int) -> Tensor:
    """Token ids (n,) of a phrase, without start and end tokens; empty for an empty phrase."""
    ids = tokenize([readable(phrase).strip()], context_length)[0]
    return ids[1 : ids.argmax()]


def unlearned_mask(rows: Tensor) -> Tensor:
    """Return a mask (V,) of the tokens that a CLIP has not learned: they share their row of the table
    (V, D) with another."""
    device = rows.device
    rows = rows.detach().cpu()
    # Adding 0 makes negative zeros positive: their bits differ.
    beginnings = (
        (rows[:, :2].float() + 0).contiguous().view(torch.int64)[:, 0]
    )  # two numbers as one
    _, place, count = beginnings.unique(return_inverse=True, return_counts=True)
    are_shared: Tensor = count[place] > 1  # few are left, which are compared as a whole
    contents = [row.tobytes() for row in (rows[are_shared].float() + 0).numpy()]
    number = Counter(contents)
    is_repeated = [number[content] > 1 for content in contents]
    are_shared[are_shared.clone()] = torch.tensor(is_repeated, dtype=torch.bool)
    return are_shared.to(device)
