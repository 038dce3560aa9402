"""The interface of Dassl 0.6.3 as far as CoOp-style code uses it, on current PyTorch."""

is_lite = True  # the real Dassl has no such name
__version__ = (
    "0.6.3"  # the version of Dassl whose interface this is; the distribution dassl-lite has its own
)
__lite__ = True  # tells this package from the real one
