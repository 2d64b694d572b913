"""Builders of models: one file a family, and one for clips. `import ssd_zoo` registers them."""
