"""The methods' published formulas, written out: all 77 positions, one class, one image and one
layer at a time.

Each rests on the modules of the installed ``clip``, a method's parameters and the authors'
hand-crafted prompts (golden/methods.yaml), and on nothing of ours. Here: prompts.
"""

import random
from functools import cached_property
from pathlib import Path

import clip
import torch
import torch.nn.functional as F
import yaml

from tests.reference import (
    prompted_embeddings,
    stock_context_features,
    stock_image_features,
    stock_text_features,
    unit,
)

GOLDEN = yaml.safe_load((Path(__file__).parents[2] / "golden/methods.yaml").read_text("utf-8"))
KNOWN = GOLDEN["hand_crafted"]
WITH_TYPE = KNOWN["KgCoOp"]["DescribableTextures"]  # KgCoOp's and its followers' prompt for DTD


class Published:
    """A method's formulas over its parameters.

    Args:
        stock: the CLIP of the installed ``clip``.
        method: the ``Method``, whose learner, settings and sentences about the classes are used.
    """

    templates = ("{} texture.",)  # the hand-crafted prompts
    normalizes = True  # their features, before the mean

    def __init__(self, stock, method):
        self.stock, self.method, self.settings = stock, method, method.settings
        self.names = [name.replace("_", " ") for name in method.classnames]

    def cosines(self, pictures, texts):
        """τ · cos (B, K) of features as the encoders give them."""
        return self.stock.logit_scale.exp() * unit(pictures) @ unit(texts).T

    @cached_property
    def known(self):
        """(K, E): the mean over a class's hand-crafted prompts and sentences."""
        described = self.method.describe or (lambda names: [[]] * len(names))
        rows = []
        for name, sentences in zip(self.names, described(self.method.classnames)):
            texts = [*(template.format(name) for template in self.templates), *sentences]
            features = self.stock.encode_text(clip.tokenize(texts, truncate=True))
            rows.append(sum(unit(one) if self.normalizes else one for one in features))
        return unit(torch.stack(rows))

    def features(self, learner, images):
        """Features of images (B, E) and texts (K, E) under prompts, before they are normalised."""
        raise NotImplementedError

    def loss(self, logits, pictures, texts, images, labels):
        """Of logits (B, K) and what ``features`` gives."""
        return F.cross_entropy(logits, labels)

    def parts(self, learner, images, labels):
        """Logits (B, K) and loss of images (B, 3, H, W)."""
        pictures, texts = self.features(learner, images)
        logits = self.cosines(pictures, texts)
        return logits, self.loss(logits, pictures, texts, images, labels)

    def __call__(self, images, labels):
        """Logits (M, B, K) and loss of images (V, B, 3, H, W)."""
        logits, loss = self.parts(self.method.learner, images[0], labels)
        return logits[None], loss

    def probability(self, logits):
        """The answer (B, K) of logits (M, B, K)."""
        return logits[0].softmax(dim=-1)

    def gradients(self, loss):
        return torch.autograd.grad(loss, list(self.method.learner.parameters()))


# ---- texts ----


class ZeroshotCLIP(Published):
    def features(self, learner, images):
        return self.stock.encode_image(images), self.known


class ZeroshotCLIP2(ZeroshotCLIP):
    templates = (*GOLDEN["selected"], "{} texture.")


class CoOp(Published):
    """``PromptLearner.forward`` of its repository, one class after the other."""

    def before(self, n):
        """What stands before the class name in the text that is tokenized; n: context tokens."""
        return " ".join(["X"] * n)

    def features(self, learner, images):
        rows, position = [], self.settings.get("CLASS_TOKEN_POSITION", "end")
        for k, name in enumerate(self.names):
            context = learner.ctx[k] if learner.ctx.dim() == 3 else learner.ctx
            n, half = len(context), len(context) // 2
            tokens = clip.tokenize([f"{self.before(n)} {name}."])
            embedded = self.stock.token_embedding(tokens)[0]
            after = 1 + n + len(clip.tokenize(name)[0].nonzero()) - 2
            start, label, rest = embedded[:1], embedded[1 + n : after], embedded[after:]
            order = {
                "end": [start, context, label, rest],
                "middle": [start, context[:half], label, context[half:], rest],
                "front": [start, label, context, rest],
            }[position]
            rows += stock_text_features(self.stock, torch.cat(order)[None], tokens.argmax(1))
        return self.stock.encode_image(images), torch.stack(rows)


class KgCoOp(CoOp):
    templates = (WITH_TYPE,)

    def loss(self, logits, pictures, texts, images, labels):
        apart = [1 - F.cosine_similarity(*pair, dim=0) for pair in zip(texts, self.known)]
        return F.cross_entropy(logits, labels) + self.settings.W * sum(apart) / len(apart)


class ProGrad(CoOp):
    """The gradient is that of the cross-entropy without what works against the other one."""

    def __init__(self, stock, method):
        super().__init__(stock, method)
        known = {**KNOWN["CoOp"], **KNOWN["ProGrad"]}
        self.templates = [known[method.dataset]]

    def before(self, n):
        """Its repository takes as many tokens from the prompt as this has words."""
        phrase = self.templates[0].replace(" {}.", "")
        return " ".join([*["X"] * (n - len(phrase.split(" "))), phrase])

    def loss(self, logits, pictures, texts, images, labels):
        t, task = self.settings.T, F.cross_entropy(logits, labels)
        teacher = (self.cosines(pictures, self.known) / t).softmax(1)
        student = (logits / t).softmax(1)
        self.general = (teacher * (teacher.log() - student.log())).sum(1).mean() * t * t
        return task

    def gradients(self, loss):
        context = self.method.learner.ctx
        task, general = (
            torch.autograd.grad(part, context, retain_graph=True)[0]
            for part in (loss, self.general)
        )
        self.dot = (task * general).sum()  # whether they conflict
        against = self.dot / general.norm() ** 2 * general if self.dot < 0 else 0
        return [task - self.settings.LAMBDA * against]


