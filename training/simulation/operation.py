"""What is done to a placed patient: lesion, needles, cement, leaks, in that order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sacroleak.training.simulation.cement import Bed, CementBody, Treatment, inject
from sacroleak.training.simulation.leak import MECHANISMS, SITE_OF, LeakBody, Source
from sacroleak.training.simulation.lesion import Lesion, draw_lesion
from sacroleak.training.simulation.near_miss import nearly_leaked
from sacroleak.training.simulation.needle import NEEDLE_RADIUS_MM, NeedleTrack, place_needles
from sacroleak.training.simulation.noise import Field
from sacroleak.training.simulation.plan import Injection, Plan
from sacroleak.training.simulation.scene import FAR_MM, Scene
from sacroleak.training.simulation.shapes import MARGIN_MM, add_tube, empty, near, whole, window
from sacroleak.training.simulation.spaces import Spaces


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """What was done to the patient, before any scan.

    `bodies`: cement in the sacrum, one for each injection that found a way; `tracks`: their needles; `leaks`: what
    left the bone; `elsewhere`: signed distances to cement of other treatments.
    """

    plan: Plan
    lesions: tuple[Lesion, ...]
    tracks: tuple[NeedleTrack, ...]
    bodies: tuple[CementBody, ...]
    leaks: tuple[LeakBody, ...]
    elsewhere: tuple[Field, ...]

    def cement(self, scene: Scene) -> Field:
        """Signed distance in mm to all cement."""
        fields = [b.distance for b in self.bodies] + [b.distance for b in self.leaks] + list(self.elsewhere)
        nearest = empty(scene)
        for field in fields:
            np.minimum(nearest, field, out=nearest)
        return nearest

    def leaked_ml(self, scene: Scene) -> tuple[float, ...]:
        """Volume of each leak outside the sacrum in mL, overlaps counted for each."""
        outside = scene.distance["sacrum"] > 0
        return tuple(float(np.count_nonzero((leak.distance < 0) & outside)) * scene.geometry.voxel_ml
                     for leak in self.leaks)

    def holes(self, scene: Scene) -> Field:
        """Signed distance in mm to the needles' holes in sacrum and hips, FAR_MM where no needle went."""
        if not self.tracks:
            return empty(scene)
        ends = np.array([end for track in self.tracks for end in (track.tip_lps_mm, track.skin_lps_mm)])
        box, part = window(scene, ends, NEEDLE_RADIUS_MM + MARGIN_MM)
        field = empty(part)
        for track in self.tracks:
            add_tube(field, part, np.array([track.tip_lps_mm, track.skin_lps_mm]), NEEDLE_RADIUS_MM)
        bone = np.minimum.reduce([part.distance[name] for name in ("sacrum", "hip_left", "hip_right")])
        # A hole goes a little beyond the bone's surface, so that no skin of cortex is left over it.
        field[bone > 1.0] = FAR_MM
        return whole(scene, field, box)


def operate(rng: np.random.Generator, scene: Scene, plan: Plan) -> Operation:
    """Carry out `plan`: what the anatomy has no room for is left out."""
    done = [t for injection in plan.injections if (t := treat(rng, scene, injection)) is not None]
    wanted = bool(done) and bool(plan.leaks or plan.near_misses)
    spaces = Spaces.around(scene) if wanted else None
    if spaces is not None:
        done = _near_misses(rng, scene, spaces, plan, done)
    leaks = () if spaces is None else _leaks(rng, spaces, scene, (plan, done))
    return Operation(plan=plan, lesions=tuple(t.lesion for t in done if t.lesion is not None),
                     tracks=tuple(track for t in done for track in t.tracks), bodies=tuple(t.body for t in done),
                     leaks=leaks, elsewhere=tuple(_elsewhere(rng, scene, plan)))


def treat(rng: np.random.Generator, scene: Scene, injection: Injection) -> Treatment | None:
    """Lesion, needles and cement of one injection; None where no needle finds a safe way."""
    lesion = draw_lesion(rng, scene, injection)
    tracks = place_needles(rng, scene, injection, lesion)
    if not tracks:
        return None
    tips = np.array([track.tip_lps_mm for track in tracks])
    body = inject(rng, scene, tips, injection.volume_ml, bed=Bed(lesion=lesion, tracks=tracks))
    return Treatment(lesion=lesion, tracks=tracks, body=body)


def _near_misses(rng: np.random.Generator, scene: Scene, spaces: Spaces, plan: Plan,
                 done: list[Treatment]) -> list[Treatment]:
    """The treatments with the plan's near-misses, each at the first of them that has room for it."""
    treatments = list(done)
    for name in plan.near_misses:
        for n in rng.permutation(len(treatments)):
            changed = nearly_leaked(rng, Source(scene=scene, spaces=spaces, treatment=treatments[n]), name)
            if changed is not None:
                treatments[n] = changed
                break
    return treatments


def _leaks(rng: np.random.Generator, spaces: Spaces, scene: Scene,
           what: tuple[Plan, list[Treatment]]) -> tuple[LeakBody, ...]:
    """The leaks that found room, in the plan's order; each from one of the treatments."""
    plan, done = what
    found: list[tuple[int, LeakBody]] = []
    for number, asked in enumerate(plan.leaks):
        for n in rng.permutation(len(done)):
            source = Source(scene=scene, spaces=spaces, treatment=done[n], volume_ml=asked.volume_ml)
            leak = MECHANISMS[asked.mechanism](rng, source)
            if leak is not None:
                found.append((number, leak))
                break
    order = list(SITE_OF)
    found.sort(key=lambda item: order.index(item[1].mechanism))
    return tuple(leak for _, leak in sorted(_apart(found), key=lambda item: item[0]))


def _apart(found: list[tuple[int, LeakBody]]) -> list[tuple[int, LeakBody]]:
    """Leaks that meet are divided: the one that comes first keeps the place."""
    divided: list[tuple[int, LeakBody]] = []
    for number, leak in found:
        field = leak.distance
        for _, other in divided:
            if ((field < 0) & (other.distance < 0)).any():
                field = np.maximum(field, np.float32(0.01) - other.distance)
        if (field < 0).any():
            divided.append((number, replace(leak, distance=field)))
    return divided


def _elsewhere(rng: np.random.Generator, scene: Scene, plan: Plan) -> list[Field]:
    """Cement of other treatments, inside other bones."""
    fields = []
    for host in plan.other_cement:
        deep = near(scene, host, -3.0) if host in scene.distance else None
        if deep is not None:
            box, depth = deep
            index = np.unravel_index(int(rng.choice(np.flatnonzero(depth < -3))), depth.shape)
            tip = scene.geometry.to_lps(np.array(index) + [s.start for s in box])
            fields.append(inject(rng, scene, tip[None], float(rng.uniform(0.5, 6)), bed=Bed(host=host)).distance)
    return fields
