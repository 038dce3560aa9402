"""The output of prompt learners for the encoders, and the initialisation of contexts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .text import TextEncoder
from .tokens import phrase_tokens, tokenize, tokenize_classes
from .transformer import Adapter, Readout

INIT_STD = 0.02  # of contexts that no phrase initialises, as in CoOp and MaPLe


@dataclass
class Prompts:
    """Token embeddings for both encoders, for M templates and K classes, and further changes
    in them.

    Attributes:
        prefix: (M, P, D) of start token, context, fixed words: the part that the classes of a template
            share. None, like all of the text's part, where only the image encoder is prompted.
        suffix: (M or 1, K, S, D), each class's own tokens.
        end: (M or 1, K), position of end-of-text in the suffix; on the CPU.
        deep_text: one for each text layer after the first, as far as any has: (M, n, D), or (M, K,
            n, D) where each class has its own, or None where the layer keeps the prompts as the one before
            it left them.
        visual: one (M, n, D_v) for each image layer, as far as any has.
        text_adapters, image_adapters: one or None for each layer, as far as any has.
        readout: of a second feature of each image, or None.
    """

    prefix: Tensor | None = None
    suffix: Tensor | None = None
    end: Tensor | None = None
    deep_text: Sequence[Tensor | None] = ()
    visual: Sequence[Tensor] = ()
    text_adapters: Sequence[Adapter | None] = ()
    image_adapters: Sequence[Adapter | None] = ()
    readout: Readout | None = None

    @property
    def classes(self) -> int:
        """The number K of classes; there is a text's part."""
        assert self.suffix is not None
        return self.suffix.shape[1]

    @staticmethod
    def concatenate(parts: Sequence["Prompts"]) -> "Prompts":
        """The templates of several prompts, one after the other; all have the classes' tokens of the
        first."""
        deep_text = [part.deep_text for part in parts]
        visual = [part.visual for part in parts]
        return replace(
            parts[0],
            prefix=join([part.prefix for part in parts]),
            deep_text=[join(layer) for layer in zip(*deep_text)],
            visual=[torch.cat(layer) for layer in zip(*visual)],
        )

    def texts(
        self, classes: slice
    ) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor | None], Sequence[Adapter | None]]:
        """Return the arguments of ``TextEncoder`` for some of the classes; there is a text's part."""
        assert self.prefix is not None and self.suffix is not None and self.end is not None
        deep = [
            layer[:, classes] if layer is not None and layer.dim() == 4 else layer
            for layer in self.deep_text
        ]
        return self.prefix, self.suffix[:, classes], self.end[:, classes], deep, self.text_adapters


