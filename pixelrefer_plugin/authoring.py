"""What writers of plugins import: this module and `pixelrefer_plugin.testing`, nothing deeper.

Each plugin's module says `PLUGIN_API = 1`, the version of the contract that it is written for, and registers what it
has through a hook:

    from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

    PLUGIN_API = 1

    @hookimpl
    def register_adapters(register):
        register(AdapterSpec(name="acme", ...))

Names are imported when they are first used: importing this module imports no torch.
"""

from typing import TYPE_CHECKING

from .exports import lazy_exports

if TYPE_CHECKING:
    from .contracts.adapter import AdapterLayout as AdapterLayout
    from .contracts.adapter import AdapterRecipe as AdapterRecipe
    from .contracts.adapter import AdapterSpec as AdapterSpec
    from .contracts.adapter import Planner as Planner
    from .contracts.backbone import BackboneSpec as BackboneSpec
    from .contracts.backbone import Cells as Cells
    from .contracts.backbone import CheckpointLayout as CheckpointLayout
    from .contracts.backbone import Coordinates as Coordinates
    from .contracts.backbone import Crops as Crops
    from .contracts.backbone import GridsHw as GridsHw
    from .contracts.backbone import NativeCall as NativeCall
    from .contracts.backbone import Parts as Parts
    from .contracts.backbone import PublishedModel as PublishedModel
    from .contracts.backbone import Scene as Scene
    from .contracts.backbone import ShownMedium as ShownMedium
    from .contracts.batched_tower import encode_by_size as encode_by_size
    from .contracts.benchmark import BenchmarkFile as BenchmarkFile
    from .contracts.benchmark import BenchmarkSpec as BenchmarkSpec
    from .contracts.benchmark import JudgeRequest as JudgeRequest
    from .contracts.benchmark import Prompt as Prompt
    from .contracts.benchmark import PublishedFigure as PublishedFigure
    from .contracts.benchmark import Tools as Tools
    from .contracts.data_format import DataFormatSpec as DataFormatSpec
    from .contracts.data_format import SampleFile as SampleFile
    from .contracts.data_format import told_left_out as told_left_out
    from .contracts.encoded import EncodedPrompts as EncodedPrompts
    from .contracts.encoded import EncodedView as EncodedView
    from .contracts.encoded import FeatureGrids as FeatureGrids
    from .contracts.figures import Figure as Figure
    from .contracts.figures import Scores as Scores
    from .contracts.masks import Clips as Clips
    from .contracts.masks import Masks as Masks
    from .contracts.masks import MaskTargets as MaskTargets
    from .contracts.masks import PredictedMasks as PredictedMasks
    from .contracts.messages import MASK_MARKER as MASK_MARKER
    from .contracts.messages import REGION_MARKER as REGION_MARKER
    from .contracts.module import AdapterModule as AdapterModule
    from .contracts.module import MaskModule as MaskModule
    from .contracts.module import Shapes as Shapes
    from .contracts.options import check_field as check_field
    from .contracts.packed_tower import PackedTower as PackedTower
    from .contracts.packed_tower import cell_by_cell as cell_by_cell
    from .contracts.pointing import Part as Part
    from .contracts.pointing import PlacedRegion as PlacedRegion
    from .contracts.pointing import PointedMedium as PointedMedium
    from .contracts.pointing import PointedRegion as PointedRegion
    from .contracts.pointing import Pointer as Pointer
    from .contracts.pointing import Pointing as Pointing
    from .contracts.pointing import SaidCoordinates as SaidCoordinates
    from .contracts.questions import Answer as Answer
    from .contracts.questions import Question as Question
    from .contracts.region_source import RegionSource as RegionSource
    from .contracts.region_source import RegionSourceSpec as RegionSourceSpec
    from .contracts.samples import RecordPlace as RecordPlace
    from .contracts.samples import RegionSample as RegionSample
    from .contracts.views import BatchLayout as BatchLayout
    from .contracts.views import CropView as CropView
    from .contracts.views import PatchGeometry as PatchGeometry
    from .contracts.views import PromptView as PromptView
    from .contracts.views import RegionPlan as RegionPlan
    from .contracts.views import Resample as Resample
    from .contracts.views import SceneView as SceneView
    from .contracts.views import View as View
    from .data.conversation import EVERY_FRAME as EVERY_FRAME
    from .data.conversation import collecting as collecting
    from .data.conversation import read_masks_by_frame as read_masks_by_frame
    from .data.conversation import read_segmentation as read_segmentation
    from .data.conversation import read_turns as read_turns
    from .data.conversation import read_video_objects as read_video_objects
    from .data.conversation import size_of as size_of
    from .data.conversation import with_video_options as with_video_options
    from .data.dataset import RegionDataset as RegionDataset
    from .data.json_object import Element as Element
    from .data.json_object import read_span as read_span
    from .data.json_object import scan_object as scan_object
    from .data.plain_pickle import read_plain_pickle as read_plain_pickle
    from .data.questions import CAPTION_QUESTIONS as CAPTION_QUESTIONS
    from .data.questions import PHRASE_QUESTIONS as PHRASE_QUESTIONS
    from .data.questions import RECOGNITION_QUESTIONS as RECOGNITION_QUESTIONS
    from .data.questions import SEGMENT_EVERY_QUESTIONS as SEGMENT_EVERY_QUESTIONS
    from .data.questions import SEGMENT_QUESTIONS as SEGMENT_QUESTIONS
    from .data.questions import checked_questions as checked_questions
    from .data.questions import choose as choose
    from .data.schema import is_record as is_record
    from .data.schema import read_sample as read_sample
    from .errors import AttachError as AttachError
    from .errors import CheckpointError as CheckpointError
    from .errors import DataError as DataError
    from .errors import Defect as Defect
    from .errors import DefectKind as DefectKind
    from .errors import EvaluationError as EvaluationError
    from .errors import ImageError as ImageError
    from .errors import JudgeError as JudgeError
    from .errors import PixelReferError as PixelReferError
    from .errors import PluginError as PluginError
    from .errors import PromptError as PromptError
    from .errors import RegionError as RegionError
    from .errors import SampleError as SampleError
    from .errors import SourceError as SourceError
    from .errors import VideoError as VideoError
    from .errors import shown as shown
    from .evaluation.asking.questions import questions_of as questions_of
    from .evaluation.asking.questions import with_unique_ids as with_unique_ids
    from .evaluation.judging.pictures import picture_part as picture_part
    from .evaluation.judging.text import excerpt as excerpt
    from .evaluation.judging.text import json_objects as json_objects
    from .evaluation.judging.text import read_number as read_number
    from .evaluation.judging.text import read_score as read_score
    from .evaluation.metrics.caption_tokens import Tokens as Tokens
    from .evaluation.metrics.captions import CAPTION_METRICS as CAPTION_METRICS
    from .evaluation.metrics.captions import CaptionMetric as CaptionMetric
    from .evaluation.metrics.captions import CaptionPair as CaptionPair
    from .evaluation.metrics.captions import caption_figures as caption_figures
    from .evaluation.metrics.captions import first_words as first_words
    from .evaluation.metrics.choices import option_texts as option_texts
    from .evaluation.metrics.choices import read_choice as read_choice
    from .evaluation.metrics.choices import read_yes_no as read_yes_no
    from .evaluation.metrics.labels import label_figures as label_figures
    from .evaluation.metrics.masks import Overlap as Overlap
    from .evaluation.metrics.masks import boundary_accuracy as boundary_accuracy
    from .evaluation.metrics.masks import box_iou as box_iou
    from .evaluation.metrics.masks import box_without_specks as box_without_specks
    from .evaluation.metrics.masks import overlap as overlap
    from .evaluation.metrics.masks import region_similarity as region_similarity
    from .evaluation.metrics.masks import without as without
    from .evaluation.metrics.revos import official_accuracy_and_robustness as official_accuracy_and_robustness
    from .evaluation.metrics.revos import pixel_accuracy as pixel_accuracy
    from .evaluation.metrics.revos import robustness as robustness
    from .evaluation.official_records import matched as matched
    from .evaluation.official_records import official_json as official_json
    from .evaluation.official_records import official_records as official_records
    from .evaluation.official_records import require_same_answer as require_same_answer
    from .evaluation.official_records import require_there as require_there
    from .evaluation.official_records import text_in as text_in
    from .evaluation.official_text import official_file as official_file
    from .evaluation.official_text import official_text as official_text
    from .evaluation.official_text import question_prompt as question_prompt
    from .evaluation.predicting.answer_masks import mask_of as mask_of
    from .evaluation.predicting.answer_masks import masks_on as masks_on
    from .files import open_regular as open_regular
    from .hookspecs import hookimpl as hookimpl
    from .json_text import parse_json as parse_json
    from .json_text import read_json as read_json
    from .media.images import read_picture as read_picture
    from .media.lettering import Lettering as Lettering
    from .media.paths import path_shown as path_shown
    from .media.video import Video as Video
    from .regions.given import read_mask as read_mask
    from .regions.mask import Box as Box
    from .regions.mask import FloatBox as FloatBox
    from .regions.mask import RegionMask as RegionMask
    from .regions.region import Region as Region
    from .regions.region import VideoRegion as VideoRegion

__all__, __getattr__, __dir__ = lazy_exports(__name__)
