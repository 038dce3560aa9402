"""Class names and phrases → token ids, through the tokenizer of the ``clip`` package."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clip import clip
from torch import Tensor

from ..errors import UserError


@dataclass
class ClassTokens:
    """What each class adds behind the context: its name, a full stop, end-of-text.

    Attributes:
        ids: (K, S) token ids, zero behind end-of-text.
        end: (K,) position of end-of-text.
        name_lengths: number of tokens of each name alone, without the full stop.
    """
    ids: Tensor
    end: Tensor
    name_lengths: list[int]


def readable(classname: str) -> str:
    """A class name as it goes into a prompt: underscores are spaces."""
    return classname.replace("_", " ")


def tokenize(texts: Iterable[str], context_length: int) -> Tensor:
    """Token ids (N, context_length), zero behind end-of-text.

    Raises:
        UserError: a text has more tokens than positions; the message quotes it.
    """
    try:
        return clip.tokenize(list(texts), context_length=context_length)
    except RuntimeError as error:
        raise UserError(f"a prompt is too long for the text encoder's {context_length} positions: {error}") from error


def phrase_tokens(phrase: str, context_length: int) -> Tensor:
    """Token ids (n,) of a phrase, without start and end tokens."""
    ids = tokenize([phrase], context_length)[0]
    return ids[1:ids.argmax()]


def class_tokens(classnames: Sequence[str], positions: int) -> ClassTokens:
    """Tokens of all class names.

    Args:
        classnames: K names.
        positions: how many positions are left behind start token and context.

    Raises:
        UserError: a name does not fit.
    """
    names = [readable(name) for name in classnames]
    with_start = tokenize([f"{name}." for name in names], positions + 1)  # (K, 1 + positions)
    ids = with_start[:, 1:]
    end = ids.argmax(dim=1)  # (K,): end-of-text has the highest id
    # the full stop is one token, but it may merge with a name that ends in a sign, so names are measured alone
    lengths = [len(phrase_tokens(name, positions + 1)) for name in names]
    return ClassTokens(ids[:, :end.max() + 1], end, lengths)
