"""Install Debian's Chromium, and from npm transformers.js and OpenAI's client.

::

    python tests/loaders/set_up_browser.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "browser"
APT = ("apt-get", "--yes", "--no-install-recommends", "--quiet")


def main() -> None:
    """Install what is missing; one line on standard error and status 1 where that cannot be."""
    if not shutil.which("npm"):
        sys.exit("npm is missing: install Node.js 20 or newer, https://nodejs.org")
    if not shutil.which("chromium"):
        if not shutil.which("apt-get") or os.geteuid():
            sys.exit("chromium is missing; on Debian, as root: apt-get install chromium")
        run(*APT, "update")
        run(*APT, "install", "chromium")
    for folder in (EXAMPLE, HERE):
        run("npm", "--prefix", str(folder), "run", "setup")


def run(*command: str) -> None:
    """Run a command, and end with its status if that is not 0."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if status := subprocess.run(command, env=quiet, check=False).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main()
