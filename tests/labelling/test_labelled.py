"""Labelling with a run of either task: one command's part file is no other's."""

import json
import os
import shutil

import numpy
import pytest

import predict
from labelling.answers.part_file import PartFile
from tests.labelling.tasks import MULTI, NAMES, over_tasks, read
from tests.labelling.test_stopped_labelling import FORMS, stop_after_a_batch
from tests.runs import call
