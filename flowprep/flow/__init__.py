"""Optical-flow engines: gray frames to flow."""
