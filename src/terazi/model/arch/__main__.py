"""Lists the supported architectures: ``python -m terazi.model.arch``."""

from terazi.model.arch import architectures

for table in architectures():
    print(f"{table.name:20} {', '.join(table.classes)}")
