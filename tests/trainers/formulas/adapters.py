"""Formulas of adapters in the towers, and of classifiers on CLIP's features."""

import clip
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tests.reference import stock_text_features, unit
from tests.trainers.formulas.prompts import Published, ZeroshotCLIP


class Layers(Published):
    """The two towers' blocks one by one; a subclass says what a layer does."""

    template = "a photo of a {}."  # whose tokens the adapted text encoder gets
    put = 0  # tokens that are put after the first one

    def features(self, learner, images):
        stock, visual = self.stock, self.stock.visual
        tokens = clip.tokenize([self.template.format(name) for name in self.names])
        texts = stock_text_features(
            stock, stock.token_embedding(tokens), tokens.argmax(1) + self.put, layer=self.layer
        )
        z = visual.conv1(images).flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(z), 1, -1)
        z = visual.ln_pre(torch.cat([first, z], dim=1) + visual.positional_embedding)
        z = z.permute(1, 0, 2)
        for number, block in enumerate(visual.transformer.resblocks, 1):
            z = self.layer(z, block, number, "image")
        self.tokens = visual.ln_post(z)
        return self.tokens[0] @ visual.proj, texts


class MMA(Layers):
    """Its gradients are 1 / s times the true ones."""

    def layer(self, x, block, number, tower):
        learner, layer = self.method.learner, str(number)
        if layer not in learner.shared_adapter:
            return block(x)
        own = (learner.text_adapter if tower == "text" else learner.visual_adapter)[layer]
        hidden = block.ln_1(x)
        for part in (own["down"][0], learner.shared_adapter[layer][0]):
            hidden = (hidden @ part.weight.T + part.bias).clamp(min=0)
        added = hidden @ own["up"].weight.T + own["up"].bias
        return block(x) + self.settings.ADAPTER_SCALE * added

    def gradients(self, loss):
        return [part / self.settings.ADAPTER_SCALE for part in super().gradients(loss)]


class MMRL(Layers):
    template = "{} texture."

    def layer(self, x, block, number, tower):
        learner, first = self.method.learner, self.settings.REP_START
        if first <= number <= self.settings.REP_END:
            name = f"compound_rep_tokens_r2{tower[0].replace('i', 'v')}proj"
            project = getattr(learner, name)[number - first]
            own = learner.compound_rep_tokens @ project.weight.T + project.bias
            own = own[:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x[:1], own, x[1 + (number > first) * len(own) :]])
        normed, is_text = block.ln_1(x), tower == "text"
        mask = torch.full((len(x), len(x)), -torch.inf).triu(1) if is_text else None
        x = x + block.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + block.mlp(block.ln_2(x))

    def __call__(self, images, labels):
        learner, scale = self.method.learner, self.settings.SCALE
        self.put = len(learner.compound_rep_tokens)
        pictures, texts = self.features(learner, images[0])
        logits = self.cosines(pictures, texts)[None]
        known = self.known, self.stock.encode_image(images[0])
        loss = scale * F.cross_entropy(logits[0], labels)
        if learner.proj_rep is not None:
            second = self.tokens[1 : 1 + self.put].mean(dim=0) @ learner.proj_rep
            logits = torch.cat([logits, self.cosines(second, texts)[None]])
            loss = loss + (1 - scale) * F.cross_entropy(logits[1], labels)
        for pair in zip((texts, pictures), known):
            loss = loss + self.settings.REG_WEIGHT * (1 - F.cosine_similarity(*pair).mean())
        return logits, loss

    def probability(self, logits):
        shares = [self.settings.SCALE, 1 - self.settings.SCALE] if len(logits) > 1 else [1]
        return sum(share * part for share, part in zip(shares, logits)).softmax(dim=-1)


class CLIPLoRA(Published):
    """The stock CLIP whose attention weights are W + α / √r · B A."""

    def parts(self, learner, images, labels):
        weights, scale = {}, self.settings.ALPHA / self.settings.RANK**0.5
        known = dict(self.stock.named_parameters())
        for tower, changes in (("", learner.text), ("visual.", learner.image)):
            for layer, change in enumerate(changes):
                name = f"{tower}transformer.resblocks.{layer}.attn.in_proj_weight"
                products = [up @ down for up, down in zip(change.up, change.down)]
                weights[name] = known[name] + scale * torch.cat(products)
        tokens = clip.tokenize([f"a photo of a {name}." for name in self.names])
        logits, _ = functional_call(self.stock, weights, (images, tokens))
        return logits, F.cross_entropy(logits, labels)


# ---- classifiers of CLIP's features ----


class OfFeatures(ZeroshotCLIP):
    """A subclass has the logits (K,) of an image's feature (E,) and zero-shot logits (K,)."""

    def parts(self, learner, images, labels):
        pictures, texts = self.features(learner, images)
        zero_shot = self.cosines(pictures, texts)
        rows = [self.row(learner, *pair) for pair in zip(unit(pictures), zero_shot)]
        return torch.stack(rows), F.cross_entropy(torch.stack(rows), labels)


class LinearProbe(OfFeatures):
    def row(self, learner, feature, zero_shot):
        if learner.weight is None:
            return zero_shot
        return learner.weight @ feature + learner.bias


class GDA(OfFeatures):
    def row(self, learner, feature, zero_shot):
        weight, bias = self.of_texts(learner) if learner.weight is None else learner.parameters()
        return zero_shot + learner.alpha * (weight @ feature + bias)

    def of_texts(self, learner, nearest=64, copies=16):
        """main_base2new.py: the nearest images and copies of the text; covariances around it."""
        means, precisions, width = [], [], learner.features.shape[1]
        for text in self.known:
            order = (learner.features @ text).argsort(descending=True)[:nearest]
            chosen = learner.features[order]
            means.append(torch.cat([chosen, text[None].repeat(copies, 1)]).mean(dim=0))
            covariance = (chosen - text).T @ (chosen - text) / (len(chosen) - 1)
            shrunken = (len(chosen) - 1) * covariance + covariance.trace() * torch.eye(width)
            precisions.append(width * torch.linalg.pinv(shrunken))
        means, precision = torch.stack(means), torch.stack(precisions).mean(dim=0)
        return means @ precision, -torch.einsum("kd,de,ke->k", means, precision, means) / 2


class TipAdapter(OfFeatures):
    def row(self, learner, feature, zero_shot):
        if learner.keys is None:
            return zero_shot
        votes = [torch.zeros(())] * len(zero_shot)
        for key, label in zip(learner.keys, learner.labels.tolist()):
            likeness = torch.exp(-learner.beta * (1 - feature @ key))
            votes[label] = votes[label] + likeness
        return zero_shot + learner.alpha * torch.stack(votes)


class ProLIP(ZeroshotCLIP, Layers):
    projection = None  # in place of the learner's

    def layer(self, x, block, number, tower):
        return block(x)

    def features(self, learner, images):
        Layers.features(self, learner, images)
        return self.tokens[0] @ (
            learner.vit_proj if self.projection is None else self.projection
        ), self.known


TipAdapterF = TipAdapter
