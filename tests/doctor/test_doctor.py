"""The checks of `hf-pretext doctor`, on a machine that can train and on machines with problems."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata

import pytest
import torch

from hf_pretext import doctor
from hf_pretext.doctor import Check, examine, hardware, network, show

TOKEN = "hf_" + "NotARealTokenButLongEnough"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns a function that installs the metadata of a package, without its files."""

    def install(name, version, **lines):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        entries = [f"{key.replace('_', '-')}: {value}" for key, values in lines.items() for value in values]
        (folder / "METADATA").write_text("\n".join([*head, *entries]) + "\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *(each for each in sys.path if each != str(tmp_path))])

    return install


@pytest.fixture
def online(monkeypatch):
    """Returns a function that sets the address of the Hub, and a token or none."""
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)

    def at(address, token=None):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
        monkeypatch.setenv("HF_TOKEN", token or "")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    return at


@contextmanager
def server(status=200, whoami=None, whoami_status=200):
    """Runs a local server that answers HEAD and whoami. Yields its address and a list of its requests."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, body=b"", **headers):
            asked.append((self.command, self.path, self.headers.get("Authorization")))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self):
            self.answer(status)

        def do_GET(self):
            echo = f"no such token: {self.headers.get('Authorization')}"
            body = echo if whoami is None else json.dumps(whoami)
            self.answer(whoami_status, body.encode(), X_Error_Message=echo)

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def by_name(checks):
    return {check.name: check for check in checks}


def only(monkeypatch, *names):
    monkeypatch.setattr(doctor, "LOOKS", tuple(look for look in doctor.LOOKS if look[0] in names))


def test_this_machine_can_train(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    checks = examine()
    assert not [check for check in checks if check.state == "broken"]
    assert all(bool(check.fix) == (check.state != "fine") for check in checks)
    found = by_name(checks)
    assert found["torch"].detail == metadata.version("torch")
    assert {"Python", "torch pair", "distributed", "disk", "HF_HOME", "Hub", "audio", "text"} <= found.keys()
    assert not {"test", "dev", "bench"} & found.keys()
    assert "offline mode" in found["Hub"].detail
    assert show(checks) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.splitlines()[-1].startswith("Training is possible here")


def test_a_package_too_old_is_broken(package, monkeypatch, capsys):
    package("datasets", "4.8.1")
    only(monkeypatch, "packages")
    checks = examine()
    found = by_name(checks)
    assert found["datasets"].state == "broken"
    assert found["datasets"].detail.startswith("4.8.1, but it needs ")
    assert found["transformers"].state == "fine"  # the other checks still run
    assert show(checks) == 1
    printed = capsys.readouterr().out
    assert "✗ datasets" in printed and "pip install" in printed
    assert printed.splitlines()[-1].startswith("Training is not possible here")


def test_bounds_are_those_of_the_metadata(package, monkeypatch):
    package(
        "hf_pretext",
        "9.0",
        Requires_Python=[">=3.99"],
        Provides_Extra=["sound", "dev"],
        Requires_Dist=[
            "nowhere-to-be-found<4,>=2",
            "rich>=1",
            "numpy>=1; sys_platform == 'none'",
            'soundfile>=999; extra == "sound"',
            'ruff>=999; extra == "dev"',
        ],
    )
    only(monkeypatch, "Python", "packages", "extras")
    found = by_name(examine())
    assert list(found) == ["Python", "nowhere-to-be-found", "others", "sound"]
    assert (found["Python"].state, "but it needs >=3.99" in found["Python"].detail) == ("broken", True)
    assert found["nowhere-to-be-found"].state == "broken"
    assert found["nowhere-to-be-found"].detail == "missing, needs <4,>=2"
    assert found["others"].detail == f"rich {metadata.version('rich')}"
    assert found["sound"].state == "lacking"


def test_the_bound_of_huggingface_hub_is_that_of_transformers(package, monkeypatch):
    package("huggingface_hub", "0.20")
    only(monkeypatch, "huggingface_hub")
    (check,) = examine()
    assert (check.name, check.state) == ("huggingface_hub", "broken")


def test_lacking_extras_let_train(package, monkeypatch, capsys):
    package("hf_pretext", "9.0", Provides_Extra=["audio"], Requires_Dist=['nowhere-found>=2; extra == "audio"'])
    only(monkeypatch, "packages", "extras")
    checks = examine()
    assert checks == [
        Check("audio", "lacking", "nowhere-found missing, needs >=2", "pip install 'hf_pretext[audio]'"),
    ]
    assert show(checks) == 0
    assert "fix: pip install 'hf_pretext[audio]'" in capsys.readouterr().out  # brackets are no markup


def test_metadata_without_files_do_not_count(package, tmp_path, monkeypatch):
    package("hf_pretext", "9.0", Requires_Dist=["emptied>=1"])
    package("emptied", "1.0")
    (tmp_path / "emptied-1.0.dist-info" / "top_level.txt").write_text("emptied\n")
    only(monkeypatch, "packages")
    assert examine()[0].detail == "1.0, but its files are missing"
    (tmp_path / "emptied.py").touch()
    assert by_name(examine())["others"].detail == "emptied 1.0"


def test_a_torchvision_that_does_not_fit(monkeypatch):
    only(monkeypatch, "torch pair")

    def lacking(*arguments):
        raise RuntimeError("operator torchvision::nms does not exist\nand a long story")

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.ops.nms", lacking)
        (check,) = examine()
    assert check.state == "broken" and check.detail.endswith("operator torchvision::nms does not exist")
    assert check.fix == "pip install --force-reinstall torch torchvision"
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert examine()[0].state == "broken"


def test_without_torch_there_are_lines_and_no_traceback(monkeypatch, capsys):
    only(monkeypatch, "torch pair", "device", "distributed", "disk")
    monkeypatch.setitem(sys.modules, "torch", None)
    checks = examine()
    states = {name: check.state for name, check in by_name(checks).items()}
    assert (states["torch pair"], states["device"]) == ("broken", "broken")
    assert "disk" in states
    assert show(checks) == 1
    assert "Traceback" not in capsys.readouterr().out


def test_without_huggingface_hub_there_are_lines_and_no_traceback():
    code = "import sys; sys.modules['huggingface_hub'] = None; from hf_pretext.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("Training is not possible here")


def test_an_exception_in_a_check_becomes_a_line(monkeypatch, capsys):
    only(monkeypatch, "Python", "disk")

    def fails(folder):
        raise OSError("\nthe disk\x1b[2J sulks\nat length")

    monkeypatch.setattr("shutil.disk_usage", fails)
    checks = examine()
    assert checks[-1] == Check("disk", "lacking", "this check failed: OSError: the disk [2J sulks")
    assert show(checks) == 0
    assert "the disk" in capsys.readouterr().out


@pytest.mark.parametrize("free, state", [(6e9, "fine"), (4.9e9, "lacking"), (0.1e9, "broken")])
def test_a_disk_nearly_full(free, state, monkeypatch, tmp_path):
    only(monkeypatch, "disk")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "not" / "made" / "yet"))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(1e12, 1e12 - free, free))
    here, home = examine()
    assert (here.state, home.state) == (state, state)
    assert "yet" in home.detail
    if state != "fine":
        assert "--save_total_limit" in here.fix and "HF_HOME=" in home.fix
    assert show([here, home]) == (state == "broken")


def test_a_folder_that_may_not_be_written(monkeypatch):
    only(monkeypatch, "disk")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert all(check.state == "lacking" and "not writable" in check.detail for check in examine())


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this system has no /dev/shm")
def test_shared_memory_as_docker_gives_it(monkeypatch):
    only(monkeypatch, "shared memory")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(2**26, 0, 2**26))
    (check,) = examine()
    assert check.state == "lacking" and "--shm-size" in check.fix


def test_a_hub_that_answers_and_knows_the_token(online, monkeypatch):
    only(monkeypatch, "Hub")
    with server(whoami={"name": "alice", "auth": {"accessToken": {"role": "write"}}}) as (address, asked):
        online(address, TOKEN)
        assert examine() == [
            Check("Hub", "fine", f"{address} answers"),
            Check("token", "fine", "user alice, role write"),
        ]
        assert asked == [("HEAD", "/", None), ("GET", "/api/whoami-v2", f"Bearer {TOKEN}")]
        online(address)
        assert by_name(examine())["token"].fix == "hf auth login"


def test_a_hub_that_is_not_there(online, monkeypatch, capsys):
    only(monkeypatch, "Hub")
    online(f"http://me:secret@127.0.0.1:{closed_port()}", TOKEN)
    checks = examine()
    assert [check.state for check in checks] == ["lacking", "fine"]
    assert "HF_HUB_OFFLINE=1" in checks[0].fix
    assert show(checks) == 0
    printed = capsys.readouterr().out
    assert "secret" not in printed and TOKEN not in printed
    with server(status=503) as (address, _):
        online(address)
        assert examine()[0].detail.endswith("answers with status 503")


def test_a_hub_that_does_not_answer_in_time(online, monkeypatch):
    only(monkeypatch, "Hub")
    monkeypatch.setattr(network, "NET_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        online(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "ReadTimeout" in examine()[0].detail
    monkeypatch.setattr(network, "NET_SECONDS", -0.9)  # a second is added
    with pytest.raises(Exception) as failed:
        network.within(threading.Event().wait)
    assert type(failed.value).__name__ == "TimeoutError"


@pytest.mark.parametrize("token", [TOKEN, "not-even-in-the-form-of-one"])
@pytest.mark.parametrize("status", [401, 429, 500, 200])
def test_a_token_is_never_shown(status, token, online, monkeypatch, capsys):
    only(monkeypatch, "Hub")
    with server(whoami_status=status) as (address, asked):  # its answers contain the token, in body and header
        online(address, token)
        checks = examine()
    assert asked[-1][2] == f"Bearer {token}"
    assert by_name(checks)["token"].state == "lacking"
    show(checks)
    output = "".join(capsys.readouterr())
    assert "token" in output and token[:9] not in output + repr(checks)


def test_a_token_in_the_text_of_an_error_is_not_shown(online, monkeypatch, capsys):
    only(monkeypatch, "Hub", "disk")

    def fails(*arguments, **options):
        raise ValueError(f"Invalid: {TOKEN} of http://me:{TOKEN}@there")

    online("http://127.0.0.1:1", TOKEN)
    monkeypatch.setattr(network, "ask", fails)
    monkeypatch.setattr("shutil.disk_usage", fails)
    checks = examine()
    assert by_name(checks)["disk"].detail.endswith("Invalid: *** of http://***@there")
    monkeypatch.setenv("HF_TOKEN", "")
    assert TOKEN not in repr(examine())  # an unknown token is recognised by its form
    show(checks)
    assert TOKEN not in capsys.readouterr().out


@pytest.mark.skipif(torch.accelerator.is_available(), reason="torch sees it")
def test_a_gpu_that_only_the_driver_sees(tmp_path, monkeypatch):
    only(monkeypatch, "device")
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\necho "GPU 0: NVIDIA H100 80GB (UUID: GPU-12)"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu, cpu = examine()
    assert gpu.state == "lacking" and gpu.detail.startswith("NVIDIA H100 80GB: found by the driver, but not by torch")
    assert "CUDA build" in gpu.fix
    assert cpu.state == "fine" and cpu.detail.startswith("CPU only: ")
    if torch.version.cuda:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert examine()[0].fix == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.setattr("torch.version.cuda", None)
    assert "built without CUDA" in examine()[0].detail
    smi.write_text("#!/bin/sh\necho no driver; exit 9\n")
    assert [check.name for check in examine()] == ["device"]


def test_one_accelerator_of_two_fails(monkeypatch):
    """CPU devices stand in for the two accelerators."""
    only(monkeypatch, "device")
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_accelerator": lambda: torch.device("cpu"),
        "get_memory_info": lambda device: (3e9, 8e9),
    }.items():
        monkeypatch.setattr(torch.accelerator, name, value)
    works = hardware.multiply

    def multiply(device):
        if device.index == 1:
            raise RuntimeError("CUDA error: no kernel image is available\nand more")
        works(device)

    monkeypatch.setattr(hardware, "multiply", multiply)
    first, second = examine()
    assert first.state == "fine" and "3.0 GB free of 8.0 GB" in first.detail
    assert second.state == "lacking" and second.detail.endswith(
        "RuntimeError: CUDA error: no kernel image is available"
    )
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(hardware, "multiply", lambda device: multiply(torch.device("cpu", 1)))
    assert [check.state for check in examine()] == ["broken"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_the_accelerator_multiplies(monkeypatch):
    only(monkeypatch, "device")
    checks = examine()
    assert len(checks) == torch.accelerator.device_count()
    assert any(check.state == "fine" and " free of " in check.detail for check in checks)


def test_ffmpeg_decodes_or_the_check_names_a_fix(monkeypatch):
    only(monkeypatch, "FFmpeg")
    (check,) = examine()
    assert check.state == "fine" and "decodes (1,600 samples" in check.detail
    monkeypatch.setattr("av.open", lambda file: (_ for _ in ()).throw(OSError("no decoder\nat all")))
    (check,) = examine()
    assert check.state == "lacking" and check.detail.endswith("OSError: no decoder")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (check,) = examine()
    assert check.state == "lacking" and check.fix.endswith("'hf_pretext[video]'")


def test_a_stream_that_can_not_write_a_check_mark():
    code = (
        "from hf_pretext.doctor import Check, show\n"
        "raise SystemExit(show([Check('disk', 'broken', 'no room in /ü', 'rm [x]'), Check('a', 'fine', 'b')]))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 1 and not done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[:3] == ["x disk no room in /?", "       fix: rm [x]", "+ a    b"]
    assert "\x1b" not in done.stdout
