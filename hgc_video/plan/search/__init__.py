"""Finds schedules: the best key steps exactly, hill-climbing from there, and carrying over to other models."""
