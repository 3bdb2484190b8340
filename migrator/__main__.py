"""The `migrator` command."""

from migrator.cli import root


def main() -> None:
    root.main(prog_name="migrator")


if __name__ == "__main__":
    main()
