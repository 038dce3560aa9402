"""Slow, readable references: the field's usual way with all 77 positions, one template and one loop
at a time."""

import clip
import torch


def stock_text_features(model, embeddings, end, deep_prompts=(), layer=None):
    """Prompted text features through the modules of the installed ``clip``.

    Args:
        embeddings: (N, 77, D) token embeddings, positions not added; end: (N,) end-of-text.
        deep_prompts: list of (n, D), put at positions 1 … n before layers 1, 2, …, or None.
        layer: what is computed in place of a block, of x (L, N, D), the block, its number from 1
            and "text".
    """
    x = embeddings + model.positional_embedding
    x = x.permute(1, 0, 2)  # (77, N, D), the layout of clip's blocks
    for number, block in enumerate(model.transformer.resblocks):
        if 0 < number <= len(deep_prompts) and deep_prompts[number - 1] is not None:
            prompt = deep_prompts[number - 1][:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x[:1], prompt, x[1 + len(prompt) :]])
        x = layer(x, block, number + 1, "text") if layer else block(x)
    x = model.ln_final(x.permute(1, 0, 2))
    return x[torch.arange(len(x)), end] @ model.text_projection


def stock_image_features(model, images, prompts=None, deep_prompts=()):
    """Prompted image features of (B, 3, H, W) through the modules of the installed ``clip``;
    prompts are (n, D)."""
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = (
        torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        + visual.positional_embedding
    )
    if prompts is not None:
        x = torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)
    x = visual.ln_pre(x).permute(1, 0, 2)
    for layer, block in enumerate(visual.transformer.resblocks):
        if 0 < layer <= len(deep_prompts) and deep_prompts[layer - 1] is not None:
            prompt = deep_prompts[layer - 1][:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x[: -len(prompt)], prompt])
        x = block(x)
    return visual.ln_post(x.permute(1, 0, 2)[:, 0]) @ visual.proj


def prompted_embeddings(model, tokens, context):
    """(K, 77, D) embeddings of tokenized texts whose positions 1 … n are replaced by ``context``,
    (n, D) or (K, n, D)."""
    embedded = model.token_embedding(tokens)
    context = context.expand(len(tokens), -1, -1)
    return torch.cat([embedded[:, :1], context, embedded[:, 1 + context.shape[1] :]], dim=1)


def unit(features):
    return features / features.norm(dim=-1, keepdim=True)


def stock_context_features(model, context, names, words=None, deep_prompts=(), normalize=True):
    """(K, E) features of "context, name." for K names.

    Args:
        context: (n, D) put in place of the first n tokens of ``words``, which default to n
            placeholders.
        deep_prompts: see ``stock_text_features``.
    """
    words = words or " ".join(["X"] * len(context))
    tokens = clip.tokenize([f"{words} {name.replace('_', ' ')}." for name in names])
    features = stock_text_features(
        model, prompted_embeddings(model, tokens, context), tokens.argmax(1), deep_prompts
    )
    return unit(features) if normalize else features
