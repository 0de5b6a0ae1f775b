"""The documentation's site: `python -m sphinx -W -c docs . build/site`, which CONTRIBUTING.md explains.

The source folder is the repository's root, so that a link between any two of its pages is the same here and on GitHub.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.highlighting import lexer_classes

from tunevlseg_jax import __version__

project = "tunevlseg_jax"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "docs/README"
include_patterns = ["docs/**", "README.md", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "data", "runs", "checkpoints", "tests"]

html_theme = "furo"
html_title = project

highlight_language = "bash"
"""Of the blocks without a language, which hold commands."""
myst_enable_extensions = ["attrs_block", "deflist", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_output_stderr = "remove"
"""A warning of tqdm, which asks for ipywidgets."""

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "code"
"""Of single backticks in docstrings."""


def add_sidebar(app: Sphinx, name: str, source: list[str]) -> None:
    """Lists the pages that the index links to in the sidebar, by the index's sections."""
    if name != root_doc:
        return
    listed = set[str]()
    for section in source[0].split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        links = re.findall(r"\[([^]]+)\]\(([\w./-]+\.(?:md|rst|ipynb))\)", body)
        pages = [f"{text} <{path}>" for text, path in links if path not in listed]
        listed.update(path for _, path in links)
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```", ""])


def add_start(app: Sphinx, error: Exception | None) -> None:
    """Writes the site's index.html, which leads to the index."""
    if error is None and app.builder.format == "html":
        page = app.builder.get_target_uri(root_doc)
        start = f'<!doctype html><meta http-equiv="refresh" content="0; url={page}"><a href="{page}">{project}</a>\n'
        Path(app.outdir, "index.html").write_text(start, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Joins these functions to the build."""
    lexer_classes["csv"] = lexer_classes["none"]
    app.connect("source-read", add_sidebar)
    app.connect("build-finished", add_start)
