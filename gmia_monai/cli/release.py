"""``gmia check``, ``anonymize``, ``verify`` and ``report``: the release plane, for data stewards."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from gmia_monai.cli.folders import models_folder
from gmia_monai.cli.progress import Shown
from gmia_monai.dicom.pseudonyms import KEY_BYTES, default_key_path, load_key
from gmia_monai.errors import INTERRUPTED, ExitCode
from gmia_monai.release.folder import exit_code_of, project_key, release_folder
from gmia_monai.release.places import Places, check_source, input_files, places_of
from gmia_monai.release.policy import Policy, load_policy
from gmia_monai.release.reasons import reason
from gmia_monai.release.survey import Found, Survey, look_at, seconds_each, survey_with

if TYPE_CHECKING:
    from gmia_monai.dicom.decode import Decoded
    from gmia_monai.release.instance import Instance
    from gmia_monai.release.runner import Progress
    from gmia_monai.release.verify_pixels import PixelFindings

__all__ = ["anonymize", "check", "report", "verify"]

_In = Annotated[Path, typer.Argument(metavar="IN", help="Folder of the studies; it is never written to.")]
_PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="What may leave, and how (`gmia policy explain`); careful defaults.")
]
_Names = Annotated[bool, typer.Option("--show-names", help="Print paths of the input as well; they may name patients.")]
_TIMED = 16


def check(source: _In, policy_file: _PolicyFile = None, show_names: _Names = False) -> None:
    """Say what is in a folder, from the headers; nothing is written, and no network looks at it.

    Exit code 1: some files would be held or rejected.
    """
    from gmia_monai.dicom.decoder import Decoder

    policy = load_policy(policy_file)
    check_source(source)
    paths = list(input_files(source))
    with Decoder(float(policy.intake.decode_seconds), policy.intake.decode_memory_mib) as decoder, Shown() as shown:
        look = partial(look_at, source, intake=policy.intake, decoder=decoder)
        found = survey_with(paths, look, _counted(shown, "reading", len(paths)))
    _print_survey(found, show_names)
    typer.echo("Text in the pixels and images unlike radiographs are looked for by `gmia anonymize --dry-run`.")
    raise typer.Exit(int(exit_code_of(found.states)))


def anonymize(
    source: _In,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the release; OUT.work is made beside it.")],
    policy_file: _PolicyFile = None,
    key_file: Annotated[
        Path | None, typer.Option("--key", help="Project key (`gmia key new`); OUT.key by default, made if missing.")
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Recorded weights; the bundle's by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: say what would become of each file and each element.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0: one a processor, at most eight.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    show_names: _Names = False,
) -> None:
    """Anonymize a folder of chest radiographs: pixels and headers; what does not pass every check is held.

    The same command goes on where an interrupted one stopped. Exit codes: 0 all released, 1 some held or rejected, 2 a
    path or setting that cannot be used, 3 something is not what was recorded, 4 disk or memory, 130 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    policy, places, models = load_policy(policy_file), places_of(source, output), models_folder(models_dir)
    if dry_run:
        _preview(policy, places, models, key_file, device, show_names)
        return
    project_key(places, key_file, partial(typer.echo, err=True))
    _release(policy, places, models, key_file, device, workers)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A release, or any other folder of DICOM files.")],
    key_file: Annotated[
        Path | None, typer.Option("--key", help="Project key; OUT.key where it is there. Checks the ledger's chain.")
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Recorded weights; the bundle's by default.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave the scores of the pixels out, which take networks.")
    ] = False,
    show_names: _Names = False,
) -> None:
    """Look again at a release: chain of the ledger, every hash, every header, by other rules than those that made it,
    and every score of the pixels.

    Exit code 3: something is wrong.
    """
    from gmia_monai.release.verify import verify_folder

    key = _known_key(folder, key_file)
    with Shown() as shown:
        found = verify_folder(folder, key, lambda done, total: shown.tell("verifying", done, total), show_names)
        if found.n_released and not quick:
            pixels = _pixels(folder, models_folder(models_dir), shown)
            found.problems += pixels.problems
            sources = f"{pixels.n_identity} of them with their sources, for identity and drift"
            typer.echo(f"scores of {pixels.n_images} images measured again, {sources}")
    for problem in found.problems:
        typer.echo(problem)
    chain = {True: "checked with the key", False: "not checked with the key, so that it may have been written anew"}
    if found.n_released is None:
        typer.echo(f"{found.n_files} files, no ledger: headers alone were looked at")
    else:
        typer.echo(f"{found.n_files} files, {found.n_released} released; chain of the ledger {chain[found.keyed]}")
    typer.echo("nothing wrong found" if found.good else f"{len(found.problems)} problems")
    raise typer.Exit(int(ExitCode.OK if found.good else ExitCode.INTEGRITY))


def report(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a release.")],
    key_file: Annotated[
        Path | None, typer.Option("--key", help="Project key; OUT.key where it is there. Checks the ledger's chain.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing: print the report as JSON.")] = False,
) -> None:
    """Write the report of a release, a page and the same as JSON, from its ledger."""
    from gmia_monai.report.release import release_facts, release_report

    key = _known_key(folder, key_file)
    if dry_run:
        typer.echo(json.dumps(release_facts(folder, key).to_json(), indent=1, sort_keys=True))
        return
    typer.echo(f"{release_report(folder, key)}: the report")


