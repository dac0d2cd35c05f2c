"""Damaged and hostile input for everything that reads files or texts, each tried in a process of its own"""
