"""The packages to install: those of the repository, and configs/ as tunevlseg_jax.configs; pyproject.toml has the rest."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tunevlseg_jax*", "conversion*"]), "tunevlseg_jax.configs"],
    package_dir={"tunevlseg_jax.configs": "configs"},
)
