"""``python -m terazi``."""

from terazi.cli import main

main()
