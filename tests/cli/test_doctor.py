"""``terazi doctor``, asked about a machine and a model."""

import json

from click.testing import CliRunner

from terazi.cli.doctor import command as doctor


def test_a_model_and_a_gpu_that_is_not_here(smollm2):
    arguments = [str(smollm2), "--gpu-memory", "8GB", "--context", "2048", "--json"]
    done = CliRunner().invoke(doctor, arguments)
    assert done.exit_code == 0
    last = json.loads(done.stdout)[-1]
    assert last["name"] == str(smollm2)
    assert "31 of 31 layers fit in 8.0 GB of GPU memory" in last["found"]
    assert "at 2048 tokens" in last["found"]


def test_what_to_plan_must_be_said():
    done = CliRunner().invoke(doctor, ["--gpu-memory", "8GB"])
    assert done.exit_code == 2
    assert "needs a MODEL" in done.output
