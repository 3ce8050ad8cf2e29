"""Numbers about a variant: quality, speed and memory, each with its uncertainty and conditions."""
