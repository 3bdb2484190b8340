"""Lint what a revision sends: what would block, break or lose something in production."""
