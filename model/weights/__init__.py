"""Weights: their files, the registry of installed models, published checkpoints, and the shipped default."""
