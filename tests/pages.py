"""Parses the pages of the documentation: commands, code blocks, links and inline code."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import small

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (small.ROOT / "docs").glob("*.md")))
COMMANDS = ("", "bash")
"""The languages of a fenced block of commands."""
SHOWN = ("text", "csv", "python", "math", "shell", "yaml")
"""The languages of any other fenced block; "shell" and "yaml" are for other machines."""
CELL = "{code-cell} python"
"""A cell of a notebook, which runs when the site is built."""
BETWEEN = ("&&", "&", ";", "|")
"""The separators between two commands of a line."""
FENCE = re.compile(r"^ *```(.*)$")


class Block(NamedTuple):
    """A fenced block: the number of its first line (from 1), its language, its lines, and the line above."""

    line: int
    kind: str
    lines: tuple[str, ...]
    above: str


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
      where: page and line.
      words: the command, split as by a shell.
      environment: the variables that the line sets for the command.
    """

    where: str
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return shlex.join(self.words)


def text(page: str) -> str:
    return (small.ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    start, kind, above, inside = 0, "", "", list[str]()
    for number, line in enumerate(text(page).splitlines(), 1):
        fence = FENCE.match(line)
        if fence and not start:
            start, kind, inside = number + 1, fence[1].strip(), []
        elif fence:
            yield Block(start, kind, tuple(inside), above)
            start, above = 0, ""
        elif start:
            inside.append(line)
        elif line.strip():
            above = line


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    kept, inside = [], False
    for line in text(page).splitlines():
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def commands(page: str) -> Iterator[Command]:
    """The commands of a page's blocks, in order; a line that ends in "\\" continues on the next one."""
    for block in blocks(page):
        if block.kind not in COMMANDS:
            continue
        started = ""
        for number, line in enumerate(block.lines, block.line):
            started += line
            if started.endswith("\\"):
                started = started[:-1]
                continue
            yield from split(f"{page}:{number}", started)
            started = ""


def recipes(page: str) -> Iterator[Command]:
    """The commands of this project in the page's blocks for other machines, with numbers in place of variables."""
    for block in blocks(page):
        if block.kind in ("shell", "yaml"):
            for number, line in enumerate(block.lines, block.line):
                for found in re.findall(r"python -m tunevlseg_jax[^'\"]*", line):
                    yield from split(f"{page}:{number}", re.sub(r"\$\w+", "1", found.replace("$COORDINATOR", "a:1")))


def inline(page: str) -> Iterator[Command]:
    """The commands in a page's prose."""
    for code in codes(page):
        if code.startswith("python -m "):
            yield from split(page, code)


def codes(page: str) -> list[str]:
    """The inline code of a page's prose, one line each."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def split(where: str, line: str) -> Iterator[Command]:
    """The commands of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list[str]()
    for word in [*lexer, ";"]:
        if word not in BETWEEN:
            words.append(word)
        elif words:
            first = next(number for number, each in enumerate(words) if not re.match(r"\w+=", each))
            environment = [tuple(each.split("=", 1)) for each in words[:first]]
            yield Command(where, tuple(words[first:]), tuple((name, value) for name, value in environment))
            words = []


def links(page: str) -> list[str]:
    """The targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: str) -> set[str]:
    """The anchors of a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def written(page: str) -> dict[str, str]:
    """The CSV files that a page shows in full, by the name in inline code on the line above the block."""
    return {
        named[-1]: "\n".join(block.lines) + "\n"
        for block in blocks(page)
        if block.kind == "csv" and (named := re.findall(r"`([^`]+)`", block.above))
    }


def exists(path: str, page: str) -> bool:
    """Whether the path of a link or of inline code exists, relative to the page or to the repository."""
    return (small.ROOT / page).parent.joinpath(path).exists() or Path(small.ROOT, path).exists()


def python(page: str) -> list[str]:
    """The Python blocks of a page."""
    return ["\n".join(block.lines) for block in blocks(page) if block.kind == "python"]


def example_learners() -> dict[str, type]:
    """The learners that docs/extending.md defines, by name."""
    learners = {}
    for block in (block for block in blocks("docs/extending.md") if block.kind == "python"):
        assert len(block.lines) <= 40, "an example of more than 40 lines"
        names: dict = {"__name__": "example"}
        exec(compile("\n".join(block.lines), "docs/extending.md", "exec", dont_inherit=True), names)
        learners |= {name: value for name, value in names.items() if getattr(value, "__module__", "") == "example"}
    return learners
