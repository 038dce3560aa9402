"""CLIP's text encoder for M prompt templates over K classes, exact and without the waste.

CLIP's text transformer is causal and its feature is read at the end-of-text token. Three things follow *exactly*:

1. Positions behind end-of-text can't matter, so the 77 positions are cut to the longest text at hand.
2. Of the last layer's output only that token is read, so only its query and its MLP are computed there.
3. Whatever all classes of one template share in front (start token, context tokens, fixed words; deep prompts too) sees
   nothing of the class. It is run once a template, and each class's own tokens attend to its keys and values.
"""
import torch
import torch.nn.functional as F
from torch import nn

from .transformer import LayerNorm, Transformer, check_depth


class TextEncoder(nn.Module):
    """The text tower. Its parameters carry the names that CLIP's state dict has at its top level.

    Args:
        width, layers, heads: of the transformer (D, L, H).
        context_length: number of positions (77 in OpenAI's models).
        vocabulary: number of token embeddings.
        embed_dim: width E of the space shared with images.
    """

    def __init__(self, width, layers, heads, context_length, vocabulary, embed_dim):
        super().__init__()
        self.transformer = Transformer(width, layers, heads)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))

    @property
    def width(self):
        return self.positional_embedding.shape[1]

    @property
    def layers(self):
        return len(self.transformer.resblocks)

    @property
    def context_length(self):
        return self.positional_embedding.shape[0]

    def forward(self, prefix, suffix, end, deep_prompts=()):
        """Features of every class under every template.

        Args:
            prefix: (M, P, D) token embeddings that all classes of a template share; the first is the start token.
            suffix: (M, K, S, D), or (1, K, S, D) if the same for all templates: each class's own tokens up to end-of-text,
                padded behind it with anything.
            end: (M, K) or (1, K) position of end-of-text within the suffix.
            deep_prompts: one (M, n, D) for each layer behind the first that gets new prompts; they replace the n
                positions behind the start token in front of that layer (Khattak et al., 2023, MaPLe, §3.2).

        Returns:
            (M, K, E), not normalised.

        Raises:
            ValueError: more positions than the encoder has, or more deep prompts than layers.
        """
        check_depth(deep_prompts, self.layers)
        templates, shared, width = prefix.shape
        classes, own = suffix.shape[1:3]
        if shared + own > self.context_length:
            raise ValueError(f"{shared} + {own} tokens for {self.context_length} positions")
        dtype = self.positional_embedding.dtype
        positions = self.positional_embedding[:shared + own]  # (P + S, D)
        prefix = prefix.to(dtype) + positions[:shared]  # (M, P, D)
        suffix = (suffix.to(dtype) + positions[shared:]).expand(templates, -1, -1, -1).flatten(0, 1)  # (M·K, S, D)
        visible = torch.ones(own, shared + own, dtype=torch.bool, device=prefix.device).tril(shared)  # (S, P + S)

        for layer, block in enumerate(self.transformer.resblocks):
            if 0 < layer <= len(deep_prompts):
                prompt = deep_prompts[layer - 1].to(dtype)  # (M, n, D)
                prefix = torch.cat([prefix[:, :1], prompt, prefix[:, 1 + prompt.shape[1]:]], dim=1)
            query, key, value = block.project(prefix)  # (M, H, P, D/H)
            own_query, own_key, own_value = block.project(suffix)  # (M·K, H, S, D/H)
            seen_key = torch.cat([key.repeat_interleave(classes, 0), own_key], dim=2)  # (M·K, H, P + S, D/H)
            seen_value = torch.cat([value.repeat_interleave(classes, 0), own_value], dim=2)
            if layer + 1 < self.layers:
                suffix = block.finish(suffix, F.scaled_dot_product_attention(own_query, seen_key, seen_value, visible))
                prefix = block.finish(prefix, F.scaled_dot_product_attention(query, key, value, is_causal=True))

        # the last layer's output is read at end-of-text only: the other tokens need not get that far
        end = end.expand(templates, -1).flatten()  # (M·K)
        every = torch.arange(len(suffix), device=suffix.device)
        end_query, seen = own_query[every, :, end][:, :, None], visible[end][:, None, None]  # (M·K, H, 1, D/H), (M·K, 1, 1, P + S)
        attended = F.scaled_dot_product_attention(end_query, seen_key, seen_value, seen)  # (M·K, H, 1, D/H)
        feature = block.finish(suffix[every, end][:, None], attended)[:, 0]  # (M·K, D)
        return (self.ln_final(feature) @ self.text_projection).view(templates, classes, -1)  # (M, K, E)

    def encode_tokens(self, tokens):
        """Features of plain texts, (N, length) token ids as ``clip.tokenize`` makes them → (N, E), not normalised."""
        end = tokens.argmax(dim=1)  # (N,): end-of-text has the highest id
        common = (tokens == tokens[:1]).all(dim=0).int().cumprod(dim=0).sum().item()
        shared = max(1, min(common, end.min().item()))  # end-of-text stays with the texts
        embedding = self.token_embedding(tokens[:, :end.max() + 1])  # (N, longest, D)
        return self(embedding[:1, :shared], embedding[None, :, shared:], (end - shared)[None])[0]