def join(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Templates' prompts (M, …) out of parts that all are there, or None as they are."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


class FixedTokens(nn.Module):
    """The frozen tokens around M contexts: the start token before them, fixed words and the names
    of K classes after them.

    Args:
        text_encoder: the ``TextEncoder`` whose embeddings are used (width D).
        classnames: K names.
        n_ctx: number of context tokens n, for which room is left.
        words: M tensors (r_m, D) of fixed words after each context, as ``initial_context`` gives
            them; without any there is one template.
        template: the text after them, with ``{}`` in place of the class name.
    """

    start: Tensor
    words: Tensor
    suffix: Tensor
    __call__: Callable[..., Prompts]

    def __init__(
        self,
        text_encoder: TextEncoder,
        classnames: Sequence[str],
        n_ctx: int,
        words: Sequence[Tensor] = (),
        template: str = "{}.",
    ) -> None:
        super().__init__()
        length = text_encoder.context_length
        words = words or [torch.empty(0, text_encoder.width)]
        lengths = [len(fixed) for fixed in words]
        # words that every template has go to the prefix, which is encoded once for all classes
        shared = min(lengths)
        left = length - n_ctx - max(lengths)
        tokens = tokenize_classes(classnames, template, left)[:, 1:]  # without the start token
        end = tokens.argmax(dim=1)  # (K,): end-of-text has the highest id
        names = embed(text_encoder, tokens[:, : end.max() + 1])  # (K, S, D)
        suffix = []  # (K, S, D) each
        for fixed in words:
            row = torch.cat([fixed[shared:].expand(len(names), -1, -1), names], dim=1)
            suffix.append(F.pad(row, (0, 0, 0, max(lengths) - len(fixed))))
        buffers = {
            "start": embed(text_encoder, tokenize([""], length)[:, :1]),  # (1, 1, D)
            "words": torch.stack([fixed[:shared] for fixed in words]),  # (M, shared, D)
            "suffix": torch.stack(suffix),  # (M, K, S, D)
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        # (M, K); no buffer: it stays on the CPU
        self.end = torch.stack([end + length - shared for length in lengths])

    @classmethod
    def of_prompt(
        cls, text_encoder: TextEncoder, template: str, classnames: Sequence[str]
    ) -> "FixedTokens":
        """The tokens of a hand-crafted prompt, with ``{}`` for the class name, without a context."""
        before, after = template.split("{}")
        words = embed(text_encoder, phrase_tokens(before, text_encoder.context_length))
        return cls(text_encoder, classnames, 0, [words], "{}" + after)

    def forward(self, *contexts: Tensor) -> Prompts:
        """``Prompts`` of contexts (M, n, D), where M may be anything if one template's words were
        given, or of no contexts."""
        templates = len(contexts[0]) if contexts else len(self.words)
        start, words = (part.expand(templates, -1, -1) for part in (self.start, self.words))
        return Prompts(torch.cat([start, *contexts, words], dim=1), self.suffix, self.end)


class TemplateLinear(nn.Module):
    """A linear map of its own for each template, (M, n, D) → (M, n, D_v); initialised as
    ``nn.Linear``."""

    def __init__(self, templates: int, width: int, out_width: int) -> None:
        super().__init__()
        maps = [nn.Linear(width, out_width) for _ in range(templates)]
        # (M, D_v, D), (M, D_v)
        self.weight = nn.Parameter(torch.stack([part.weight.detach() for part in maps]))
        self.bias = nn.Parameter(torch.stack([part.bias.detach() for part in maps]))

    def forward(self, prompts: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], prompts, self.weight.transpose(1, 2))


def gaussian(*shape: int) -> Tensor:
    """``(*shape)`` fp32 tensor, Gaussian with standard deviation 0.02."""
    return torch.empty(*shape).normal_(std=INIT_STD)


@torch.no_grad()
def initial_context(text_encoder: TextEncoder, n_ctx: int, phrase: str) -> tuple[Tensor, Tensor]:
    """A context's first value and the fixed words after it.

    Args:
        text_encoder: the ``TextEncoder`` whose embeddings are used (width D).
        n_ctx: number of learnable tokens n.
        phrase: its first n tokens initialise the context, the rest (r tokens) stay as fixed words,
            as in MaPLe. A phrase shorter than n tokens, or none, leaves the remaining tokens
            Gaussian with standard deviation 0.02.

    Returns:
        (n, D) fp32 context, (r, D) fp32 fixed words.
    """
    ids = phrase_tokens(phrase, text_encoder.context_length)
    embedding = embed(text_encoder, ids)  # (n + r, D)
    missing = gaussian(max(n_ctx - len(ids), 0), text_encoder.width)
    return torch.cat([embedding[:n_ctx], missing]), embedding[n_ctx:].clone()


def context_of_phrase(text_encoder: TextEncoder, n_ctx: int, phrase: str) -> Tensor:
    """A context's first value (n, D) where a phrase brings its own number of tokens; ``n_ctx``
    Gaussian ones without a phrase."""
    length = len(phrase_tokens(phrase, text_encoder.context_length))
    return initial_context(text_encoder, length or n_ctx, phrase)[0]


@torch.no_grad()
def embed(text_encoder: TextEncoder, ids: Tensor) -> Tensor:
    """Token ids of any shape → (…, D) fp32 embeddings on the CPU."""
    embedding = text_encoder.token_embedding
    rows: Tensor = embedding(ids.to(embedding.weight.device)).float().cpu()
    return rows
