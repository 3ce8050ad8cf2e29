"""Lists the supported architectures: ``python -m terazi.model.arch``."""

from terazi.model.arch import architecture_table

print(architecture_table())
