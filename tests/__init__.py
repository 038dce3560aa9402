"""The tests, whose threads wait for each other as those of the commands do."""

from trainers.common.environment import spin_briefly

spin_briefly()
