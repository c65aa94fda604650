"""``python -m realmbench``."""

from realmbench.cli import main

if __name__ == "__main__":
    main()
