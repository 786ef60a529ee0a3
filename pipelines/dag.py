"""The DAG of an ingestion, as written in YAML: sources, the operators that judge their examples, one dataset."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from omnimill.config import Config
from omnimill.pipelines.adapters.clip_types import CLIP_ADAPTERS
from omnimill.pipelines.adapters.map_types import MAP_ADAPTERS
from omnimill.pipelines.adapters.picture_types import PICTURE_ADAPTERS
from omnimill.pipelines.base import Operator, Source
from omnimill.pipelines.operators.audio import AudioClipping, AudioDuration, AudioSampleRate, AudioSilence
from omnimill.pipelines.operators.audio_character import AudioCharacter
from omnimill.pipelines.operators.augmentation_types import AUGMENTATION_TYPES
from omnimill.pipelines.operators.captions import CaptionPlaceholder
from omnimill.pipelines.operators.image import ImageAspect, ImageBlur, ImageResize, ImageSize, ImageUniform
from omnimill.pipelines.operators.image_text import ImageTextOnly
from omnimill.pipelines.operators.scenes import TrajectoryStatic, ViewsEmpty
from omnimill.pipelines.operators.text import TextBlocklist, TextLength
from omnimill.pipelines.operators.text_c4 import TextC4
from omnimill.pipelines.operators.text_code import CodeQuality
from omnimill.pipelines.operators.text_gopher import TextQuality
from omnimill.pipelines.operators.text_language import TextLanguage
from omnimill.pipelines.operators.text_pii import TextPii
from omnimill.pipelines.operators.text_repetition import TextRepetition
from omnimill.pipelines.operators.text_web import TextBoilerplate, TextFineWeb, TextRefinedWeb
from omnimill.pipelines.operators.urls import DomainBlocklist
from omnimill.pipelines.operators.video import TranscriptDensity, VideoBorders, VideoShape, VideoStatic
from omnimill.pipelines.operators.video_text import VideoText
from omnimill.pipelines.sources.alfred import AlfredSource
from omnimill.pipelines.sources.assets3d import Assets3dSource
from omnimill.pipelines.sources.audio_files import AudioFilesSource
from omnimill.pipelines.sources.committed import CommittedExamplesSource
from omnimill.pipelines.sources.files import FilesSource
from omnimill.pipelines.sources.html_pages import HtmlPagesSource
from omnimill.pipelines.sources.image_folder import ImageFolderSource
from omnimill.pipelines.sources.interleaved_pairs import InterleavedPairsSource
from omnimill.pipelines.sources.interleaved_parquet import InterleavedParquetSource
from omnimill.pipelines.sources.jsonl import JsonlSource
from omnimill.pipelines.sources.lerobot import LeRobotSource
from omnimill.pipelines.sources.navigation import NavigationSource
from omnimill.pipelines.sources.objaverse import ObjaverseSource
from omnimill.pipelines.sources.parquet_text import ParquetTextSource
from omnimill.pipelines.sources.patches import PatchesSource
from omnimill.pipelines.sources.retrieved import RetrievedSource
from omnimill.pipelines.sources.rlds import RldsSource
from omnimill.pipelines.sources.scene_pairs import ScenePairsSource
from omnimill.pipelines.sources.segment_anything import SegmentAnythingSource
from omnimill.pipelines.sources.source_tree import SourceTreeSource
from omnimill.pipelines.sources.url_list import UrlListSource
from omnimill.pipelines.sources.video import VideoSource
from omnimill.pipelines.sources.view_pairs import ViewPairsSource
from omnimill.pipelines.sources.warc import WarcSource
from omnimill.pipelines.sources.webdataset_tars import WebDatasetSource

# Every source and operator that a DAG can name; adding one is a line here.
SOURCE_TYPES: tuple[type[Source], ...] = (
    AlfredSource,
    Assets3dSource,
    AudioFilesSource,
    CommittedExamplesSource,
    FilesSource,
    HtmlPagesSource,
    ImageFolderSource,
    InterleavedPairsSource,
    InterleavedParquetSource,
    JsonlSource,
    LeRobotSource,
    NavigationSource,
    ObjaverseSource,
    ParquetTextSource,
    PatchesSource,
    RetrievedSource,
    RldsSource,
    ScenePairsSource,
    SegmentAnythingSource,
    SourceTreeSource,
    UrlListSource,
    VideoSource,
    ViewPairsSource,
    WarcSource,
    WebDatasetSource,
    *PICTURE_ADAPTERS,
    *MAP_ADAPTERS,
    *CLIP_ADAPTERS,
)
OPERATOR_TYPES: tuple[type[Operator], ...] = (
    AudioCharacter,
    AudioClipping,
    AudioDuration,
    AudioSampleRate,
    AudioSilence,
    CaptionPlaceholder,
    CodeQuality,
    DomainBlocklist,
    ImageAspect,
    ImageBlur,
    ImageResize,
    ImageSize,
    ImageTextOnly,
    ImageUniform,
    TextBlocklist,
    TextBoilerplate,
    TextC4,
    TextFineWeb,
    TextLanguage,
    TextLength,
    TextPii,
    TextQuality,
    TextRefinedWeb,
    TextRepetition,
    TrajectoryStatic,
    TranscriptDensity,
    VideoBorders,
    VideoShape,
    VideoStatic,
    VideoText,
    ViewsEmpty,
    *AUGMENTATION_TYPES,
)

if TYPE_CHECKING:
    AnySource = Source
    AnyOperator = Operator
else:
    AnySource = SerializeAsAny[Annotated[Union[SOURCE_TYPES], Field(discriminator="type")]]  # noqa: UP007
    AnyOperator = SerializeAsAny[Annotated[Union[OPERATOR_TYPES], Field(discriminator="op")]]  # noqa: UP007


class Pipeline(Config):
    """One entry of ``sources``: the source's own settings, what its examples pass, and when to give up on it.

    In YAML the source's settings stand beside the others, not below ``source``.

    operators: asked in this order, each about the examples that the ones before kept.
    max_quarantined_share: of the source's records; a run that ends above it fails, its commits are kept.
    max_consecutive_quarantined: stop early when this many records in a row are quarantined with none kept or dropped
        between, counted over units in the order they finish; never when None.
    """

    source: AnySource
    operators: tuple[AnyOperator, ...] = ()
    max_quarantined_share: float = Field(0.5, ge=0, le=1)
    max_consecutive_quarantined: int | None = Field(None, ge=1)

    @property
    def name(self) -> str:
        return self.source.name

    @model_validator(mode="before")
    @classmethod
    def _split(cls, entry: Any) -> Any:
        if not isinstance(entry, dict) or "source" in entry:
            return entry
        own = {key: value for key, value in entry.items() if key in cls.model_fields}
        return {"source": {key: value for key, value in entry.items() if key not in own}, **own}


class Dag(Config):
    """What ``omnimill ingest`` runs.

    dataset: name of the examples dataset under the root.
    decode_threads: decoders per core's task; has no influence on the result.
    worker_memory_bytes: a worker that takes more is killed; a record that needs more on every try is quarantined.
    """

    dataset: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    sources: tuple[Pipeline, ...] = Field(min_length=1)
    decode_threads: int = Field(2, ge=1, le=64)
    worker_memory_bytes: int = Field(8 << 30, ge=1 << 30)

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        doubled = [name for name, count in Counter(pipeline.name for pipeline in sources).items() if count > 1]
        if doubled:
            raise ValueError(f"source names must differ, {', '.join(doubled)} is used more than once")
        return sources
