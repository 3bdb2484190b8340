"""The command line: parse, call one domain function, render. One file per command."""

from migrator.cli.root import root

__all__ = ["root"]
