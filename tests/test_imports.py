"""Tests of the import arrows: who may know whom, and what the heart of the package loads."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
import small

PACKAGE = "tunevlseg_jax"
COMMANDS = {
    path.stem for path in (small.ROOT / PACKAGE).glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")
}
HEAVY = ("torch", "tensorflow", "tensorflow_datasets", "transformers")


def sources(*folders: str) -> list[Path]:
    return sorted(itertools.chain.from_iterable((small.ROOT / folder).rglob("*.py") for folder in folders))


def module(path: Path) -> str:
    """A file's name as a module, such as tunevlseg_jax.models.clip."""
    return ".".join(path.relative_to(small.ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in sources(PACKAGE, "conversion")}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it; of `from a import b` also a.b where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} has a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names if f"{node.module}.{name.name}" in MODULES}
    return found


def ours(name: str) -> set[str]:
    """What a module imports of this project, as paths below the package: "models.clip", "conversion.rules"."""
    return {
        other.removeprefix(f"{PACKAGE}.")
        for other in imported(MODULES[name])
        if other.split(".")[0] in (PACKAGE, "conversion") and other != PACKAGE
    }


def below(part: str) -> list[str]:
    """The modules of a subpackage, or one module."""
    name = f"{PACKAGE}.{part}"
    return [other for other in MODULES if other == name or other.startswith(f"{name}.")]


def parts(names: set[str]) -> set[str]:
    """The first parts: "models" of "models.clip"."""
    return {name.split(".")[0] for name in names}


def test_the_commands_are_found():
    assert {"train", "evaluate", "predict"} <= COMMANDS


def test_prompts_import_nothing_of_the_project():
    assert ours(f"{PACKAGE}.prompts") == {"space"} and ours(f"{PACKAGE}.space") == set()


@pytest.mark.parametrize("name", below("learners"))
def test_learners_know_prompts_alone(name):
    assert parts(ours(name)) <= {"learners", "prompts", "space"}


@pytest.mark.parametrize("name", below("models"))
def test_models_know_prompts_alone(name):
    assert parts(ours(name)) <= {"models", "prompts"}


@pytest.mark.parametrize("name", [f"{PACKAGE}.{part}" for part in ("losses", "metrics", "partition")])
def test_the_lowest_modules_know_nothing_above_them(name):
    assert not parts(ours(name)) & (COMMANDS | {"command", "config", "data", "step", "loop", "optim", "checkpoint"})


@pytest.mark.parametrize("name", [name for name in MODULES if name.removeprefix(f"{PACKAGE}.") not in COMMANDS])
def test_nobody_imports_a_command(name):
    assert not ours(name) & COMMANDS


@pytest.mark.parametrize("name", [name for name in MODULES if name not in (*below("report"), f"{PACKAGE}.study")])
def test_only_a_study_knows_the_report(name):
    assert "report" not in parts(ours(name))


@pytest.mark.parametrize("name", below("data"))
def test_data_knows_no_model_and_no_learner(name):
    assert not parts(ours(name)) & {"models", "learners", "conversion", "step", "loop", "optim"}


def test_torch_is_imported_by_conversion_and_tests_alone():
    for path in sources(PACKAGE, "configs"):
        assert "torch" not in {name.split(".")[0] for name in imported(path)}, path


def test_there_is_no_ring():
    """A module is never among those that it imports at its top, directly or through others."""
    graph = {name: top_level(path) & MODULES.keys() for name, path in MODULES.items()}
    for name in graph:
        seen, waiting = set(), list(graph[name])
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += graph[other]
        assert name not in seen, name


def top_level(path: Path) -> set[str]:
    """What a file imports when it is loaded, functions left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {f"{node.module}.{name.name}" for name in node.names} & MODULES.keys()
            found |= modules if len(modules) == len(node.names) else modules | {node.module}
    return found


def test_the_heart_loads_neither_torch_nor_tensorflow_nor_transformers():
    names = ", ".join(f"{PACKAGE}.{name}" for name in ("models", "learners", "network", "step", "partition", "losses"))
    process = small.start("-c", f"import sys, {names}\nprint(*[name for name in {HEAVY} if name in sys.modules])")
    assert small.finish(process) == (0, "\n", "")


def test_the_commands_load_none_of_them_either():
    names = ", ".join(f"{PACKAGE}.{name}" for name in ("train", "evaluate", "predict"))
    process = small.start("-c", f"import sys, {names}\nprint(*[name for name in {HEAVY} if name in sys.modules])")
    assert small.finish(process) == (0, "\n", "")
