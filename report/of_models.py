"""The figures of a report that need the runs' models."""

from functools import partial

from .feature_map import map_figures
from .occlusion import occlusion_figures
from .page import MoreFigures


def model_figures(device: str) -> dict[str, MoreFigures]:
    """Return a section's title → its figures; device: as in ``load_run``."""
    return {
        "Where do the templates look?": partial(occlusion_figures, device=device),
        "Which images are alike?": partial(map_figures, device=device),
    }
