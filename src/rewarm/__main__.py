"""`python -m rewarm` is the command `rewarm`."""

import sys

if __name__ == "__main__":
    try:
        from rewarm.cli import main

        code = main()
    except KeyboardInterrupt:  # while the command itself was read
        sys.stderr.write("rewarm: stopped by the keyboard\n")
        code = 130
    sys.exit(code)
