"""Which folders the wheel holds: every package below lrp, and conf as lrp.conf, which pyproject.toml cannot say without a list."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["lrp*"]), "lrp.conf"], package_dir={"lrp.conf": "conf"})
