"""Medical volumes and DICOM series: reading them, cutting them into slices, and putting masks back."""
