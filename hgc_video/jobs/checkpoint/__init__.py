"""Checkpoints: a run's state in a work folder, so that it goes on after its process ended."""
