"""`RegionCollator`: samples become one batch to learn from; none is cut through, none replaced by another.

It knows samples and the processor; no dataset, no model, no trainer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, Literal, get_args

import torch
from PIL import Image

from ..contracts.messages import REGION_MARKER, read_texts
from ..contracts.samples import SAMPLE_FAULTS, Medium, RegionSample, medium_of
from ..conversation.expansion import IGNORE_INDEX
from ..conversation.reading import media_source
from ..data.turns import with_fewer_turns
from ..errors import (
    ConfigError,
    Defect,
    PixelReferError,
    PromptError,
    SampleError,
    TrainingError,
    shown,
)
from ..masks.mask_batch import MaskBatch
from ..media.images import image_hw
from ..media.video import FrameSampling
from ..processor import RegionProcessor
from ..regions.region import Region, VideoRegion
from ..tokens.region_batch import RegionBatch
from .sampling import estimated_tokens, require_sample

OnBadSample = Literal["error", "skip"]
OnLongSample = Literal["error", "skip", "drop_turns"]

_DUMMY_PX = 56


class RegionCollator:
    """Makes batches of samples, as a data loader's `collate_fn`.

    A batch that shows no region gets a row more, the dummy row: a grey picture with one region and nothing to learn.
    So every process runs tower, projector, adapter and decoder in every step, with gradients that are zero where a
    batch has no use for them.

    Args:
        processor: prepares conversations; its adapter plans the regions.
        max_tokens: the most tokens that a row may have, object and scene tokens included.
        on_bad_sample: a sample that cannot be used stops with an error, or is left out and named.
        on_long_sample: one of more than `max_tokens` likewise, or loses whole turns (question and answer, with
            their regions, and the pictures that only those lie on) from its end until it fits. One whose first turn
            does not fit is a bad sample.
        sampling: which frames of videos are read, in place of the processor's rule.
        native_options: options of the backbone's own processor.

    Raises:
        ConfigError: a value breaks a rule, or a native option would cut texts off.
    """

    def __init__(
        self,
        processor: RegionProcessor,
        *,
        max_tokens: int | None = None,
        on_bad_sample: OnBadSample = "error",
        on_long_sample: OnLongSample = "error",
        sampling: FrameSampling | None = None,
        native_options: Mapping[str, Any] | None = None,
    ) -> None:
        _require_one_of("on_bad_sample", on_bad_sample, get_args(OnBadSample))
        _require_one_of("on_long_sample", on_long_sample, get_args(OnLongSample))
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"max_tokens must be an integer >= 1, or None for no limit, got {shown(max_tokens)}.")
        self.processor = processor
        self.max_tokens = max_tokens
        self.on_bad_sample = on_bad_sample
        self.on_long_sample = on_long_sample
        self.sampling = sampling
        self.native_options = dict(native_options or {})
        for name in ("truncation", "max_length"):
            if name in self.native_options:
                raise ConfigError(f"The native option '{name}' would cut through samples. Say max_tokens instead.")

    def __call__(self, samples: Sequence[RegionSample | SampleError]) -> dict[str, Any]:
        """The batch of the samples that can be used.

        Args:
            samples: each read, or the error that says why it cannot be.

        Returns:
            The native tensors, padded on the right, `labels`, `regions` (a `RegionBatch`), `masks` (a `MaskBatch`)
            where answers hold `<seg>`, and in the samples' order `sample_names`, one for each row but the dummy, and
            `skipped`, a message for each sample that is left out. Where all are, the dummy row is the only one.

        Raises:
            SampleError: a sample cannot be used or is too long, and shall not be skipped.
            TrainingError: they are no samples; or good ones, but the backbone's own processor does not take them
                together.
            PluginError: the adapter plans what it must not.
        """
        usable, skipped = self._sorted_out(samples)
        try:
            inputs = self._prepared(usable)
            problems = self._unsound(usable, inputs)
        except PixelReferError as fault:
            problems = _blamed(fault, usable)
            if not problems:  # of which sample, or of all together, only each alone can tell
                usable, skipped = self._sorted_out([self._tried(each) for each in samples])
                inputs = self._prepared_together(usable)
        if problems:
            of_sample = {id(usable[row]): problem for row, problem in problems.items()}
            return self([self._settled(each, of_sample.get(id(each))) for each in samples])
        return {**inputs, "sample_names": tuple(each.name for each in usable), "skipped": skipped}

    def estimated_tokens(self, sample: RegionSample) -> int:
        """About how many tokens a sample will have; see `sampling.estimated_tokens`."""
        return estimated_tokens(sample, self.processor, sampling=self.sampling, native_options=self.native_options)

    def problem(self, sample: RegionSample) -> SampleError | None:
        """What is wrong with a sample, found by preparing it as for training; None where nothing is."""
        try:
            if not any(role == "assistant" for role, _ in read_texts(sample.messages)):
                return sample.error(_NO_ANSWER)
            return self._unsound([sample], self._prepared([sample])).get(0)
        except SAMPLE_FAULTS as fault:  # not a plugin that plans what it must not: that stops
            return sample.blamed(fault)

    def _tried(self, sample: RegionSample | SampleError) -> RegionSample | SampleError:
        """The sample, prepared alone: if need be with fewer turns, or what is wrong with it."""
        return sample if isinstance(sample, SampleError) else self._settled(sample, self.problem(sample))

    def _settled(self, sample: RegionSample | SampleError, problem: SampleError | None) -> RegionSample | SampleError:
        """A sample with this problem: with fewer turns where that helps, or else the problem."""
        if problem is None or isinstance(sample, SampleError):
            return sample
        if not (_is_length(problem) and self.on_long_sample == "drop_turns"):
            return problem
        for shorter in with_fewer_turns(sample):
            if self.problem(shorter) is None:
                return shorter
        return sample.error(Defect("too long", f"{problem.defects[0].message} Nor do fewer of its turns fit."))

    def _sorted_out(self, samples: Sequence[RegionSample | SampleError]) -> tuple[list[RegionSample], tuple[str, ...]]:
        """The samples, and the messages of the errors, each of which may be skipped."""
        errors = [each for each in samples if isinstance(each, SampleError)]
        for error in errors:
            of_length = _is_length(error) and self.on_long_sample != "drop_turns"
            if (self.on_long_sample if of_length else self.on_bad_sample) == "error":
                raise error
        usable = [require_sample(each) for each in samples if not isinstance(each, SampleError)]
        return usable, tuple(map(str, errors))

    def _prepared(self, samples: Sequence[RegionSample]) -> dict[str, Any]:
        """The processor's tensors, with a dummy row where no region is shown, so that an adapter's module always runs,
        and where there is no sample."""
        conversations = [list(each.messages) for each in samples]
        regions = [list(each.regions) for each in samples]
        if not samples or (self.processor.makes_object_tokens and not any(map(_shows_a_region, samples))):
            medium, region = self._dummy(samples)
            conversations.append([{"role": "user", "content": [medium, {"type": "text", "text": REGION_MARKER}]}])
            regions.append([region])
        inputs = self.processor(
            conversations, regions, labels=bool(samples), sampling=self.sampling, **self.native_options
        )
        if not samples:  # the processor makes no labels where there is nothing to learn
            inputs["labels"] = torch.full_like(inputs["input_ids"], IGNORE_INDEX)
        return dict(inputs)

    def _dummy(self, samples: Sequence[RegionSample]) -> tuple[Mapping[str, Any], Region | VideoRegion]:
        """The medium and the region of the dummy row.

        A grey picture; where the backbone may not mix media and the batch has a video, that one again: some backbones
        take videos together only if all have as many frames.
        """
        videos = [] if self.processor.mixes_media else [each for sample in samples for each in sample.media("video")]
        if videos:
            return videos[0], VideoRegion({0: Region.from_box((0, 0, 1, 1))})  # its first frame is always sampled
        grey = Image.new("RGB", (_DUMMY_PX, _DUMMY_PX), "grey")
        return {"type": "image", "image": grey}, Region.from_box((0, 0, _DUMMY_PX, _DUMMY_PX))

    def _prepared_together(self, samples: Sequence[RegionSample]) -> dict[str, Any]:
        """As `_prepared`, of samples each of which is good."""
        try:
            return self._prepared(samples)
        except PromptError as error:
            names = ", ".join(each.name for each in samples)
            raise TrainingError(
                f"These samples are good, but do not fit into one batch: {names}. {error} Take one sample per batch, "
                "in a training configuration by optim.batch_size=1 and evaluation.batch_size=1."
            ) from error

    def _unsound(self, samples: Sequence[RegionSample], inputs: Mapping[str, Any]) -> dict[int, SampleError]:
        """What is wrong with the rows that are not fit to learn from."""
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        supervised = (inputs["labels"] != IGNORE_INDEX).any(dim=1).tolist()
        regions: RegionBatch | None = inputs.get("regions")
        sizes_hw = (
            list(map(_sizes_by_header, samples))
            if regions is None
            else _sizes_found(samples, regions, inputs.get("masks"))
        )
        problems = {}
        for row, sample in enumerate(samples):
            if not supervised[row]:
                problems[row] = sample.error(_NO_ANSWER)
            elif (defect := _wrong_size(sample, sizes_hw[row])) is not None:
                problems[row] = sample.error(defect)
            elif self.max_tokens is not None and lengths[row] > self.max_tokens:
                too_long = f"it has {lengths[row]} tokens, max_tokens is {self.max_tokens}."
                problems[row] = sample.error(Defect("too long", too_long))
        return problems


def _blamed(fault: PixelReferError, samples: Sequence[RegionSample]) -> dict[int, SampleError]:
    """The error of the sample that is to blame for a fault, by its row; none where it does not say which."""
    row = fault.sample
    if row is None or row >= len(samples) or not isinstance(fault, SAMPLE_FAULTS):
        return {}
    return {row: samples[row].blamed(fault)}


def _shows_a_region(sample: RegionSample) -> bool:
    return len(sample.regions) > len(sample.targets)


_NO_ANSWER = Defect("answer", "it has no answer of the assistant to learn from.")


def _is_length(error: SampleError) -> bool:
    return {defect.kind for defect in error.defects} == {"too long"}


def _require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be {' or '.join(map(repr, allowed))}, got {shown(value)}.")


# -- sizes -------------------------------------------------------------------------------------------------


def _sizes_found(
    samples: Sequence[RegionSample], regions: RegionBatch, masks: MaskBatch | None
) -> list[dict[Medium, tuple[int, int]]]:
    """Per sample the sizes of the pictures, and of the frames of the videos, that its regions lie on."""
    firsts = accumulate(regions.frames_per_region, initial=0)
    shown = zip(regions.numbers, firsts, strict=False)
    sizes_hw = []
    for row, sample in enumerate(samples):
        numbered = dict(islice(shown, regions.regions_per_sample[row]))
        found: dict[Medium, tuple[int, int]] = {}
        for number, region in enumerate(sample.regions):
            if number in numbered:  # not so a target, and one of two regions that are the same object
                found[medium_of(region)] = regions.images_hw[numbered[number]]
        if masks is not None and (clip := masks.clip_of_sample[row]) is not None:
            found[medium_of(sample.regions[sample.targets[0]])] = masks.images_hw[clip]
        sizes_hw.append(found)
    return sizes_hw


def _sizes_by_header(sample: RegionSample) -> dict[Medium, tuple[int, int]]:
    """As much of them as is known without object tokens: those of pictures, where the record says some."""
    if not sample.media_hw:
        return {}
    sources = [media_source(part) for part in sample.media("image")]
    lie_on = {medium_of(region) for region in sample.regions}
    return {medium: image_hw(sources[medium[1]]) for medium in sorted(lie_on) if medium[0] == "image"}


def _wrong_size(sample: RegionSample, found: Mapping[Medium, tuple[int, int]]) -> Defect | None:
    """The first picture or video that is of another size than its record says."""
    for (kind, index), (height, width) in found.items():
        first_of_kind = 0 if kind == "image" else len(sample.media("image"))
        declared_hw = sample.media_hw[first_of_kind + index] if sample.media_hw else None
        if declared_hw is not None and declared_hw != (height, width):
            said = f"{declared_hw[1]} and {declared_hw[0]}"
            return Defect("size", f"{kind} {index} is {width} px wide and {height} high, its record says {said}.")
    return None


# -- shortening --------------------------------------------------------------------------------------------
