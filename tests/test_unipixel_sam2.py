"""The SAM 2.1 that UniPixel trains: beside Meta's own steps on the same weights, and what holds for any weights."""

import sys
from contextlib import contextmanager
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pixelrefer_unipixel.losses import mask_losses
from pixelrefer_unipixel.sam2 import from_meta_names, load_sam2_weights, sam2_config
from pixelrefer_unipixel.tracking import MaskCandidates, MaskDecoder
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, Sam2Config, Sam2Model, Sam2VideoModel

from pixelrefer_plugin import SourceError
from pixelrefer_plugin.authoring import Clips, MaskTargets, PredictedMasks

PX = 64
SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def noise(count, picture_px=PX, seed=0):
    """Pictures, `(count, 3, px, px)` uint8."""
    dice = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, picture_px, picture_px), generator=dice, dtype=torch.uint8)


def prompts_of(count, width=64, seed=0):
    return torch.randn(count, 2, width, generator=torch.Generator().manual_seed(seed))


def micro(*, picture_px=PX, seed=0, **options):
    torch.manual_seed(seed)
    return MaskDecoder(sam2_config("micro", picture_px=picture_px), **options).eval()


def perturb(model, scale=0.05):
    """No parameter stays at the zero or the hardly more that it starts from."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale)


# Meta's package


def meta_model(size, picture_px, **options):
    pytest.importorskip("sam2")
    from sam2.build_sam import build_sam2

    overrides = {"image_size": picture_px, "multimask_max_pt_num": 9, **options}
    return build_sam2(
        f"configs/sam2.1/sam2.1_hiera_{SIZES[size]}.yaml",
        device="cpu",
        hydra_overrides_extra=[f"++model.{name}={value}" for name, value in overrides.items()],
        apply_postprocessing=False,
    )


@torch.no_grad()
def meta_steps(model, pixels, points_xy, labels):
    """What `track_step` finds of objects clicked on the first picture: logits, IoUs and presence of all pictures."""
    mean, std = (torch.tensor(of)[:, None, None] * 255 for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    heads = []
    hook = model.sam_mask_decoder.register_forward_hook(lambda module, inputs, output: heads.append(output))
    past = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for position, picture in enumerate(pixels):
        encoded = model.forward_image(((picture - mean) / std)[None])
        _, features, places, sizes = model._prepare_backbone_features(encoded)
        step = model.track_step(
            frame_idx=position,
            is_init_cond_frame=position == 0,
            current_vision_feats=[each.expand(-1, len(points_xy), -1) for each in features],
            current_vision_pos_embeds=[each.expand(-1, len(points_xy), -1) for each in places],
            feat_sizes=sizes,
            point_inputs={"point_coords": points_xy, "point_labels": labels} if position == 0 else None,
            mask_inputs=None,
            output_dict=past,
            num_frames=len(pixels),
        )
        past["non_cond_frame_outputs" if position else "cond_frame_outputs"][position] = step
        heads[-1] = (step["pred_masks"][:, 0], heads[-1][1].max(dim=1).values, heads[-1][3][:, 0])
    hook.remove()
    return [torch.stack(each, dim=1).flatten(0, 1) for each in zip(*heads, strict=True)]


@pytest.mark.parametrize(
    ("picture_px", "pictures", "seen", "options"),
    [
        pytest.param(192, 3, "one not at first", {}, id="three pictures"),
        pytest.param(128, 18, "one not at first", {}, id="more pictures than are remembered"),
        pytest.param(128, 3, "always", {}, id="always there"),
        pytest.param(128, 3, "never", {}, id="never there"),
        pytest.param(128, 3, "always", {"multimask_output_in_sam": False}, id="one mask each"),
    ],
)
def test_masks_are_those_of_metas_own_steps(tmp_path, picture_px, pictures, seen, options):
    torch.manual_seed(0)
    meta = meta_model("tiny", picture_px, **options).eval()
    perturb(meta)
    pixels, points_xy, labels = (
        noise(pictures, picture_px),
        torch.rand(2, 2, 2) * picture_px,
        torch.tensor([[1, 0], [1, 1]]),
    )
    # The package pads one point, we pad two as it does for no point; the order of prompt tokens says nothing.
    asked = (
        torch.cat([torch.zeros(2, 1, 2), points_xy], dim=1),
        torch.cat([-torch.ones(2, 1, dtype=int), labels], dim=1),
    )
    score = meta.sam_mask_decoder.pred_obj_score_head.layers[-1]
    if seen == "one not at first":  # what is found on the first picture depends on no memory
        score.bias.data -= meta_steps(meta, pixels[:1], *asked)[2].mean()
    else:
        score.bias.data += 100 if seen == "always" else -100
    torch.save({"model": meta.state_dict()}, tmp_path / "meta.pt")
    logits, iou, presence = meta_steps(meta, pixels, *asked)

    config = sam2_config("tiny", picture_px=picture_px)
    config.update(options)
    ours = MaskDecoder(config).eval()
    load_sam2_weights(ours.sam2, str(tmp_path / "meta.pt"), size="tiny")
    with torch.no_grad():
        prompts, _ = ours.sam2.prompt_encoder(points_xy[:, None], labels[:, None], None, None)
        made = ours(prompts[:, 0, :2], Clips(pixels, (pictures,)), [0, 0])

    absent = (presence < 0).view(2, pictures)
    assert absent.all() if seen == "never" else absent.sum() == (seen == "one not at first")
    for name, expected in (("logits", logits), ("iou", iou), ("presence", presence)):
        torch.testing.assert_close(getattr(made, name), expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_architectures_are_metas(size):
    theirs = from_meta_names(meta_model(size, 256).state_dict())
    with torch.device("meta"):
        ours = Sam2VideoModel(sam2_config(size, picture_px=256)).state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in ours.items()}


def test_the_authors_names_of_two_weights_are_known():
    theirs, metas = (
        {f"memory_encoder.fuser.layers.{layer}.{name}": layer for layer in (0, 1)} for name in ("weight", "gamma")
    )
    assert (
        from_meta_names(theirs)
        == from_meta_names(metas)
        == {f"memory_encoder.memory_fuser.layers.{layer}.scale": layer for layer in (0, 1)}
    )


# What holds for any weights


@pytest.mark.parametrize("picture_px", [64, 96, 128])
def test_masks_are_a_quarter_of_the_picture(picture_px):
    decoder = micro(picture_px=picture_px)
    made = decoder(prompts_of(1), Clips(noise(2, picture_px), (2,)), [0])
    assert (decoder.picture_px, decoder.hidden_size) == (picture_px, 64)
    assert made.logits.shape == (2, picture_px // 4, picture_px // 4)
    assert made.iou.shape == made.presence.shape == (2,)


@contextmanager
def encoded_pictures(decoder):
    """The number of pictures of each call of the image encoder."""
    counts = []
    hook = decoder.sam2.vision_encoder.register_forward_hook(lambda module, inputs, _: counts.append(len(inputs[0])))
    yield counts
    hook.remove()


@pytest.mark.parametrize("propagate", [True, False])
def test_each_picture_with_an_object_is_encoded_once(propagate):
    decoder, clips = micro(propagate=propagate), Clips(noise(6), (1, 3, 2))
    with encoded_pictures(decoder) as counts:
        decoder(prompts_of(4), clips, [1, 2, 1, 1])
    assert sum(counts) == 5


def test_without_objects_nothing_runs():
    decoder, clips = micro(), Clips(noise(2), (2,))
    with encoded_pictures(decoder) as counts:
        made = decoder(prompts_of(0), clips, [])
    assert counts == []
    usual = decoder(prompts_of(1), clips, [0])
    assert {name: value.shape for name, value in vars(made).items()} == {
        name: (0, *value.shape[1:]) for name, value in vars(usual).items()
    }


@pytest.mark.parametrize("propagate", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_an_objects_masks_depend_on_no_other(propagate, training):
    decoder, clips, prompts = micro(propagate=propagate).train(training), Clips(noise(6), (1, 3, 2)), prompts_of(5)
    for module in decoder.modules():
        if hasattr(module, "dropout_p"):
            module.dropout_p = 0.0
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    perturb(decoder)
    clip_of_object = [2, 0, 1, 0, 1]
    together = decoder(prompts, clips, clip_of_object)
    alone = [decoder(prompts[[at]], clips, [clip]) for at, clip in enumerate(clip_of_object)]
    assert [len(made.logits) for made in alone] == [2, 1, 3, 1, 3]
    for name, value in vars(together).items():
        torch.testing.assert_close(value, torch.cat([getattr(made, name) for made in alone]), atol=1e-4, rtol=1e-4)


def test_without_propagation_each_picture_stands_alone():
    decoder, pixels, prompts = micro(propagate=False), noise(3), prompts_of(2)
    video = decoder(prompts, Clips(pixels, (3,)), [0, 0])
    pictures = decoder(prompts.repeat_interleave(3, dim=0), Clips(pixels, (1, 1, 1)), [0, 1, 2, 0, 1, 2])
    for name, value in vars(video).items():
        torch.testing.assert_close(value, getattr(pictures, name))


def test_the_masks_are_the_candidates_believed_best():
    decoder = micro()
    perturb(decoder, scale=0.2)
    usual = decoder(prompts_of(8), Clips(noise(8), (1,) * 8), range(8)).presence.mean()
    decoder.sam2.mask_decoder.pred_obj_score_head.proj_out.bias.data -= usual
    made = decoder(prompts_of(8), Clips(noise(8), (1,) * 8), range(8))
    best, there = made.candidate_iou.argmax(dim=1), made.presence > 0
    assert len(best.unique()) > 1
    assert set(there.tolist()) == {True, False}
    assert made.iou.equal(made.candidate_iou.amax(dim=1))
    assert made.logits[there].equal(made.candidate_logits[torch.arange(8), best][there])
    assert (made.logits[~there] < -1000).all()
    made = decoder.train()(prompts_of(8), Clips(noise(8), (1,) * 8), range(8))
    assert (made.logits > -1000).all()


# What prompt tokens have no use for: clicks and masks as prompts, the mask that has no rivals, SAM 2.0's first picture.
UNUSED = (
    "prompt_encoder.point_embed.",
    "prompt_encoder.mask_embed.",
    "mask_downsample.",
    "mask_decoder.output_hypernetworks_mlps.0.",
    "no_memory_positional_encoding",
)


# What is remembered of a picture hangs on whether the object is on it.
OF_ABSENT = ("no_object_pointer", "occlusion_spatial_embedding_parameter")
OF_PRESENT = ("object_pointer_proj.",)


@pytest.mark.parametrize(("seen", "unused"), [(True, OF_ABSENT), (False, OF_PRESENT)], ids=["there", "absent"])
def test_gradients_go_through_the_memory_to_every_part(seen, unused):
    decoder, prompts = micro().train(), prompts_of(2).requires_grad_()
    perturb(decoder)
    decoder.sam2.mask_decoder.pred_obj_score_head.proj_out.bias.data += 100 if seen else -100
    made = decoder(prompts, Clips(noise(2), (2,)), [0, 0])
    assert (made.presence > 0).tolist() == [seen] * 4
    last = [1, 3]  # both objects on the second picture, which no prompt is given for
    sum(each[last].sum() for each in (made.candidate_logits, made.candidate_iou, made.presence)).backward()
    assert prompts.grad.abs().sum(dim=(1, 2)).gt(0).all()
    gradients = {name: parameter.grad for name, parameter in decoder.sam2.named_parameters()}
    moved = {name for name, gradient in gradients.items() if gradient is not None and gradient.any()}
    assert moved == {name for name in gradients if not name.startswith((*UNUSED, *unused))}


def test_half_precision_is_autocasts_alone():
    decoder, clips, prompts = micro(), Clips(noise(3), (3,)), prompts_of(2)
    exact = decoder(prompts, clips, [0, 0])
    with torch.autocast("cpu", torch.bfloat16):
        made = decoder(prompts, clips, [0, 0])
    assert {value.dtype for value in vars(made).values()} == {torch.float32}
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}
    torch.testing.assert_close(made.candidate_logits, exact.candidate_logits, atol=0.1, rtol=0.1)


# Checkpoints


def saved_micro(folder, **options):
    model = micro(seed=1).sam2
    model.save_pretrained(folder, **options)
    return model


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("picture_px", [PX, 128])
@pytest.mark.parametrize("shard", ["50GB", "300KB"])
def test_a_folder_of_transformers_suits_pictures_of_any_size(tmp_path, picture_px, shard):
    saved = saved_micro(tmp_path, max_shard_size=shard)
    assert (len([*tmp_path.glob("*.safetensors")]) > 1) == (shard == "300KB")
    loaded = micro(picture_px=picture_px).sam2
    load_sam2_weights(loaded, str(tmp_path), size="micro")
    torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), atol=0, rtol=0)


def test_a_table_that_is_saved_once_is_read_twice(tmp_path):
    saved_micro(tmp_path)
    weights, loaded = weights_of(tmp_path), micro().sam2
    table = weights.pop("prompt_encoder.shared_embedding.positional_embedding")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load_sam2_weights(loaded, str(tmp_path), size="micro")
    assert loaded.prompt_encoder.shared_embedding.positional_embedding.equal(table)


def as_bert(folder):
    BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        folder
    )


def as_sam2_of_pictures(folder):
    """What transformers saves of a SAM 2 that sees no videos."""
    video = sam2_config("micro", picture_px=PX)
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    Sam2Model(Sam2Config(**{part: getattr(video, part).to_dict() for part in parts})).save_pretrained(folder)


def as_sam2_0(folder):
    config = sam2_config("micro", picture_px=PX)
    config.enable_occlusion_spatial_embedding = False
    config.enable_temporal_pos_encoding_for_object_pointers = False
    Sam2VideoModel(config).save_pretrained(folder)


def without_a_weight(folder):
    saved_micro(folder)
    weights = weights_of(folder)
    del weights["memory_encoder.projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder):
    saved_micro(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def of_another_width(folder):
    config = sam2_config("micro", picture_px=PX)
    config.mask_decoder_config.mlp_dim = 32
    Sam2VideoModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda folder: None, "cannot be loaded: OSError", id="an empty folder"),
        pytest.param(as_bert, "cannot be loaded: its weights are of another model", id="another model"),
        pytest.param(as_sam2_of_pictures, "is SAM 2.0 or a SAM 2.1 without memory", id="no memory"),
        pytest.param(as_sam2_0, "is SAM 2.0 or a SAM 2.1 without memory", id="SAM 2.0"),
        pytest.param(without_a_weight, "it has no 'memory_encoder.projection.weight'", id="a weight is missing"),
        pytest.param(cut_short, "cannot be loaded: SafetensorError", id="cut short"),
        pytest.param(of_another_width, r"mlp.proj_in.weight' \(32, 64\) is not one of SAM 2.1's", id="another width"),
    ],
)
def test_a_folder_that_will_not_do_is_refused(tmp_path, make, reason):
    make(tmp_path)
    with pytest.raises(
        SourceError, match=rf"^SAM 2 checkpoint '{tmp_path}' .*{reason}.* Expected a hub name or a folder"
    ):
        load_sam2_weights(micro().sam2, str(tmp_path), size="micro")


def meta_like(width, blocks):
    """Of Meta's weights those that tell their size."""
    return {
        "image_encoder.trunk.patch_embed.proj.weight": torch.zeros(width, 3, 7, 7),
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": torch.zeros(2, 128),
        **{f"sam_prompt_encoder.point_embeddings.{kind}.weight": torch.zeros(1, 256) for kind in range(4)},
        **{f"image_encoder.trunk.blocks.{block}.norm1.bias": torch.zeros(1) for block in range(blocks)},
    }


