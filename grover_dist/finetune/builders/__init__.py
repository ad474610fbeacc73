"""Builders of labelled tables from a genome and its annotation: promoter identity, promoter scanning, CTCF binding."""
