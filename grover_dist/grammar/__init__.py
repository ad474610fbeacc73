"""The grammar book: what each word of the vocabulary is, where it stands, what it goes with, and the rules over words."""
