"""Draw results: a DataFrame in, a figure out; one module a kind of picture."""

from wisepatch.reports.plots.answers import calibration_table, confusion_table, draw_calibration, draw_confusion
from wisepatch.reports.plots.candidates import candidate_table, draw_candidates
from wisepatch.reports.plots.frontier import draw_sweep, sweep_table
from wisepatch.reports.plots.layers import draw_layers, layer_table, load_layers
from wisepatch.reports.plots.look import Look, parse_labels, parse_size
from wisepatch.reports.plots.over_alpha import alpha_table, draw_over_alpha, draw_per_task, per_task_table
from wisepatch.reports.plots.robustness import draw_robustness
from wisepatch.reports.plots.saving import SUFFIXES, check_picture_path, picture_problems, save_figure
from wisepatch.reports.plots.shifts import robustness_table
from wisepatch.reports.plots.sweeps import mean_over_runs

__all__ = [
    "SUFFIXES",
    "Look",
    "alpha_table",
    "calibration_table",
    "candidate_table",
    "check_picture_path",
    "confusion_table",
    "draw_calibration",
    "draw_candidates",
    "draw_confusion",
    "draw_layers",
    "draw_over_alpha",
    "draw_per_task",
    "draw_robustness",
    "draw_sweep",
    "layer_table",
    "load_layers",
    "mean_over_runs",
    "parse_labels",
    "parse_size",
    "per_task_table",
    "picture_problems",
    "robustness_table",
    "save_figure",
    "sweep_table",
]
