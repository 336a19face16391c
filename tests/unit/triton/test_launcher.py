"""The launcher's errors, each with its remedy, and the life of a child process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import LauncherError
from tcd.triton import install as install_module
from tcd.triton.install import Install, find_install, find_libpython, from_wheel, glibc_version
from tcd.triton.invocation import choose_ports, command_line, count_gpus, environment
from tcd.triton.launcher import LaunchOptions, TritonServer, load_failures
from tcd.triton.process import GuardedProcess, group_members, usage

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def wheel(root: Path) -> Path:
    executable(root / "bin" / "tritonserver", "exit 0")
    executable(root / "python_backend_stubs" / "3.11" / "triton_python_backend_stub", "exit 0")
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        executable(root / "backends" / "python" / name, "")
    return root


def server(tmp_path: Path, script: str, *, start_timeout: float = 60.0, log: bool = True) -> TritonServer:
    binary = executable(tmp_path / "fake" / "bin" / "tritonserver", script)
    (tmp_path / "fake" / "backends").mkdir(exist_ok=True)
    made = LaunchOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        start_timeout=start_timeout,
        stop_timeout=1.0,
        log_path=tmp_path / "triton.log" if log else None,
    )
    return TritonServer(made, install=Install(binary, tmp_path / "fake" / "backends", (), (), "test"))


# --- finding a server


def test_the_environment_comes_first_as_file_or_prefix(tmp_path: Path) -> None:
    binary = executable(tmp_path / "srv" / "bin" / "tritonserver", "exit 0")
    (tmp_path / "srv" / "backends").mkdir()
    for value in (binary, tmp_path / "srv"):
        found = find_install({"TRITONSERVER": str(value), "PATH": "/nowhere"})
        assert (found.binary, found.origin) == (binary, "TRITONSERVER")
        assert found.backends == tmp_path / "srv" / "backends"


def test_then_the_container_prefix_then_path(tmp_path: Path) -> None:
    executable(tmp_path / "opt" / "bin" / "tritonserver", "exit 0")
    on_path = executable(tmp_path / "path" / "tritonserver", "exit 0")
    environ = {"PATH": str(on_path.parent)}
    assert find_install(environ, prefix=tmp_path / "opt").binary == tmp_path / "opt" / "bin" / "tritonserver"
    assert find_install(environ, prefix=tmp_path / "none").binary == on_path


def test_a_named_server_that_is_none_is_an_error_not_a_fallback(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match=r"TRITONSERVER=.*unset it"):
        find_install({"TRITONSERVER": str(tmp_path / "no")})


def test_no_server_at_all_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_module, "_wheel_root", lambda: None)
    with pytest.raises(LauncherError, match=r"no Triton server found.*pip install 'tcd\[server\]'"):
        find_install({"PATH": "/nowhere"}, prefix=tmp_path)


def test_the_wheel_is_found_without_importing_it() -> None:
    code = (
        "import sys; from tcd.triton.install import _wheel_root; print(_wheel_root());"
        "assert not any(m.startswith('pytriton.') for m in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("tritonserver")


def test_a_python_without_stub_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match=r"no stub for Python 3\.99 \(it has 3\.11\).*3\.10, 3\.11 or 3\.12"):
        from_wheel(wheel(tmp_path), python=(3, 99), glibc=(2, 36), libpython=tmp_path)


def test_an_old_glibc_is_named(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match=r"glibc 2\.35, this machine has glibc 2\.31; remedy: Debian 12"):
        from_wheel(wheel(tmp_path), python=(3, 11), glibc=(2, 31), libpython=tmp_path)


def test_another_libc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_module, "glibc_version", lambda: None)
    with pytest.raises(LauncherError, match="no glibc"):
        from_wheel(wheel(tmp_path), python=(3, 11), libpython=tmp_path)


def test_a_missing_libpython_names_the_package_and_the_pyenv_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_module, "find_libpython", lambda _: None)
    with pytest.raises(LauncherError, match=r"libpython3\.11\.so\.1\.0.*apt-get install libpython3\.11.*enable-shared"):
        from_wheel(wheel(tmp_path), python=(3, 11), glibc=(2, 36))


def test_a_broken_wheel_is_named(tmp_path: Path) -> None:
    root = wheel(tmp_path)
    (root / "backends" / "python" / "libtriton_python.so").unlink()
    with pytest.raises(LauncherError, match=r"lacks .*libtriton_python\.so.*force-reinstall"):
        from_wheel(root, python=(3, 11), glibc=(2, 36), libpython=tmp_path)


def test_this_machine_has_what_it_needs() -> None:
    version = glibc_version()
    assert version is not None
    assert version >= (2, 35)
    libdir = find_libpython(VERSION)
    assert libdir is not None
    assert (libdir / f"libpython{VERSION}.so.1.0").is_file()
    assert find_libpython("3.99") is None


# --- ports


def test_free_ports_are_picked_and_differ() -> None:
    ports = choose_ports(LaunchOptions(http_port=0, grpc_port=0, metrics_port=0))
    assert len(set(ports)) == 3
    assert min(ports) > 1023


@pytest.mark.parametrize("which", ["http_port", "grpc_port", "metrics_port"])
def test_a_taken_port_is_named_with_its_option(which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, which: port}
        with pytest.raises(LauncherError, match=f"port {port}.*--{which.replace('_', '-')}"):
            choose_ports(LaunchOptions(**ports))


def test_the_same_port_twice_is_taken() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LauncherError, match="grpc_port"):
        choose_ports(LaunchOptions(http_port=port, grpc_port=port, metrics_port=0))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(LauncherError, match=r"192\.0\.2\.1"):
        choose_ports(LaunchOptions(host="192.0.2.1", http_port=0, grpc_port=0, metrics_port=0))


# --- starting


def test_a_model_that_fails_to_load_is_quoted(tmp_path: Path) -> None:
    line = (
        "E1122 03:00:00.1 1 m.cc:1] \\\"failed to load 'tcd_detector' version 1: Internal: ModuleNotFoundError: tcd\\\""
    )
    failing = server(tmp_path, f'echo "{line}"; exit 1', log=False)
    with pytest.raises(
        LauncherError, match=r"model tcd_detector: Internal: ModuleNotFoundError: tcd; remedy: see "
    ) as e:
        failing.start()
    log = Path(e.value.detail.rsplit("see ", 1)[1])
    assert "failed to load" in log.read_text(), "the log that the error points to is kept"
    shutil.rmtree(log.parent)


def test_a_server_that_ends_is_quoted_with_its_last_errors(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match=r"ended with code 7.*error: no space left"):
        server(tmp_path, "echo starting; echo 'error: no space left'; exit 7").start()


@pytest.mark.parametrize(
    ("ends", "starts", "code"),
    [("kill -ABRT $$", 3, -6), ('[ "$n" = 2 ] && exit 7; kill -ABRT $$', 2, 7), ("kill -KILL $$", 1, -9)],
)
def test_a_server_that_aborts_while_it_starts_is_started_again(
    tmp_path: Path, ends: str, starts: int, code: int
) -> None:
    count = tmp_path / "starts"
    count.touch()
    with pytest.raises(LauncherError, match=f"ended with code {code} while starting"):
        server(tmp_path, f"echo >> {count}; n=$(wc -l < {count}); {ends}").start()
    assert len(count.read_text()) == starts


def test_a_server_that_never_gets_ready_is_stopped_in_time(tmp_path: Path) -> None:
    hanging = server(tmp_path, "exec sleep 600", start_timeout=0.3)
    started = time.monotonic()
    with pytest.raises(LauncherError, match=r"not ready within 0\.3 s"):
        hanging.start()
    # far below the ten minutes after which it would end by itself
    assert time.monotonic() - started < 300
    assert hanging.pid is None


def test_a_binary_that_cannot_run_is_named(tmp_path: Path) -> None:
    broken = server(tmp_path, "exit 0")
    broken.install.binary.write_bytes(b"\x7fELF garbage")
    with pytest.raises(LauncherError):
        broken.start()


def test_unknown_models_are_refused_before_anything_starts(tmp_path: Path) -> None:
    fake = server(tmp_path, "exit 0")
    unknown = TritonServer(LaunchOptions(models=("nonesuch",)), install=fake.install)
    with pytest.raises(LauncherError, match="model nonesuch is not in"):
        unknown.start()


def test_the_servers_environment_has_no_setting_of_the_shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCD_ATTEST_SK_HEX", "00" * 32)
    monkeypatch.setenv("TCD_ASSETS", "/elsewhere")
    fake = server(tmp_path, 'env; echo "$@"; exit 3')
    with pytest.raises(LauncherError):
        fake.start()
    text = fake.log_path.read_text()
    assert "TCD_" not in text
    assert "OMP_NUM_THREADS=1" in text
    assert f"PATH={Path(sys.executable).parent}:" in text
    assert "--disable-auto-complete-config" in text
    assert "--model-control-mode=explicit" in text
    assert "--http-address=127.0.0.1" in text


def test_load_failures_reads_each_model() -> None:
    log = (
        "E1 x] \"failed to load 'a' version 1: Internal: one\"\nI2 y] fine\n"
        "E3 z] \"failed to load 'b' version 12: Invalid argument: two\"\n"
    )
    assert load_failures(log) == {"a": "Internal: one", "b": "Invalid argument: two"}


def test_stop_before_start_and_twice_is_fine(tmp_path: Path) -> None:
    fake = server(tmp_path, "exit 0")
    fake.stop()
    fake.stop()
    assert fake.poll() == 0
    assert fake.wait(0)


# --- processes


def guarded(tmp_path: Path, script: str, **options: str) -> GuardedProcess:
    binary = executable(tmp_path / "program", script)
    return GuardedProcess([str(binary)], env={"PATH": os.environ["PATH"]}, log=tmp_path / "log", **options)


def test_an_exit_is_noticed_with_its_code(tmp_path: Path) -> None:
    process = guarded(tmp_path, "exit 5")
    assert process.exited.wait(60)
    assert process.poll() == 5


def test_a_stubborn_group_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = guarded(tmp_path, "trap '' TERM; sleep 600 & echo up; wait; sleep 600")
    _until(lambda: "up" in (tmp_path / "log").read_text())
    assert len(group_members(process.pid)) >= 2
    assert process.stop(grace=0.2) == -signal.SIGKILL
    assert group_members(process.pid) == []


def test_a_stopped_process_is_stopped_for_good(tmp_path: Path) -> None:
    process = guarded(tmp_path, "exec sleep 600")
    process.signal(signal.SIGSTOP)
    assert process.stop(grace=60) == -signal.SIGTERM


def test_children_left_behind_and_shared_memory_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.triton.process._STUB_GRACE", 0.2)
    prefix = f"tcd_test_{os.getpid()}_"
    region = Path("/dev/shm") / f"{prefix}region"  # noqa: S108 - as the server does
    other = Path("/dev/shm") / f"tcd_other_{os.getpid()}"  # noqa: S108
    other.touch()
    process = guarded(tmp_path, f"touch {region}; sleep 600 & exit 0", shm_prefix=prefix)
    assert process.exited.wait(60)
    assert not region.exists()
    assert other.exists()
    other.unlink()
    assert group_members(process.pid) == []


def test_the_child_dies_with_us_even_by_sigkill(tmp_path: Path) -> None:
    code = (
        "import sys,time; from pathlib import Path; from tcd.triton.process import GuardedProcess;"
        "p = GuardedProcess(['/bin/sleep', '600'], env={}, log=Path(sys.argv[1]));"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert child in group_members(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _until(lambda: group_members(child) == [])


def test_a_program_that_is_not_there_ends_with_a_code(tmp_path: Path) -> None:
    process = GuardedProcess([str(tmp_path / "none")], env={}, log=tmp_path / "log")
    assert process.exited.wait(60)
    assert process.poll() != 0


def test_usage_counts_cpu_and_memory_of_the_living() -> None:
    mine = usage([os.getpid(), 2**22 + 1])
    assert mine.cpu_seconds > 0
    assert mine.resident_bytes > 1_000_000


def _until(condition: object, *, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pools_and_the_break_even_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    real = Path.glob
    devices = [Path("/dev/nvidia0"), Path("/dev/nvidia1"), Path("/dev/nvidia2")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: devices if str(self) == "/dev" else real(self, pattern))
    options = LaunchOptions(cuda_pool=5, pinned_pool=6, gpu_break_even=7)
    install = Install(Path("/bin/true"), Path("/x"), (), (), "test")
    env = environment(options, install, os.environ)

    def command(options: LaunchOptions) -> list[str]:
        made: dict[str, Any] = {"ports": (1, 2, 3), "backends": [], "gpus": count_gpus(env), "key": "k", "token": "t"}
        return command_line(options, install, **made)

    assert [a for a in command(options) if "pool" in a] == [
        "--pinned-memory-pool-byte-size=6",
        "--cuda-memory-pool-byte-size=0:5",
        "--cuda-memory-pool-byte-size=1:5",
    ]
    assert env["TCD_GPU_BREAK_EVEN"] == "7"
    devices.clear()
    assert not any("cuda-memory" in a for a in command(options))
    assert "--disable-auto-complete-config" in command(options)
    asked = command(LaunchOptions(auto_complete=True))
    assert "--disable-auto-complete-config" not in asked
