"""Tests of `python -m conversion.peft`: a LoRA in PEFT's format, in Hugging Face's CLIPSeg, and back."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mistakes
import numpy as np
import pytest
import small
import torch
from numpy.testing import assert_allclose, assert_array_equal
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import CLIPSegForImageSegmentation

from conversion import peft as conversion
from conversion.low_rank import modules
from conversion.low_rank.convert import export_run, merge_run
from tunevlseg_jax import cli
from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import VPT, LoRA
from tunevlseg_jax.models.build import random_model
from tunevlseg_jax.models.catalogue import CLIPSegConfig
from tunevlseg_jax.network import normalize
from tunevlseg_jax.pretrained import clipseg_folder
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.run import load_model, load_run
from tunevlseg_jax.runs.card import load_learnt, make_card, save_learnt
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime.files import read_json, write_json
from tunevlseg_jax.training import step
from tunevlseg_jax.training.build import build_experiment

quick_compilation = small.quick_compilation
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # which PEFT reads
    pytest.mark.filterwarnings("ignore:Model config:UserWarning"),  # CLIPSeg's has no top-level width
]
ALL = ("query", "key", "value", "out", "up", "down")
PHRASE = "a seven"
BLOCKS = "|".join(map(str, range(small.BLOCKS)))
TARGETS = rf"clip\.(text|vision)_model\.encoder\.layers\.({BLOCKS})\.(self_attn\.(q|v)_proj|mlp\.fc1)"


@pytest.fixture
def convert(monkeypatch, capsys) -> Callable[..., str]:
    """Runs the command in this process; gives what it prints, or raises a UserError with its line of error."""

    def run(*arguments: object) -> str:
        capsys.readouterr()  # transformers' bars
        try:
            small.run(monkeypatch, conversion.main, *arguments)
        except SystemExit as stop:
            assert stop.code == cli.MISTAKEN
            captured = capsys.readouterr()
            assert captured.out == ""
            raise mistakes.printed(captured.err) from None
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def huggingface(tmp_path_factory) -> Path:
    """Hugging Face's folder of the small model."""
    folder = tmp_path_factory.mktemp("huggingface")
    clipseg_folder.save(folder, load_pretrained(str(small.model_folder())), {})
    return folder


def make_run(folder: Path, learner: LoRA, **changes) -> Path:
    """What a run that ended leaves behind, with matrices of which none is zero within the depth."""
    model = load_pretrained(str(small.model_folder()))
    config = Config(model=Model(checkpoint=str(small.model_folder())), learner=learner, **changes)
    save_learnt(folder, random_pairs(learner, model.config), make_card(config, model.sha256, (small.IMAGE,) * 2, {}))
    return folder


def random_pairs(learner: LoRA, config: CLIPSegConfig) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    fresh = jax.eval_shape(lambda: learner.init(jax.random.key(0), modules.spec_of(config)))
    flat = jax.tree_util.tree_flatten_with_path(fresh, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]
    return {
        "/".join(["learner", *(part.key for part in path)]): random.normal(0, 0.3, leaf.shape).astype(np.float32)
        for path, leaf in flat
    }


def their_logits(model: Any, pretrained: Pretrained, image: np.ndarray) -> np.ndarray:
    """(height, width) of transformers' CLIPSeg."""
    tokens = pretrained.tokenizer.table([f"{PHRASE}."], 12)
    pixels = torch.tensor(np.asarray(normalize(jnp.asarray(image[None]), pretrained.config))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokens), pixel_values=pixels, interpolate_pos_encoding=True).logits
    return logits.numpy().reshape(image.shape[:2])


def our_logits(folder: Path, image: np.ndarray) -> np.ndarray:
    """(height, width) of a run."""
    experiment, learnt = restore(folder)
    hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
    tokens, phrase = experiment.token_table([PHRASE]), jnp.zeros(1, jnp.int32)
    params = {**experiment.frozen, **learnt}
    answers = step.answer_step(params, image[None], phrase, tokens, hyper, network=experiment.network)
    return np.asarray(answers.logits[0])


