"""`python -m nondet_probe` is `nondet-probe`."""

from nondet_probe.cli import main

if __name__ == "__main__":
    main()
