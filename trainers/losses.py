"""Loss terms that several methods have."""
from torch import Tensor


def consistency_loss(features: Tensor, reference: Tensor) -> Tensor:
    """Mean of 1 − cos between features (M, N, E) and those they are kept near to, (N, E) or (M, N, E), all normalised.

    Of a template's texts and the hand-crafted prompt's it is the knowledge-guided term of KgCoOp (Yao et al., 2023), which for
    normalised features is half the squared distance; CDC's L_con. Scalar in [0, 2].
    """
    return 1 - (features * reference).sum(dim=-1).mean()
