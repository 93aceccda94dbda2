"""What lies on disk: the native model saves itself, and everything that transformers does not know lies next to it.

full_model -> config.json, model.safetensors (or a sub-folder for each part); heads and the like -> pretext.safetensors
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

from .utils.files import atomic_path, write_json

PRETEXT_WEIGHTS = "pretext.safetensors"
FULL_MODEL = "full_model."  # what the names of the native model's weights begin with in ours
OLD_HEADS = "pretext_head."  # what model.safetensors held, too, before there was pretext.safetensors
QUANTISATION = ("quantization_config", "load_in_8bit", "load_in_4bit")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
SHOWN = 5  # names in an error


class PartedModel(PreTrainedModel):
    """A model that transformers has no class for. Its parts are native models, each saved in a sub-folder that
    `AutoModel.from_pretrained(folder, subfolder=...)` loads; what no part holds goes to pretext.safetensors."""

    def parts(self, state_dict: Mapping[str, Tensor]) -> dict[str, tuple[PreTrainedModel, dict[str, Tensor]]]:
        """By sub-folder: a native model, and its weights out of a state dict of all."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its parts are.")

    def outside_parts(self) -> set[str]:
        """Names of the weights that no part holds."""
        return set()

    @classmethod
    def subfolders(cls, config: PreTrainedConfig) -> tuple[str, ...]:
        """Where the parts of a model of this config lie."""
        raise NotImplementedError(f"{cls.__name__} does not say where its parts are.")

    @classmethod
    def joined(cls, config: PreTrainedConfig, parts: dict[str, PreTrainedModel]) -> "PartedModel":
        """The model of these parts, in their type of numbers. Raises `ValueError` for parts that do not agree."""
        raise NotImplementedError(f"{cls.__name__} does not say how its parts are put together.")

    def save_pretrained(self, save_directory: str | PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Writes config.json, the parts and pretext.safetensors. kwargs: of `PreTrainedModel.save_pretrained`, for each
        part."""
        state, folder = dict(state_dict or self.state_dict()), Path(save_directory)
        for name, (part, weights) in self.parts(state).items():
            part.save_pretrained(folder / name, state_dict=weights, **kwargs)
        if kwargs.get("is_main_process", True):
            self.config.dtype = str(self.dtype).removeprefix("torch.")
            self.config.architectures = [type(self).__name__]
            self.config.save_pretrained(folder)
            write_weights(folder, {FULL_MODEL + name: state[name] for name in self.outside_parts()})

    @classmethod
    def from_pretrained(cls, path: str | PathLike, *, config=None, output_loading_info: bool = False, **kwargs):
        """Loads the parts, each by `AutoModel.from_pretrained` with these arguments, and what no part holds.

        Returns the model, and with `output_loading_info` what its parts lack or have too much. Raises `ValueError` for
        parts that do not agree, and where pretext.safetensors lacks something."""
        hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        kwargs = {
            k: v for k, v in kwargs.items() if not k.startswith("_") and k not in ("adapter_kwargs", "state_dict")
        }
        folder = hub.pop("subfolder", None) or ""
        config = config if config is not None else cls.config_class.from_pretrained(path, subfolder=folder, **hub)
        attention = kwargs.pop("attn_implementation", None) or config._attn_implementation  # AutoModel puts it there
        if attention is not None:
            config._attn_implementation = kwargs["attn_implementation"] = attention
        parts, info = {}, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
        for name in cls.subfolders(config):
            where = {**hub, "subfolder": os.path.join(folder, name)}
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
    """How a pretext model is saved and loaded; `PretextModel` says what it consists of.

    The folder is the native model's checkpoint, with an entry `pretext` in config.json; next to it pretext.safetensors
    holds what is left of the state dict, under the names that it has there."""

    objective: ClassVar[str]
    task_class: ClassVar[type]
    auto_class: ClassVar[type]
    full_model: PreTrainedModel

    @property
    def pretext(self) -> dict[str, Any]:
        """The entry of config.json: the objective, its settings, and what modules of its own are made of."""
        raise NotImplementedError

    def kept_outside(self) -> set[str]:
        """Names of the state dict that the native checkpoint does not hold."""
        names = {name for name in self.state_dict() if not name.startswith(FULL_MODEL)}
        if isinstance(self.full_model, PartedModel):
            names |= {FULL_MODEL + name for name in self.full_model.outside_parts()}
        return names

    def save_pretrained(self, save_directory: str | PathLike, state_dict: dict | None = None, **kwargs) -> None:
        """Writes the native model's checkpoint and pretext.safetensors, as `PreTrainedModel.save_pretrained`.

        state_dict: in place of the model's own; an empty one, as ranks without a part in saving have, stands for it.
        Raises `ValueError` for one that is not of this model."""
        push_to_hub = kwargs.pop("push_to_hub", False)
        hub = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if name in kwargs}
        state, folder = self.state_dict() if not state_dict else dict(state_dict), Path(save_directory)
        check_names(state.keys(), self.state_dict().keys(), "The state_dict to save", type(self).__name__)
        outside = {name: state[name] for name in sorted(self.kept_outside())}
        native = {name.removeprefix(FULL_MODEL): value for name, value in state.items() if name.startswith(FULL_MODEL)}
        self.full_model.save_pretrained(folder, state_dict=native, **kwargs)
        if kwargs.get("is_main_process", True):
            written = json.loads((folder / CONFIG_NAME).read_text())
            write_json(folder / CONFIG_NAME, {**written, "pretext": self.pretext})
            write_weights(folder, outside)
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), token=kwargs.get("token"), **hub)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs):
        """Loads a folder or Hub repository that `save_pretrained` wrote, in `eval()`.

        kwargs: of `PreTrainedModel.from_pretrained` (dtype, attn_implementation, device_map, revision, token,
        subfolder, ...), for the native model; heads follow its device and type of numbers. Raises `ValueError` when the
        checkpoint belongs to another objective or to none, is of an older form, lacks a weight, or has one too much or
        of another size; and for quantisation and `output_loading_info`."""
        path = pretrained_model_name_or_path
        refused = [name for name in QUANTISATION if kwargs.get(name)]
        if refused:
            raise ValueError(
                f"{refused[0]}: a pretext model is trained, and quantised weights can't be. Load it without, or the "
                f"encoder alone: AutoModel.from_pretrained({str(path)!r}, ...)."
            )
        if kwargs.pop("output_loading_info", False):
            raise ValueError("output_loading_info: here all weights are loaded, or it is an error. Leave it out.")
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        config, _ = PreTrainedConfig.get_config_dict(path, **hub)
        pretext = read_pretext(config, path)
        if pretext["objective"] != cls.objective:
            raise ValueError(
                f"{path} was pretrained with the objective {pretext['objective']!r}, not {cls.objective!r}. Load it "
                f"with hf_pretext.load({str(path)!r}), or start from its encoder: "
                f"{cls.__name__}.from_encoder(AutoModel.from_pretrained({str(path)!r}))."
            )
        with torch.random.fork_rng(devices=[]):  # heads are drawn, and then filled
            model = cls(load_native(cls.auto_class, path, **kwargs), cls.settings_of(pretext), pretext.get("parts"))
        model.follow_full_model()
        outside = model.kept_outside()
        if outside:
            fill(model, read_weights(path, hub), outside, path)
        return model.eval()

    def follow_full_model(self) -> None:
        """Moves everything else to the native model's device and type of numbers; a module that is named in
        `_keep_in_fp32_modules_strict`, as a teacher, stays in float32."""
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
    """The native model of a checkpoint, with all of its weights and none too many, or `ValueError`."""
    try:
        model, info = auto_class.from_pretrained(path, output_loading_info=True, **kwargs)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"{path} has weights of other sizes than its config.json says. The checkpoint is damaged, or its config "
            "was changed."
        ) from error
    unexpected = sorted(info["unexpected_keys"])
    if any(name.startswith(OLD_HEADS) for name in unexpected):
        raise ValueError(older_form(path))
    check_names(set(), info["missing_keys"], path, type(model).__name__)
    check_names(unexpected, set(), path, type(model).__name__)
    return model


def older_form(path: str | PathLike) -> str:
    """What an error says of a checkpoint from before pretext.safetensors."""
    return (
        f"{path} is a checkpoint of an older form, with its heads in {SAFE_WEIGHTS_NAME}. Load it with the version of "
        "hf_pretext that wrote it, or start from its encoder: from_encoder(AutoModel.from_pretrained(...))."
    )


def read_pretext(config: PreTrainedConfig | dict, path: str | PathLike) -> dict[str, Any]:
    """The entry `pretext` of a checkpoint's config. Raises `ValueError` for a plain one, which has none."""
    values = config if isinstance(config, dict) else vars(config)
    pretext = values.get("pretext")
    if not isinstance(pretext, dict) or "objective" not in pretext:
        kind = values.get("model_type") or getattr(config, "model_type", "transformers")
        raise ValueError(
            f"{path} has no `pretext` entry in its config.json: it is a plain {kind} checkpoint. To "
            f"pretrain from it: <Objective>ForPreTraining.from_encoder(AutoModel.from_pretrained({str(path)!r}))."
        )
    return pretext


def read_weights(path: str | PathLike, hub: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of pretext.safetensors, on the CPU. hub: arguments of loading, as `revision` and `subfolder`. Raises
    `ValueError` where there is no such file."""
    hub = {name: value for name, value in hub.items() if value is not None}
    quiet = {"_raise_exceptions_for_missing_entries": False}
    file = cached_file(path, PRETEXT_WEIGHTS, **hub, **quiet)
    if file is not None:
        return load_file(file)
    folder = Path(path) / hub.get("subfolder", "")
    if (folder / "image" / CONFIG_NAME).exists() and (folder / SAFE_WEIGHTS_NAME).exists():
        raise ValueError(older_form(path))
    raise ValueError(
        f"{path} has no {PRETEXT_WEIGHTS}: its heads are not there. The encoder was saved alone, or the checkpoint is "
        "cut. Start from its encoder: from_encoder(AutoModel.from_pretrained(...))."
    )


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes pretext.safetensors; no file where there are no weights."""
    path, storages, tensors = folder / PRETEXT_WEIGHTS, set(), {}
    for name, value in weights.items():
        value = value.detach().contiguous().cpu()
        storage = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if storage in storages else value  # safetensors takes no shared memory
        storages.add(storage)
    if not tensors:
        path.unlink(missing_ok=True)  # of an earlier model
        return
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


@torch.no_grad()
def fill(
    module: nn.Module, saved: Mapping[str, Tensor], names: set[str], path: str | PathLike, prefix: str = ""
) -> None:
    """Copies saved tensors into a module. names: which those must be; prefix: of them, where the module has none.

    Raises `ValueError` for a name that is missing or too much, and for a tensor of another shape."""
    check_names(saved.keys(), names, f"{path}: {PRETEXT_WEIGHTS}", type(module).__name__)
    state = module.state_dict()
    for name, value in saved.items():
        target = state[name.removeprefix(prefix)]
        if target.shape != value.shape:
            raise ValueError(
                f"{path} has weights of other sizes than its config.json says: {name} is of shape "
                f"{tuple(value.shape)}, not {tuple(target.shape)}. The checkpoint is damaged, or its config changed."
            )
        target.copy_(value)


def check_names(names: Iterable[str], expected: Iterable[str], path: str | PathLike, model: str) -> None:
    """Raises `ValueError` unless the names of weights are those expected, and says which are not."""
    missing, unexpected = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the weights of {model}, which would stay random: {listed(missing)}. The "
            "checkpoint is damaged or cut."
        )
    if unexpected:
        raise ValueError(
            f"{path} has {len(unexpected)} weights that {model} does not: {listed(unexpected)}. Its config.json was "
            "changed, or it is of another version."
        )


def listed(names: list[str]) -> str:
    """The first names, and whether there are more."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
