"""The encoding half of the codec: pixels --analyse--> Latents --pack--> bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import DEFAULT_EFFORT, LATENT_STRIDE, MAX_EFFORT, padded, rounds_of
from model.container import Header, Section, SectionType, pack
from model.entropy.coder import Symbols
from model.errors import InvalidParameter
from model.loaded import LoadedModel
from model.refinement import Between, Refiner, nothing
from model.tiling import tiles
from model.types import Analysis, Latents, Pixels, Quantised


class Encoder(LoadedModel):
    """What an encode asks of a model."""

    @property
    def max_effort(self) -> int:
        """The highest effort of an encode."""
        return MAX_EFFORT if self.architecture.worth else 1

    def begin(self, pixels: Pixels) -> Analysis:
        """Prepare an encode; nothing is computed yet.

        Args:
            pixels: uint8 [H, W, 3], sides 1..65535.

        Raises:
            InvalidParameter: wrong shape or dtype, or a side too long.
            LimitExceeded: more pixels than the model takes.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InvalidParameter(f"pixels must be uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        height, width = pixels.shape[:2]
        Header(self.codec_id, width, height, 0)  # checks the sides before anything is allocated
        self._check_canvas(height, width)
        rows, columns = padded(height), padded(width)
        canvas = np.pad(pixels, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        features = torch.empty((self.networks.features, rows // LATENT_STRIDE, columns // LATENT_STRIDE))
        cover = tiles(rows, columns, self.tiling.tile, self.tiling.encoder_margin)
        return Analysis(canvas, Latents(features, width, height, canvas), cover, set(range(len(cover))))

    @torch.inference_mode()
    def analyse_tiles(self, rows: Sequence[tuple[Analysis, int]]) -> None:
        """Run the encoder once on tiles of equal shape, of any images: (image, number of the tile)."""
        windows = np.stack([a.canvas[a.tiles[i].window()] for a, i in rows])
        image = torch.from_numpy(windows).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        features = self.networks.analyse(image.contiguous(memory_format=torch.channels_last)).cpu()
        for row, (analysis, i) in enumerate(rows):
            tile = analysis.tiles[i]
            own = features[row, :, *tile.inner(LATENT_STRIDE)]
            analysis.latents.features[:, *tile.centre(LATENT_STRIDE)] = own
            analysis.pending.discard(i)

    def analyse(self, pixels: Pixels) -> Latents:
        """Run the encoder on a whole image; every rate can be packed from the result. Raises as `begin`."""
        analysis = self.begin(pixels)
        for i in range(len(analysis.tiles)):
            self.analyse_tiles([(analysis, i)])
        return analysis.latents

    @torch.inference_mode()
    def _quantise(
        self, images: Sequence[Latents], rates: Sequence[int]
    ) -> tuple[Tensor, Symbols, Symbols, Tensor, Tensor, Tensor | None]:
        """y of all images, then what `Quantised` says of each: hyper, latent, means, indices, float means."""
        q = torch.tensor(rates, device=self.device) / 255
        features = images[0].features[None] if len(images) == 1 else torch.stack([i.features for i in images])
        y = self.networks.latent(features.to(self.device, memory_format=torch.channels_last), q)
        hyper = self.entropy.quantise_hyper(self.networks.hyper(y))
        float_means, y = self._float_means(hyper), y.cpu().contiguous()
        latent, means, indices = self.entropy.choose_latents(
            y,
            hyper,
            rates,
            worth=self.architecture.worth,
            float_means=float_means,
        )
        return y, hyper, latent, means, indices, float_means

    def quantise(
        self, latents: Latents, rate: int, effort: int = DEFAULT_EFFORT, between: Between = nothing
    ) -> Quantised:
        """Finish the analysis at the rate byte, run the hyper-encoder and choose symbols. The last floats of an encode.

        Args:
            latents: an analysed image.
            rate: rate byte 0..255.
            effort: 1..`max_effort`: in one pass, or refined, the higher the longer.
            between: what is done of the refinement, and of how much; may raise to abandon the work.

        Raises:
            InvalidParameter: an effort that the model does not have.
        """
        rounds = rounds_of(effort, self.max_effort)
        y, hyper, latent, means, indices, floats = self._quantise([latents], [rate])
        float_means = None if floats is None else floats[0]
        quantised = Quantised(hyper[0], latent[0], means[0], indices[0], rate, float_means)
        if not rounds:
            return quantised
        return Refiner(self.networks, self.entropy, self.device).refine(latents, y[0], quantised, rounds, between)

    def pack_together(self, images: Sequence[tuple[Latents, int, Sequence[Section]]]) -> list[bytes]:
        """Return the files of several images whose canvases are of one shape: each is what `pack` gives."""
        _, hypers, chosen, _, indices, _ = self._quantise([i for i, _, _ in images], [rate for _, rate, _ in images])
        streams = self.entropy.encode_latents(chosen, indices)
        return [
            self._file(latents, rate, hyper, stream, sections)
            for (latents, rate, sections), hyper, stream in zip(images, hypers, streams, strict=True)
        ]

    def pack(
        self,
        latents: Latents,
        rate: int,
        sections: Sequence[Section] = (),
        *,
        effort: int = DEFAULT_EFFORT,
        between: Between = nothing,
    ) -> bytes:
        """Return the file of an analysed image at a rate byte 0..255, with further sections after z and y.

        The rest as for `quantise`.
        """
        quantised = self.quantise(latents, rate, effort, between)
        stream = self.entropy.encode_latent(quantised.latent, quantised.indices)
        return self._file(latents, rate, quantised.hyper, stream, sections)

    def _file(self, latents: Latents, rate: int, hyper: Symbols, stream: bytes, sections: Sequence[Section]) -> bytes:
        coded = (Section(SectionType.HYPER, self.entropy.encode_hyper(hyper)), Section(SectionType.LATENT, stream))
        return pack(Header(self.codec_id, latents.width, latents.height, rate), (*coded, *sections))
