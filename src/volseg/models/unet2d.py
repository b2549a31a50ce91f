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


class UNet2d(UShape):
    """The U-Net for slices, from raw to logits.

    Parameters
    ----------
    width : channels at full resolution, an even number; doubled at each of 4 stages
    norm : whether a batch norm stands before each ReLU; the published network has none
    padded : False is the published form: no output depends on a made-up border
    outputs : number of maps

    Raises
    ------
    ParameterError
        If the width is odd.

    Examples
    --------
    >>> sum(p.numel() for p in UNet2d(16, norm=False).parameters())
    1940817
    """

    title = "U-Net"

    def __init__(
        self, width: int = 64, *, norm: bool = True, padded: bool = True, outputs: int = 1
    ) -> None:
        check_width(self.title, width, 2)
        super().__init__(doubled(width, STAGES), Variant(2, norm, padded), outputs=outputs)
