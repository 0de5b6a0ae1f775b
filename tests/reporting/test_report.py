"""Tests of the report on trained and evaluated runs: its numbers, its words, its files, and mistakes of users."""

import csv
import dataclasses
import json
import re
import sys
from pathlib import Path

import fake_runs
import mistakes
import numpy as np
import pytest
import small
import tokenizers
from rich.console import Console
from safetensors.numpy import load_file, save_file

from tunevlseg_jax import evaluate
from tunevlseg_jax import report as command
from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.learners import CoOp, Projector, SharedSeparate
from tunevlseg_jax.pretrained.load import EMBEDDED
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.reporting import cells, runs, words
from tunevlseg_jax.reporting.output import write
from tunevlseg_jax.reporting.output.options import Options
from tunevlseg_jax.runs import trainer

quick_compilation = small.quick_compilation

QUIET = Console(quiet=True)
ONCE = Train(epochs=1, batch_size=4, augment=False)
FILES = {"report.md", "tables.tex", "cells.csv", "table3_dice.csv", "table3_iou.csv", "cross_data.csv", "words.csv"}
FILES |= {"report.html", "figures", "cases", "outline_distances.csv", "outline_shares.csv", "calibration.csv"}


def settings(**changes) -> Config:
    """One epoch of CoOp on the embedded model, which finds something on photographs."""
    usual = {"model": Model(checkpoint="clipseg-tiny"), "learner": CoOp(depth=1, num_context=2, init_phrase="one of")}
    return small.config(**(usual | {"train": ONCE, "optim": Optim(learning_rate=1e-2)} | changes))


