"""Run by Python at its start where this folder is on its path: the workers of a batch, which are processes
begun anew, reach the points, too. Not multiprocessing's tracker, which has nothing of the package."""

import sys

if any("spawn_main" in word for word in sys.orig_argv):
    from scripts.file_faults.points import install

    install()
