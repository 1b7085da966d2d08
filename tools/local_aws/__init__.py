"""Builds, deploys and demonstrates the project on a local AWS.

This package imports `ops`. `ops` never imports this package, because a release has only `ops`.
"""
