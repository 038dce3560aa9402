"""Texts of classes for CLIP: names, hand-crafted prompts, descriptions."""
