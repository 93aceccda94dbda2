"""Format of checkpoints: the native transformers model saves itself, and all other weights are saved next to it.

full_model -> config.json, model.safetensors (or one sub-folder per part); heads, teachers, ... -> pretext.safetensors
"""

import json
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, cached_file

from .registry import names
from .utils.files import atomic_path, write_json
from .utils.foreign import check_folder
from .utils.paths import without_paths

PRETEXT_WEIGHTS = "pretext.safetensors"
FULL_MODEL = "full_model."  # prefix of the native model's weights in a PretextModel's state dict
OLD_HEADS = "pretext_head."  # prefix of heads in model.safetensors, in the format before pretext.safetensors
QUANTISATION = ("quantization_config", "load_in_8bit", "load_in_4bit")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
SHOWN = 5  # names of weights that an error lists


class PartedModel(PreTrainedModel):
    """A model of several native transformers models, the parts, for combinations that transformers has no class for.

    Each part is saved in a sub-folder that `AutoModel.from_pretrained(folder, subfolder=...)` loads. Weights outside
    all parts are saved in pretext.safetensors."""

    def parts(self, state_dict: Mapping[str, Tensor]) -> dict[str, tuple[PreTrainedModel, dict[str, Tensor]]]:
        """Returns `{sub-folder: (native model, its weights)}`. state_dict: weights of the complete model."""
        raise NotImplementedError(f"{type(self).__name__} does not implement parts().")

    def outside_parts(self) -> set[str]:
        """Returns the names of the weights outside all parts."""
        return set()

    @classmethod
    def subfolders(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        """Returns the sub-folders of the parts of a model with this config."""
        raise NotImplementedError(f"{cls.__name__} does not implement subfolders().")

    @classmethod
    def joined(cls, config: PreTrainedConfig, parts: dict[str, PreTrainedModel]) -> "PartedModel":
        """Builds the model from its parts, in their dtype. Raises `ValueError` for parts that do not fit together."""
        raise NotImplementedError(
            f"{cls.__name__} does not implement joined(). Subclasses of PartedModel must implement joined(config, "
            "parts), which builds the model from its parts."
        )

    def save_pretrained(self, save_directory: str | PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Writes config.json, all parts and pretext.safetensors.

        kwargs: arguments of `PreTrainedModel.save_pretrained`, passed to every part."""
        state, folder = dict(state_dict or self.state_dict()), Path(save_directory)
        for name, (part, weights) in self.parts(state).items():
            part.save_pretrained(folder / name, state_dict=weights, **kwargs)
            if kwargs.get("is_main_process", True):
                rewrite_config(folder / name)
        if kwargs.get("is_main_process", True):
            self.config.dtype = str(self.dtype).removeprefix("torch.")
            self.config.architectures = [type(self).__name__]
            self.config.save_pretrained(folder)
            write_weights(folder, {FULL_MODEL + name: state[name] for name in self.outside_parts()})

    @classmethod
    def from_pretrained(cls, path: str | PathLike, *, config=None, output_loading_info: bool = False, **kwargs):
        """Loads each part with `AutoModel.from_pretrained`, and the weights outside all parts.

        kwargs: arguments of `AutoModel.from_pretrained`, passed to every part. Returns the model, or with
        `output_loading_info` the model and the missing and unexpected keys of its parts. Raises `ValueError` for parts
        that do not fit together, and if a sub-folder is missing or pretext.safetensors lacks a weight."""
        hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        kwargs = {
            k: v for k, v in kwargs.items() if not k.startswith("_") and k not in ("adapter_kwargs", "state_dict")
        } | {"trust_remote_code": False}
        folder = hub.pop("subfolder", None) or ""
        config = config if config is not None else cls.config_class.from_pretrained(path, subfolder=folder, **hub)
        # AutoModel moves the argument to the config
        attention = kwargs.pop("attn_implementation", None) or config._attn_implementation
        if attention is not None:
            config._attn_implementation = kwargs["attn_implementation"] = attention
        parts, info = {}, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
        for name in cls.subfolders(config):
            where = {**hub, "subfolder": os.path.join(folder, name)}
            check_part(path, name, where)
            parts[name], of_part = AutoModel.from_pretrained(path, output_loading_info=True, **where, **kwargs)
            for kind in ("missing_keys", "unexpected_keys"):
                info[kind] |= {f"{name}.{key}" for key in of_part[kind]}
        model = cls.joined(config, parts)
        outside = {FULL_MODEL + name for name in model.outside_parts()}
        if outside:
            saved = read_weights(path, {**hub, "subfolder": folder})
            fill(model, {name: saved[name] for name in outside & saved.keys()}, outside, path, FULL_MODEL)
        model.eval()
        return (model, info) if output_loading_info else model


class NativeCheckpoint:
    """Saves and loads a `PretextModel`.

    The folder is a checkpoint of the native model, with an additional entry `pretext` in config.json. All other weights
    of the state dict are in pretext.safetensors, under the same names."""

    objective: ClassVar[str]
    task_class: ClassVar[type]
    auto_class: ClassVar[type]
    full_model: PreTrainedModel

    @classmethod
    def auto_class_of(cls, task) -> type:
        """Returns the auto class of the native model for these settings."""
        return cls.auto_class

    @property
    def pretext(self) -> dict[str, Any]:
        """The entry `pretext` of config.json: the objective, its settings, and the configs of additional modules."""
        raise NotImplementedError

    def kept_outside(self) -> set[str]:
        """Returns the names in the state dict that are saved in pretext.safetensors, not in the native checkpoint."""
        names = {name for name in self.state_dict() if not name.startswith(FULL_MODEL)}
        if isinstance(self.full_model, PartedModel):
            names |= {FULL_MODEL + name for name in self.full_model.outside_parts()}
        return names

    def save_pretrained(self, save_directory: str | PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Writes the native model's checkpoint and pretext.safetensors, like `PreTrainedModel.save_pretrained`.

        state_dict: weights to save; default: the weights of the model. An empty one counts as the default, because
        ranks that do not save get an empty one. Raises `ValueError` if its names are not those of this model."""
        push_to_hub = kwargs.pop("push_to_hub", False)
        hub = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if name in kwargs}
        state, folder = self.state_dict() if not state_dict else dict(state_dict), Path(save_directory)
        check_names(state.keys(), self.state_dict().keys(), "The state_dict to save", type(self).__name__)
        outside = {name: state[name] for name in sorted(self.kept_outside())}
        native = {name.removeprefix(FULL_MODEL): value for name, value in state.items() if name.startswith(FULL_MODEL)}
        self.full_model.save_pretrained(folder, state_dict=native, **kwargs)
        if kwargs.get("is_main_process", True):
            rewrite_config(folder, pretext=self.pretext)
            write_weights(folder, outside)
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), token=kwargs.get("token"), **hub)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs):
        """Loads a folder or Hub repository that `save_pretrained` wrote. The model is in evaluation mode.

        kwargs: arguments of `PreTrainedModel.from_pretrained` for the native model (dtype, attn_implementation,
        device_map, revision, token, subfolder, ...). Heads get the device and dtype of the native model.
        Raises `ValueError` for a checkpoint of another objective, a plain checkpoint, a checkpoint in an older format,
        a missing or unexpected weight, a weight of another shape, quantisation, and `output_loading_info`."""
        path = pretrained_model_name_or_path
        refused = [name for name in QUANTISATION if kwargs.get(name)]
        if refused:
            raise ValueError(
                f"{refused[0]}: quantised weights can't be trained, so a pretext model can't be quantised. Leave it "
                f"out, or load the encoder alone: AutoModel.from_pretrained({str(path)!r}, ...)."
            )
        if kwargs.pop("output_loading_info", False):
            raise ValueError(
                "output_loading_info is not supported: a missing or unexpected weight raises an error. Leave it out."
            )
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        config = read_config(path, hub)
        pretext = read_pretext(config, path)
        if pretext["objective"] != cls.objective:
            raise ValueError(
                f"{path} was pretrained with the objective {pretext['objective']!r}, not {cls.objective!r}. Load it "
                f"with hf_pretext.load({str(path)!r}), or start from its encoder: "
                f"{cls.__name__}.from_encoder(AutoModel.from_pretrained({str(path)!r}))."
            )
        with torch.random.fork_rng(devices=[]):  # fill() overwrites the random heads
            task = cls.settings_of(pretext)
            model = cls(load_native(cls.auto_class_of(task), path, **kwargs), task, pretext.get("parts"))
        model.follow_full_model()
        outside = model.kept_outside()
        if outside:
            fill(model, read_weights(path, hub), outside, path)
        return model.eval()

    def follow_full_model(self) -> None:
        """Moves heads and other modules to the device and dtype of the native model.

        Modules that `_keep_in_fp32_modules_strict` names, like a teacher, stay in float32."""
        device, dtype, kept = self.full_model.device, self.full_model.dtype, self._keep_in_fp32_modules_strict or ()
        for name, module in self.named_children():
            if module is not self.full_model:
                module.to(device, torch.float32 if name in kept else dtype)
        for values in (self._parameters, self._buffers):
            for value in values.values():
                if value is not None:
                    value.data = value.data.to(device, dtype if value.is_floating_point() else None)


