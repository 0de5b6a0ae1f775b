"""Tests of the pages: commands parse and run, links and named files exist, and numbers match the code."""

import dataclasses
import re
import sys
import tomllib
from functools import cache

import docs_runner
import jax
import jax.numpy as jnp
import learner_cases
import numpy as np
import pages
import pytest
import small
from pages import PAGES, Command

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.data.audit.findings import KINDS
from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.learners import LEARNERS
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.parameters import flatten
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.network import FrozenText, Network
from tunevlseg_jax.prompts import Outputs

COMMANDS = {str(one): one for page in PAGES for one in (*pages.commands(page), *pages.inline(page))}
PARSED = {text: one for text, one in COMMANDS.items() if text not in docs_runner.OTHERS}


class Parsed(Exception):
    """Ends a command after its options are parsed, and holds them."""


def options(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]):
    """The parsed options of a command line of this project."""
    parse = cli._parse

    def stop(*arguments):
        raise Parsed(parse(*arguments))

    monkeypatch.chdir(small.ROOT)
    with monkeypatch.context() as patch:
        patch.setattr(cli, "_parse", stop)
        patch.setattr(sys, "argv", list(words[2:]))
        try:
            docs_runner.main(words[2])()
        except Parsed as parsed:
            return parsed.args[0]
    raise AssertionError(f"{words} ended without parsing its options")


def test_the_commands_of_the_launch_recipes_parse(monkeypatch):
    found = list(pages.recipes("docs/pods.md"))
    clusters = [options(monkeypatch, one.words).cluster for one in found]
    assert [each.distributed for each in clusters].count("auto") == 3
    assert [(each.processes, each.process) for each in clusters if each.distributed == "off"] == [
        (1, 1),  # Slurm's variables
        (2, 0),
    ]


@pytest.mark.parametrize("one", [pytest.param(one, id=f"{one.where} {text}") for text, one in PARSED.items()])
def test_a_command_parses(one: Command, monkeypatch):
    match one.words:
        case ("pip", "install", *rest):
            named = re.findall(r"\.\[(\w+(?:,\w+)*)\]", " ".join(rest))
            known = tomllib.loads(pages.text("pyproject.toml"))["project"]["optional-dependencies"]
            assert {extra for extras in named for extra in extras.split(",")} <= known.keys()
        case ("python", "-c", code):
            compile(code, one.where, "exec", dont_inherit=True)
        case ("python", "-m", module, *rest) if module.split(".")[0] in ("tunevlseg_jax", "conversion"):
            if "--help" in rest:
                with pytest.raises(SystemExit, match="0"):
                    options(monkeypatch, one.words)
                return
            parsed = options(monkeypatch, one.words)
            config = parsed if isinstance(parsed, Config) else getattr(parsed, "config", None)
            if isinstance(config, Config):
                configuration.check(config)
        case _:
            raise AssertionError(f"{one.where}: no rule parses {one}; add one, or name it in docs_runner.OTHERS")


def test_every_block_has_a_language_and_every_exception_is_used():
    """A block without a language holds commands; blocks of other languages hold none."""
    for page in PAGES:
        for block in pages.blocks(page):
            assert block.kind in (*pages.COMMANDS, *pages.SHOWN, pages.CELL), (
                f"{page}:{block.line} is a block of {block.kind!r}"
            )
            if block.kind in pages.SHOWN:
                assert not any(line.startswith(("python -m ", "pip ")) for line in block.lines), f"{page}:{block.line}"
    assert docs_runner.OTHERS.keys() <= COMMANDS.keys()
    assert docs_runner.ELSEWHERE.keys() <= COMMANDS.keys()


@pytest.mark.parametrize("page", PAGES)
def test_link_targets_exist(page):
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        assert not path or pages.exists(path, page), f"{page}: {link}"
        target = str((small.ROOT / page).parent.joinpath(path).resolve().relative_to(small.ROOT)) if path else page
        assert not anchor or anchor in pages.anchors(target), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_named_files_options_and_fields_exist(page):
    """Files of the repository, options, and fields of the configuration."""
    for code in pages.codes(page):
        if re.match(r"(tunevlseg_jax|configs|conversion|tests|docs)/", code) and not code.endswith(
            "/x.py"
        ):  # an example
            assert pages.exists(code, page), f"{page}: {code}"
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", code):
            assert option in known_options() or code.startswith("pip "), f"{page}: {option}"
        is_file = code in ("model.safetensors", "train.lock", "train.zip", "train.txt")
        if re.fullmatch(r"(model|learner|data|optim|train)\.[a-z_.]+", code) and not is_file:
            option = f"--{code.replace('_', '-')}"
            assert any(name == option or name.startswith(f"{option}.") for name in known_options()), f"{page}: {code}"


