"""Numbers about a variant: quality, speed and memory, each with its uncertainty and conditions."""

from terazi.evaluate.evaluation import evaluate
from terazi.evaluate.measurement import METRICS, Measurement, Metric

__all__ = ["METRICS", "Measurement", "Metric", "evaluate"]
