"""Tests of sizes: a file of the package fits a few screens, and a function one."""

import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import small

FILES = sorted((small.ROOT / "tunevlseg_jax").rglob("*.py"))
MEDIAN_FILE_LINES = 130
FUNCTION_LINES = 45
"""Without docstrings, comments and blank lines."""
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file, methods and inner functions included, and its lines of code."""
    source = path.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = code & set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node, clean=False) is not None:
                lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            yield node.name, len(lines)


def test_files_are_short():
    assert statistics.median(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= MEDIAN_FILE_LINES


def test_functions_are_short():
    long = [
        f"{path.relative_to(small.ROOT)}: {name} has {lines} lines of code"
        for path in FILES
        for name, lines in functions(path)
        if lines > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)
