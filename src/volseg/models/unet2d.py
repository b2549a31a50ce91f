"""The 2D U-Net: slice in, slice of logits out.

Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image
segmentation", MICCAI 2015, without its drop-out. With base width 64, one channel in, one out and no
norm the network has 31,030,593 parameters.
"""

from __future__ import annotations

from volseg.models.parts import UShape, Variant, check_width, doubled, valid_margin, valid_offset

STAGES = 4
STRIDE = 2**STAGES
"""Down-sampling of the whole network in y and x; padded sizes are multiples of it."""
MARGIN = valid_margin(STAGES)
"""Pixels per side that the unpadded form takes: 572 become 388."""
OFFSET = valid_offset(STAGES)
"""Output sizes of the unpadded form are this much more than a multiple of the stride."""
SLICES = Variant(2)


class UNet2d(UShape):
    """The U-Net for slices, from raw to logits.

    Parameters
    ----------
    width : channels at full resolution, an even number; doubled at each stage
    variant : with batch norms, which the published network has not; unpadded is the published form,
        of which no output depends on a made-up border; with neighbours it takes volumes
    stages : how often sizes are halved
    outputs : number of maps

    Examples
    --------
    >>> sum(p.numel() for p in UNet2d(16, variant=Variant(2, norm=False)).parameters())
    1940817
    """

    title = "U-Net"

    def __init__(
        self, width: int = 64, *, variant: Variant = SLICES, stages: int = STAGES, outputs: int = 1
    ) -> None:
        check_width(self.title, width, 2)
        super().__init__(doubled(width, stages), variant, outputs=outputs)
