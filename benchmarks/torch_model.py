"""ARMT, RMT and PRMT in PyTorch over ``transformers``, as a reference to compare speeds with.

What somebody would run without this library: a Hugging Face model that is called once a segment,
with its blocks wrapped, gradients of the whole text kept, and every segment's logits computed. It
is written from the papers' equations, takes the parameters of a model here under the names that
``armt_jax.interop.to_official`` gives them, and is compared with it before anything is timed.

Needs torch and transformers, which nothing else here does: ``pip install torch transformers``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.interop.hf_config import config_json

# The paper's rule, ``armt``, is the only one that is written out here.
EPS = 1e-5
_BLOCKS = {"gpt2": "h", "gpt_neox": "layers", "llama": "layers"}


class AssociativeLayer(torch.nn.Module):
    """A block of ARMT: recall, block, write (arXiv 2407.04841, Equations 1-4).

    ``A [b, k, d]`` and ``z [b, k]`` are None before the first segment.
    """

    def __init__(self, layer: torch.nn.Module, config: ModelConfig):
        super().__init__()
        d, d_mem = config.d_model, config.d_mem
        self.layer, self.nu, self.count = layer, config.nu, config.num_mem_tokens
        self.W_mq = torch.nn.Linear(d, d_mem, bias=False)
        self.W_mk = torch.nn.Linear(d, d_mem, bias=False)
        self.W_mv = torch.nn.Linear(d, d, bias=False)
        self.W_mb = torch.nn.Linear(d, 1)
        self.A: Any = None
        self.z: Any = None

    def reset(self) -> None:
        """Forget everything."""
        self.A = self.z = None

    def phi(self, x: Any) -> Any:
        """DPFP (Schlag et al. 2021): ``[..., d_mem] -> [..., 2 nu d_mem]``."""
        r = torch.cat([x.relu(), (-x).relu()], dim=-1)
        return torch.cat([r * r.roll(shift, -1) for shift in range(1, self.nu + 1)], dim=-1)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The block's output; what its memory tokens write is kept."""
        if self.A is not None:
            phi = self.phi(self.W_mq(x))
            x = x + (phi @ self.A) / (phi @ self.z[..., None] + EPS)
        out = self.layer(x, *args, **kwargs)
        self.write((out[0] if isinstance(out, tuple) else out)[:, -self.count :])
        return out

    def write(self, m: Any) -> None:
        """Write memory tokens ``m [b, m, d]``."""
        phi, v, beta = self.phi(self.W_mk(m)), self.W_mv(m), torch.sigmoid(self.W_mb(m))
        if self.A is None:
            self.A, self.z = phi.mT @ (beta * v), phi.sum(1)
            return
        seen = phi @ self.z[..., None] + EPS
        norm = (phi * phi).sum(-1, keepdim=True) + EPS
        gamma = torch.clip(1.0 - seen / norm, 0.0, 1.0).detach()
        self.A = self.A + phi.mT @ (beta * (v - (phi @ self.A) / seen))
        self.z = self.z + (gamma * phi).sum(1)


class ParallelLayer(torch.nn.Module):
    """A block of PRMT (Appendix F.2): both copies of the memory are the layer's own.

    ``state`` is None before the first segment, when the learned tokens are read. ``read`` and
    ``left`` are what the last segment met and left here.
    """

    def __init__(self, layer: torch.nn.Module, config: ModelConfig):
        super().__init__()
        self.layer, self.count = layer, config.num_mem_tokens
        self.memory = torch.nn.Parameter(torch.empty(1, config.num_mem_tokens, config.d_model))
        self.state: Any = None
        self.read: Any = None
        self.left: Any = None

    def reset(self) -> None:
        """Forget everything."""
        self.state = self.read = self.left = None

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The block's output on ``[memory; tokens; memory]``."""
        count = self.count
        self.read = self.memory.expand(len(x), -1, -1) if self.state is None else self.state
        x = torch.cat([self.read, x[:, count:-count], self.read], dim=1)
        out = self.layer(x, *args, **kwargs)
        self.left = (out[0] if isinstance(out, tuple) else out)[:, -count:]
        return out


