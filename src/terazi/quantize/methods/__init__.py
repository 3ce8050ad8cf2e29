"""Ways to choose codes and scales for a group of weights: pure functions of arrays."""
