"""The `sam2` region source on both engines, each a real SAM 2 of small numbers with random weights.

Such masks mean nothing; what is tested is where they lie, what they depend on, and what they cost.
"""

import json
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from pixelrefer_sam2.config import Sam2Config
from pixelrefer_sam2.prompts import prompt_of
from pixelrefer_sam2.source import wants_package

from pixelrefer_plugin import (
    PixelReferError,
    Region,
    SourceError,
    Video,
    VideoRegion,
    load_region_source,
)
from pixelrefer_plugin.plugins import get_region_source
from pixelrefer_plugin.testing import REGION_SOURCE_CHECKS, check_region_source

SIDE = 128
HEIGHT, WIDTH = 60, 90
FRAMES = (0, 3, 6, 9, 12, 15)
BOX, CLICK, SCRIBBLE = (
    Region.from_box((10, 10, 40, 30)),
    Region.from_points([(50, 20)]),
    Region.from_scribble([(60, 10), (80, 50)]),
)
MASK = Region.from_polygon([5, 5, 70, 8, 40, 50])
ENGINES = ("transformers", "sam2")

CONFIG_FILE = "configs/sam2.1/sam2.1_hiera_t.yaml"
OVERRIDES = (
    f"++model.image_size={SIDE}",
    "++model.memory_attention.num_layers=1",
    "++model.image_encoder.trunk.embed_dim=16",
    "++model.image_encoder.trunk.stages=[1,1,2,1]",
    "++model.image_encoder.trunk.global_att_blocks=[3]",
    "++model.image_encoder.neck.backbone_channel_list=[128,64,32,16]",
)


def tiny_transformers(folder, *, sees):
    """A folder as transformers saves it."""
    from transformers import Sam2ImageProcessor, Sam2VideoModel, Sam2VideoProcessor, Sam2VideoVideoProcessor

    model = Sam2VideoModel(tiny_config())
    set_bias(model.mask_decoder.pred_obj_score_head.proj_out, sees=sees)
    size = {"height": SIDE, "width": SIDE}
    model.save_pretrained(folder)
    Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)).save_pretrained(folder)
    return {"checkpoint": folder}


