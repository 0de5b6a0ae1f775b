"""The work of the command `prepare`: options of a folder, its layout, and what is printed."""
