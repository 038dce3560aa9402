"""A view of the training image for each template: Dassl's own training transform with one more operation a template.

The paper names its two augmentation sets; which operations they hold is our choice (see the README).
"""
import torchvision.transforms as T
from dassl.data.transforms import build_transform

AUGMENTATIONS = (1, 2, None)


def template_views(cfg, templates, augmentation):
    """One transform a template.

    Args:
        cfg: ``cfg.INPUT`` says what all views share (``TRANSFORMS``: crop, flip, normalise …) and how strong colour jitter
            (``COLORJITTER_*``), grayscale (``RGS_P``) and blur (``GB_P``, ``GB_K``) are.
        templates: M.
        augmentation: ``1``: in turn nothing more, colour jitter, grayscale and blur, a small affine map; ``2``: the same, and
            one more random crop each (``CROP_PADDING``).

    Returns:
        list of M transforms, PIL image → (3, H, W).
    """
    steps = build_transform(cfg, is_train=True).transforms
    tensor = next(i for i, step in enumerate(steps) if isinstance(step, T.ToTensor))
    extra = [[], [color_jitter(cfg.INPUT)], [T.RandomGrayscale(cfg.INPUT.RGS_P), blur(cfg.INPUT)],
             [T.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.9, 1.1))]]
    crop = [T.RandomCrop(cfg.INPUT.SIZE, padding=cfg.INPUT.CROP_PADDING)] if augmentation == 2 else []
    return [T.Compose(steps[:tensor] + crop + extra[template % len(extra)] + steps[tensor:]) for template in range(templates)]


def color_jitter(settings):
    return T.ColorJitter(settings.COLORJITTER_B, settings.COLORJITTER_C, settings.COLORJITTER_S, settings.COLORJITTER_H)


def blur(settings):
    return T.RandomApply([T.GaussianBlur(settings.GB_K)], settings.GB_P)
