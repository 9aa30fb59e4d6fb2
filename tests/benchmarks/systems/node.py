"""The Node original, server and client, in the processes of this benchmark.

It is looked for in the folder that OOMPA_NODE_MODULES names, else in node_modules of this folder or one above.
As shipped it negotiates permessage-deflate; with ``deflate=False`` the client does not offer it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

from tests.benchmarks.workloads import Assignment

SCRIPTS = Path(__file__).resolve().parent.parent / "node"


def serve(port: int, deflate: bool = True) -> None:
    """Become the Node server, which compresses if the client offers it."""
    _become_node("server.js", str(port))


def work(assignment: Assignment, deflate: bool = True) -> NoReturn:
    """Become a Node client."""
    _become_node("client.js", assignment.to_json(), json.dumps({"deflate": deflate}))


def missing() -> str | None:
    """Say what keeps it from running here; None if nothing does."""
    if shutil.which("node") is None:
        return "there is no node"
    if _modules() is None:
        return "there is no oompa in a node_modules folder (OOMPA_NODE_MODULES names one)"
    return None


def versions() -> str:
    """Name the versions of Node, oompa and the library below it."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return ", ".join([f"Node {node.strip()}", *(f"{name} {_version(name)}" for name in ("oompa", "ws"))])


def _version(package: str) -> str:
    manifest = (_modules() or SCRIPTS) / package / "package.json"
    return str(json.loads(manifest.read_text())["version"])


def _modules() -> Path | None:
    named = os.environ.get("OOMPA_NODE_MODULES")
    folders = [Path(named)] if named else [folder / "node_modules" for folder in SCRIPTS.parents]
    return next((folder for folder in folders if (folder / "oompa").is_dir()), None)


def _become_node(script: str, *arguments: str) -> NoReturn:
    environment = {**os.environ, "NODE_PATH": str(_modules())}
    os.execvpe("node", ["node", str(SCRIPTS / script), *arguments], environment)
