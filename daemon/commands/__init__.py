"""The commands of the command line that say more than one call, one file each. `daemon/cli.py` lists them."""
