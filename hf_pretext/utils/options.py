"""Which options of transformers' `TrainingArguments` work here, which are refused, and which change nothing.

Each field of `TrainingArguments` is in exactly one of `WORKS`, `REFUSED` and `HARMLESS`. A test compares them with the
installed version.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from accelerate.utils import str_to_bool
from transformers import TrainingArguments

WORKS = {
    "output_dir", "per_device_train_batch_size", "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "optim_target_modules", "gradient_accumulation_steps", "max_grad_norm", "bf16", "fp16", "tf32",
    "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "torch_compile", "torch_compile_backend", "torch_compile_mode",
    "torch_empty_cache_steps", "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node",
    "include_num_input_tokens_seen", "log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name",
    "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "eval_strategy", "eval_steps",
    "eval_delay", "eval_on_start", "save_only_model", "save_strategy", "save_steps", "save_on_each_node",
    "save_total_limit", "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy",
    "hub_always_push", "hub_revision", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "restore_callback_states_from_checkpoint", "full_determinism", "seed", "data_seed", "use_cpu",
    "accelerator_config", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
    "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend",
    "ddp_timeout", "debug", "skip_memory_metrics", "resume_from_checkpoint",
}  # fmt: skip

HARMLESS = {
    "logging_nan_inf_filter": "always off: a loss that is not finite ends the run (see stream/divergence.py)",
    "average_tokens_across_devices": "losses are means over samples or tokens of all processes, or of each",
    "ignore_data_skip": "a resumed run starts at its next sample, without skipping over the others",
    "dataloader_persistent_workers": "workers always live as long as the run",
    "remove_unused_columns": "columns are those of the kinds of data",
    "label_names": "labels are made in the model",
    "use_cache": "encoders keep no keys and values",
    "do_train": "for scripts, not for Trainer",
    "do_eval": "for scripts, not for Trainer; --eval_strategy sets it",
    "do_predict": "for scripts, not for Trainer",
    "local_rank": "set by launchers",
}

SHARDS = (
    "would shard the model over devices, but saving needs the complete model on each process: weights would be lost. "
    "Leave it out. Several processes train with DDP, without sharding."
)
OUR_LOSS = "has no effect: the objective computes the loss. Leave it out."
OUR_ORDER = "has no effect: the stream sets the order of the samples. Leave it out."
OUR_EVALUATION = "has no effect: the evaluation (kNN, probes, measures) is not Trainer's loop. Leave it out."

REFUSED = {  # by name: what is wrong and the fix
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), SHARDS),
    "label_smoothing_factor": OUR_LOSS,
    "neftune_noise_alpha": "has no effect: the objective makes the corruption. Leave it out.",
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config"), "has no effect on encoders. Leave it out."),
    **dict.fromkeys(("train_sampling_strategy", "length_column_name", "dataloader_in_order"), OUR_ORDER),
    "dataloader_drop_last": "has no effect: no batch is incomplete, as batches continue in the next epoch. Leave it "
    "out.",
    "dataloader_multiprocessing_context": "has no effect: workers start by the default of Python. Leave it out.",
    "per_device_eval_batch_size": "has no effect: eval_dataset is measured in batches of "
    "--per_device_train_batch_size, as losses may depend on the size of the batch. Leave it out.",
    **dict.fromkeys(
        ("prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object",
         "eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval"),
        OUR_EVALUATION,
    ),
    "auto_find_batch_size": "changes the batch size in the middle of a run, and results would name another. Give a "
    "smaller --per_device_train_batch_size.",
    "enable_jit_checkpoint": "saves in the middle of a step, and the run would not resume with the same samples. Give "
    "a smaller --save_steps.",
}  # fmt: skip

REFUSED_ARGUMENTS = {  # of Trainer
    "data_collator": "has no effect: the stream collates, so that a bad sample can be replaced in its batch. Leave it "
    "out. To change examples, give processing_class=Inputs(...) with a modality of yours.",
    "compute_metrics": "gets predictions of labels, but a pretext task makes its labels itself, and its metrics are in "
    "the logs. Leave it out. For other metrics, give evaluation=, a function model -> {name: value}.",
    "preprocess_logits_for_metrics": "has no effect without compute_metrics. Leave it out, or give evaluation=, a "
    "function model -> {name: value}.",
    "compute_loss_func": OUR_LOSS,
    "model_init": "is not supported: a resumed run needs the model that it began with. Give model=.",
}

SET_BY_TRANSFORMERS = {"dataloader_multiprocessing_context": "fork"}  # on a Mac, without being asked
OF_THE_LOADER = ("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler", "non_blocking")
OF_THE_LAUNCHER = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")


def refuse_options(args: TrainingArguments, given: Mapping[str, Any] | None = None) -> None:
    """Raises `ValueError` for an option that would have no effect or lose weights, with the reason, and for several
    GPUs in one process.

    given: options of the command line. They show what was asked for where the default of transformers is refused."""
    for option, reason in refused_options(args):
        raise ValueError(f"{option} {reason}")
    if args.n_gpu > 1:  # `DataParallel`
        raise ValueError(
            f"One process has {args.n_gpu} GPUs, which would train copies of the model that share its hooks and "
            "compare only their parts of a batch. Start one process per GPU: accelerate launch --num_processes "
            f"{args.n_gpu} <script>, or give it one GPU: CUDA_VISIBLE_DEVICES=0."
        )
    if (given or {}).get("logging_nan_inf_filter"):
        raise ValueError(
            "--logging_nan_inf_filter True would log NaN losses as 0, but a loss that is NaN or infinite ends the run. "
            "Leave it out."
        )


def refuse_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises `ValueError` for an argument of transformers' Trainer that would have no effect, with the reason."""
    for name, reason in REFUSED_ARGUMENTS.items():
        if arguments.get(name) is not None:
            raise ValueError(f"{name} {reason}")


def refused_options(args: TrainingArguments) -> Iterator[tuple[str, str]]:
    """Yields the refused options that are set, with the reason."""
    fields, values = TrainingArguments.__dataclass_fields__, vars(args)
    for name in [name for name in REFUSED if name in values]:
        value, default = values[name], fields[name].default
        default = None if default is dataclasses.MISSING else default  # of an empty list
        if (value or default) and value not in (default, SET_BY_TRANSFORMERS.get(name, default)):
            shown = "" if REFUSED[name] is SHARDS else f" {value}"
            yield f"--{name}{shown}", REFUSED[name]
    for name in OF_THE_LAUNCHER:
        if str_to_bool(os.environ.get(f"ACCELERATE_USE_{name}", "0")):
            yield f"ACCELERATE_USE_{name} (accelerate launch)", SHARDS
    config = values.get("accelerator_config")
    for name in OF_THE_LOADER if config is not None else ():
        value = getattr(config, name)
        if value != type(config).__dataclass_fields__[name].default:
            yield f"--accelerator_config {name}={value}", OUR_ORDER
