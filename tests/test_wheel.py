"""The wheel: it has every package and nothing at the root, and it runs from a clean environment."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("engine", "kernels", "connectors", "simulations")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tracked files, links included."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.splitlines():
        source = ROOT / name
        if source.is_symlink() or source.is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name, follow_symlinks=False)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder, copy], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_has_all_packages_and_nothing_at_the_root(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")} == {"recurra"}
    tracked = [file for part in PARTS for file in (ROOT / part).rglob("*.py")]
    tracked += (ROOT / "src" / "recurra" / "cli").rglob("*.py")
    inside = {
        f"recurra/{file.relative_to(ROOT / 'src' / 'recurra' if 'src' in file.parts else ROOT)}"
        for file in tracked
        if "src" in file.relative_to(ROOT).parts or file.relative_to(ROOT).parts[0] in PARTS
    }
    assert inside <= set(names)
    assert {"recurra/py.typed", "recurra/connectors/http/page.html"} <= set(names)
    assert not [name for name in names if "test" in name.split("/")[1:2]]


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_it_installs_into_a_clean_environment_and_the_demonstration_runs(wheel: Path, tmp_path: Path) -> None:
    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    lock = ["--constraints", str(ROOT / "requirements.lock")]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *lock, wheel], check=True)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "recurra", "demo", "--exit", "--events", "300", "--port", "0", "--json", "-"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["events"] == 300
