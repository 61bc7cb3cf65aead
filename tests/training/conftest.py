"""One coarse pelvis and one scene for all laws of the simulation, and two prepared anatomies for the stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sacroleak.core.config import load_config
from sacroleak.training import prepare
from sacroleak.training.prepare import PrepareConfig
from sacroleak.training.simulation.anatomy import Anatomy
from sacroleak.training.simulation.case import centred_grid
from sacroleak.training.simulation.procedural import procedural_pelvis
from sacroleak.training.simulation.scene import Scene, place, still

VOXEL_MM = 3.0


@pytest.fixture(scope="session")
def pelvis() -> Anatomy:
    """A procedural pelvis on a 3 mm grid."""
    return procedural_pelvis(np.random.default_rng(3), spacing_mm=VOXEL_MM)


@pytest.fixture(scope="session")
def scene(pelvis: Anatomy) -> Scene:
    """The pelvis as it is, around its sacrum's middle, on a 3 mm grid."""
    grid = centred_grid((219.0, 171.0, 189.0), (VOXEL_MM,) * 3)
    return place(pelvis, grid, still(pelvis), np.random.default_rng(0))


@pytest.fixture(scope="session")
def anatomies(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the two procedural pelvises of the smoke configuration."""
    folder = tmp_path_factory.mktemp("anatomies")
    prepare.main(load_config(repository / "configs/smoke/prepare.yaml", PrepareConfig), out=folder)
    return folder


@pytest.fixture(scope="session")
def manifest(repository: Path) -> Path:
    """The committed table of anatomies and their splits."""
    return repository / "data_manifests/anatomies.csv"
