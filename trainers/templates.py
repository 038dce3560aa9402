"""The hand-crafted prompt of each data set: facts of the field (CLIP's prompts as CoOp's baselines use them)."""

DEFAULT_TEMPLATE = "a photo of a {}."
TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}


def hand_crafted_template(dataset_name):
    """The prompt, with ``{}`` where the class name goes."""
    return TEMPLATES.get(dataset_name, DEFAULT_TEMPLATE)
