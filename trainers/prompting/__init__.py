"""CLIP under learnable prompts: frozen towers that take prompts as arguments, without Dassl."""
