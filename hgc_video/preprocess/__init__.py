"""Controls taken from raw films: one preprocessor a file, a registry, and what they found kept on disk"""
