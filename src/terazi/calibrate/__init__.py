"""How strongly each column of a model's weights is used: collect, load, save, merge, look at."""

from terazi.calibrate.calibration import Calibration, Sums, merge
from terazi.calibrate.collect import collect
from terazi.calibrate.corpus import Corpus, calibration_corpus, read_corpus
from terazi.calibrate.imatrix import is_calibration, load, save
from terazi.calibrate.statistics import TensorStatistics, statistics

__all__ = [
    "Calibration",
    "Corpus",
    "Sums",
    "TensorStatistics",
    "calibration_corpus",
    "collect",
    "is_calibration",
    "load",
    "merge",
    "read_corpus",
    "save",
    "statistics",
]
