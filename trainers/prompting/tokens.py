"""Class names and phrases → token ids, through the tokenizer of the ``clip`` package."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clip import clip
from torch import Tensor

from ..common.errors import UserError

TOKENIZER = clip._tokenizer
MARKS = {TOKENIZER.encoder["<|startoftext|>"], TOKENIZER.encoder["<|endoftext|>"]}
SHOWN = 60  # characters of a name in a message
LONGEST = 1000  # characters of a name: the tokenizer's time grows with their square


@dataclass
class ClassTokens:
    """What each class adds after the context: its name, a full stop, end-of-text.

    Attributes:
        ids: (K, S) token ids, zero after end-of-text.
        end: (K,) position of end-of-text.
        name_lengths: number of tokens of each name alone, without the full stop.
    """

    ids: Tensor
    end: Tensor
    name_lengths: list[int]


def readable(classname: str) -> str:
    """A class name as it goes into a prompt: underscores are spaces."""
    return classname.replace("_", " ")


def tokenize_classes(
    classnames: Iterable[str], texts: Sequence[str], context_length: int
) -> Tensor:
    """Token ids (K, context_length) of a text for each of K classes, zero after end-of-text.

    Raises:
        UserError: a name, which the message quotes, makes its text too long, is nothing to the
            tokenizer, is no UTF-8, or holds one of the tokenizer's own marks, after which it would
            not read on.
    """
    for name, text in zip(classnames, texts):
        check_name(name)
        count = 2 + len(TOKENIZER.encode(text))
        if count > context_length:
            raise UserError(
                f"the class name {name[:SHOWN]!r}{' …' if name[SHOWN:] else ''} is too long: "
                f"with it a prompt has {count} tokens, and {context_length} fit; shorten it, or give fewer context tokens"
            )
    return tokenize(texts, context_length)


def check_name(name: str) -> None:
    """
    Raises:
        UserError: see ``tokenize_classes``.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the class name {name!a} is no UTF-8: rename it") from None
    if len(name) > LONGEST:
        raise UserError(
            f"the class name {name[:SHOWN]!r} … is too long: it has {len(name)} characters"
        )
    tokens = TOKENIZER.encode(readable(name))
    if not tokens:
        raise UserError(
            f"nothing of the class name {name!r} is left for the text encoder: give it a name of "
            "letters"
        )
    if set(tokens) & MARKS:
        raise UserError(
            f"the class name {name!r} holds one of the marks that CLIP's tokenizer sets itself: "
            "take it out"
        )


def tokenize(texts: Iterable[str], context_length: int, cut: bool = False) -> Tensor:
    """Token ids (N, context_length), zero after end-of-text; ``cut``: of a text with more tokens
    than positions the first ones.

    Raises:
        UserError: a text has more tokens than positions; the message quotes it.
    """
    try:
        return clip.tokenize(list(texts), context_length=context_length, truncate=cut)
    except RuntimeError as error:
        raise UserError(
            f"a prompt is too long for the text encoder's {context_length} positions: {error}"
        ) from error


def phrase_tokens(phrase: str, context_length: int) -> Tensor:
    """Token ids (n,) of a phrase, without start and end tokens; none of an empty one."""
    ids = tokenize([readable(phrase).strip()], context_length)[0]
    return ids[1 : ids.argmax()]


def class_tokens(classnames: Sequence[str], positions: int, template: str = "{}.") -> ClassTokens:
    """Tokens of all class names.

    Args:
        classnames: K names.
        positions: how many positions are left after start token and context.
        template: what follows the context, with ``{}`` where the name goes.

    Raises:
        UserError: see ``tokenize_classes``.
    """
    names = [readable(name) for name in classnames]
    with_start = tokenize_classes(
        classnames, [template.format(name) for name in names], positions + 1
    )  # (K, 1 + positions)
    ids = with_start[:, 1:]
    end = ids.argmax(dim=1)  # (K,): end-of-text has the highest id
    # the full stop may merge with a name that ends in a sign, so names are measured alone
    lengths = [len(phrase_tokens(name, positions + 1)) for name in names]
    return ClassTokens(ids[:, : end.max() + 1], end, lengths)
