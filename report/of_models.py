"""The figures of a report that need the runs' models."""

from .feature_map import map_figures
from .occlusion import occlusion_figures
from .page import MoreFigures

MODEL_FIGURES: dict[str, MoreFigures] = {
    "Where do the templates look?": occlusion_figures,
    "Which images are alike?": map_figures,
}  # a section's title → its figures
