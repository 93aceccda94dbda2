"""Ablations: runs of a recipe with changed settings, each in its own process. The scripts *_ablation.py use it."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"
QUIET = ["--save_strategy", "no", "--disable_tqdm", "True", "--eval_dataset", "none"]


def recipe_of(name: str):
    """Imports a recipe by its name."""
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(RECIPES))
    spec.loader.exec_module(module)
    return module.recipe


def run_all(script: list[str], names: list[str], seeds: list[int], jobs: int, seconds: float, given: list[str]) -> dict:
    """Runs the script with `--one NAME SEED`, for all names with all seeds, `jobs` at a time. given: options for all
    runs. Each run prints its metrics as JSON in its last line. Returns the metrics of each name, a dict per seed.

    Leaves out runs that fail, and runs that do not finish within `seconds`.
    """
    queue = [(name, seed) for seed in seeds for name in names]
    results: dict[str, list[dict]] = {name: [] for name in names}
    running, end = {}, time.monotonic() + seconds
    try:
        while (queue or running) and time.monotonic() < end:
            while queue and len(running) < jobs:
                name, seed = queue.pop(0)
                log = tempfile.TemporaryFile("w+")  # noqa: SIM115
                command = [sys.executable, *script, "--one", name, str(seed), *given]
                running[subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)] = name, seed, log
            for process in [process for process in running if process.poll() is not None]:
                name, seed, log = running.pop(process)
                log.seek(0)
                lines = log.read().strip().splitlines()
                if process.returncode:
                    print(f"{name}, seed {seed} failed:", *lines[-20:], sep="\n", file=sys.stderr, flush=True)
                    continue
                results[name].append(json.loads(lines[-1]))
                print(f"{name}, seed {seed}: {results[name][-1]}", flush=True)
            time.sleep(0.2)
    finally:
        for process in running:
            process.kill()
    return {name: runs for name, runs in results.items() if runs}


def where() -> str:
    """Returns the hardware of this machine in words."""
    import torch

    from hf_pretext.cards.results import hardware
    from hf_pretext.utils.machine import describe

    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return hardware(describe(device))
