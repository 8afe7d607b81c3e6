"""``python -m cegppo_lab``."""

from cegppo_lab.cli import main

if __name__ == "__main__":
    main()
