"""Bundle workflows: anonymization of a folder or manifest, and the benchmark, for ``run_workflow`` and
``create_workflow``.

::

    python -m monai.bundle run_workflow --workflow_name gmia_monai.workflows.AnonymizationWorkflow \\
        --config_file bundle/configs/inference.yaml --input FOLDER --output_dir OUT
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai.bundle import ConfigWorkflow

from gmia_monai.errors import UsageError, coded_cause
from gmia_monai.typing import PathLike

if TYPE_CHECKING:
    from gmia_monai.evaluation.benchmark import BenchmarkOutcome

__all__ = ["AnonymizationWorkflow", "BenchmarkWorkflow", "write_pages"]


class _CodedWorkflow(ConfigWorkflow):
    """A workflow by config files whose coded errors come out as they are, not wrapped in those of the config parser."""

    def __init__(
        self,
        config_file: str | Sequence[str],
        bundle_root: PathLike | None,
        logging_file: str | bool | None,
        workflow_type: str,
        **override: Any,
    ) -> None:
        files = [config_file] if isinstance(config_file, str) else list(config_file)
        for file in files:
            if not Path(file).is_file():
                raise UsageError("GM-U080", "config file not found", got=file, next_step="check --config_file")
        root = Path(files[0]).resolve().parent.parent if bundle_root is None else Path(bundle_root)
        super().__init__(
            config_file=files,
            logging_file=logging_file,
            workflow_type=workflow_type,
            bundle_root=str(root),
            **override,
        )

    def initialize(self) -> Any:
        """Prepares the run."""
        return self._coded(super().initialize)

    def run(self) -> Any:
        """Does what is not done yet.

        Raises:
            GmiaError: any coded error of the package.
        """
        return self._coded(super().run)

    @staticmethod
    def _coded(function: Any) -> Any:
        try:
            return function()
        except Exception as error:
            coded = coded_cause(error)
            if coded is None or coded is error:
                raise
            raise coded from error


class AnonymizationWorkflow(_CodedWorkflow):
    """Anonymizes radiographs by the inference config; research plane, so that what it writes is not released, and no
    DICOM. With ``policy=…`` a folder of studies goes through the release gate instead, as ``gmia anonymize`` does it,
    and :meth:`run` gives the :class:`gmia_monai.release.runner.Outcome`.

    Errors of the package come out as they are, with their code, not wrapped in those of the config parser.

    Args:
        config_file: inference config, and overrides after it.
        bundle_root: folder of the bundle; the parent of the folder of ``config_file`` if None.
        logging_file: logging config; False for none, None for ``logging.conf`` beside ``config_file``.
        workflow_type: ``infer``; there for callers that pass it.
        override: settings of the config, e.g. ``input=…, output_dir=…, seed=…``; ids such as
            ``optimization#margin_cos`` go in as ``**{"optimization#margin_cos": -0.7}``.

    Raises:
        UsageError: ``GM-U080`` where a config file is not there.
    """

    def __init__(
        self,
        config_file: str | Sequence[str] = "bundle/configs/inference.yaml",
        bundle_root: PathLike | None = None,
        logging_file: str | bool | None = None,
        workflow_type: str = "infer",
        **override: Any,
    ) -> None:
        super().__init__(config_file, bundle_root, logging_file, workflow_type, **override)

    def run(self) -> Any:
        """Does what is not done yet; a release, where there is a policy.

        Raises:
            GmiaError: any coded error of the package.
        """
        if self.parser.get("policy") is None or self._coded(lambda: self.parser.get_parsed_content("policy")) is None:
            return super().run()
        [outcome] = self._coded(lambda: self._run_expr("release"))
        return outcome


class BenchmarkWorkflow(_CodedWorkflow):
    """Judges systems by the benchmark config: any of them under any attacks, resumable.

    Args:
        config_file: benchmark config, and profiles after it.
        bundle_root: folder of the bundle; the parent of the folder of ``config_file`` if None.
        logging_file: logging config; False for none, None for ``logging.conf`` beside ``config_file``.
        workflow_type: ``eval``; there for callers that pass it.
        override: settings of the config, e.g. ``only=["gmia_m0"], workers=2``; ids such as ``suite#attacks`` go in as
            ``**{"suite#attacks": ["verification"]}``.

    Raises:
        UsageError: ``GM-U080`` where a config file is not there.
    """

    def __init__(
        self,
        config_file: str | Sequence[str] = "bundle/configs/benchmark.yaml",
        bundle_root: PathLike | None = None,
        logging_file: str | bool | None = None,
        workflow_type: str = "eval",
        **override: Any,
    ) -> None:
        super().__init__(config_file, bundle_root, logging_file, workflow_type, **override)

    @property
    def outcome(self) -> BenchmarkOutcome:
        """How the benchmark came out; runs it where that was not done yet."""
        outcome: BenchmarkOutcome = self._coded(lambda: self.parser.get_parsed_content("outcome"))
        return outcome


def write_pages(results_dir: PathLike, docs_dir: PathLike) -> list[Path]:
    """Writes the pages of a benchmark from its result lines, and renews the figures of a model card beside them.

    Nothing is written where there is no line.

    Args:
        results_dir: folder of ``*.jsonl``.
        docs_dir: folder of the pages.

    Returns:
        the files that were written.
    """
    from gmia_monai.report import model_card, systems
    from gmia_monai.report.benchmark import write_benchmark_pages

    if not any(Path(results_dir).glob("*.jsonl")):
        return []
    written = list(write_benchmark_pages(results_dir, docs_dir))
    page, card = Path(docs_dir) / "systems.md", Path(docs_dir) / "README.md"
    systems.main([str(results_dir), str(page)])
    if card.is_file():
        model_card.main([str(results_dir), str(card)])
    return [*written, page, *([card] if card.is_file() else [])]
