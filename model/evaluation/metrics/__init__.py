"""The metrics, one file each where they are more than a call."""
