"""A recommendation and its measurements, for people: one HTML file, one JSON file."""
