"""Runs over data sets: what is measured once is kept, and reported."""
