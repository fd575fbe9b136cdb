"""Entropy coding: float likelihoods for training and export, integers for everything that decides a file's bytes."""
