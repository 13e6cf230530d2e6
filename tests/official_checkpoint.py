"""Tiny checkpoints as the authors of PixelRefer and of VideoLLaMA3 lay them out, from the real native classes."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer, VideoLlama3Config, VideoLlama3ForConditionalGeneration

from pixelrefer_plugin import RegionModel, TokenIds

TOWER = {
    "model_type": "damovl",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 14,
}
PREPROCESSING = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "min_pixels": 3136, "patch_size": 14}
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
ROPE_THETA = 1000000.0
CHAT_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
OFFICIAL_TOKENS = (*CHAT_TOKENS, "<image>", "<|stream_start|>", "<|stream_end|>", "<REGION>")
QWEN_TOKENS = (*CHAT_TOKENS, "<|image_pad|>", "<|video_pad|>", "<image>")

_FROM_NATIVE = (
    (r"^model\.vision_model\.", "model.vision_encoder.vision_encoder."),
    (r"^model\.projector\.", "model.mm_projector."),
    (r"^model\.language_model\.", "model."),
)
_FROM_ADAPTER = (
    (r"^(saot\.)?mlp\.", "feat_linear."),
    (r"^(saot\.)?position\.", "pos_linear."),
    (r"^attentions\.(\w+)\.norm\.", r"ln_\1."),
    (r"^attentions\.(\w+)\.out\.", r"fusion_attention_\1.out_proj."),
)


@dataclass
class Official:
    """A checkpoint of random weights: the native model and adapter it was made of, its weights and `config.json`."""

    native: VideoLlama3ForConditionalGeneration
    adapter: torch.nn.Module
    weights: dict
    data: dict
    tokens: tuple = OFFICIAL_TOKENS
    tower: dict = field(default_factory=dict)

    def write(self, folder: Path, kind: str = "safetensors", num_shards: int = 1) -> Path:
        """The folder, with the tower's own beside it."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.data))
        tokenizer(self.tokens).save_pretrained(folder)
        write_weights(self.weights, folder, kind, num_shards)
        beside = folder.parent / "SigLIP-NaViT-tiny"
        beside.mkdir(exist_ok=True)
        (beside / "config.json").write_text(json.dumps(TOWER))
        (beside / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
        if self.tower:
            write_weights(self.tower, beside, "safetensors", 1)
        return folder


def tokenizer(tokens):
    """A Qwen2 tokenizer of single bytes and these tokens."""
    vocab = {char: index for index, char in enumerate(sorted(ByteLevel.alphabet()))}
    made = Qwen2Tokenizer(vocab=vocab, merges=[], unk_token="<|endoftext|>", eos_token="<|im_end|>")
    made.add_special_tokens({"extra_special_tokens": list(tokens)})
    return made


def write_weights(weights, folder, kind, num_shards):
    """In one file or several, with their index."""
    name, save = {
        "safetensors": ("model.safetensors", lambda part, path: save_file(part, path, metadata={"format": "pt"})),
        "bin": ("pytorch_model.bin", torch.save),
    }[kind]
    if num_shards == 1:
        save(weights, folder / name)
        return
    stem, suffix = name.split(".")
    weight_map = {}
    for shard in range(num_shards):
        part = dict(sorted(weights.items())[shard::num_shards])
        file = f"{stem}-{shard + 1:05}-of-{num_shards:05}.{suffix}"
        save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def native_model(tokens, *, tied=False, seed=0):
    """The real class, tiny, with random weights."""
    ids = tokenizer(tokens).get_vocab()
    config = VideoLlama3Config(
        text_config={
            "model_type": "qwen2",
            **TEXT,
            "vocab_size": len(ids),
            "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "initializer_range": 0.1,
        },
        vision_config={**TOWER, "model_type": "video_llama_3_vision", "initializer_range": 0.1},
        image_token_id=ids["<image>"] if "<REGION>" in ids else ids.get("<|image_pad|>", ids["<image>"]),
        video_token_id=ids["<image>"] if "<REGION>" in ids else ids.get("<|video_pad|>", ids["<image>"]),
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VideoLlama3ForConditionalGeneration(config).eval()


def training_keys(state, *, tied=False):
    """Native weights under the names of the official training code."""
    renamed = {_renamed(key, _FROM_NATIVE): tensor.detach().clone() for key, tensor in state.items()}
    if tied:
        del renamed["lm_head.weight"]
    return renamed


def official(*, lite=False, tied=False, tower_inside=True) -> Official:
    """A PixelRefer checkpoint, or a PixelRefer-Lite one, of random weights."""
    native = native_model(OFFICIAL_TOKENS, tied=tied)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        name, tokens = "oci" if lite else "saot", TokenIds(placeholder=0)  # nothing is asked
        model = RegionModel.attach(native, adapter=name, tokens=tokens, adapter_config="official")
        encoder = region_encoder(model.adapter, native.config.vision_config.hidden_size)
    model.detach()
    weights = training_keys(native.state_dict(), tied=tied)
    weights |= {f"model.region_encoder.{key}": tensor for key, tensor in encoder.items()}
    tower = {}
    if not tower_inside:
        inside = [key for key in weights if key.startswith("model.vision_encoder.")]
        tower = {key.removeprefix("model.vision_encoder.vision_encoder."): weights.pop(key) for key in inside}
    data = {
        **TEXT,
        "model_type": "pixelreferlite_qwen2" if lite else "pixelrefer_qwen2",
        "hidden_act": "silu",
        "rope_theta": ROPE_THETA,
        "rope_scaling": None,
        "tie_word_embeddings": tied,
        "vocab_size": 7,  # the weights know better
        "mask_num": 8,
        "mm_vision_encoder": "somewhere/else/SigLIP-NaViT-tiny",
        "mm_max_length": 64,
        "mm_projector_type": "mlp2x_gelu",
        "spatial_merge_size": 2,
        "use_token_compression": True,
    }
    return Official(native, model.adapter, weights, data, tower=tower)


def region_encoder(adapter, width):
    """An adapter's weights under the official names; what only the official code has is random."""
    state = {key: tensor.detach().clone() for key, tensor in adapter.state_dict().items()}
    encoder = {_renamed(key, _FROM_ADAPTER): tensor for key, tensor in state.items() if not _is_projection(key)}
    for context in ("local", "global"):
        if f"attentions.{context}.q.weight" not in state:
            continue
        part = {name: state[f"attentions.{context}.{name}"] for name in ("q.weight", "k.weight", "v.weight")}
        biases = [state[f"attentions.{context}.q.bias"], torch.randn(width), state[f"attentions.{context}.v.bias"]]
        encoder[f"fusion_attention_{context}.in_proj_weight"] = torch.cat(list(part.values()))
        encoder[f"fusion_attention_{context}.in_proj_bias"] = torch.cat(biases)
        encoder["mask_embedding.weight"] = torch.randn(width, 1, 1, 1)
        encoder["mask_embedding.bias"] = torch.randn(width)
    return encoder


def _is_projection(key):
    return re.fullmatch(r"attentions\.\w+\.[qkv]\.(weight|bias)", key) is not None


def _renamed(key, mapping):
    for pattern, replacement in mapping:
        key, found = re.subn(pattern, replacement, key)
        if found:
            break
    return key
