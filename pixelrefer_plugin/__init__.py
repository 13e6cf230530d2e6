"""Region referring for the multimodal LLM you already have.

Attach an adapter to an unmodified Hugging Face model, fine-tune it on your regions, save one small folder:

    model, processor = attach(backbone, native_processor, adapter="NAME")
    inputs = processor(messages, regions=[Region.from_box((10, 20, 60, 90))])
    answer = processor.decode(model.generate(**inputs, max_new_tokens=64), inputs)

Names are imported when they are first used, so importing this package costs nothing.
"""

from typing import TYPE_CHECKING

from .exports import lazy_exports

if TYPE_CHECKING:
    from .chat import Chat as Chat
    from .chat import RememberError as RememberError
    from .chat import pixel_qa as pixel_qa
    from .contracts.masks import SegmentedObject as SegmentedObject
    from .contracts.samples import RegionSample as RegionSample
    from .conversation.memory import MemoryObject as MemoryObject
    from .conversation.memory import ObjectMemory as ObjectMemory
    from .conversation.token_ids import TokenIds as TokenIds
    from .data.dataset import MixedDataset as MixedDataset
    from .data.dataset import RegionDataset as RegionDataset
    from .entry import attach as attach
    from .entry import load as load
    from .errors import AttachError as AttachError
    from .errors import CheckpointError as CheckpointError
    from .errors import ConfigError as ConfigError
    from .errors import DataError as DataError
    from .errors import EvaluationError as EvaluationError
    from .errors import ImageError as ImageError
    from .errors import JudgeError as JudgeError
    from .errors import PixelReferError as PixelReferError
    from .errors import PluginError as PluginError
    from .errors import PromptError as PromptError
    from .errors import RegionError as RegionError
    from .errors import SampleError as SampleError
    from .errors import SourceError as SourceError
    from .errors import SpliceError as SpliceError
    from .errors import TrainingError as TrainingError
    from .errors import VideoError as VideoError
    from .evaluation.judging import Judge as Judge
    from .evaluation.metrics.masks import MaskScores as MaskScores
    from .evaluation.metrics.masks import PixelQAResult as PixelQAResult
    from .evaluation.metrics.masks import boundary_accuracy as boundary_accuracy
    from .evaluation.metrics.masks import j_and_f as j_and_f
    from .evaluation.metrics.masks import pixel_qa_score as pixel_qa_score
    from .evaluation.metrics.masks import region_similarity as region_similarity
    from .evaluation.predicting.predict import predict as predict
    from .evaluation.scoring.comparing import compare_adapters as compare_adapters
    from .evaluation.scoring.evaluate import evaluate as evaluate
    from .evaluation.scoring.evaluate import score_answers as score_answers
    from .masks.objects import GeneratedMasks as GeneratedMasks
    from .media.images import load_image as load_image
    from .media.video import FrameSampling as FrameSampling
    from .media.video import Video as Video
    from .media.video import load_video as load_video
    from .model import RegionModel as RegionModel
    from .official import import_official as import_official
    from .overlay import draw_regions as draw_regions
    from .overlay import save_overlay as save_overlay
    from .plugins import get_adapter as get_adapter
    from .plugins import get_backbone as get_backbone
    from .plugins import list_plugins as list_plugins
    from .processor import RegionProcessor as RegionProcessor
    from .regions.mask import Box as Box
    from .regions.mask import RegionMask as RegionMask
    from .regions.region import Region as Region
    from .regions.region import VideoRegion as VideoRegion
    from .sources import load_region_source as load_region_source
    from .training.collator import RegionCollator as RegionCollator
    from .training.trainer import RegionTrainer as RegionTrainer

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy_exports(__name__)