@pytest.mark.parametrize(
    ("width", "blocks", "size"), [(96, 12, "tiny"), (96, 16, "small"), (112, 24, "base_plus"), (144, 48, "large")]
)
def test_a_checkpoint_of_another_size_is_named(tmp_path, width, blocks, size):
    torch.save({"model": meta_like(width, blocks)}, tmp_path / "sam2.pt")
    with pytest.raises(SourceError, match=rf"sam2.pt' is SAM 2.1 '{size}', not 'micro'; say sam2='{size}'\.$"):
        load_sam2_weights(micro().sam2, str(tmp_path / "sam2.pt"), size="micro")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "FileNotFoundError", id="no file"),
        pytest.param(b"", "EOFError", id="empty"),
        pytest.param(b"no pickle", "UnpicklingError", id="no weights"),
        pytest.param(b"junk", "unpack requires a buffer", id="cut off"),
        pytest.param({"weights": {}}, "KeyError: 'model'", id="another layout"),
        pytest.param([1, 2], "TypeError", id="no mapping"),
        pytest.param({"model": {"weight": torch.zeros(1)}}, "its weights are of another model", id="another model"),
        pytest.param({"model": Clips}, "UnpicklingError", id="code"),
        pytest.param({"model": meta_like(8, 5)}, "SAM 2.0 or a SAM 2.1 without memory", id="SAM 2.0"),
    ],
)
def test_a_file_that_will_not_do_is_refused(tmp_path, content, reason):
    file = tmp_path / "sam2.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(SourceError, match=rf"^SAM 2 checkpoint '{file}' cannot be loaded: .*{reason}.*or a .pt file"):
        load_sam2_weights(micro().sam2, str(file), size="micro")