class CoCoOp(Published):
    """A text encoding for every image."""

    def parts(self, learner, images, labels):
        first, second, rows = learner.meta_net.linear1, learner.meta_net.linear2, []
        for picture in unit(self.stock.encode_image(images)):
            hidden = (first.weight @ picture + first.bias).clamp(min=0)
            context = learner.ctx + second.weight @ hidden + second.bias
            texts = stock_context_features(self.stock, context, self.names)
            rows.append(self.cosines(picture, texts))
        logits = torch.stack(rows)
        return logits, F.cross_entropy(logits, labels)


class TCP(KgCoOp):
    """Each class's own tokens are put over the context before a layer."""

    def __init__(self, stock, method):
        super().__init__(stock, method)
        self.words = "{} texture."
        if method.dataset == "UCF101":
            self.templates, self.words = ["a photo of a person doing {}."], "person doing {}."

    def features(self, learner, images):
        first, second, rows = learner.reduce, learner.expand, []
        for name, feature in zip(self.names, self.known):
            hidden = first.weight @ feature + first.bias
            hidden = hidden * torch.sigmoid(1.702 * hidden)  # QuickGELU
            tokens = (second.weight @ hidden + second.bias).reshape(learner.ctx.shape)
            text = " ".join([*["X"] * len(learner.ctx), self.words.format(name)])
            text = clip.tokenize([text])
            embedded = prompted_embeddings(self.stock, text, learner.ctx)
            deep = [*[None] * (self.settings.LAYER - 1), tokens]
            rows += stock_text_features(self.stock, embedded, text.argmax(1), deep)
        return self.stock.encode_image(images), torch.stack(rows)


# ---- both encoders ----


class VPT(Published):
    def __init__(self, stock, method):
        super().__init__(stock, method)
        self.templates = [f"{self.settings.CTX_INIT.replace('_', ' ')} {{}}."]

    def features(self, learner, images):
        deep = list(learner.deep_ctx)
        return stock_image_features(self.stock, images, learner.ctx, deep), self.known


class Prompted(Published):
    """Deep prompts in both encoders; a subclass says where the image encoder's come from."""

    def features(self, learner, images):
        deep, visual = self.prompts(learner)
        words = self.settings.CTX_INIT or None
        context = stock_context_features(
            self.stock, learner.ctx, self.names, words, deep, normalize=False
        )
        first = visual[0] if visual else None
        return stock_image_features(self.stock, images, first, visual[1:]), context


class MaPLe(Prompted):
    def prompts(self, learner):
        deep = list(learner.compound_prompts_text)
        maps = [learner.proj, *learner.compound_prompt_projections]
        return deep, [
            layer @ project.weight.T + project.bias
            for layer, project in zip([learner.ctx, *deep], maps, strict=True)
        ]


class IVLP(Prompted):
    def prompts(self, learner):
        visual = learner.visual
        return list(learner.deep_ctx), [] if visual is None else [visual.ctx, *visual.deep_ctx]


class PromptSRC(IVLP):
    templates, normalizes = GOLDEN["diverse"], False

    def loss(self, logits, pictures, texts, images, labels):
        frozen = unit(self.stock.encode_image(images))
        frozen_logits, divergence = self.cosines(frozen, self.known), 0
        for ours, theirs in zip(logits, frozen_logits):
            for p, q in zip(theirs.softmax(0), ours.softmax(0)):
                divergence = divergence + p * (p.log() - q.log()) / logits.numel()
        text = (unit(texts) - self.known).abs().mean()
        image = (unit(pictures) - frozen).abs().mean()
        weights = self.settings.TEXT_LOSS_WEIGHT, self.settings.IMAGE_LOSS_WEIGHT
        task = F.cross_entropy(logits, labels)
        return task + weights[0] * text + weights[1] * image + divergence


class CoPrompt(MaPLe):
    templates = (WITH_TYPE,)

    def features(self, learner, images):
        def adapted(adapter, features, share):
            first, second, rows = adapter.fc[0].weight, adapter.fc[2].weight, []
            for one in features:
                changed = (second @ (first @ one).clamp(min=0)).clamp(min=0)
                rows.append(share * changed + (1 - share) * one)
            return torch.stack(rows)

        pictures, texts = super().features(learner, images)
        pictures = adapted(learner.adapter_image, pictures, 0.1)
        return pictures, adapted(learner.adapter_text, texts, 0.2)

    def __call__(self, images, labels):
        pictures, texts = self.features(self.method.learner, images[0])
        logits, known = self.cosines(pictures, texts), self.known
        if self.method.describe:
            sentences = self.method.describe(self.method.classnames)
            drawn = random.randrange(max(map(len, sentences)))  # shorter lists begin again
            chosen = clip.tokenize([own[drawn % len(own)] for own in sentences], truncate=True)
            known = unit(self.stock.encode_text(chosen))
        other = self.stock.encode_image(images[1])
        apart = [
            1 - F.cosine_similarity(*pair).mean() for pair in ((texts, known), (pictures, other))
        ]
        return logits[None], F.cross_entropy(logits, labels) + self.settings.W * sum(apart)
