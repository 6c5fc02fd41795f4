"""Recipes: the settings that named datasets are extracted with, one .toml each."""
