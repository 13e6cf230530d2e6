"""How LLaVA-OneVision is read and fed.

Its tower (SigLIP) takes a batch of equal sizes in one call; its learnt positions are for one square size, and
are interpolated for crops. Features are the hidden layers that the projector reads. A scene is the base view,
one square of the whole image; the tiles that follow it where a sample has one image are not read.
"""

import torch
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

from pixelrefer_plugin import BackboneSpec, FeatureGrids, PatchGeometry, PixelReferError, VideoScene

from .tiny import tiny


def geometry(config):
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def vision_width(config):
    layers = config.vision_feature_layer
    return config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))


def encode_crops(model, crops):
    """Crops of one size share a tower call."""
    patch = model.config.vision_config.patch_size
    grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
    features = [None] * len(crops)
    for grid_hw in dict.fromkeys(grids_hw):
        same = [index for index, each in enumerate(grids_hw) if each == grid_hw]
        output = model.model.vision_tower(
            torch.stack([crops[index] for index in same]),
            interpolate_pos_encoding=True,
            output_hidden_states=True,
            return_dict=True,
        )
        for index, encoded in zip(same, _features(model.config, output, grid_hw), strict=True):
            features[index] = encoded
    return FeatureGrids(torch.cat(features), grids_hw)


def scene_grids_hw(config, inputs):
    side = _base_grid_side(config)
    return ((side, side),) * len(inputs.get("image_sizes", ()))


def scene_grids(model, inputs, tower_output):
    """The first tile of each image: the tower sees the tiles of all images, one after another."""
    grids_hw = scene_grids_hw(model.config, inputs)
    features = _features(model.config, tower_output, grids_hw[0])
    tiles = torch.tensor(_tiles_per_image(model.config, inputs))
    base = (tiles.cumsum(0) - tiles).to(features.device)
    return FeatureGrids(features[base].flatten(0, 1), grids_hw)


def scene_boxes_xyxy(config, inputs):
    """A single image is squashed to the base view's square, several are each padded to one.

    Where the square is not whole patches (384 px, 14 px each), the tower leaves out what is over at its right
    and bottom.
    """
    seen = _seen_share(config)
    boxes = []
    for (h, w), alone in zip(inputs["image_sizes"].tolist(), _is_alone(inputs), strict=True):
        width, height = (w, h) if alone else (max(w, h), max(w, h))
        left, top = -((width - w) // 2), -((height - h) // 2)
        boxes.append((left, top, left + seen * width, top + seen * height))
    return tuple(boxes)


def video_grids_hw(config, inputs):
    """Every frame is squashed to the base view's square; its features are those before the native pooling."""
    side = _base_grid_side(config)
    videos, frames = inputs["pixel_values_videos"].shape[:2]
    return ((side, side),) * (videos * frames)


def video_grids(model, inputs, tower_output):
    grids_hw = video_grids_hw(model.config, inputs)
    return FeatureGrids(_features(model.config, tower_output, grids_hw[0]).flatten(0, 1), grids_hw)


def video_box_xyxy(config, frame_hw):
    seen = _seen_share(config)
    return (0, 0, seen * frame_hw[1], seen * frame_hw[0])


def _seen_share(config):
    return _base_grid_side(config) * config.vision_config.patch_size / config.vision_config.image_size


def _features(config, tower_output, grid_hw):
    """The hidden layers that the projector reads, `(images, h * w, C)`."""
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    features = torch.cat([tower_output.hidden_states[layer] for layer in layers], dim=-1)
    if config.vision_feature_select_strategy == "default":
        features = features[:, 1:]
    if features.shape[1] != grid_hw[0] * grid_hw[1]:
        strategy = config.vision_feature_select_strategy
        raise PixelReferError(
            f"vision_feature_select_strategy '{strategy}' gives {features.shape[1]} features for "
            f"{grid_hw[0]}x{grid_hw[1]} patches. 'default' is for towers with a class token, which it drops; "
            "SigLIP has none and needs 'full'."
        )
    return features


def _base_grid_side(config):
    return config.vision_config.image_size // config.vision_config.patch_size


def _is_alone(inputs):
    """For each image whether it is its sample's only one, as the native model reads it."""
    counts = inputs.get("batch_num_images")
    if counts is None:
        return [True] * len(inputs["image_sizes"])
    return [count == 1 for count in counts.tolist() for _ in range(count)]


def _tiles_per_image(config, inputs):
    """The base view and its tiles where a sample has one image, the base view alone where it has several."""
    pinpoints, side = config.image_grid_pinpoints, config.vision_config.image_size
    return [
        image_size_to_num_patches(size, pinpoints, side) if alone else 1
        for size, alone in zip(inputs["image_sizes"].tolist(), _is_alone(inputs), strict=True)
    ]


SPEC = BackboneSpec(
    name="llava_onevision",
    model_types=("llava_onevision",),
    model_class=LlavaOnevisionForConditionalGeneration,
    vision_tower="model.vision_tower",
    projector="model.multi_modal_projector",
    decoder="model.language_model",
    token_embedding="model.language_model.embed_tokens",
    geometry=geometry,
    vision_width=vision_width,
    encode_crops=encode_crops,
    scene_grids=scene_grids,
    scene_grids_hw=scene_grids_hw,
    scene_boxes_xyxy=scene_boxes_xyxy,
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.multi_modal_projector\.linear_\d",
        "vision_tower": r"model\.vision_tower\.(vision_model\.)?encoder\.layers\.\d+"
        r"\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.fc\d)",
    },
    tiny=tiny,
    video_scene=VideoScene(
        grids=video_grids,
        grids_hw=video_grids_hw,
        frames_per_grid=lambda config: 1,
        box_xyxy=video_box_xyxy,
    ),
    projector_layers=("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"),
)
