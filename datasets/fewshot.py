"""The few-shot sample of a run: CoOp's rule for every data set."""
from .splits import subsample_classes

VALIDATION_SHOTS = 4  # at most, as in CoOp


def few_shot(dataset, cfg, train, val, test):
    """What a run trains, validates and tests on.

    With ``NUM_SHOTS`` ≥ 1 that many training images a class are drawn with Python's generator, which the run's seed has
    set, and at most 4 validation images; then ``SUBSAMPLE_CLASSES`` keeps the base or the new classes.

    Args:
        dataset: the ``DatasetBase`` being built (it has the sampling rule).
        cfg: the run's config.
        train, val, test: lists of ``Datum``; ``val`` may be the test list itself (ImageNet), which is not sampled.

    Returns:
        dict of ``train_x``, ``val`` and ``test``.
    """
    shots = cfg.DATASET.NUM_SHOTS
    train = dataset.generate_fewshot_dataset(train, num_shots=shots)
    if val is not test:
        val = dataset.generate_fewshot_dataset(val, num_shots=min(shots, VALIDATION_SHOTS))
    train, val, test = subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
    return {"train_x": train, "val": val, "test": test}
