"""Tests of tables of tokens: padding, cutting, and full stops."""

import mistakes
import numpy as np
import pytest

from conversion.tiny.sizes import END, START, train_tokenizer
from tunevlseg_jax.pretrained.tokenizer import Tokenizer, with_full_stop

LONG = "a photo of a seven in an ultrasound"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture(scope="module")
def ends(tokenizer) -> tuple[int, int]:
    return tokenizer.backend.token_to_id(START), tokenizer.backend.token_to_id(END)


def test_rows_are_padded_with_the_end_token(tokenizer, ends):
    start, end = ends
    table = tokenizer.table(["seven", LONG, ""], 32)
    assert table.dtype == np.int32
    assert table.shape == (3, len(tokenizer.words(LONG)) + 2)
    for row, phrase in zip(table, ["seven", LONG, ""], strict=True):
        words = tokenizer.words(phrase).tolist()
        assert row.tolist() == [start, *words] + [end] * (len(row) - 1 - len(words))
    assert tokenizer.table(["seven"], 32).shape[1] < table.shape[1]


def test_rows_are_filled_up_to_a_multiple_as_far_as_they_fit(tokenizer, ends):
    short = tokenizer.table(["seven"], 32)[0].tolist()
    assert tokenizer.table(["seven"], 32, multiple=8).tolist() == [short + [ends[1]] * (8 - len(short))]
    assert tokenizer.table([LONG], 32, multiple=8).shape == (1, 24)
    assert tokenizer.table([LONG], 20, multiple=8).shape == (1, 20)


def test_words_have_no_ends(tokenizer, ends):
    words = tokenizer.words("a photo of a")
    assert words.dtype == np.int32 and len(words) == 4
    assert not set(ends) & set(words.tolist())


def test_case_and_outer_spaces_do_not_matter(tokenizer):
    assert tokenizer.words("  A Photo of a SEVEN ").tolist() == tokenizer.words("a photo of a seven").tolist()


def test_long_phrases_are_an_error_that_names_them(tokenizer):
    fits = len(tokenizer.words(LONG)) + 2
    assert tokenizer.table([LONG], fits).shape == (1, fits)
    with mistakes.raises(rf"prompt-too-long: '{LONG}' .* {fits} .* {fits - 1} .*shorten it \[prompt"):
        tokenizer.table(["seven", LONG], fits - 1)


@pytest.mark.parametrize("longest", [3, 5])
def test_cutting_keeps_start_and_end(tokenizer, ends, longest):
    row, short = tokenizer.table([LONG, "seven"], longest, truncate=True)
    assert row.tolist() == [ends[0], *tokenizer.words(LONG)[: longest - 2].tolist(), ends[1]]
    assert short.tolist() == tokenizer.table(["seven"], longest)[0].tolist() + [ends[1]] * (longest - 3)


def test_saving_and_loading(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).backend.to_str() == tokenizer.backend.to_str()
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_padding_and_cutting_of_the_file_are_forgotten(tokenizer, tmp_path):
    """Files from the hub may pad to 77; the table decides here."""
    tokenizer.save(tmp_path)
    other = Tokenizer.load(tmp_path).backend
    other.enable_padding(length=77)
    other.enable_truncation(3)
    other.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).table([LONG], 32).tolist() == tokenizer.table([LONG], 32).tolist()


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("polyp", "polyp."), ("polyp.", "polyp."), (" polyp ", "polyp."), ("polyp. ", "polyp."), ("a. b", "a. b.")],
)
def test_full_stop(phrase, expected):
    assert with_full_stop(phrase) == expected
