"""Where and when. The only package that knows Ray; what is computed stands in the packages above."""
