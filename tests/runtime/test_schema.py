"""Tests of configurations as JSON: exactly there and back, and a line that names whatever doesn't fit."""

import dataclasses
import json
import typing

import mistakes
import pytest

from conversion.tiny.sizes import clipseg_sizes, sam3_sizes, train_tokenizer
from tunevlseg_jax import config as configuration
from tunevlseg_jax import learners
from tunevlseg_jax.config import ADDED, Config, Model, Optim, Train
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import VPT, AnyLearner, CoCoOp, CoOp, MaPLe, Projector, SharedAttention
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.runtime import schema

LEARNERS = typing.get_args(AnyLearner)
CHANGED = (
    CoOp(depth=3, max_depth=11, num_context=7, init_phrase=None),
    CoCoOp(projector=Projector(kind="low_rank", hidden=(96,), norm=False, shared=True), normalize_image=True),
    MaPLe(projector=Projector(hidden=(32, 64, 96))),
    SharedAttention(heads=4, dropout=0.0, norm_first=False, attends_across_tokens=False),
)


@pytest.mark.parametrize("learner", [*(cls() for cls in LEARNERS), *CHANGED], ids=lambda x: type(x).__name__)
def test_every_learner_there_and_back(learner):
    config = Config(learner=learner)
    text = json.dumps(schema.to_json(config))
    again = schema.from_json(Config, json.loads(text), "a test")
    assert again == config and type(again.learner) is type(learner)
    assert json.dumps(schema.to_json(again)) == text


def test_every_other_field_there_and_back():
    config = Config(
        model=Model(checkpoint="owner/name", fresh=True, image_size=(96, 120)),
        upsampling="blend",
        data=Data(name="scenes/xray", full_stop=False, truncate=True, scenes=Scenes(train=1, absent_fraction=0.5)),
        optim=Optim(learning_rate=1e-5, warmup_steps=3, cosine=True),
        train=Train(tune="decoder", precision="bfloat16"),
        workdir="runs/ü",
    )
    assert schema.from_json(Config, json.loads(json.dumps(schema.to_json(config))), "a test") == config


def test_model_sizes_there_and_back():
    tokenizer = train_tokenizer()
    for config in (CLIPSegConfig(), clipseg_sizes(tokenizer), SAM3Config(), sam3_sizes(tokenizer)):
        again = schema.from_json(type(config), json.loads(json.dumps(schema.to_json(config))), "a test")
        assert again == config and hash(again) == hash(config)


def changed(path: str, value) -> dict:
    """A configuration as JSON with one value changed; `path` is of keys joined with dots."""
    data = json.loads(json.dumps(schema.to_json(Config(learner=MaPLe(), model=Model(image_size=(96, 96))))))
    *parents, key = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[key] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("learner.depht", 3, r"unknown-field: card\.json.*MaPLe.*'depht'.*'depth'"),
        ("train.epoch", 3, r"unknown-field: card\.json.*Train.*'epoch'.*'epochs'"),
        ("learner.projector.xyz", 3, r"unknown-field: card\.json.*Projector.*'xyz'.*hidden, kind, norm, shared"),
        ("learner.class", "MAPle", r"unknown-type: card\.json.*learner.*'MAPle'.*'MaPLe'"),
        ("learner.class", ["MaPLe"], "unknown-type: card.json: learner .*MaPLe"),
        (
            "learner.projector.kind",
            "lowrank",
            r"unknown-choice: card\.json.*learner\.projector\.kind.*'lowrank'.*'low_rank'",
        ),
        ("learner", {"depth": 3}, r"missing-field: card\.json.*learner.*'class'.*ZeroShot, CoOp"),
        ("optim", None, "missing-field: card.json: optim .*'class'"),
        ("train.tune", "promts", r"unknown-choice: card\.json.*train\.tune.*'promts'.*'prompts'"),
        ("train.epochs", "20", r"wrong-type: card\.json.*train\.epochs.*int.*'20'"),
        ("train.epochs", True, r"wrong-type: card\.json.*train\.epochs.*int.*True"),
        ("train.epochs", 20.0, r"wrong-type: card\.json.*train\.epochs.*int.*20\.0"),
        ("train.epochs", None, r"wrong-type: card\.json.*train\.epochs.*int.*None"),
        ("optim.learning_rate", "fast", r"wrong-type: card\.json.*optim\.learning_rate.*float.*'fast'"),
        ("optim.cosine", 1, r"wrong-type: card\.json.*optim\.cosine.*bool.*1"),
        ("model.image_size", [96], r"wrong-type: card\.json.*model\.image_size.*\[96\]"),
        ("model.image_size", [96, "96"], r"wrong-type: card\.json.*model\.image_size.*int.*'96'"),
        ("learner.projector.hidden", 32, r"wrong-type: card\.json.*learner\.projector\.hidden.*32"),
    ],
)
def test_what_does_not_fit_is_named(path, value, message):
    with mistakes.raises(message):
        schema.from_json(Config, changed(path, value), "card.json")


