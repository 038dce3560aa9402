"""The tests, whose threads wait for each other as those of the commands do."""

from trainers.common.environment import prepare_threads

prepare_threads()
