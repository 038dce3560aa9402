"""Towers of other packages, taken as they are: they give features, and nothing in them is prompted.

They have the calls of ``ImageEncoder`` and ``TextEncoder`` that features alone need.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..common.errors import UserError
from .tokens import SHOWN_CHARACTERS, TOKENIZER, check_name, readable

TEXTS_A_PASS = 128  # that are encoded at a time: each has all positions, as padding is read
Tokenizer = Callable[[list[str], int], Tensor]  # N texts, their length L → token ids (N, L)


class ImageBox(nn.Module):
    """An image tower that is not CLIP's own.

    Args:
        tower: images (N, 3, H, W) → features (N, E), or a tuple that begins with them.
        image_size: in pixels, both sides alike.
        kind: its name in messages.
        resize: makes the tower take images of another size; None: it can't.
    """

    takes_prompts = False
    computes_in_half = False

    def __init__(
        self,
        tower: nn.Module,
        image_size: int,
        kind: str,
        resize: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.image_size = image_size
        self.kind = kind
        self.resize = resize

    def interpolate_positions(self, image_size: int) -> None:
        """Makes the tower take images of another size.

        Raises:
            UserError: it can't, unless it is the size that it has.
        """
        if self.resize is not None:
            self.resize(image_size)
            self.image_size = image_size
        if image_size != self.image_size:
            raise UserError(
                f"this image encoder ({self.kind}) takes images of {self.image_size} pixels alone: leave out "
                "MODEL.BACKBONE.INTERPOLATE_POSITIONS and INPUT.SIZE"
            )

    def forward(self, images: Tensor, *_: object) -> Tensor:
        """(V, B, 3, H, W) → (V, B, E). There are no prompts: ``Method.check_towers`` refuses them."""
        features = first(self.tower(images.flatten(0, 1)))  # (V·B, E)
        return features.view(*images.shape[:2], -1)


class TextBox(nn.Module):
    """A text tower that is not CLIP's own, with its tokenizer.

    Args:
        tower: token ids (N, L) → features (N, E), or a tuple that begins with them.
        tokenizer: of N texts and their length L; longer ones are cut, shorter ones padded.
        context_length: number of positions, L.
        embed_dim: width E of the space shared with images.
        kind: its name in messages.
    """

    takes_prompts = False
    computes_in_half = False

    def __init__(
        self,
        tower: nn.Module,
        tokenizer: Tokenizer,
        context_length: int,
        embed_dim: int,
        kind: str,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.embed_dim = embed_dim
        self.kind = kind

    def tokenize_classes(self, classnames: Iterable[str], template: str) -> Tensor:
        """Token ids (K, L) of a template for each of K classes, with ``{}`` where the name goes.

        Raises:
            UserError: a name, which the message quotes, makes its text too long, or see
                ``tokens.check_name``.
        """
        names = list(classnames)
        for name in names:
            check_name(name)
        texts = [template.format(readable(name)) for name in names]
        tokens = self.tokenize_sentences(texts)
        # a text that fits gains nothing but padding from one more position
        longer = self.tokenizer(texts, self.context_length + 1)
        is_cut = (longer[:, :-1] != tokens).any(dim=1)  # (K,)
        if is_cut.any():
            name = names[int(is_cut.int().argmax())]
            raise UserError(
                f"the class name {name[:SHOWN_CHARACTERS]!r}{' …' if name[SHOWN_CHARACTERS:] else ''} is too long: with it a "
                f"prompt has more than the {self.context_length} tokens that fit; shorten it"
            )
        return tokens

    def tokenize_sentences(self, texts: Sequence[str]) -> Tensor:
        """Return token ids (N, L) of N texts, each cut to L."""
        return self.tokenizer(list(texts), self.context_length)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Features (N, E) of token ids (N, L), not normalised."""
        return torch.cat([first(self.tower(part)) for part in tokens.split(TEXTS_A_PASS)])

    def unlearned_tokens(self) -> Tensor:
        """Return a mask of CLIP's vocabulary, with no token in it: nothing is known of another tokenizer."""
        return torch.zeros(len(TOKENIZER.encoder), dtype=torch.bool)

    def signature(self) -> list[Tensor]:
        """The first numbers of each of its weights."""
        return [parameter.flatten()[:8] for parameter in self.tower.parameters()]


class NoTexts(nn.Module):
    """Stands beside an image encoder that was trained without texts: every text's features are zeros, so
    that all texts are equally like any picture. ``Method.check_towers`` refuses it for methods that need texts.

    Args:
        weights: of the image encoder, which tell it from another; embed_dim: width E of its features.
        kind: the image encoder's name in messages.
    """

    takes_prompts = False
    computes_in_half = False

    def __init__(self, weights: Iterable[Tensor], embed_dim: int, kind: str) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.kind = kind
        self.beginnings = [tensor.detach().flatten()[:8].clone() for tensor in weights]

    def tokenize_classes(self, classnames: Iterable[str], template: str) -> Tensor:
        """No tokens, (K, 0), for K names."""
        return torch.zeros(len([*classnames]), 0, dtype=torch.long)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Zeros (N, E) for N texts."""
        return torch.zeros(len(tokens), self.embed_dim, device=tokens.device)

    def signature(self) -> list[Tensor]:
        """The first numbers of each of the image encoder's weights."""
        return self.beginnings


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The features of a tower that may return tokens after them."""
    return output[0] if isinstance(output, tuple) else output