@pytest.fixture(scope="module")
def experiment(quick_compilation, tmp_path_factory) -> Path:
    """CoOp with two seeds, evaluated; the first on another data set as well."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for seed in (0, 1):
            folder = root / f"seed{seed}"
            trainer.train(settings(train=dataclasses.replace(ONCE, seed=seed), workdir=str(folder)), QUIET)
            small.run(patch, evaluate.main, "--run", folder)
        small.run(patch, evaluate.main, "--run", root / "seed0", "--data.name", "scenes/xray")
    return root


@pytest.fixture(scope="module")
def report(experiment, tmp_path_factory) -> Path:
    """The report on these runs."""
    output = tmp_path_factory.mktemp("report") / "new"
    write.report(Options(str(experiment), str(output)), QUIET)
    return output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_tables_are_those_of_the_files_of_records(experiment, report):
    """From the CSV files of single records, by the csv module and sums alone."""
    dice, iou = [], []
    for seed in (0, 1):
        records = rows(experiment / f"seed{seed}" / "evaluations" / "scenes_photo_test_model.csv")
        assert len(records) == 6
        dice.append(sum(float(record["dice"]) for record in records) / len(records))
        pixels = [sum(int(record[name]) for record in records) for name in ("intersection", "union")]
        iou.append(pixels[0] / pixels[1])
    text = (report / "report.md").read_text("utf-8")
    for name, (first, second) in (("table3_dice", dice), ("table3_iou", iou)):
        (row,) = rows(report / f"{name}.csv")
        mean, deviation = (first + second) / 2, abs(first - second) / 2**0.5
        assert 0 < mean < 1
        assert row["combination"] == "CoOp" and float(row["mean"]) == float(row["scenes/photo"])
        assert float(row["scenes/photo"]) == pytest.approx(mean, abs=1e-7)
        assert float(row["scenes/photo std"]) == pytest.approx(deviation, abs=1e-7)
        assert f"| {100 * mean:.2f} ± {100 * deviation:.2f} | {100 * mean:.2f} |" in text
    (crossed,) = rows(report / "cross_data.csv")
    other = rows(experiment / "seed0" / "evaluations" / "scenes_xray_test_model.csv")
    expected = sum(float(record["dice"]) for record in other) / len(other)
    assert float(crossed["scenes/xray"]) == pytest.approx(expected, abs=1e-7)
    assert "clipseg-tiny, CoOp, scenes/photo: 1 of its 2 runs tested on scenes/xray." in text


def test_without_records_the_cards_scores_stand_and_say_so(experiment, report, tmp_path):
    folder = experiment / "seed1" / "evaluations"
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        for path in kept:
            path.unlink()
        write.report(Options(str(experiment), str(tmp_path / "report"), words=0), QUIET)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    (row,), (before,) = (rows(folder / "table3_dice.csv") for folder in (tmp_path / "report", report))
    assert float(row["scenes/photo"]) == pytest.approx(float(before["scenes/photo"]), abs=1e-4)
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "†: from the card" in text and "†" not in (report / "report.md").read_text("utf-8")
    assert not (tmp_path / "report" / "words.csv").exists()


def test_what_a_report_holds(report):
    assert {path.name for path in report.iterdir()} == FILES
    text = (report / "report.md").read_text("utf-8")
    for heading in ("Table 3 of the paper", "Words near learnt prompts", "Runs that represent cells", "Skipped"):
        assert heading in text
    assert re.search(r"Initial context \(Table 4 of the paper\): not made", text)
    (row,) = rows(report / "cells.csv")
    assert (row["combination"], row["seeds"], row["records"], row["from"]) == ("CoOp", "2", "6", "evaluations")


def test_words_near_prompts(experiment, report):
    """Against distances by brute force; a learner's initial words are nearest to themselves."""
    stored, _ = runs.gather(experiment)
    cell = next(cell for key, cell in cells.choose(stored).by_key.items() if key.combination == "CoOp")
    embedding = load_file(EMBEDDED / "clipseg-tiny" / "model.safetensors")["text_tower/token_embedding"]
    tokens = json.loads((EMBEDDED / "clipseg-tiny" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    table = rows(report / "words.csv")
    assert len(table) == 2 * 2 and {row["combination"] for row in table} == {"CoOp"}
    for run in cell.runs:
        context = load_file(run.folder / "prompts.safetensors")["learner/context"][0]
        lines = [row for row in table if row["seed"] == str(run.config.train.seed)]
        assert [row["vector"] for row in lines] == ["1", "2"]
        for vector, row in zip(context, lines, strict=True):
            distances = sorted(
                (float(np.sqrt(((vector - other) ** 2).sum())), place) for place, other in enumerate(embedding)
            )
            for number, (distance, place) in enumerate(distances[:3], 1):
                assert float(row[f"distance {number}"]) == pytest.approx(distance, abs=6e-4)
                token = row[f"token {number}"]
                if token.removeprefix("-").isascii() and token.strip("-"):
                    assert (
                        tokens[
                            token[1:] if token.startswith("-") else f"\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}{token}"
                        ]
                        == place
                    )


def test_words_of_a_projected_context_are_of_what_enters_the_tower(tmp_path):
    learner = SharedSeparate(depth=2, num_context=2, width=8, projector=Projector(kind="linear", norm=False))
    config = settings(learner=learner)
    experiment = small.build(config)
    learnt = {path: np.asarray(array) for path, array in experiment.trainable.items()}
    folder = fake_runs.run(tmp_path / "run", config, (0.5,), learnt=learnt)
    (run,), _ = runs.gather(tmp_path)
    layer = {part: learnt[f"learner/text_projector/layer0/{part}"][0] for part in ("kernel", "bias")}
    expected = learnt["learner/context"][0] @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(words.context(run), expected, rtol=1e-5, atol=1e-6)
    save_file({"learner/context": learnt["learner/context"]}, folder / "prompts.safetensors")
    with mistakes.raises(r"bad-learnt: prompts.safetensors"):
        words.context(run)


def test_tokens_as_they_are_read():
    """Of CLIP's vocabulary, where a word has an end, and of the embedded one, where it has a beginning."""
    vocabulary = {"photo</w>": 0, "pho": 1, "<|endoftext|>": 2, "\N{LATIN SMALL LETTER A WITH CIRCUMFLEX}": 3}
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[], end_of_word_suffix="</w>")
    clip = tokenizers.Tokenizer(model)
    clip.decoder = tokenizers.decoders.ByteLevel()
    spelt = [words.spelt(Tokenizer(clip), token) for token in range(5)]
    assert spelt == ["photo", "pho-", "<|endoftext|>", "\N{LATIN SMALL LETTER A WITH CIRCUMFLEX}-", "token 4"]
    embedded = Tokenizer.load(EMBEDDED / "clipseg-tiny")
    assert [words.spelt(embedded, token) for token in (316, 348, 351)] == ["photo", "-kground", "<|endoftext|>"]


def test_words_are_listed_as_missing_where_the_model_is_another(experiment):
    stored, _ = runs.gather(experiment)
    chosen = cells.choose(
        [dataclasses.replace(run, card=dict(run.card) | {"model_sha256": "0" * 64}) for run in stored]
    )
    table, missing = words.words(chosen, 2)
    assert table is None and len(missing) == 1
    assert "seed0 and 1 more learnt: clipseg-tiny is not the model that it was trained on" in missing[0]


def test_more_words_than_there_are(experiment):
    table, _ = words.words(cells.choose(runs.gather(experiment)[0]), 400)
    assert table is not None and table.head[-2:] == ("token 352", "distance 352")
    assert {len(row.labels) for row in table.rows} == {len(table.head)}


def test_the_command(experiment, tmp_path, monkeypatch, capsys):
    output = tmp_path / "report [bold]"
    (experiment / "broken").mkdir()
    (experiment / "broken" / "config.json").write_text("{")
    monkeypatch.setenv("COLUMNS", "200")
    try:
        small.run(monkeypatch, command.main, "--runs", experiment, "--output", output, "--words", "0", "--no-page")
    finally:
        (experiment / "broken" / "config.json").unlink()
        (experiment / "broken").rmdir()
    out = capsys.readouterr().out
    assert "Data sets and combinations" in out and str(output / "report.md") in out
    assert re.search(rf"skipped: {experiment}/broken: can't read .*config.json", out)
    assert "broken" in (output / "report.md").read_text("utf-8").partition("## Skipped")[2]
    assert not (output / "report.html").exists()
    (output / "figures").mkdir()
    earlier = [output / "table5.csv", output / "figures" / "examples_9_9.png", output / "figures" / "examples_9_9.svg"]
    foreign = output / "figures" / "curves.pdf"
    for path in (*earlier, foreign):
        path.write_text("made earlier")
    with (output / "report.md").open("a") as text:
        text.write("![Examples](figures/examples_9_9.png)\n")
    small.run(monkeypatch, command.main, "--runs", experiment, "--output", output)
    assert {path.name for path in output.iterdir()} == FILES
    assert not any(path.exists() for path in earlier) and foreign.exists()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (output / "report.md").read_text("utf-8"))
    assert shown and all((output / path).is_file() for path in shown)
    small.run(monkeypatch, command.main, "--runs", experiment, "--output", output, "--words", "0", "--no-page")
    assert list((output / "figures").iterdir()) == [foreign]