def test_missing_fields_are_named():
    data = changed("workdir", "runs/x")
    del data["optim"]["cosine"], data["optim"]["warmup_steps"]
    with mistakes.raises("missing-field: Optim.*warmup_steps, cosine"):
        schema.from_json(Config, data, "card.json")
    with mistakes.raises("missing-field: the top.*'class'"):
        schema.from_json(Config, [], "card.json")


def test_whole_numbers_may_stand_for_floats():
    config = schema.from_json(Config, changed("optim.learning_rate", 1), "a test")
    assert type(config.optim.learning_rate) is float


def test_configuration_file_with_a_misspelt_field(tmp_path):
    for text, message in (
        ("from tunevlseg_jax.config import *\nconfig = Config(trian=Train())", "config-fails: :2 Config.*'trian'"),
        (
            "from tunevlseg_jax.learners import CoOp\n\nCoOp(dept=3)",
            "config-fails: :3 CoOp.*'dept'.*'depth'",
        ),
    ):
        (tmp_path / "x.py").write_text(text)
        with mistakes.raises(message):
            configuration.load(str(tmp_path / "x.py"))


def test_every_learner_is_exported_and_frozen():
    for cls in LEARNERS:
        assert getattr(learners, cls.__name__) is cls
        with pytest.raises(dataclasses.FrozenInstanceError):
            cls().depth = 2


def test_a_file_of_an_earlier_version_means_what_it_meant():
    """Fields that came later may be missing, and nothing else."""
    stored = schema.to_json(Config())
    for name in ("augmented_views", "recompute"):
        del stored["train"][name]
    assert schema.from_json(Config, stored, "a test") == Config()
    del stored["train"]["patience"]
    with mistakes.raises("missing-field: a test.*Train.*patience"):
        schema.from_json(Config, stored, "a test")


def test_a_field_that_an_earlier_version_named_otherwise():
    """In a configuration, in differences of two, and as the name of a parameter; elsewhere the name is unknown."""
    config = Config(learner=CoOp(init_phrase="a photo"))
    stored = schema.to_json(config)
    stored["learner"]["words"] = stored["learner"].pop("init_phrase")
    assert schema.from_json(Config, stored, "a test") == config
    assert schema.difference(stored, schema.to_json(config)) == ""
    assert schema.difference({"space": {"learner.words": 1}}, {"space": {"learner.init_phrase": 2}}) == (
        "space.learner.init_phrase was 1 and is now 2"
    )
    assert schema.current_name("x.learner.words") == "x.learner.init_phrase"
    for name in ("words", "learner.words_in", "my_learner.words"):
        assert schema.current_name(name) == name
    with mistakes.raises("unknown-field: VPT.*'init_phrase'"):
        schema.from_json(Config, changed("learner", schema.to_json(VPT()) | {"words": "a photo"}), "a test")


def test_fields_that_an_earlier_version_lacks_differ_only_from_their_defaults():
    """Nested as well, as in the combinations of a study."""
    assert ADDED["data.negatives"] == 0.0 and ADDED["train.recompute"] == "nothing"
    now = schema.flat(schema.to_json(Config()))
    before = {name: value for name, value in now.items() if name not in ADDED}
    assert schema.difference({"study": before}, {"study": now}, added=ADDED) == ""
    changed = now | {"data.negatives": 0.2}
    assert schema.difference(before, changed, added=ADDED) == "data.negatives was 0.0 and is now 0.2"
    assert "train.recompute was None" in schema.difference(before, now)
