"""What a benchmark counts, and what a step may cost at most."""

import dataclasses
import json
import math
import socket
from pathlib import Path
from types import SimpleNamespace

import jax
import mistakes
import pytest
import small
import small_cris
from rich.console import Console

from tunevlseg_jax import benchmark
from tunevlseg_jax.benchmarks import hlo, programs, rate_table, tpu_plan, tpu_table
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    BitFit,
    CoCoOp,
    Combined,
    CoOp,
    KgCoOp,
    LinearProbe,
    LoRA,
    MaPLe,
    NormTuning,
    PromptSRC,
    SharedAttention,
    SharedSeparate,
    VLSMAdapter,
)
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training.build import build_experiment

quick_compilation = small.quick_compilation


def counted(learner: Learner, tune="prompts") -> float:
    """Operations of a training step on the embedded model."""
    experiment = build_experiment(Config(learner=learner, upsampling="blend", train=Train(tune=tune, batch_size=8)))
    return programs.flops(programs.training(experiment, sharding.mesh(), 8))


@pytest.fixture(scope="module")
def forward() -> float:
    """Operations of the model's vision pass and decoder alone, nearly: a step of CoOp at depth 1 goes back a little."""
    return counted(CoOp(depth=1))


@pytest.mark.parametrize(
    ("learner", "budget"),
    [
        # The vision tower forward and nothing back through it.
        (CoOp(depth=5), 1.1),
        (CoCoOp(depth=5), 1.3),
        # Forward and back once: a gradient for a frozen matrix would make it three.
        (VPT(depth=5, num_context=4), 2.1),
        (MaPLe(depth=5), 2.3),
        (SharedSeparate(depth=5), 2.3),
        (SharedAttention(depth=5, hidden=176), 2.6),
        (LoRA(depth=5), 2.3),
        (VLSMAdapter(depth=5, hidden=16), 2.3),
        (IVLP(depth=5), 2.3),
        (KgCoOp(depth=5), 1.1),
        # The frozen model's forward pass too.
        (PromptSRC(depth=5), 3.4),
        (BitFit(depth=5), 2.1),
        (NormTuning(depth=5, decoder=True), 2.1),
        (LinearProbe(), 1.1),
        (Combined(of=(VPT(depth=5, num_context=4), LoRA(depth=5))), 2.3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Learner) else str(value),
)
def test_a_step_stays_within_its_budget(forward, learner, budget):
    assert counted(learner) < budget * forward


def test_the_budget_would_notice_frozen_gradients(forward):
    assert counted(VPT(depth=5), tune="all") > 2.4 * forward


def test_bytes_of_collectives():
    program = """
      %all-reduce.1 = (f32[4,128]{1,0}, bf16[8]{0}) all-reduce(%a, %b), channel_id=1
      %gather = (f32[2]{0}, f32[16]{0}) all-gather-start(%c), channel_id=2
      %done = f32[16]{0} all-gather-done(%gather)
      %other = pred[3]{0} all-reduce(%d)
    """
    assert hlo.collectives(program) == {"all-reduce": (4 * 4 * 128 + 2 * 8 + 3, 2), "all-gather": (4 * 18, 1)}


def test_traffic_with_a_chips_memory():
    """What lies in S(1) is none; what is moved there and back is counted once, whatever of it is waited for."""
    program = """HloModule jit_step

%fused (one: f32[4,8]) -> f32[4,8] {
  ROOT %negate = f32[4,8]{1,0} negate(%one)
}

ENTRY %main (weights: f32[4,8], rows: bf16[100]) -> f32[4,8] {
  %weights.1 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %rows = bf16[100]{0} parameter(1)
  %here = (f32[4,8]{1,0:T(8,128)S(1)}, f32[4,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%weights.1), index=0
  %weights.2 = f32[4,8]{1,0:T(8,128)S(1)} copy-done(%here)
  %part = ((bf16[100]{0}), bf16[25]{0:S(1)}, s32[]{:S(2)}) slice-start(%rows), slice={[0:25]}
  %few = bf16[25]{0:S(1)} slice-done(%part)
  %inside = f32[4,8]{1,0:T(8,128)S(1)} fusion(%weights.2, %few), kind=kLoop, calls=%fused
  %sum = f32[4,8]{1,0} all-reduce(%inside), channel_id=1
  ROOT %out = f32[4,8]{1,0} fusion(%sum, %weights.2), kind=kLoop, calls=%fused
}
"""
    array = 4 * 4 * 8
    assert hlo.traffic(program) == array + 2 * 25 + array + 2 * array


def test_what_interconnects_take():
    """A sum goes round twice, a gathering once."""
    plan = tpu_plan.Plan("v5e:4x4", 16, 8, 1.0, 0, 0, 0.0, 0.0, {"all-reduce": (32_000, 1), "all-gather": (16_000, 2)})
    assert plan.bound["interconnect"] == pytest.approx((2 * 30_000 + 15_000) / 200e9)


def test_a_table_and_its_numbers(tmp_path, monkeypatch, capsys):
    config = small.write_config(tmp_path / "config.py", small.config())
    output = tmp_path / "numbers.json"
    monkeypatch.setattr(programs, "CEILING_SIDE", 512)
    small.run(
        monkeypatch, benchmark.main, "--config", config, "--repeats", 2, "--output", output, "--train.batch-size", 2
    )
    rows = json.loads(output.read_text())
    assert [row["program"] for row in rows] == ["training", "evaluation", "prediction"]
    for row in rows:
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"])
        assert row["batch"] == 2 and row["flops"] > 0 and row["share_of_ceiling"] > 0
    identity = {
        "model": Path(small.config().model.checkpoint).name,
        "learner": "VPT",
        "tune": "prompts",
        "device": "cpu",
    }
    assert all(identity.items() <= row.items() for row in rows)
    assert rows[0]["flops"] > 1.5 * rows[1]["flops"]
    speeds = rows[0]["loading_images_per_second"]
    assert speeds.keys() == {"streaming", "resident"} and min(speeds.values()) > 0
    assert not any("loading_images_per_second" in row for row in rows[1:])
    peaks = list(rows[0]["peak_bytes"].values())
    assert peaks[0] > 0 and peaks == sorted(peaks)
    out = capsys.readouterr().out
    assert "ceiling" in out and f"peak memory of the fullest device or process: {peaks[0] / 2**30:.2f} GiB" in out
    # Numbers that are cut short are no numbers; this is what a terminal of 80 columns shows.
    peer = {"seconds": 4.9, "ratio": 2.65, "least": 2.391, "most": 12.9}
    large = [row | {"seconds": 123.456, "flops": 1.2e15, "temporary_bytes": 10**10} for row in rows]
    large = [row | {"peer_float32": peer, "peer_autocast": peer} for row in large]
    large[0] |= {"peer_training_float32": peer, "peer_training_autocast": peer}
    Console(width=80).print(rate_table.table(large), *rate_table.peer_tables(large))
    out = capsys.readouterr().out
    assert "…" not in out and "forward pass" in out and "training step" in out


@small.TPU
@pytest.mark.slow
def test_plans_for_slices(tmp_path):
    """One of them again, by itself: another slice of the same chips had nearly the program that is compiled for it."""
    config = small.config(train=Train(precision="bfloat16", batch_size=4))
    path = small.write_config(tmp_path / "config.py", config)

    def planned(*slices: str, options: tuple[str, ...] = ()) -> list[dict]:
        output = tmp_path / "plans.json"
        command = "-m", "tunevlseg_jax.benchmark", "--config", path, "--topology", *slices, "--output", output
        status, out, err = small.finish(small.start(*command, *options, COLUMNS="80", JAX_PLATFORMS=""), 300)
        assert (status, err) == (0, "")
        assert "images/s at most" in out and max(map(len, out.splitlines())) <= 80
        return json.loads(output.read_text())

    small_slice, large = planned("v5e:2x2", "v5e:4x4")
    (again,) = planned("v5e:4x4")
    (sharing,) = planned("v5e:4x4", options=("--train.shard-frozen",))
    nearly = {name: pytest.approx(again[name], rel=0.01) for name in ("temporary", "largest_batch")}
    assert large | {"seconds": 0} == again | {"seconds": 0} | nearly
    assert (small_slice["chips"], large["chips"], sharing["chips"]) == (4, 16, 16)
    for plan in (large, sharing):
        assert plan["fits"] and plan["flops"] > 0
        assert plan["bytes"] > plan["held"] / 5  # what vision has of the weights is read at least once
    # What goes over the wires is the gradient of what trains, and the scores.
    trainable = sum(array.size for array in small.build(config).trainable.values())
    assert set(large["collectives"]) == {"all-reduce"}
    assert large["collectives"]["all-reduce"][0] < 4 * trainable + 1000
    assert sharing["collectives"]["all-gather"][0] > 0 and sharing["held"] < large["held"]


@pytest.mark.parametrize(
    ("train", "larger", "expected"),
    [
        (Train(), True, ["v5e:4x4 8", "v5e:4x4 16", "v5p:2x2x1 8", "v5p:2x2x1 16", "v5e:1x1 8", "v5e:1x1 16"]),
        (Train(), False, ["v5e:4x4 8", "v5p:2x2x1 8", "v5e:1x1 8"]),
        (Train(shard_frozen=True), False, ["v5e:4x4 8", "v5e:16x16 8", "v5p:2x2x1 8", "v5e:1x1 8"]),
    ],
)
def test_a_program_is_compiled_once_for_all_slices_that_run_it(monkeypatch, train, larger, expected):
    compiled = []

    def plan(experiment, name: str, batch: int) -> tpu_plan.Plan:
        compiled.append(f"{name} {batch}")
        return tpu_plan.Plan(name, tpu_plan._mesh(name).size, batch, 1.0, 10**9, batch * 10**9, 1e12, 10**9, {})

    def mesh(name: str) -> SimpleNamespace:
        return SimpleNamespace(size=math.prod(map(int, name.partition(":")[2].split("x"))))

    monkeypatch.setattr(tpu_plan, "plan", plan)
    monkeypatch.setattr(tpu_plan, "_mesh", mesh)
    slices = "v5e:4x4", "v5e:16x16", "v5p:2x2x1", "v5e:1x1"
    experiment = SimpleNamespace(config=Config(learner=VPT(), train=train))
    rows = tpu_table.plans(experiment, slices, 8, lambda message: None, larger=larger)
    assert compiled == expected
    assert [(row["device"], row["chips"]) for row in rows] == list(zip(slices, (16, 256, 4, 1), strict=True))
    assert [row["largest_batch"] for row in rows] == ([15, 15, 94, 15] if larger else [None] * 4)
    assert rows[1]["images_per_second"] == 16 * rows[0]["images_per_second"]


def test_a_plan_without_compilation(tmp_path, monkeypatch, capsys):
    """The operations are those of the real step, and the bound is theirs alone; a table has no line without numbers."""
    config = small.config(learner=CoOp(depth=2, init_phrase=None), train=Train(batch_size=4))
    path, output = small.write_config(tmp_path / "config.py", config), tmp_path / "plan.json"
    slices = "v5e:4x4", "v5p:4x4x4"
    small.run(monkeypatch, benchmark.main, "--config", path, "--topology", *slices, "--no-compile", "--output", output)
    rows = json.loads(output.read_text())
    real = programs.flops(programs.training(build_experiment(config, platform="tpu"), sharding.mesh(), 4))
    assert [(row["device"], row["chips"], row["flops"]) for row in rows] == [
        (slices[0], 16, real),
        (slices[1], 64, real),
    ]
    assert rows[0]["bound"] == {"compute": real / 197e12} and rows[0]["binding"] == "compute"
    assert rows[0]["images_per_second_per_device"] == pytest.approx(4 * 197e12 / real)
    out = capsys.readouterr().out
    assert "images/s at most" in out and "fits" not in out


@pytest.mark.parametrize("model", ["clipseg", "cris"])
def test_an_abstract_experiment_has_the_shapes_of_a_real_one(model):
    """Without weights, also of a model whose BatchNorms are folded."""
    learner = IVLP(depth=2) if model == "clipseg" else CoOp(depth=2, num_context=2, init_phrase="a photo")
    config = small.config(learner=learner, train=Train(precision="bfloat16"))
    pretrained = small_cris.model() if model == "cris" else load_pretrained(config.model.checkpoint)
    without = dataclasses.replace(pretrained, weights={})
    real, abstract = (
        build_experiment(config, one, platform="tpu", abstract=one is without) for one in (pretrained, without)
    )
    for ours, theirs in ((abstract.trainable, real.trainable), (abstract.frozen, real.frozen)):
        assert {path: (a.shape, a.dtype) for path, a in ours.items()} == {
            path: (a.shape, a.dtype) for path, a in theirs.items()
        }
    assert not any(isinstance(array, jax.Array) for array in (abstract.trainable | abstract.frozen).values())
    assert abstract.network == real.network


def test_a_slice_that_there_is_not():
    with mistakes.raises("unknown-topology: v5e:4x4, .*'v5z:4x4'"):
        tpu_plan.plan(small.build(small.config()), "v5z:4x4", 4)


def plan_row(**changes) -> dict:
    row = {"program": "training", "model": "vit", "learner": "VPT", "tune": "prompts", "device": "v5e:2x2", "chips": 4}
    return row | {"batch": 8, "bound": {"compute": 0.02, "memory": 0.03}, "binding": "memory"} | changes


def measured_row(**changes) -> dict:
    row = {
        "program": "training",
        "model": "vit",
        "learner": "VPT",
        "tune": "prompts",
        "device": "TPU v5e",
        "devices": 4,
    }
    return row | {"batch": 32, "seconds": 0.045} | changes


def compared(tmp_path, monkeypatch, plan, measured) -> list[dict]:
    files = [tmp_path / "plan.json", tmp_path / "measured.json"]
    for path, rows in zip(files, (plan, measured), strict=True):
        path.write_text(json.dumps(rows))
    output = tmp_path / "both.json"
    small.run(monkeypatch, benchmark.main, "compare", *files, "--output", output)
    return json.loads(output.read_text())


def test_a_plan_beside_a_measurement(tmp_path, monkeypatch, capsys):
    """Rows agree in model, learner, chips of a kind and records a chip; the measured step took 1.5 of the bound."""
    others = [measured_row(learner="CoOp"), measured_row(program="evaluation"), measured_row(batch=64)]
    plans = [plan_row(), plan_row(chips=8), plan_row(device="v6e:2x2", bound={"memory": 0.01})]
    (row,) = compared(tmp_path, monkeypatch, plans, [measured_row(), *others])
    assert row["of_bound"] == pytest.approx(1.5) and row["bound_by"] == "memory" and row["batch a chip"] == 8
    assert row["slice"] == "v5e:2x2" and "1.50" in capsys.readouterr().out


def test_every_plan_of_the_same_program_is_compared(tmp_path, monkeypatch):
    """Two slices of as many chips, and no step of other settings; files of earlier versions lack those."""
    (row,) = compared(
        tmp_path, monkeypatch, [plan_row(precision="float32"), plan_row(chips=8)], [measured_row(precision="float32")]
    )
    assert row["of_bound"] == pytest.approx(1.5)
    settings = {"recompute": "blocks", "precision": "bfloat16"}
    plans = [plan_row(**settings), plan_row(device="v5e:1x4", **settings), plan_row(recompute="nothing")]
    measured = [measured_row(device="TPU v5 lite", **settings), measured_row(recompute="blocks", precision="float32")]
    rows = compared(tmp_path, monkeypatch, plans, measured)
    assert [row["slice"] for row in rows] == ["v5e:2x2", "v5e:1x4"]
    assert len(compared(tmp_path, monkeypatch, plans, [measured_row()])) == 3


@pytest.mark.parametrize(
    ("plan", "measured", "line"),
    [
        ([measured_row()], [measured_row()], r"not-plan: plan\.json.*--topology"),
        (
            [plan_row()],
            [measured_row(devices=8)],
            "nothing-in-common: .*4 chips of v5e.*8 records.*8 chips.*4 records",
        ),
        ([plan_row()], [], "nothing-in-common: .*no training step"),
        ([plan_row()], [measured_row(device="cpu")], "nothing-in-common: .*4 chips of cpu"),
        ([plan_row()], [measured_row(devices=None)], r"not-rates: measured\.json"),
        ([plan_row()], [measured_row(devices=0)], r"not-rates: measured\.json"),
        ([plan_row()], [{"program": "training"}], r"not-rates: measured\.json.*lacks 'devices'"),
        ([plan_row(bound={})], [measured_row()], r"not-rates: plan\.json.*lacks 'memory'"),
        ([plan_row(bound={"memory": 0})], [measured_row()], r"not-rates: plan\.json"),
        ([plan_row()], {"program": 1}, r"not-rates: measured\.json"),
        ([{"program": "training", "bound": {}}], [], "not-rates: .*model"),
    ],
)
def test_files_that_can_not_be_compared(tmp_path, monkeypatch, capsys, plan, measured, line):
    with pytest.raises(SystemExit):
        compared(tmp_path, monkeypatch, plan, measured)
    mistakes.check_line(capsys.readouterr().err, line)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_and_scaling(tmp_path, processes):
    """Four devices shared out: one process prints and writes, and the numbers speak of all devices and of each host."""
    config = small.write_config(tmp_path / "config.py", small.config())
    output = tmp_path / "numbers.json"
    script = "from tunevlseg_jax import benchmark, cli\nfrom tunevlseg_jax.benchmarks import programs\n"
    script += "programs.CEILING_SIDE = 256\ncli.run(benchmark.main)"
    options = "--config", config, "--repeats", 2, "--train.batch-size", 8, "--scaling", "--output", output
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        where = f"localhost:{probe.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={4 // processes}"
    cluster = "--processes", processes, "--coordinator", where, "--process"
    members = [small.start("-c", script, *options, *cluster, number, XLA_FLAGS=flags) for number in range(processes)]
    ended = [small.finish(member, 400) for member in members]
    out = ended[0][1]
    assert [status for status, _, _ in ended] == [0] * processes and f"4 x cpu in {processes} processes" in out
    assert [printed for _, printed, _ in ended[1:]] == [""] * (processes - 1)
    rows = {row["program"]: row for row in json.loads(output.read_text())}
    training = rows["training"]
    assert training["devices"] == 4 and training["hosts"] == len(training["ceiling_by_host"]) == processes
    assert training["seconds"] == max(training["seconds_by_host"]) and training["stall_seconds"] >= 0
    stalls = training["stall_seconds_by_host"]
    assert len(stalls) == processes and max(stalls) == training["stall_seconds"]
    assert all(f"  process {number}: a step " in out for number in range(processes)) and " each" in out
    assert 0 < training["collective_seconds"] < training["slowest"] * 2
    assert [rows[f"training on {number}"]["batch"] for number in (1, 2, 4)] == [2, 4, 8]
    assert rows["training on 1"]["efficiency"] == 1
    assert rows["training on 4"]["images_per_second"] == pytest.approx(8 / rows["training on 4"]["seconds"])
