"""Tests of the dependencies: each one that pyproject.toml declares is imported, and each import is declared."""

import ast
import re
import sys
import tomllib

import pytest
import small

PROJECT = tomllib.loads((small.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORT_NAMES = {
    "markdown-it-py": "markdown_it",
    "myst-nb": "myst_nb",
    "opencv-python-headless": "cv2",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "scikit-posthocs": "scikit_posthocs",
    "sphinx-copybutton": "sphinx_copybutton",
    "tensorflow-datasets": "tensorflow_datasets",
}
"""Of the distributions whose modules have another name."""
NEVER_IMPORTED = {
    "importlib_resources": "tensorflow_datasets imports it without declaring it",
    "selenium": "the tests of the report's page import it where it is installed",
    "python-gdcm": "pydicom decodes lossless JPEG by it",
    "psycopg": "SQLAlchemy imports it for a PostgreSQL address",
    "xdist": "a plugin of pytest",
    "ipykernel": "myst_nb starts it as the kernel of a notebook",
    "sphinx": "builds the documentation's site; docs/conf.py names its extensions and its theme",
    "myst_nb": "one of them",
    "sphinx_copybutton": "one of them",
    "furo": "the theme",
}
NOT_DECLARED = {"open_clip": "only an optional comparison of `conversion.cris --verify` uses it, which asks for it"}
LOCAL = {"tunevlseg_jax", "conversion"} | {path.stem for path in (small.ROOT / "tests").rglob("*.py")}


def declared(requirements: list[str]) -> set[str]:
    """The modules of requirements such as "jax[cuda12]>=0.10"."""
    names = {re.match(r"[\w.-]+", requirement).group() for requirement in requirements}  # type: ignore[union-attr]
    return {IMPORT_NAMES.get(name, name) for name in names}


def imported(*folders: str) -> set[str]:
    """The third-party modules that files of these folders import, wherever in a file."""
    modules = set()
    for path in (path for folder in folders for path in (small.ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    return modules - LOCAL - sys.stdlib_module_names


PACKAGE = imported("tunevlseg_jax", "conversion", "configs")
TESTS = imported("tests")
BASE = declared(PROJECT["dependencies"])
RUNTIME = BASE.union(*(declared(EXTRAS[extra]) for extra in EXTRAS if extra not in ("test", "dev")))


@pytest.mark.parametrize("name", sorted(BASE))
def test_every_dependency_is_imported_by_the_package(name):
    assert name in PACKAGE or name in NEVER_IMPORTED


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"dev"}))
def test_every_extra_is_imported(extra):
    assert not declared(EXTRAS[extra]) - PACKAGE - (TESTS if extra == "test" else set()) - NEVER_IMPORTED.keys()


def test_every_import_of_the_package_is_declared():
    assert not PACKAGE - RUNTIME - NOT_DECLARED.keys()


def test_every_import_of_the_tests_is_declared():
    assert not TESTS - BASE - declared(EXTRAS["test"])


def test_no_exception_is_out_of_date():
    assert NOT_DECLARED.keys() <= PACKAGE | TESTS
    assert NEVER_IMPORTED.keys() <= RUNTIME | declared(EXTRAS["test"])
    assert not NEVER_IMPORTED.keys() & (PACKAGE | TESTS)