PUSH_ARGUMENTS = ("repo_id", "private", "commit_message", "commit_description", "create_pr", "revision", "tags")


def load_native(auto_class: type, path: str | PathLike, **kwargs) -> PreTrainedModel:
    """Loads the native model of a checkpoint.

    kwargs: arguments of `from_pretrained`. Raises `ValueError` for a missing or unexpected weight, a weight of another
    shape, and a checkpoint in an older format."""
    try:
        model, info = auto_class.from_pretrained(path, output_loading_info=True, trust_remote_code=False, **kwargs)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"{path} has weights whose shapes do not match its config.json. The checkpoint is damaged, or its config "
            "was edited: download or copy it again."
        ) from error
    unexpected = sorted(info["unexpected_keys"])
    if any(name.startswith(OLD_HEADS) for name in unexpected):
        raise ValueError(older_form(path))
    check_names(set(), info["missing_keys"], path, type(model).__name__)
    check_names(unexpected, set(), path, type(model).__name__)
    return model


def rewrite_config(folder: Path, **entries) -> None:
    """Adds entries to the config.json of a folder, and removes the paths of this machine."""
    written = json.loads((folder / CONFIG_NAME).read_text())
    write_json(folder / CONFIG_NAME, {**without_paths(written), **entries})


def read_config(path: str | PathLike, hub: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a checkpoint's config.json.

    hub: arguments of `cached_file`, like `revision` and `subfolder`. Raises `ValueError` for a folder with files that
    can't be read safely."""
    check_folder(Path(path) / (hub.get("subfolder") or ""), names("modalities"))
    return PreTrainedConfig.get_config_dict(path, **hub)[0]


def check_part(path: str | PathLike, name: str, where: Mapping[str, Any]) -> None:
    """Raises `ValueError` if the sub-folder of a part is missing, or lies outside of the checkpoint.

    name: of the sub-folder. where: arguments of `cached_file`, with the sub-folder."""
    if Path(name).name != name or name == "..":
        raise ValueError(f"{path} names the sub-folder {name!r} in its {CONFIG_NAME}, which is not inside of it.")
    quiet = {"_raise_exceptions_for_missing_entries": False}
    if cached_file(path, CONFIG_NAME, **where, **quiet) is None:
        raise ValueError(
            f"{path} lacks the sub-folder {name}/ with the {CONFIG_NAME} of its {name} encoder. The checkpoint is "
            "incomplete: download or copy it again, with all its sub-folders."
        )


def older_form(path: str | PathLike) -> str:
    """Returns the error message for a checkpoint in the format before pretext.safetensors."""
    return (
        f"{path} is a checkpoint in an older format, with its heads in {SAFE_WEIGHTS_NAME}. Load it with the version "
        "of hf_pretext that wrote it, or start from its encoder: from_encoder(AutoModel.from_pretrained(...))."
    )


def read_pretext(config: PreTrainedConfig | dict, path: str | PathLike) -> dict[str, Any]:
    """Returns the entry `pretext` of a checkpoint's config. Raises `ValueError` for a plain checkpoint."""
    values = config if isinstance(config, dict) else vars(config)
    pretext = values.get("pretext")
    if not isinstance(pretext, dict) or "objective" not in pretext:
        kind = values.get("model_type") or getattr(config, "model_type", "transformers")
        raise ValueError(
            f"{path} has no `pretext` entry in its config.json: it is a plain {kind} checkpoint. To start "
            f"pretraining from it: <Objective>ForPreTraining.from_encoder(AutoModel.from_pretrained({str(path)!r}))."
        )
    return pretext


def read_weights(path: str | PathLike, hub: Mapping[str, Any]) -> dict[str, Tensor]:
    """Loads the tensors of pretext.safetensors to the CPU.

    hub: arguments of `cached_file`, like `revision` and `subfolder`. Raises `ValueError` if the file is missing."""
    hub = {name: value for name, value in hub.items() if value is not None}
    quiet = {"_raise_exceptions_for_missing_entries": False}
    file = cached_file(path, PRETEXT_WEIGHTS, **hub, **quiet)
    if file is not None:
        return load_file(file)
    folder = Path(path) / hub.get("subfolder", "")
    if (folder / "image" / CONFIG_NAME).exists() and (folder / SAFE_WEIGHTS_NAME).exists():
        raise ValueError(older_form(path))
    raise ValueError(
        f"{path} has no {PRETEXT_WEIGHTS}, so the weights of its heads are missing. The encoder was saved alone, or "
        "the checkpoint is incomplete. Start from its encoder: from_encoder(AutoModel.from_pretrained(...))."
    )


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes pretext.safetensors. Without weights, removes the file."""
    path, storages, tensors = folder / PRETEXT_WEIGHTS, set(), {}
    for name, value in weights.items():
        value = value.detach().contiguous().cpu()
        storage = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if storage in storages else value  # safetensors refuses tensors that share memory
        storages.add(storage)
    if not tensors:
        path.unlink(missing_ok=True)  # an earlier model may have written it
        return
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


@torch.no_grad()
def fill(
    module: nn.Module, saved: Mapping[str, Tensor], names: set[str], path: str | PathLike, prefix: str = ""
) -> None:
    """Copies saved tensors into a module.

    names: the expected names in `saved`. prefix: start of these names that the module's names do not have. path: named
    in errors. Raises `ValueError` for a missing or unexpected name, and for a tensor of another shape."""
    check_names(saved.keys(), names, f"{path}: {PRETEXT_WEIGHTS}", type(module).__name__)
    state = module.state_dict()
    for name, value in saved.items():
        target = state[name.removeprefix(prefix)]
        if target.shape != value.shape:
            raise ValueError(
                f"{path} has weights whose shapes do not match its config.json: {name} has the shape "
                f"{tuple(value.shape)}, not {tuple(target.shape)}. The checkpoint is damaged, or its config was "
                "edited: download or copy it again."
            )
        target.copy_(value)


def check_names(names: Iterable[str], expected: Iterable[str], path: str | PathLike, model: str) -> None:
    """Raises `ValueError` with the missing or unexpected names of weights, if there are any."""
    missing, unexpected = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} weights of {model}, which would stay random: {listed(missing)}. "
            "The checkpoint is damaged or incomplete: download or copy it again."
        )
    if unexpected:
        raise ValueError(
            f"{path} has {len(unexpected)} weights that {model} does not have: {listed(unexpected)}. Its config.json "
            "was edited, or another version of hf_pretext wrote it: use that version or the original config.json."
        )


def listed(names: list[str]) -> str:
    """Joins the first names with commas; "..." stands for the others."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
