"""Measures of an encoder beside its losses."""
