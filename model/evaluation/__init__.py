"""Measuring the codec: metrics and ideal code lengths."""
