"""Batches of samples of similar length: how long a sample will be, without opening it, and the order that follows.

It knows samples, processors and indices; no pixels and no trainer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DistributedSampler, Sampler

from ..contracts.messages import read_texts
from ..contracts.samples import RegionSample
from ..errors import PixelReferError, TrainingError, shown
from ..media.images import image_hw
from ..media.video import FrameSampling, Video
from ..processor import RegionProcessor
from ..regions.region import Region

_TYPICAL_HW = (480, 640)  # of what nobody knows the size of without decoding it
_TYPICAL_REGION = Region.from_box((160, 120, 480, 360))
_PX_PER_TOKEN = 28 * 28
_TOKENS_OF_WORDS = 24  # that point at a region, such as coordinates


def estimated_tokens(
    sample: RegionSample,
    processor: RegionProcessor,
    *,
    sampling: FrameSampling | None = None,
    native_options: Mapping[str, Any] | None = None,
) -> int:
    """About how many tokens a sample will have. No pixel is decoded and no region's mask made.

    Texts are counted exactly, each region that is shown as one of typical size. Pictures are counted by the native
    processor, from the size that the sample declares or the file's header; videos likewise, those in files taken to
    have as many frames as are read of one at most.

    Args:
        sample: the sample.
        processor: what will prepare it.
        sampling: which frames of videos it will read, in place of its own rule.
        native_options: options it will be called with.

    Raises:
        PixelReferError: it is no sample, its messages are malformed, or a picture is missing.
    """
    require_sample(sample)
    text = "\n".join(text for _, text in read_texts(sample.messages))
    total = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    targets = set(sample.targets)
    shown = [region for number, region in enumerate(sample.regions) if number not in targets]
    if shown:
        on_pictures = sum(1 if isinstance(each, Region) else len(each.frames) for each in shown)
        total += on_pictures * _tokens_of_a_region(processor)
        if processor.framework == "object-only":
            return total
    return total + _media_tokens(sample, processor, sampling or processor.sampling, native_options or {})


@lru_cache(maxsize=8)
def _tokens_of_a_region(processor: RegionProcessor) -> int:
    if not processor.makes_object_tokens:
        return _TOKENS_OF_WORDS
    return processor.plan(_TYPICAL_REGION.to_mask(_TYPICAL_HW)).num_tokens


def _media_tokens(
    sample: RegionSample, processor: RegionProcessor, sampling: FrameSampling, options: Mapping[str, Any]
) -> int:
    images, videos = sample.media("image"), sample.media("video")
    declared_hw = iter(sample.media_hw or [None] * (len(images) + len(videos)))
    images_hw = [next(declared_hw) or image_hw(part["image"]) for part in images]
    frames_hw = [next(declared_hw) or _frame_hw(part["video"]) for part in videos]
    lengths = [_num_frames(part["video"], sampling) for part in videos]
    sizes: dict[str, list[tuple[int, ...]]] = {
        "image": [*images_hw],
        "video": [(length, *hw) for length, hw in zip(lengths, frames_hw, strict=True)],
    }
    given = [kind for kind in sizes if sizes[kind]]
    try:
        counted = processor.native._get_num_multimodal_tokens(
            **{f"{kind}_sizes": sizes[kind] for kind in given}, **options
        )
        return sum(int(sum(counted[f"num_{kind}_tokens"])) for kind in given)
    except Exception:  # not every native processor has it, and what one makes of an odd size is its own affair
        return sum(math.prod(size) for kind in given for size in sizes[kind]) // _PX_PER_TOKEN


def _num_frames(source: Any, sampling: FrameSampling) -> int:
    most = sampling.num_frames or sampling.max_frames
    return most if isinstance(source, str | os.PathLike) else min(most, len(source))


def _frame_hw(source: Any) -> tuple[int, int]:
    if isinstance(source, str | os.PathLike):
        return _TYPICAL_HW
    return source.image_hw if isinstance(source, Video) else image_hw(source[0])


def require_sample(value: Any) -> RegionSample:
    """What a dataset gives, if it is a sample.

    Raises:
        TrainingError: it is not, but a row of a table, say.
    """
    if not isinstance(value, RegionSample):
        raise TrainingError(
            f"Training takes a dataset of RegionSample, this one gives {type(value).__name__}. For rows of a table: "
            "RegionDataset.from_rows(rows)."
        )
    return value


def sample_order(
    dataset: Any,
    *,
    batching: Literal["grouped", "shuffled"],
    batch_size: int,
    length_of: Callable[[Any], int],
    seed: int,
    num_processes: int,
) -> LengthGroupedSampler | DistributedSampler[int]:
    """The order of training samples; drawn from seed and epoch alone, so that a resumed run finds it again.

    Args:
        dataset: `len(dataset)` samples.
        batching: `grouped` puts samples of similar length into a batch, `shuffled` any.
        batch_size: of one process.
        length_of: about how long a sample is.
        seed: of the order, together with the epoch.
        num_processes: that train together.
    """
    if batching == "shuffled":
        return DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)  # accelerate deals out to processes
    return LengthGroupedSampler(
        dataset, batch_size=batch_size, length_of=length_of, seed=seed, num_processes=num_processes
    )


class LengthGroupedSampler(Sampler[int]):
    """Every index once, in random order, such that each batch holds samples of similar length.

    The shuffled indices are taken in windows. Within one, lengths are measured and the indices sorted and cut into
    batches, whose order is random again: no more than a window is measured ahead, however large the dataset. The
    longest batch of the first window comes first, so that a lack of memory shows at once.

    Args:
        dataset: `dataset[index]` is what `length_of` takes.
        batch_size: of one process.
        length_of: how long a sample is. One for which it or the dataset raises an error of this package counts as 0:
            who reads the sample will say what is wrong.
        seed: of the order, together with the epoch.
        window_batches: how many batches of each process make a window.
        num_processes: so many consecutive batches are of similar length too, one for each process.

    Raises:
        TrainingError: a number is less than 1.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        length_of: Callable[[Any], int],
        seed: int,
        window_batches: int = 50,
        num_processes: int = 1,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("window_batches", window_batches),
            ("num_processes", num_processes),
        ):
            if value < 1:
                raise TrainingError(f"LengthGroupedSampler's {name} must be an integer >= 1, got {shown(value)}.")
        self.dataset = dataset
        self.length_of = length_of
        self.seed = seed
        self.epoch = 0
        self._group = batch_size * num_processes
        self._window = window_batches * self._group
        self._measured = np.full(len(dataset), -1, dtype=np.int32)  # lengths stay the same from epoch to epoch

    def set_epoch(self, epoch: int) -> None:
        """The next pass gets the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._measured)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self), generator=generator)
        for first, window in enumerate(shuffled.split(self._window)):
            yield from self._grouped(window.tolist(), generator, longest_first=first == 0)

    def _grouped(self, indices: Sequence[int], generator: torch.Generator, *, longest_first: bool) -> Iterator[int]:
        """One window's indices. A group that is not full can only be the last: batches are cut by counting."""
        ordered = sorted(indices, key=self._length, reverse=True)
        groups = [ordered[start : start + self._group] for start in range(0, len(ordered), self._group)]
        full = sum(len(group) == self._group for group in groups)
        order = torch.randperm(full, generator=generator).tolist() + list(range(full, len(groups)))
        if longest_first:
            order.sort(key=bool)  # stable: group 0 moves to the front, the others stay as they are
        for index in order:
            yield from groups[index]

    def _length(self, index: int) -> int:
        if self._measured[index] < 0:
            try:
                self._measured[index] = self.length_of(self.dataset[index])
            except PixelReferError:
                self._measured[index] = 0
        return int(self._measured[index])
