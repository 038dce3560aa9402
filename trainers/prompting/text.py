"""CLIP's text encoder for M prompt templates over K classes, exact and without the waste.

CLIP's text transformer is causal and its feature is read at the end-of-text token. Three things
follow *exactly*:

1. Positions after end-of-text can't matter, so they are left out. The texts of all classes and
   templates lie one after the other in one stream, short ones first; linear maps, norms and MLPs see
   the stream, attention sees the texts of one group at a time, which are padded to the longest of
   them. The number of groups matters for time alone (``GROUP_FLOPS``).
2. Of the last layer's output only that token is read, so only its query and its MLP are computed
   there.
3. Whatever all classes of one template share at the start (start token, context tokens, fixed
   words; deep prompts too) sees nothing of the class. It is run once per template, at the end of the
   stream, and each class's own tokens attend to its keys and values.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, zip_longest

import torch
from torch import Tensor, nn

from .tokens import tokenize, tokenize_classes, unlearned_mask
from .transformer import Adapter, LayerNorm, Transformer, attend

# FLOPs that a device computes in the time of starting a group's operations. As many
# may be spent on padding in a group's place. A CPU's is an estimate; a GPU's is the time of ten launches of
# 6 µs at a T4's 26 TFLOP/s (docs/performance.md). 0 pads nothing, infinity pads all to the longest.
GROUP_FLOPS = {"cpu": 8e6, "cuda": 1.6e9}
MOST_LAYOUTS = 64  # that a text encoder keeps: more than one where it encodes classes in chunks


class Layout:
    """The order of all tokens of N = M·K texts of different lengths in one stream, for a single pass.

    First come the texts' own T tokens, short texts first and padded in groups, then the prefixes before
    them. A prefix has R rows: R = M as long as each template has one, N where each text has its own. They
    lie position by position, (P, R, D), so that prompts of all rows can be put in at once.

    Args:
        lengths: M·K of the texts, template by template.
        classes: K.
        device: where the indices below are needed.
        group_cost: number of tokens of padding that are worth one group less, for ``groups_of``.

    Attributes:
        tokens: T.
        text, position: (T,) which text a token belongs to, and where in it the token stands.
        order, template: (N,) the text that comes first, second, …; and its template.
        place: (N,) of each text in that order.
        end: (N,) place of the last token of the text that comes first, second, … in the stream.
        lengths, counts, sizes: of each group: its texts' length, how many of the N they are, and how
            many of the T their tokens are.
        ends: of each group: where in its texts their last tokens stand, (n,); None where none is padded.
    """

    def __init__(
        self, lengths: Sequence[int], classes: int, device: torch.device, group_cost: float
    ) -> None:
        in_order, order = torch.tensor(lengths).sort(stable=True)  # (N,) each
        different, numbers = in_order.unique_consecutive(return_counts=True)
        groups = groups_of(different.tolist(), numbers.tolist(), group_cost)
        self.lengths = [length for length, _ in groups]
        self.counts = [count for _, count in groups]
        self.sizes = [length * count for length, count in groups]
        self.tokens = sum(self.sizes)
        padded = torch.tensor(self.lengths).repeat_interleave(torch.tensor(self.counts))  # (N,)
        starts = padded.cumsum(0) - padded  # (N,)
        position = torch.arange(self.tokens) - starts.repeat_interleave(padded)
        self.order = order.to(device)
        self.place = order.argsort().to(device)
        self.template = (order // classes).to(device)
        self.text = order.repeat_interleave(padded).to(device)
        self.position = position.to(device)
        self.end = (starts + in_order - 1).to(device)
        self.ends: list[Tensor | None] = []
        for length, own in zip(self.lengths, in_order.split(self.counts)):
            is_padded = bool(own[0] < length)
            self.ends.append((own - 1).to(device) if is_padded else None)
        self.masks: dict[tuple[object, ...], Tensor] = {}

    def own_tokens(self, suffix: Tensor) -> Tensor:
        """(T, D) the texts' own tokens, of (M or 1, K, S, D)."""
        classes, longest = suffix.shape[1:3]
        text = self.text % classes if len(suffix) == 1 else self.text
        return suffix.flatten(0, 2).index_select(0, text * longest + self.position)

    def enter(
        self, x: Tensor, rows: int, prompt: Tensor | None, adapter: Adapter | None
    ) -> tuple[Tensor, int]:
        """Return the stream (T + P·R, D) as a layer takes it, and the number R of prefixes from there on.

        Args:
            prompt: of the layer, (M, n, D) or (M, K, n, D): replaces tokens in the prefixes.
            adapter: of the layer: changes the prefixes.
        """
        if prompt is not None:
            prompt = prompt.to(x.dtype).flatten(0, -3).transpose(0, 1)  # (n, M or N, D)
            others = prompt.shape[1]
            if others > rows:
                own, prefix = x.split([self.tokens, len(x) - self.tokens])
                prefix = prefix.unflatten(0, (-1, rows)).repeat_interleave(others // rows, dim=1)
                x = torch.cat([own, prefix.flatten(0, 1)])
                rows = others
            elif others < rows:
                prompt = prompt.repeat_interleave(rows // others, dim=1)
            first = self.tokens + rows  # the prompts follow the start token
            replaced = len(prompt) * rows
            before, _, after = x.split([first, replaced, len(x) - first - replaced])
            x = torch.cat([before, prompt.flatten(0, 1), after])
        if adapter is not None:
            own, prefix = x.split([self.tokens, len(x) - self.tokens])
            entered = adapter.enter(prefix.unflatten(0, (-1, rows)).transpose(0, 1))  # (R, P', D)
            x = torch.cat([own, entered.transpose(0, 1).flatten(0, 1)])
        return x, rows

    def attend(self, projected: Tensor, rows: int) -> Tensor:
        """Attend in the stream: prefixes to themselves, texts to their own prefix and themselves, each
        token up to its own place.

        Args:
            projected: (T + P·R, 3, H, D/H) queries, keys and values.

        Returns:
            (T + P·R, D).
        """
        *groups, prefix = projected.split([*self.sizes, len(projected) - self.tokens])
        prefix = prefix.unflatten(0, (-1, rows)).transpose(0, 1)  # (R, P, 3, H, D/H)
        query, shared = prefix.split([1, 2], dim=2)
        of_prefix = attend(query.squeeze(2), *shared.unbind(2), causal=True)  # (R, P, D)
        outputs = []
        for length, own, before in zip(self.lengths, groups, self.prefixes(shared)):
            query, own = own.unflatten(0, (-1, length)).split([1, 2], dim=2)
            key, value = torch.cat([before, own], dim=1).unbind(2)  # (n, P + L, H, D/H)
            mask = self.causal_mask(length, key)
            outputs.append(attend(query.squeeze(2), key, value, mask).flatten(0, 1))  # (n·L, D)
        outputs.append(of_prefix.transpose(0, 1).flatten(0, 1))
        return torch.cat(outputs)

    def attend_from_ends(self, query: Tensor, projected: Tensor, rows: int) -> Tensor:
        """Attend from the last token of each text to its own prefix and the text.

        Args:
            query: (N, H, D/H) of these tokens, in the texts' order in the stream.
            projected: (T + P·R, 2, H, D/H) keys and values of the stream.

        Returns:
            (N, D), in the same order.
        """
        *groups, prefix = projected.split([*self.sizes, len(projected) - self.tokens])
        shared = prefix.unflatten(0, (-1, rows)).transpose(0, 1)  # (R, P, 2, H, D/H)
        outputs = []
        queries = query.unsqueeze(1).split(self.counts)  # (n, 1, H, D/H) each
        parts = zip(self.lengths, queries, groups, self.prefixes(shared), self.ends)
        for length, asking, own, before, end in parts:
            own = own.unflatten(0, (-1, length))
            key, value = torch.cat([before, own], dim=1).unbind(2)  # (n, P + L, H, D/H)
            outputs.append(
                attend(asking, key, value, self.end_mask(length, key, end)).flatten(0, 1)
            )
        return torch.cat(outputs)

    def prefixes(self, shared: Tensor) -> Sequence[Tensor]:
        """The keys and values of each text's prefix, (n, P, 2, H, D/H) for each group, out of the
        prefixes' (R, P, 2, H, D/H)."""
        if len(shared) == 1:
            of_texts = shared.expand(len(self.order), -1, -1, -1, -1)
        else:
            rows = self.order if len(shared) == len(self.order) else self.template
            of_texts = shared.index_select(0, rows)
        split: Sequence[Tensor] = of_texts.split(self.counts)
        return split

    def causal_mask(self, length: int, key: Tensor) -> Tensor:
        """Return the mask that is added to the products of a group's queries and keys (n, P + L, H, D/H): 0
        where a token sees another one, (L, P + L), −∞ elsewhere. It is made once, as most layers have the
        same P."""
        keys = key.shape[1]
        shape = (length, keys, key.dtype)
        if shape not in self.masks:
            hidden = torch.full((length, keys), -torch.inf, dtype=key.dtype, device=key.device)
            self.masks[shape] = hidden.triu(keys - length + 1)
        return self.masks[shape]

    def end_mask(self, length: int, key: Tensor, end: Tensor | None) -> Tensor | None:
        """Return the mask for the last tokens alone, (n, 1, 1, P + L), which stand at ``end`` (n,) in their texts;
        None where no text is padded, whose last token sees all of it."""
        if end is None:
            return None
        keys = key.shape[1]
        shape = ("end", length, keys, key.dtype)
        if shape not in self.masks:
            place = torch.arange(keys, device=key.device) - (keys - length)  # (P + L,)
            mask = torch.zeros(len(end), keys, dtype=key.dtype, device=key.device)
            hidden = mask.masked_fill(place > end[:, None], -torch.inf)
            self.masks[shape] = hidden[:, None, None]
        return self.masks[shape]


def groups_of(
    lengths: Sequence[int], counts: Sequence[int], group_cost: float
) -> list[tuple[int, int]]:
    """Texts in groups of neighbouring lengths, each padded to its longest, so that tokens and
    ``group_cost`` per group are together as few as can be.

    lengths: ascending; counts: of the texts of each length.

    Returns:
        of each group the length and how many texts it has.
    """
    before = [0, *accumulate(counts)]  # texts that are shorter
    least = [0.0]  # cost of the texts of the first lengths
    starts: list[int] = []  # of their last group
    for last, length in enumerate(lengths):
        costs = []
        for start in range(last + 1):
            padded = length * (before[last + 1] - before[start])
            costs.append(least[start] + padded + group_cost)
        starts.append(costs.index(min(costs)))
        least.append(min(costs))
    groups = []
    stop = len(lengths)
    while stop > 0:
        start = starts[stop - 1]
        groups.append((lengths[stop - 1], before[stop] - before[start]))
        stop = start
    return groups[::-1]


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
        self.layouts: dict[tuple[tuple[int, ...], int, torch.device, float], Layout] = {}

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
        rows, shared = prefix.shape[:2]
        dtype = self.text_projection.dtype  # of the maps; positions and norms stay fp32
        positions = self.positional_embedding.to(dtype)
        lengths = (end.cpu() + 1).expand(rows, -1)  # (M, K)
        layout = self.layout(lengths, prefix.device)
        own = layout.own_tokens(suffix).to(dtype) + positions[shared + layout.position]  # (T, D)
        prefix = prefix.to(dtype) + positions[:shared]  # (M, P, D)
        x = torch.cat([own, prefix.transpose(0, 1).flatten(0, 1)])  # (T + P·M, D)

        for block, prompt, adapter in layers[:-1]:
            x, rows = layout.enter(x, rows, prompt, adapter)
            attended = layout.attend(block.project(x, adapter=adapter), rows)
            x = block.finish(x, attended, adapter)  # (T + P·R, D)

        # the last layer's output is read at end-of-text only: the other tokens need not get that far
        last, prompt, adapter = layers[-1]
        x, rows = layout.enter(x, rows, prompt, adapter)
        read = x.index_select(0, layout.end)  # (N, D)
        query = last.project(read, "q", adapter).squeeze(-3)  # (N, H, D/H)
        attended = layout.attend_from_ends(query, last.project(x, "kv", adapter), rows)
        feature = self.ln_final(last.finish(read, attended, adapter)) @ self.text_projection
        features: Tensor = feature[layout.place].unflatten(0, lengths.shape)  # (M, K, E)
        return features

    def layout(self, lengths: Tensor, device: torch.device) -> Layout:
        """The layout of texts of these lengths (M, K), which is made once."""
        of_texts = tuple(lengths.flatten().tolist())
        flops = GROUP_FLOPS.get(device.type, GROUP_FLOPS["cuda"])
        # of a token in a layer: forward, and backward to the prompts' parameters
        group_cost = flops / (48 * self.width**2)
        key = of_texts, lengths.shape[1], device, group_cost
        if key not in self.layouts:
            if len(self.layouts) == MOST_LAYOUTS:
                self.layouts.clear()
            self.layouts[key] = Layout(*key)
        return self.layouts[key]

    @property
    def embed_dim(self) -> int:
        """Width E of the space shared with images."""
        return self.text_projection.shape[1]

    def tokenize_classes(self, classnames: Iterable[str], template: str) -> Tensor:
        """Return token ids (K, length), by ``tokens.tokenize_classes``."""
        return tokenize_classes(classnames, template, self.context_length)

    def tokenize_sentences(self, texts: Sequence[str]) -> Tensor:
        """Return token ids (N, length), cut to the positions."""
        return tokenize(texts, self.context_length, cut=True)

    def unlearned_tokens(self) -> Tensor:
        """Return a mask (V,) of the tokens that it has not learned."""
        return unlearned_mask(self.token_embedding.weight)

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
    """Return the number of tokens that N texts, (N, length) token ids, share at their beginning, at
    least one; and the places of their ends, (N,)."""
    end = tokens.argmax(dim=1)  # end-of-text has the highest id
    common = int((tokens == tokens[:1]).all(dim=0).int().cumprod(dim=0).sum())
    return max(1, min(common, int(end.min()))), end  # end-of-text stays with the texts
