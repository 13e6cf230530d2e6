"""`Chat` and `pixel_qa` on tiny real models, whose words a logits processor puts into their mouth."""

import numpy as np
import pytest
import stencil
import torch
from conftest import picture
from PIL import Image
from transformers import LogitsProcessor
from videos import grey_frames

from pixelrefer_plugin import (
    FrameSampling,
    Region,
    VideoRegion,
    attach,
    get_adapter,
    get_backbone,
    load_video,
)
from pixelrefer_plugin.chat import Chat, RememberError, pixel_qa
from pixelrefer_plugin.conversation.memory import ObjectMemory
from pixelrefer_plugin.errors import FrameError, PromptError, RegionError

PICTURE_HW = (90, 120)
BOX = Region.from_box((10, 20, 60, 70))
CLICK = Region.from_points([(80, 40)])


def mask_region(x0=5, y0=5, x1=30, y1=40):
    mask = np.zeros(PICTURE_HW, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return Region.from_mask(mask)


def attached(adapter, backbone="videollama3"):
    bare, native = get_backbone(backbone).tiny(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = attach(bare, native, adapter=adapter, adapter_config=dict(get_adapter(adapter).tiny))
    return model.eval(), processor


@pytest.fixture(autouse=True)
def with_stencil(monkeypatch):
    stencil.install(monkeypatch)


@pytest.fixture
def parts():
    """A model that gives masks and reads regions where they stand; what it segments is seen."""
    model, processor = attached("stencil")
    with torch.no_grad():
        model.adapter.judge.bias[1] = 5.0
        model.adapter.cut.bias += 1.0
    yield model, processor
    model.detach()


@pytest.fixture
def drawing():
    """A model that reads clicks and boxes as they were drawn, and lists what has a mask."""
    model, processor = attached("unipixel")
    with torch.no_grad():
        for name, parameter in model.adapter.named_parameters():
            if "pred_obj_score_head" in name and name.endswith("proj_out.bias"):
                parameter += 10.0
    yield model, processor
    model.detach()


@pytest.fixture
def image():
    return Image.fromarray(picture(*PICTURE_HW))


@pytest.fixture
def video():
    return load_video(grey_frames(8, hw=PICTURE_HW), fps=4.0)


class Says(LogitsProcessor):
    """Lets the model say a text, and keeps the prompt that it was given."""

    def __init__(self, processor, text):
        tokenizer = processor.tokenizer
        self._tokenizer = tokenizer
        self._ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        self.prompt = None

    def __call__(self, input_ids, scores):
        if self.prompt is None:
            self._start = input_ids.shape[1]
            self.prompt = self._tokenizer.decode(input_ids[0]).replace("<|region_pad|>", "#")
        said = torch.full_like(scores, -torch.inf)
        said[:, self._ids[input_ids.shape[1] - self._start]] = 0
        return said


class Talk:
    """A chat, and what was last shown to its model."""

    def __init__(self, parts, media, **options):
        self.processor = parts[1]
        self.chat = Chat(*parts, media, **options)
        self.shown = ""

    def ask(self, text, regions=(), *, answer="yes", **options):
        said = Says(self.processor, answer)
        try:
            return self.chat.ask(text, regions, logits_processor=[said], **options)
        finally:
            self.shown = said.prompt or ""

    @property
    def state(self):
        return self.chat.history, list(self.chat.memory)

    @property
    def ids(self):
        return [each.id for each in self.chat.memory]


# -- what is shown -----------------------------------------------------------------------------------------


def test_without_regions_it_is_the_model_asked_by_hand(parts, image):
    model, processor = parts
    reply = Chat(model, processor, image).ask("what is there?", max_new_tokens=5)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is there?"}]
    inputs = processor([{"role": "user", "content": content}])
    (text,) = processor.decode(model.generate(**inputs, max_new_tokens=5, do_sample=False), inputs)
    assert (reply.text, reply.objects) == (text, ())


def test_the_conversation_so_far_is_shown(parts, image):
    talk = Talk(parts, image)
    talk.ask("what is <region>?", [BOX], answer="a cat")
    assert "what is [#" in talk.shown
    talk.ask("and <region>?", [CLICK], answer="a dog")
    assert talk.shown.count("a cat") == 1
    assert talk.shown.index("what is [#") < talk.shown.index("a cat") < talk.shown.index("and [#")
    assert talk.chat.history == [("what is <region>?", "a cat"), ("and <region>?", "a dog")]


def test_a_called_object_shows_its_tokens_once(parts, image):
    talk = Talk(parts, image)
    first, second = talk.chat.memory.add(BOX, name="cat"), talk.chat.memory.add(mask_region())
    talk.ask(f"is [{second}] left of <region>, and of [{first}]? [{second}]!", [CLICK])
    assert "is [2] [#] left of [#], and of [1] [#]? [2]!" in talk.shown
    talk.ask("what is [1]?")
    assert "what is [1]?" in talk.shown
    talk.chat.memory.drop(1)
    talk.chat.memory.add(CLICK, id=1)
    talk.ask("and now [1]?")
    assert "and now [1] [#]?" in talk.shown
    assert talk.shown.count("#") == 4


def test_objects_are_listed_where_asked(parts, image):
    talk = Talk(parts, image, list_objects=True)
    talk.chat.memory.add(BOX)
    talk.ask("what is [1], next to <region>?", [CLICK])
    assert "with the following highlighted regions:\n[1]: #\nwhat is [1], next to [#]?" in talk.shown


def test_masks_become_objects_and_what_is_drawn_stands_where_it_is_asked_about(drawing, image):
    talk = Talk(drawing, image)
    talk.ask("is <region> on <region> or on [7] <region>?", [CLICK, mask_region(), mask_region(40, 5, 60, 30)])
    assert "highlighted regions:\n[1]: #\n[7]: #\nis [#] on [1] or on [7]?" in talk.shown
    assert talk.ids == [1, 7]
    talk.ask("and [7] and [2] <region>?", [BOX])
    assert "and [7] and [2] [#]?" in talk.shown
    assert talk.ids == [1, 7]
    talk.ask("and <region>?", [mask_region(40, 5, 60, 30)])
    assert "and [7]?" in talk.shown
    assert talk.ids == [1, 7]
    talk.chat.memory.add(CLICK, name="here")
    talk.ask("is [8] [2]? is it [8]?")
    assert "is [8] [#] [2]? is it [8]?" in talk.shown


def test_an_answer_may_say_anything(parts, image):
    talk = Talk(parts, image)
    talk.ask("what?", answer="it is <region>, <seg>")
    talk.ask("and?")
    assert "it is region, <seg>" in talk.shown


@pytest.mark.parametrize("adapter", ["maskpool", "saot", "oci", "unipixel"])
@pytest.mark.parametrize("list_objects", [False, True], ids=["where called", "listed"])
def test_every_adapter_can_be_talked_with(adapter, list_objects, image):
    model, processor = attached(adapter)
    talk = Talk((model, processor), image, list_objects=list_objects)
    talk.chat.memory.add(BOX)
    talk.chat.memory.add(mask_region())
    talk.ask("what is [1]?", answer="a <seg>")
    assert "#" in talk.shown
    talk.ask("and [2], near <region>?", [CLICK])
    assert "highlighted" in talk.shown or not (list_objects or adapter == "unipixel")
    assert len(talk.chat.history) == 2
    model.detach()


# -- what is remembered ------------------------------------------------------------------------------------


def test_objects_of_an_answer_join_the_memory(parts, image):
    talk = Talk(parts, image)
    reply = talk.ask("segment them", answer="[3] <seg> and <seg>", segment=True)
    assert [each.id for each in reply.objects] == talk.ids == [3, 4]
    assert [each.region for each in reply.objects] == [each.region for each in talk.chat.memory]
    assert reply.text == "[3] <seg> and <seg>"
    talk.ask("what is [3]?")
    assert "[3] <seg> and <seg>" in talk.shown
    assert "what is [3] [#]?" in talk.shown


def test_a_number_is_the_objects_own_unless_the_question_called_it(parts, image):
    talk = Talk(parts, image)
    talk.chat.memory.add(BOX, name="cat")
    reply = talk.ask("segment the dog", answer="[1] <seg>, [1]<seg>", segment=True)
    assert [each.id for each in reply.objects] == [2, 3]
    assert reply.text == "[2] <seg>, [3] <seg>"
    assert talk.chat.memory[1].region == BOX
    (segmented,) = talk.ask("segment [1]", answer="[1] <seg>", segment=True).objects
    assert talk.chat.memory[1].region == segmented.region != BOX
    assert talk.chat.memory[1].name == "cat"
    assert talk.ids == [1, 2, 3]


def test_a_drawn_region_gets_its_mask_under_its_own_number(drawing, image):
    talk = Talk(drawing, image)
    (found,) = talk.ask("segment [5] <region>", [CLICK], answer="[5] <seg>", segment=True).objects
    assert found.id == 5
    assert talk.ids == [5]
    (other,) = talk.ask("segment [6] <region>", [BOX], answer="<seg>", segment=True).objects
    assert other.id == 7
    talk.ask("which is [5], which [6]?")
    assert "[5]: #\n[7]: #\n" in talk.shown


def test_what_is_seen_nowhere_is_not_remembered(parts, image):
    model, _ = parts
    with torch.no_grad():
        model.adapter.judge.bias[1] = -9.0
    talk = Talk(parts, image)
    reply = talk.ask("segment it", answer="[1] <seg>", segment=True)
    assert [(each.id, each.region) for each in reply.objects] == [(None, None)]
    assert talk.ids == []
    talk.ask("and then?")
    assert "[1] <seg>" in talk.shown


def test_nothing_need_be_remembered(parts, image):
    talk = Talk(parts, image)
    reply = talk.ask("segment it", answer="[1] <seg>", segment=True, remember=False)
    assert [each.id for each in reply.objects] == [1]
    assert talk.ids == []
    assert talk.chat.history == [("segment it", "[1] <seg>")]


def test_a_mask_can_be_forced(parts, image):
    chat = Chat(*parts, image)
    reply = chat.ask("what is there?", force_mask=True, max_new_tokens=3)
    assert "<seg>" in reply.text
    assert len(reply.objects) == len(list(chat.memory)) == reply.text.count("<seg>")


def test_undo_forgets_the_last_question_and_what_it_changed(parts, image):
    talk = Talk(parts, image)
    talk.chat.memory.add(BOX, name="cat")
    talk.ask("what?")
    before = talk.state
    talk.ask("segment [1] and the dog", answer="[1] <seg> [2] <seg>", segment=True)
    assert talk.ids == [1, 2]
    talk.chat.undo()
    assert talk.state == before
    talk.ask("segment [1] and the dog", answer="[1] <seg> [2] <seg>", segment=True)
    talk.chat.memory.drop(1)
    talk.chat.memory.add(CLICK, name="mine")
    talk.chat.undo()
    assert {each.id: each.name for each in talk.chat.memory} == {3: "mine"}
    talk.chat.undo()
    with pytest.raises(PromptError, match="There is no question to undo"):
        talk.chat.undo()


def test_undo_leaves_alone_what_the_user_made_since(parts, image):
    talk = Talk(parts, image)
    talk.ask("segment it", answer="[1] <seg>", segment=True)
    talk.chat.memory.drop(1)
    talk.chat.memory.add(CLICK, id=1, name="mine")
    talk.chat.undo()
    assert [each.name for each in talk.chat.memory] == ["mine"]
    talk.ask("segment it", answer="[2] <seg>", segment=True)
    talk.chat.memory = ObjectMemory(image)
    talk.chat.memory.add(BOX, id=2, name="other")
    talk.chat.undo()
    assert [each.name for each in talk.chat.memory] == ["other"]


def test_undo_keeps_the_name_of_what_it_gives_its_region_back(parts, image):
    talk = Talk(parts, image)
    talk.chat.memory.add(BOX)
    talk.ask("segment [1]", answer="[1] <seg>", segment=True)
    talk.chat.memory.rename(1, "cat")
    talk.chat.undo()
    assert [(each.name, each.region) for each in talk.chat.memory] == [("cat", BOX)]


def test_clear_keeps_the_objects(parts, image):
    talk = Talk(parts, image)
    talk.ask("segment it", answer="[1] <seg>", segment=True)
    talk.chat.clear()
    assert talk.chat.history == []
    assert talk.ids == [1]
    talk.ask("what is [1]?")
    assert "segment it" not in talk.shown
    assert "[1] [#]" in talk.shown


def test_a_memory_is_the_users_own(parts, image):
    memory = ObjectMemory(image)
    memory.add(BOX)
    chat = Chat(*parts, image, memory=memory)
    chat.ask("segment it", segment=True, logits_processor=[Says(parts[1], "<seg>")])
    assert chat.memory is memory
    assert [each.id for each in memory] == [1, 2]


# -- what fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "regions", "options", "error", "message"),
    [
        ("what is [7]?", [], {}, PromptError, r"has no object 7. Its objects: 1"),
        ("what is <region>?", [], {}, PromptError, "has 1 <region> but 0 regions were given"),
        ("what?", [BOX], {}, PromptError, "has 0 <region> but 1 region was given"),
        ("what is [1] <region>?", [CLICK], {}, PromptError, "The id 1 is taken: two objects cannot have one id"),
        ("[2] <region> [2] <region>?", [CLICK, BOX], {}, PromptError, "The id 2 is taken"),
        ("[2] <region> [2] <region>?", [mask_region()] * 2, {}, PromptError, "The id 2 is taken"),
        ("is <region> <region>?", [mask_region(1), mask_region(2)], {}, PromptError, "no room for 1 more"),
        (
            "what is [" + "9" * 5000 + "]?",
            [],
            {},
            PromptError,
            r"object \[99999\.\.\., but ids have 9 digits",
        ),
        ("what is [0] <region>?", [CLICK], {}, PromptError, "ids count from 1, got 0"),
        ("what is [0] <region>?", [mask_region(1)], {}, PromptError, "ids count from 1, got 0"),
        ("what is <region>?", BOX, {}, PromptError, "Expected a list of regions, got Region"),
        (None, [], {}, PromptError, "A question must be a text, got None"),
        ("what is \udcff?", [], {}, PromptError, "is no Unicode"),
        ("what is <seg>?", [], {}, PromptError, "stands for a mask in an assistant's answer"),
        ("what is <region>?", [Region.from_box((10, 10, 500, 20))], {}, RegionError, "outside its image"),
        ("what is <region>?", [Region.from_points([(500, 1)])], {}, RegionError, "outside its image"),
        (
            "what is <region>?",
            ["cat"],
            {},
            RegionError,
            "Region 0 of the question: A region of an image is a Region, got str",
        ),
        ("what is <region>?", [{0: BOX}], {}, RegionError, "Region 0 .*: A region of an image is a Region, got dict"),
        ("in row [12]?", [], {}, PromptError, r"no object 12.*Where the number itself is meant, write \[ 12 \]"),
        ("what?", [], {"force_mask": True, "max_new_tokens": None, "max_length": None}, PromptError, "Pass max_new_"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_what_fails_changes_nothing(drawing, image, text, regions, options, error, message):
    talk = Talk(drawing, image, memory=ObjectMemory(image, max_objects=2))
    talk.chat.memory.add(mask_region())
    talk.ask("hello?")
    before = talk.state
    with pytest.raises(error, match=message):
        talk.ask(text, regions, **options)
    assert talk.state == before


def test_errors_about_regions_speak_of_this_question(drawing, image, video):
    for media, at in ((image, lambda region: region), (video, lambda region: {2: region})):
        talk = Talk(drawing, media)
        talk.ask("what are <region> and <region>?", [at(CLICK), at(BOX)])
        talk.ask("segment it", answer="[1] <seg>", segment=True)
        before = talk.state
        with pytest.raises(RegionError, match="^Region 1 of the question(, frame 2)?: .*outside its image"):
            talk.ask("is <region> on <region>?", [at(BOX), at(Region.from_points([(500, 1)]))])
        assert talk.state == before
    with pytest.raises(FrameError, match="^Region 0 of the question: .*frame 9 is not among the sampled"):
        talk.ask("what is <region>?", [{9: CLICK}])
    with pytest.raises(RegionError, match="^Region 0 of the question: .*say on which frame it lies"):
        talk.ask("what is <region>?", [CLICK])
    assert talk.state == before


def test_a_number_with_blanks_in_its_brackets_is_text(parts, image):
    talk = Talk(parts, image)
    talk.chat.memory.add(BOX)
    talk.ask("is [1] in row [ 12 ]?")
    assert "is [1] [#] in row [ 12 ]?" in talk.shown


def test_an_answer_with_more_objects_than_there_is_room_for(parts, image):
    talk = Talk(parts, image, memory=ObjectMemory(image, max_objects=2))
    talk.chat.memory.add(BOX)
    before = talk.state
    with pytest.raises(
        RememberError, match="masks of 2 objects, .* no room: it may hold 2. .*remember=False"
    ) as caught:
        talk.ask("segment them", answer="[4] <seg> [5] <seg>", segment=True)
    assert talk.state == before
    assert [each.id for each in caught.value.reply.objects] == [4, 5]
    talk.ask("segment them", answer="[4] <seg> [5] <seg>", segment=True, remember=False)
    assert talk.ids == [1]


def test_an_adapter_without_masks_is_asked_for_none(image):
    model, processor = attached("maskpool")
    with pytest.raises(PromptError, match="adapter 'maskpool' gives no masks"):
        Chat(model, processor, image).ask("segment it", segment=True)
    model.detach()


def test_a_memory_of_another_picture_is_refused(parts, image):
    other = ObjectMemory(Image.fromarray(picture(50, 60)))
    with pytest.raises(
        PromptError, match="made for an image of width 60 and height 50, the chat is about an image of w"
    ):
        Chat(*parts, image, memory=other)


# -- videos ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["parts", "drawing"])
def test_a_chat_about_a_video(made, video, request):
    talk = Talk(request.getfixturevalue(made), video)
    talk.ask("what does <region> do?", [{2: CLICK}])
    assert "what does [#] do?" in talk.shown
    (found,) = talk.ask("segment it", answer="[1] <seg>", segment=True).objects
    assert isinstance(found.region, VideoRegion)
    assert set(found.presence) == set(video.frame_indices)
    talk.ask("where does [1] go?")
    assert talk.shown.count("#") > 1
    with pytest.raises(FrameError, match="frame 9 is not among the sampled"):
        talk.chat.memory.add({9: CLICK})


@pytest.mark.parametrize("made", ["parts", "drawing"])
def test_other_frames_may_be_sampled(made, request):
    frames = grey_frames(8, hw=PICTURE_HW)
    few = FrameSampling(num_frames=2)
    talk = Talk(request.getfixturevalue(made), load_video(frames, fps=4.0, sampling=few))
    talk.ask("what does <region> do?", [{7: CLICK}])
    talk.chat.memory.add({0: BOX})
    assert talk.chat.frames == [0, 7]
    talk.chat.resample(load_video(frames, fps=4.0, sampling=few, frames=[*talk.chat.frames, 3]))
    talk.chat.memory.add({3: BOX})
    (found,) = talk.ask("segment [1] and [2]", answer="[3] <seg>", segment=True).objects
    assert sorted(found.presence) == [0, 3, 7]
    before = talk.state
    with pytest.raises(FrameError, match="frame 3 is not among the sampled"):
        talk.chat.resample(load_video(frames, fps=4.0, sampling=few))
    with pytest.raises(PromptError, match="about a video of width 120 and height 90; other frames must be of the same"):
        talk.chat.resample(load_video(frames[:7], fps=4.0))
    talk.ask("what does [3] do?")
    assert talk.state[0][:-1] == before[0]


def test_a_picture_has_no_other_frames(parts, image, video):
    with pytest.raises(PromptError, match="The chat is about an image"):
        Chat(*parts, image).resample(video)


# -- two passes --------------------------------------------------------------------------------------------


class TwoAnswers:
    """What the model says in the first pass, and in the second."""

    def __init__(self, processor, *answers):
        self._left = [Says(processor, answer) for answer in answers]
        self.asked = list(self._left)

    def __call__(self, input_ids, scores):
        if len(self._left) > 1 and self._left[0].prompt and not self._continues(input_ids):
            self._left.pop(0)
        self._length = input_ids.shape[1]
        return self._left[0](input_ids, scores)

    def _continues(self, input_ids):
        return input_ids.shape[1] == self._length + 1


def two_passes(parts, media, question, regions, *answers):
    said = TwoAnswers(parts[1], *answers)
    answer = pixel_qa(*parts, media, question, regions, logits_processor=[said])
    return answer, [each.prompt for each in said.asked]


def test_two_passes_answer_with_the_masks_of_what_was_drawn(drawing, image):
    answer, (first, second) = two_passes(
        drawing, image, "is <region> on <region>?", [CLICK, BOX], "[2] <seg> [1] <seg>", "it is"
    )
    assert "is [1] [#] on [2] [#]? Please localize the relevant objects with IDs." in first
    assert "highlighted regions:\n[1]: #\n[2]: #\nis [1] on [2]?" in second
    assert answer.text == "it is"
    assert [each.id for each in answer.objects] == [each.id for each in answer.memory] == [1, 2]
    assert [each.region for each in answer.objects] == [each.region for each in answer.memory]


@pytest.mark.parametrize(
    ("question", "regions", "found", "asked"),
    [
        ("is <region> on <region>?", [CLICK, BOX], "<seg>, <seg>", "[1]: #\n[2]: #\nis [1] on [2]?"),
        ("is <region> on <region>?", [CLICK, BOX], "[2] <seg>", "[2]: #\nis [1] [#] on [2]?"),
        ("is <region> on <region>?", [CLICK, BOX], "no idea", "is [1] [#] on [2] [#]?"),
        ("is <region> on it?", [CLICK], "[1] <seg> [9] <seg>", "[1]: #\n[2]: #\nis [1] on it?"),
        ("is [4] <region> on <region>?", [CLICK, BOX], "[4] <seg> [1] <seg>", "[1]: #\n[4]: #\nis [4] on [1]?"),
        ("is <region> on <region>?", [mask_region(), BOX], "[1] <seg> <seg>", "[1]: #\n[2]: #\nis [1] on [2]?"),
        ("which is on top?", [], "<seg> [7] <seg>", "[1]: #\n[2]: #\nwhich is on top?"),
    ],
    ids=["in order", "one missing", "nothing", "one more", "own numbers", "a mask is given", "no regions"],
)
def test_what_the_first_pass_finds_is_matched(drawing, image, question, regions, found, asked):
    _, (_, second) = two_passes(drawing, image, question, regions, found, "yes")
    assert asked in second


def test_two_passes_that_cannot_be(parts, image):
    with pytest.raises(PromptError, match="number must be one of its own, from 1, got 2, 2"):
        pixel_qa(*parts, image, "is [2] <region> on [2] <region>?", [CLICK, BOX])
    with pytest.raises(PromptError, match="ids have 9 digits at most"):
        pixel_qa(*parts, image, "is [" + "9" * 5000 + "] <region> near?", [CLICK])
    model, processor = attached("maskpool")
    with pytest.raises(PromptError, match="adapter 'maskpool' gives no masks"):
        pixel_qa(model, processor, image, "what is <region>?", [CLICK])
    model.detach()


def test_two_passes_with_more_objects_than_a_memory_holds(parts, image):
    with pytest.raises(RememberError, match="no room"):
        two_passes(parts, image, "count them", [], "<seg>" * 33, "33")
