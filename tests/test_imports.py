"""Tests of the imports: folders form levels, no file imports itself through others, and heavy packages load late."""

import ast
import graphlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import small

PACKAGE = "tunevlseg_jax"
COMMANDS = {
    path.stem for path in (small.ROOT / PACKAGE).glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")
}
HEAVY = ("torch", "tensorflow", "tensorflow_datasets", "transformers")
LATE = (*HEAVY, "orbax.checkpoint", "grain")
"""What commands load when they need it: predicting needs none of these."""
COMPUTING = (*LATE, "jax", "flax", "optax", "scipy", "sklearn", "pandas", "matplotlib", "tensorboardX")
"""What no help text needs."""
HELP = """
import contextlib, importlib, io, json, sys

for command in json.loads(sys.argv[1]):
    sys.argv = [*command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        importlib.import_module(command[0]).main()
    assert "usage: " in text.getvalue(), command
    if loaded := [name for name in %r if name in sys.modules]:
        sys.exit(f"{command} --help loads {loaded}")
"""


def sources(*folders: str) -> list[Path]:
    return sorted(itertools.chain.from_iterable((small.ROOT / folder).rglob("*.py") for folder in folders))


def module(path: Path) -> str:
    """A file's name as a module, such as tunevlseg_jax.models.clip."""
    return ".".join(path.relative_to(small.ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in sources(PACKAGE, "conversion")}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it; `from a import b` imports a.b if that is a module."""
    targets = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} has a relative import"
            modules = {f"{node.module}.{name.name}" for name in node.names} & MODULES.keys()
            targets |= modules if len(modules) == len(node.names) else modules | {node.module}
    return targets


ROOMS = (
    ("runtime", "prompts", "exporting.readers"),
    ("models", "learners", "data"),
    ("pretrained", "network", "data.builders", "data.audit", "data.feeding"),
    ("config", "data.builders.annotations", "data.medical"),
    ("cli", "training"),
    ("benchmarks", "runs", "evaluation", "prediction", "preparation"),
    ("search", "run", "reporting.statistics", "exporting"),
    ("reporting", "demonstration", "diagnosis"),
    ("reporting.figures", "studies", "sharing"),
    ("reporting.output", "api"),
    tuple(sorted(COMMANDS)),
)
"""The folders and the files at the root, from the lowest level to the highest; a room imports lower levels alone."""
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def room(name: str) -> str:
    """The folder or root file that a module belongs to, such as "data.feeding"."""
    path = MODULES[name].relative_to(small.ROOT / PACKAGE)
    return ".".join(path.parent.parts) or path.stem


def arrows() -> Iterator[tuple[str, str]]:
    """Every import of one file of the package by another."""
    for name, path in MODULES.items():
        if name == PACKAGE:  # its imports are for type checkers, and of names that are used
            continue
        yield from ((name, other) for other in imported(path) & MODULES.keys() if other not in (name, PACKAGE))


def test_the_root_holds_commands_and_seven_modules():
    files = {path.stem for path in (small.ROOT / PACKAGE).glob("*.py")}
    assert {"train", "evaluate", "predict", "prepare", "sweep", "study", "report", "benchmark"} <= COMMANDS
    assert files - COMMANDS <= {"__init__", "api", "run", "config", "prompts", "network", "cli"}


def test_every_room_has_a_level():
    assert {room(name) for name in MODULES if name.startswith(PACKAGE) and name != PACKAGE} == LEVELS.keys()
    assert len(ROOMS) <= 11


def test_rooms_import_lower_levels_alone():
    """Whatever imports a room of its own level or above is printed, imports inside functions included."""
    ours = [(a, b) for a, b in arrows() if a.startswith(PACKAGE) and b.startswith(PACKAGE)]
    wrong = [f"{a} imports {b}" for a, b in ours if room(a) != room(b) and LEVELS[room(a)] <= LEVELS[room(b)]]
    assert not wrong, "\n".join(wrong)


def test_learners_and_models_do_not_know_each_other():
    ours = [(a, b) for a, b in arrows() if a.startswith(PACKAGE) and b.startswith(PACKAGE)]
    assert not [f"{a} imports {b}" for a, b in ours if {room(a), room(b)} == {"learners", "models"}]


def test_data_knows_neither_models_nor_learners():
    for name, other in arrows():
        if name.startswith(f"{PACKAGE}.data"):
            assert room(other).split(".")[0] in ("data", "runtime"), f"{name} imports {other}"


def test_the_package_never_imports_conversion():
    assert not [f"{a} imports {b}" for a, b in arrows() if a.startswith(PACKAGE) and not b.startswith(PACKAGE)]


def test_torch_is_imported_in_one_place_of_the_package():
    for path in sources(PACKAGE, "configs"):
        if path.name != "optional.py":
            assert "torch" not in {name.split(".")[0] for name in imported(path)}, path


def test_no_file_imports_itself_through_others():
    """Imports inside functions included; those for type checkers alone too."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, other in arrows():
        graph[name].add(other)
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_importing_the_package_loads_nothing_else():
    code = "import sys, tunevlseg_jax\nprint(*sorted(name for name in sys.modules if name.split('.')[0] in %r))"
    process = small.start("-c", code % (("jax", "numpy", "flax", PACKAGE),))
    assert small.finish(process) == (0, f"{PACKAGE}\n", "")


def test_the_heart_loads_neither_torch_nor_tensorflow_nor_transformers():
    names = ", ".join(f"{PACKAGE}.{name}" for name in ("models", "learners", "network", "training.step"))
    process = small.start("-c", f"import sys, {names}\nprint(*[name for name in {HEAVY} if name in sys.modules])")
    assert small.finish(process) == (0, "\n", "")


def test_training_and_predicting_load_none_of_them_at_first():
    names = f"{PACKAGE}.runs.trainer, {PACKAGE}.run"
    process = small.start("-c", f"import sys, {names}\nprint(*[name for name in {LATE} if name in sys.modules])")
    assert small.finish(process) == (0, "\n", "")


def test_help_texts_load_nothing_that_computes():
    """Nor does a configuration file, whose learner's options the help text then shows."""
    found = [name for name, path in MODULES.items() if '__name__ == "__main__"' in path.read_text("utf-8")]
    assert {"conversion.peft", "conversion.tiny.__main__", f"{PACKAGE}.benchmarks.loading"} < {*found}
    assert {f"{PACKAGE}.{name}" for name in COMMANDS} < {*found}
    further = [("prepare", "folder"), ("prepare", "volumes"), ("prepare", "kvasir"), ("prepare", "check")]
    further += [("sweep", "replay"), ("benchmark", "compare"), ("train", "--config", "quickstart")]
    asked = [*([name] for name in found), *([f"{PACKAGE}.{name}", *rest] for name, *rest in further)]
    assert small.finish(small.start("-c", HELP % (COMPUTING,), json.dumps(asked))) == (0, "", "")
