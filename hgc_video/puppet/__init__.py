"""The embedded model `puppet`: its procedural world, its training and its weights."""
