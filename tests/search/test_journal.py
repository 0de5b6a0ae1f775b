"""Tests of damaged journals: whole operations are kept, and a study that lost one that it needs is refused."""

import functools
import json
import tempfile
from pathlib import Path

import mistakes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from test_storage import NEVER, SPACE, open_storage

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search.journal import open_journal
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.storage import JOURNAL, StudyStorage

TRIALS = 3


@functools.cache
def written() -> bytes:
    """The journal of a study with three finished trials."""
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(Path(folder))
        for number in range(TRIALS):
            trial = storage.assign(TRIALS)
            assert trial is not None
            storage.report(number, 1, 0.25)
            storage.finish(number, TrialState.COMPLETE, 0.5 + number, {"val_dice": 0.5 + number})
        storage.close()
        return (Path(folder) / JOURNAL).read_bytes()


def lines() -> list[bytes]:
    return written().splitlines(keepends=True)


def line_of(operation: int) -> int:
    """The index of the last line of an operation: 4 creates a trial, 5 sets a parameter, 6 a state, 7 a score."""
    return max(index for index, line in enumerate(lines()) if json.loads(line)["op_code"] == operation)


def opened(folder: Path, content: bytes) -> tuple[dict[int, tuple], list[str]]:
    """The finished trials of a journal, by number, and the notes on its damage."""
    folder.mkdir(exist_ok=True)
    (folder / JOURNAL).write_bytes(content)
    notes: list[str] = []
    storage = StudyStorage(folder, "study", None, {"a": 1}, Sampler(SPACE, 0), "maximize", NEVER, notes.append)
    trials = {trial.number: (trial.params, trial.values, trial.user_attrs["val_dice"]) for trial in storage.finished()}
    storage.close()
    again = StudyStorage(folder, "study", None, {"a": 1}, Sampler(SPACE, 0), "maximize", NEVER, notes.append)
    assert {trial.number for trial in again.finished()} == trials.keys()
    again.close()
    return trials, notes


