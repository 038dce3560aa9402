"""Prompt-learning trainers for Dassl: one file per method. Importing a method's module registers
its trainer.

``METHODS`` is the one list of them; ``add_method`` adds other packages' methods to it. Importing
the package registers nothing.
"""

from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from .method import Method
    from .prompting.backbone import Backbone

__version__ = "0.1.0"

METHODS = {  # registered name → module, relative to this package or absolute
    "ZeroshotCLIP": ".zsclip",
    "ZeroshotCLIP2": ".zsclip",
    "CoOp": ".coop",
    "CoCoOp": ".cocoop",
    "KgCoOp": ".kgcoop",
    "ProGrad": ".prograd",
    "CLIPLoRA": ".cliplora",
    "MMA": ".mma",
    "MMRL": ".mmrl",
    "LinearProbe": ".linearprobe",
    "TipAdapter": ".tipadapter",
    "TipAdapterF": ".tipadapter",
    "GDA": ".gda",
    "ProLIP": ".prolip",
    "TCP": ".tcp",
    "CoPrompt": ".coprompt",
    "DePTCoOp": ".dept",
    "DePTKgCoOp": ".dept",
    "DePTMaPLe": ".dept",
    "DePTPromptSRC": ".dept",
    "VPT": ".vpt",
    "IVLP": ".ivlp",
    "MaPLe": ".maple",
    "PromptSRC": ".promptsrc",
    "CDC": ".cdc",
}

MULTI_LABEL_METHODS = {  # the methods that answer yes or no to each label: name → module and class
    "BinaryProbe": (".binaryprobe", "BinaryProbeMethod"),
    "ZeroshotCLIP": (".zsclip", "NamesAloneMethod"),
}


def add_method(name: str, module: str) -> None:
    """Adds a method from outside this package to ``METHODS``: every command that runs in this process
    then knows it as it knows ours.

    Call it where your package is imported, as ``experiments/methods/__init__.py`` does; the module
    itself is imported when the method is used. ``run.py`` makes each run in a process of its own,
    which knows only the methods that are listed here.

    Args:
        name: that its trainer is registered under.
        module: absolute name of the module that has ``<name>Method`` and ``add_<name>_config``.

    Raises:
        UserError: the name is taken; two that differ in case alone would share a config node.
    """
    from .common.errors import UserError  # here: importing the package imports nothing of it

    for known in METHODS:
        if known.upper() == name.upper():
            raise UserError(f"the name {name!r} is taken by {known}: give the method another one")
    METHODS[name] = module


def list_trainers(pattern: str = "*") -> list[str]:
    """Names of the methods that a pattern fits, such as ``*CoOp*``, in the order of ``METHODS``."""
    return [name for name in METHODS if fnmatchcase(name, pattern)]


def method_node(method: str) -> "CfgNode":
    """A new node of the method's settings, all at their defaults."""
    from .common.setting import node_of

    return node_of(method_class(method).declared)


def method_class(method: str) -> "type[Method]":
    """The ``Method`` of a name in ``METHODS``."""
    module = import_module(METHODS[method], __name__)
    return cast("type[Method]", getattr(module, f"{method}Method"))


def multi_label_class(method: str) -> "type[Method]":
    """The ``Method`` of a name in ``MULTI_LABEL_METHODS``."""
    module, name = MULTI_LABEL_METHODS[method]
    return cast("type[Method]", getattr(import_module(module, __name__), name))


def methods_for(backbone: "Backbone", multi_label: bool = False) -> list[str]:
    """Names of the methods that serve a backbone whose text encoder takes no prompts, or that has none.

    multi_label: whether those that answer yes or no to each label are meant.
    """
    served = []
    for name in MULTI_LABEL_METHODS if multi_label else METHODS:
        method = multi_label_class(name) if multi_label else method_class(name)
        serves_images = backbone.takes_visual_prompts or method.text_only is not None
        serves_texts = backbone.has_texts or not method.needs_texts
        if not method.prompts_texts and serves_images and serves_texts:
            served.append(name)
    return served
