"""One release, whole: what `gmia anonymize`, `inference.yaml` with a policy and `AnonymizationWorkflow` do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from gmia_monai.dicom.pseudonyms import create_key, default_key_path, load_key
from gmia_monai.errors import ExitCode
from gmia_monai.release.places import Places, places_of
from gmia_monai.release.policy import Policy, load_policy
from gmia_monai.release.runner import Outcome, Progress, Runner
from gmia_monai.release.workers import Alone, Several
from gmia_monai.typing import PathLike

__all__ = ["exit_code_of", "project_key", "release_and_leave", "release_folder"]

_log = logging.getLogger(__name__)
_MAX_WORKERS = 8


def project_key(places: Places, key_file: PathLike | None, tell: Callable[[str], object] = _log.warning) -> bytes:
    """The key of a release; one is made beside the output, and said, where none is named and none is there.

    Raises:
        GmiaError: as :func:`gmia_monai.dicom.pseudonyms.load_key`.
    """
    path = Path(key_file) if key_file else default_key_path(places.output)
    if not key_file and not path.exists():
        create_key(path)
        tell(f"{path.name}: new project key beside the output; keep it secret, and keep a copy")
    return load_key(path)


def release_folder(
    source: PathLike,
    output: PathLike,
    policy: Policy | PathLike | Mapping[str, Any] | None = None,
    models_dir: PathLike = "bundle/models",
    key_file: PathLike | None = None,
    device: str = "cpu",
    workers: int = 1,
    watch: Callable[[Progress], None] = lambda progress: None,
    report: Callable[[Path, bytes], object] = lambda output, key: None,
) -> Outcome:
    """Releases a folder of studies through the gate, or goes on with it.

    Args:
        source: folder of the studies; it is never written to.
        output: folder of the release; ``<output>.work`` is made beside it.
        policy: what may leave, and how; a path, settings, or None for the defaults.
        models_dir: recorded weights.
        key_file: project key; None: ``<output>.key``, made where absent.
        device: where networks run.
        workers: processes; 0: one a processor, at most eight, or one where a GPU does the work.
        watch: is told of progress.
        report: makes the report of the output folder with the key, when all is done:
            :func:`gmia_monai.report.release.release_report`.

    Raises:
        GmiaError: as :func:`gmia_monai.release.policy.load_policy`, :func:`gmia_monai.release.places.places_of`,
            :func:`gmia_monai.release.opening.open_parts` and :meth:`gmia_monai.release.runner.Runner.run`.
    """
    from gmia_monai.release.opening import Opening

    rules = policy if isinstance(policy, Policy) else load_policy(policy)
    places = places_of(source, output)
    key = project_key(places, key_file)
    opening = Opening(key, rules, places, Path(models_dir), device)
    workshop = opening()
    n = workers or (1 if device != "cpu" else min(_MAX_WORKERS, len(os.sched_getaffinity(0))))
    try:
        if n == 1:
            outcome = Runner(workshop, Alone(workshop), watch).run()
        else:
            with Several(opening, n) as several:
                outcome = Runner(workshop, several, watch).run()
    finally:
        workshop.close()
    report(places.output, key)
    return outcome


def exit_code_of(ends: Mapping[str, int]) -> ExitCode:
    """Whether none was held or rejected, of how many there are of each end."""
    return ExitCode.SOME_REJECTED if ends.get("held") or ends.get("rejected") else ExitCode.OK


def release_and_leave(release: Callable[[], Outcome]) -> NoReturn:
    """Releases, says what came out, and ends the program with its exit code: nothing else of a config is run.

    Raises:
        SystemExit: always.
    """
    outcome = release()
    for code, number in outcome.codes.items():
        _log.info("%d %s", number, code)
    _log.info("%s", ", ".join(f"{number} {state}" for state, number in outcome.ends.items()))
    raise SystemExit(int(exit_code_of(outcome.ends)))
