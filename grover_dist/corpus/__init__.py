"""The Arrow store of bases and boundary levels, and the path from it to a batch."""
