"""Trains every part of `puppet` from nothing: data, VAE, text encoder, denoiser."""
