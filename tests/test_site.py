"""Tests of the documentation's site: it builds without a warning, and holds pages, docstrings and outputs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest
import small

pytestmark = pytest.mark.xdist_group("site")  # they share one build
DOCS = small.ROOT / "docs"


def test_the_index_has_every_page():
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in pages.links("docs/README.md")}
    there = {path for kind in ("md", "rst", "ipynb") for path in DOCS.rglob(f"*.{kind}")} - {DOCS / "README.md"}
    assert there <= listed, there - listed


def test_notebooks_are_stored_without_outputs():
    for path in DOCS.rglob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]), path


def test_sizes_of_learners_are_those_of_their_page():
    """The table of docs/which_learner.md, which leaves out CRIS and SAM 3."""
    row = r"^\| ([\w -]+) \|[^|]*\|[^|]*\|[^|]*\| ([\d,]+) \|"
    sizes = re.findall(row, pages.text("docs/learners.md"), re.MULTILINE)
    known = {name.replace("-", " "): size for name, size in sizes}
    page = pages.text("docs/which_learner.md").partition("## Sizes")[2].partition("## ")[0]
    rows = re.findall(r"^\| ([\w ,-]+) \| ([\d,]+) \|", page, re.MULTILINE)
    shown = {name.replace("-", " "): size for names, size in rows for name in names.split(", ")}
    assert shown == {name: size for name, size in known.items() if name != "upsampler"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CONTRIBUTING.md says."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "cache", "-c", "docs"]
    paths = {"PYTHONPATH": str(small.ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, ".", folder / "html"], cwd=small.ROOT, env=os.environ | paths, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def text(site: Path, page: str) -> str:
    """A page's words, without markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", (site / page).read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_landing_page(site):
    page = (site / "docs" / "README.html").read_text(encoding="utf-8")
    assert "Prompt tuning for vision-language segmentation models" in page
    assert all(f"_images/{name}.png" in page for name in ("ultrasound", "cases", "desktop"))
    assert "docs/README.html" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_sidebar_has_the_sections_of_the_index(site):
    page = text(site, "docs/README.html")
    sections = re.findall(r"^## (.+)$", pages.text("docs/README.md"), re.MULTILINE)
    assert len(sections) > 5 and all(page.count(section) >= 2 for section in sections)


@pytest.mark.slow
def test_the_reference_has_docstrings(site):
    page = text(site, "docs/api.html")
    for words in ("Loads a trained run.", "Trains a run in config.workdir", "Visual Prompt Tuning: new learnt tokens"):
        assert words in page, words


@pytest.mark.slow
def test_the_glossary_has_terms(site):
    page = (site / "docs" / "glossary.html").read_text(encoding="utf-8")
    assert 'id="term-learner"' in page and 'id="term-zero-shot"' in page


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), [("own_arrays", "validation Dice"), ("own_folder", "cells in data/cells")])
def test_notebooks_have_outputs(site, name, words):
    page = (site / "docs" / f"{name}.html").read_text(encoding="utf-8")
    assert 'class="output' in page and f"{words}" in text(site, f"docs/{name}.html")
    assert re.search(r'src="\.\./_images/\w{20,}\.png"', page), "no figure"
