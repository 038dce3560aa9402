"""CLIP under learnable prompts: frozen towers that take prompts as arguments. Knows nothing of Dassl."""
