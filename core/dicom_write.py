"""A Volume as a classic CT series, as a scanner would write it in any patient position; places are always true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from sacroleak.core.errors import GeometryError, InputError
from sacroleak.core.geometry import Geometry, Points
from sacroleak.core.read import input_digest
from sacroleak.core.volume import Volume

Position = Literal["HFS", "HFP", "FFS", "FFP"]

IMAGE_AXES: Mapping[str, tuple[int, int]] = {"HFS": (1, 1), "HFP": (-1, -1), "FFS": (-1, 1), "FFP": (1, -1)}
"""Signs of (L along a row, P down a column): a scanner's image is fixed to its gantry, the patient turns in it."""

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
COMPRESSED = (RLELossless, JPEG2000Lossless, JPEGLSLossless)
"""Transfer syntaxes that can be written."""

MIN_JPEG2000_SIDE = 32
"""The encoder halves an image five times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesStyle:
    """How a series is written. None of it changes where a voxel lies.

    `stored_from_hu`: (slope, intercept) of HU = slope * stored + intercept; None takes slope 1 and the intercept that
    keeps the lowest HU at or above a stored 0. `reverse` numbers the slices from the other end. `study` and `series`
    seed the UIDs, together with position and numbering for the series: equal words, equal UIDs; an empty `study` takes
    the content's digest. `tags` replaces attributes of every slice (None removes one).
    """

    position: Position = "HFS"
    reverse: bool = False
    transfer_syntax: str = ExplicitVRLittleEndian
    stored_from_hu: tuple[float, float] | None = None
    study: str = ""
    series: str = "series"
    series_number: int = 1
    tags: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.position not in IMAGE_AXES:
            raise InputError(f"position {self.position}: wanted one of {', '.join(IMAGE_AXES)}")
        if self.transfer_syntax not in (*NATIVE, *COMPRESSED):
            raise InputError(f"transfer syntax {self.transfer_syntax} cannot be written")


def write_series(volume: Volume, folder: Path, style: SeriesStyle | None = None) -> list[Path]:
    """Write `volume` into `folder` (made if missing) as one file a slice, `00001.dcm` and on; the paths in that order.

    Array axes are flipped and exchanged, together with the affine, to suit the patient position; a tilted (sheared)
    grid keeps its slice origins. Raises GeometryError if the image axes are not perpendicular, InputError if a HU
    does not fit into 16 stored bits.
    """
    style = style or SeriesStyle()
    style = replace(style, study=style.study or input_digest(volume))
    turned = _turned(volume, IMAGE_AXES[style.position])
    _require_perpendicular(turned.geometry)
    if style.transfer_syntax == JPEG2000Lossless and min(turned.geometry.shape[:2]) < MIN_JPEG2000_SIDE:
        raise InputError(f"JPEG 2000 wants images of at least {MIN_JPEG2000_SIDE} pixels a side")
    slope, intercept = style.stored_from_hu or (1.0, float(min(-1024, np.floor(volume.hu.min()))))
    count = turned.geometry.shape[2]
    folder.mkdir(parents=True, exist_ok=True)
    plan = _Plan(template=_template(turned.geometry, style, slope, intercept), volume=turned, style=style,
                 slope=slope, intercept=intercept)
    paths = []
    for number in range(1, count + 1):
        k = count - number if style.reverse else number - 1
        path = folder / f"{number:05d}.dcm"
        _write_slice(path, plan, k, number)
        paths.append(path)
    return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What the slices of one series share."""

    template: Dataset
    volume: Volume
    style: SeriesStyle
    slope: float
    intercept: float


