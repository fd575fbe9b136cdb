"""Diffusion: noise schedules, the DDIM step and the start noise. Networks come in as plain callables."""
