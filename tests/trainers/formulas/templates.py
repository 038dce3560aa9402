"""Formulas of methods over other methods: DePT's head, CDC's templates."""

import torch
import torch.nn.functional as F
from torch.distributions import Dirichlet, kl_divergence

from tests.reference import stock_context_features, stock_image_features, unit
from tests.trainers.formulas.prompts import CoOp, KgCoOp, MaPLe, PromptSRC, Published

LEVEL = 4.0  # nats of evidence that the untrained CLIP gives
DELTA = 0.03  # the length below which CDC takes no direction for one


class DePT(Published):
    """Over the method whose class is ``over``."""

    def __call__(self, images, labels):
        learner, settings = self.method.learner, self.settings
        base, head = self.over(self.stock, self.method), learner.head
        pictures, texts = base.features(learner, images[0])
        logits = base.cosines(pictures, texts)

        loss = base.loss(logits, pictures, texts, images[0], labels)
        if head is None:
            return logits[None], loss

        def headed(adjusted, feature):
            return (
                head.linear.weight @ (adjusted.scale * feature + adjusted.bias) + head.linear.bias
            )

        of_images = torch.stack([headed(head.image, picture) for picture in pictures])
        of_texts = torch.stack([headed(head.text, texts[k]) for k in labels])
        loss = loss + (settings.PROMPT_WEIGHT - 1) * F.cross_entropy(logits, labels)
        for rows in (of_images, of_texts):
            loss = loss + settings.HEAD_WEIGHT * F.cross_entropy(rows, labels) / 2
        return torch.stack([logits, of_images]), loss

    def probability(self, logits):
        weight = self.settings.HEAD_WEIGHT
        return ((1 - weight) * logits[0] + weight * logits[1]).softmax(dim=-1)


def evidential(evidence, labels, is_trusted=False, share_of_divergence=0.0):
    """Mean over images of (ψ(S) − ψ(α_y) − log(e_y / Σ_k e_k)) / 2 of evidence (B, K), or of ψ(S) −
    ψ(α_y); and a share of the divergence of Dir(α̃) from the uniform one."""
    alpha, right = evidence + 1, evidence[range(len(labels)), labels]
    trusted = torch.digamma(alpha.sum(1)) - torch.digamma(right + 1)
    loss = trusted if is_trusted else (trusted + (evidence.sum(1) / right).log()) / 2
    wrong = torch.where(F.one_hot(labels, alpha.shape[1]).bool(), 1.0, alpha)
    divergence = kl_divergence(Dirichlet(wrong), Dirichlet(torch.ones_like(wrong)))
    return (loss + share_of_divergence * divergence).mean()


def evidence_of(logits, kind, offset):
    """e (…, K) of a template's logits under EVIDENCE."""
    if kind == "softplus":
        return (1 + logits.exp()).log()
    if kind == "relu":
        return torch.where(logits > 0, logits, 0 * logits + 1e-6)
    return logits.shape[-1] * (logits - offset + LEVEL).exp()


def fused_evidence(evidence, reliability):
    """e of the fused opinion, K (Π_m (1 + e^m / K)^ω_m − 1), of evidence (M, B, K)."""
    classes, product = evidence.shape[-1], 1
    for one, weight in zip(evidence, reliability):
        product = product * (1 + one / classes) ** weight
    return classes * (product - 1)


def similarity(features):
    """Mean over pairs of templates and N of the features' cosines; (M, N, E)."""
    pairs = [
        (features[m] * features[n]).sum(-1).mean() for n in range(len(features)) for m in range(n)
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0


def decoupling(features, anchors):
    """Mean over pairs of templates and N of the deviations' cosines, smooth near 0; (M, N, E) each."""
    terms = []
    for n in range(len(features[0])):
        away = [one[n] - anchor[n] for one, anchor in zip(features, anchors)]
        lengths = [(one.square().sum() + DELTA**2).sqrt() for one in away]
        for second in range(len(away)):
            for first in range(second):
                terms.append(away[first] @ away[second] / (lengths[first] * lengths[second]))
    return sum(terms) / len(terms) if terms else 0.0


class CDC(Published):
    """Templates over any prompts: sums over the templates, the fused opinion, and the pairs' terms."""

    def template(self, m):
        """Features of template m's own images and texts, and what its cross-entropy is added to."""
        learner, settings = self.method.learner, self.settings
        phrase = settings.CTX_INIT[m].split() if m < len(settings.CTX_INIT) else []
        words = phrase if len(phrase) >= settings.N_CTX else ["X"] * settings.N_CTX
        deep = [layer[m] for layer in learner.deep_ctx]
        texts = stock_context_features(
            self.stock, learner.ctx[m], self.names, " ".join(words), deep, normalize=False
        )
        visual = [
            layer @ project.weight[m].T + project.bias[m]
            for project, layer in zip(learner.visual_maps, [learner.ctx[m], *deep])
        ]
        first = visual[0] if visual else None
        return stock_image_features(self.stock, self.views[m], first, visual[1:]), texts, 0.0

    modality = "dual"

    @property
    def base(self):
        """The method whose hand-crafted prompts are CDC's."""
        return self

    def __call__(self, images, labels):
        settings, learner, count = self.settings, self.method.learner, self.settings.N_TEMPLATES
        self.views, self.labels = [images[m % len(images)] for m in range(count)], labels
        pictures, texts, extra = zip(*(self.template(m) for m in range(count)))
        logits = torch.stack([self.cosines(*pair) for pair in zip(pictures, texts)])
        loss = sum(extra)
        if settings.LOSS == "cross_entropy":
            loss = loss + sum(F.cross_entropy(one, labels) for one in logits)
        else:
            evidence = evidence_of(logits, settings.EVIDENCE, learner.evidence.offset)
            annealed = self.method.memory.get("epochs_done", 0) / (settings.ANNEALING_EPOCHS or 1)
            how = (settings.LOSS == "trusted", min(1.0, annealed))
            loss = loss + sum(evidential(one, labels, *how) for one in evidence)
            if settings.FUSION == "dempster" and settings.FUSED_LOSS:
                omega = 1.0 if settings.RELIABILITY == "independent" else 1 / count
                fused = fused_evidence(evidence, [omega] * count)
                loss = loss + evidential(fused, labels, *how)
        terms = [([unit(one) for one in texts], [self.base.known] * count)]
        if settings.get("PROMPT_MODALITY", self.modality) == "dual":  # of each M-th image
            unprompted = [unit(self.stock.encode_image(view))[::count] for view in self.views]
            terms.append(([unit(part)[::count] for part in pictures], unprompted))
        for features, anchors in terms:
            near = sum(1 - F.cosine_similarity(*pair).mean() for pair in zip(features, anchors))
            is_plain = settings.DECOUPLED == "features"
            apart = similarity(features) if is_plain else decoupling(features, anchors)
            loss = loss + settings.DECOUPLING_WEIGHT * apart
            loss = loss + settings.CONSISTENCY_WEIGHT * near
        return logits, loss


class DePTCoOp(DePT):
    over = CoOp


class DePTKgCoOp(DePT):
    over = KgCoOp


class DePTMaPLe(DePT):
    over = MaPLe


class DePTPromptSRC(DePT):
    over = PromptSRC
