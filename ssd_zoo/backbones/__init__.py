"""Networks that give a list of feature maps; one file a family."""
