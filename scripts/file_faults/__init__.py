"""The campaign of scripts/faults.py: commands that are cut off at every boundary of their files."""
