"""How pictures and spectrograms are cut in patches, hidden and varied for self-supervision.

Shapes
    B  media    C  channels    H, W  picture    T  frames of a spectrogram    M  mel bins
    N  patches  P  numbers in a patch
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PictureViews:
    """Square patches of pictures (B, C, H, W), row by row, as CLIP reads them."""

    patch_size: int

    def patches(self, x: Tensor) -> Tensor:
        """Cut into (B, N, P)."""
        return F.unfold(x, self.patch_size, stride=self.patch_size).transpose(1, 2)

    def hide(self, x: Tensor, hidden_BN: Tensor) -> Tensor:
        """Blank the hidden patches to the mean colour (0 after normalization)."""
        rows = x.shape[-2] // self.patch_size
        keep = (~hidden_BN).view(x.shape[0], 1, rows, -1).to(x.dtype)
        return x * F.interpolate(keep, scale_factor=self.patch_size, mode="nearest")

    def vary(self, x: Tensor, variation: float, generator: torch.Generator) -> Tensor:
        """Crop, shift, turn and light each picture at random; never mirror (left stays left).

        `variation` is how much of a side a crop may lose; turns and light follow.
        """
        count = x.shape[0]

        def spread(*shape: int) -> Tensor:
            """Numbers between -1 and 1."""
            return (2 * torch.rand(count, *shape, generator=generator) - 1).to(x.device)

        zoom = 1 - variation * torch.rand(count, generator=generator).to(x.device)
        angle = variation * spread()
        theta = torch.zeros(count, 2, 3, device=x.device)
        theta[:, 0, 0] = theta[:, 1, 1] = zoom * angle.cos()
        theta[:, 1, 0] = zoom * angle.sin()
        theta[:, 0, 1] = -theta[:, 1, 0]
        theta[:, :, 2] = (1 - zoom)[:, None] * spread(2)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        view = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return view * (1 + variation * spread(1, 1, 1)) + variation * spread(1, 1, 1)


@dataclass(frozen=True)
class SpectrogramViews:
    """Patches of spectrograms; `time_axis` says which axis of (B, ?, ?) is time.

    BEATs reads (B, T, M) in 16 x 16 patches, time first. Whisper reads (B, M, T); its rows are two
    frames each.
    """

    time_axis: int
    patch_frames: int
    patch_bins: int | None  # None takes all bins

    def patches(self, x: Tensor) -> Tensor:
        """Cut into (B, N, P), time-major."""
        x_BTM = self._time_first(x)
        bins = self.patch_bins or x_BTM.shape[-1]
        frames = x_BTM.shape[1] // self.patch_frames
        x_BTM = x_BTM[:, : frames * self.patch_frames]
        cut = x_BTM.unflatten(1, (frames, self.patch_frames)).unflatten(-1, (-1, bins))
        return cut.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)

    def hide(self, x: Tensor, hidden_BN: Tensor) -> Tensor:
        """Blank the hidden patches to 0."""
        x_BTM = self._time_first(x).clone()
        bins = self.patch_bins or x_BTM.shape[-1]
        columns = x_BTM.shape[-1] // bins
        keep = (~hidden_BN).view(x.shape[0], -1, columns).to(x.dtype)
        mask = keep.repeat_interleave(self.patch_frames, 1).repeat_interleave(bins, 2)
        x_BTM[:, : mask.shape[1]] *= mask
        return self._time_first(x_BTM)

    def vary(self, x: Tensor, variation: float, generator: torch.Generator) -> Tensor:
        """Roll each spectrogram in time and change its loudness.

        `variation` is the largest shift, as a share of the length; loudness follows.
        """
        length = x.shape[self.time_axis]
        most = int(length * variation)
        shifts = torch.randint(0, most + 1, (x.shape[0],), generator=generator).tolist()
        rolled = torch.stack(
            [row.roll(shift, self.time_axis - 1) for row, shift in zip(x, shifts, strict=True)]
        )
        loudness = (2 * torch.rand(x.shape[0], 1, 1, generator=generator) - 1).to(x.device)
        return rolled + variation * loudness

    def _time_first(self, x: Tensor) -> Tensor:
        return x if self.time_axis == 1 else x.transpose(1, 2)