def _turned(volume: Volume, signs: tuple[int, int]) -> Volume:
    """The same voxels at the same places, axes exchanged and flipped to run nearest to (+-L, +-P, S)."""
    directions = volume.geometry.affine[:3, :3] / volume.geometry.spacing_mm
    wanted = np.diag([signs[0], signs[1], 1.0])
    order = max(permutations(range(3)), key=lambda p: float(np.abs(np.diag(wanted @ directions[:, list(p)])).sum()))
    affine = volume.geometry.affine[:, [*order, 3]].copy()
    hu = volume.hu.transpose(order)
    for axis in range(3):
        if affine[:3, axis] @ wanted[axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
            affine[:3, axis] *= -1
            hu = np.flip(hu, axis)
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    frame = volume.geometry.frame_of_reference_uid
    return Volume(hu=hu, geometry=Geometry(affine=affine, shape=shape, frame_of_reference_uid=frame))


def _axes(geometry: Geometry) -> tuple[Points, Points]:
    directions = geometry.affine[:3, :3] / geometry.spacing_mm
    return directions[:, 0], directions[:, 1]


def _require_perpendicular(geometry: Geometry) -> None:
    rows, columns = _axes(geometry)
    if abs(float(rows @ columns)) > 1e-4:
        raise GeometryError("rows and columns of the grid are not perpendicular, which DICOM cannot say")


def _template(geometry: Geometry, style: SeriesStyle, slope: float, intercept: float) -> Dataset:
    """Everything that all slices share. Patient attributes are empty: DICOM wants them present (type 2)."""
    rows, columns = _axes(geometry)
    spacing = geometry.spacing_mm
    data = Dataset()
    data.SOPClassUID, data.Modality, data.ImageType = CTImageStorage, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study", style.study])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[
        "series", style.study, style.series, style.position, str(style.reverse)])
    data.FrameOfReferenceUID = geometry.frame_of_reference_uid or generate_uid(entropy_srcs=["frame", style.study])
    data.SeriesNumber, data.AcquisitionNumber, data.StudyID = style.series_number, 1, "1"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                    "AccessionNumber", "ReferringPhysicianName", "Manufacturer", "PositionReferenceIndicator", "KVP"):
        setattr(data, keyword, None)
    data.PatientPosition = style.position
    data.ImageOrientationPatient = [_ds(float(n)) for n in (*rows, *columns)]
    data.PixelSpacing = [_ds(float(spacing[1])), _ds(float(spacing[0]))]
    data.SliceThickness = _ds(float(abs(np.cross(rows, columns) @ geometry.affine[:3, 2])))
    data.Rows, data.Columns = geometry.shape[1], geometry.shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = _ds(slope), _ds(intercept), "HU"
    return data


def _write_slice(path: Path, plan: _Plan, k: int, number: int) -> None:
    data = Dataset()
    data.update(plan.template)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPInstanceUID = generate_uid(entropy_srcs=["instance", data.SeriesInstanceUID, str(number)])
    data.InstanceNumber = number
    data.ImagePositionPatient = [_ds(float(n)) for n in plan.volume.geometry.to_lps((0, 0, k))]
    stored, syntax = _stored(plan.volume.hu[:, :, k].T, plan.slope, plan.intercept), UID(plan.style.transfer_syntax)
    data["PixelData"] = _pixel_element(stored.astype(">u2") if syntax == ExplicitVRBigEndian else stored)
    if syntax in COMPRESSED:
        data.compress(syntax, generate_instance_uid=False)
    data.file_meta.TransferSyntaxUID = syntax
    for keyword, value in plan.style.tags.items():
        if value is not None:
            setattr(data, keyword, value)
        elif keyword in data:
            delattr(data, keyword)
    data.save_as(path, enforce_file_format=True)


def _stored(hu: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[np.uint16]:
    stored = np.rint((hu.astype(np.float64) - intercept) / slope)
    if stored.min() < 0 or stored.max() > 65535:
        raise InputError(f"HU from {hu.min()} to {hu.max()} do not fit 16 stored bits with slope {slope:g} and "
                         f"intercept {intercept:g}")
    return np.ascontiguousarray(stored, dtype="<u2")


def _pixel_element(stored: npt.NDArray[Any]) -> Any:
    return DataElement(0x7FE00010, "OW", stored.tobytes())


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters (DICOM PS3.5 6.2): better than 1e-9 mm for any place in a scan."""
    return format_number_as_ds(float(value))
