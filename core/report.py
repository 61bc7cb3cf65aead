"""`report.json`: the answer for one scan as other programs read it. The keys are a contract; others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from sacroleak.core.assessment import Assessment, Finding, Leak
from sacroleak.core.errors import InputError
from sacroleak.core.structures import Side, Site

STATEMENT = "For research only. Not a medical device. Not for diagnosis or treatment."
RULE_SCORE = "Probabilities are scores of written rules. They are not calibrated frequencies."
CALIBRATED = ("Probabilities are those of rules and classifier together, calibrated on simulated scans, not on "
              "patients. A leak that was not segmented has none.")
REVIEW_RULE = "needs_review"

Share = float
ML_DECIMALS, SCORE_DECIMALS, MM_DECIMALS = 4, 4, 2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CementReport(_Strict):
    """Volumes in mL; `total_ml` is inside the sacrum and leaked from it together."""

    total_ml: float = Field(ge=0)
    intraosseous_ml: float = Field(ge=0)
    leaked_ml: float = Field(ge=0)


class LeakSummary(_Strict):
    """Whether any cement leaked."""

    present: bool
    probability: Share = Field(ge=0, le=1)


class SiteReport(_Strict):
    """One site over the whole scan."""

    present: bool
    probability: Share = Field(ge=0, le=1)
    volume_ml: float = Field(ge=0)


class FindingReport(_Strict):
    """One rule that fired, or with rule `needs_review` one reason to look again (its value and limit mean nothing)."""

    rule: str
    value: float
    unit: str
    limit: float
    sentence: str


class LeakReport(_Strict):
    """One leak part; `number` is its value in `leaks.nii.gz`, `centroid_lps_mm` is in the patient's LPS frame."""

    number: int = Field(ge=1)
    site: Site
    probabilities: dict[Site, Share]
    volume_ml: float = Field(ge=0)
    side: Side
    centroid_lps_mm: tuple[float, float, float]
    needs_review: bool
    findings: list[FindingReport]


class Report(_Strict):
    """The whole answer. `quality` and `provenance` are open: programs must not depend on a key being there."""

    case_id: str
    status: Literal["assessed", "not_assessable"]
    reasons: list[str]
    cement: CementReport
    leak: LeakSummary
    sites: dict[Site, SiteReport]
    leaks: list[LeakReport]
    quality: dict[str, JsonValue]
    provenance: dict[str, JsonValue]

    @model_validator(mode="after")
    def _all_sites(self) -> Report:
        missing = [site.value for site in Site if site not in self.sites]
        if missing:
            raise ValueError(f"sites: missing {', '.join(missing)}")
        return self

    @property
    def needs_review(self) -> bool:
        """True if the scan has no answer, or has reasons to be looked at, or any of its leaks is not decided."""
        return self.status != "assessed" or bool(self.reasons) or any(leak.needs_review for leak in self.leaks)

    @property
    def notes(self) -> list[str]:
        """Sentences on the whole scan."""
        notes = self.quality.get("notes", [])
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def to_json(self) -> str:
        """Two-space indented JSON that ends with a newline; NaN and infinity cannot occur in it."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_report(assessment: Assessment, *, notes: tuple[str, ...] = ()) -> Report:
    """An Assessment as `report.json` holds it, rounded to what the numbers can carry."""
    a = assessment
    sites = {site: SiteReport(present=s.present, probability=_score(s.probability), volume_ml=_ml(s.volume_ml))
             for site, s in a.sites.items()}
    return Report(
        case_id=a.case_id, status=a.status, reasons=list(a.reasons),
        cement=CementReport(total_ml=_ml(a.cement.total_ml), intraosseous_ml=_ml(a.cement.intraosseous_ml),
                            leaked_ml=_ml(a.cement.leaked_ml)),
        leak=LeakSummary(present=a.leak_present, probability=_score(a.leak_probability)),
        sites=sites, leaks=[_leak(leak) for leak in a.leaks], quality=_quality(a, notes), provenance=_provenance(a),
    )


def read_report(path: Path) -> Report:
    """Read `report.json`. Raises InputError if it is not one; the message names the folder and the first fault."""
    what = f"report of {path.parent.name}"
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{what}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{what}: {where}: {first['msg']}") from error


def _leak(leak: Leak) -> LeakReport:
    x, y, z = (round(float(v), MM_DECIMALS) for v in leak.centroid_lps_mm)
    reasons = [FindingReport(rule=REVIEW_RULE, value=0.0, unit="", limit=0.0, sentence=reason)
               for reason in leak.review_reasons]
    return LeakReport(
        number=leak.number, site=leak.site, volume_ml=_ml(leak.volume_ml), side=leak.side, centroid_lps_mm=(x, y, z),
        probabilities={site: _score(leak.probabilities.get(site, 0.0)) for site in Site},
        needs_review=leak.needs_review, findings=[_finding(f) for f in leak.findings] + reasons,
    )


def _finding(finding: Finding) -> FindingReport:
    return FindingReport(rule=finding.rule, value=round(float(finding.value), 4), unit=finding.unit,
                         limit=round(float(finding.limit), 4), sentence=finding.sentence)


def _quality(a: Assessment, notes: tuple[str, ...]) -> dict[str, JsonValue]:
    q = a.quality
    return {"usable": q.usable, "spacing_mm": [round(float(s), 4) for s in q.spacing_mm],
            "sacrum_coverage": round(float(q.sacrum_coverage), 3), "metal_ml": _ml(q.metal_ml),
            "cement_elsewhere_ml": _ml(a.cement.elsewhere_ml), "saturated": q.saturated, "reasons": list(q.reasons),
            "notes": list(notes)}


def _provenance(a: Assessment) -> dict[str, JsonValue]:
    p = a.provenance
    return {"statement": STATEMENT, "probabilities": CALIBRATED if p.calibrated else RULE_SCORE,
            "version": p.version, "bundle": p.bundle, "bundle_digest": p.bundle_digest,
            "config_digest": p.config_digest, "input_digest": p.input_digest,
            **({"needles_digest": p.needles_digest} if p.needles_digest else {}),
            "created": p.created.isoformat(timespec="seconds")}


def _ml(value: float) -> float:
    return round(max(float(value), 0.0), ML_DECIMALS)


def _score(value: float) -> float:
    return round(min(max(float(value), 0.0), 1.0), SCORE_DECIMALS)
