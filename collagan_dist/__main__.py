"""`python -m collagan_dist` is the installed command `collagan`."""

from collagan_dist.commands.main import main

if __name__ == "__main__":
    main()
