"""The packages to install: the repository's, and configs/ as tunevlseg_jax.configs; see pyproject.toml for the rest."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tunevlseg_jax*", "conversion*"]), "tunevlseg_jax.configs"],
    package_dir={"tunevlseg_jax.configs": "configs"},
)
