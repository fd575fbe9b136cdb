"""From image files to codec requests and back: limits, the codec service."""
