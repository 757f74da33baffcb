"""The built-in merge methods: one row each, with its parameters, their ranges and defaults, and its paper."""

from __future__ import annotations

from wisepatch.hookspecs import MergeMethod, Parameter
from wisepatch.weights import averages, interpolation, singular_vectors, task_vectors

WEIGHTS = Parameter("weights", kind="numbers", low=0, help="how much each model counts (default: all the same)")
BETWEEN = Parameter("alpha", low=0, high=1, help="share of the second of two models")
SCALE = Parameter("scale", 1.0, help="scale of the merged task vector")
SUM_SCALE = Parameter("scale", 0.4, help="scale of the sum of the task vectors")
REDUCTION = Parameter("reduction", 0.9, low=0, high=1, help="factor of what is not on the diagonal of Gram matrices")
IMAGES = Parameter("images", 256, low=1, kind="integer", help="training images of each task that inputs are taken from")

LINEAR = MergeMethod(
    "linear", averages.linear, elementwise=True, parameters=(BETWEEN, WEIGHTS),
    reference="Wortsman et al. 2022, Model soups, arXiv 2203.05482",
)  # fmt: skip
FISHER = MergeMethod(
    "fisher", averages.fisher, needs_fisher=True, elementwise=True, parameters=(BETWEEN, WEIGHTS),
    reference="Matena and Raffel 2022, arXiv 2111.09832",
)  # fmt: skip
TASK_ARITHMETIC = MergeMethod(
    "task-arithmetic", task_vectors.task_arithmetic, elementwise=True, from_start=True,
    parameters=(
        Parameter("alpha", 0.4, help="scale of the sum of all task vectors; a negative one forgets"),
        Parameter("alphas", kind="numbers", help="a scale for each end, in place of alpha"),
    ),
    reference="Ilharco et al. 2023, arXiv 2212.04089",
)  # fmt: skip
TIES = MergeMethod(
    "ties", task_vectors.ties, elementwise=True, from_start=True, of_vectors=True, costly=True, survey=task_vectors.survey_ties,
    parameters=(
        Parameter("density", 0.2, low=0, high=1, help="share of each task vector that is kept, over all weights"),
        Parameter("consensus", "mean", kind="word", words=("mean", "sum"), help="mean or sum of what agrees in sign"),
        SCALE,
    ),
    reference="Yadav et al. 2023, arXiv 2306.01708",
)  # fmt: skip
DARE = MergeMethod(
    "dare", task_vectors.dare, from_start=True, of_vectors=True, costly=True,
    parameters=(
        Parameter("drop", 0.9, low=0, high=0.9999, help="share of each task vector that is dropped at random"),
        Parameter("seed", 0, low=0, kind="integer", help="of the draws"),
        SUM_SCALE,
    ),
    reference="Yu et al. 2024, arXiv 2311.03099",
)  # fmt: skip
BREADCRUMBS = MergeMethod(
    "breadcrumbs", task_vectors.breadcrumbs, from_start=True, of_vectors=True, costly=True,
    parameters=(
        Parameter("density", 0.15, low=0, high=1, help="share of each row that is kept"),
        Parameter("outliers", 0.006, low=0, high=1, help="share of each row, the largest, that is removed before"),
        SUM_SCALE,
    ),
    reference="Davari and Belilovsky 2024, arXiv 2312.06795",
)  # fmt: skip
REGMEAN = MergeMethod(
    "regmean", averages.regmean, needs_grams=True, costly=True, ends=(2, None), parameters=(REDUCTION, IMAGES),
    reference="Jin et al. 2023, arXiv 2212.09849",
)  # fmt: skip
REGMEAN_PLUS_PLUS = MergeMethod(
    "regmean++", averages.regmean, needs_grams=True, costly=True, ends=(2, None), parameters=(REDUCTION, IMAGES),
    reference="Nguyen et al. 2025, arXiv 2508.03121",
)  # fmt: skip
LINES = MergeMethod(
    "lines", task_vectors.lines, elementwise=True, from_start=True, of_vectors=True, survey=task_vectors.survey_lines,
    parameters=(
        Parameter("alpha", help="scale of the first block and outside of blocks (default: 1 / N, 1 - beta for one end)"),
        Parameter("beta", 0.5, help="how much larger the scale of the last block is"),
    ),
    reference="Wang et al. 2025, arXiv 2410.17146",
)  # fmt: skip
MODEL_STOCK = MergeMethod(
    "model-stock", task_vectors.model_stock, from_start=True, of_vectors=True, costly=True, ends=(2, None), parameters=(SCALE,),
    reference="Jang et al. 2024, arXiv 2403.19522",
)  # fmt: skip
SLERP = MergeMethod(
    "slerp", averages.slerp, ends=(2, 2), parameters=(Parameter("alpha", 0.5, low=0, high=1, help=BETWEEN.help),),
    reference="Shoemake 1985",
)  # fmt: skip
TSV_M = MergeMethod(
    "tsv-m", singular_vectors.tsv_m, from_start=True, of_vectors=True, costly=True, parameters=(SCALE,),
    reference="Gargiulo et al. 2025, arXiv 2412.00081",
)  # fmt: skip
ISO_C = MergeMethod(
    "iso-c", singular_vectors.iso_c, from_start=True, of_vectors=True, costly=True, parameters=(SCALE,),
    reference="Marczak et al. 2025, arXiv 2502.04959",
)  # fmt: skip
ISO_CTS = MergeMethod(
    "iso-cts", singular_vectors.iso_cts, from_start=True, of_vectors=True, costly=True,
    parameters=(
        Parameter("common", 0.8, low=0, high=1, help="share of the singular vectors that are those of the sum"), SCALE,
    ),
    reference="Marczak et al. 2025, arXiv 2502.04959",
)  # fmt: skip
ALONG = MergeMethod("along", interpolation.along, elementwise=True)  # a start, and a task vector that was merged before

BUILT_IN = (
    LINEAR, FISHER, TASK_ARITHMETIC, TIES, DARE, BREADCRUMBS, REGMEAN, REGMEAN_PLUS_PLUS, LINES, MODEL_STOCK, SLERP, TSV_M,
    ISO_C, ISO_CTS,
)  # fmt: skip
