"""The 96 % record: `python -m experiments.speedrun.airbench96 --runs N --data-dir PATH`."""

import sys

from experiments.speedrun.command import main

if __name__ == "__main__":
    sys.exit(main("airbench96"))
