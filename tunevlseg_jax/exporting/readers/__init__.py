"""Files that are copied beside an export, and that need nothing of this package."""
