"""Read what a microscope or an annotator wrote."""
