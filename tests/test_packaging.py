"""Declarations of the package: its dependencies, its version, and a sentence where a checkout has no links."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import recurra

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = ("kernels", "engine", "connectors", "simulations", "src/recurra")
# distributions whose modules have another name
MODULES = {
    "confluent-kafka": "confluent_kafka",
    "faiss-cpu": "faiss",
    "kafka-python": "kafka",
    "prometheus-client": "prometheus_client",
}


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", requirement)[0] for requirement in requirements}


def _imported() -> set[str]:
    found = set()
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found |= {name.name.split(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"recurra"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    declared = {MODULES.get(name, name) for name in _names(PROJECT["dependencies"])}
    extra = {MODULES.get(name, name) for name in _names(PROJECT["optional-dependencies"]["gpu"])}
    assert _imported() == declared | extra


def test_every_dependency_is_bounded_and_locked() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M))
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in [requirement for group in groups for requirement in group]:
        assert re.search(r">=[0-9.]+,<[0-9.]+", requirement), requirement
    assert {name.lower() for group in groups for name in _names(group)} <= locked
    assert not re.search(r"https?://", (ROOT / "requirements.lock").read_text())


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert importlib.metadata.version("recurra") == recurra.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == recurra.__version__
    assert f"## [{recurra.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_a_checkout_without_links_says_so(tmp_path: Path) -> None:
    package = tmp_path / "recurra"
    package.mkdir()
    shutil.copy(ROOT / "src" / "recurra" / "__init__.py", package)
    for part in ("engine", "kernels", "connectors", "simulations"):
        # as git writes links where it may not make them
        (package / part).write_text(f"../../{part}")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import recurra"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ImportError: this checkout of recurra has no symbolic links" in done.stderr


@pytest.mark.parametrize("folder", [".venv", ".venv-3.13"])
def test_environments_are_no_part_of_the_repository(folder: str) -> None:
    done = subprocess.run(["git", "check-ignore", f"{folder}/x.py"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 128:
        pytest.skip("this is no git checkout")
    # else the linters would read what is installed there
    assert done.returncode == 0


def _commands_of(target: str) -> list[str]:
    makefile = (ROOT / "Makefile").read_text()
    body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert body is not None
    return [line.strip().replace("$(RUN) ", "") for line in body.group(1).splitlines()]


def test_pre_commit_runs_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [entry["repo"] for entry in hooks] == ["local"]
    run = [hook["entry"].replace(".venv/bin/python -m ", "") for hook in hooks[0]["hooks"]]
    assert run == _commands_of("check")


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_files_for_github_are_yaml(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    assert isinstance(content, dict)
    if file.parent.name == "workflows":
        # yaml reads the key `on` as true
        assert content.keys() >= {"name", True, "jobs"}
    if file.parent.name == "ISSUE_TEMPLATE" and file.name != "config.yml":
        assert content.keys() >= {"name", "description", "body"}


def test_the_workflow_runs_what_the_repository_runs_itself() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert any(".ci/run" in step.get("run", "") for step in job["steps"])
    night = yaml.safe_load((ROOT / ".github" / "workflows" / "night.yml").read_text())
    assert night[True]["schedule"]
    assert any("make test-night" in step.get("run", "") for step in night["jobs"]["night"]["steps"])
