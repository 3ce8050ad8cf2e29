"""Tiny GGUF models of many architectures, made the same on every machine, and importance for them.

They hold what deciding types and writing files needs (names, shapes, hyperparameters); nothing can run them.
"""

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from terazi.calibrate import Calibration, Sums
from terazi.formats import gguf
from terazi.model import Tensor

ROWS = 4

# What the recorded options are: name -> model, preset, fields of `Recipe`.
OPTIONS = {
    "by-name": (
        "llama",
        "Q4_K_M",
        {"overrides": (("ffn_down", "Q8_0"), (r"blk\.1[0-5]\.attn_v", "IQ4_NL"), ("attn", "Q5_1"))},
    ),
    "by-name-in-experts": ("mixtral", "Q3_K_M", {"overrides": ((r"blk\.[1-4]\..*_exps", "Q2_K"),)}),
    "by-role": ("llama", "Q4_K_S", {"token_embedding_type": "Q8_0", "output_tensor_type": "F16"}),
    "by-role-tied": ("llama-tied-grouped", "Q3_K_M", {"output_tensor_type": "Q5_0"}),
    "floats-by-role": ("llama", "F16", {"token_embedding_type": "Q4_0", "output_tensor_type": "Q8_0"}),
    "pure": ("llama-tied-grouped", "Q5_K_M", {"pure": True}),
    "pure-by-name": ("falcon", "Q4_K_M", {"pure": True, "overrides": (("ffn_up", "Q6_K"),)}),
    "keep-output": ("llama", "Q4_K_M", {"leave_output_tensor": True}),
}


def calibration_of(means):
    """Make a calibration that says ``means``: name -> float32[columns] or float32[experts, columns]."""
    sums = {
        name: Sums(np.atleast_2d(values), np.ones(len(np.atleast_2d(values))))
        for name, values in means.items()
    }
    return Calibration(sums=sums, path=Path("tiny.gguf"))


@dataclass(frozen=True)
class Tiny:
    """A model to make: ``shapes`` in NumPy order; ``type`` is how its matrices are stored."""

    architecture: str
    layers: int
    heads: int
    heads_kv: int
    shapes: dict[str, tuple[int, ...]]
    width: int = 256
    experts: int = 0
    type: str = "F16"
    keys: dict[str, object] | None = None

    def metadata(self):
        values = {
            "context_length": 512,
            "embedding_length": self.width,
            "block_count": self.layers,
            "feed_forward_length": 2 * self.width,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.heads_kv,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.layer_norm_epsilon": 1e-5,
        }
        if self.experts:
            values |= {"expert_count": self.experts, "expert_used_count": 2}
        values |= self.keys or {}
        own = {f"{self.architecture}.{key}": value for key, value in values.items()}
        return {
            "general.architecture": self.architecture,
            "general.file_type": np.uint32(1),
            "general.name": "tiny",
            "general.languages": ["en", "tr"],
            **own,
            "tokenizer.ggml.scores": np.arange(3, dtype=np.float32),
        }

    def tensors(self):
        return [_tensor(name, shape, self.type) for name, shape in self.shapes.items()]

    def write(self, path):
        return gguf.write(path, self.metadata(), self.tensors(), force=True)

    def importance(self):
        """Importance for every matrix inside the blocks: float32[columns] or float32[experts, columns]."""
        found = {}
        for name, shape in self.shapes.items():
            if "blk." in name and name.endswith("weight") and len(shape) > 1:
                values = np.abs(_numbers(f"importance of {name}", (*shape[:-2], shape[-1]))) + np.float32(
                    0.01
                )
                if len(shape) == 3:
                    values[0] = 1  # an expert that no token was sent to
                found[name] = values
        return calibration_of(found)


def _numbers(seed, shape):
    """Bell-shaped numbers from sums of integers: exact, hence the same with any NumPy and C library."""
    parts = np.random.RandomState(crc32(seed.encode())).randint(0, 1 << 16, (4, *shape), dtype=np.int64)
    return ((parts.sum(0) - (2 << 16)) / 65536).astype(np.float32)


