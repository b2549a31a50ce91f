"""What is read and handed on, each with the test of the right value; the tests are there.

Files are written by other programs' writers, or byte by byte as their specifications say, and are
never read back by what wrote them.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TIFF, SIZES, SLICES = (
    "sources/test_tiff_images.py",
    "sources/test_voxel_size.py",
    "sources/test_slices.py",
)
OTHERS, STACK, SPACE = (
    "sources/test_other_formats.py",
    "sources/test_stack.py",
    "storage/test_space.py",
)
EXPORT, READERS, LABELS = (
    "exchange/test_export_volume.py",
    "storage/test_other_readers.py",
    "sources/test_labels.py",
)
IN_PLACE = "exchange/test_export_in_place.py"
STATS, ADOPT = "stages/test_stats.py", "stages/test_adopt.py"
ROWS = {
    # TIFF
    "channels of tifffile": (TIFF, "test_channels_that_tifffile_describes_are_chosen"),
    "truncated, one IFD of many slices": (TIFF, "test_one_page_that_describes_many_planes"),
    "one IFD, large, of ImageJ": (TIFF, "test_imagej_keeps_large_stacks_in_one_page"),
    "two series": (TIFF, "test_two_images_in_a_file_are_chosen_from"),
    "MetaMorph": (TIFF, "test_metamorph_stacks"),
    "planes that nothing describes": (TIFF, "test_planes_without_a_page_are_told_of"),
    "TiffData in another order": (TIFF, "test_ome_planes_come_in_the_order_of_z"),
    "a plane before the stack": (TIFF, "test_a_plane_before_the_stack_is_left_out_and_told_of"),
    "several OME images": (TIFF, "test_several_ome_images_have_each_its_size"),
    "units of OME": (SIZES, "test_ome_xml_units"),
    "units of OME, and defaults beside them": (
        SIZES,
        "test_defaults_of_programs_do_not_contradict_ome_xml",
    ),
    "defaults fill no gap": (SIZES, "test_resolutions_of_prints_fill_no_gap_of_ome_xml"),
    "72 dpi of ImageJ": (SIZES, "test_imagej_at_pixels_per_inch_of_paper_knows_no_size"),
    "one unit of ImageJ": (SIZES, "test_a_pixel_of_one_unit_is_told_of"),
    "broken OME-XML": (TIFF, "test_broken_ome_xml_leaves_the_pages_and_no_size"),
    "sets of OME files": ("sources/test_ome_sets.py", "test_the_set_is_read_from_any_of_its_files"),
    "FEI, Zeiss, TESCAN": (SIZES, "test_microscopes_say_how_large_pixels_are"),
    "Gatan in TIFF": (OTHERS, "test_pixel_sizes_of_digital_micrograph_in_tiff"),
    "palettes": (TIFF, "test_a_palette_of_greys_is_read_as_grey"),
    "R = G = B in TIFF": (TIFF, "test_colours_that_are_greys_are_read_as_grey"),
    "R = G = B and palettes in PNG": (SLICES, "test_colours_that_are_greys_are_read_as_grey"),
    "strips of unlike pages": (TIFF, "test_pages_that_are_stored_in_different_ways_are_one_stack"),
    # folders
    "two detectors, raw beside masks": (SLICES, "test_slices_of_two_sequences_are_not_mixed"),
    "an inverted slice": (SLICES, "test_an_inverted_slice_among_others_is_named"),
    "warnings of a folder": (SLICES, "test_what_is_told_of_a_file_is_told_of_a_folder"),
    "order of z": (SLICES, "test_numbers_of_every_kind_are_in_order"),
    "files of several pages": (SLICES, "test_files_of_several_pages_are_joined_along_z"),
    "--pad, --crop": (SLICES, "test_slices_of_other_sizes_are_padded_or_cropped_on_request"),
    "JPEG": (SLICES, "test_jpeg_slices_are_read_and_told_of"),
    # place, units, labels
    "translation and units": (SPACE, "test_what_is_derived_lies_where_the_image_lies"),
    "translation of convert": (
        "stages/test_convert.py",
        "test_an_image_stays_in_its_place_and_units",
    ),
    "masks in stats": (STATS, "test_the_objects_of_a_mask_are_its_components"),
    "masks in evaluate": ("stages/test_evaluate.py", "test_a_mask_stands_for_its_components"),
    "masks in report": (
        "cli/test_report.py",
        "test_objects_of_a_mask_are_its_components_wherever_it_is_looked_at_from",
    ),
    "size of labels": (STATS, "test_labels_of_voxels_of_another_size_are_told_of"),
    "sphericity": (STATS, "test_few_voxels_have_no_sphericity_and_it_says_why"),
    "palettes of labels": (LABELS, "test_labels_with_a_palette_are_its_numbers"),
    "float32 labels": (LABELS, "test_whole_numbers_of_any_type_are_labels"),
    "folders of labels, train": (
        "stages/test_train_data.py",
        "test_labels_may_be_a_folder_of_slices",
    ),
    "folders of labels, evaluate": (
        "stages/test_evaluate.py",
        "test_truth_may_be_a_folder_of_slices",
    ),
    "ilastik, Zarr, TIFF in label": (
        ADOPT,
        "test_fractions_of_any_format_become_the_same_objects",
    ),
    "cellpose in label": (ADOPT, "test_own_files_of_cellpose"),
    "MitoNet in label": (ADOPT, "test_own_files_of_mitonet"),
    # formats
    "MRC": ("sources/test_mrc.py", "test_volumes_with_their_size"),
    "MRC, signed": ("sources/test_mrc.py", "test_signed_bytes_are_moved_and_it_is_told"),
    "MRC, IMOD": ("sources/test_mrc.py", "test_bytes_that_imod_says_are_unsigned"),
    "HDF5": ("sources/test_hdf5.py", "test_convert_reads_slabs_and_the_size"),
    "axes of ilastik": ("sources/test_hdf5.py", "test_axes_are_those_that_are_said"),
    "Imaris": ("sources/test_hdf5.py", "test_imaris_pads_what_it_stores"),
    "BigDataViewer": ("sources/test_hdf5.py", "test_bigdataviewer_stores_uint16_as_int16"),
    "size of BigDataViewer": (
        "sources/test_hdf5.py",
        "test_the_size_of_bigdataviewer_stands_in_its_xml",
    ),
    "bioformats2raw": ("sources/test_bioformats2raw.py", "test_one_of_several_is_chosen"),
    "axes of OME-Zarr": (
        "sources/test_zarr_axes.py",
        "test_one_volume_of_an_image_of_any_axes",
    ),
    "OME-Zarr 0.6": (SPACE, "test_axes_of_coordinate_systems"),
    "zip": ("sources/test_zarr_axes.py", "test_a_zip_file_of_channels"),
    "dm3, dm4": (OTHERS, "test_digital_micrograph"),
    "dm3, dm4 by another reader": (OTHERS, "test_digital_micrograph_as_ncempy_reads_it"),
    "N5": (OTHERS, "test_n5"),
    "precomputed": (OTHERS, "test_precomputed"),
    "NIfTI": (OTHERS, "test_nifti_by_its_own_library"),
    "NRRD": (OTHERS, "test_nrrd_by_its_own_library"),
    "types": (STACK, "test_other_types_are_converted_and_it_is_told"),
    "NaN": (
        "stages/test_convert.py",
        "test_values_that_are_not_finite_become_the_fill_value_and_are_counted",
    ),
    "extras, HDF5": ("sources/test_hdf5.py", "test_without_the_extra_it_is_named"),
    "extras, MRC": ("sources/test_mrc.py", "test_without_the_extra_it_is_named"),
    "extras, folders": (OTHERS, "test_without_the_extra_it_is_named"),
    "formats that are not read": (
        "sources/test_readers.py",
        "test_formats_that_are_not_read_are_named",
    ),
    "advice of info": ("sources/test_readers.py", "test_info_does_not_advise_what_convert_refuses"),
    "texts of libraries": ("test_messages.py", "test_texts_of_libraries_stand_in_no_message"),
    "the table of readers": ("sources/test_readers.py", "test_the_documents_show_the_table"),
    "damaged files": ("test_fuzzing.py", "test_damaged_files_end_in_a_message"),
    # handed on
    "ImageJ": (EXPORT, "test_imagej_reads_values_sizes_and_place"),
    "BigTIFF": (EXPORT, "test_what_imagej_cannot_hold"),
    "OME-TIFF": (EXPORT, "test_ome_tiff"),
    "OME-Zarr 0.4": (EXPORT, "test_ome_zarr_of_version_0_4"),
    "OME-Zarr 0.4 in place": (IN_PLACE, "test_readers_of_v2_alone_open_the_volume_itself"),
    "OME-Zarr 0.4 in place, killed": (
        IN_PLACE,
        "test_what_was_interrupted_is_not_read_and_goes_on",
    ),
    "OME-Zarr 0.4 in place, replaced": (
        IN_PLACE,
        "test_a_result_that_is_replaced_takes_its_copy_along",
    ),
    "OME-Zarr 0.4 in place, other readers": (
        READERS,
        "test_readers_of_version_0_4_open_the_copy_in_place",
    ),
    "meshes go on": (EXPORT, "test_meshes_that_failed_go_on_where_they_were"),
    "HDF5 for others": (EXPORT, "test_hdf5"),
    "precomputed for others": (EXPORT, "test_precomputed"),
    "GLB, PLY": (EXPORT, "test_ply_and_glb_are_read_by_trimesh"),
    "STL": (EXPORT, "test_stl"),
    "CSV, TSV": (EXPORT, "test_tables_of_text"),
    "XLSX": (EXPORT, "test_a_workbook"),
    "folders go on": (EXPORT, "test_what_failed_goes_on_where_it_was"),
    "files go on": (EXPORT, "test_a_file_that_failed_goes_on_where_it_was"),
    "object storage goes on": (
        "storage/test_remote.py",
        "test_an_export_that_failed_goes_on_where_it_was",
    ),
    "BioImage.IO 0.4": (
        "exchange/test_older_packages.py",
        "test_a_network_of_other_names_is_found_and_its_code_is_not_run",
    ),
    "Feret diameter": ("measures/test_outline.py", "test_feret_diameter_by_definition"),
    "solidity": ("measures/test_outline.py", "test_solidity_is_that_of_scikit_image"),
    "perimeter": ("measures/test_outline.py", "test_perimeters_are_those_of_scikit_image"),
    "circularity": ("measures/test_outline.py", "test_circles_are_round_whatever_the_pixels"),
    "ome-zarr-py": (READERS, "test_ome_zarr_py"),
    "napari": (READERS, "test_the_reader_of_napari"),
    "ngio": (READERS, "test_ngio"),
    "neuroglancer": (READERS, "test_neuroglancer"),
}


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_its_test(row):
    file, name = ROWS[row]
    assert name in names_in(file)
