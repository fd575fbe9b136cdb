"""Decodes `.cdc` files on this machine without torch: numpy and onnxruntime (extra `decode`).

>>> from cdc_client.decoder import Decoder
>>> pixels = Decoder().decode(open("photo.cdc", "rb").read())  # doctest: +SKIP
"""

from cdc_client.decoder.container import File, parse, read_header
from cdc_client.decoder.decoder import Decoded, Decoder
from cdc_client.decoder.latents import LatentDecoder
from cdc_client.decoder.weights import DecoderFiles, find_files

__all__ = ["Decoded", "Decoder", "DecoderFiles", "File", "LatentDecoder", "find_files", "parse", "read_header"]
