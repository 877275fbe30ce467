"""The site builds without a warning, pages that are made from the code are current, and links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
SOURCES = ("engine", "kernels", "connectors", "simulations", "src", "tests", "tools", "examples")
ALONE = ("Makefile", "Dockerfile", "compose.yaml", ".ci/run")


def _sources() -> Iterator[Path]:
    yield from (ROOT / name for name in ALONE)
    for folder in SOURCES:
        yield from (path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recurra_tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_made_from_the_code_are_current() -> None:
    for name, text in _tool("reference").pages().items():
        assert (REFERENCE / name).read_text() == text, f"docs/reference/{name} is not current: run `make docs`"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    # without npm on the path nothing is fetched for the diagrams
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={"PATH": "/nowhere", "NO_MKDOCS_2_WARNING": "1", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_environment_variables_are_on_their_page() -> None:
    used = {name for path in _sources() for name in re.findall(r"\bRECURRA_[A-Z][A-Z_]*[A-Z]", path.read_text())}
    shown = set(re.findall(r"\bRECURRA_[A-Z][A-Z_]*[A-Z]", (REFERENCE / "environment.md").read_text()))
    assert shown == used


def test_metrics_that_are_named_exist() -> None:
    known = set(re.findall(r"`(recurra_\w+)`", (REFERENCE / "metrics.md").read_text()))
    for page in (ROOT / "docs").rglob("*.md"):
        for name in re.findall(r"\brecurra_[a-z_]+", page.read_text()):
            assert re.sub(r"_(bucket|sum|count|created)$", "", name) in known, f"{page.name}: {name}"


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_glossary_has_a_line_a_term() -> None:
    lines = (REFERENCE / "glossary.md").read_text().splitlines()
    assert len(lines) <= 40


def test_documents_name_no_path_of_a_machine() -> None:
    # homes, and the folder that this checkout lies in
    machine = re.compile(rf"\.\./shared|/home/|/root/|(?<![:\w.-]){re.escape(f'{ROOT.parent}/')}")
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert not machine.search(page.read_text()), page.name
