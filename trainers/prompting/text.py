"""CLIP's text encoder for M prompt templates over K classes, exact and without the waste.

CLIP's text transformer is causal and its feature is read at the end-of-text token. Three things
follow *exactly*:

1. Positions after end-of-text can't matter, so they are left out. The texts of all classes and
   templates are packed one after the other, short ones first; linear maps, norms and MLPs see the
   packed tokens, attention sees the texts of one length at a time.
2. Of the last layer's output only that token is read, so only its query and its MLP are computed
   there.
3. Whatever all classes of one template share at the start (start token, context tokens, fixed
   words; deep prompts too) sees nothing of the class. It is run once per template, and each class's
   own tokens attend to its keys and values.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from .tokens import tokenize, tokenize_classes, unlearned
from .transformer import Adapter, LayerNorm, Transformer, attend


class Packing:
    """How N = M·K texts of different lengths lie one after the other, short ones first; T tokens in
    all.

    Args:
        lengths: (M, K) of the texts, on the CPU: they shape the computation, which must not wait
            for the device.
        device: where the indices below are needed.

    Attributes:
        order: (N,) the text that comes first, second, …
        text, position: (T,) which text a token belongs to, and where in it the token stands.
        end: (N,) place of each text's last token among the T.
        lengths, counts, sizes: of the texts of one length, for each length: the length, how many of
            the N they are, and how many of the T their tokens are.
    """

    def __init__(self, lengths: Tensor, device: torch.device) -> None:
        classes = lengths.shape[1]
        in_order, order = lengths.flatten().sort(stable=True)  # (N,) each
        ends = in_order.cumsum(0)
        starts = (ends - in_order).repeat_interleave(in_order)  # (T,)
        position = torch.arange(in_order.sum().item()) - starts
        self.order = order.to(device, non_blocking=True)
        self.text = order.repeat_interleave(in_order).to(device, non_blocking=True)
        self.position = position.to(device, non_blocking=True)
        self.end = (ends - 1).to(device, non_blocking=True)
        self.template = (order // classes).to(device, non_blocking=True)
        self.masks: dict[tuple[int, int], Tensor] = {}
        different, counts = in_order.unique_consecutive(return_counts=True)
        self.lengths = different.tolist()
        self.counts = counts.tolist()
        self.sizes = (different * counts).tolist()

    def attend(
        self, key: Tensor, value: Tensor, query: Tensor, packed_key: Tensor, packed_value: Tensor
    ) -> Tensor:
        """What the texts' tokens see: their template's prefix, and themselves up to their own
        place.

        Args:
            key, value: (M, P, H, D/H) of the templates' prefixes, or (N, P, H, D/H) where each text
                has one of its own.
            query: (T, H, D/H) of all tokens, or (N, H, D/H) of each text's last one.
            packed_key, packed_value: (T, H, D/H) of the texts' tokens.

        Returns:
            (T, D) or (N, D).
        """
        only_end = len(query) == len(self.order)  # then every key is before it
        prefixes = self.order if len(key) == len(self.order) else self.template
        outputs = []
        for length, prefix, queries, own_key, own_value in zip(
            self.lengths,
            prefixes.split(self.counts),  # (n,)
            query.split(self.counts if only_end else self.sizes),
            packed_key.split(self.sizes),
            packed_value.split(self.sizes),
        ):
            # (n, P + L, H, D/H)
            keys, values = (
                torch.cat([shared.index_select(0, prefix), own.unflatten(0, (-1, length))], dim=1)
                for shared, own in ((key, own_key), (value, own_value))
            )
            shape = length, keys.shape[1]
            if shape not in self.masks:  # made once, as most layers have the same P
                mask = torch.ones(shape, dtype=torch.bool, device=keys.device)
                self.masks[shape] = mask.tril(key.shape[1])  # each token sees (L, P + L)
            queries = queries.unflatten(0, (len(prefix), -1))  # (n, 1 or L, H, D/H)
            attended = attend(queries, keys, values, None if only_end else self.masks[shape])
            outputs.append(attended.flatten(0, 1))  # (n, D) or (n · L, D)
        return torch.cat(outputs)


class TextEncoder(nn.Module):
    """The text tower. Its parameters carry the names that CLIP's state dict has at its top level.

    Args:
        transformer: of width D.
        context_length: number of positions (77 in OpenAI's models).
        vocabulary: number of token embeddings.
        embed_dim: width E of the space shared with images.
    """

    takes_prompts = True
    computes_in_half = True

    def __init__(
        self,
        transformer: Transformer,
        context_length: int,
        vocabulary: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        width = transformer.width
        self.width = width
        self.layers = transformer.layers
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))

    def forward(
        self,
        prefix: Tensor,
        suffix: Tensor,
        end: Tensor,
        deep_prompts: Iterable[Tensor | None] = (),
        adapters: Iterable[Adapter | None] = (),
    ) -> Tensor:
        """Features of every class under every template.

        Args:
            prefix: (M, P, D) token embeddings that all classes of a template share; the first is
                the start token.
            suffix: (M, K, S, D), or (1, K, S, D) if the same for all templates: each class's own
                tokens up to end-of-text, padded after it with anything.
            end: (M, K) or (1, K) position of end-of-text within the suffix; on the CPU, or every
                call waits for the device.
            deep_prompts: one for each layer after the first: (M, n, D), which replace the n
                positions after the start token before that layer (Khattak et al., 2023, MaPLe,
                §3.2), (M, K, n, D) where each class has its own, or None. From a class's own
                prompts on the prefix is computed for each class.
            adapters: one or None for each layer, as far as any has.

        Returns:
            (M, K, E), not normalised.
        """
        layers = [*zip_longest(self.transformer.resblocks, [None, *deep_prompts], adapters)]
        templates, shared = prefix.shape[:2]
        classes, longest = suffix.shape[1:3]
        dtype = self.text_projection.dtype  # of the maps; positions and norms stay fp32
        positions = self.positional_embedding.to(dtype)
        lengths = (end.cpu() + 1).expand(templates, -1)  # (M, K)
        packing = Packing(lengths, prefix.device)  # N = M·K texts, T tokens
        text = packing.text % classes if len(suffix) == 1 else packing.text
        packed = suffix.flatten(0, 2).index_select(0, text * longest + packing.position)  # (T, D)
        packed = packed.to(dtype) + positions[shared + packing.position]
        prefix = prefix.to(dtype) + positions[:shared]  # (M, P, D)

        for block, prompt, adapter in layers[:-1]:
            prefix = entered(prefix, prompt, adapter)
            query, key, value = block.project(prefix, adapter=adapter)  # (M, P, H, D/H)
            of_texts = block.project(packed, adapter=adapter)  # (T, H, D/H) each
            packed = block.finish(packed, packing.attend(key, value, *of_texts), adapter)  # (T, D)
            attended = attend(query, key, value, causal=True)
            prefix = block.finish(prefix, attended, adapter)  # (M, P, D)

        # the last layer's output is read at end-of-text only: the other tokens need not get that far
        last, prompt, adapter = layers[-1]
        key, value = last.project(entered(prefix, prompt, adapter), "kv", adapter)
        packed_key, packed_value = last.project(packed, "kv", adapter)  # (T, H, D/H)
        end = packed[packing.end]  # (N, D)
        (query,) = last.project(end, "q", adapter)  # (N, H, D/H)
        attended = packing.attend(key, value, query, packed_key, packed_value)
        feature = last.finish(end, attended, adapter)  # (N, D)
        feature = (self.ln_final(feature) @ self.text_projection)[packing.order.argsort()]
        features: Tensor = feature.view(templates, classes, -1)  # (M, K, E)
        return features

    @property
    def embed_dim(self) -> int:
        """Width E of the space shared with images."""
        return self.text_projection.shape[1]

    def tokenize_classes(self, classnames: Iterable[str], template: str) -> Tensor:
        """Token ids (K, length), see ``tokens.tokenize_classes``."""
        return tokenize_classes(classnames, template, self.context_length)

    def tokenize_sentences(self, texts: Sequence[str]) -> Tensor:
        """Token ids (N, length); what does not fit into the positions is cut off."""
        return tokenize(texts, self.context_length, cut=True)

    def unlearned_tokens(self) -> Tensor:
        """Which of V tokens it has not learned, (V,) bool."""
        return unlearned(self.token_embedding.weight)

    def signature(self) -> list[Tensor]:
        """Tensors that tell this tower from another."""
        return [self.positional_embedding, self.text_projection]

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Features of plain texts, (N, length) token ids as ``clip.tokenize`` makes them → (N, E),
        not normalised."""
        shared, end = shared_tokens(tokens)
        embedding = self.token_embedding(tokens[:, : end.max() + 1])  # (N, longest, D)
        features: Tensor = self(
            embedding[:1, :shared], embedding[None, :, shared:], (end - shared)[None]
        )[0]
        return features


def shared_tokens(tokens: Tensor) -> tuple[int, Tensor]:
    """How many tokens at the beginning of N texts, (N, length) token ids, are the same in all, at
    least one; and where they end, (N,)."""
    end = tokens.argmax(dim=1)  # end-of-text has the highest id
    common = int((tokens == tokens[:1]).all(dim=0).int().cumprod(dim=0).sum())
    return max(1, min(common, int(end.min()))), end  # end-of-text stays with the texts


def entered(prefix: Tensor, prompt: Tensor | None, adapter: Adapter | None) -> Tensor:
    """The prefix, (M, P, D) or (M·K, P, D) if each class has its own, as it enters a layer: with
    the layer's prompts, (M, n, D) or (M, K, n, D), and under its adapter, if it has any."""
    if prompt is not None:
        prompt = prompt.to(prefix.dtype).flatten(0, -3)  # (M or M·K, n, D)
        rows = max(len(prefix), len(prompt))
        prefix, prompt = (
            part.repeat_interleave(rows // len(part), dim=0) for part in (prefix, prompt)
        )
        prefix = torch.cat([prefix[:, :1], prompt, prefix[:, 1 + prompt.shape[1] :]], dim=1)
    return prefix if adapter is None else adapter.enter(prefix)