def _tensor(name, shape, type):
    values = _numbers(name, shape)
    if len(shape) == 1:
        return Tensor.from_array(name, values)
    values[..., 0, : shape[-1] // 2] = 0
    values[..., -1, ::7] *= 30
    if type == "F32":
        return Tensor.from_array(name, values)
    if type == "BF16":
        return Tensor.from_array(name, (values.view(np.uint32) >> 16).astype(np.uint16), "BF16")
    if type == "Q8_0" and shape[-1] % 32 == 0:
        blocks = np.empty((values.size // 32, 34), np.uint8)
        blocks[:, :2] = np.frombuffer(np.float16(0.011).tobytes(), np.uint8)
        blocks[:, 2:] = np.clip(values * 60, -127, 127).astype(np.int8).reshape(-1, 32).view(np.uint8)
        rows = blocks.reshape(values.size // shape[-1], -1)
        return Tensor(name=name, shape=shape, type="Q8_0", read=lambda start, stop: rows[start:stop])
    return Tensor.from_array(name, values.astype(np.float16))


def _blocks(layers, one):
    return {f"blk.{layer}.{name}": shape for layer in range(layers) for name, shape in one(layer).items()}


def _outside(width, *, tied=False):
    found = {"token_embd.weight": (6, width), "output_norm.weight": (width,)}
    return found if tied else found | {"output.weight": (6, width)}


def _llama(layers, width=256, ffn=512, *, tied=False):
    return _outside(width, tied=tied) | _blocks(
        layers,
        lambda _: {
            "attn_norm.weight": (width,),
            "attn_q.weight": (ROWS, width),
            "attn_k.weight": (2, width),
            "attn_v.weight": (2, width),
            "attn_output.weight": (ROWS, width),
            "ffn_norm.weight": (width,),
            "ffn_gate.weight": (ROWS, width),
            "ffn_up.weight": (ROWS, width),
            "ffn_down.weight": (2, ffn),
        },
    )


def _values(layers):
    """Only what the rules for many layers are about."""
    names = ("attn_v.weight", "attn_output.weight", "ffn_down.weight")
    return _outside(256) | _blocks(layers, lambda _: dict.fromkeys(names, (2, 256)))


def _experts(layers, count, *, shared=False):
    def one(_):
        found = {
            "attn_norm.weight": (256,),
            "attn_q.weight": (ROWS, 256),
            "attn_k.weight": (2, 256),
            "attn_v.weight": (2, 256),
            "attn_output.weight": (ROWS, 256),
            "ffn_norm.weight": (256,),
            "ffn_gate_inp.weight": (count, 256),
            "ffn_gate_exps.weight": (count, 2, 256),
            "ffn_up_exps.weight": (count, 2, 256),
            "ffn_down_exps.weight": (count, 1, 256),
        }
        return found | {"ffn_down_shexp.weight": (2, 256)} if shared else found

    return _outside(256) | _blocks(layers, one)


def _latent(layers):
    def one(layer):
        found = {
            "attn_norm.weight": (256,),
            "attn_q_a.weight": (ROWS, 256),
            "attn_q_b.weight": (ROWS, 256),
            "attn_kv_a_mqa.weight": (ROWS, 256),
            "attn_kv_b.weight": (ROWS, 256),
            "attn_k_b.weight": (2, 3, 128),
            "attn_output.weight": (ROWS, 256),
        }
        if layer == 0:
            return found | dict.fromkeys(("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"), (ROWS, 256))
        return found | {
            "ffn_gate_inp.weight": (16, 256),
            "exp_probs_b.bias": (16,),
            "ffn_gate_exps.weight": (16, 2, 256),
            "ffn_up_exps.weight": (16, 2, 256),
            "ffn_down_exps.weight": (16, 2, 256),
            "ffn_gate_shexp.weight": (2, 256),
            "ffn_up_shexp.weight": (2, 256),
            "ffn_down_shexp.weight": (2, 256),
        }

    return _outside(256) | _blocks(layers, one)


def _falcon(layers):
    return _outside(256) | _blocks(
        layers,
        lambda _: {
            "attn_norm.weight": (256,),
            "attn_norm.bias": (256,),
            "attn_qkv.weight": (ROWS, 256),
            "attn_output.weight": (ROWS, 256),
            "ffn_up.weight": (ROWS, 256),
            "ffn_down.weight": (2, 512),
        },
    )


def _bert(layers):
    return {
        "position_embd.weight": (8, 256),
        "token_types.weight": (2, 256),
        "token_embd.weight": (6, 256),
        "token_embd_norm.weight": (256,),
    } | _blocks(
        layers,
        lambda _: {
            "attn_q.weight": (ROWS, 256),
            "attn_q.bias": (256,),
            "attn_k.weight": (ROWS, 256),
            "attn_v.weight": (ROWS, 256),
            "attn_output.weight": (ROWS, 256),
            "ffn_up.weight": (ROWS, 256),
            "ffn_down.weight": (ROWS, 512),
            "layer_output_norm.weight": (256,),
        },
    )


def _mamba(layers):
    return _outside(256, tied=True) | _blocks(
        layers,
        lambda _: {
            "attn_norm.weight": (256,),
            "ssm_in.weight": (ROWS, 256),
            "ssm_conv1d.weight": (64, 4),
            "ssm_x.weight": (ROWS, 512),
            "ssm_dt.weight": (ROWS, 16),
            "ssm_a": (ROWS, 16),
            "ssm_d": (512,),
            "ssm_out.weight": (ROWS, 512),
        },
    )


def _t5(layers):
    def side(name):
        return {
            f"{name}.blk.{layer}.{part}.weight": (ROWS, 256)
            for layer in range(layers)
            for part in ("attn_q", "attn_k", "attn_v", "attn_o", "attn_rel_b", "ffn_up", "ffn_down")
        }

    return {"token_embd.weight": (6, 256), "enc.output_norm.weight": (256,)} | side("enc") | side("dec")


# Names that presets treat apart, whatever the architecture says of them; and some that only look so.
_NAMES = """
    output.weight token_embd.weight per_layer_token_embd.weight per_layer_model_proj.weight
    altup_proj.weight position_embd.weight token_types.weight v.position_embd.weight
    v.patch_embd.weight v.rel_pos.weight v.blk.0.attn_q.weight mm.0.weight mm.patch_merger.weight
    sam.pos_embd.weight sam.neck.0.weight sam.net_2.weight a.rvq.codebook.0.weight
    mm.a.code_embd.weight cls.weight cls.output.weight rope_freqs.weights blk.0.laurel_l.weight
    blk.0.altup_router.weight blk.0.inp_gate.weight blk.0.proj.weight blk.0.ffn_gate_inp.weight
    blk.0.ffn_gate_tid2eid.weight blk.0.ffn_gate_inp_shexp.weight blk.0.ssm_conv1d.weight
    blk.0.ssm_conv1d_q.weight blk.0.shortconv.conv.weight blk.0.shortconv.in_proj.weight
    blk.0.indexer.k_proj.weight blk.0.indexer.q_proj.weight blk.0.indexer.proj.weight
    blk.0.indexer.attn_k.weight blk.0.time_mix_first.weight blk.0.time_mix_w0.weight
    blk.0.time_mix_w2.weight blk.0.time_mix_v1.weight blk.0.time_mix_a2.weight
    blk.0.time_mix_g1.weight blk.0.time_mix_g2.weight blk.0.time_mix_decay_w1.weight
    blk.0.time_mix_lerp_fused.weight blk.0.time_mix_key.weight blk.0.time_mix_decay.weight
    blk.0.attn_rel_b.weight blk.0.attn_q_norm.weight blk.0.attn_q.bias blk.0.attn_q_a.weight
    blk.0.attn_q_b.weight blk.0.attn_kv_a_mqa.weight blk.0.attn_k_b.weight blk.0.attn_v_b.weight
    blk.0.attn_kv_b.weight blk.0.hc_attn_fn.weight blk.0.nextn.eh_proj.weight blk.0.ssm_f_a.weight
    blk.0.ssm_beta.weight blk.0.indexer.attn_q_b.weight blk.0.indexer_compressor_gate.weight
    blk.0.ffn_down.weight blk.0.ffn_up_exps.weight blk.0.ffn_gate_up_exps.weight blk.0.attn_v.weight
    blk.0.attn_qkv.weight
""".split()  # noqa: SIM905

_LATENT_KEYS = {
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 64,
    "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": 64,
    "attention.indexer.head_count": 1,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 8,
    "attention.indexer.kpool": 4,
    "expert_feed_forward_length": 256,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "leading_dense_block_count": 1,
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-5,
    "kda.head_dim": 64,
    "kda.gate_lower_bound": -5.0,
    "ssm.conv_kernel": 4,
}

MODELS = {
    "names": Tiny("llama", 8, 4, 4, dict.fromkeys(_NAMES, (2, 256))),
    "glm5-next": Tiny("glm5-next", 8, 4, 4, dict.fromkeys(_NAMES, (2, 256)), experts=16, keys=_LATENT_KEYS),
    "bailingmoe3": Tiny("bailingmoe3", 4, 16, 1, _latent(4), experts=16, keys=_LATENT_KEYS),
    "deci": Tiny(
        "deci",
        8,
        0,
        0,
        _llama(8),
        keys={
            "attention.head_count": np.array([8, *[0] * 3, *[4] * 4], np.int32),
            "attention.head_count_kv": np.array([2, *[0] * 3, *[4] * 4], np.int32),
        },
    ),
    "llama": Tiny("llama", 16, 4, 2, _llama(16)),
    "llama-tied-grouped": Tiny("llama", 9, 8, 2, _llama(9, tied=True), type="BF16"),
    "llama-odd-rows": Tiny("llama", 8, 4, 1, _llama(8, width=96, ffn=104), width=96, type="F32"),
    "llama-quantized": Tiny("llama", 3, 4, 2, _llama(3), type="Q8_0"),
    "llama-70b": Tiny("llama", 80, 64, 8, _values(80)),
    "mixtral": Tiny("llama", 8, 8, 4, _experts(8, 8), experts=8),
    "qwen2": Tiny("qwen2", 24, 4, 2, _llama(24, tied=True)),
    "qwen3moe": Tiny(
        "qwen3moe",
        8,
        8,
        2,
        _experts(8, 16, shared=True),
        experts=16,
        keys={"expert_feed_forward_length": 256},
    ),
    "gemma3": Tiny("gemma3", 26, 4, 1, _llama(26, tied=True), keys={"attention.sliding_window": 512}),
    "falcon": Tiny("falcon", 32, 71, 1, _falcon(32)),
    "bert": Tiny("bert", 12, 12, 12, _bert(12), type="F32"),
    "deepseek2": Tiny(
        "deepseek2",
        10,
        16,
        1,
        _latent(10),
        experts=16,
        keys={
            "leading_dense_block_count": 1,
            "attention.q_lora_rank": 64,
            "attention.kv_lora_rank": 64,
            "attention.key_length": 192,
            "attention.value_length": 128,
            "expert_feed_forward_length": 256,
            "expert_shared_count": 2,
            "expert_weights_scale": 1.0,
            "rope.dimension_count": 64,
        },
    ),
    "mamba": Tiny(
        "mamba",
        4,
        0,
        0,
        _mamba(4),
        keys={"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16, "ssm.time_step_rank": 16},
    ),
    "t5": Tiny("t5", 4, 4, 4, _t5(4), keys={"attention.relative_buckets_count": 32}),
}
