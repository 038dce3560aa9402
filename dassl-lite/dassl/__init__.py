"""The interface of Dassl 0.6.3 as far as CoOp-style code uses it, on current PyTorch."""

__all__ = ["is_lite"]

# the version of Dassl whose interface this is; the distribution dassl-lite has its own
__version__ = "0.6.3"
is_lite = True  # tells this package from the real one, which has no such name
