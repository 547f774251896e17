"""Fine-tuning: groups of parameters, low-rank adaptation, a teacher."""

from armt_jax.tuning.groups import rate_factors, tuned_optimizer
from armt_jax.tuning.lora import WithLora, init_lora, merge_lora
from armt_jax.tuning.model import plain_params, tuned_model, tuned_scoring
from armt_jax.tuning.restored import restored
from armt_jax.tuning.table import parameter_rows, print_parameters, show_parameters

__all__ = [
    "WithLora",
    "init_lora",
    "merge_lora",
    "parameter_rows",
    "plain_params",
    "print_parameters",
    "rate_factors",
    "restored",
    "show_parameters",
    "tuned_model",
    "tuned_optimizer",
    "tuned_scoring",
]
