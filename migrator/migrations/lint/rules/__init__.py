"""One module a rule, each with `RULE`; whatever lies here is run."""