def random_image(side: int = small.IMAGE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def assert_near(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def in_peft(huggingface: Path, adapter: Path) -> Any:
    return PeftModel.from_pretrained(CLIPSegForImageSegmentation.from_pretrained(huggingface), adapter).eval()


@pytest.mark.parametrize(
    "learner",
    [
        LoRA(depth=2, max_depth=3, start="last", products=ALL, rank=3, alpha=2.5),
        pytest.param(LoRA(depth=3, rank=2, alpha=4.0, scaling="rank", dropout=0.1), marks=pytest.mark.slow),
        pytest.param(LoRA(depth=1, towers="text", products=("out",)), marks=pytest.mark.slow),
    ],
    ids=["last blocks", "scaled by rank", "text"],
)
def test_a_run_in_peft_and_back_and_merged(learner, tmp_path, huggingface, convert):
    """Four programs agree: ours, PEFT's, transformers' on the merged folder, and ours on it; the way back is exact."""
    run, image, model = make_run(tmp_path / "run", learner), random_image(), load_pretrained(str(huggingface))
    assert "adapter" in convert("--run", run, "--output", tmp_path / "adapter")
    peft = in_peft(huggingface, tmp_path / "adapter")
    count = sum("lora_A" in name for name, _ in peft.named_parameters())
    assert count == learner.depth * len(learner.products) * len(learner.changed_towers)
    theirs = their_logits(peft, model, image)
    ours = our_logits(run, image)
    assert_near(ours, theirs)

    peft.save_pretrained(tmp_path / "saved", save_embedding_layers=False)  # as their library writes it
    for folder in ("adapter", "saved"):
        convert("--adapter", tmp_path / folder, "--model", small.model_folder(), "--output", tmp_path / "again")
        config, learnt, _ = load_learnt(tmp_path / "again")
        assert config.learner == dataclasses.replace(learner, max_depth=None)
        before = load_file(run / "prompts.safetensors")
        assert learnt.keys() == before.keys()
        for path, array in learnt.items():
            assert_array_equal(array, before[path][: learner.depth])

    convert("--run", run, "--merge", "--output", tmp_path / "merged")
    merged = CLIPSegForImageSegmentation.from_pretrained(tmp_path / "merged").eval()
    assert_near(their_logits(merged, model, image), ours)
    as_model, untuned = (
        load_model(folder).probabilities(image, PHRASE) for folder in (tmp_path / "merged", huggingface)
    )
    assert_allclose(as_model, 1 / (1 + np.exp(-ours)), atol=1e-5)
    assert np.abs(as_model - untuned).max() > 1e-3


def test_an_adapter_of_pefts_own(tmp_path, huggingface, convert):
    """Ranks and alphas of their own, and layers that only some blocks have; evaluate takes the run."""
    patterns = {"rank_pattern": {"v_proj": 3}, "alpha_pattern": {r"layers\.1\.mlp\.fc1": 2.5}}
    few = rf"clip\.text_model\.encoder\.layers\.1\.self_attn\.q_proj|{TARGETS.replace('q|v', 'v')}"
    config = LoraConfig(r=2, lora_alpha=3, target_modules=few, lora_dropout=0.1, **patterns)
    make_adapter(tmp_path / "adapter", huggingface, config)
    image, model = random_image(), load_pretrained(str(huggingface))
    line = convert("--adapter", tmp_path / "adapter", "--model", huggingface, "--output", tmp_path / "run")
    assert "query, value, up, rank 3, depth 3 from the first block, tower both" in line
    ours = our_logits(tmp_path / "run", image)
    assert_near(ours, their_logits(in_peft(huggingface, tmp_path / "adapter"), model, image))
    run = load_run(tmp_path / "run")
    assert run.predict(image, PHRASE).shape == image.shape[:2] and 0 <= run.evaluate(small.config().data)["dice"] <= 1
    # The way out again keeps the ranks, and has the alphas in the matrices.
    convert("--run", tmp_path / "run", "--output", tmp_path / "out")
    assert_near(ours, their_logits(in_peft(huggingface, tmp_path / "out"), model, image))


def make_adapter(folder: Path, huggingface: Path, config: LoraConfig) -> None:
    """A folder that PEFT writes, with random matrices."""
    model = get_peft_model(CLIPSegForImageSegmentation.from_pretrained(huggingface), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder, save_embedding_layers=False)


def test_blocks_that_no_mask_depends_on_are_left_out():
    config = dataclasses.replace(load_pretrained(str(small.model_folder())).config, taps=(0, 1))
    pair = modules.Pair(np.ones((1, 32), np.float32), np.ones((32, 1), np.float32), 1.0)
    names = [modules.module_name(modules.Place("vision", block, "query")) for block in range(3)]
    learner, learnt, idle = modules.from_modules(dict.fromkeys(names, pair), LoRA(alpha=1.0, scaling="rank"), config)
    assert idle == names[2:] and learner.depth == 2 and learner.towers == "vision"
    assert learnt["learner/vision/query/down/kernel"].shape == (2, 32, 1)
    with mistakes.raises("unsupported-adapter: nothing"):
        modules.from_modules(dict.fromkeys(names[2:], pair), LoRA(), config)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_dora": True}, "unsupported-adapter: use_dora True"),
        ({"modules_to_save": ["film_mul"]}, r"unsupported-adapter: modules_to_save \['film_mul'\]"),
        ({"bias": "all"}, "unsupported-adapter: bias must be none, got 'all'"),
        ({"init_lora_weights": "olora"}, "unsupported-adapter: init_lora_weights 'olora'"),
        ({"target_modules": ["q_proj"]}, r"unsupported-adapter: decoder\.layers\.0\.self_attn\.q_proj"),
        ({"target_modules": ["visual_projection"]}, "unsupported-adapter: clip.visual_projection"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_adapters_that_do_more_than_lora_here(settings, says, tmp_path, huggingface, convert):
    make_adapter(tmp_path / "adapter", huggingface, LoraConfig(**{"target_modules": TARGETS} | settings))
    with mistakes.raises(says):
        convert("--adapter", tmp_path / "adapter", "--model", huggingface, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_that_are_broken(tmp_path, huggingface, convert):
    adapter, run = tmp_path / "adapter", tmp_path / "run"
    importing = ("--adapter", adapter, "--model", huggingface, "--output", run)
    with mistakes.raises("no-such-file: adapter_config.json"):
        convert(*importing)
    make_adapter(adapter, huggingface, LoraConfig(target_modules=TARGETS))
    config, tensors = read_json(adapter / "adapter_config.json"), load_file(adapter / "adapter_model.safetensors")
    for changes, says in (
        ({"peft_type": "IA3"}, "peft_type must be LORA, got 'IA3'"),
        ({"lora_alpha": "a"}, "lora_alpha must be a number above 0, got 'a'"),
        ({"alpha_pattern": {"(": 1}}, r"alpha_pattern has '\('"),
        ({"use_something_new": {"a": 1}}, "use_something_new"),
    ):
        write_json(adapter / "adapter_config.json", config | changes)
        with mistakes.raises(f"unsupported-adapter: {says}"):
            convert(*importing)
    write_json(adapter / "adapter_config.json", config)
    name = min(tensors)
    for changed, says in (
        ({each: tensor for each, tensor in tensors.items() if each != name}, "wrong-weights: lacks .*lora_A"),
        (tensors | {name: tensors[name][:, :3]}, "wrong-weights: shapes .*fc1"),
        (tensors | {name: tensors[name] * np.nan}, "wrong-weights: finite"),
        (tensors | {"base_model.model.clip.logit_scale": tensors[name]}, "unsupported-adapter: logit_scale"),
    ):
        save_file(changed, adapter / "adapter_model.safetensors")
        with mistakes.raises(says):
            convert(*importing)


def test_runs_that_are_no_lora_of_a_clipseg(tmp_path, huggingface, convert):
    output = tmp_path / "output"
    run = make_run(tmp_path / "vpt", VPT(depth=1))
    with mistakes.raises("wrong-learner: LoRA, got VPT"):
        convert("--run", run, "--output", output)
    lora = make_run(tmp_path / "lora", LoRA(depth=1))
    card, tensors = read_json(lora / "card.json"), load_file(lora / "prompts.safetensors")
    card["config"]["upsampling"] = "blend"
    extra = build_experiment(dataclasses.replace(load_learnt(lora)[0], upsampling="blend")).trainable
    save_learnt(lora, {path: np.asarray(array) for path, array in extra.items()} | tensors, card)
    for options in ((), ("--merge",)):
        with mistakes.raises("not-convertible: upsampler/.*--upsampling none"):
            convert("--run", lora, "--output", output, *options)
    with mistakes.raises("missing-option: either --run or --adapter"):
        convert("--output", output)
    with mistakes.raises("options-conflict: --merge needs --run"):
        convert("--adapter", lora, "--merge", "--output", output)
    with mistakes.raises("missing-option: --model"):
        convert("--adapter", lora, "--output", output)
    with mistakes.raises("other-folder: adapter"):
        convert("--run", make_run(lora, LoRA(depth=1)), "--output", huggingface)
    make_adapter(output, huggingface, LoraConfig(target_modules=TARGETS))
    with mistakes.raises("other-folder: adapter"):
        convert("--run", lora, "--output", output)


@pytest.mark.slow
def test_the_real_size(tmp_path):
    """A LoRA of every product of ViT-B/16's blocks, folded in: transformers' CLIPSeg with PEFT, and without it."""
    tokenizer, sizes = load_pretrained("clipseg-tiny").tokenizer, CLIPSegConfig()
    model = Pretrained(sizes, dict(random_model(sizes, jax.random.key(0))), tokenizer, "")
    clipseg_folder.save(tmp_path / "huggingface", model, {})
    learner, image = LoRA(depth=12, products=ALL), random_image(sizes.image_size)
    config = Config(model=Model(checkpoint=str(tmp_path / "huggingface")), learner=learner)
    pairs = {path: 0.1 * array for path, array in random_pairs(learner, sizes).items()}
    digest = load_pretrained(config.model.checkpoint).sha256
    save_learnt(tmp_path / "run", pairs, make_card(config, digest, (sizes.image_size,) * 2, {}))
    ours = our_logits(tmp_path / "run", image)
    options = conversion.Options(output=str(tmp_path / "adapter"), run=str(tmp_path / "run"))
    list(export_run(options))
    theirs = their_logits(in_peft(tmp_path / "huggingface", tmp_path / "adapter"), model, image)
    assert_near(ours, theirs, 1e-4)
    list(merge_run(dataclasses.replace(options, output=str(tmp_path / "merged"), merge=True)))
    merged = CLIPSegForImageSegmentation.from_pretrained(tmp_path / "merged").eval()
    assert_near(their_logits(merged, model, image), theirs, 1e-4)
