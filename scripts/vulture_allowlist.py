"""Names that vulture finds unused though they are used: by whom, and why. `scripts/check` reads this.

Public names that only users call are here too, each with what it is for.
"""

# pluggy calls hooks by their names, click calls commands.
_.register_adapters
_.register_backbones
_.register_region_sources
_.register_data_formats
_.register_benchmarks
_.describe
_.quickstart

# reprlib reads these, and calls those by the name of a value's type.
_.maxlevel
_.maxlist
_.maxtuple
_.maxset
_.maxfrozenset
_.maxdeque
_.maxarray
_.repr_dict
_.repr_instance
_.repr_bytearray

# PEFT and transformers read these.
_.target_modules
_.hf_device_map

# click reads an exception's exit code.
_.exit_code

# The Hugging Face Trainer and its callbacks call these, and read these attributes.
_.on_train_begin
_.on_train_end
_.on_step_end
_.on_log
_.on_pre_optimizer_step
_.on_epoch_begin
_.prediction_step
_.prediction_loss_only
_._get_train_sampler
_._get_output_dir
_.remove_unused_columns
_.label_names
_.logging_dir
_.should_training_stop

# Other libraries read these: pickle, pydantic, PEFT, tokenizers, PyAV, transformers' SAM 2.
_.find_class
_.model_config
_.base_model_name_or_path
_.pre_tokenizer
_.thread_count
_.pix_fmt
_.max_b_frames
_.bit_rate
_.dynamic_multimask_via_stability
_.obj_with_new_inputs
_.initializer_range
attention_mask
input_masks
input_boxes
input_points
input_labels

# Fields that are read by name: weights of losses, and what is written as JSON.
_.mask_weight
_.dice_weight
_.iou_weight
_.presence_weight
_.samples_per_epoch
_.format_version

# Protocols say what is called.
_.__call__

# Click asks for these, transformers calls that.
_.context_class
_.command_class
_.formatter_class
_.on_finalized_text

# For users: metrics of a video, fewer frames of a region, a configuration from Python.
_.add_video
_.thinned
_.from_mapping

# A tokenizer's, which the tokenizers library runs.
_.post_processor

# transformers' TensorBoardCallback reads these.
_.tb_writer
_._SummaryWriter
