"""Trains or tests one run: the command that CoOp's users know, arguments unchanged. What it does: protocols/training.py

    python train.py --trainer CDC --config-file configs/trainers/CDC/tiny.yaml \
        --dataset-config-file configs/datasets/openmoji.yaml --root data --seed 1 --output-dir output/my_run
    python train.py --trainer CDC --images my_folder      # a folder of class folders
"""
import sys

from protocols.training import main

if __name__ == "__main__":
    sys.exit(main())
