"""The whole command with toy networks, as a process of its own: what users type, and every byte that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["BODY", "gmia"]

# The toy parts stand in for the networks; everything else is the command as it is. ``--debug`` lets all loggers speak.
BODY = """
import logging, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from types import SimpleNamespace
from toy_release import KEY, Watch, open_workshop
import gmia_monai.cli.release as release
from gmia_monai.dicom import pseudonyms
from gmia_monai.release import opening
pseudonyms.secrets = SimpleNamespace(token_hex=lambda n: KEY.hex())  # others draw other faces, some of them alike
release.models_folder = lambda given: Path("models")
opening.Opening.__call__ = lambda self: open_workshop(
    self.places.source, self.places.output, self.policy, None, self.key)
from gmia_monai.release.watching import NetworkWatch
from gmia_monai.dicom.text import TextDetector
TextDetector.path, TextDetector.__call__ = "tesseract", lambda self, image: []
NetworkWatch.from_weights = classmethod(lambda cls, *given: Watch())
{before}
if "--debug" in sys.argv:
    sys.argv.remove("--debug")
    logging.basicConfig(level=logging.DEBUG)
from gmia_monai.cli.main import main
main()
"""


def gmia(*arguments: str, cwd: Path, before: str = "") -> tuple[int, bytes]:
    """Runs ``gmia`` with toy networks; exit code, and standard and error output.

    Args:
        arguments: of the command.
        cwd: working directory; temporary files go into its ``tmp``.
        before: Python that runs first.
    """
    (cwd / "tmp").mkdir(exist_ok=True)
    code = BODY.format(tests=str(Path(__file__).parents[1]), before=before)
    environment = os.environ | {"TMPDIR": str(cwd / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, capture_output=True, check=False, env=environment, timeout=1800,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
