"""Values of voxels: intensities, blending, downsampling. Pure functions over arrays."""
