"""CLIP under learnable prompts: frozen towers that take prompts as arguments, without Dassl.

The ``clip`` package is imported here, for all: it imports ``pkg_resources``, which warns that it is
deprecated, and no user can help that.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pkg_resources")
    import clip as clip
