"""Stage: measure the released model on scans of another maker; writes metrics/plain.json and the results page.

    python -m sacroleak.training.evaluate_plain
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from sacroleak.core.config import load_config
from sacroleak.core.errors import InputError, NotAssessableError
from sacroleak.core.structures import Site
from sacroleak.models.attribution import attribute
from sacroleak.models.bundle import Bundle, default_bundle, load_bundle
from sacroleak.models.label_grids import on_whole
from sacroleak.models.limits import shipped_limits
from sacroleak.models.segmentation import Segmentation
from sacroleak.training.circumstances import circumstances
from sacroleak.training.evaluate import How
from sacroleak.training.intervals import Bootstrap, Figure, mean_of, wilson
from sacroleak.training.manifests import splits_of
from sacroleak.training.measures import dice, match_leaks
from sacroleak.training.metrics_files import note_about, write_metrics
from sacroleak.training.plain_scans import plain_case
from sacroleak.training.plain_troubles import TROUBLES
from sacroleak.training.processes import as_they_end
from sacroleak.training.results_page import BY_TROUBLE, write_page
from sacroleak.training.scored_scans import classifier_of, followed, opened_release
from sacroleak.training.seen_cases import kept_segmentation, segmentation_key
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import Case

RENDERED, IN_REAL_CT, IN_TROUBLE = "rendered", "real_ct", "in_trouble"
STREAMS = {RENDERED: 0, IN_REAL_CT: 1, IN_TROUBLE: 2}
"""Joined to the seed, so that no kind's scans are another's."""


class PlainConfig(BaseModel):
    """`configs/plain.yaml`. `in_trouble`: scans with each of TROUBLES, rendered and in a real CT in turn.
    `match_share`: of a leak's voxels that must be covered for it to be found. `least_ml`: leaks below it count neither
    as found nor as missed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int
    rendered: int = Field(ge=1)
    in_real_ct: int = Field(ge=0)
    in_trouble: int = Field(ge=0)
    match_share: float = Field(gt=0, le=1)
    least_ml: float = Field(ge=0)
    resamples: int = Field(ge=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a process is told about one scan; `kept`: where it keeps what the networks see."""

    name: str
    kind: str
    bones: Path
    seed: tuple[int, int]
    trouble: str | None
    bundle: Path
    kept: Path
    match_share: float
    least_ml: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainResult:
    """One scan. `leaks`: site, and as what it was found, of each true leak that counts; `false`: found leaks that lie
    on none; `cement_dice` is None if the scan was not judged.
    """

    kind: str
    trouble: str | None
    true_sites: tuple[Site, ...]
    found_sites: tuple[Site, ...]
    leaks: tuple[tuple[Site, Site | None], ...]
    false: int
    cement_dice: float | None
    digest: str

    @property
    def silent(self) -> bool:
        """Whether it was judged, and no leak reported."""
        return self.cement_dice is not None and not self.found_sites

    @property
    def exact(self) -> bool:
        """Whether it was judged, and exactly the true sites reported."""
        return self.cement_dice is not None and self.found_sites == self.true_sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What a run reads, `anatomies` and the `manifest` that says who is held out, and where it writes."""

    anatomies: Path
    manifest: Path
    kept: Path
    metrics: Path


def main(config: PlainConfig, *, bundle: Bundle, places: Places, now: datetime,
         how: How | None = None) -> list[PlainResult]:
    """Make and score the scans, write `plain.json` and `about.json`. What the networks saw is kept for the next run.

    Raises InputError without the bones of a patient held out of training.
    """
    how = how or How()
    work = works(config, bundle, places)
    done = list(followed(as_they_end(scored, work, workers=how.workers), total=len(work), console=how.console))
    figures = plain_figures(done, Bootstrap(resamples=config.resamples, seed=config.seed))
    write_metrics(places.metrics / "plain.json", figures)
    content = hashlib.sha256("".join(sorted(result.digest for result in done)).encode()).hexdigest()
    note_about(places.metrics, "plain", circumstances(bundle, now=now, data=content))
    return done


def works(config: PlainConfig, bundle: Bundle, places: Places) -> list[Work]:
    """One for each scan: held-out patients in turn, then the real CTs among them."""
    tested = sorted(name for name, split in splits_of(places.manifest).items() if split == "test")
    files = [path for name in tested if (path := places.anatomies / f"{name}.npz").is_file()]
    with_ct = [path for path in files if Anatomy.load(path).background is not None]
    without = [path for path in files if path not in with_ct]
    if not without:
        raise InputError(f"{places.anatomies.name}: no bones of a patient held out of training; run prepare first")
    plain: list[tuple[str, Sequence[Path], str | None]] = [(RENDERED, without, None)] * config.rendered
    plain += [(IN_REAL_CT, with_ct, None)] * (config.in_real_ct if with_ct else 0)
    hard = [(IN_TROUBLE, with_ct if with_ct and n % 2 else without, trouble)
            for n in range(config.in_trouble) for trouble in TROUBLES]
    counts: Counter[str] = Counter()
    found = []
    for kind, paths, trouble in plain + hard:
        n = counts[kind]
        counts[kind] += 1
        found.append(Work(
            name=f"{kind}-{n:03d}", kind=kind, bones=paths[n % len(paths)], trouble=trouble,
            seed=(config.seed + STREAMS[kind], n), bundle=bundle.folder, kept=places.kept / segmentation_key(bundle),
            match_share=config.match_share, least_ml=config.least_ml))
    return found


def scored(work: Work) -> PlainResult:
    """Make one scan, judge it and compare with its truth; one that cannot be judged has no leak found."""
    trouble = None if work.trouble is None else TROUBLES[work.trouble]
    case = plain_case(np.random.default_rng(work.seed), Anatomy.load(work.bones), trouble)
    digest = hashlib.sha256(case.ct.hu.tobytes() + case.leaks.labels.tobytes()).hexdigest()
    try:
        # A scan made anew by changed code is another one.
        seen = kept_segmentation(case.ct, work.kept / f"{work.name}-{digest[:16]}.npz", opened_release(work.bundle, 1))
    except NotAssessableError:
        seen = None
    return _compared(work, case, seen, digest)


def _compared(work: Work, case: Case, seen: Segmentation | None, digest: str) -> PlainResult:
    counted = {truth.number: truth.site for truth in case.truth if truth.volume_ml >= work.least_ml}
    true_sites = tuple(sorted({truth.site for truth in case.truth}))
    if seen is None:
        return PlainResult(kind=work.kind, trouble=work.trouble, true_sites=true_sites, found_sites=(), false=0,
                           cement_dice=None, leaks=tuple((site, None) for site in counted.values()), digest=digest)
    found = attribute(seen, shipped_limits(), classifier_of(work.bundle))
    sites = {leak.number: leak.site for leak in found.leaks}
    grid = case.ct.geometry
    matching = match_leaks(on_whole(found.leak_numbers, seen.start, grid), sites, case.leaks.labels,
                           share=work.match_share)
    found_as = {match.number: match.site for match in matching.matches}
    return PlainResult(
        kind=work.kind, trouble=work.trouble, true_sites=true_sites, found_sites=tuple(sorted(set(sites.values()))),
        leaks=tuple((site, found_as.get(number)) for number, site in counted.items()),
        false=len(matching.false_sites), digest=digest,
        cement_dice=dice(on_whole(seen.cement, seen.start, grid) > 0, case.cement.labels > 0))


def plain_figures(results: Sequence[PlainResult], bootstrap: Bootstrap) -> dict[str, Figure]:
    """`plain_<kind>_<measure>` of each kind of scans, of those in trouble also `[trouble=<name>]`; a kind without scans
    has none.
    """
    figures: dict[str, Figure] = {}
    for kind in STREAMS:
        own = [result for result in results if result.kind == kind]
        figures |= {f"plain_{kind}_{name}": figure for name, figure in _measures(own, bootstrap).items()}
        for trouble in TROUBLES:
            troubled = _measures([result for result in own if result.trouble == trouble], bootstrap)
            figures |= {f"plain_{kind}_{name}[trouble={trouble}]": troubled[name] for name in BY_TROUBLE if troubled}
    return figures


def _measures(results: Sequence[PlainResult], bootstrap: Bootstrap) -> dict[str, Figure]:
    """Of some scans; none without any."""
    if not results:
        return {}
    leaks = [leak for result in results for leak in result.leaks]
    found = [(site, found_as) for site, found_as in leaks if found_as is not None]
    leaked, tight = [r for r in results if r.true_sites], [r for r in results if not r.true_sites]
    figures = {
        "leaks_found": wilson(len(found), len(leaks)),
        "site_right_of_found": wilson(sum(site is found_as for site, found_as in found), len(found)),
        "false_leaks_per_scan": mean_of([float(r.false) for r in results], bootstrap),
        "leak_sensitivity": wilson(sum(bool(r.found_sites) for r in leaked), len(leaked)),
        "leak_specificity": wilson(sum(r.silent for r in tight), len(tight)),
        "exact_sites": wilson(sum(r.exact for r in results), len(results)),
        "cement_dice": mean_of([r.cement_dice for r in results], bootstrap)}
    for site in Site:
        of_site = [found_as for true, found_as in leaks if true is site]
        figures[f"leaks_found[site={site}]"] = wilson(sum(found_as is not None for found_as in of_site), len(of_site))
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/plain.yaml"))
    parser.add_argument("--bundle", type=Path, help="folder of a release; the released champion unless given")
    parser.add_argument("--anatomies", type=Path, default=Path("artifacts/anatomies"))
    parser.add_argument("--manifest", type=Path, default=Path("data_manifests/anatomies.csv"))
    parser.add_argument("--kept", type=Path, default=Path("artifacts/plain"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--workers", type=int, default=1, help="scans at a time")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    main(load_config(given.config, PlainConfig), now=datetime.now(UTC),
         bundle=default_bundle() if given.bundle is None else load_bundle(given.bundle),
         places=Places(anatomies=given.anatomies, manifest=given.manifest, kept=given.kept, metrics=given.metrics),
         how=How(workers=given.workers, console=Console(stderr=True)))
    write_page(given.metrics, given.page)
