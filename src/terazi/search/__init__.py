"""Candidates, limits, Pareto front and the recommendation with its reasons."""

from terazi.search.bench import Settings, calibrated, open_workspace, real_tools
from terazi.search.candidate import Candidate, Framework, Recommendation, Rejection, Sample, Scored
from terazi.search.comparison import compare
from terazi.search.loop import Tools, optimize, pick_file
from terazi.search.onnx import DEFAULT_ONNX, OnnxPlan, variant_type
from terazi.search.recommendation import recommend
from terazi.search.study import DEFAULT_PRESETS, THOROUGH_PRESETS, Proposal, Study, of_model, propose
from terazi.search.workspace import Workspace, deliver

__all__ = [
    "DEFAULT_ONNX",
    "DEFAULT_PRESETS",
    "THOROUGH_PRESETS",
    "Candidate",
    "Framework",
    "OnnxPlan",
    "Proposal",
    "Recommendation",
    "Rejection",
    "Sample",
    "Scored",
    "Settings",
    "Study",
    "Tools",
    "Workspace",
    "calibrated",
    "compare",
    "deliver",
    "of_model",
    "open_workspace",
    "optimize",
    "pick_file",
    "propose",
    "real_tools",
    "recommend",
    "variant_type",
]