def test_without_what_draws_there_are_tables(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        small.run(monkeypatch, command.main, "--runs", experiment, "--output", tmp_path / "report")
    mistakes.check_line(capsys.readouterr().err, "needs-package: matplotlib")
    small.run(
        monkeypatch, command.main, "--runs", experiment, "--output", tmp_path / "report", "--words", "0", "--no-page"
    )
    assert (tmp_path / "report" / "report.md").is_file()


def test_mistakes(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "card.json").write_text("[]")
    for arguments, says in (
        (("--runs", tmp_path / "nowhere"), "not-a-folder: nowhere"),
        (("--runs", tmp_path / "file"), "not-a-folder: file"),
        (("--runs", tmp_path / "empty"), "no-runs: empty"),
        (("--runs", tmp_path / "foreign"), "no-runs: foreign: .*config.json"),
        (("--runs", tmp_path, "--output", tmp_path / "file"), "not-a-folder: file .*--output"),
        (("--runs", tmp_path, "--output", tmp_path / "foreign"), "other-folder: foreign .*--output"),
        (("--runs", tmp_path, "--words", "-1"), "out-of-range: words .*-1"),
        (("--runs", tmp_path, "--samples", "3"), "out-of-range: samples .*0, .*4, .*3"),
        (("--runs", tmp_path, "--outptu", "x"), "invalid-option: --output"),
        ((), "invalid-option: --runs"),
    ):
        with pytest.raises(SystemExit) as stop:
            small.run(monkeypatch, command.main, *arguments)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
        mistakes.check_line(err, says)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "empty", "foreign"}


def test_help(capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        small.run(monkeypatch, command.main, "--help")
    assert not stop.value.code
    out = capsys.readouterr().out
    for option in ("--runs", "--output", "--words"):
        assert option in out
