"""``PUBLISHED``: method → its published formulas."""

from tests.trainers.formulas import adapters, prompts, templates
from trainers import METHODS

PUBLISHED = {
    name: part
    for module in (prompts, adapters, templates)
    for name, part in vars(module).items()
    if name in METHODS
}
