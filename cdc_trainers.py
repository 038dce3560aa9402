"""The package ``trainers`` by the name that it has when it is installed: the same modules, not a copy."""

from trainers.common.imports import name_again

name_again("trainers", "cdc_trainers")
