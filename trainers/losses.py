"""Loss terms that several methods have."""


def consistency_loss(text_features, hand_crafted):
    """Mean of 1 − cos between each template's features (M, K, E) and the hand-crafted prompt's (K, E), all normalised.

    The knowledge-guided term of KgCoOp (Yao et al., 2023), which for normalised features is half the squared
    distance; CDC's L_con. Scalar in [0, 2].
    """
    return 1 - (text_features * hand_crafted).sum(dim=-1).mean()