# Losses

WEIGHTS = {"mask": 100.0, "dice": 5.0, "iou": 5.0, "presence": 5.0}
ABSENT, UNKNOWN = MaskTargets.ABSENT, MaskTargets.UNKNOWN


def guesses(pairs, candidates=3, side=16, seed=0):
    dice = torch.Generator().manual_seed(seed)
    logits = torch.randn(pairs, candidates, side, side, generator=dice) * 3
    iou, presence = torch.rand(pairs, candidates, generator=dice), torch.randn(pairs, generator=dice)
    return MaskCandidates(logits[:, 0], iou[:, 0], presence, logits, iou)


def targets_of(*rows, seed=0):
    dice = torch.Generator().manual_seed(seed)
    masks = torch.rand(max((*rows, -1)) + 1, PX, PX, generator=dice) > 0.7
    return MaskTargets(masks, torch.tensor(rows, dtype=torch.long))


@pytest.fixture
def meta_loss(monkeypatch):
    """Meta's loss, without the trainer that its file asks for the name of a sum, and its requirements."""
    pytest.importorskip("sam2")
    stand_ins = {
        "training.trainer": {"CORE_LOSS_KEY": "core_loss"},
        "training.utils.distributed": {"get_world_size": lambda: 1, "is_dist_avail_and_initialized": lambda: False},
    }
    for name, content in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    spec = spec_from_file_location("meta_loss_fns", distribution("sam2").locate_file("training/loss_fns.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MultiStepMultiMasksAndIous(
        {"loss_mask": 100, "loss_dice": 5, "loss_iou": 5, "loss_class": 5},
        supervise_all_iou=True,
        iou_use_l1_loss=True,
        pred_obj_scores=True,
    )


@pytest.mark.parametrize("candidates", [1, 3])
def test_the_loss_is_that_of_metas_training_code(meta_loss, candidates):
    objects, frames = 3, 5
    predicted, targets = guesses(objects * frames, candidates), targets_of(*range(objects * frames))
    targets.masks[[2, 7, 8]] = False
    losses = mask_losses(predicted, targets, [frames] * objects, weights=WEIGHTS)

    full = torch.nn.functional.interpolate(predicted.candidate_logits, size=PX, mode="bilinear", align_corners=False)
    steps = [
        {
            "multistep_pred_multimasks_high_res": [full[frame::frames]],
            "multistep_pred_ious": [predicted.candidate_iou[frame::frames]],
            "multistep_object_score_logits": [predicted.presence[frame::frames, None]],
        }
        for frame in range(frames)
    ]
    theirs = meta_loss(steps, targets.masks.view(objects, frames, PX, PX).transpose(0, 1))
    names = {"mask": "loss_mask", "dice": "loss_dice", "iou": "loss_iou", "presence": "loss_class"}
    for name, loss in losses.items():
        assert loss.mean().item() == pytest.approx(WEIGHTS[name] * theirs[names[name]].item() / frames, rel=1e-5)
    total = sum(losses.values()).mean().item()
    assert total == pytest.approx(theirs["core_loss"].item() / frames, rel=1e-5)


def test_nothing_is_asked_where_nothing_is_known():
    known = mask_losses(guesses(5), targets_of(0, 1, UNKNOWN, 2, UNKNOWN), [3, 2], weights=WEIGHTS)
    some = guesses(5)
    some.candidate_logits[[2, 4]], some.candidate_iou[[2, 4]], some.presence[[2, 4]] = 99.0, 99.0, 99.0
    torch.testing.assert_close(mask_losses(some, targets_of(0, 1, UNKNOWN, 2, UNKNOWN), [3, 2], weights=WEIGHTS), known)
    for name, loss in mask_losses(guesses(2), targets_of(UNKNOWN, UNKNOWN), [1, 1], weights=WEIGHTS).items():
        assert loss.equal(torch.zeros(2)), name


def test_an_object_pays_the_mean_of_its_known_frames():
    twice = guesses(2)
    for value in vars(twice).values():
        value[1] = value[0]
    targets = targets_of(0, 1)
    targets.masks[1] = targets.masks[0]
    both = mask_losses(twice, targets, [2], weights=WEIGHTS)
    once = mask_losses(twice, MaskTargets(targets.masks, torch.tensor([0, UNKNOWN])), [2], weights=WEIGHTS)
    torch.testing.assert_close(both, once)


@pytest.mark.parametrize("empty", [True, False], ids=["its mask is empty", "said so"])
def test_an_absent_object_pays_for_presence_alone(empty):
    targets = targets_of(0) if empty else targets_of(ABSENT)
    targets.masks[:] = False
    predicted = guesses(1)
    losses = mask_losses(predicted, targets, [1], weights=WEIGHTS)
    assert [losses[name].item() for name in ("mask", "dice", "iou")] == [0, 0, 0]
    assert losses["presence"].item() == pytest.approx(5 * torch.nn.functional.softplus(predicted.presence[0]).item())


def test_the_best_candidate_learns_and_all_learn_their_iou():
    predicted, targets = guesses(1), targets_of(0)
    logits, iou = predicted.candidate_logits.requires_grad_(), predicted.candidate_iou.requires_grad_()
    one = [
        mask_losses(PredictedMasks(logits[:, at], iou[:, at], predicted.presence), targets, [1], weights=WEIGHTS)
        for at in range(3)
    ]
    losses = mask_losses(predicted, targets, [1], weights=WEIGHTS)
    costs = [(each["mask"] + each["dice"]).item() for each in one]
    assert (losses["mask"] + losses["dice"]).item() == pytest.approx(min(costs))
    assert losses["iou"].item() == pytest.approx(sum(each["iou"].item() for each in one) / 3)
    sum(losses.values()).sum().backward()
    assert logits.grad.flatten(2).any(dim=2).tolist() == [[cost == min(costs) for cost in costs]]
    assert iou.grad.all()


def test_no_objects_lose_nothing():
    losses = mask_losses(guesses(0), targets_of(), [], weights=WEIGHTS)
    assert {name: loss.shape for name, loss in losses.items()} == dict.fromkeys(WEIGHTS, (0,))


def test_the_benchmark_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "speed"))
    from mask_decoder import TINY, measure

    results = [*measure("micro", **TINY)]
    assert [(result["frames"], result["objects"]) for result in results] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert all(result["ms"]["ours"] > 0 for result in results)
