"""Candidates, limits, Pareto front and the recommendation with its reasons."""
