"""Candidates, limits, Pareto front and the recommendation with its reasons."""

from terazi.search.candidate import Candidate, Framework, Recommendation, Rejection, Sample, Scored
from terazi.search.recommend import recommend

__all__ = ["Candidate", "Framework", "Recommendation", "Rejection", "Sample", "Scored", "recommend"]
