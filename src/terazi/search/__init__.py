"""Candidates, limits, Pareto front and the recommendation with its reasons."""

from terazi.search.bench import Settings, calibrated, open_workspace, real_tools
from terazi.search.candidate import Candidate, Framework, Recommendation, Rejection, Sample, Scored
from terazi.search.comparison import compare
from terazi.search.loop import Tools, optimize, pick_file
from terazi.search.recommendation import recommend
from terazi.search.study import Study, propose
from terazi.search.variants import FORMATS, variant_type
from terazi.search.variants.family import Proposal, RecipePlan
from terazi.search.workspace import Workspace, deliver

__all__ = [
    "FORMATS",
    "Candidate",
    "Framework",
    "Proposal",
    "RecipePlan",
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
    "open_workspace",
    "optimize",
    "pick_file",
    "propose",
    "real_tools",
    "recommend",
    "variant_type",
]
