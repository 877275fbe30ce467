"""Hook of mkdocs: the script that draws the diagrams comes with the site, not from another host.

The file is taken once from the npm package of Mermaid, of the release that the theme asks for, and kept under
``build/docs``. Without npm the theme loads it from its usual place when a page with a diagram is read.
"""

import hashlib
import logging
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

__all__ = ["on_config", "on_files"]

ROOT = Path(__file__).resolve().parents[1]
RELEASE = "11.12.0"
SCRIPT = ROOT / "build" / "docs" / f"mermaid-{RELEASE}.min.js"
SHA256 = "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b"
URI = "assets/mermaid.min.js"

_log = logging.getLogger("mkdocs.hooks.mermaid")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the script to the pages, if it can be had."""
    if not SCRIPT.exists():
        _fetch()
    if SCRIPT.exists():
        config.extra_javascript.append(URI)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the script to the files of the site."""
    if SCRIPT.exists():
        files.append(File.generated(config, URI, abs_src_path=str(SCRIPT)))
    return files


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        _log.info("without npm the diagrams need a network when they are read")
        return
    SCRIPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRIPT.parent) as folder:
        packed = subprocess.run(
            [npm, "pack", f"mermaid@{RELEASE}", "--silent"], cwd=folder, capture_output=True, text=True, check=False
        )
        if packed.returncode != 0:
            _log.info(f"npm does not give the diagrams' script: {packed.stderr.strip()}")
            return
        with tarfile.open(Path(folder) / packed.stdout.strip()) as archive:
            member = archive.extractfile("package/dist/mermaid.min.js")
            assert member is not None
            text = member.read()
    found = hashlib.sha256(text).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"mermaid.min.js of release {RELEASE} has the SHA-256 {found}, expected {SHA256}")
    SCRIPT.write_bytes(text)
