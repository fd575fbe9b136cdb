"""What docs/benchmarks.md reports: each module is a command, `python -m benchmarks.NAME`."""
