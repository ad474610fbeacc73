"""Masked-language-model pretraining of one candidate vocabulary, and the export of its model."""
