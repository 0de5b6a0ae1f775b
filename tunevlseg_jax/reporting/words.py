"""The tokens of the vocabulary nearest to learnt context vectors (Table 4 of CoOp's paper)."""

import dataclasses
from collections import defaultdict
from functools import cache

import jax.numpy as jnp
import numpy as np

from tunevlseg_jax.models.parameters import nested, subtree
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.reporting import scores
from tunevlseg_jax.reporting.cells import Cells
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.reporting.table import Row, Table
from tunevlseg_jax.runs.card import LEARNT_FILE, load_learnt
from tunevlseg_jax.runtime.errors import UserError

NAME = "words"
TITLE = "Words near learnt prompts"

END_OF_WORD, BLANK = "</w>", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"
"""Marks of whole words in vocabularies: an end, or the blank before the word (as byte-level ones write it)."""
HEAD = ("model", "combination", "data set", "seed", "vector")
CAPTION = (
    "Of every run that represents a cell and whose learner prompts the text tower: the tokens of the vocabulary with "
    "the nearest embeddings to each context vector that enters before the first block, and their Euclidean distances. "
    "A vector of CoCoOp is taken before an image shifts it, one of a shared learner after its projection. A hyphen "
    "marks a part of a word. Nearest is not near: a vector may be far from every token."
)


def words(cells: Cells, number: int) -> tuple[Table | None, list[str]]:
    """A table of the nearest tokens and their distances, and what is missing.

    Args:
      cells: the runs.
      number: how many tokens for each vector.

    Returns:
      The table, None where no learner prompts the text tower; and for each run that can't be read why.
    """
    rows: list[Row] = []
    unread: dict[str, list[Run]] = defaultdict(list)
    load = cache(load_pretrained)
    prompted = ((cell, run) for cell in cells.ordered for run in cell.runs if run.config.learner.text_tokens)
    for cell, run in prompted:
        try:
            near = nearest(run, load(run.config.model.checkpoint), number)
        except UserError as error:
            unread[str(error)].append(run)
            continue
        fold = "" if run.config.data.fold is None else f", fold {run.config.data.fold}"
        place = (*scores.labels(cell.key.row), cell.key.data, f"{run.config.train.seed}{fold}")
        for vector, tokens in enumerate(near, 1):
            details = [text for token, distance in tokens for text in (token, f"{distance:.3f}")]
            rows.append(Row((*place, str(vector), *details), ruled=bool(rows) and vector == 1))
    missing = []
    for reason, runs in unread.items():
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        missing.append(f"Words near what {runs[0].folder}{more} learnt: {reason}.")
    if not rows:
        return None, missing or ["Words near learnt prompts: not made, as no run's learner prompts the text tower."]
    width = max(len(row.labels) for row in rows)
    details = [text for place in range(1, number + 1) for text in (f"token {place}", f"distance {place}")]
    rows = [dataclasses.replace(row, labels=(*row.labels, *[""] * (width - len(row.labels)))) for row in rows]
    return Table(NAME, TITLE, CAPTION, (*HEAD, *details)[:width], (), tuple(rows)), missing


def nearest(run: Run, model: Pretrained, number: int) -> list[list[tuple[str, float]]]:
    """For each context vector that enters the text tower before its first block, its nearest tokens with distances.

    Raises:
      UserError: the model isn't the one that the run learnt for, or the run's tensors aren't its learner's.
    """
    if model.sha256 != run.card["model_sha256"]:
        raise UserError(f"{run.config.model.checkpoint} is not the model that it was trained on", "model-changed")
    embedding, vectors = model.weights[model.config.token_embedding], context(run)
    if vectors.shape[1:] != embedding.shape[1:]:
        raise UserError(f"{run.folder / LEARNT_FILE} holds vectors of another width than tokens", "bad-learnt")
    near = []
    for vector in vectors:
        distances = np.linalg.norm(embedding - vector, axis=1)
        places = np.argsort(distances, kind="stable")[:number]
        near.append([(spelt(model.tokenizer, int(place)), float(distances[place])) for place in places])
    return near


def context(run: Run) -> np.ndarray:
    """The context that a run's learner adds before the first block of the text tower, (num_context, text width).

    Raises:
      UserError: the run's tensors aren't its learner's.
    """
    learner = run.config.learner
    _, learnt, _ = load_learnt(run.folder)
    params = nested(subtree({path: jnp.asarray(array) for path, array in learnt.items()}, "learner"))
    depth, dropout = learner.traced_values()
    try:
        prompts = learner.prompts(params, jnp.asarray(depth), dropout=jnp.asarray(dropout), key=None)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{run.folder / LEARNT_FILE} doesn't hold what its learner learns", "bad-learnt") from error
    assert prompts.text is not None, "a learner that prompts the text tower"
    return np.asarray(prompts.text[0, 0])


def spelt(tokenizer: Tokenizer, token: int) -> str:
    """A token as text, with a hyphen where it is a part of a word; bytes that are no text stay as in the vocabulary."""
    raw = tokenizer.backend.id_to_token(token)
    if raw is None:
        return f"token {token}"
    if raw.startswith("<|"):
        return raw
    text = tokenizer.backend.decode([token], skip_special_tokens=False).strip()
    read = text and text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text
    text = (text if read else raw).removesuffix(END_OF_WORD)
    if getattr(tokenizer.backend.model, "end_of_word_suffix", None) == END_OF_WORD:  # CLIP's
        return text if raw.endswith(END_OF_WORD) else f"{text}-"
    return text if raw.startswith(BLANK) else f"-{text}"
