"""Methods on equal terms: runs on the same clips and noise, their figures, tables and page."""
