"""Every option of transformers' Trainer works here, is refused with the reason, or changes nothing."""

import dataclasses

import pytest
from transformers import TrainingArguments

from hf_pretext.utils.options import HARMLESS, REFUSED, WORKS, refuse_options

FIELDS = {field.name: field for field in dataclasses.fields(TrainingArguments)}
VALUES = {  # of the refused options that are not switched on by True
    "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0, "liger_kernel_config": {"rope": True},
    "train_sampling_strategy": "group_by_length", "length_column_name": "size", "dataloader_in_order": False,
    "dataloader_multiprocessing_context": "spawn", "per_device_eval_batch_size": 64, "eval_do_concat_batches": False,
    "eval_accumulation_steps": 4, "include_for_metrics": ["loss"], "fsdp": "full_shard", "fsdp_config": {"version": 2},
    "deepspeed": "zero.json", "parallelism_config": "tp",
}  # fmt: skip


def arguments(tmp_path, **options) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)


def test_every_field_is_in_exactly_one_list():
    lists = [set(WORKS), set(REFUSED), set(HARMLESS)]
    unlisted = sorted(FIELDS.keys() - set.union(*lists))
    assert not unlisted, f"decide whether these work in PretextTrainer: {unlisted}"
    assert sum(map(len, lists)) == len(set.union(*lists))


def test_names_that_transformers_does_not_have_are_not_listed():
    later = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # from transformers 5.23 on
    assert {*WORKS, *REFUSED, *HARMLESS} - FIELDS.keys() <= later


def test_defaults_are_not_refused(tmp_path):
    refuse_options(arguments(tmp_path))
    refuse_options(arguments(tmp_path, eval_strategy="steps", eval_steps=2, dataloader_num_workers=2, bf16=True))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_option_without_effect_is_refused_with_its_value_and_the_reason(tmp_path, name):
    args, value = arguments(tmp_path), VALUES.get(name, True)
    assert value != FIELDS[name].default
    setattr(args, name, value)  # some can't be given without their library
    with pytest.raises(ValueError, match=f"--{name} .*(Leave it out|Give a smaller)") as refusal:
        refuse_options(args)
    assert "would shard" in str(refusal.value) or str(value) in str(refusal.value)


@pytest.mark.parametrize("name", ["split_batches", "even_batches", "dispatch_batches", "non_blocking"])
def test_settings_of_accelerates_loader_are_refused(tmp_path, name):
    args = arguments(tmp_path, accelerator_config={name: name != "even_batches"})
    with pytest.raises(ValueError, match=f"--accelerator_config {name}="):
        refuse_options(args)
    refuse_options(arguments(tmp_path, accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}}))


def test_a_start_method_that_transformers_sets_on_a_mac_is_not_refused(tmp_path):
    refuse_options(arguments(tmp_path, dataloader_multiprocessing_context="fork"))


def test_several_gpus_in_one_process_are_refused(tmp_path):
    args = arguments(tmp_path)
    assert args.n_gpu <= 1
    args._n_gpu = 4
    with pytest.raises(ValueError, match=r"One process has 4 GPUs.*accelerate launch --num_processes 4"):
        refuse_options(args)
