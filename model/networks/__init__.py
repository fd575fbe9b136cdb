"""The networks: plain torch modules without entropy coding, diffusion schedules or files."""
