"""Labels images with a trained run; uncertain ones can be flagged instead of guessed.

    python predict.py --run output/my_run photo.jpg folder "more/*.png"
    find . -name "*.jpg" | python predict.py --run output/my_run - --max-error 0.05 --csv labels.csv

It is ``cdc-predict`` in a checkout, see ``labelling/commands/predict.py``.
"""

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import sys

from labelling.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
