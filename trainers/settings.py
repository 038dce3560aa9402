"""The settings that every method with prompts has in its own node."""
from yacs.config import CfgNode


def add_encoder_settings(node: CfgNode) -> None:
    """Declares ``PREC`` and ``TEXT_CHUNK`` in ``cfg.TRAINER.<NAME>``."""
    node.PREC = "fp16"  # fp32 | amp | fp16, see precision.py
    node.TEXT_CHUNK = 0  # classes in one pass of the text encoder; fewer need less memory and more time; 0: all at once
