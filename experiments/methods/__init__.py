"""Methods of our own that did not gain: worked examples of a method outside ``trainers``.

Importing this package makes them known, as any package can make its own.
"""

from pathlib import Path

from trainers import add_method
from trainers.common import recipes

OURS = {  # registered name → module
    "CDCGDA": "experiments.methods.cdcgda",
    "CDCPromptSRC": "experiments.methods.cdcover",
    "CDCTCP": "experiments.methods.cdcover",
}
for name, module in OURS.items():
    add_method(name, module)


def recipe_path(trainer: str, config: str) -> str:
    """The trainer's config file of that name, whether the trainer is one of these or the product's.

    Raises:
        UserError: see ``recipes.recipe_path``.
    """
    own = Path(__file__).with_name("configs") / trainer / f"{config}.yaml"
    return str(own) if own.is_file() else recipes.recipe_path(trainer, config)
