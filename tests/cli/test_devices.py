"""``terazi devices``, ``use-cases`` and ``doctor``: what they list, and their JSON."""

import json

from terazi import devices


def test_devices(run):
    done = run("devices")
    assert done.code == 0
    assert all(name in done.out for name in ("this-machine", "raspberry-pi-5", "browser"))
    listed = json.loads(run("devices", "--json").out)
    assert [entry["name"] for entry in listed] == ["this-machine", *devices.devices()]
    assert "17.1 GB/s" in run("devices", "raspberry-pi-5").out
    one = json.loads(run("devices", "iphone", "--json").out)
    assert one["memory"]["usable"] == 4 * 10**9
    assert run("devices", "toaster").code == 1


def test_a_profile_printed_as_json_can_be_read_back(run, tmp_path):
    """The keys of ``--json`` are the keys of a profile."""
    values = json.loads(run("devices", "raspberry-pi-5", "--json").out)
    assert devices.Device(**{key: value for key, value in values.items() if key != "detected"}).name == (
        "raspberry-pi-5"
    )


def test_use_cases(run):
    done = run("use-cases")
    assert done.code == 0
    assert "70% agreement" in done.out
    assert [entry["name"] for entry in json.loads(run("use-cases", "--json").out)] == list(
        devices.use_cases()
    )
    assert json.loads(run("use-cases", "code", "--json").out)["weights"]["quality"] == 0.75


def test_doctor(run):
    done = run("doctor")
    assert done.code == 0
    assert "llama.cpp" in done.out
    found = json.loads(run("doctor", "--json").out)
    assert {"name", "state", "found", "fix"} == set(found[0])