_WRAPPERS = {"armt": AssociativeLayer, "prmt": ParallelLayer}


class TorchModel(torch.nn.Module):
    """A segment-recurrent model; it keeps its own state between calls.

    Raises:
      ConfigError: a family or a rule that has no reference here.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.family not in ("armt", "rmt", "prmt"):
            raise ConfigError(f"model.family = {config.family!r}: must be armt, rmt or prmt")
        if config.family == "armt" and config.rule != "armt":
            raise ConfigError(f"model.rule = {config.rule!r}: must be 'armt'")
        hf = transformers.AutoConfig.for_model(
            **config_json(config), bos_token_id=None, eos_token_id=None
        )
        self.config = config
        self.model = transformers.AutoModelForCausalLM.from_config(hf)
        self.memory = torch.nn.Parameter(torch.empty(config.num_mem_tokens, config.d_model))
        if config.family in _WRAPPERS:
            blocks, wrapper = self._blocks(), _WRAPPERS[config.family]
            for index, block in enumerate(list(blocks)):
                blocks[index] = wrapper(block, config)
        self.state: Any = None
        self.eval()  # no dropout: there is none here either

    def _blocks(self) -> Any:
        return getattr(self.model.base_model, _BLOCKS[self.config.backbone])

    def load(self, official: Mapping[str, np.ndarray]) -> None:
        """Take the parameters that ``to_official`` gives."""
        own = dict(self.named_parameters())
        named = {self._official(name): parameter for name, parameter in own.items()}
        if named.keys() != official.keys():
            raise ValueError(f"{sorted(named.keys() ^ official.keys())}: must be in both")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(torch.tensor(np.asarray(official[name])))

    def _official(self, name: str) -> str:
        """The authors' name of a parameter; newer releases of transformers call one otherwise."""
        if self.config.backbone == "gpt_neox":
            name = name.replace("model.lm_head.", "model.embed_out.")
        return f"memory_cell.{name}"

    def official_gradients(self) -> dict[str, np.ndarray]:
        """By the authors' names; without parameters that nothing has read."""
        return {
            self._official(name): parameter.grad.numpy()
            for name, parameter in self.named_parameters()
            if parameter.grad is not None
        }

    def reset(self) -> None:
        """Begin a new text."""
        self.state = None
        for block in self._blocks() if self.config.family != "rmt" else ():
            block.reset()

    def memories(self) -> tuple[Any, Any]:
        """ARMT's ``A [l, b, k, d]`` and ``z [l, b, k]``."""
        blocks = self._blocks()
        return torch.stack([b.A for b in blocks]), torch.stack([b.z for b in blocks])

    def forward(self, tokens: Any, *, last_only: bool = False) -> Any:
        """Read a segment ``[b, t]``; logits ``[b, t, v]``, or of the last position alone."""
        memory = self.memory.expand(len(tokens), -1, -1)
        count, family = self.config.num_mem_tokens, self.config.family
        if family == "rmt" and self.state is not None:
            memory = self.state
        x = self.model.get_input_embeddings()(tokens)
        x = torch.cat([x, memory] if family == "armt" else [memory, x, memory], dim=1)
        start = 0 if family == "armt" else count
        out = self.model.base_model(inputs_embeds=x, use_cache=False).last_hidden_state
        if family == "rmt":
            self.state = out[:, -count:]
        elif family == "prmt":
            self._pass_down()
        hidden = out[:, start:-count]
        return self.model.get_output_embeddings()(hidden[:, -1:] if last_only else hidden)

    def _pass_down(self) -> None:
        """As the released code has it: what a layer read goes to the layer below."""
        blocks = self._blocks()
        for below, above in itertools.pairwise(blocks):
            below.state = above.read
        blocks[-1].state = blocks[-1].left