# -- parts ------------------------------------------------------------------------------------------------------------
def _pixels(folder: Path, models: Path, shown: Shown) -> PixelFindings:
    from gmia_monai.dicom.text import TextDetector
    from gmia_monai.release.verify_pixels import verify_pixels
    from gmia_monai.release.watching import NetworkWatch

    policy = load_policy(folder / "policy.json") if (folder / "policy.json").is_file() else Policy()
    detector = TextDetector(tuple(policy.text.markers))
    _ = detector.path
    watch = NetworkWatch.from_weights(models)
    return verify_pixels(folder, watch, detector, lambda done, total: shown.tell("measuring", done, total))


def _known_key(folder: Path, key_file: Path | None) -> bytes | None:
    default = default_key_path(folder)
    chosen = key_file or (default if default.is_file() else None)
    return None if chosen is None else load_key(chosen)


def _release(policy: Policy, places: Places, models: Path, key_file: Path | None, device: str, workers: int) -> None:
    from gmia_monai.report.release import release_report

    with Shown() as shown:

        def watch(progress: Progress) -> None:
            if progress.stage == "done":  # what follows says so
                return
            counts = ", ".join(f"{progress.ends[state]} {state}" for state in ("released", "held", "rejected"))
            shown.tell(progress.stage, progress.done, progress.total, counts)

        try:
            outcome = release_folder(
                places.source, places.output, policy, models, key_file, device, workers, watch, release_report
            )
        except KeyboardInterrupt:
            typer.echo(f"\n{INTERRUPTED}", err=True)
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    for code, number in outcome.codes.items():
        typer.echo(f"{number:6d}  {code}  {reason(code)}")
    typer.echo(", ".join(f"{number} {state}" for state, number in outcome.ends.items()))
    typer.echo(f"{places.output.name}/ledger.jsonl: head {outcome.head}")
    typer.echo(f"{places.output / 'report.html'}: the report")
    if any((places.work / "held").iterdir()):
        typer.echo(f"held images stand in {places.work.name}/held; nobody but you can read them")
    raise typer.Exit(int(exit_code_of(outcome.ends)))


def _preview(
    policy: Policy, places: Places, models: Path, key_file: Path | None, device: str, show_names: bool
) -> None:
    from gmia_monai.release.opening import Opening

    # Without a key, names of a dry run are those of no release.
    known = key_file or default_key_path(places.output)
    key = load_key(known) if key_file or known.exists() else bytes(KEY_BYTES)
    workshop = Opening(key, policy, places, models, device)()
    images: list[np.ndarray] = []

    def look(path: str) -> tuple[Instance, Decoded | None]:
        instance, decoded = workshop.examine(path)
        if instance.image is not None and len(images) < _TIMED:
            images.append(instance.image)
        return instance, decoded

    paths = list(input_files(places.source))
    began = time.monotonic()
    try:
        with Shown() as shown:
            found = survey_with(paths, look, _counted(shown, "reading", len(paths)))
        reading = time.monotonic() - began
        seconds = seconds_each(workshop.parts.redraw, images)
    finally:
        workshop.close()
    _print_survey(found, show_names)
    for tag, number in found.tags.items():
        profile = f"; Basic Profile: {tag.profile}" if tag.profile else ""
        typer.echo(f"({tag.tag >> 16:04x},{tag.tag & 0xFFFF:04x}) {tag.name}: {tag.action} in {number}{profile}")
    made = found.states["taken"]
    typer.echo(
        f"about {_duration(reading + seconds * made)} on one worker ({seconds:.2f} s an image), at most "
        f"{found.bytes_released / 2**20:.1f} MiB; checks of the new images come on top. Nothing was written."
    )
    raise typer.Exit(int(exit_code_of(found.states)))


def _counted(shown: Shown, stage: str, total: int) -> Callable[[Found], None]:
    done = 0

    def count(found: Found) -> None:
        nonlocal done
        done += 1
        shown.tell(stage, done, total)

    return count


def _print_survey(found: Survey, show_names: bool) -> None:
    for number, file in enumerate(found.files):
        if show_names or file.state != "taken":
            name = f"  {file.path!r}" if show_names else ""
            typer.echo(f"file {number + 1}: {file.state}{_because(file.codes)}{name}")
    for name, title in (("kind", "kinds"), ("view", "views"), ("bits", "bits")):
        counts = {key or "not said": number for key, number in found.count(name).items()}
        if counts:
            typer.echo(f"{title}: " + ", ".join(f"{number} {key}" for key, number in counts.items()))
    for code, number in found.codes.items():
        typer.echo(f"{number:6d}  {code}  {reason(code)}")
    states = ", ".join(f"{number} {state}" for state, number in found.states.items())
    typer.echo(f"{len(found.files)} files of {found.patients} patients and {found.studies} studies: {states}")


def _because(codes: tuple[str, ...]) -> str:
    return f" ({', '.join(codes)})" if codes else ""


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
