"""The model that MLflow keeps: this file and a release's folder. `predict(["scan.nii.gz"])` answers with reports.

MLflow runs this file when it loads the model, so nothing is unpickled; sacroleak must be installed there.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from sacroleak.core.nifti import read_nifti
from sacroleak.core.report import to_report
from sacroleak.core.whole import sha256_of
from sacroleak.models.assess import ScanRef, assess
from sacroleak.models.bundle import load_bundle
from sacroleak.models.classifier import load_classifier
from sacroleak.models.limits import shipped_limits
from sacroleak.models.networks import load_segmenter


class ScoringModel(PythonModel):  # type: ignore[misc]  # mlflow is not followed by the type check
    """A release behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Verify the release by its digests and compile its networks."""
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))
        self.segmenter = load_segmenter(self.bundle, threads=len(os.sched_getaffinity(0)))
        self.limits = shipped_limits()
        self.classifier = load_classifier(self.bundle)

    def predict(self, context: Any, model_input: list[str]) -> list[Any]:  # noqa: ARG002 - MLflow's call
        """The report of each NIfTI file, as `report.json` holds it. The n-th scan's `case_id` is `scan-n`."""
        return [self._report(f"scan-{number}", Path(path)) for number, path in enumerate(model_input, start=1)]

    def _report(self, case_id: str, path: Path) -> dict[str, Any]:
        rules = hashlib.sha256(self.limits.model_dump_json().encode()).hexdigest()
        ref = ScanRef(case_id=case_id, input_digest=sha256_of(path), version=version("sacroleak"),
                      bundle=self.bundle.name, bundle_digest=self.bundle.digest, config_digest=rules)
        scan = assess(read_nifti(path), self.segmenter, self.limits, ref, now=datetime.now(UTC),
                      classifier=self.classifier)
        report: dict[str, Any] = to_report(scan.assessment, notes=scan.notes).model_dump(mode="json")
        return report


set_model(ScoringModel())
