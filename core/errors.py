"""Errors a person can act on. Messages carry what, got, wanted; never patient text."""


class SacroleakError(Exception):
    """Base of every error this software raises on purpose."""


class InputError(SacroleakError):
    """Something given from outside cannot be used."""


class SeriesError(InputError):
    """A DICOM series or image file cannot be trusted as one CT volume."""


class GeometryError(InputError):
    """Two grids that must agree do not, or an affine is unusable."""


class ManifestError(InputError):
    """A manifest row or column is wrong."""


class ConfigError(InputError):
    """A configuration file has an unknown key or an impossible value."""


class ModelError(SacroleakError):
    """A model bundle is missing, damaged, or does not fit this version."""


class NotAssessableError(SacroleakError):
    """The scan is a fair CT, but it does not show what an answer needs. `reasons` are sentences for a reader."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
