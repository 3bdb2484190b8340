"""Other engines at the job of `make bench`: the same log, folded into the same table."""
