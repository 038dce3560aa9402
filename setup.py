"""Installs the trainers under the name ``cdc_trainers``, so that other toolboxes, which own a
package ``trainers``, can use them."""

from setuptools import find_packages, setup

setup(packages=["cdc_trainers", *(f"cdc_trainers.{name}" for name in find_packages("trainers"))])
