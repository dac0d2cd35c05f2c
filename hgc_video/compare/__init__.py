"""Runs methods on the same clips and noise and tells what each costs and what it loses."""
