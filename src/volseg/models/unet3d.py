"""The 3D U-Net: volume in, volume of logits out.

Source: Cicek et al., "3D U-Net: learning dense volumetric segmentation from sparse annotation",
MICCAI 2016. At the published widths, with three channels in and three out, it has 19,073,187
parameters. The published 19,069,955 count a bias per convolution where here a batch norm has two
parameters (2,336 more), and no bias of the up-sampling (896 more). Convolutions are padded here, so
that an output has the size of its input.
"""

from __future__ import annotations

from volseg.models.parts import UShape, Variant, check_width

STAGES = 3
STRIDE = 2**STAGES
"""Down-sampling of the whole network in z, y and x; sizes are multiples of it."""


class UNet3d(UShape):
    """The U-Net for volumes, from raw to logits.

    Channels double before each pooling rather than after it, so that no level is narrower than
    what it hands on; up-sampling keeps them.

    Parameters
    ----------
    width : channels of the first convolution, an even number; the published network has 32
    inputs, outputs : channels of raw and of the logits
    """

    title = "3D U-Net"

    def __init__(self, width: int = 32, *, inputs: int = 1, outputs: int = 1) -> None:
        check_width(self.title, width, 2)
        widths = [(width << k, width << k + 1) for k in range(STAGES + 1)]
        super().__init__(widths, Variant(3), inputs=inputs, outputs=outputs, halving=False)
