"""Memory rules: how a memory token is written into, and read from, the associative matrix.

A rule is a value. Two rules differ in fields, never in code paths of their own.
"""

from __future__ import annotations

import dataclasses

from armt_jax.memory.feature_maps import FEATURE_MAPS

NORMALISERS = ("gamma", "sum", "none")
ORDERS = ("parallel", "sequential")
GATES = ("sigmoid", "hard")


@dataclasses.dataclass(frozen=True)
class MemoryRule:
    """One way to update and recall an associative memory.

    Attributes:
      feature_map: name in ``FEATURE_MAPS``.
      normalise_features: divide ``phi`` by its L2 norm (keys and queries).
      normaliser: what recall divides by. ``gamma``: ``z . phi + eps`` with the paper's corrected
        ``z`` (Eq. 2-3); ``sum``: the same with ``gamma = 1``; ``none``: nothing, and no ``z``.
      order: ``parallel``: all memory tokens of a segment see the state before the segment (the
        authors' code); ``sequential``: each sees the one before it (Eqs. 1-3 as printed).
      erase: subtract the value that the key recalled before (the delta rule).
      gate: ``sigmoid``, or ``hard``: ``clip(1.2 sigmoid(a) - 0.1, 0, 1)``, which reaches 0 and 1.
      eps: added to denominators, relative to ``|phi|^2`` of about 1e-5 to 1e-3 at initialisation.
    """

    feature_map: str = "dpfp"
    normalise_features: bool = False
    normaliser: str = "gamma"
    order: str = "parallel"
    erase: bool = True
    gate: str = "sigmoid"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, options in (
            ("feature_map", tuple(FEATURE_MAPS)),
            ("normaliser", NORMALISERS),
            ("order", ORDERS),
            ("gate", GATES),
        ):
            if getattr(self, name) not in options:
                raise ValueError(
                    f"rule.{name} = {getattr(self, name)!r}: must be one of {', '.join(options)}"
                )
        if self.eps <= 0:
            raise ValueError(f"rule.eps = {self.eps!r}: must be positive")
        if self.normaliser == "none" and self.erase and self.order == "parallel":
            raise ValueError(
                "rule.order = 'parallel': without a normaliser, erasing must be 'sequential' "
                "(alike keys of one segment would each erase the whole old value, and A diverges)"
            )

    @property
    def has_normaliser(self) -> bool:
        """Whether the state holds ``z``."""
        return self.normaliser != "none"


PRESETS: dict[str, MemoryRule] = {
    "armt": MemoryRule(),
    "armt_sequential": MemoryRule(order="sequential"),
    "armt_no_gamma": MemoryRule(normaliser="sum"),
    "linear": MemoryRule(normaliser="sum", erase=False),
    "delta": MemoryRule(normalise_features=True, normaliser="none", order="sequential"),
    "delta_hard": MemoryRule(
        normalise_features=True, normaliser="none", order="sequential", gate="hard"
    ),
}
"""Named rules: ``armt`` is the authors' code, ``armt_sequential`` the paper's equations as printed,
``armt_no_gamma`` the ablation of Fig. 4a, ``linear`` a linear attention without erasing,
``delta`` and ``delta_hard`` the delta rule on unit features without ``z``."""