@cache
def known_options() -> set[str]:
    """Every option of the project's commands, from their --help."""
    names = {"--help", "--config"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for words in docs_runner.HELP:
            output = docs_runner.printed(monkeypatch, docs_runner.main(words[0]), *words[1:], "--help")
            names |= set(re.findall(r"--[a-z][\w.-]*", output))
    return names


@pytest.mark.slow
def test_numbers_of_parameters_match_the_code():
    """The table of docs/learners.md, at the sizes of the public models and the configurations' depth."""
    rows = re.findall(
        r"^\| (\w[\w ]*?) \|.*\| ([\d,]+) \| ([\d,]+|-) \| ([\d,]+) \|$", pages.text("docs/learners.md"), re.MULTILINE
    )
    table = {name.replace(" ", ""): numbers for name, *numbers in rows}
    assert table.keys() == {learner.__name__ for learner in LEARNERS} | {"upsampler"}
    models = CLIPSegConfig(), CRISConfig(), SAM3Config()
    for learner in (*LEARNERS, None):
        row = table["upsampler" if learner is None else learner.__name__]
        assert row == [counted(sizes, learner) for sizes in models]


def counted(sizes: CLIPSegConfig | CRISConfig | SAM3Config, learner) -> str:
    """The number of trainable parameters of a learner on a model, or of the upsampler if `learner` is None."""
    towers = sizes.spec(lambda words: jnp.zeros((len(words.split()), sizes.text.width)))
    if learner is not None and "vision" in learner().changes and towers.vision_width is None:
        return "-"
    made = ZeroShot() if learner is None else learner()
    if towers.sentence_width is None and hasattr(made, "sentence"):
        made = dataclasses.replace(made, sentence=False)
    network = Network(sizes, made, "none" if learner else "blend")
    params = jax.eval_shape(lambda key: network.init(key, {}, towers), jax.random.key(0))
    return f"{sum(leaf.size for leaf in params.values()):,}"


def test_ranges_match_the_search_space():
    page = pages.text("docs/learners.md").partition("## Hyperparameters")[2]
    for learner in LEARNERS:
        rows = [line for line in page.splitlines() if line.replace(" ", "").startswith(f"|{learner.__name__}|")]
        assert len(rows) == 1, f"docs/learners.md has no row of ranges for {learner.__name__}"
        for name, searched in learner.space.items():
            values = getattr(searched, "choices", ())
            assert f"`learner.{name}`" in rows[0] and all(
                str(value) in rows[0] for value in values if value not in (True, False)
            )


def test_data_sets_and_findings_match_the_code():
    page = pages.text("docs/datasets.md")
    for name, builder in PUBLIC.items():
        assert re.search(rf"^\| `{name}` .* \| {' / '.join(map(str, builder.sizes))} \|", page, re.MULTILINE), name
    for kind, severity in KINDS.items():
        (before,) = re.findall(rf"^(.*)\| {kind}: ", page, re.MULTILINE)
        assert (severity == "warning") == ("|" in before), f"{kind} is in the wrong column"


EXAMPLES = ["TiedVPT", "TiedLoRA", "SentenceAdapter", "NearCoOp"]
"""The learners of docs/extending.md: tokens, low rank, a bottleneck, and a regulariser."""


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "NearCoOp" else pytest.mark.slow) for name in EXAMPLES]
)
def test_the_example_learners_work(name):
    """Each tensor has a gradient through a small CLIPSeg; trained, it passes on what `changes` names."""
    learner = pages.example_learners()[name](**({} if name == "SentenceAdapter" else {"depth": 2}))
    params = jax.tree.map(lambda x: x + np.float32(0.1), learner_cases.init(learner))
    learner.check_changes(params)
    depth, _ = learner.traced_values()
    _, gradients = learner_cases.Step(learner).run(params, depth)
    leaves = jax.tree.leaves(gradients)
    assert leaves and all(gradient.any() for gradient in leaves)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_example_of_a_regulariser_pulls_towards_the_frozen_model():
    """Its term is the squared distance of the sentence vectors, and training with it alone trains the context."""
    learner = pages.example_learners()["NearCoOp"](depth=2, nearness=3.0)
    network = Network(learner_cases.CONFIG, learner)
    params = learner_cases.init(learner)
    frozen = {path: jnp.asarray(array) for path, array in learner_cases.Step(learner).frozen.items()}
    images, table = jnp.zeros((2, 8, 12, 3), jnp.uint8), jnp.asarray([[30, 5, 6, 31], [30, 7, 31, 31]], jnp.int32)
    text = network.encode_text(frozen, table)
    target = network.frozen_outputs(frozen, images, jnp.arange(2), FrozenText(text.sentence, text))

    def loss(params: dict) -> tuple[jax.Array, Outputs]:
        given = frozen | flatten(params, "learner")
        depth, dropout = (jnp.asarray(value) for value in learner.traced_values())
        found = network.outputs(given, images, jnp.arange(2), table, depth=depth, dropout=dropout)
        return learner.regulariser(found, target, {"nearness": jnp.float32(3)}, jnp.ones(2)), found

    (value, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    distances = np.square(np.asarray(found.sentence) - np.asarray(target.sentence)).sum(-1)
    assert value == pytest.approx(3 * distances.mean(), rel=1e-5) and value > 0
    assert all(gradient.any() for gradient in jax.tree.leaves(gradients))
    assert learner.static_part() == dataclasses.replace(learner, nearness=9.0).static_part(), "one program for both"


def test_every_example_is_tested():
    assert list(pages.example_learners()) == EXAMPLES


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("page", [page for page in PAGES if docs_runner.runnable(page)])
def test_the_commands_of_a_page_run(page, monkeypatch, tmp_path):
    docs_runner.runs(page, monkeypatch, tmp_path)
