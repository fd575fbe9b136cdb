"""Second implementations of metrics in plain NumPy and SciPy, written from the papers; slow and for the tests alone."""
