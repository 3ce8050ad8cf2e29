import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi import devices
from terazi.devices import Budget
from terazi.errors import FormatError, NotFoundError, TeraziError

EXPECTED_DEVICES = {
    "android-phone",
    "apple-m-series",
    "browser",
    "edge-gateway-4gb",
    "iphone",
    "jetson-orin-nano",
    "laptop-cpu",
    "raspberry-pi-5",
    "server",
    "tablet",
    "workstation",
}
EXPECTED_USE_CASES = {"batch", "chat", "code", "embeddings-search", "mobile-productivity", "research"}
PROFILE = """
title = "Board"
runtimes = ["llama.cpp"]
formats = ["gguf"]
[memory]
total = "2 GB"
usable = "1 GB"
bandwidth = "8 GB/s"
source = "data sheet"
[cpu]
name = "a core"
cores = 1
architecture = "aarch64"
"""


def test_shipped_profiles():
    assert set(devices.devices()) >= EXPECTED_DEVICES
    assert set(devices.use_cases()) >= EXPECTED_USE_CASES


@pytest.mark.parametrize("device", devices.devices().values(), ids=lambda device: device.name)
def test_a_profile_is_plausible(device):
    memory = device.memory
    assert 0 < memory.usable <= memory.total
    assert 5e9 < memory.bandwidth < 1e12
    assert any(word in memory.source for word in ("https://", "assumed", "DDR")), "the figure has no source"
    assert device.power is not None
    assert device.power.source
    if device.limits.avoid_types or device.limits.file_size:
        assert device.limits.reason


@pytest.mark.parametrize("use_case", devices.use_cases().values(), ids=lambda use_case: use_case.name)
def test_a_use_case_is_plausible(use_case):
    weights = use_case.weights
    assert math.isclose(weights.quality + weights.speed + weights.size, 1)
    assert use_case.prompts or use_case.task == "embed"


def test_a_profile_of_ones_own(tmp_path):
    path = tmp_path / "my-board.toml"
    path.write_text(PROFILE)
    board = devices.device(path)
    assert (board.name, board.memory.total, board.memory.bandwidth) == ("my-board", 2 * 10**9, 8 * 10**9)
    assert devices.device(str(path)) == board


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('total = "2 GB"', 'total = "lots"', "memory.total: 'lots' is not a size"),
        ('total = "2 GB"', "", "memory.total: is missing"),
        ("cores = 1", "cores = 0", "cpu.cores: Input should be greater than 0"),
        ("cores = 1", "cores = 1\ncolour = 3", "cpu.colour: is not a known key"),
        ('runtimes = ["llama.cpp"]', 'runtimes = ["magic"]', "runtimes.0: Input should be 'llama.cpp'"),
        ('runtimes = ["llama.cpp"]', "runtimes = []", "runtimes: "),
        ('title = "Board"', "title = [", "is not TOML"),
        ('title = "Board"', 'title = "Board"\nname = "../evil"', "name: "),
    ],
)
def test_a_wrong_profile_gets_one_clear_line(tmp_path, old, new, message):
    path = tmp_path / "board.toml"
    path.write_text(PROFILE.replace(old, new))
    with pytest.raises(FormatError) as caught:
        devices.device(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_files_that_are_no_profiles(tmp_path):
    with pytest.raises(NotFoundError, match="raspberry-pie") as caught:
        devices.device("raspberry-pie")
    assert "raspberry-pi-5" in (caught.value.hint or "")
    with pytest.raises(NotFoundError, match="no such file"):
        devices.device(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not TOML"):
        devices.device(tmp_path / "binary.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 19))
    with pytest.raises(FormatError, match="larger"):
        devices.device(tmp_path / "large.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(FormatError, match="cannot be read"):
        devices.use_case(tmp_path / "folder.toml")


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_raise(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(data)
    with pytest.raises(TeraziError):
        devices.use_case(path)


def test_limits_of_the_user_come_before_the_floors():
    floors = Budget(min_agreement=0.7, min_speed=4)
    assert Budget(min_agreement=0.9, max_size=5).over(floors) == Budget(
        min_agreement=0.9, min_speed=4, max_size=5
    )
    assert Budget().over(floors) == floors
    assert Budget(max_size="400MB").max_size == 400_000_000


def test_a_model_runs_where_it_fits():
    workstation = devices.device("workstation")
    assert workstation.place(10**9) == ("GPU with 24 GB GDDR6X", 1008 * 10**9)
    assert workstation.place(30 * 10**9)[1] == workstation.memory.bandwidth
    assert replace(workstation, accelerators=()).place(1)[1] == workstation.memory.bandwidth


def test_types_a_device_avoids():
    browser = devices.device("browser")
    assert browser.avoids("IQ4_XS")
    assert not browser.avoids("Q4_K")


def test_printed_json_is_a_profile(tmp_path):
    for known in (*devices.devices().values(), devices.this_machine()):
        path = tmp_path / f"{known.name}.json"
        path.write_text(json.dumps(asdict(known)))
        assert devices.device(path) == known
    use_case = devices.use_case("chat")
    (tmp_path / "mine").write_text("\n " + json.dumps(asdict(use_case)))
    assert devices.use_case(tmp_path / "mine") == use_case


def test_broken_json_is_named(tmp_path):
    path = tmp_path / "board.json"
    path.write_text('{"title": ')
    with pytest.raises(FormatError, match=r"board\.json: is not JSON: "):
        devices.device(path)
    path.write_text("[{}]")
    with pytest.raises(FormatError, match="more than one profile"):
        devices.device(path)
    path.write_text("{}")
    with pytest.raises(FormatError, match="is missing"):
        devices.device(path)
