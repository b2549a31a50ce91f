"""The only room that knows zarr, pyarrow and safetensors."""
