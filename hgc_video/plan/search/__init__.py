"""Finds schedules: the best key steps exactly, hill-climbing from there, carrying over to other models."""
