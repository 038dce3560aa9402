"""dassl-lite: the part of Dassl 0.6.3's interface that prompt-learning code uses, on current PyTorch."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="dassl-lite",
    version="0.1.0",
    description="The part of Dassl 0.6.3's interface that CoOp-style code needs, on current PyTorch (import name: dassl)",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["dassl", "dassl.*"]),
    package_data={"dassl": ["py.typed", "config/defaults.yaml"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.5",
        "torchvision",
        "numpy",
        "pillow",
        "pyyaml",
        "yacs",
        "tabulate",
        "scikit-learn",
        "tqdm",
    ],
    extras_require={
        "tensorboard": ["tensorboard"],  # without it, no scalars are written
    },
)
