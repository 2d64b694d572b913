"""Builders of models, one file a family. `import ssd_zoo` registers them all."""
