"""What is measured: our models, baselines with real files, and ideal code lengths."""