def damages() -> dict[str, tuple[bytes, list[int]]]:
    """Journals that lost nothing but a partial operation, and the numbers of the lines to name."""
    whole, last = lines(), len(lines())
    half = b'{"op_code":7,"worker_id":"x","tri'
    middle = last // 2
    return {
        "blank line": (b"".join([*whole, b"\n"]), [last + 1]),
        "blank lines within": (b"".join([*whole[:middle], b"\n", b" \r\n", *whole[middle:]]), [middle + 1, middle + 2]),
        "half line": (b"".join([*whole, half, b"\n"]), [last + 1]),
        "half line within": (b"".join([*whole[:middle], half, b"\n", *whole[middle:]]), [middle + 1]),
        "half line before another": (b"".join([*whole[:middle], half, *whole[middle:]]), [middle + 1]),
        "two together": (b"".join([*whole, whole[-1].rstrip(), b"{", whole[-1]]), [last + 1]),
        "two run together": (b"".join([*whole[:-2], whole[-2].rstrip(), whole[-1]]), [last - 1]),
        "zeros": (b"".join([*whole[:middle], bytes(200), *whole[middle:], bytes(4), b"\n"]), [middle + 1, last + 1]),
        "not UTF-8": (b"".join([*whole[:middle], b"\xff\xfe\x80\n", *whole[middle:]]), [middle + 1]),
        "other JSON": (b"".join([*whole[:middle], b"5\n[]\n", *whole[middle:]]), [middle + 1, middle + 2]),
        "a lost score": (b"".join([*whole[: line_of(7)], b'{"op_c\n', *whole[line_of(7) + 1 :]]), [line_of(7) + 1]),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[int, tuple]:
    """The finished trials of the journal as it was."""
    trials, notes = opened(tmp_path_factory.mktemp("whole"), written())
    assert len(trials) == TRIALS and not notes
    return trials


@pytest.mark.parametrize("name", damages())
def test_whole_operations_are_kept(tmp_path, whole, name):
    content, numbers = damages()[name]
    trials, notes = opened(tmp_path / "damaged", content)
    assert trials == whole
    (note,) = notes
    assert JOURNAL in note and f" {', '.join(map(str, numbers))}; " in note
    assert (tmp_path / "damaged" / f"{JOURNAL}.damaged").read_bytes() == content


def test_a_partial_last_line_is_dropped_without_a_word(tmp_path, whole):
    for content in (written() + b'{"op_code":4,"wor', written().rstrip(b"\n")):
        folder = tmp_path / str(len(content))
        assert opened(folder, content) == (whole, [])
        assert not list(folder.glob("*.damaged"))


@pytest.mark.parametrize(
    ("operation", "says"),
    [(0, "study"), (2, "settings"), (4, "trial 2"), (5, "of trial 2")],
)
def test_an_operation_that_the_study_needs(tmp_path, operation, says):
    index = line_of(operation)
    content = b"".join([*lines()[:index], b"garbage\n", *lines()[index + 1 :]])
    with mistakes.raises(f"journal-damaged: line {index + 1} of .*{JOURNAL}.*{says}.*--study"):
        opened(tmp_path / "s", content)
    assert (tmp_path / "s" / JOURNAL).read_bytes() == content


@pytest.mark.parametrize(("operation", "says"), [(4, "creation of trial 2"), (5, "of trial 2"), (8, "val_dice of")])
def test_a_whole_line_that_is_gone(tmp_path, operation, says):
    """Nothing looks damaged then, and a finished trial would silently have other parameters or no result."""
    index = line_of(operation)
    content = b"".join([*lines()[:index], *lines()[index + 1 :]])
    with mistakes.raises(f"journal-damaged: {JOURNAL} isn't as it was written.*{says}.*--study"):
        opened(tmp_path / "s", content)
    assert (tmp_path / "s" / JOURNAL).read_bytes() == content


def test_parameters_of_an_earlier_name_are_not_lost(tmp_path, whole):
    """A damaged journal of a study that began with the field's earlier name, in its first trial alone."""
    before, after = b'"param_name":"learner.init_phrase"', b'"param_name":"learner.words"'
    phrases = [line.replace(b'"param_name":"learner.depth"', before) for line in lines()]
    first = next(index for index, line in enumerate(phrases) if before in line)
    phrases[first] = phrases[first].replace(before, after)
    storage, notes = tmp_path / "s", []
    storage.mkdir()
    (storage / JOURNAL).write_bytes(b"".join([*phrases, b"\n"]))
    open_journal(storage / JOURNAL, notes.append)
    assert len(notes) == 1 and len(whole) == TRIALS


def test_operations_that_are_there_twice_change_no_finished_trial(tmp_path, whole):
    """The file, every line, or the creation of a trial."""
    creation = line_of(4)
    for name, content in {
        "file": written() * 2,
        "lines": b"".join(line * 2 for line in lines()),
        "creation": b"".join([*lines()[:creation], lines()[creation], *lines()[creation:]]),
    }.items():
        assert opened(tmp_path / name, content) == (whole, [])


def test_a_trial_that_lost_its_end_is_trained_again(tmp_path):
    index = line_of(6)
    trials, _ = opened(tmp_path / "s", b"".join([*lines()[:index], b"garbage\n", *lines()[index + 1 :]]))
    assert sorted(trials) == [0, 1]
    storage = open_storage(tmp_path / "s")
    storage.requeue()
    trial = storage.assign(TRIALS)
    assert trial is not None and trial.number == 2
    storage.close()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    start=st.integers(0, 10_000),
    length=st.integers(0, 300),
    inserted=st.sampled_from([b"\n", b"\0" * 40 + b"\n", b'{"op_code":7,"tri\n', b"\xff\xfe\n"]),
)
def test_no_torn_line_changes_a_finished_trial(whole, start, length, inserted):
    """Bytes written over anywhere, up to the end of a line: an error's line, or finished trials as they were."""
    content = written()
    start %= len(content)
    with tempfile.TemporaryDirectory() as folder:
        try:
            after, _ = opened(Path(folder), content[:start] + inserted + content[start + length :])
        except UserError as error:
            assert error.code == "journal-damaged"
        else:
            assert all(whole[number] == trial for number, trial in after.items())
