"""The built-in objectives of fine-tuning by name, each with its paper and the paper's defaults; code loads when it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from wisepatch.errors import UsageError
from wisepatch.hookspecs import Objective, hookimpl
from wisepatch.train_config import CROSS_ENTROPY, TrainConfig


def _in(module: str, name: str) -> Callable[[Any], Any]:
    """Return a function that calls the one called ``name`` of ``module``, which is imported then."""

    def call(given: Any) -> Any:
        return getattr(import_module(f"{__package__}.{module}"), name)(given)

    return call


def _no_factors(config: TrainConfig) -> str:
    return "l2-sp keeps weights near the start, and lora trains factors of their updates" if config.lora else ""


def _no_classes(config: TrainConfig) -> str:
    if config.weights != "none" or config.label_smoothing:
        reason = "flyp compares each image with the prompts of its batch: it has no classes to weigh or to smooth"
        raise UsageError(reason, "leave --weights and --label-smoothing out")
    return ""


OBJECTIVES = (
    Objective(
        CROSS_ENTROPY, _in("supervised", "cross_entropy"), several_tasks=True, paper="WiSE-FT and PAINT, section 3"
    ),
    Objective(
        "flyp", _in("contrastive", "flyp"), head="frozen", on_features=False, trains_text=True, check=_no_classes,
        paper="Goyal et al., Finetune Like You Pretrain, CVPR 2023, arXiv 2212.00638, section 3",
    ),
    Objective(
        "lp-ft", _in("supervised", "linear_probing_first"), {"steps": 2000, "lr": 1e-3}, head="trained", on_features=False,
        paper="Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022, arXiv 2202.10054, section 3.4",
    ),
    Objective(
        "l2-sp", _in("supervised", "starting_point"), {"weight": 0.1}, replaces_decay=True, several_tasks=True,
        check=_no_factors,
        paper="Li et al., Explicit Inductive Bias for Transfer Learning, ICML 2018, arXiv 1802.01483, equation 2",
    ),
    Objective(
        "distill", _in("teaching", "distill"), {"weight": 1.0, "temperature": 2.0, "classes": "all"}, on_features=False,
        unlabelled=True, check=_in("teaching", "check_distill"),
        paper="Li and Hoiem, Learning without Forgetting, ECCV 2016, arXiv 1606.09282, equations 2 and 3",
    ),
    Objective(
        "lipsum", _in("teaching", "lipsum"), {"weight": 1.0, "texts": 80, "length": 8}, on_features=False,
        check=_in("teaching", "check_lipsum"), paper="Nam et al., Lipsum-FT, ICLR 2024, arXiv 2404.00860, section 5.1",
    ),
    Objective(
        "car-ft", _in("teaching", "context"), {"weight": 1.0}, on_features=False,
        paper="Mao et al., Context-Aware Robust Fine-Tuning, IJCV 2024, arXiv 2211.16175, section 3",
    ),
)  # fmt: skip


@hookimpl
def register_objectives() -> tuple[Objective, ...]:
    """Return the built-in objectives."""
    return OBJECTIVES
