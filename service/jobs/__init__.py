"""The job road: all work, whether somebody waits for it or comes back."""
