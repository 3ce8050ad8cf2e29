import os
from pathlib import Path

from terazi import devices
from terazi.devices import machine


def test_this_machine_is_described_as_it_is():
    found = devices.device("this-machine")
    assert found is devices.this_machine()
    assert found.detected
    assert 1 <= found.cpu.cores <= (os.cpu_count() or 1)
    assert (
        found.memory.usable < found.memory.total <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )
    assert 2e8 < found.memory.bandwidth < 5e12
    flags = Path("/proc/cpuinfo").read_text().lower() if Path("/proc/cpuinfo").is_file() else None
    if flags is not None:
        assert all(name in flags for name in found.cpu.instruction_sets)


def test_a_control_group_limits_cores_and_memory(monkeypatch):
    files = {"/sys/fs/cgroup/cpu.max": "150000 100000", "/sys/fs/cgroup/memory.max": str(1 << 30)}
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine.available_cores() == 1
    assert machine.memory_limit() == 1 << 30
    files |= {"/sys/fs/cgroup/cpu.max": "max 100000", "/sys/fs/cgroup/memory.max": "max"}
    assert machine.available_cores() == len(os.sched_getaffinity(0))
    assert machine.memory_limit() > 1 << 30


def test_gpus_by_what_answers(monkeypatch):
    monkeypatch.setattr(machine, "_output", lambda *_: "NVIDIA RTX 4090, 24564\nbroken line\n")
    (gpu,) = machine._gpus(apple=False)
    assert (gpu.name, gpu.memory) == ("NVIDIA RTX 4090", 24564 << 20)
    (apple,) = machine._gpus(apple=True)
    assert apple.runtimes[0] == "mlx"


def test_gpus_by_what_the_kernel_knows(monkeypatch, tmp_path):
    files = {
        "/sys/class/drm/renderD128/device/vendor": "0x1002",
        "/sys/class/drm/renderD128/device/mem_info_vram_total": str(16 << 30),
        "/sys/class/drm/renderD129/device/vendor": "0x8086",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    amd = machine._kernel_gpu(Path("/dev/dri/renderD128"))
    assert (amd.name, amd.memory) == ("AMD GPU at /dev/dri/renderD128", 16 << 30)
    intel = machine._kernel_gpu(Path("/dev/dri/renderD129"))
    assert (intel.name, intel.memory) == ("Intel GPU at /dev/dri/renderD129", None)
    assert machine._kernel_gpu(Path("/dev/dri/renderD130")).name == "GPU at /dev/dri/renderD130"


def test_a_program_that_hangs_or_fails_is_as_good_as_absent():
    assert machine._output("no-such-program-anywhere") == ""
    assert machine._output("false") == ""
    assert machine._output("echo", "yes") == "yes"
