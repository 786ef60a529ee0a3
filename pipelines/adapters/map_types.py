"""Adapters of pictures that belong to pictures, of conversations and of text."""

from __future__ import annotations

from omnimill.pipelines.adapters.control_pairs import ControlPairsSource
from omnimill.pipelines.adapters.conversations import ConversationsSource
from omnimill.pipelines.adapters.edit_folders import InstructPix2PixSource
from omnimill.pipelines.adapters.edit_rows import EditRowsSource
from omnimill.pipelines.adapters.hdf5_depth import Hdf5DepthSource
from omnimill.pipelines.adapters.magicbrush import MagicBrushSource
from omnimill.pipelines.adapters.mimic_it import MimicItSource
from omnimill.pipelines.adapters.natural_instructions import NaturalInstructionsSource
from omnimill.pipelines.adapters.objectron import ObjectronSource
from omnimill.pipelines.adapters.omni3d import Omni3dSource
from omnimill.pipelines.adapters.open_assistant import OpenAssistantSource
from omnimill.pipelines.adapters.optical_flow import OpticalFlowSource
from omnimill.pipelines.adapters.picture_instructions import PictureInstructionsSource
from omnimill.pipelines.adapters.picture_maps import DepthMapsSource, NormalMapsSource
from omnimill.pipelines.adapters.text_instructions import TextInstructionsSource
from omnimill.pipelines.base import Source

MAP_ADAPTERS: tuple[type[Source], ...] = (
    ControlPairsSource,
    ConversationsSource,
    DepthMapsSource,
    EditRowsSource,
    Hdf5DepthSource,
    InstructPix2PixSource,
    MagicBrushSource,
    MimicItSource,
    NaturalInstructionsSource,
    NormalMapsSource,
    ObjectronSource,
    Omni3dSource,
    OpenAssistantSource,
    OpticalFlowSource,
    PictureInstructionsSource,
    TextInstructionsSource,
)
