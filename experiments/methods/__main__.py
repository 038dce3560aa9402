"""``train.py``, which knows the methods of this package, too.

    python -m experiments.methods --trainer CDCGDA --config-file experiments/methods/configs/CDCGDA/tiny.yaml \
        --dataset-config-file configs/datasets/openmoji.yaml --root data --seed 1 --output-dir output/cdcgda
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import sys

from train import main

if __name__ == "__main__":
    sys.exit(main())
