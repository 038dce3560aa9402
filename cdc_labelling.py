"""The package ``labelling`` by the name that it has when it is installed: the same modules, not a copy."""

from trainers.common.imports import name_again

name_again("labelling", "cdc_labelling")
