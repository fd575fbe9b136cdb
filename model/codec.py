"""The codec: the one door to networks, diffusion, entropy coding and container.

encode   pixels --analyse--> Latents --pack--> bytes
decode   bytes --unpack--> Unpacked --start--> DecodeState --denoise_step (K times)--> --finish--> pixels
"""

from __future__ import annotations

from model.decoder import Decoder, seed_of
from model.encoder import Encoder
from model.loaded import Precision

__all__ = ["Codec", "Precision", "seed_of"]


class Codec(Encoder, Decoder):
    """One model on one device, both ways. Holds no state of any image; share it freely."""