def tiny_config():
    from transformers import Sam2VideoConfig

    hidden = 128  # a multiple of the memory's 64 channels, which the memory attention takes for granted
    feature_sizes = [[SIDE // stride] * 2 for stride in (4, 8, 16)]
    return Sam2VideoConfig(
        image_size=SIDE,
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": feature_sizes,
            "fpn_hidden_size": hidden,
        },
        prompt_encoder_config={"hidden_size": hidden, "image_size": SIDE},
        mask_decoder_config={"hidden_size": hidden, "mlp_dim": 64, "iou_head_hidden_dim": 64},
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=feature_sizes[-1],
        memory_encoder_hidden_size=hidden,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=64,
    )


def tiny_package(folder, *, sees):
    """A `.pt` file as Meta's releases have it."""
    pytest.importorskip("sam2")
    from sam2.build_sam import build_sam2_video_predictor

    model = build_sam2_video_predictor(
        CONFIG_FILE, device="cpu", hydra_overrides_extra=list(OVERRIDES), apply_postprocessing=False
    )
    set_bias(model.sam_mask_decoder.pred_obj_score_head.layers[-1], sees=sees)
    folder.mkdir()
    torch.save({"model": model.state_dict()}, folder / "tiny.pt")
    return {"checkpoint": folder / "tiny.pt", "config_file": CONFIG_FILE, "overrides": OVERRIDES}


def set_bias(object_score, *, sees):
    """Let the model believe that the object is always there, or never: random weights would toss a coin."""
    torch.nn.init.constant_(object_score.bias, 100.0 if sees else -100.0)


MAKERS = {"transformers": tiny_transformers, "sam2": tiny_package}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    if request.param == "sam2":
        pytest.importorskip("sam2")
    return request.param


@pytest.fixture(scope="module")
def options(engine, tmp_path_factory):
    """What loads the tiny model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MAKERS[engine](tmp_path_factory.mktemp("sam2") / engine, sees=True)


@pytest.fixture(scope="module")
def source(options):
    return load_region_source("sam2", **options)


@pytest.fixture(scope="module")
def blind(engine, tmp_path_factory):
    """The same, but it believes that no object is ever there."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_region_source("sam2", **MAKERS[engine](tmp_path_factory.mktemp("blind") / engine, sees=False))


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(picture(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def video():
    frames = np.stack([picture(HEIGHT, WIDTH, seed) for seed in FRAMES])
    return Video(frames, FRAMES, tuple(map(float, FRAMES)), num_source_frames=18, duration_s=18.0, name="clip")


class Tower:
    """Counts the images that the image encoder of a fresh source sees."""

    def __init__(self, options):
        spec = get_region_source("sam2")
        self.source = spec.build(spec.make_config(options))
        self.images = 0
        model = self.source.engine.model
        tower = getattr(model, "vision_encoder", None) or model.image_encoder
        tower.register_forward_pre_hook(self._count)

    def _count(self, module, arguments):
        self.images += len(arguments[0])


def test_it_conforms(options):
    assert check_region_source("sam2", **options) == [check.__name__ for check in REGION_SOURCE_CHECKS]


def test_it_conforms_where_it_finds_nothing(engine, tmp_path):
    options = MAKERS[engine](tmp_path / engine, sees=False)
    assert check_region_source("sam2", **options)


# -- pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [BOX, CLICK, SCRIBBLE], ids=lambda prompt: prompt.kind)
def test_a_prompt_becomes_a_mask_of_the_pictures_size(source, image, prompt):
    [found] = source.segment(image, [prompt.on_image(3)])
    assert found.kind == "mask"
    assert found.image_index == 3
    assert found.data.image_hw == (HEIGHT, WIDTH)


def test_the_same_prompt_gives_the_same_mask_every_time(source, image):
    assert source.segment(image, [BOX, CLICK]) == source.segment(image, [BOX, CLICK])


def test_each_mask_is_the_same_alone_and_among_others(source, image):
    prompts = [CLICK, BOX, MASK, SCRIBBLE]
    together = source.segment(image, prompts)
    assert together == [source.segment(image, [prompt])[0] for prompt in prompts]
    assert together[0] != together[1]


def test_a_mask_stays_as_it_is(source, image):
    [found] = source.segment(image, [MASK])
    assert found.data == MASK.to_mask((HEIGHT, WIDTH))


@pytest.mark.parametrize("prompts", [[BOX], [BOX, CLICK, SCRIBBLE, BOX]], ids=["one", "four"])
def test_a_picture_is_encoded_once_for_all_its_prompts(options, image, prompts):
    tower = Tower(options)
    assert len(tower.source.segment(image, prompts)) == len(prompts)
    assert tower.images == 1


def test_masks_alone_need_no_model(options, image):
    tower = Tower(options)
    tower.source.segment(image, [MASK, MASK])
    assert tower.images == 0


def test_an_object_that_is_not_on_the_picture_names_itself(blind, image):
    with pytest.raises(SourceError, match="^object 1: region source 'sam2' finds it nowhere on the image"):
        blind.segment(image, [MASK, CLICK])


# -- videos ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [FRAMES[0], FRAMES[2], FRAMES[-1]], ids=["first", "middle", "last"])
@pytest.mark.parametrize("prompt", [BOX, CLICK, SCRIBBLE, MASK], ids=lambda prompt: prompt.kind)
def test_an_object_is_followed_forwards_and_backwards_to_every_frame(source, video, prompt, frame):
    [found] = source.track(video, [VideoRegion({frame: prompt}, video_index=1)])
    assert tuple(found.frames) == FRAMES
    assert found.video_index == 1
    assert {region.data.image_hw for region in found.frames.values()} == {(HEIGHT, WIDTH)}


def test_tracking_is_deterministic(source, video):
    prompts = [VideoRegion({6: BOX}), VideoRegion({3: CLICK})]
    assert source.track(video, prompts) == source.track(video, prompts)


def test_each_object_is_the_same_alone_and_among_others(source, video):
    """Also when the objects are named in another order than they begin."""
    prompts = [VideoRegion({15: CLICK}), VideoRegion({6: BOX}), VideoRegion({0: SCRIBBLE}), VideoRegion({6: MASK})]
    together = source.track(video, prompts)
    assert together == [source.track(video, [prompt])[0] for prompt in prompts]
    assert len(set(together)) == len(prompts)


def test_an_object_shown_on_several_frames_leaves_the_others_alone(source, video):
    early, twice = VideoRegion({9: BOX}), VideoRegion({3: CLICK, 12: MASK})
    assert source.track(video, [early, twice])[0] == source.track(video, [early])[0]


def test_an_object_may_be_shown_on_several_frames(source, video):
    [once, twice] = source.track(video, [VideoRegion({3: BOX}), VideoRegion({3: BOX, 12: MASK})])
    assert tuple(twice.frames) == FRAMES
    assert twice.frames[12].data == MASK.to_mask((HEIGHT, WIDTH))
    assert twice != once


def test_a_given_mask_is_the_objects_mask_on_its_frame(source, video):
    [found] = source.track(video, [VideoRegion({6: MASK})])
    assert found.frames[6].data == MASK.to_mask((HEIGHT, WIDTH))


def test_one_pass_serves_all_objects(options, video):
    """The image encoder, by far the dearest part, sees each frame once however many objects there are."""
    counts = []
    for prompts in ([BOX], [BOX, CLICK, SCRIBBLE]):
        tower = Tower(options)
        tower.source.track(video, [VideoRegion({FRAMES[0]: prompt}) for prompt in prompts])
        counts.append(tower.images)
    assert counts == [len(FRAMES)] * 2


def test_objects_that_begin_elsewhere_share_the_passes(options, video):
    tower = Tower(options)
    tower.source.track(video, [VideoRegion({frame: BOX}) for frame in FRAMES])
    assert tower.images <= 2 * len(FRAMES)


def test_frames_on_which_an_object_is_not_seen_are_left_out(blind, video):
    [found] = blind.track(video, [VideoRegion({6: MASK})])
    assert tuple(found.frames) == (6,)


def test_an_object_that_is_on_no_frame_names_itself(blind, video):
    with pytest.raises(SourceError, match="^object 1: .* finds it nowhere on any sampled frame"):
        blind.track(video, [VideoRegion({6: MASK}), VideoRegion({6: BOX})])


def test_a_video_of_one_frame(source, video):
    still = Video(video.frames_nhwc[:1], (0,), (0.0,), num_source_frames=1, duration_s=1.0, name="still")
    [found] = source.track(still, [VideoRegion({0: BOX})])
    assert found.frames[0] == source.segment(Image.fromarray(still.frames_nhwc[0]), [BOX])[0]


def test_the_package_sees_the_frames_pixel_by_pixel(tmp_path):
    """It reads them from files, which must not blur them as JPEG would."""
    source = Tower(tiny_package(tmp_path / "sam2", sees=True)).source
    frame = picture(SIDE, SIDE)
    state = source.engine.open(frame[None])
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen = ((state["images"][0] * std + mean) * 255).round().byte().permute(1, 2, 0)
    assert np.array_equal(seen.numpy(), frame)


# -- prompts -----------------------------------------------------------------------------------------------


def test_a_scribble_is_clicks_spread_over_its_length():
    bent = Region.from_scribble([(0, 0), (6, 0), (6, 10)])
    clicks = prompt_of(bent, (HEIGHT, WIDTH)).points_xy
    assert clicks.tolist() == [[1, 0], [3, 0], [5, 0], [6, 1], [6, 3], [6, 5], [6, 7], [6, 9]]


def test_boxes_and_clicks_are_asked_as_they_are():
    assert prompt_of(BOX, (HEIGHT, WIDTH)).box_xyxy.tolist() == [10, 10, 40, 30]
    assert prompt_of(CLICK, (HEIGHT, WIDTH)).points_xy.tolist() == [[50, 20]]


def test_more_clicks_than_a_model_can_attend_to_are_refused():
    with pytest.raises(SourceError, match="takes 1000 clicks on an object at most, got 1001. Give fewer, or a mask"):
        prompt_of(Region.from_points([(50, 20)] * 1001), (HEIGHT, WIDTH))


# -- loading -----------------------------------------------------------------------------------------------


def test_importing_the_plugin_imports_neither_torch_nor_sam2():
    code = "import pixelrefer_sam2, sys, json; print(json.dumps(sorted({'torch', 'sam2'} & set(sys.modules))))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_auto_takes_the_engine_that_reads_the_checkpoint(options, engine):
    chosen = Tower(options).source.engine
    assert type(chosen).__name__ == {"transformers": "TransformersEngine", "sam2": "PackageEngine"}[engine]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("engine", "sam3", r"Sam2Config\.engine must be one of auto, sam2, transformers, got 'sam3'"),
        ("checkpoint", "", r"Sam2Config\.checkpoint must be a hub name, a folder or a \.pt file, got ''"),
        ("checkpoint", None, r"Sam2Config\.checkpoint must be a hub name, a folder or a \.pt file, got None"),
        ("overrides", 5, r"Sam2Config\.overrides must be a sequence of strings, got 5"),
        ("overrides", [5], r"Sam2Config\.overrides must be a sequence of strings, got \[5\]"),
        ("device", 0, r"Sam2Config\.device must be a device as torch names it, or auto, got 0"),
        ("config_file", 3, r"Sam2Config\.config_file must be the name of a config, got 3"),
        ("overrides", "++a=1", r"Sam2Config\.overrides must be a sequence of strings, got '\+\+a=1'"),
        ("chekpoint", "x", r"Region source 'sam2' has no option 'chekpoint'"),
    ],
)
def test_a_wrong_option_is_refused(field, value, message):
    with pytest.raises(PixelReferError, match=message):
        load_region_source("sam2", **{field: value})


@pytest.mark.parametrize(
    "wanted",
    [{"engine": "sam2"}, {"checkpoint": "sam2.1_hiera_tiny.pt"}, {"overrides": OVERRIDES}],
    ids=["asked for by name", "a .pt file", "overrides"],
)
def test_without_the_package_the_pip_line_is_named(monkeypatch, wanted):
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    with pytest.raises(SourceError, match=r"sam2 package, .* not installed: pip install 'pixelrefer-plugin\[sam2\]'"):
        load_region_source("sam2", **wanted)


def test_auto_prefers_the_package_for_official_names():
    pytest.importorskip("sam2")
    assert wants_package(Sam2Config())


def test_without_the_package_auto_falls_back_to_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    assert not wants_package(Sam2Config())


@pytest.mark.parametrize("name", ["no-such-folder/model", "facebook/sam2.1-hiera-tiny"], ids=["folder", "hub, offline"])
def test_a_missing_checkpoint_is_reported(engine, name, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match=f"checkpoint '{name}'"):
        load_region_source("sam2", checkpoint=name, engine=engine)


def test_an_unusable_device_is_refused(options):
    with pytest.raises(SourceError, match=r"Sam2Config\.device 'abacus' cannot be used: "):
        load_region_source("sam2", **options, device="abacus")


def test_a_file_or_overrides_are_nothing_for_transformers():
    with pytest.raises(SourceError, match=r"takes no config_file or overrides.*Use engine='sam2'"):
        load_region_source("sam2", checkpoint="sam2.1_hiera_tiny.pt", engine="transformers")


@pytest.fixture(scope="module")
def saved_folder(tmp_path_factory):
    return tiny_transformers(tmp_path_factory.mktemp("folder") / "model", sees=True)["checkpoint"]


class TestFolders:
    @pytest.fixture
    def folder(self, saved_folder, tmp_path):
        return shutil.copytree(saved_folder, tmp_path / "model")

    def test_another_kind_of_model_is_refused(self, folder):
        (folder / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(SourceError, match="its model type is 'bert'. Expected a hub name or a folder"):
            load_region_source("sam2", checkpoint=folder)

    def test_missing_weights_are_refused(self, folder):
        """As in a model for pictures only, which has no memory."""
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if not name.startswith("memory_encoder")}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(SourceError, match="weights are missing, among them memory_encoder"):
            load_region_source("sam2", checkpoint=folder)

    def test_damaged_weights_are_refused(self, folder):
        (folder / "model.safetensors").write_bytes(b"12345678 not weights")
        with pytest.raises(SourceError, match="cannot be loaded: SafetensorError"):
            load_region_source("sam2", checkpoint=folder)

    def test_a_folder_without_processor_is_refused(self, folder):
        (folder / "processor_config.json").unlink()
        with pytest.raises(SourceError, match="cannot be loaded"):
            load_region_source("sam2", checkpoint=folder)

    def test_the_package_says_who_reads_folders(self, folder):
        pytest.importorskip("sam2")
        with pytest.raises(SourceError, match=r"A folder saved by transformers needs engine='transformers'"):
            load_region_source("sam2", checkpoint=folder, engine="sam2")


@pytest.fixture(scope="module")
def saved_file(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("file") / "sam2", sees=True)


class TestFiles:
    @pytest.fixture
    def options(self, saved_file, tmp_path):
        return saved_file | {"checkpoint": shutil.copy(saved_file["checkpoint"], tmp_path / "tiny.pt")}

    def test_an_unknown_name_needs_a_config_file(self, options):
        with pytest.raises(SourceError, match=r"tiny\.pt' has none of the official names .*config_file='configs/"):
            load_region_source("sam2", checkpoint=options["checkpoint"])

    def test_an_official_name_knows_its_config(self, options):
        official = shutil.move(options["checkpoint"], options["checkpoint"].with_name("sam2.1_hiera_tiny.pt"))
        load_region_source("sam2", checkpoint=official, overrides=OVERRIDES)

    def test_another_config_is_refused(self, options):
        deeper = (*OVERRIDES, "++model.memory_attention.num_layers=2")
        with pytest.raises(SourceError, match=rf"Missing key.*Expected .* that fit config '{CONFIG_FILE}'"):
            load_region_source("sam2", **(options | {"overrides": deeper}))

    def test_an_unknown_config_is_refused(self, options):
        with pytest.raises(SourceError, match="config 'configs/none.yaml' cannot be used"):
            load_region_source("sam2", **(options | {"config_file": "configs/none.yaml"}))

    def test_a_malformed_override_is_refused(self, options):
        with pytest.raises(SourceError, match="cannot be used"):
            load_region_source("sam2", **(options | {"overrides": ("model image_size",)}))

    @pytest.mark.parametrize(
        "content",
        [b"", b"not a checkpoint", b"junk", {"weights": {}}, [1, 2]],
        ids=["empty", "text", "cut off", "other keys", "a list"],
    )
    def test_what_is_no_checkpoint_is_refused(self, options, content):
        if isinstance(content, bytes):
            options["checkpoint"].write_bytes(content)
        else:
            torch.save(content, options["checkpoint"])
        with pytest.raises(SourceError, match=r"tiny\.pt' cannot be loaded: .* Expected {'model': weights} that fit"):
            load_region_source("sam2", **options)
