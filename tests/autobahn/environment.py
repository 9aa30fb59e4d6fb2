"""A Python 2.7 with Autobahn|Testsuite in it: the release needs one, and imports nothing on Python 3."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Optional

#: Where the environment is kept between runs; git, flake8 and isort pass over the name.
ENVIRONMENT = Path(__file__).parent / ".venv"

#: The release and its dependencies, in the last versions that install on Python 2.7.
REQUIREMENTS = Path(__file__).parent / "requirements.txt"

#: The last virtualenv that makes environments for Python 2.7.
VIRTUALENV = "virtualenv<20.22"


def find_python27() -> Optional[str]:
    """The path of a Python 2.7 on PATH or among pyenv's, None where there is none."""
    return next(filter(_is_python27, _candidates()), None)


def _candidates() -> Iterator[str]:
    for name in ("python2.7", "python2"):
        if found := shutil.which(name):
            yield found
    pyenv = shutil.which("pyenv")
    root = os.environ.get("PYENV_ROOT") or (_output(pyenv, "root") if pyenv else "") or "~/.pyenv"
    yield from map(str, sorted(Path(root).expanduser().glob("versions/2.7*/bin/python2.7"), reverse=True))


def _is_python27(path: str) -> bool:
    return _output(path, "-c", "import sys; print(sys.version_info[:2] == (2, 7))") == "True"


def _output(*command: str) -> str:
    """What a command prints; nothing when it fails, as a shim of pyenv does for a version that is not chosen."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def make(python27: str) -> Path:
    """Install what is not there yet.

    Returns:
        The path of ``wstest``.

    Raises:
        RuntimeError: Something cannot be installed.
    """
    wstest, done = ENVIRONMENT / "bin" / "wstest", ENVIRONMENT / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if done.exists() and done.read_text() == wanted and wstest.exists():
        return wstest
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    maker = ENVIRONMENT / "maker"
    _run(sys.executable, "-m", "venv", str(maker))
    _run(str(maker / "bin" / "python"), "-m", "pip", "install", "--quiet", VIRTUALENV)
    _run(str(maker / "bin" / "virtualenv"), "--quiet", "--python", python27, str(ENVIRONMENT))
    _run(str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS))
    done.write_text(wanted)
    return wstest


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")
