"""From image files to codec requests and back: limits, image reading and writing, the codec service."""
