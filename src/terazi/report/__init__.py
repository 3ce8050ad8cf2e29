"""A recommendation and its measurements, for people: one HTML file, one JSON file."""

from terazi.report.documents import Subject, document
from terazi.report.html import page
from terazi.report.methods import method
from terazi.report.publishing import check_free, publish, repeat_command
from terazi.report.write import write_report

__all__ = ["Subject", "check_free", "document", "method", "page", "publish", "repeat_command", "write_report"]
