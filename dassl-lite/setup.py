"""Older pips need this file for ``pip install --editable``; everything stands in setup.cfg."""

from setuptools import setup

setup()
