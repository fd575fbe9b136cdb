"""Training: data, losses, the loop, and what it writes."""
